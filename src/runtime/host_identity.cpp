#include "runtime/host_identity.hpp"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <optional>
#include <string_view>

namespace replblk::runtime {

std::string host_name() {
  utsname names{};
  return ::uname(&names) == 0 ? names.nodename : std::string();
}

Result<Uuid, std::string> read_boot_id() {
  constexpr const char* kPath = "/proc/sys/kernel/random/boot_id";
  const int fd = ::open(kPath, O_RDONLY | O_CLOEXEC);
  char text[64] = {};
  const ssize_t count = fd < 0 ? -1 : ::read(fd, text, sizeof text);
  if (fd >= 0) ::close(fd);
  constexpr std::size_t kUuidLetters = 36;
  std::optional<Uuid> uuid;
  if (count >= static_cast<ssize_t>(kUuidLetters)) uuid = parse_uuid({text, kUuidLetters});
  if (!uuid) return fail(std::string(kPath) + " has no boot identity; mount /proc as the kernel provides it");
  return *uuid;
}

}  // namespace replblk::runtime
