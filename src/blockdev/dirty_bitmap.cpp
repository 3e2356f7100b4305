#include "blockdev/dirty_bitmap.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "base/assert.hpp"

namespace replblk::blockdev {

namespace {

/// Bits `first` … `last` of a word.
[[nodiscard]] std::uint64_t word_mask(std::uint64_t first, std::uint64_t last) noexcept {
  return (~std::uint64_t{0} << first) & (~std::uint64_t{0} >> (63 - last));
}

}  // namespace

DirtyBitmap::DirtyBitmap(std::uint64_t volume_size_bytes, std::uint32_t block_bytes)
    : block_bytes_(block_bytes), block_shift_(static_cast<std::uint32_t>(std::countr_zero(block_bytes))) {
  RB_ASSERT(block_bytes >= 4096 && std::has_single_bit(block_bytes));
  set_shape(volume_size_bytes);
  spare_pages_.reserve(kSparePagesMax);
}

void DirtyBitmap::set_shape(std::uint64_t volume_size_bytes) {
  volume_size_bytes_ = volume_size_bytes;
  blocks_count_ = (volume_size_bytes >> block_shift_) + ((volume_size_bytes & (block_bytes_ - 1)) != 0 ? 1 : 0);
  const std::size_t pages_count = static_cast<std::size_t>((blocks_count_ + kPageBlocks - 1) / kPageBlocks);
  pages_.resize(pages_count);
  page_counts_.resize(pages_count, 0);
  dirty_pages_.resize((pages_count + 63) / 64, 0);
  saved_pages_count_ = static_cast<std::size_t>((blocks_count_ + kSavedPageBlocks - 1) / kSavedPageBlocks);
  changed_pages_.resize((saved_pages_count_ + 63) / 64, 0);
}

void DirtyBitmap::grow(std::uint64_t volume_size_bytes) {
  RB_ASSERT(volume_size_bytes >= volume_size_bytes_);
  const std::uint64_t former_count = blocks_count_;
  set_shape(volume_size_bytes);
  if (blocks_count_ > former_count) set_changed(former_count, blocks_count_);
}

std::uint64_t DirtyBitmap::blocks_in_page(std::size_t page) const noexcept {
  return std::min(kPageBlocks, blocks_count_ - page * kPageBlocks);
}

std::uint64_t* DirtyBitmap::make_page(std::size_t page) {
  if (pages_[page] == nullptr) {
    if (spare_pages_.empty()) {
      pages_[page] = std::make_unique<std::uint64_t[]>(kPageWords);
    } else {
      pages_[page] = std::move(spare_pages_.back());
      spare_pages_.pop_back();
    }
    dirty_pages_[page / 64] |= std::uint64_t{1} << (page % 64);
  }
  return pages_[page].get();
}

void DirtyBitmap::drop_page_if_clean(std::size_t page) noexcept {
  if (page_counts_[page] != 0 || pages_[page] == nullptr) return;
  // A page without a bit is all zero: a spare one is ready for use.
  if (spare_pages_.size() < kSparePagesMax) spare_pages_.push_back(std::move(pages_[page]));
  pages_[page].reset();
  dirty_pages_[page / 64] &= ~(std::uint64_t{1} << (page % 64));
}

void DirtyBitmap::set_changed(std::uint64_t begin, std::uint64_t end) noexcept {
  for (std::uint64_t page = begin / kSavedPageBlocks; page <= (end - 1) / kSavedPageBlocks; ++page) {
    changed_pages_[page / 64] |= std::uint64_t{1} << (page % 64);
  }
}

void DirtyBitmap::set_blocks(std::uint64_t begin, std::uint64_t end) {
  while (begin < end) {
    const std::size_t page = static_cast<std::size_t>(begin / kPageBlocks);
    const std::uint64_t page_begin = page * kPageBlocks;
    const std::uint64_t stop = std::min(end, page_begin + kPageBlocks);
    std::uint64_t* words = make_page(page);
    std::uint32_t added_count = 0;
    for (std::uint64_t bit = begin - page_begin; bit < stop - page_begin; bit = (bit | 63) + 1) {
      const std::uint64_t last = std::min(bit | 63, stop - page_begin - 1);
      const std::uint64_t mask = word_mask(bit % 64, last % 64);
      std::uint64_t& word = words[bit / 64];
      added_count += static_cast<std::uint32_t>(std::popcount(mask & ~word));
      word |= mask;
    }
    if (added_count > 0) set_changed(begin, stop);
    page_counts_[page] += added_count;
    dirty_count_ += added_count;
    begin = stop;
  }
}

void DirtyBitmap::clear_blocks(std::uint64_t begin, std::uint64_t end) noexcept {
  while (begin < end) {
    const std::size_t page = static_cast<std::size_t>(begin / kPageBlocks);
    const std::uint64_t page_begin = page * kPageBlocks;
    const std::uint64_t stop = std::min(end, page_begin + kPageBlocks);
    if (std::uint64_t* words = pages_[page].get()) {
      std::uint32_t removed_count = 0;
      for (std::uint64_t bit = begin - page_begin; bit < stop - page_begin; bit = (bit | 63) + 1) {
        const std::uint64_t last = std::min(bit | 63, stop - page_begin - 1);
        const std::uint64_t mask = word_mask(bit % 64, last % 64);
        std::uint64_t& word = words[bit / 64];
        removed_count += static_cast<std::uint32_t>(std::popcount(mask & word));
        word &= ~mask;
      }
      if (removed_count > 0) set_changed(begin, stop);
      page_counts_[page] -= removed_count;
      dirty_count_ -= removed_count;
      drop_page_if_clean(page);
    }
    begin = stop;
  }
}

void DirtyBitmap::set(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  RB_ASSERT(offset_bytes <= volume_size_bytes_ && length_bytes <= volume_size_bytes_ - offset_bytes);
  if (length_bytes == 0) return;
  set_blocks(offset_bytes >> block_shift_, ((offset_bytes + length_bytes - 1) >> block_shift_) + 1);
}

void DirtyBitmap::set_all() { set_blocks(0, blocks_count_); }

void DirtyBitmap::clear(std::uint64_t offset_bytes, std::uint64_t length_bytes) noexcept {
  RB_ASSERT(offset_bytes <= volume_size_bytes_ && length_bytes <= volume_size_bytes_ - offset_bytes);
  if (length_bytes == 0) return;
  const std::uint64_t end_bytes = offset_bytes + length_bytes;
  const std::uint64_t begin = (offset_bytes >> block_shift_) + ((offset_bytes & (block_bytes_ - 1)) != 0 ? 1 : 0);
  const std::uint64_t end = end_bytes == volume_size_bytes_ ? blocks_count_ : end_bytes >> block_shift_;
  clear_blocks(begin, end);
}

void DirtyBitmap::clear_all() noexcept { clear_blocks(0, blocks_count_); }

void DirtyBitmap::merge(const DirtyBitmap& other) {
  RB_ASSERT(other.volume_size_bytes_ <= volume_size_bytes_ && other.block_bytes_ == block_bytes_);
  for (std::size_t page = 0; page < other.pages_.size(); ++page) {
    if (!other.has_page(page)) continue;
    std::array<std::byte, kPageBytes> bytes;
    other.get_page(page, bytes);
    merge_page(page, bytes);
  }
}

std::uint64_t DirtyBitmap::next_dirty_block(std::uint64_t block) const noexcept {
  while (block < blocks_count_) {
    const std::size_t page = static_cast<std::size_t>(block / kPageBlocks);
    if (const std::uint64_t* words = pages_[page].get()) {
      const std::uint64_t bit = block % kPageBlocks;
      std::size_t index = static_cast<std::size_t>(bit / 64);
      std::uint64_t word = words[index] & (~std::uint64_t{0} << (bit % 64));
      while (word == 0 && ++index < kPageWords) word = words[index];
      if (word != 0) return page * kPageBlocks + index * 64 + static_cast<std::uint64_t>(std::countr_zero(word));
    }
    // The next page that has a bit.
    std::size_t next = page + 1;
    if (next >= pages_.size()) break;
    std::size_t index = next / 64;
    std::uint64_t word = dirty_pages_[index] & (~std::uint64_t{0} << (next % 64));
    while (word == 0 && ++index < dirty_pages_.size()) word = dirty_pages_[index];
    if (word == 0) break;
    next = index * 64 + static_cast<std::size_t>(std::countr_zero(word));
    block = next * kPageBlocks;
  }
  return blocks_count_;
}

std::uint64_t DirtyBitmap::next_clean_block(std::uint64_t block, std::uint64_t limit) const noexcept {
  while (block < limit) {
    const std::uint64_t* words = pages_[static_cast<std::size_t>(block / kPageBlocks)].get();
    if (words == nullptr) return block;
    const std::uint64_t bit = block % kPageBlocks;
    const std::uint64_t clean = ~words[bit / 64] & (~std::uint64_t{0} << (bit % 64));
    if (clean != 0) {
      return std::min(limit, (block & ~std::uint64_t{63}) + static_cast<std::uint64_t>(std::countr_zero(clean)));
    }
    block = (block | 63) + 1;
  }
  return limit;
}

bool DirtyBitmap::is_dirty(std::uint64_t offset_bytes, std::uint64_t length_bytes) const noexcept {
  RB_ASSERT(offset_bytes <= volume_size_bytes_ && length_bytes <= volume_size_bytes_ - offset_bytes);
  if (length_bytes == 0 || dirty_count_ == 0) return false;
  const std::uint64_t last = (offset_bytes + length_bytes - 1) >> block_shift_;
  return next_dirty_block(offset_bytes >> block_shift_) <= last;
}

std::optional<ByteRange> DirtyBitmap::next_dirty(std::uint64_t from_bytes,
                                                 std::uint64_t length_bytes_max) const noexcept {
  RB_ASSERT(length_bytes_max >= block_bytes_);
  // The end of a run that reaches a volume's end inside its last block is past everything.
  if (dirty_count_ == 0 || from_bytes >= volume_size_bytes_) return std::nullopt;
  const std::uint64_t begin = next_dirty_block(from_bytes >> block_shift_);
  if (begin >= blocks_count_) return std::nullopt;
  const std::uint64_t blocks_count_max = std::min(length_bytes_max >> block_shift_, blocks_count_ - begin);
  const std::uint64_t end = next_clean_block(begin, begin + blocks_count_max);
  const std::uint64_t offset_bytes = begin << block_shift_;
  return ByteRange{offset_bytes, std::min((end - begin) << block_shift_, volume_size_bytes_ - offset_bytes)};
}

bool DirtyBitmap::is_block_dirty(std::uint64_t block) const noexcept {
  const std::uint64_t* words = pages_[static_cast<std::size_t>(block / kPageBlocks)].get();
  const std::uint64_t bit = block % kPageBlocks;
  return words != nullptr && (words[bit / 64] >> (bit % 64) & 1) != 0;
}

std::uint64_t DirtyBitmap::dirty_bytes() const noexcept {
  std::uint64_t bytes = dirty_count_ << block_shift_;
  const std::uint64_t rest_bytes = volume_size_bytes_ & (block_bytes_ - 1);
  if (rest_bytes != 0 && is_block_dirty(blocks_count_ - 1)) bytes -= block_bytes_ - rest_bytes;
  return bytes;
}

void DirtyBitmap::get_page(std::size_t page, std::span<std::byte, kPageBytes> into) const noexcept {
  const std::uint64_t* words = pages_[page].get();
  for (std::size_t index = 0; index < kPageWords; ++index) {
    store_le<std::uint64_t>(into.data() + index * 8, words == nullptr ? 0 : words[index]);
  }
}

void DirtyBitmap::merge_page(std::size_t page, std::span<const std::byte, kPageBytes> from) {
  const std::uint64_t bits_count = blocks_in_page(page);
  std::uint64_t* words = make_page(page);
  std::uint32_t added_count = 0;
  for (std::size_t index = 0; index < kPageWords && index * 64 < bits_count; ++index) {
    std::uint64_t bits = load_le<std::uint64_t>(from.data() + index * 8);
    if (bits_count - index * 64 < 64) bits &= word_mask(0, bits_count - index * 64 - 1);
    added_count += static_cast<std::uint32_t>(std::popcount(bits & ~words[index]));
    words[index] |= bits;
  }
  if (added_count > 0) set_changed(page * kPageBlocks, page * kPageBlocks + bits_count);
  page_counts_[page] += added_count;
  dirty_count_ += added_count;
  drop_page_if_clean(page);
}

void DirtyBitmap::get_words(std::uint64_t first, std::span<std::uint64_t> into) const noexcept {
  for (std::size_t index = 0; index < into.size(); ++index) {
    const std::uint64_t page = (first + index) / kPageWords;
    const std::uint64_t* words = page < pages_.size() ? pages_[page].get() : nullptr;
    into[index] = words == nullptr ? 0 : words[(first + index) % kPageWords];
  }
}

void DirtyBitmap::merge_words(std::uint64_t first, std::span<const std::uint64_t> from) {
  for (std::size_t index = 0; index < from.size(); ++index) {
    const std::uint64_t block = (first + index) * 64;
    for (std::uint64_t bits = from[index]; bits != 0 && block < blocks_count_;) {
      // Run by run of ones: few in a sparse word, one in a full one.
      const auto begin = static_cast<std::uint64_t>(std::countr_zero(bits));
      const std::uint64_t end = begin + static_cast<std::uint64_t>(std::countr_one(bits >> begin));
      if (block + begin >= blocks_count_) break;
      set_blocks(block + begin, std::min(block + end, blocks_count_));
      if (end == 64) break;
      bits &= ~std::uint64_t{0} << end;
    }
  }
}

}  // namespace replblk::blockdev
