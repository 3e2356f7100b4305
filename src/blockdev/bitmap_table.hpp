// A table block of the bitmap area (docs/ondisk_format.md 4): which pages of the bitmap are stored, and their
// checksums. Pure bytes; MetadataArea reads and writes them. Invariant: a block that is torn, stale or misplaced does
// not decode.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/bytes.hpp"
#include "blockdev/layout.hpp"

namespace replblk::blockdev {

struct BitmapTableEntry {
  bool is_stored = false;  ///< false: the page is clean, whatever lies in its place
  std::uint32_t page_crc = 0;
  friend bool operator==(const BitmapTableEntry&, const BitmapTableEntry&) = default;
};

/// What a table block must say to be believed: its place, and the save that the superblock names.
struct BitmapTableIdentity {
  std::uint64_t sequence = 0;
  std::uint32_t index = 0;
  std::uint32_t entries_count = 0;
};

void encode_bitmap_table(const BitmapTableIdentity& identity, std::span<const BitmapTableEntry> entries,
                         MutableBytes block) noexcept;
/// False: not this block of this save; `entries` are then not touched.
[[nodiscard]] bool decode_bitmap_table(const BitmapTableIdentity& identity, ConstBytes block,
                                       std::span<BitmapTableEntry> entries) noexcept;

}  // namespace replblk::blockdev
