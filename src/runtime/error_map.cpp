#include "runtime/error_map.hpp"

#include <cerrno>

#include "base/assert.hpp"

namespace replblk::runtime {

ports::IoError io_error_from(int error_number) noexcept {
  RB_ASSERT(error_number > 0);
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return ports::IoError::no_space;
    case EOPNOTSUPP:
    case ENOSYS:
      return ports::IoError::not_supported;
    case EROFS:
    case EPERM:
    case EACCES:
    case EBADF:
      return ports::IoError::access;
    // ETIMEDOUT is the block layer's own verdict and the kernel has given the buffer back: not IoError::timed_out.
    default:
      return ports::IoError::io;
  }
}

ports::StreamError stream_error_from(int error_number) noexcept {
  RB_ASSERT(error_number > 0);
  return error_number == ETIMEDOUT ? ports::StreamError::timed_out : ports::StreamError::reset;
}

ports::StreamError connect_error_from(int error_number) noexcept {
  RB_ASSERT(error_number > 0);
  switch (error_number) {
    case ECONNREFUSED:
      return ports::StreamError::refused;
    case ETIMEDOUT:
      return ports::StreamError::timed_out;
    case ECONNRESET:
    case EPIPE:
      return ports::StreamError::reset;
    // ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, a firewall's EPERM, and whatever else keeps us from the host.
    default:
      return ports::StreamError::unreachable;
  }
}

ports::ListenError listen_error_from(int error_number) noexcept {
  RB_ASSERT(error_number > 0);
  switch (error_number) {
    case EADDRINUSE:
      return ports::ListenError::address_in_use;
    case EADDRNOTAVAIL:
    case ENODEV:
      return ports::ListenError::address_not_here;
    case EACCES:
    case EPERM:
      return ports::ListenError::access_denied;
    default:
      return ports::ListenError::other;
  }
}

bool is_transient(int error_number) noexcept { return error_number == EINTR || error_number == EAGAIN; }

}  // namespace replblk::runtime
