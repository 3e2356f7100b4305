#include "membership/lease.hpp"

#include <gtest/gtest.h>

namespace replblk::membership {
namespace {

constexpr Instant at_ms(int ms) { return Instant(milliseconds(ms)); }
const blockdev::Configuration kPair{7, 3, 0};

// Counted from when the echo arrives instead of from t1, a delayed echo would outlive the promise.
TEST(Lease, An_echo_counts_from_the_moment_of_its_stamp) {
  Lease lease(42);
  const Stamp stamp = lease.stamp(kPair, at_ms(5000), 1000);
  EXPECT_TRUE(lease.count(stamp, kPair, at_ms(5900)));
  EXPECT_TRUE(lease.is_valid(at_ms(5999)));
  EXPECT_FALSE(lease.is_valid(at_ms(6000)));
}

// F11: echoes from before a reboot, under another configuration, or from a clock that began anew.
TEST(Lease, Echoes_of_another_run_configuration_or_future_do_not_count) {
  Lease lease(42);
  const Stamp stamp = lease.stamp(kPair, at_ms(5000), 1000);
  EXPECT_FALSE(lease.count(stamp, {8, 3, 0}, at_ms(5100)));
  EXPECT_FALSE(lease.count(stamp, {7, 3, 1}, at_ms(5100)));
  EXPECT_FALSE(lease.count(stamp, kPair, at_ms(4999)));
  EXPECT_FALSE(Lease(43).count(stamp, kPair, at_ms(5100)));
  EXPECT_FALSE(lease.count({}, {}, at_ms(5100)));
  EXPECT_FALSE(lease.is_valid(at_ms(5100)));
}

TEST(Lease, An_older_echo_does_not_shorten_it_and_a_dropped_one_is_gone) {
  Lease lease(42);
  EXPECT_TRUE(lease.count(lease.stamp(kPair, at_ms(5000), 1000), kPair, at_ms(5100)));
  EXPECT_TRUE(lease.count(lease.stamp(kPair, at_ms(4500), 1000), kPair, at_ms(5100)));
  EXPECT_EQ(lease.until(), at_ms(6000));
  lease.drop();
  EXPECT_FALSE(lease.is_valid(at_ms(5100)));
}

// P3 holds while clocks differ by less than the margin only if the promise has it.
TEST(Promise, Outlasts_the_lease_by_the_margin) {
  Promise promise(at_ms(0), 0);
  EXPECT_TRUE(promise.has_run_out(at_ms(0)));
  promise.give({1, kPair, at_ms(900), 1000}, at_ms(100));
  EXPECT_FALSE(promise.has_run_out(at_ms(1199)));
  EXPECT_TRUE(promise.has_run_out(at_ms(1200)));
  promise.give({1, kPair, at_ms(900), 100}, at_ms(200));  // A shorter one does not take the longer one back.
  EXPECT_FALSE(promise.has_run_out(at_ms(1199)));
}

// F1: a secondary that restarts within its promise must not serve.
TEST(Promise, A_started_node_keeps_the_longest_promise_that_it_ever_gave) {
  Promise promise(at_ms(5000), 2000);
  EXPECT_FALSE(promise.has_run_out(at_ms(7199)));
  EXPECT_TRUE(promise.has_run_out(at_ms(7200)));
  Promise confirmed(at_ms(5000), 2000);
  confirmed.release();
  EXPECT_TRUE(confirmed.has_run_out(at_ms(5000)));
}

}  // namespace
}  // namespace replblk::membership
