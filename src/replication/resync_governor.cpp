#include "replication/resync_governor.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace replblk::replication {

namespace {

// A percentile of few requests is noise: each phase waits for some, but not for ever. What was copied last has
// after-effects (a cache that is written back): without a time to settle it would raise the yardstick, which would
// raise the rate, and so on. At the floor of the rate, quiet phases with their draining take less than a third of the
// time (600 of 2100 ms), which the floor makes up for.
constexpr Duration kSettle = milliseconds(100);
constexpr std::uint64_t kQuietSamplesMin = 200;
constexpr Duration kQuietMin = milliseconds(50);
constexpr Duration kQuietMax = milliseconds(250);
constexpr std::uint64_t kBusySamplesMin = 300;
constexpr Duration kBusyMin = milliseconds(1000);
constexpr Duration kBusyMinAtFloor = milliseconds(1500);
constexpr Duration kBusyMax = seconds(4);
// A rise of twice the budget is judged as soon as it can be seen.
constexpr std::uint64_t kAlarmSamplesMin = 100;
constexpr Duration kAlarmAfter = milliseconds(50);
// What was begun before has this long to end; a piece that hangs must not keep the rate at nothing.
constexpr Duration kDrainMax = milliseconds(250);
// The first rate beside initiators, before anything is known.
constexpr std::uint64_t kRateFirst = std::uint64_t{8} << 20;
constexpr double kUpFast = 1.5;
constexpr double kUp = 1.1;
constexpr double kDown = 0.6;
// Beside initiators: so much of the rate may be in flight at once.
constexpr Duration kWindow = milliseconds(20);
constexpr Duration kAskAgain = milliseconds(5);

double seconds_of(Duration duration) noexcept { return std::chrono::duration<double>(duration).count(); }

}  // namespace

ResyncGovernor::ResyncGovernor(const ResyncLimits& limits) noexcept
    : limits_(limits), rate_(std::max(kRateFirst, rate_floor())) {}

std::uint64_t ResyncGovernor::rate_floor() const noexcept {
  const std::uint64_t floor = limits_.rate_min_bytes_per_second * 3 / 2;
  return limits_.rate_max_bytes_per_second == 0 ? floor : std::min(floor, limits_.rate_max_bytes_per_second);
}

std::uint64_t ResyncGovernor::rate_bytes_per_second() const noexcept {
  const std::uint64_t maximum = limits_.rate_max_bytes_per_second == 0 ? UINT64_MAX : limits_.rate_max_bytes_per_second;
  return phase_ == Phase::idle ? maximum : std::min(rate_, maximum);
}

void ResyncGovernor::set_copying(bool is_copying, Instant now) noexcept {
  RB_ASSERT(is_copying || copying_count_ > 0);
  if (!is_copying) {
    --copying_count_;
    return;
  }
  if (++copying_count_ > 1) return;
  tokens_bytes_ = 0;
  refilled_at_ = now;
  enter(Phase::idle, now);
}

void ResyncGovernor::request_done(Instant now, Duration latency) noexcept {
  last_request_ = now;
  has_request_ever_ = true;
  if (copying_count_ == 0) return;
  if (phase_ == Phase::quiet) {
    // Only what had nothing of ours beside it from its beginning on.
    if (in_flight_bytes_ > 0 || now - latency < drained_at_ + kSettle) return;
    quiet_.add(latency);
    ++quiet_new_count_;
  } else if (phase_ == Phase::busy) {
    busy_.add(latency);
  }
}

ResyncGovernor::Allowance ResyncGovernor::allowance(Instant now, bool has_requests) noexcept {
  advance(now, has_requests);
  refill(now);
  Allowance allowance;
  allowance.ask_again = now + kAskAgain;
  if (phase_ == Phase::quiet) return allowance;
  const bool is_idle = phase_ == Phase::idle;
  allowance.piece_bytes_max = is_idle ? kPieceBytesIdle : kPieceBytesBeside;
  std::uint64_t window = kWindowBytesMax;
  if (!is_idle) {
    window = static_cast<std::uint64_t>(static_cast<double>(rate_bytes_per_second()) * seconds_of(kWindow));
    window = std::clamp(window, kPieceBytesBeside, kWindowBytesMax);
  }
  if (in_flight_bytes_ > 0 && in_flight_bytes_ + allowance.piece_bytes_max > window) return allowance;
  if (tokens_bytes_ < 0) {
    const double wait_seconds = -tokens_bytes_ / static_cast<double>(rate_bytes_per_second());
    allowance.ask_again =
        now + std::max(Duration(microseconds(100)), Duration(static_cast<std::int64_t>(wait_seconds * 1e9)));
    return allowance;
  }
  allowance.may_begin = true;
  return allowance;
}

