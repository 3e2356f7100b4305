// The right to be the one daemon (or the one create-md) of an admin socket: an exclusive lock on "SOCKET.lock", held
// until destroyed or until the process ends, however it ends. A socket file proves nothing: it survives kill -9.
// Used by AdminServer and create-md.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/result.hpp"

namespace replblk::control {

class AdminLock {
 public:
  /// Makes the socket's directory (one level) when it is missing. The error is one sentence.
  [[nodiscard]] static Result<AdminLock, std::string> acquire(std::string_view socket_path);
  AdminLock(AdminLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  AdminLock& operator=(AdminLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~AdminLock();

 private:
  explicit AdminLock(int fd) noexcept : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace replblk::control
