// Time as an argument: Instant is a point on the host's CLOCK_BOOTTIME (or the simulator's clock), Duration a
// difference of two. Nothing here can read a clock: an Instant comes from ports::Loop::now().
#pragma once

#include <chrono>
#include <cstdint>

namespace replblk {

using Duration = std::chrono::nanoseconds;

/// Tag of the time line. It has no now(): machines get the time as an argument.
struct BootTimeline {
  using rep = Duration::rep;
  using period = Duration::period;
  using duration = Duration;
  using time_point = std::chrono::time_point<BootTimeline, Duration>;
  static constexpr bool is_steady = true;
};

using Instant = BootTimeline::time_point;

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

[[nodiscard]] constexpr std::int64_t to_ms(Duration duration) {
  return std::chrono::duration_cast<milliseconds>(duration).count();
}

}  // namespace replblk
