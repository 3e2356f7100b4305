#include "ports/disk.hpp"

#include "base/assert.hpp"

namespace replblk::ports {

std::string_view to_string(IoError error) noexcept {
  switch (error) {
    case IoError::io:
      return "input/output error";
    case IoError::no_space:
      return "no space left on the backing file system";
    case IoError::not_supported:
      return "operation not supported by the device";
    case IoError::access:
      return "device is read-only or access is denied";
    case IoError::timed_out:
      return "no answer within the disk timeout";
  }
  RB_UNREACHABLE();
}

}  // namespace replblk::ports
