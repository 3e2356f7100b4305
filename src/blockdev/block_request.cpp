#include "blockdev/block_request.hpp"

#include "base/assert.hpp"

namespace replblk::blockdev {

std::string_view to_string(BlockStatus status) noexcept {
  switch (status) {
    case BlockStatus::good:
      return "good";
    case BlockStatus::io_error:
      return "input/output error";
    case BlockStatus::timed_out:
      return "the device does not answer";
    case BlockStatus::no_space:
      return "no space";
    case BlockStatus::miscompare:
      return "miscompare";
    case BlockStatus::not_supported:
      return "not supported";
    case BlockStatus::not_serving:
      return "not serving";
  }
  RB_UNREACHABLE();
}

}  // namespace replblk::blockdev
