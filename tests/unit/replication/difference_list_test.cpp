#include "replication/difference_list.hpp"

#include <gtest/gtest.h>

namespace replblk::replication {
namespace {

using blockdev::ByteRange;

// Pieces are compared in any order; a person wants to read one range where there is one.
TEST(DifferenceList, Neighbours_are_joined_in_whatever_order_they_come) {
  DifferenceList list;
  list.add({8192, 4096});
  list.add({0, 4096});
  EXPECT_EQ(list.listed(), (std::vector<ByteRange>{{0, 4096}, {8192, 4096}}));
  list.add({4096, 4096});
  EXPECT_EQ(list.listed(), (std::vector<ByteRange>{{0, 12288}}));
  list.add({12288, 512});
  list.add({40960, 4096});
  list.add({36864, 4096});
  EXPECT_EQ(list.listed(), (std::vector<ByteRange>{{0, 12800}, {36864, 8192}}));
  EXPECT_EQ(list.ranges_count(), 2u);
  EXPECT_EQ(list.bytes(), 20992u);
}

// A copy that is wholly different must not fill the memory, nor be reported as a small one.
TEST(DifferenceList, Is_bounded_and_counts_what_it_does_not_list) {
  DifferenceList list;
  for (std::uint64_t index = 0; index < 1000; ++index) list.add({index * 8192, 4096});
  EXPECT_EQ(list.listed().size(), DifferenceList::kListedMax);
  EXPECT_EQ(list.listed().back(), (ByteRange{(DifferenceList::kListedMax - 1) * 8192, 4096}));
  EXPECT_EQ(list.ranges_count(), 1000u);
  EXPECT_EQ(list.bytes(), 4096000u);
  list.clear();
  EXPECT_EQ(list.ranges_count(), 0u);
  EXPECT_EQ(list.bytes(), 0u);
}

}  // namespace
}  // namespace replblk::replication
