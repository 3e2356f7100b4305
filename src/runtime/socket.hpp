// TCP and UDP sockets as system calls: addresses, options, making and binding. Plain functions over descriptors; they
// return a negated errno. Not responsible for the ring or for state.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <optional>
#include <string_view>

#include "ports/stream.hpp"

namespace replblk::runtime {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] int family() const noexcept { return storage.ss_family; }
};

/// Nothing when the address is not numeric. An empty address is the IPv6 wildcard.
[[nodiscard]] std::optional<SocketAddress> parse_address(const ports::Endpoint& endpoint);
/// IPv4 clients of a dual-stack listener appear as IPv4.
[[nodiscard]] ports::Endpoint to_endpoint(const SocketAddress& address);
[[nodiscard]] ports::Endpoint local_endpoint(int fd);
[[nodiscard]] ports::Endpoint remote_endpoint(int fd);

/// No delay, keepalive and user timeout: a peer that vanished is noticed in about 10 s, idle or not.
void set_connection_options(int fd) noexcept;
/// close() will send RST and drop what is queued.
void set_reset_on_close(int fd) noexcept;
/// Sends RST now, also while the kernel still holds operations of the socket, and drops what is queued.
void reset(int fd) noexcept;
/// It can send, RST above all, when its local address is not on this node any more. Needs CAP_NET_ADMIN or CAP_NET_RAW;
/// without them nothing changes.
void allow_absent_source(int fd) noexcept;
/// The connection was torn down (RST), as opposed to: the other side said it has no more to send.
[[nodiscard]] bool is_torn_down(int fd) noexcept;

/// A descriptor, or a negated errno.
[[nodiscard]] int open_listening_socket(const ports::Endpoint& local, const SocketAddress& address,
                                        bool may_be_absent) noexcept;
[[nodiscard]] int open_connecting_socket(const SocketAddress& remote, const SocketAddress* local) noexcept;
/// Bound, also to an address that is not on this node now, and beside a predecessor's: the last one hears.
[[nodiscard]] int open_datagram_socket(const SocketAddress& local) noexcept;

}  // namespace replblk::runtime
