// Checksums of a range, block by block, as resync and verify exchange them (docs/peer_protocol.md 1): XXH3-128 of each
// block of the bitmap. Pure functions: bytes in, bytes and ranges out. Not a defence against somebody who wants to
// deceive: the peer is trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bytes.hpp"
#include "blockdev/dirty_bitmap.hpp"

namespace replblk::replication {

inline constexpr std::size_t kChecksumBytes = 16;

/// How many blocks the range has; it begins at a block's beginning, and the last block may be shorter.
[[nodiscard]] constexpr std::size_t checksum_count(std::uint64_t length_bytes, std::uint32_t block_bytes) noexcept {
  return static_cast<std::size_t>((length_bytes + block_bytes - 1) / block_bytes);
}

/// One entry for each block of `data`.
[[nodiscard]] std::vector<std::byte> block_checksums(ConstBytes data, std::uint32_t block_bytes);

/// The runs of blocks in which `data`, the content of the range from `offset_bytes` on, differs from what the entries
/// in `theirs` (as many as block_checksums() makes) stand for; in order, whole blocks, the last one cut to the range.
/// Runs with at most `gap_bytes_max` of equal blocks between them are given as one.
[[nodiscard]] std::vector<blockdev::ByteRange> differing_ranges(std::uint64_t offset_bytes, ConstBytes data,
                                                                std::uint32_t block_bytes, ConstBytes theirs,
                                                                std::uint64_t gap_bytes_max);

}  // namespace replblk::replication
