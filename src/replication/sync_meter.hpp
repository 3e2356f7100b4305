// How far a resync or verify is, how fast, and when it will be done, as DRBD counts it: the rate over the last half
// minute tells the time that is left. A machine: fed with what is left; every call has an explicit `now`.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "base/time.hpp"

namespace replblk::replication {

class SyncMeter {
 public:
  struct Reading {
    std::uint64_t total_bytes = 0;
    std::uint64_t left_bytes = 0;
    double percent_done = 100;
    std::uint64_t rate_bytes_per_second = 0;          ///< lately
    std::uint64_t average_rate_bytes_per_second = 0;  ///< since it began
    std::uint64_t seconds_left = 0;                   ///< 0: done, or not known
    std::uint64_t elapsed_ms = 0;
  };

  void start(Instant now, std::uint64_t total_bytes) noexcept {
    total_bytes_ = left_bytes_ = total_bytes;
    started_ = now;
    marks_.fill({now, total_bytes});
    oldest_ = 0;
  }
  /// More may be left than before (a further pass), and more than the total (new differences).
  void sample(Instant now, std::uint64_t left_bytes) noexcept {
    left_bytes_ = left_bytes;
    total_bytes_ = std::max(total_bytes_, left_bytes);
    const std::size_t newest = (oldest_ + kMarks - 1) % kMarks;
    if (now - marks_[newest].when < kMarkInterval) return;
    marks_[oldest_] = {now, left_bytes};
    oldest_ = (oldest_ + 1) % kMarks;
  }
  [[nodiscard]] Reading reading(Instant now) const noexcept {
    Reading reading;
    reading.total_bytes = total_bytes_;
    reading.left_bytes = left_bytes_;
    if (total_bytes_ > 0)
      reading.percent_done =
          100.0 * static_cast<double>(total_bytes_ - left_bytes_) / static_cast<double>(total_bytes_);
    reading.elapsed_ms = static_cast<std::uint64_t>(to_ms(now - started_));
    reading.rate_bytes_per_second = rate(now - marks_[oldest_].when, marks_[oldest_].left_bytes);
    reading.average_rate_bytes_per_second = rate(now - started_, total_bytes_);
    if (reading.rate_bytes_per_second > 0)
      reading.seconds_left = (left_bytes_ + reading.rate_bytes_per_second - 1) / reading.rate_bytes_per_second;
    return reading;
  }

 private:
  struct Mark {
    Instant when{};
    std::uint64_t left_bytes = 0;
  };
  static constexpr std::size_t kMarks = 8;  // DRBD: 8 marks, 3 s apart
  static constexpr Duration kMarkInterval = seconds(3);

  [[nodiscard]] std::uint64_t rate(Duration elapsed, std::uint64_t left_then) const noexcept {
    const double elapsed_seconds = std::chrono::duration<double>(elapsed).count();
    if (elapsed_seconds <= 0 || left_then <= left_bytes_) return 0;
    return static_cast<std::uint64_t>(static_cast<double>(left_then - left_bytes_) / elapsed_seconds);
  }

  std::uint64_t total_bytes_ = 0;
  std::uint64_t left_bytes_ = 0;
  Instant started_{};
  std::array<Mark, kMarks> marks_{};
  std::size_t oldest_ = 0;
};

}  // namespace replblk::replication
