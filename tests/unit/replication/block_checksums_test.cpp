#include "replication/block_checksums.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace replblk::replication {
namespace {

using blockdev::ByteRange;

constexpr std::uint32_t kBlock = 4096;

std::vector<std::byte> pattern(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t at = 0; at < size; ++at) bytes[at] = static_cast<std::byte>(at * 7 + at / 251);
  return bytes;
}

// As libxxhash's own tool prints it: a node of another byte order or library must agree.
TEST(BlockChecksums, Are_xxh3_128_in_canonical_form) {
  const std::vector<std::byte> zeroes(kBlock);
  const std::vector<std::byte> entries = block_checksums(zeroes, kBlock);
  ASSERT_EQ(entries.size(), kChecksumBytes);
  std::string hex;
  for (const std::byte byte : entries) {
    constexpr const char* kDigits = "0123456789abcdef";
    hex += kDigits[std::to_integer<int>(byte) >> 4];
    hex += kDigits[std::to_integer<int>(byte) & 15];
  }
  EXPECT_EQ(hex, "3ee8dc4f9e7ee49593d76fe148c689ba");
}

TEST(BlockChecksums, Equal_data_has_no_differing_ranges) {
  const auto data = pattern(10 * kBlock);
  EXPECT_TRUE(differing_ranges(40960, data, kBlock, block_checksums(data, kBlock), 0).empty());
}

// A difference that is put on the wrong block leaves the right one unsynced for ever.
TEST(BlockChecksums, Each_differing_block_is_named_where_it_stands) {
  const auto mine = pattern(10 * kBlock);
  for (std::size_t index = 0; index < 10; ++index) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{kBlock - 1}}) {
      auto theirs = mine;
      theirs[index * kBlock + at] ^= std::byte{1};
      const auto differing = differing_ranges(81920, mine, kBlock, block_checksums(theirs, kBlock), 0);
      EXPECT_EQ(differing, (std::vector<ByteRange>{{81920 + index * kBlock, kBlock}}));
    }
  }
}

TEST(BlockChecksums, Neighbours_are_one_run_and_small_gaps_are_closed_only_when_asked) {
  const auto mine = pattern(10 * kBlock);
  auto theirs = mine;
  for (const std::size_t index : {1u, 2u, 4u, 9u}) theirs[index * kBlock] ^= std::byte{1};
  const auto entries = block_checksums(theirs, kBlock);
  EXPECT_EQ(differing_ranges(0, mine, kBlock, entries, 0),
            (std::vector<ByteRange>{{kBlock, 2 * kBlock}, {4 * kBlock, kBlock}, {9 * kBlock, kBlock}}));
  EXPECT_EQ(differing_ranges(0, mine, kBlock, entries, kBlock),
            (std::vector<ByteRange>{{kBlock, 4 * kBlock}, {9 * kBlock, kBlock}}));
}

// The volume's last block need not be whole.
TEST(BlockChecksums, Last_block_may_be_short) {
  const auto mine = pattern(2 * kBlock + 512);
  auto theirs = mine;
  theirs.back() ^= std::byte{1};
  ASSERT_EQ(block_checksums(mine, kBlock).size(), 3 * kChecksumBytes);
  EXPECT_EQ(differing_ranges(0, mine, kBlock, block_checksums(theirs, kBlock), 0),
            (std::vector<ByteRange>{{2 * kBlock, 512}}));
}

}  // namespace
}  // namespace replblk::replication
