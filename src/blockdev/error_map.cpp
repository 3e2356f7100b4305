#include "blockdev/error_map.hpp"

#include "base/assert.hpp"

namespace replblk::blockdev {

BlockStatus to_block_status(ports::IoError error) noexcept {
  switch (error) {
    case ports::IoError::io:
      return BlockStatus::io_error;
    case ports::IoError::no_space:
      return BlockStatus::no_space;
    case ports::IoError::not_supported:
      return BlockStatus::not_supported;
    case ports::IoError::access:
      return BlockStatus::io_error;  // The medium may be well, but this copy cannot do it.
    case ports::IoError::timed_out:
      return BlockStatus::timed_out;
  }
  RB_UNREACHABLE();
}

}  // namespace replblk::blockdev
