#include "node/config_rules.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <filesystem>

namespace replblk::node {

namespace {

constexpr std::size_t kNameBytesMax = 63;        // a DNS label's
constexpr std::size_t kIscsiNameBytesMax = 223;  // RFC 7143 4.2.7.1
constexpr std::size_t kPathBytesMax = 4095;      // PATH_MAX without its NUL

bool is_digit(char character) noexcept { return character >= '0' && character <= '9'; }
bool is_lower(char character) noexcept { return character >= 'a' && character <= 'z'; }
bool is_upper(char character) noexcept { return character >= 'A' && character <= 'Z'; }
bool is_hex(char character) noexcept {
  return is_digit(character) || (character >= 'a' && character <= 'f') || (character >= 'A' && character <= 'F');
}
char to_lower(char character) noexcept {
  return is_upper(character) ? static_cast<char>(character - 'A' + 'a') : character;
}

/// One label of a domain name.
bool is_label(std::string_view text) noexcept {
  return !text.empty() && text.size() <= kNameBytesMax && text.front() != '-' && text.back() != '-' &&
         std::ranges::all_of(text, [](char c) { return is_lower(c) || is_digit(c) || c == '-'; });
}

std::optional<std::string_view> iqn_violation(std::string_view rest) {
  constexpr std::string_view kDateRule =
      "after \"iqn.\" come a date YYYY-MM, a dot and a reversed domain name, as in iqn.2026-11.org.example:disk (RFC "
      "7143 "
      "4.2.7.4)";
  const bool has_date = rest.size() > 8 && std::ranges::all_of(rest.substr(0, 4), is_digit) && rest[4] == '-' &&
                        is_digit(rest[5]) && is_digit(rest[6]) && rest[7] == '.';
  if (!has_date) return kDateRule;
  const int month = (rest[5] - '0') * 10 + (rest[6] - '0');
  if (month < 1 || month > 12) return "the month of an iqn is 01 to 12 (RFC 7143 4.2.7.4)";
  std::string_view domain = rest.substr(8, rest.find(':') == std::string_view::npos ? rest.npos : rest.find(':') - 8);
  while (true) {
    const std::size_t dot = domain.find('.');
    if (!is_label(domain.substr(0, dot))) {
      return "the domain of an iqn is labels of letters, digits and '-' with dots between them (RFC 7143 4.2.7.4)";
    }
    if (dot == std::string_view::npos) break;
    domain.remove_prefix(dot + 1);
  }
  if (rest.back() == ':') return "nothing follows the colon";
  return std::nullopt;
}

}  // namespace

bool is_name(std::string_view text) noexcept {
  const auto is_alphanumeric = [](char c) { return is_digit(c) || is_lower(c) || is_upper(c); };
  return !text.empty() && text.size() <= kNameBytesMax && is_alphanumeric(text.front()) &&
         std::ranges::all_of(text, [&](char c) { return is_alphanumeric(c) || c == '_' || c == '.' || c == '-'; });
}

bool is_same_name(std::string_view left, std::string_view right) noexcept {
  return std::ranges::equal(left, right, {}, to_lower, to_lower);
}

std::optional<Address> parse_address(std::string_view text) {
  const std::string terminated(text);
  if (terminated.find('\0') != std::string::npos) return std::nullopt;
  std::array<char, INET6_ADDRSTRLEN> spelling{};
  Address address;
  in_addr v4{};
  in6_addr v6{};
  if (inet_pton(AF_INET, terminated.c_str(), &v4) == 1) {
    address.canonical = inet_ntop(AF_INET, &v4, spelling.data(), spelling.size());
    address.is_unspecified = v4.s_addr == 0;
    address.is_multicast = (ntohl(v4.s_addr) >> 28) == 0xe;
    address.is_loopback = (ntohl(v4.s_addr) >> 24) == 127;
    return address;
  }
  if (inet_pton(AF_INET6, terminated.c_str(), &v6) == 1) {
    address.canonical = inet_ntop(AF_INET6, &v6, spelling.data(), spelling.size());
    address.is_unspecified = std::ranges::all_of(v6.s6_addr, [](auto byte) { return byte == 0; });
    address.is_multicast = v6.s6_addr[0] == 0xff;
    address.is_loopback = address.canonical == "::1";
    address.is_v6 = true;
    return address;
  }
  return std::nullopt;
}

std::optional<AddressAndPrefix> parse_address_and_prefix(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const std::optional<Address> address = parse_address(text.substr(0, slash));
  if (!address || address->is_unspecified || address->is_multicast) return std::nullopt;
  const std::string_view digits = text.substr(slash + 1);
  if (digits.empty() || digits.size() > 3 || digits.front() == '0' || !std::ranges::all_of(digits, is_digit))
    return std::nullopt;
  unsigned bits = 0;
  for (const char digit : digits) bits = bits * 10 + static_cast<unsigned>(digit - '0');
  const unsigned bits_max = address->is_v6 ? 128 : 32;
  if (bits > bits_max) return std::nullopt;
  return AddressAndPrefix{*address, bits};
}

std::optional<AddressAndPort> parse_address_and_port(std::string_view text) {
  std::string_view host = text;
  std::string_view digits;
  const bool is_bracketed = text.starts_with('[');
  if (is_bracketed) {
    const std::size_t close = text.find("]:");
    if (close == std::string_view::npos) return std::nullopt;
    host = text.substr(1, close - 1);
    digits = text.substr(close + 2);
  } else if (const std::size_t colon = text.find(':');
             colon != std::string_view::npos && colon == text.rfind(':')) {  // More than one: IPv6 without a port.
    host = text.substr(0, colon);
    digits = text.substr(colon + 1);
  }
  AddressAndPort parsed;
  const std::optional<Address> address = parse_address(host);
  if (!address || (is_bracketed && !address->is_v6)) return std::nullopt;
  parsed.address = *address;
  if (host.size() == text.size()) return parsed;
  if (digits.empty() || digits.size() > 5 || digits.front() == '0' || !std::ranges::all_of(digits, is_digit))
    return std::nullopt;
  unsigned port = 0;
  for (const char digit : digits) port = port * 10 + static_cast<unsigned>(digit - '0');
  if (port > 65535) return std::nullopt;
  parsed.port = static_cast<std::uint16_t>(port);
  return parsed;
}

std::optional<EndpointUrl> parse_endpoint_url(std::string_view text) {
  EndpointUrl url;
  url.has_tls = text.starts_with("https://");
  if (!url.has_tls && !text.starts_with("http://")) return std::nullopt;
  text.remove_prefix(url.has_tls ? 8 : 7);
  if (text.ends_with('/')) text.remove_suffix(1);
  const std::optional<AddressAndPort> endpoint = parse_address_and_port(text);
  if (!endpoint || endpoint->port == 0) return std::nullopt;
  url.endpoint = *endpoint;
  return url;
}

bool is_interface_name(std::string_view text) noexcept {
  constexpr std::size_t kInterfaceBytesMax = 15;
  return !text.empty() && text.size() <= kInterfaceBytesMax && text != "." && text != ".." &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c < '\x7f' && c != '/' && c != ':'; });
}

