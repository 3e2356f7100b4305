#include "blockdev/bitmap_table.hpp"

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "base/crc32c.hpp"

namespace replblk::blockdev {

namespace {

constexpr std::string_view kMagic = "replblkB";
constexpr std::size_t kEntriesAt = 24;
constexpr std::size_t kEntryBytes = 8;
constexpr std::size_t kCrcAt = 4092;

}  // namespace

void encode_bitmap_table(const BitmapTableIdentity& identity, std::span<const BitmapTableEntry> entries,
                         MutableBytes block) noexcept {
  RB_ASSERT(block.size() == kPageBytes && entries.size() == identity.entries_count &&
            entries.size() <= kBitmapTableEntries);
  std::fill(block.begin(), block.end(), std::byte{0});
  std::memcpy(block.data(), kMagic.data(), kMagic.size());
  store_le<std::uint64_t>(block.data() + 8, identity.sequence);
  store_le<std::uint32_t>(block.data() + 16, identity.index);
  store_le<std::uint32_t>(block.data() + 20, identity.entries_count);
  std::byte* at = block.data() + kEntriesAt;
  for (const BitmapTableEntry& entry : entries) {
    store_le<std::uint32_t>(at, entry.is_stored ? 1 : 0);
    store_le<std::uint32_t>(at + 4, entry.page_crc);
    at += kEntryBytes;
  }
  store_le<std::uint32_t>(block.data() + kCrcAt, crc32c(block.first(kCrcAt)));
}

bool decode_bitmap_table(const BitmapTableIdentity& identity, ConstBytes block,
                         std::span<BitmapTableEntry> entries) noexcept {
  RB_ASSERT(block.size() == kPageBytes && entries.size() == identity.entries_count &&
            entries.size() <= kBitmapTableEntries);
  const bool is_believed = std::memcmp(block.data(), kMagic.data(), kMagic.size()) == 0 &&
                           load_le<std::uint32_t>(block.data() + kCrcAt) == crc32c(block.first(kCrcAt)) &&
                           load_le<std::uint64_t>(block.data() + 8) == identity.sequence &&
                           load_le<std::uint32_t>(block.data() + 16) == identity.index &&
                           load_le<std::uint32_t>(block.data() + 20) == identity.entries_count;
  if (!is_believed) return false;
  const std::byte* at = block.data() + kEntriesAt;
  for (BitmapTableEntry& entry : entries) {
    entry.is_stored = load_le<std::uint32_t>(at) != 0;
    entry.page_crc = load_le<std::uint32_t>(at + 4);
    at += kEntryBytes;
  }
  return true;
}

}  // namespace replblk::blockdev
