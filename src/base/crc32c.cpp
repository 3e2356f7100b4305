#include "base/crc32c.hpp"

#include <isa-l/crc.h>

namespace replblk {

std::uint32_t crc32c(ConstBytes bytes, std::uint32_t previous) noexcept {
  // ISA-L takes int lengths and the inverted register.
  std::uint32_t state = ~previous;
  while (!bytes.empty()) {
    constexpr std::size_t kPieceBytes = std::size_t{1} << 30;
    const ConstBytes piece = bytes.first(bytes.size() < kPieceBytes ? bytes.size() : kPieceBytes);
    // The library's signature lacks const; it only reads.
    auto* data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(piece.data()));
    state = crc32_iscsi(data, static_cast<int>(piece.size()), state);
    bytes = bytes.subspan(piece.size());
  }
  return ~state;
}

}  // namespace replblk