std::optional<std::string_view> iscsi_name_violation(std::string_view text) {
  if (text.size() > kIscsiNameBytesMax) return "an iSCSI name has at most 223 bytes (RFC 7143 4.2.7.1)";
  if (std::ranges::any_of(text, is_upper) && !text.starts_with("eui.") && !text.starts_with("naa.")) {
    return "an iSCSI name is lower case (RFC 7143 4.2.7.2)";
  }
  const auto is_allowed = [](char c) {
    return is_lower(c) || is_upper(c) || is_digit(c) || c == '-' || c == '.' || c == ':';
  };
  if (!std::ranges::all_of(text, is_allowed)) {
    return "an iSCSI name has letters, digits, '-', '.' and ':' only (RFC 7143 4.2.7.2)";
  }
  if (text.starts_with("iqn.")) return iqn_violation(text.substr(4));
  if (text.starts_with("eui.")) {
    const std::string_view digits = text.substr(4);
    if (digits.size() == 16 && std::ranges::all_of(digits, is_hex)) return std::nullopt;
    return "after \"eui.\" come 16 hex digits (RFC 7143 4.2.7.5)";
  }
  if (text.starts_with("naa.")) {
    const std::string_view digits = text.substr(4);
    if ((digits.size() == 16 || digits.size() == 32) && std::ranges::all_of(digits, is_hex)) return std::nullopt;
    return "after \"naa.\" come 16 or 32 hex digits (RFC 7143 4.2.7.6)";
  }
  return "an iSCSI name begins with \"iqn.\", \"eui.\" or \"naa.\" (RFC 7143 4.2.7.3)";
}

std::optional<std::string_view> path_violation(std::string_view text) {
  if (!text.starts_with('/')) return "a path is absolute";
  if (text.size() > kPathBytesMax) return "a path has at most 4095 bytes";
  if (std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; })) {
    return "a path has no control characters";
  }
  if (text.ends_with('/')) return "a path names a device or file, not a directory";
  return std::nullopt;
}

std::string normal_path(std::string_view text) {
  std::string normal = std::filesystem::path(text).lexically_normal().string();
  // POSIX leaves the meaning of two leading slashes open; Linux takes them as one.
  if (normal.starts_with("//")) normal.erase(0, normal.find_first_not_of('/') - 1);
  return normal;
}

}  // namespace replblk::node
