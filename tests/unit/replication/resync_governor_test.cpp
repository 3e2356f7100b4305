#include "replication/resync_governor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

namespace replblk::replication {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

/// A copier, initiators and a disk made of formulas: each request takes `alone`, and more for what the copier has sent
/// in the last 50 ms, in proportion to the disk's speed. A piece takes its size by the disk's speed.
struct Model {
  explicit Model(const ResyncLimits& limits) : governor(limits) { governor.set_copying(true, now); }

  ResyncGovernor governor;
  Instant now{seconds(100)};
  double disk_bytes_per_second = 500.0 * static_cast<double>(kMiB);
  Duration alone = microseconds(500);
  double requests_per_second = 5000;
  double weight = 4;  ///< at full speed of the copier a request takes 1 + weight times as long
  std::uint64_t copied_bytes = 0;
  std::deque<std::pair<Instant, std::uint64_t>> in_flight;  ///< ends, bytes
  std::deque<std::pair<Instant, std::uint64_t>> recent;     ///< begun, bytes
  double requests_due = 0;
  std::uint64_t begun_count = 0;
  LatencyHistogram seen;  ///< by the initiators

  [[nodiscard]] Duration latency() {
    while (!recent.empty() && now - recent.front().first > milliseconds(50)) recent.pop_front();
    double bytes = 0;
    for (const auto& [when, count] : recent) bytes += static_cast<double>(count);
    const double share = std::min(1.0, bytes / (disk_bytes_per_second * 0.05));
    // One in ten takes half as long again: a percentile needs a tail.
    const double tail = ++request_number % 10 == 0 ? 1.5 : 1.0;
    return Duration(static_cast<std::int64_t>(static_cast<double>(alone.count()) * tail * (1 + weight * share)));
  }
  void run(Duration duration) {
    const Instant until = now + duration;
    while (now < until) {
      now += milliseconds(1);
      while (!in_flight.empty() && in_flight.front().first <= now) {
        governor.ended(now, in_flight.front().second);
        copied_bytes += in_flight.front().second;
        in_flight.pop_front();
      }
      for (requests_due += requests_per_second * 0.001; requests_due >= 1; requests_due -= 1) {
        const Duration took = latency();
        seen.add(took);
        governor.request_done(now, took);
      }
      while (true) {
        const auto allowance = governor.allowance(now, false);
        if (!allowance.may_begin) break;
        const std::uint64_t bytes = allowance.piece_bytes_max;
        governor.began(bytes);
        ++begun_count;
        recent.emplace_back(now, bytes);
        const Instant from = in_flight.empty() ? now : std::max(now, in_flight.back().first);
        const auto took = Duration(static_cast<std::int64_t>(static_cast<double>(bytes) / disk_bytes_per_second * 1e9));
        in_flight.emplace_back(from + took, bytes);
      }
    }
  }
  [[nodiscard]] double copied_per_second(Duration duration) {
    const std::uint64_t before = copied_bytes;
    run(duration);
    return static_cast<double>(copied_bytes - before) / std::chrono::duration<double>(duration).count();
  }
  std::uint64_t request_number = 0;
};

// A resync that leaves an idle disk unused makes the time without a second copy longer for nothing.
TEST(ResyncGovernor, Fills_the_disk_when_no_initiator_wants_it) {
  Model model({});
  model.requests_per_second = 0;
  EXPECT_GT(model.copied_per_second(seconds(2)), 0.95 * model.disk_bytes_per_second);
  EXPECT_FALSE(model.governor.is_beside_initiators());
}

TEST(ResyncGovernor, Keeps_the_initiators_p99_within_the_budget) {
  Model model({});
  model.run(seconds(60));  // finds its rate
  const double p99_alone = 1.5 * static_cast<double>(model.alone.count());
  model.seen.clear();
  const double speed = model.copied_per_second(seconds(20));
  // The histogram is exact to 3 %, and a step up overshoots until it is judged.
  EXPECT_LT(static_cast<double>(model.seen.percentile(0.99).count()), p99_alone * 1.27);
  // A fifth more is 1/20 of the disk in this model. It uses most of what it may.
  EXPECT_GT(speed, 0.025 * model.disk_bytes_per_second);
  EXPECT_LT(speed, 0.065 * model.disk_bytes_per_second);
}

TEST(ResyncGovernor, A_larger_budget_is_used) {
  Model careful({});
  careful.run(seconds(60));
  Model bold({.latency_budget = 1.0});
  bold.run(seconds(60));
  EXPECT_GT(bold.copied_per_second(seconds(20)), 2.5 * careful.copied_per_second(seconds(20)));
}

// protocol.md 6: never below the minimum, so that it always ends.
TEST(ResyncGovernor, Keeps_the_minimum_however_much_initiators_suffer) {
  Model model({.rate_min_bytes_per_second = 2 * kMiB});
  model.weight = 100000;
  model.run(seconds(10));
  EXPECT_GE(model.copied_per_second(seconds(30)), 2.0 * static_cast<double>(kMiB));
  EXPECT_LE(model.copied_per_second(seconds(30)), 4.0 * static_cast<double>(kMiB));
}

// Few requests give no percentile: the phases still end.
TEST(ResyncGovernor, Keeps_the_minimum_beside_a_few_slow_requests) {
  Model model({.rate_min_bytes_per_second = 2 * kMiB});
  model.weight = 100000;
  model.requests_per_second = 3;
  model.alone = milliseconds(300);
  model.run(seconds(10));
  EXPECT_GE(model.copied_per_second(seconds(60)), 2.0 * static_cast<double>(kMiB));
}

TEST(ResyncGovernor, Gives_way_at_the_first_request_and_takes_the_disk_back_when_they_stop) {
  Model model({});
  model.requests_per_second = 0;
  model.run(seconds(1));
  model.requests_per_second = 5000;
  model.run(milliseconds(2));
  EXPECT_TRUE(model.governor.is_beside_initiators());
  const std::uint64_t begun = model.begun_count;
  model.run(milliseconds(120));
  EXPECT_EQ(model.begun_count, begun);  // measures what requests take alone
  model.run(seconds(2));
  EXPECT_GT(model.begun_count, begun);
  model.requests_per_second = 0;
  model.run(ResyncGovernor::kIdleAfter + milliseconds(50));
  EXPECT_GT(model.copied_per_second(seconds(1)), 0.95 * model.disk_bytes_per_second);
}

// Requests that have been in work for long are load, too: an array that hangs must not be flooded.
TEST(ResyncGovernor, A_request_that_takes_long_keeps_it_beside) {
  ResyncGovernor governor({});
  Instant now{seconds(1)};
  governor.set_copying(true, now);
  for (int count = 0; count < 100; ++count) {
    now += milliseconds(100);
    static_cast<void>(governor.allowance(now, true));
    EXPECT_TRUE(governor.is_beside_initiators());
  }
}

TEST(ResyncGovernor, Keeps_the_maximum_also_after_a_pause) {
  Model model({.rate_max_bytes_per_second = 10 * kMiB});
  model.requests_per_second = 0;
  EXPECT_NEAR(model.copied_per_second(seconds(10)) / static_cast<double>(10 * kMiB), 1.0, 0.15);
  model.now += seconds(3600);  // paused: nobody asks
  EXPECT_LT(model.copied_per_second(seconds(1)), 12.5 * static_cast<double>(kMiB));
}

TEST(ResyncGovernor, Asks_again_in_time_to_keep_a_slow_rate) {
  ResyncGovernor governor({.rate_min_bytes_per_second = 65536, .rate_max_bytes_per_second = 65536});
  Instant now{seconds(1)};
  governor.set_copying(true, now);
  ASSERT_TRUE(governor.allowance(now, false).may_begin);
  governor.began(65536);
  governor.ended(now, 65536);
  const auto allowance = governor.allowance(now, false);
  EXPECT_FALSE(allowance.may_begin);
  EXPECT_EQ(to_ms(allowance.ask_again - now), 1000);
  EXPECT_TRUE(governor.allowance(allowance.ask_again, false).may_begin);
}

TEST(LatencyHistogram, Percentiles_are_exact_to_three_percent) {
  LatencyHistogram histogram;
  for (int count = 1; count <= 1000; ++count) histogram.add(microseconds(count * 10));
  for (const double share : {0.5, 0.9, 0.99}) {
    const double exact = share * 10000;
    const double got = std::chrono::duration<double, std::micro>(histogram.percentile(share)).count();
    EXPECT_NEAR(got, exact, exact * 0.035) << share;
  }
  EXPECT_EQ(histogram.count(), 1000u);
}

TEST(LatencyHistogram, Old_counts_fade_and_new_ones_win) {
  LatencyHistogram histogram;
  for (int count = 0; count < 1000; ++count) histogram.add(milliseconds(100));
  for (int round = 0; round < 10; ++round) {
    histogram.fade();
    for (int count = 0; count < 1000; ++count) histogram.add(milliseconds(1));
  }
  EXPECT_LT(histogram.percentile(0.99), milliseconds(2));
  histogram.clear();
  EXPECT_EQ(histogram.percentile(0.99), Duration(0));
}

TEST(LatencyHistogram, Extremes_have_a_place) {
  LatencyHistogram histogram;
  histogram.add(Duration(0));
  EXPECT_EQ(histogram.percentile(0.99), Duration(0));
  histogram.add(seconds(10000));
  EXPECT_GT(histogram.percentile(0.99), seconds(30));
}

}  // namespace
}  // namespace replblk::replication
