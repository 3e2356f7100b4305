#include "runtime/system_random.hpp"

#include <openssl/rand.h>

#include <algorithm>

#include "base/assert.hpp"

namespace replblk::runtime {

void SystemRandom::fill(std::span<std::byte> bytes) noexcept {
  constexpr std::size_t kPieceBytes = std::size_t{1} << 20;  // The library takes an int.
  while (!bytes.empty()) {
    const std::size_t length = std::min(bytes.size(), kPieceBytes);
    RB_ASSERT(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(length)) == 1);
    bytes = bytes.subspan(length);
  }
}

}  // namespace replblk::runtime
