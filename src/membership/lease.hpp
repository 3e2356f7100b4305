// Lease and promise (protocol.md 3.6): two machines without a clock. The primary of two members answers only while its
// lease is valid; the secondary, which gave it, serves only when its promise has run out. Times are each node's own.
// Invariant: a promise ends later than every lease that was made of it, as long as the clocks' rates differ by less
// than the margin.
#pragma once

#include "membership/heartbeat.hpp"

namespace replblk::membership {

/// protocol.md 3.6: how much longer than the lease a promise lasts.
inline constexpr int kLeaseMarginPercent = 10;
[[nodiscard]] constexpr Duration with_margin(Duration lease) noexcept {
  return lease + lease * kLeaseMarginPercent / 100;
}

/// The primary's side.
class Lease {
 public:
  explicit Lease(std::uint64_t incarnation) noexcept : incarnation_(incarnation) {}

  [[nodiscard]] Stamp stamp(const blockdev::Configuration& configuration, Instant now,
                            std::uint32_t lease_ms) const noexcept {
    return {incarnation_, configuration, now, lease_ms};
  }
  /// Counts an echo, if it is of this run, of the configuration of now, and not from the future. True: it did.
  bool count(const Stamp& echo, const blockdev::Configuration& configuration, Instant now) noexcept;
  /// Nothing that was promised so far counts any more: the configuration or the connection is another one.
  void drop() noexcept { until_ = Instant{}; }
  [[nodiscard]] bool is_valid(Instant now) const noexcept { return now < until_; }
  [[nodiscard]] Instant until() const noexcept { return until_; }

 private:
  std::uint64_t incarnation_;
  Instant until_{};
};

/// The secondary's side. Survives every change of configuration.
class Promise {
 public:
  /// A node that starts does not know what it promised: it takes the longest lease that it ever did.
  Promise(Instant started, std::uint32_t lease_ms_max) noexcept
      : until_(lease_ms_max == 0 ? Instant{} : started + with_margin(milliseconds(lease_ms_max))) {}

  /// Gives one for the stamp that is about to be echoed.
  void give(const Stamp& stamp, Instant now) noexcept;
  /// Whoever holds it has said, at the term of now, that it holds no mandate.
  void release() noexcept { until_ = Instant{}; }
  [[nodiscard]] bool has_run_out(Instant now) const noexcept { return now >= until_; }
  [[nodiscard]] Instant until() const noexcept { return until_; }

 private:
  Instant until_{};
};

}  // namespace replblk::membership
