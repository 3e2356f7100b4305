#include "replication/sync_pause.hpp"

#include <gtest/gtest.h>

namespace replblk::replication {
namespace {

// A pause that ends with the other node's flag would start a resync that somebody still holds back.
TEST(SyncPause, Either_node_pauses_and_only_both_together_resume) {
  SyncPauseFlags flags;
  EXPECT_FALSE(flags.is_paused());
  flags.is_by_self = true;
  EXPECT_TRUE(flags.is_paused());
  flags.is_by_peer = true;
  EXPECT_TRUE(flags.is_paused());
  flags.is_by_self = false;
  EXPECT_TRUE(flags.is_paused());
  flags.is_by_peer = false;
  EXPECT_FALSE(flags.is_paused());
}

TEST(SyncPause, Own_pause_survives_the_connection_and_the_peers_does_not) {
  SyncPauseFlags flags{.is_by_self = true, .is_by_peer = true};
  flags.forget_peer();
  EXPECT_EQ(flags.to_drbd(), "user");
  EXPECT_TRUE(flags.is_paused());
  flags = {.is_by_self = false, .is_by_peer = true};
  flags.forget_peer();
  EXPECT_FALSE(flags.is_paused());
}

// drbdsetup's words; scripts compare them.
TEST(SyncPause, Words_are_those_of_drbd) {
  EXPECT_EQ((SyncPauseFlags{false, false}).to_drbd(), "no");
  EXPECT_EQ((SyncPauseFlags{true, false}).to_drbd(), "user");
  EXPECT_EQ((SyncPauseFlags{false, true}).to_drbd(), "peer");
  EXPECT_EQ((SyncPauseFlags{true, true}).to_drbd(), "user,peer");
}

}  // namespace
}  // namespace replblk::replication
