// The border between what a disk reports and what a request answers.
#pragma once

#include "blockdev/block_request.hpp"
#include "ports/disk.hpp"

namespace replblk::blockdev {

[[nodiscard]] BlockStatus to_block_status(ports::IoError error) noexcept;

}  // namespace replblk::blockdev
