// ports::Random from OpenSSL's generator. Unpredictable bytes for challenges, UUIDs and session handles; not on the
// data path. A generator that fails ends the process: nothing secret may be made of what it left in the buffer.
#pragma once

#include "ports/loop.hpp"

namespace replblk::runtime {

class SystemRandom final : public ports::Random {
 public:
  void fill(std::span<std::byte> bytes) noexcept override;
};

}  // namespace replblk::runtime
