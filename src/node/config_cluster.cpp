#include "node/config_checker.hpp"

#include <fmt/format.h>

#include <utility>

#include "node/config_secret.hpp"

namespace replblk::node {

namespace {

constexpr std::size_t kSecretBytesMin = 16;       // 128 bits
constexpr std::size_t kSocketPathBytesMax = 107;  // sockaddr_un::sun_path without its NUL
constexpr int kPathsMax = 16;                     // a heartbeat has room for 32 (docs/heartbeat.md)
constexpr int kIntervalsPerLeaseMin = 5;

}  // namespace

void ConfigChecker::check_cluster(const ConfigSection& section) {
  check_name(section, "name");
  config_.name = section.text("name");
  if (section.count("node") == 0) section.missing("node", "a cluster has two nodes, or one without a mirror");
  if (section.count("node") > 2) {
    section.complain("node", 2, "is one too many", "a cluster has two nodes, or one without a mirror");
  }
  for (int index = 0; index < section.count("node"); ++index) check_node(section.child("node", index));
  config_.replication_port = static_cast<std::uint16_t>(section.number("replication_port", 1, 65535));
  config_.connect_interval = section.milliseconds_of("connect_interval_ms", 100, 120000);
  config_.ping_interval = section.milliseconds_of("ping_interval_ms", 100, 120000);
  config_.ping_timeout = section.milliseconds_of("ping_timeout_ms", 100, 30000);
  config_.peer_timeout = section.milliseconds_of("peer_timeout_ms", 100, 60000);
  config_.flush_interval = section.milliseconds_of("flush_interval_ms", 100, 60000);
  choose_self(section);
  if (section.has("secret_file")) {
    check_secret(section);
  } else if (section.count("node") > 1) {
    section.missing("secret_file", "the nodes of a pair prove to each other who they are with a shared secret");
  }
  if (section.has("heartbeat")) {
    if (section.count("node") == 1) section.complain("heartbeat", "there is one node", "a node alone hears nobody");
    config_.heartbeat = check_heartbeat(section.child("heartbeat"));
  }
  if (section.has("arbiter")) config_.arbiter = check_arbiter(section.child("arbiter"));
  if (section.count("node") == 1 && !std::holds_alternative<NoArbiterConfig>(config_.arbiter))
    section.complain("arbiter", "there is one node", "an arbiter decides between two");
}

void ConfigChecker::check_node(const ConfigSection& section) {
  check_name(section, "name");
  if (section.has("name") && find_node(section.text("name"))) {
    section.complain("name", fmt::format("{} is used twice", in_quotes(section.text("name"))),
                     "each node has its own name (case does not count)");
  }
  const std::optional<Address> address = check_address(section, "address");
  if (address && address->is_unspecified) {
    section.complain("address", fmt::format("{} is no node's address", in_quotes(section.text("address"))),
                     "the peer connects to it, so it names one host");
  } else if (address && !node_addresses_.insert(address->canonical).second) {
    section.complain("address", fmt::format("{} is used twice", in_quotes(section.text("address"))),
                     "each node has its own address");
  }
  const std::string socket = check_path(section, "admin_socket");
  if (socket.size() > kSocketPathBytesMax) {
    section.complain("admin_socket", fmt::format("{} has {} bytes", in_quotes(socket), socket.size()),
                     fmt::format("the path of a Unix socket has at most {}", kSocketPathBytesMax));
  }
  static_cast<void>(section.number("buffer_memory_mib", 16, 65536));
  config_.nodes.push_back({section.text("name"), section.text("address")});
}

void ConfigChecker::choose_self(const ConfigSection& section) {
  if (config_.nodes.empty()) return;
  std::optional<std::size_t> self;
  if (!options_.node_name.empty()) {
    self = find_node(options_.node_name);
    if (!self) {
      section.complain("node", 0, fmt::format("there is no node {}, as --node says", in_quotes(options_.node_name)),
                       fmt::format("the nodes are {}", node_names()));
    }
  } else {
    self = find_node(options_.host_name);
    const std::string short_name = options_.host_name.substr(0, options_.host_name.find('.'));
    if (!self) self = find_node(short_name);
    if (!self) {
      section.complain("node", 0, fmt::format("none has the name of this host, {}", in_quotes(options_.host_name)),
                       fmt::format("choose one with --node: {}", node_names()));
    }
  }
  if (!self || *self > 1) return;
  config_.self = static_cast<NodeIndex>(*self);
  const ConfigSection node = section.child("node", static_cast<int>(*self));
  config_.admin_socket = normal_path(node.text("admin_socket"));
  config_.buffer_memory_mib = node.number("buffer_memory_mib");
}

void ConfigChecker::check_secret(const ConfigSection& section) {
  const std::string path = check_path(section, "secret_file");
  if (path.empty()) return;
  auto secret = read_secret_file(
      path, {.content = "a secret",
             .how_to_make = fmt::format(
                 "make it on one node (head -c 32 /dev/urandom | base64 > {}) and copy it to the other", path),
             .bytes_min = kSecretBytesMin});
  if (secret) {
    config_.secret = std::move(*secret);
  } else {
    section.complain("secret_file", fmt::format("{} {}", in_quotes(path), secret.error().verdict), secret.error().rule);
  }
}

HeartbeatConfig ConfigChecker::check_heartbeat(const ConfigSection& section) {
  HeartbeatConfig made;
  made.interval = section.milliseconds_of("interval_ms", 20, 2000);
  made.lease = section.milliseconds_of("lease_ms", 200, 30000);
  if (made.lease < kIntervalsPerLeaseMin * made.interval)
    section.complain(
        section.has("lease_ms") ? "lease_ms" : "interval_ms",
        fmt::format("a lease of {} ms and an interval of {} ms are too near", to_ms(made.lease), to_ms(made.interval)),
        fmt::format("the lease is at least {} times the interval", kIntervalsPerLeaseMin));
  made.port = static_cast<std::uint16_t>(section.number("port", 1, 65535));
  const int paths = section.count("path");
  if (paths > kPathsMax)
    section.complain("path", kPathsMax, "is one too many", fmt::format("at most {} paths", kPathsMax));
  for (int index = 0; index < paths; ++index) made.paths.push_back(check_heartbeat_path(section.child("path", index)));
  return made;
}

HeartbeatPathConfig ConfigChecker::check_heartbeat_path(const ConfigSection& section) {
  HeartbeatPathConfig made;
  constexpr std::string_view kRule = "a path has one end on each node";
  std::set<std::size_t> covered;
  std::set<bool> families;
  for (int index = 0; index < section.count("end"); ++index) {
    const ConfigSection end = section.child("end", index);
    const std::optional<std::size_t> on = check_on(end);
    const std::optional<Address> address = check_address(end, "address");
    if (on && !covered.insert(*on).second)
      end.complain("on", fmt::format("{} is used twice", in_quotes(end.text("on"))), kRule);
    if (!address) continue;
    const std::string shown = in_quotes(end.text("address"));
    if (address->is_unspecified) {
      end.complain("address", fmt::format("{} is no node's address", shown),
                   "the peer sends to it, so it names one host");
    } else if (node_addresses_.contains(address->canonical)) {
      end.complain("address", fmt::format("{} is the address of a node", shown),
                   "the nodes' addresses are a path already, without being named here");
    } else if (!path_addresses_.insert(address->canonical).second) {
      end.complain("address", fmt::format("{} is used twice", shown), "each end of a path has an address of its own");
    }
    families.insert(address->is_v6);
    if (on && *on < made.addresses.size()) made.addresses[*on] = address->canonical;
  }
  if (covered.size() < config_.nodes.size()) section.missing("end", kRule);
  if (families.size() > 1)
    section.complain("end", 0, "IPv4 does not reach IPv6", "both ends of a path are of one family");
  return made;
}

}  // namespace replblk::node
