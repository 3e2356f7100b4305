#include "replication/sync_meter.hpp"

#include <gtest/gtest.h>

namespace replblk::replication {
namespace {

constexpr Instant kStart{seconds(50)};

TEST(SyncMeter, Tells_share_speed_and_time_left) {
  SyncMeter meter;
  meter.start(kStart, 1000);
  meter.sample(kStart + seconds(10), 750);
  const SyncMeter::Reading reading = meter.reading(kStart + seconds(10));
  EXPECT_EQ(reading.percent_done, 25.0);
  EXPECT_EQ(reading.rate_bytes_per_second, 25u);
  EXPECT_EQ(reading.average_rate_bytes_per_second, 25u);
  EXPECT_EQ(reading.seconds_left, 30u);
  EXPECT_EQ(reading.left_bytes, 750u);
  EXPECT_EQ(reading.elapsed_ms, 10000u);
}

// A resync that has become slow beside initiators must not promise what it did at night.
TEST(SyncMeter, Time_left_follows_the_speed_of_late) {
  SyncMeter meter;
  meter.start(kStart, 1000000);
  std::uint64_t left = 1000000;
  Instant now = kStart;
  for (int second = 0; second < 100; ++second) meter.sample(now += seconds(1), left -= 5000);
  for (int second = 0; second < 30; ++second) meter.sample(now += seconds(1), left -= 100);
  const SyncMeter::Reading reading = meter.reading(now);
  EXPECT_EQ(reading.rate_bytes_per_second, 100u);
  EXPECT_EQ(reading.seconds_left, left / 100);
  EXPECT_GT(reading.average_rate_bytes_per_second, 3000u);
}

TEST(SyncMeter, Nothing_to_do_is_done) {
  SyncMeter meter;
  meter.start(kStart, 0);
  EXPECT_EQ(meter.reading(kStart).percent_done, 100.0);
  EXPECT_EQ(meter.reading(kStart + seconds(1)).seconds_left, 0u);
}

TEST(SyncMeter, More_work_than_at_the_start_does_not_go_below_zero) {
  SyncMeter meter;
  meter.start(kStart, 100);
  meter.sample(kStart + seconds(5), 400);
  EXPECT_EQ(meter.reading(kStart + seconds(5)).percent_done, 0.0);
  EXPECT_EQ(meter.reading(kStart + seconds(5)).rate_bytes_per_second, 0u);
}

}  // namespace
}  // namespace replblk::replication
