#include "replication/block_checksums.hpp"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/assert.hpp"

namespace replblk::replication {

namespace {

using Checksum = std::array<std::byte, kChecksumBytes>;

Checksum checksum_of(ConstBytes block) noexcept {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(block.data(), block.size()));
  Checksum checksum;
  static_assert(sizeof(canonical.digest) == kChecksumBytes);
  std::memcpy(checksum.data(), canonical.digest, kChecksumBytes);
  return checksum;
}

ConstBytes block_of(ConstBytes data, std::size_t index, std::uint32_t block_bytes) noexcept {
  const std::size_t begin = index * block_bytes;
  return data.subspan(begin, std::min<std::size_t>(block_bytes, data.size() - begin));
}

}  // namespace

std::vector<std::byte> block_checksums(ConstBytes data, std::uint32_t block_bytes) {
  const std::size_t count = checksum_count(data.size(), block_bytes);
  std::vector<std::byte> entries(count * kChecksumBytes);
  for (std::size_t index = 0; index < count; ++index) {
    const Checksum checksum = checksum_of(block_of(data, index, block_bytes));
    std::ranges::copy(checksum, entries.begin() + static_cast<std::ptrdiff_t>(index * kChecksumBytes));
  }
  return entries;
}

std::vector<blockdev::ByteRange> differing_ranges(std::uint64_t offset_bytes, ConstBytes data,
                                                  std::uint32_t block_bytes, ConstBytes theirs,
                                                  std::uint64_t gap_bytes_max) {
  const std::size_t count = checksum_count(data.size(), block_bytes);
  RB_ASSERT(theirs.size() == count * kChecksumBytes && offset_bytes % block_bytes == 0);
  std::vector<blockdev::ByteRange> differing;
  for (std::size_t index = 0; index < count; ++index) {
    const ConstBytes block = block_of(data, index, block_bytes);
    if (std::ranges::equal(checksum_of(block), theirs.subspan(index * kChecksumBytes, kChecksumBytes))) continue;
    const std::uint64_t begin = offset_bytes + std::uint64_t{index} * block_bytes;
    const std::uint64_t end = begin + block.size();
    if (!differing.empty() && begin - differing.back().end_bytes() <= gap_bytes_max) {
      differing.back().length_bytes = end - differing.back().offset_bytes;
    } else {
      differing.push_back({begin, end - begin});
    }
  }
  return differing;
}

}  // namespace replblk::replication
