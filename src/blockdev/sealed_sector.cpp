#include "blockdev/sealed_sector.hpp"

#include <utility>

#include "base/crc32c.hpp"

namespace replblk::blockdev {

namespace {

constexpr std::size_t kSequenceAt = 496;
constexpr std::size_t kIndexAt = 504;
constexpr std::size_t kCrcAt = 508;

}  // namespace

void seal_sector(MutableBytes sectors, std::size_t index, SealKind kind, std::uint64_t sequence) noexcept {
  const MutableBytes sector = sectors.subspan(index * kSectorBytes, kSectorBytes);
  store_le<std::uint64_t>(sector.data() + kSequenceAt, sequence);
  store_le<std::uint16_t>(sector.data() + kIndexAt, static_cast<std::uint16_t>(std::to_underlying(kind) + index));
  store_le<std::uint16_t>(sector.data() + kIndexAt + 2, 0);
  store_le<std::uint32_t>(sector.data() + kCrcAt, crc32c(sector.first(kCrcAt)));
}

bool is_sealed(ConstBytes sectors, std::size_t index, SealKind kind) noexcept {
  const ConstBytes sector = sectors.subspan(index * kSectorBytes, kSectorBytes);
  return load_le<std::uint32_t>(sector.data() + kCrcAt) == crc32c(sector.first(kCrcAt)) &&
         load_le<std::uint16_t>(sector.data() + kIndexAt) == std::to_underlying(kind) + index;
}

std::uint64_t sector_sequence(ConstBytes sectors, std::size_t index) noexcept {
  return load_le<std::uint64_t>(sectors.data() + index * kSectorBytes + kSequenceAt);
}

}  // namespace replblk::blockdev
