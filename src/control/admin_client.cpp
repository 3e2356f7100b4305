#include "control/admin_client.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "control/wire.hpp"

namespace replblk::control {

namespace {

class Socket {
 public:
  Socket() : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] bool open(const std::string& path, Duration timeout) const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
      errno = ENAMETOOLONG;
      return false;
    }
    path.copy(address.sun_path, path.size());
    const timeval limit{.tv_sec = std::chrono::duration_cast<seconds>(timeout).count(), .tv_usec = 0};
    return fd_ >= 0 && ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
           ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
           ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  [[nodiscard]] bool send_all(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  [[nodiscard]] bool receive_all(char* into, std::size_t length_bytes) const {
    while (length_bytes > 0) {
      const ssize_t received = ::recv(fd_, into, length_bytes, 0);
      if (received < 0 && errno == EINTR) continue;
      if (received == 0) errno = ECONNRESET;
      if (received <= 0) return false;
      into += received;
      length_bytes -= static_cast<std::size_t>(received);
    }
    return true;
  }

 private:
  int fd_;
};

std::string why_not_connected(const std::string& path, int error_number) {
  switch (error_number) {
    case ENOENT:
    case ECONNREFUSED:
      return fmt::format(
          "replblkd does not run on this node: nobody listens on {}; start it, or check --config and --node", path);
    case EACCES:
      return fmt::format("{}: permission denied; only the user that replblkd runs as (root) may ask it", path);
    default:
      return fmt::format("{}: {}", path, std::strerror(error_number));
  }
}

}  // namespace

Result<node::AdminReply, std::string> ask_daemon(const std::string& socket_path, const node::AdminRequest& request,
                                                 Duration timeout) {
  const Socket socket;
  if (!socket.open(socket_path, timeout)) return fail(why_not_connected(socket_path, errno));
  const auto broken = [&] {
    if (errno == EAGAIN || errno == EWOULDBLOCK)
      return fail(fmt::format("replblkd gave no answer on {}: it is stuck or stopped", socket_path));
    return fail(fmt::format("replblkd closed {} without an answer: it has ended; see its log", socket_path));
  };
  const std::string body = encode_request(request);
  const auto length = encode_length(body.size());
  // A daemon that refuses a client has hung up before it reads the request: its answer is there all the same.
  const bool is_sent = socket.send_all(std::string(length.begin(), length.end()) + body);
  if (!is_sent && errno != EPIPE && errno != ECONNRESET) return broken();

  std::array<unsigned char, kLengthBytes> reply_length{};
  if (!socket.receive_all(reinterpret_cast<char*>(reply_length.data()), reply_length.size())) return broken();
  std::string reply;
  const std::size_t reply_bytes = decode_length(reply_length);
  if (reply_bytes <= kReplyBytesMax) {
    reply.resize(reply_bytes);
    if (!socket.receive_all(reply.data(), reply.size())) return broken();
    if (std::optional<node::AdminReply> decoded = decode_reply(reply)) return std::move(*decoded);
  }
  return fail(
      fmt::format("the answer on {} is not understood; are replblkctl and replblkd of one version?", socket_path));
}

}  // namespace replblk::control
