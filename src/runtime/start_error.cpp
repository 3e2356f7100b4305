#include "runtime/start_error.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <string.h>
#include <unistd.h>

#include <cerrno>

#include "base/assert.hpp"

namespace replblk::runtime {

namespace {

constexpr std::string_view kInUse = "is in use by another program";

std::string error_text(int error_number) {
  const char* text = strerrordesc_np(error_number);
  return text != nullptr ? fmt::format("{} (errno {})", text, error_number) : fmt::format("errno {}", error_number);
}

}  // namespace

int read_io_uring_disabled() noexcept {
  const int fd = ::open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  char digit = 0;
  const bool is_read = ::read(fd, &digit, 1) == 1 && digit >= '0' && digit <= '9';
  ::close(fd);
  return is_read ? digit - '0' : -1;
}

std::string describe_ring_failure(int error_number, int io_uring_disabled) {
  if (error_number == EPERM || error_number == EACCES) {
    if (io_uring_disabled > 0) {
      return fmt::format(
          "io_uring is forbidden: the sysctl kernel.io_uring_disabled is {}; set it to 0 (sysctl -w "
          "kernel.io_uring_disabled=0, and in /etc/sysctl.d to keep it){}",
          io_uring_disabled,
          io_uring_disabled == 1 ? " or run with CAP_SYS_ADMIN or in the group of kernel.io_uring_group" : "");
    }
    return "io_uring is forbidden: a seccomp filter of the container or of the service refuses io_uring_setup; allow "
           "the system calls io_uring_setup, io_uring_enter and io_uring_register (systemd: "
           "SystemCallFilter=@io-event; docker: a seccomp profile that permits them)";
  }
  if (error_number == ENOSYS || error_number == EINVAL) {
    return "io_uring is missing or too old: this kernel lacks operations that replblkd needs; run kernel 6.1 or newer "
           "(built with CONFIG_IO_URING)";
  }
  if (error_number == ENOMEM) {
    return "io_uring cannot be set up: no memory for its queues; raise the locked-memory limit (systemd: "
           "LimitMEMLOCK=infinity) or free memory";
  }
  if (error_number == EMFILE || error_number == ENFILE) {
    return "io_uring cannot be set up: too many open files; raise the limit (systemd: LimitNOFILE=65536)";
  }
  return fmt::format("io_uring cannot be set up: {}; run kernel 6.1 or newer", error_text(error_number));
}

std::string describe_region_failure(int error_number, std::size_t region_bytes, std::size_t limit_bytes) {
  const std::size_t region_mib = region_bytes >> 20;
  if (error_number == ENOMEM) {
    return fmt::format(
        "the locked-memory limit ({} KiB) is too low to register {} MiB of I/O buffers; running without, about a tenth "
        "more CPU per I/O; set LimitMEMLOCK=infinity in the service (or ulimit -l) to register them",
        limit_bytes >> 10, region_mib);
  }
  return fmt::format(
      "{} MiB of I/O buffers cannot be registered with io_uring: {}; running without, about a tenth more CPU per I/O; "
      "set LimitMEMLOCK=infinity in the service if a limit is the cause",
      region_mib, error_text(error_number));
}

std::string describe_listen_failure(const ports::Endpoint& local, ports::ListenError error) {
  const std::string_view remedy = [error]() -> std::string_view {
    switch (error) {
      case ports::ListenError::address_in_use:
        return "stop the other program (ss -ltnp shows it) or configure another port";
      case ports::ListenError::address_not_here:
        return "correct the address or bring its interface up (ip address)";
      case ports::ListenError::access_denied:
        return "ports below 1024 need CAP_NET_BIND_SERVICE";
      case ports::ListenError::bad_address:
        return "give an address, not a host name";
      case ports::ListenError::other:
        return "see the limits of open files and memory";
    }
    RB_UNREACHABLE();
  }();
  return fmt::format("cannot listen on {}: {}; {}", ports::to_string(local), ports::to_string(error), remedy);
}

std::string describe_disk_failure(const DiskOpenFailure& failure) {
  const auto sentence = [&failure](std::string_view cause, std::string_view remedy) {
    return fmt::format("disk {}: {}; {}", failure.path, cause, remedy);
  };
  switch (failure.error_number) {
    case ENOENT:
    case ENOTDIR:
      return sentence("no such file or device", "create it or correct the path in the configuration");
    case EACCES:
    case EPERM:
      return sentence("permission denied", "run as root or give this user read and write access");
    case EROFS:
      return sentence("is read-only", "make the device or its file system writable");
    case EBUSY:
    case EAGAIN:
      return sentence(fmt::format("{}", kInUse),
                      "unmount it, stop the RAID, volume group or virtual machine on it, or the other replblkd");
    case EISDIR:
    case ENOTBLK:
      return sentence("is neither a regular file nor a block device", "correct the path in the configuration");
    case ENXIO:
    case ENODEV:
    case ENOMEDIUM:
      return sentence("there is no device or medium behind it", "attach it or correct the path");
    case EMFILE:
    case ENFILE:
      return sentence("too many open files", "raise the limit (systemd: LimitNOFILE=65536)");
    case ELOOP:
      return sentence("a loop of symbolic links", "correct the path in the configuration");
    case EINVAL:
      if (failure.is_direct) {
        return sentence("its file system does not support O_DIRECT",
                        "set io_mode: buffered for this disk or move it to another file system");
      }
      break;
    default:
      break;
  }
  return sentence(fmt::format("cannot be opened: {}", error_text(failure.error_number)),
                  "see the kernel log for the device's state");
}

bool says_in_use(std::string_view sentence) noexcept { return sentence.find(kInUse) != std::string_view::npos; }

}  // namespace replblk::runtime
