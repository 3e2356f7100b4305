#include "ports/stream.hpp"

#include "base/assert.hpp"

namespace replblk::ports {

std::string to_string(const Endpoint& endpoint) {
  const bool is_v6 = endpoint.address.find(':') != std::string::npos;
  const std::string host = endpoint.address.empty() ? "*" : endpoint.address;
  return (is_v6 ? "[" + host + "]" : host) + ":" + std::to_string(endpoint.port);
}

std::string_view to_string(StreamError error) noexcept {
  switch (error) {
    case StreamError::closed_by_peer:
      return "closed by the other side";
    case StreamError::reset:
      return "connection reset";
    case StreamError::refused:
      return "connection refused";
    case StreamError::unreachable:
      return "host or network unreachable";
    case StreamError::timed_out:
      return "connection timed out";
  }
  RB_UNREACHABLE();
}

std::string_view to_string(ListenError error) noexcept {
  switch (error) {
    case ListenError::address_in_use:
      return "the port is taken by another process";
    case ListenError::address_not_here:
      return "the address belongs to no interface of this host";
    case ListenError::access_denied:
      return "permission denied";
    case ListenError::bad_address:
      return "not a numeric IPv4 or IPv6 address";
    case ListenError::other:
      return "the system refused to listen";
  }
  RB_UNREACHABLE();
}

}  // namespace replblk::ports
