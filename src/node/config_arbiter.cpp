#include "node/config_checker.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "node/config_secret.hpp"

namespace replblk::node {

namespace {

constexpr int kEndpointsMax = 9;
constexpr int kAddressesMax = 16;
constexpr std::size_t kUserBytesMax = 255;
constexpr std::size_t kPasswordBytesMax = 1024;
constexpr std::size_t kServerNameBytesMax = 253;  // RFC 1035 2.3.4, without the root's dot

bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= ' ' && c != '\x7f'; });
}

/// The path of a file that can be read; empty after a complaint, and where none is named.
std::string check_file(const ConfigSection& section, const char* key, const std::string& path,
                       std::string_view content) {
  if (path.empty()) return {};
  if (auto readable = check_readable_file(path, content); !readable) {
    section.complain(key, fmt::format("{} {}", in_quotes(path), readable.error().verdict), readable.error().rule);
    return {};
  }
  return path;
}

}  // namespace

ArbiterConfig ConfigChecker::check_arbiter(const ConfigSection& section) {
  if (section.has("etcd")) return check_etcd(section.child("etcd"));
  if (section.has("ping")) return check_ping(section.child("ping"));
  if (!section.has("none")) section.missing("none", "an arbiter is none, etcd or ping");
  return NoArbiterConfig{};
}

EtcdConfig ConfigChecker::check_etcd(const ConfigSection& section) {
  EtcdConfig made;
  made.timeout = section.milliseconds_of("timeout_ms", 200, 30000);
  const int endpoints = section.count("endpoint");
  if (endpoints == 0) section.missing("endpoint", "where etcd is, as in \"https://192.0.2.9:2379\"");
  if (endpoints > kEndpointsMax)
    section.complain("endpoint", kEndpointsMax, "is one too many", fmt::format("at most {} endpoints", kEndpointsMax));
  bool is_third_party = false;
  std::set<std::pair<std::string, std::uint16_t>> seen;
  for (int index = 0; index < endpoints; ++index) {
    const std::string text = section.text("endpoint", index);
    const std::optional<EndpointUrl> url = parse_endpoint_url(text);
    const auto refuse = [&](std::string_view verdict, std::string_view rule) {
      section.complain("endpoint", index, fmt::format("{} {}", in_quotes(text), verdict), rule);
    };
    if (!url || url->endpoint.address.is_unspecified || url->endpoint.address.is_multicast) {
      refuse("cannot be used", "http:// or https://, a numeric address and a port, as in \"https://192.0.2.9:2379\"");
      continue;
    }
    const Address& address = url->endpoint.address;
    if (!seen.emplace(address.canonical, url->endpoint.port).second) refuse("is used twice", "each is named once");
    if (made.endpoints.empty()) {
      made.has_tls = url->has_tls;
    } else if (made.has_tls != url->has_tls) {
      refuse("is of another scheme than the first one", "all are http, or all https");
    }
    is_third_party = is_third_party || !node_addresses_.contains(address.canonical);
    made.endpoints.push_back({address.canonical, url->endpoint.port});
  }
  if (!made.endpoints.empty() && !is_third_party)
    section.complain("endpoint", 0, "etcd is on the nodes only",
                     "an arbiter is a third party: what ends a node must not end it, too");
  if (section.has("user") != section.has("password_file")) {
    section.missing(section.has("user") ? "password_file" : "user", "a user and a password, or neither");
  } else if (section.has("user")) {
    made.user = section.text("user");
    if (made.user.empty() || made.user.size() > kUserBytesMax || !is_printable(made.user))
      section.complain("user", fmt::format("{} is not a user", in_quotes(made.user)),
                       fmt::format("1 to {} bytes, without control characters", kUserBytesMax));
    if (const std::string path = check_path(section, "password_file"); !path.empty()) {
      auto password =
          read_secret_file(path, {.content = "a password",
                                  .how_to_make = fmt::format("write the password of the user {} to it", made.user),
                                  .bytes_max = kPasswordBytesMax});
      if (password) {
        made.password = std::move(*password);
      } else {
        section.complain("password_file", fmt::format("{} {}", in_quotes(path), password.error().verdict),
                         password.error().rule);
      }
    }
  }
  if (section.has("tls")) {
    if (!made.endpoints.empty() && !made.has_tls) section.complain("tls", "the endpoints are http", "only with https");
    check_tls(section.child("tls"), made);
  }
  return made;
}

