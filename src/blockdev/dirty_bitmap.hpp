// The set of blocks that may differ between the copies (protocol.md 5.3), in memory: one bit per block. Knows nothing
// of disks or peers; Store writes its pages, replication decides when a bit is set or cleared. Ranges are in bytes:
// set() covers every block that the range touches, clear() only blocks that lie wholly inside (or reach the end of the
// volume). Pages are made when first set and given back when clean, so that a clean large volume costs nothing.
// Invariant: a page exists exactly when it has a set bit, and the counts are right.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/bytes.hpp"

namespace replblk::blockdev {

struct ByteRange {
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
  [[nodiscard]] std::uint64_t end_bytes() const noexcept { return offset_bytes + length_bytes; }
};

class DirtyBitmap {
 public:
  static constexpr std::size_t kPageBytes = 4096;  ///< of bits: unit of memory and of transfer

  /// `block_bytes` is a power of two ≥ 4096.
  DirtyBitmap(std::uint64_t volume_size_bytes, std::uint32_t block_bytes);

  void set(std::uint64_t offset_bytes, std::uint64_t length_bytes);
  void set_all();
  void clear(std::uint64_t offset_bytes, std::uint64_t length_bytes) noexcept;
  void clear_all() noexcept;
  /// The volume became larger (never smaller). What is new is clean, and counts as changed, so that what the bitmap
  /// area holds there is overwritten.
  void grow(std::uint64_t volume_size_bytes);
  /// Every bit of `other` (the same blocks, of a volume at most as large) is set here too.
  void merge(const DirtyBitmap& other);
  /// Whether any block that the range touches is dirty.
  [[nodiscard]] bool is_dirty(std::uint64_t offset_bytes, std::uint64_t length_bytes) const noexcept;
  /// The first run of dirty blocks at or after the block that `from_bytes` lies in, cut to `length_bytes_max` (at least
  /// one block; rounded down to whole ones) and to the volume's end.
  [[nodiscard]] std::optional<ByteRange> next_dirty(std::uint64_t from_bytes,
                                                    std::uint64_t length_bytes_max) const noexcept;
  [[nodiscard]] std::uint64_t dirty_blocks_count() const noexcept { return dirty_count_; }
  [[nodiscard]] std::uint64_t dirty_bytes() const noexcept;  ///< the last block counts with what it holds
  [[nodiscard]] bool is_clean() const noexcept { return dirty_count_ == 0; }
  [[nodiscard]] std::uint32_t block_bytes() const noexcept { return block_bytes_; }
  [[nodiscard]] std::uint64_t blocks_count() const noexcept { return blocks_count_; }

  /// Transfer: little-endian 64-bit words, bit n of the page is block page*32768 + n.
  [[nodiscard]] std::size_t pages_count() const noexcept { return pages_.size(); }
  /// False: the page is all zero (get_page then gives zeroes).
  [[nodiscard]] bool has_page(std::size_t page) const noexcept { return pages_[page] != nullptr; }
  void get_page(std::size_t page, std::span<std::byte, kPageBytes> into) const noexcept;
  /// Sets the page's bits in addition to what is set (union). Bits beyond the volume's end are ignored.
  void merge_page(std::size_t page, std::span<const std::byte, kPageBytes> from);

  /// Storage. A page of the bitmap area holds fewer words than one here, since its sectors are sealed.
  static constexpr std::size_t kSavedPageWords = 504;
  static constexpr std::uint64_t kSavedPageBlocks = kSavedPageWords * 64;
  [[nodiscard]] std::size_t saved_pages_count() const noexcept { return saved_pages_count_; }
  /// Whether a bit of this page of the bitmap area was set or cleared since set_saved().
  [[nodiscard]] bool is_changed(std::size_t saved_page) const noexcept {
    return (changed_pages_[saved_page / 64] >> (saved_page % 64) & 1) != 0;
  }
  /// Nothing of the bitmap area is as it is here: it moves.
  void set_all_changed() noexcept { set_changed(0, blocks_count_); }
  /// The page is on disk as it is here, or about to be.
  void set_saved(std::size_t saved_page) noexcept {
    changed_pages_[saved_page / 64] &= ~(std::uint64_t{1} << (saved_page % 64));
  }
  /// Words of 64 blocks from word `first` on; beyond the volume's end they are zero and ignored.
  void get_words(std::uint64_t first, std::span<std::uint64_t> into) const noexcept;
  void merge_words(std::uint64_t first, std::span<const std::uint64_t> from);

 private:
  static constexpr std::size_t kPageWords = kPageBytes / 8;
  static constexpr std::uint64_t kPageBlocks = kPageBytes * 8;
  /// Clean pages kept for the next set(), so that a bit that comes and goes does not allocate each time.
  static constexpr std::size_t kSparePagesMax = 8;
  using Page = std::unique_ptr<std::uint64_t[]>;

  void set_shape(std::uint64_t volume_size_bytes);
  [[nodiscard]] std::uint64_t blocks_in_page(std::size_t page) const noexcept;
  [[nodiscard]] bool is_block_dirty(std::uint64_t block) const noexcept;
  [[nodiscard]] std::uint64_t next_dirty_block(std::uint64_t block) const noexcept;
  [[nodiscard]] std::uint64_t next_clean_block(std::uint64_t block, std::uint64_t limit) const noexcept;
  std::uint64_t* make_page(std::size_t page);
  void drop_page_if_clean(std::size_t page) noexcept;
  /// Some of the blocks `begin` … `end` − 1 were set or cleared.
  void set_changed(std::uint64_t begin, std::uint64_t end) noexcept;
  void set_blocks(std::uint64_t begin, std::uint64_t end);
  void clear_blocks(std::uint64_t begin, std::uint64_t end) noexcept;

  std::uint64_t volume_size_bytes_ = 0;
  std::uint32_t block_bytes_;
  std::uint32_t block_shift_;
  std::uint64_t blocks_count_ = 0;
  std::uint64_t dirty_count_ = 0;
  std::vector<Page> pages_;
  std::vector<std::uint32_t> page_counts_;  ///< set bits of each page
  std::vector<std::uint64_t>
      dirty_pages_;  ///< bit n: page n exists; 128 GiB of clean 4 KiB blocks are skipped by a few words
  std::size_t saved_pages_count_ = 0;
  std::vector<std::uint64_t> changed_pages_;  ///< bit n: page n of the bitmap area is not as it was saved
  std::vector<Page> spare_pages_;
};

}  // namespace replblk::blockdev
