#include "control/admin_lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace replblk::control {

Result<AdminLock, std::string> AdminLock::acquire(std::string_view socket_path) {
  const std::string path = fmt::format("{}.lock", socket_path);
  std::error_code error;
  std::filesystem::create_directory(std::filesystem::path(path).parent_path(), error);  // open() says what is wrong
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    return fail(
        fmt::format("{}: cannot be made: {}; is the directory of admin_socket there, and writable for this user?", path,
                    std::strerror(errno)));
  }
  AdminLock lock(fd);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail(fmt::format("{}: cannot be locked: {}", path, std::strerror(errno)));
    std::array<char, 16> text{};
    const ssize_t length = ::read(fd, text.data(), text.size());
    std::string holder = length > 0 ? std::string(text.data(), static_cast<std::size_t>(length)) : "?";
    if (!holder.empty() && holder.back() == '\n') holder.pop_back();
    return fail(
        fmt::format("process {} is using {}: a replblkd of this node runs already; stop it, or give this one another "
                    "admin_socket",
                    holder, socket_path));
  }
  // For the sentence above; the lock itself does not need it.
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, pid.data(), pid.size(), 0) < 0) {
    return fail(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
  }
  return lock;
}

AdminLock::~AdminLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace replblk::control
