#include "runtime/socket.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace replblk::runtime {

namespace {

constexpr int kBacklog = 256;
// A dead peer is found within 5 + 3 * 2 s when idle, 10 s with data on the way. Also a peer that accepts nothing for
// 10 s (zero window) counts as dead: it holds our buffers.
constexpr int kKeepIdleS = 5;
constexpr int kKeepIntervalS = 2;
constexpr int kKeepCount = 3;
constexpr int kUserTimeoutMs = 10'000;
// CS6 (RFC 4594 3.2, network control): where queues have classes, a heartbeat does not wait behind a resync.
constexpr int kTrafficClassControl = 0xc0;

void set_option(int fd, int level, int name, int value) noexcept {
  static_cast<void>(::setsockopt(fd, level, name, &value, sizeof value));
}

template <class T>
T read_as(const SocketAddress& address) noexcept {
  T value;
  std::memcpy(&value, &address.storage, sizeof value);
  return value;
}

/// The address need not be on this node now.
void set_free_bind(int fd, const SocketAddress& address) noexcept {
  if (address.family() == AF_INET6) {
    set_option(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1);
  } else {
    set_option(fd, SOL_IP, IP_FREEBIND, 1);
  }
}

int close_and_fail(int fd) noexcept {
  const int error = errno;
  ::close(fd);
  return -error;
}

}  // namespace

std::optional<SocketAddress> parse_address(const ports::Endpoint& endpoint) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string host = endpoint.address.empty() ? "::" : endpoint.address;
  // Besides inet_pton's forms it takes fe80::1%eth0; it asks no name server under these flags.
  if (::getaddrinfo(host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found) != 0) return std::nullopt;
  SocketAddress address;
  address.length = found->ai_addrlen;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  ::freeaddrinfo(found);
  return address;
}

ports::Endpoint to_endpoint(const SocketAddress& address) {
  ports::Endpoint endpoint;
  char text[INET6_ADDRSTRLEN] = {};
  if (address.family() == AF_INET) {
    const auto v4 = read_as<sockaddr_in>(address);
    endpoint.address = ::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    endpoint.port = ntohs(v4.sin_port);
  } else if (address.family() == AF_INET6) {
    const auto v6 = read_as<sockaddr_in6>(address);
    const unsigned char* raw = v6.sin6_addr.s6_addr;
    const bool is_mapped =
        std::all_of(raw, raw + 10, [](unsigned char byte) { return byte == 0; }) && raw[10] == 0xff && raw[11] == 0xff;
    endpoint.address =
        is_mapped ? ::inet_ntop(AF_INET, raw + 12, text, sizeof text) : ::inet_ntop(AF_INET6, raw, text, sizeof text);
    endpoint.port = ntohs(v6.sin6_port);
  }
  return endpoint;
}

ports::Endpoint local_endpoint(int fd) {
  SocketAddress address;
  address.length = sizeof address.storage;
  return ::getsockname(fd, address.get(), &address.length) == 0 ? to_endpoint(address) : ports::Endpoint{};
}

ports::Endpoint remote_endpoint(int fd) {
  SocketAddress address;
  address.length = sizeof address.storage;
  return ::getpeername(fd, address.get(), &address.length) == 0 ? to_endpoint(address) : ports::Endpoint{};
}

void set_connection_options(int fd) noexcept {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdleS);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepIntervalS);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepCount);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
}

void set_reset_on_close(int fd) noexcept {
  const linger none{.l_onoff = 1, .l_linger = 0};
  static_cast<void>(::setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none));
}

void allow_absent_source(int fd) noexcept {
  set_option(fd, SOL_IP, IP_TRANSPARENT, 1);
  set_option(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1);
}

void reset(int fd) noexcept {
  set_reset_on_close(fd);  // Where the kernel does not disconnect at once.
  sockaddr nobody{};
  nobody.sa_family = AF_UNSPEC;
  static_cast<void>(::connect(fd, &nobody, sizeof nobody));
}

bool is_torn_down(int fd) noexcept {
  tcp_info info{};
  socklen_t length = sizeof info;
  return ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_CLOSE;
}

int open_listening_socket(const ports::Endpoint& local, const SocketAddress& address, bool may_be_absent) noexcept {
  const int fd = ::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  // "All addresses" means both families; an address that was written down means itself.
  if (address.family() == AF_INET6) set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, local.address.empty() ? 0 : 1);
  if (may_be_absent) set_free_bind(fd, address);
  if (::bind(fd, address.get(), address.length) != 0) return close_and_fail(fd);
  if (::listen(fd, kBacklog) != 0) return close_and_fail(fd);
  return fd;
}

int open_connecting_socket(const SocketAddress& remote, const SocketAddress* local) noexcept {
  // Not SOCK_NONBLOCK: the ring would then answer EAGAIN instead of waiting.
  const int fd = ::socket(remote.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  set_connection_options(fd);
  if (local != nullptr) {
    set_option(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (::bind(fd, local->get(), local->length) != 0) return close_and_fail(fd);
  }
  return fd;
}

int open_datagram_socket(const SocketAddress& local) noexcept {
  const int fd = ::socket(local.family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  // A ring that dies with its process holds the port for seconds. Its successor binds beside it, and the kernel gives
  // what arrives to the socket that was bound last.
  set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  set_free_bind(fd, local);
  set_option(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
  if (local.family() == AF_INET6) {
    set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    set_option(fd, IPPROTO_IPV6, IPV6_TCLASS, kTrafficClassControl);
  } else {
    set_option(fd, SOL_IP, IP_TOS, kTrafficClassControl);
  }
  if (::bind(fd, local.get(), local.length) != 0) return close_and_fail(fd);
  return fd;
}

}  // namespace replblk::runtime
