#include "replication/progress_watch.hpp"

#include <gtest/gtest.h>

namespace replblk::replication {
namespace {

constexpr Instant kStart{seconds(100)};

// A resync whose source cannot read a block would otherwise stand at 99 % for ever, with nothing to see.
TEST(ProgressWatch, Thirty_seconds_without_less_left_is_stuck) {
  ProgressWatch watch;
  watch.start(kStart, 100);
  EXPECT_FALSE(watch.is_stuck(kStart + milliseconds(29'999), 100, false));
  EXPECT_TRUE(watch.is_stuck(kStart + seconds(30), 100, false));
  EXPECT_FALSE(watch.has_progressed());
}

TEST(ProgressWatch, Any_progress_begins_the_time_anew) {
  ProgressWatch watch;
  watch.start(kStart, 100);
  EXPECT_FALSE(watch.is_stuck(kStart + seconds(29), 99, false));
  EXPECT_TRUE(watch.has_progressed());
  EXPECT_FALSE(watch.is_stuck(kStart + seconds(58), 99, false));
  EXPECT_TRUE(watch.is_stuck(kStart + seconds(59), 99, false));
}

// Passes that copy the same blocks again and again, because their flush fails, are no progress.
TEST(ProgressWatch, What_was_reached_before_is_no_progress) {
  ProgressWatch watch;
  watch.start(kStart, 100);
  EXPECT_FALSE(watch.is_stuck(kStart + seconds(1), 50, false));
  EXPECT_FALSE(watch.is_stuck(kStart + seconds(2), 100, false));
  EXPECT_TRUE(watch.is_stuck(kStart + seconds(31), 50, false));
}

TEST(ProgressWatch, Pause_does_not_count) {
  ProgressWatch watch;
  watch.start(kStart, 100);
  EXPECT_FALSE(watch.is_stuck(kStart + seconds(1000), 100, true));
  EXPECT_FALSE(watch.is_stuck(kStart + seconds(1029), 100, false));
  EXPECT_TRUE(watch.is_stuck(kStart + seconds(1030), 100, false));
}

TEST(ProgressWatch, Nothing_is_stuck_when_nothing_is_watched) {
  ProgressWatch watch;
  EXPECT_FALSE(watch.is_stuck(kStart, 1, false));
  watch.start(kStart, 1);
  watch.stop();
  EXPECT_FALSE(watch.is_stuck(kStart + seconds(60), 1, false));
}

}  // namespace
}  // namespace replblk::replication