void ConfigChecker::check_tls(const ConfigSection& section, EtcdConfig& made) {
  const auto path_of = [&](const char* key) { return section.has(key) ? check_path(section, key) : std::string(); };
  made.ca_file = check_file(section, "ca_file", path_of("ca_file"), "certificates");
  if (section.has("cert_file") != section.has("key_file"))
    section.missing(section.has("cert_file") ? "key_file" : "cert_file", "a certificate and its key, or neither");
  made.cert_file = check_file(section, "cert_file", path_of("cert_file"), "a certificate");
  if (const std::string path = path_of("key_file"); !path.empty()) {
    constexpr std::size_t kKeyBytesMax = std::size_t{64} << 10;
    const auto key = read_secret_file(
        path,
        {.content = "a key", .how_to_make = "the key of the certificate in cert_file", .bytes_max = kKeyBytesMax});
    if (key) {
      made.key_file = path;
    } else {
      section.complain("key_file", fmt::format("{} {}", in_quotes(path), key.error().verdict), key.error().rule);
    }
  }
  made.server_name = section.text("server_name");
  if (section.has("server_name") && (made.server_name.empty() || made.server_name.size() > kServerNameBytesMax ||
                                     !is_printable(made.server_name) || made.server_name.contains(' ')))
    section.complain("server_name", fmt::format("{} is not a name", in_quotes(made.server_name)),
                     fmt::format("1 to {} bytes, without blanks", kServerNameBytesMax));
}

PingConfig ConfigChecker::check_ping(const ConfigSection& section) {
  PingConfig made;
  made.timeout = section.milliseconds_of("timeout_ms", 100, 10000);
  const int addresses = section.count("address");
  if (addresses == 0) section.missing("address", "an address that answers unless this node is cut off: the gateway");
  if (addresses > kAddressesMax)
    section.complain("address", kAddressesMax, "is one too many", fmt::format("at most {} addresses", kAddressesMax));
  const auto is_loopback = [](const std::string& node) {
    const auto address = parse_address(node);
    return address && address->is_loopback;
  };
  const bool are_nodes_loopback = std::ranges::all_of(node_addresses_, is_loopback);
  std::set<std::pair<std::string, std::uint16_t>> seen;
  for (int index = 0; index < addresses; ++index) {
    const std::string text = section.text("address", index);
    const std::optional<AddressAndPort> parsed = parse_address_and_port(text);
    const auto refuse = [&](std::string_view verdict, std::string_view rule) {
      section.complain("address", index, fmt::format("{} {}", in_quotes(text), verdict), rule);
    };
    if (!parsed || parsed->address.is_unspecified || parsed->address.is_multicast) {
      refuse("cannot be used", "a numeric address, with a port for TCP, as in \"192.0.2.1\" or \"192.0.2.1:22\"");
      continue;
    }
    const std::string& address = parsed->address.canonical;
    if (!seen.emplace(address, parsed->port).second) refuse("is used twice", "each is named once");
    if (node_addresses_.contains(address) || path_addresses_.contains(address)) {
      refuse("is an address of a node", "it must answer when the peer is dead, and only while this node is connected");
    } else if (parsed->address.is_loopback && !are_nodes_loopback) {
      refuse("is this host itself", "it must answer only while this node is connected to something else");
    }
    probed_addresses_.insert(address);
    made.addresses.push_back({address, parsed->port});
  }
  return made;
}

}  // namespace replblk::node