void ResyncGovernor::began(std::uint64_t bytes) noexcept {
  in_flight_bytes_ += bytes;
  busy_bytes_ += bytes;
  if (rate_bytes_per_second() != UINT64_MAX) tokens_bytes_ -= static_cast<double>(bytes);
}

void ResyncGovernor::ended(Instant now, std::uint64_t bytes) noexcept {
  RB_ASSERT(in_flight_bytes_ >= bytes);
  in_flight_bytes_ -= bytes;
  if (in_flight_bytes_ == 0) drained_at_ = now;
}

/// The bucket holds what the rate gives in kWindow at most: a pause is not caught up with a burst.
void ResyncGovernor::refill(Instant now) noexcept {
  const std::uint64_t rate = rate_bytes_per_second();
  const double elapsed_seconds = seconds_of(now - refilled_at_);
  refilled_at_ = now;
  if (rate == UINT64_MAX) {
    tokens_bytes_ = 0;
    return;
  }
  const double rate_per_second = static_cast<double>(rate);
  tokens_bytes_ = std::min(tokens_bytes_ + elapsed_seconds * rate_per_second, rate_per_second * seconds_of(kWindow));
}

void ResyncGovernor::enter(Phase phase, Instant now) noexcept {
  phase_ = phase;
  phase_since_ = now;
  switch (phase) {
    case Phase::idle:
      return;
    case Phase::quiet:
      quiet_.fade();
      quiet_new_count_ = 0;
      drained_at_ = now;
      return;
    case Phase::busy:
      busy_.clear();
      busy_bytes_ = 0;
      tokens_bytes_ = std::min(tokens_bytes_, 0.0);
      return;
  }
}

void ResyncGovernor::advance(Instant now, bool has_requests) noexcept {
  if (has_requests) {
    last_request_ = now;
    has_request_ever_ = true;
  }
  const bool is_wanted = has_request_ever_ && now - last_request_ < kIdleAfter;
  switch (phase_) {
    case Phase::idle:
      if (is_wanted) enter(Phase::quiet, now);
      return;
    case Phase::quiet: {
      if (!is_wanted) {
        enter(Phase::idle, now);
        return;
      }
      const bool is_drained = in_flight_bytes_ == 0;
      const Duration measured = now - drained_at_ - kSettle;
      const bool is_enough = is_drained && measured >= kQuietMin && quiet_new_count_ >= kQuietSamplesMin;
      const bool is_too_long = is_drained ? measured >= kQuietMax : now - phase_since_ >= kDrainMax;
      if (is_enough || is_too_long) enter(Phase::busy, now);
      return;
    }
    case Phase::busy:
      if (!is_wanted) {
        enter(Phase::idle, now);
        return;
      }
      judge(now);
      return;
  }
}

/// Holds what requests took beside our pieces against what they take alone, and moves the rate.
void ResyncGovernor::judge(Instant now) noexcept {
  const Duration elapsed = now - phase_since_;
  // At the floor there is nothing left to give way with.
  const bool is_at_floor = rate_ <= rate_floor();
  const bool is_full = (elapsed >= (is_at_floor ? kBusyMinAtFloor : kBusyMin) && busy_.count() >= kBusySamplesMin) ||
                       elapsed >= kBusyMax;
  const bool may_alarm = !is_at_floor && elapsed >= kAlarmAfter && busy_.count() >= kAlarmSamplesMin;
  if (!is_full && !may_alarm) return;
  const double alone = seconds_of(quiet_.percentile(kPercentile));
  const double beside = seconds_of(busy_.percentile(kPercentile));
  const double rise = alone > 0 ? beside / alone - 1.0 : 0.0;
  if (!is_full && rise <= 2 * limits_.latency_budget) return;
  const auto scale = [this](double factor) {
    rate_ = static_cast<std::uint64_t>(static_cast<double>(rate_) * factor);
    rate_ = std::clamp(rate_, rate_floor(), std::uint64_t{1} << 40);
  };
  if (rise > limits_.latency_budget) {
    scale(kDown);
  } else if (busy_bytes_ > static_cast<std::uint64_t>(static_cast<double>(rate_) * seconds_of(elapsed) / 2)) {
    // A rate that is not used (disk or link are slower) does not grow.
    scale(rise > limits_.latency_budget / 4 ? kUp : kUpFast);
  }
  enter(Phase::quiet, now);
}

}  // namespace replblk::replication
