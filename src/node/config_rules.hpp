// The rules that single values of node.conf obey: names, numeric addresses, iSCSI names, paths. Pure functions on text.
// Not responsible for places in the file or for rules between values: ConfigChecker does that, and is the only caller.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace replblk::node {

inline constexpr std::string_view kNameRule =
    "a name is 1 to 63 letters, digits, '_', '.' or '-', and begins with a letter or digit";
[[nodiscard]] bool is_name(std::string_view text) noexcept;

/// Host names compare without regard to case.
[[nodiscard]] bool is_same_name(std::string_view left, std::string_view right) noexcept;

struct Address {
  std::string canonical;        ///< one spelling per address, for comparison
  bool is_unspecified = false;  ///< 0.0.0.0 or ::
  bool is_multicast = false;
  bool is_loopback = false;
  bool is_v6 = false;
};
/// Numeric IPv4 or IPv6, without brackets, zone or prefix length.
[[nodiscard]] std::optional<Address> parse_address(std::string_view text);

struct AddressAndPrefix {
  Address address;
  unsigned prefix_bits = 0;
};
/// "192.0.2.100/24": an address of one host, and 1 to 32 or 128 bits.
[[nodiscard]] std::optional<AddressAndPrefix> parse_address_and_prefix(std::string_view text);

struct AddressAndPort {
  Address address;
  std::uint16_t port = 0;  ///< 0: none was given
};
/// "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or "[2001:db8::1]:80"; a port is 1 to 65535.
[[nodiscard]] std::optional<AddressAndPort> parse_address_and_port(std::string_view text);

struct EndpointUrl {
  AddressAndPort endpoint;
  bool has_tls = false;
};
/// "https://192.0.2.9:2379" or "http://[2001:db8::9]:2379", with or without a slash at the end.
[[nodiscard]] std::optional<EndpointUrl> parse_endpoint_url(std::string_view text);

/// What the kernel allows (dev_valid_name): 1 to 15 bytes, no '/', ':' or blanks, not "." or "..".
[[nodiscard]] bool is_interface_name(std::string_view text) noexcept;

/// RFC 7143 4.2.7: nothing when `text` is a good iSCSI name, or else the rule that it breaks.
[[nodiscard]] std::optional<std::string_view> iscsi_name_violation(std::string_view text);

/// Nothing when `text` can be a path in the file, or else the rule that it breaks.
[[nodiscard]] std::optional<std::string_view> path_violation(std::string_view text);
/// The same path in one spelling: "/dev//vdb" and "/dev/./vdb" become "/dev/vdb". Does not look at the file system.
[[nodiscard]] std::string normal_path(std::string_view text);

}  // namespace replblk::node
