#include "replication/peer_copy.hpp"

#include <gtest/gtest.h>

namespace replblk::replication {
namespace {

constexpr std::uint64_t kSize = 64 * 4096;

struct PeerCopyTest : ::testing::Test {
  blockdev::DirtyBitmap dirty{kSize, 4096};
  PeerCopy copy{dirty, kSize, true};
};

// A16: a bit cleared at the acknowledgement would forget a block that the peer's power cut undoes.
TEST_F(PeerCopyTest, A_dirty_bit_is_cleared_only_by_a_flush_that_began_after_the_acknowledgement) {
  dirty.set(0, 8192);
  copy.acknowledged({0, 4096}, false);
  EXPECT_TRUE(dirty.is_dirty(0, 4096));
  copy.flush_begins();
  copy.acknowledged({4096, 4096}, false);
  copy.flush_done();
  EXPECT_FALSE(dirty.is_dirty(0, 4096));
  EXPECT_TRUE(dirty.is_dirty(4096, 4096));
  copy.flush_begins();
  copy.flush_done();
  EXPECT_TRUE(dirty.is_clean());
}

// protocol.md 4: what the peer had not flushed may be undone by its power cut.
TEST_F(PeerCopyTest, Unflushed_blocks_become_dirty_when_the_peer_is_lost) {
  copy.acknowledged({0, 4096}, false);
  copy.flush_begins();
  copy.flush_done();
  copy.acknowledged({4096, 4096}, false);
  copy.flush_begins();
  copy.acknowledged({8192, 512}, false);
  copy.acknowledged({12288, 4096}, true);
  copy.lost();
  EXPECT_FALSE(dirty.is_dirty(0, 4096));
  EXPECT_TRUE(dirty.is_dirty(4096, 4096));
  EXPECT_TRUE(dirty.is_dirty(8192, 4096));
  EXPECT_FALSE(dirty.is_dirty(12288, 4096));
  EXPECT_FALSE(copy.needs_flush());
}

// What the own disk failed the peer may have: whatever it has acknowledged there says nothing about the own copy.
TEST_F(PeerCopyTest, A_change_that_the_own_disk_failed_stays_dirty_after_the_flush_of_the_peer) {
  copy.own_copy_failed({512, 512});
  copy.flush_begins();
  copy.flush_done();
  EXPECT_TRUE(dirty.is_dirty(0, 4096));
  copy.acknowledged({0, 8192}, false);
  copy.own_copy_failed({0, 512});
  copy.flush_begins();
  copy.own_copy_failed({0, 512});
  copy.flush_done();
  EXPECT_TRUE(dirty.is_dirty(0, 4096));
  copy.acknowledged({0, 4096}, false);
  copy.flush_begins();
  copy.own_copy_failed({0, 512});
  copy.flush_done();
  EXPECT_TRUE(dirty.is_dirty(0, 4096));
}

// Part of a block that is equal does not make the block equal.
TEST_F(PeerCopyTest, A_write_of_part_of_a_dirty_block_clears_nothing) {
  dirty.set(0, 12288);
  copy.acknowledged({512, 8192}, false);
  copy.flush_begins();
  copy.flush_done();
  EXPECT_TRUE(dirty.is_dirty(0, 4096));
  EXPECT_FALSE(dirty.is_dirty(4096, 4096));
  EXPECT_TRUE(dirty.is_dirty(8192, 4096));
}

TEST_F(PeerCopyTest, The_last_short_block_of_a_volume_can_be_cleared) {
  blockdev::DirtyBitmap odd(4096 * 3 + 512, 4096);
  PeerCopy last(odd, 4096 * 3 + 512, true);
  odd.set_all();
  last.acknowledged({0, 4096 * 3 + 512}, false);
  last.flush_begins();
  last.flush_done();
  EXPECT_TRUE(odd.is_clean());
}

}  // namespace
}  // namespace replblk::replication
