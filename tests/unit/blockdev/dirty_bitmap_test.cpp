#include "blockdev/dirty_bitmap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <random>
#include <set>

namespace replblk::blockdev {
namespace {

using PageBytes = std::array<std::byte, DirtyBitmap::kPageBytes>;

std::set<std::uint64_t> dirty_set(const DirtyBitmap& bitmap, std::uint64_t length_bytes_max) {
  std::set<std::uint64_t> blocks;
  std::uint64_t from_bytes = 0;
  while (const auto run = bitmap.next_dirty(from_bytes, length_bytes_max)) {
    if (run->offset_bytes < from_bytes || run->length_bytes == 0) {
      ADD_FAILURE() << "the search does not advance at " << from_bytes;
      break;
    }
    for (std::uint64_t at = run->offset_bytes; at < run->end_bytes(); at += bitmap.block_bytes()) {
      blocks.insert(at / bitmap.block_bytes());
    }
    from_bytes = run->end_bytes();
  }
  return blocks;
}

// A block that is set but never found is never resynced: the copies differ and nobody knows.
TEST(DirtyBitmap, Random_operations_agree_with_a_plain_set_of_blocks) {
  for (std::uint32_t seed = 1; seed <= 12; ++seed) {
    std::mt19937_64 random(seed);
    const std::uint32_t block_bytes = seed % 2 == 0 ? 4096 : 16384;
    // Three pages and a part, the last block being a part too.
    const std::uint64_t size_bytes = std::uint64_t{block_bytes} * (3 * 32768 + random() % 5000) + 512 * (random() % 8);
    DirtyBitmap bitmap(size_bytes, block_bytes);
    std::set<std::uint64_t> model;
    for (int step = 0; step < 400; ++step) {
      const bool is_large = random() % 8 == 0;
      const std::uint64_t offset = random() % size_bytes / 512 * 512;
      const std::uint64_t length = std::min<std::uint64_t>(
          size_bytes - offset,
          (is_large ? random() % (size_bytes / 2) : random() % (8ull * block_bytes)) / 512 * 512 + 512);
      const std::uint64_t end = offset + length;
      if (random() % 2 == 0) {
        bitmap.set(offset, length);
        for (std::uint64_t block = offset / block_bytes; block * block_bytes < end; ++block) model.insert(block);
      } else {
        bitmap.clear(offset, length);
        const std::uint64_t first = (offset + block_bytes - 1) / block_bytes;
        const std::uint64_t last = end == size_bytes ? bitmap.blocks_count() : end / block_bytes;
        if (first < last) model.erase(model.lower_bound(first), model.lower_bound(last));
      }
      ASSERT_EQ(bitmap.dirty_blocks_count(), model.size());
      std::uint64_t bytes = model.size() * block_bytes;
      if (model.contains(bitmap.blocks_count() - 1) && size_bytes % block_bytes != 0) {
        bytes -= block_bytes - size_bytes % block_bytes;
      }
      ASSERT_EQ(bitmap.dirty_bytes(), bytes);
      const std::uint64_t probe = random() % size_bytes;
      const std::uint64_t probe_length = std::min<std::uint64_t>(size_bytes - probe, random() % 100'000 + 1);
      const auto hit = model.lower_bound(probe / block_bytes);
      ASSERT_EQ(bitmap.is_dirty(probe, probe_length), hit != model.end() && *hit * block_bytes < probe + probe_length);
      const auto run = bitmap.next_dirty(probe, 1 << 20);
      ASSERT_EQ(run.has_value(), hit != model.end());
      if (run) {
        ASSERT_EQ(run->offset_bytes, *hit * block_bytes);
        std::uint64_t blocks = 0;
        for (auto at = hit; at != model.end() && *at == *hit + blocks && blocks < (1u << 20) / block_bytes; ++at)
          ++blocks;
        ASSERT_EQ(run->length_bytes, std::min(blocks * block_bytes, size_bytes - run->offset_bytes));
      }
    }
    ASSERT_EQ(dirty_set(bitmap, 1 << 20), model);
    ASSERT_EQ(dirty_set(bitmap, std::uint64_t{1} << 40), model);
    // Through its pages and back, twice: union, not replacement.
    DirtyBitmap copy(size_bytes, block_bytes);
    for (std::size_t page = 0; page < bitmap.pages_count(); ++page) {
      PageBytes bytes;
      bitmap.get_page(page, bytes);
      ASSERT_EQ(bitmap.has_page(page), bytes != PageBytes{});
      copy.merge_page(page, bytes);
      copy.merge_page(page, bytes);
    }
    ASSERT_EQ(dirty_set(copy, 1 << 20), model);
    ASSERT_EQ(copy.dirty_blocks_count(), model.size());
    DirtyBitmap other(size_bytes, block_bytes);
    other.set(0, 5ull * block_bytes);
    other.merge(bitmap);
    model.insert({0, 1, 2, 3, 4});
    ASSERT_EQ(dirty_set(other, 1 << 20), model);
    other.clear_all();
    ASSERT_TRUE(other.is_clean());
    ASSERT_EQ(other.next_dirty(0, 1 << 20), std::nullopt);
    for (std::size_t page = 0; page < other.pages_count(); ++page) ASSERT_FALSE(other.has_page(page));
  }
}

// Bits that a peer sends for blocks that do not exist would be resynced past the end of the device.
TEST(DirtyBitmap, Bits_beyond_the_end_are_ignored_when_a_page_is_merged) {
  DirtyBitmap bitmap(10 * 4096 + 512, 4096);
  PageBytes ones;
  ones.fill(std::byte{0xff});
  bitmap.merge_page(0, ones);
  EXPECT_EQ(bitmap.dirty_blocks_count(), 11u);
  EXPECT_EQ(bitmap.dirty_bytes(), 10u * 4096 + 512);
  EXPECT_EQ(bitmap.next_dirty(0, 1 << 20), (ByteRange{0, 10 * 4096 + 512}));
}

// Bit n of a page is block page * 32768 + n: the peer reads it so.
TEST(DirtyBitmap, Page_format_is_as_documented) {
  DirtyBitmap bitmap(std::uint64_t{70'000} * 4096, 4096);
  bitmap.set((std::uint64_t{32768} + 77) * 4096, 1);
  PageBytes bytes;
  bitmap.get_page(1, bytes);
  EXPECT_EQ(bytes[77 / 8], std::byte{1 << 77 % 8});
  EXPECT_FALSE(bitmap.has_page(0));
  EXPECT_FALSE(bitmap.has_page(2));
}

TEST(DirtyBitmap, Set_all_covers_the_volume_and_no_more) {
  DirtyBitmap bitmap((std::uint64_t{1} << 30) - 4096 + 512, 4096);
  bitmap.set_all();
  EXPECT_EQ(bitmap.dirty_bytes(), (std::uint64_t{1} << 30) - 4096 + 512);
}

// A resync asks at every turn; on a clean or nearly clean large volume the question must cost next to nothing.
TEST(DirtyBitmap, Cost_of_the_search_in_a_large_volume_is_printed) {
  const std::uint64_t size_bytes = std::uint64_t{4} << 40;
  DirtyBitmap bitmap(size_bytes, 4096);
  bitmap.set(size_bytes - 4096, 4096);
  const auto begin = std::chrono::steady_clock::now();
  for (int n = 0; n < 1000; ++n) ASSERT_EQ(bitmap.next_dirty(0, 1 << 20), (ByteRange{size_bytes - 4096, 4096}));
  std::printf("next_dirty over 4 TiB, one bit at the end: %.0f ns\n",
              std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count() / 1000);
}

// The pages of the bitmap area have other bounds than those in memory: what is carried over by words is the same set,
// and exactly the pages that a change touches count as changed.
TEST(DirtyBitmap, Words_carry_the_set_over_and_changes_are_known_by_page_of_the_area) {
  constexpr std::uint64_t kBlock = 4096, kBlocks = DirtyBitmap::kSavedPageBlocks * 5 + 77;
  std::mt19937_64 random(11);
  for (int round = 0; round < 50; ++round) {
    DirtyBitmap from(kBlocks * kBlock, kBlock), to(kBlocks * kBlock, kBlock);
    for (int n = 0; n < 40; ++n) {
      const std::uint64_t begin = random() % kBlocks;
      const std::uint64_t count = 1 + random() % std::min<std::uint64_t>(kBlocks - begin, 1 + (1u << random() % 16));
      for (std::size_t page = 0; page < from.saved_pages_count(); ++page) from.set_saved(page);
      const std::uint64_t dirty_before = from.dirty_blocks_count();
      const bool is_set = random() % 4 != 0;
      is_set ? from.set(begin * kBlock, count * kBlock) : from.clear(begin * kBlock, count * kBlock);
      for (std::size_t page = 0; page < from.saved_pages_count(); ++page) {
        const bool is_touched = page >= begin / DirtyBitmap::kSavedPageBlocks &&
                                page <= (begin + count - 1) / DirtyBitmap::kSavedPageBlocks;
        ASSERT_TRUE(is_touched || !from.is_changed(page));
        if (begin / DirtyBitmap::kSavedPageBlocks == (begin + count - 1) / DirtyBitmap::kSavedPageBlocks &&
            is_touched) {
          ASSERT_EQ(from.is_changed(page), from.dirty_blocks_count() != dirty_before);
        }
      }
    }
    std::vector<std::uint64_t> words(DirtyBitmap::kSavedPageWords);
    for (std::size_t page = 0; page < from.saved_pages_count(); ++page) {
      from.get_words(page * words.size(), words);
      to.merge_words(page * words.size(), words);
    }
    ASSERT_EQ(to.dirty_blocks_count(), from.dirty_blocks_count());
    for (std::uint64_t block = 0; block < kBlocks; block += 1 + random() % 60) {
      ASSERT_EQ(to.is_dirty(block * kBlock, kBlock), from.is_dirty(block * kBlock, kBlock)) << block;
    }
  }
}

}  // namespace
}  // namespace replblk::blockdev
