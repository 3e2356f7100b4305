// How long requests took, for percentiles: counts in buckets that are exact to 3 % (32 for each doubling, from 1 µs to
// 67 s). Old counts fade instead of being kept by time. Plain data: no clock, nothing allocated, adding is O(1).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/time.hpp"

namespace replblk::replication {

class LatencyHistogram {
 public:
  void add(Duration latency) noexcept {
    counts_[bucket_of(latency)] += kWeight;
    weight_ += kWeight;
  }
  /// Half of what was counted is forgotten.
  void fade() noexcept {
    weight_ = 0;
    for (std::uint64_t& count : counts_) {
      count /= 2;
      weight_ += count;
    }
  }
  void clear() noexcept {
    counts_.fill(0);
    weight_ = 0;
  }
  [[nodiscard]] std::uint64_t count() const noexcept { return weight_ / kWeight; }
  /// The lower edge of the bucket in which `share` (0..1) of the counts is reached; zero when there are none.
  [[nodiscard]] Duration percentile(double share) const noexcept {
    const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(weight_));
    std::uint64_t seen = 0;
    for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
      seen += counts_[bucket];
      if (seen > wanted || (seen == weight_ && seen > 0)) return value_of(bucket);
    }
    return Duration(0);
  }

 private:
  static constexpr std::size_t kPerOctave = 32;
  static constexpr std::size_t kOctaves = 22;
  static constexpr std::size_t kBuckets = kPerOctave * kOctaves;
  static constexpr std::uint64_t kWeight =
      64;  ///< of one sample, so that fading has something to divide; gone after six times

  [[nodiscard]] static std::size_t bucket_of(Duration latency) noexcept {
    const std::int64_t count = std::chrono::duration_cast<std::chrono::microseconds>(latency).count();
    const std::uint64_t us = count < 0 ? 0 : static_cast<std::uint64_t>(count);
    if (us < kPerOctave) return static_cast<std::size_t>(us);
    const auto shift = static_cast<std::size_t>(std::bit_width(us)) - 6;  // us >> shift is 32..63
    const std::size_t bucket = (shift + 1) * kPerOctave + static_cast<std::size_t>(us >> shift) - kPerOctave;
    return bucket < kBuckets ? bucket : kBuckets - 1;
  }
  [[nodiscard]] static Duration value_of(std::size_t bucket) noexcept {
    if (bucket < kPerOctave) return std::chrono::microseconds(bucket);
    const std::size_t shift = bucket / kPerOctave - 1;
    return std::chrono::microseconds((bucket % kPerOctave + kPerOctave) << shift);
  }

  std::array<std::uint64_t, kBuckets> counts_{};
  std::uint64_t weight_ = 0;
};

}  // namespace replblk::replication
