#include "node/config_checker.hpp"

#include <fmt/format.h>

#include <utility>

namespace replblk::node {

namespace {

constexpr int kVolumesMax = 256;
constexpr std::size_t kHandlerBytesMax = 4096;
/// protocol.md 3.7, with an arbiter that remembers.
constexpr Duration kDegradedStartAfter = seconds(120);

}  // namespace

void ConfigChecker::check_resource(const ConfigSection& section) {
  ResourceConfig made;
  check_name(section, "name");
  made.name = section.text("name");
  if (section.text("name") == "all")
    section.complain("name", "\"all\" is taken", "replblkctl means every resource by it");
  if (section.has("name") && !resource_names_.insert(section.text("name")).second) {
    section.complain("name", fmt::format("{} is used twice", in_quotes(section.text("name"))),
                     "each resource has its own name");
  }
  if (section.has("target")) {
    made.target = check_target(section.child("target"));
  } else {
    section.missing("target", "a resource is served as one iSCSI target");
  }
  if (section.count("volume") == 0) section.missing("volume", "a resource has at least one volume");
  if (section.count("volume") > kVolumesMax) {
    section.complain("volume", kVolumesMax, "is one too many", fmt::format("at most {} volumes", kVolumesMax));
  }
  std::set<std::uint32_t> luns;
  for (int index = 0; index < section.count("volume"); ++index) {
    const ConfigSection volume = section.child("volume", index);
    made.volumes.push_back(check_volume(volume));
    if (volume.has("lun") && !luns.insert(volume.number("lun")).second) {
      volume.complain("lun", fmt::format("{} is used twice", volume.number("lun")),
                      "each LUN of a resource must be unique");
    }
  }
  if (section.has("resync")) made.resync = check_resync(section.child("resync"));
  if (section.has("activity_log")) {
    made.activity_log.extents = section.child("activity_log").number("extents", 67, 65534);
    made.activity_log.updates = section.child("activity_log").flag("updates");
  }
  for (int index = 0; index < section.count("virtual_ip"); ++index) {
    made.virtual_ips.push_back(check_virtual_ip(section.child("virtual_ip", index)));
  }
  if (section.has("handlers")) made.handlers = check_handlers(section.child("handlers"));
  made.after_split_brain = check_split_policies(section);
  if (section.has("preferred_node")) {
    const std::optional<std::size_t> node = find_node(section.text("preferred_node"));
    if (node) made.preferred_node = static_cast<NodeIndex>(*node);
    if (!node)
      section.complain("preferred_node", fmt::format("there is no node {}", in_quotes(section.text("preferred_node"))),
                       fmt::format("the name of a node: {}", node_names()));
  }
  if (section.has("failback_after_s") && section.number("failback_after_s") != 0) {
    made.failback_after = seconds(section.number("failback_after_s", 10, 86400));
    if (!section.has("preferred_node")) section.missing("preferred_node", "where the role goes back to");
  }
  if (!section.has("degraded_start_after_s")) {
    if (std::holds_alternative<EtcdConfig>(config_.arbiter)) made.degraded_start_after = kDegradedStartAfter;
  } else if (section.number("degraded_start_after_s") != 0) {
    made.degraded_start_after = seconds(section.number("degraded_start_after_s", 10, 86400));
  }
  if (section.has("undo_directory")) made.undo_directory = check_directory(section, "undo_directory");
  config_.resources.push_back(std::move(made));
}

HandlersConfig ConfigChecker::check_handlers(const ConfigSection& section) {
  HandlersConfig made;
  for (std::size_t index = 0; index < kHandlerEventsCount; ++index) {
    const char* name = kHandlerNames[index];
    if (!section.has(name)) continue;
    made.commands[index] = section.text(name);
    const std::size_t length = made.commands[index].size();
    if (length == 0 || length > kHandlerBytesMax || made.commands[index].find('\0') != std::string::npos)
      section.complain(name, fmt::format("{} bytes", length),
                       fmt::format("a command for /bin/sh, 1 to {} bytes, without NUL", kHandlerBytesMax));
  }
  made.timeout = section.milliseconds_of("timeout_ms", 100, 25000);
  return made;
}

VirtualIpConfig ConfigChecker::check_virtual_ip(const ConfigSection& section) {
  VirtualIpConfig made;
  constexpr std::string_view kRule = "a numeric address and the length of its prefix, as in 192.0.2.100/24";
  if (!section.has("address")) {
    section.missing("address", kRule);
  } else if (const auto parsed = parse_address_and_prefix(section.text("address")); !parsed) {
    section.complain("address", fmt::format("{} cannot be used", in_quotes(section.text("address"))), kRule);
  } else if (node_addresses_.contains(parsed->address.canonical)) {
    section.complain("address", fmt::format("{} is the address of a node", in_quotes(section.text("address"))),
                     "an address that moves is no node's own");
  } else if (path_addresses_.contains(parsed->address.canonical)) {
    section.complain("address", fmt::format("{} is an end of a heartbeat's path", in_quotes(section.text("address"))),
                     "an address that moves is no node's own");
  } else if (probed_addresses_.contains(parsed->address.canonical)) {
    section.complain("address",
                     fmt::format("{} is an address that the arbiter pings", in_quotes(section.text("address"))),
                     "the node that holds it would hear itself");
  } else if (!virtual_addresses_.insert(parsed->address.canonical).second) {
    section.complain("address", fmt::format("{} is used twice", in_quotes(section.text("address"))),
                     "each is named once in the file");
  } else {
    made.address = parsed->address.canonical;
    made.prefix_bits = parsed->prefix_bits;
  }
  if (section.has("device") == (section.count("interface") > 0)) {
    section.missing("device", "the name of a network interface, or an `interface` for each node, and not both");
    return made;
  }
  const auto check_device = [&](const ConfigSection& where) {
    const std::string device = where.text("device");
    if (!is_interface_name(device))
      where.complain("device", fmt::format("{} is no name of an interface", in_quotes(device)),
                     "1 to 15 letters without '/' and blanks");
    return device;
  };
  if (section.has("device")) made.device = check_device(section);
  std::set<std::size_t> named;
  for (int index = 0; index < section.count("interface"); ++index) {
    const ConfigSection interface = section.child("interface", index);
    const std::optional<std::size_t> on = check_on(interface);
    const std::string device = check_device(interface);
    if (!on) continue;
    if (!named.insert(*on).second)
      interface.complain("on", fmt::format("{} is named twice", in_quotes(interface.text("on"))),
                         "one interface for each node");
    if (*on == config_.self) made.device = device;
  }
  if (section.count("interface") > 0 && named.size() < config_.nodes.size())
    section.missing("interface", "one interface for each node");
  return made;
}

ResyncConfig ConfigChecker::check_resync(const ConfigSection& section) {
  ResyncConfig made;
  const std::uint32_t maximum = section.number("rate_max_kib_per_second", 0, 4194304);
  const std::uint32_t minimum = section.number("rate_min_kib_per_second", 1, 4194304);
  // A maximum below the default minimum lowers that, too.
  const bool is_too_fast = maximum != 0 && minimum > maximum;
  if (is_too_fast && section.has("rate_min_kib_per_second")) {
    section.complain("rate_min_kib_per_second", fmt::format("{} is too much", minimum),
                     fmt::format("not above rate_max_kib_per_second, which is {}", maximum));
  }
  made.rate_max_bytes_per_second = std::uint64_t{maximum} * 1024;
  made.rate_min_bytes_per_second = std::uint64_t{is_too_fast ? maximum : minimum} * 1024;
  made.latency_budget = section.fraction("latency_budget", 0.01, 100);
  const std::string checksum = section.word("checksum");
  made.checksum = checksum == "always"  ? ChecksumUse::always
                  : checksum == "never" ? ChecksumUse::never
                                        : ChecksumUse::automatic;
  return made;
}

replication::SplitPolicies ConfigChecker::check_split_policies(const ConfigSection& section) {
  replication::SplitPolicies made;
  constexpr std::string_view kDiscardNode = "discard-node-";
  const auto refuse = [&](const char* key, const std::string& keyword, std::string_view known) {
    if (keyword == "call-pri-lost-after-sb") {
      section.complain(
          key, fmt::format("{} needs a handler that reboots the node", in_quotes(keyword)),
          "replblk runs none and needs none: violently-as0p makes a Primary that gives up Secondary first");
    } else {
      section.complain(key, fmt::format("{} is not a policy here", in_quotes(keyword)), known);
    }
  };
  if (const std::string keyword = section.text("after_sb_0pri"); keyword.starts_with(kDiscardNode)) {
    const std::optional<std::size_t> node = find_node(std::string_view(keyword).substr(kDiscardNode.size()));
    made.without_primary = replication::AfterSb0::discard_node;
    if (node) {
      made.discarded_node = static_cast<NodeIndex>(*node);
    } else {
      section.complain("after_sb_0pri", fmt::format("{} names no node", in_quotes(keyword)),
                       fmt::format("after discard-node- comes the name of a node: {}", node_names()));
    }
  } else if (const auto policy = replication::parse_after_sb_0pri(keyword)) {
    made.without_primary = *policy;
  } else {
    refuse("after_sb_0pri", keyword,
           "disconnect, discard-node-NAME, discard-younger-primary, discard-older-primary, discard-zero-changes or "
           "discard-least-changes");
  }
  if (const auto policy = replication::parse_after_sb_1pri(section.text("after_sb_1pri"))) {
    made.with_one_primary = *policy;
  } else {
    refuse("after_sb_1pri", section.text("after_sb_1pri"),
           "disconnect, consensus, discard-secondary or violently-as0p");
  }
  if (const auto policy = replication::parse_after_sb_2pri(section.text("after_sb_2pri"))) {
    made.with_two_primaries = *policy;
  } else {
    refuse("after_sb_2pri", section.text("after_sb_2pri"), "disconnect or violently-as0p");
  }
  return made;
}

}  // namespace replblk::node
