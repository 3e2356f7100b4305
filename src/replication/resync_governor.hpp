// How fast resyncs and verifies of one resource may go (protocol.md 6): as fast as disk and link can while no initiator
// wants them, else so that the initiators' p99 rises by no more than the budget, and never below the minimum rate, so
// that every resync ends. A machine: Mirror reports requests, Resync and Verify ask for an allowance and report bytes;
// every call has an explicit `now`. Knows nothing of disks, links or volumes.
//
//   idle ── a request ──→ quiet ── measured ──→ busy ── measured: rate up or down ──→ quiet → …
//     ↑                                                                                 │
//     └───────────────────────── no request for kIdleAfter ─────────────────────────────┘
//
// In `quiet` nothing is begun, and what requests take then, once nothing of ours has been in flight for a moment, is
// the yardstick. In `busy` pieces are begun at the rate, and what requests take is held against it. The yardstick
// fades, so that it follows the load.
#pragma once

#include <cstdint>

#include "base/time.hpp"
#include "replication/latency_histogram.hpp"

namespace replblk::replication {

struct ResyncLimits {
  std::uint64_t rate_min_bytes_per_second = std::uint64_t{1} << 20;
  std::uint64_t rate_max_bytes_per_second = 0;  ///< 0: none
  double latency_budget = 0.2;                  ///< the share by which the initiators' p99 may rise
};

class ResyncGovernor {
 public:
  /// Nothing was asked by initiators for so long: the disks are ours.
  static constexpr Duration kIdleAfter = seconds(1);
  /// In flight together while idle: 16 MiB hide the turn-around of a 10 Gbit/s link and the queue of any disk.
  static constexpr std::uint64_t kWindowBytesMax = std::uint64_t{16} << 20;
  static constexpr std::uint64_t kPieceBytesIdle = std::uint64_t{1} << 20;
  /// Beside initiators a piece holds its range, the disk and the reactor for a moment: short ones.
  static constexpr std::uint64_t kPieceBytesBeside = std::uint64_t{64} << 10;

  explicit ResyncGovernor(const ResyncLimits& limits) noexcept;

  /// Somebody begins to copy (true) or has ended; several may.
  void set_copying(bool is_copying, Instant now) noexcept;
  /// An initiator's read or change has been answered, `latency` after it began.
  void request_done(Instant now, Duration latency) noexcept;

  struct Allowance {
    bool may_begin = false;
    std::uint64_t piece_bytes_max = 0;
    Instant ask_again{};  ///< when it may not begin
  };
  /// `has_requests`: an initiator's request is in work now.
  [[nodiscard]] Allowance allowance(Instant now, bool has_requests) noexcept;
  void began(std::uint64_t bytes) noexcept;
  void ended(Instant now, std::uint64_t bytes) noexcept;

  /// For status and tests; UINT64_MAX while idle without a maximum.
  [[nodiscard]] std::uint64_t rate_bytes_per_second() const noexcept;
  [[nodiscard]] bool is_beside_initiators() const noexcept { return phase_ != Phase::idle; }
  [[nodiscard]] Duration quiet_p99() const noexcept { return quiet_.percentile(kPercentile); }

 private:
  enum class Phase : std::uint8_t { idle, quiet, busy };
  static constexpr double kPercentile = 0.99;

  void advance(Instant now, bool has_requests) noexcept;
  void enter(Phase phase, Instant now) noexcept;
  void judge(Instant now) noexcept;
  void refill(Instant now) noexcept;
  [[nodiscard]] std::uint64_t rate_floor() const noexcept;

  ResyncLimits limits_;
  std::uint32_t copying_count_ = 0;
  Phase phase_ = Phase::idle;
  Instant phase_since_{};
  Instant drained_at_{};  ///< quiet: since when nothing of ours has been in flight
  Instant last_request_{};
  bool has_request_ever_ = false;
  LatencyHistogram quiet_;
  LatencyHistogram busy_;
  std::uint64_t quiet_new_count_ = 0;
  std::uint64_t rate_ = 0;  ///< while busy
  std::uint64_t in_flight_bytes_ = 0;
  std::uint64_t busy_bytes_ = 0;
  double tokens_bytes_ = 0;  ///< what may be begun now; below zero: owed
  Instant refilled_at_{};
};

}  // namespace replblk::replication
