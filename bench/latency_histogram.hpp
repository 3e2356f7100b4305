// A fixed log-linear histogram of latencies in nanoseconds: 128 buckets per power of two, so a percentile is
// off by less than 0.8 %. Not responsible for time stamps or for printing. The load loop records into it once
// per completed operation. Invariant: recording never allocates and never fails; too large values land in the
// last bucket.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace replblk::bench {

class LatencyHistogram {
 public:
  void record(std::uint64_t value_ns) noexcept {
    ++buckets_[index_of(value_ns)];
    ++count_;
    sum_ns_ += value_ns;
    if (value_ns > max_ns_) {
      max_ns_ = value_ns;
    }
    if (value_ns < min_ns_) {
      min_ns_ = value_ns;
    }
  }

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t max_ns() const noexcept { return max_ns_; }
  [[nodiscard]] std::uint64_t min_ns() const noexcept { return count_ == 0 ? 0 : min_ns_; }
  [[nodiscard]] double mean_ns() const noexcept {
    return count_ == 0 ? 0.0 : static_cast<double>(sum_ns_) / static_cast<double>(count_);
  }

  // The middle of the bucket that holds the value at this fraction (0..1) of all records.
  [[nodiscard]] double percentile_ns(double fraction) const noexcept {
    if (count_ == 0) {
      return 0.0;
    }
    auto rank = static_cast<std::uint64_t>(fraction * static_cast<double>(count_));
    if (rank >= count_) {
      rank = count_ - 1;
    }
    std::uint64_t seen = 0;
    for (std::size_t index = 0; index < buckets_.size(); ++index) {
      seen += buckets_[index];
      if (seen > rank) {
        return middle_of(index);
      }
    }
    return static_cast<double>(max_ns_);
  }

 private:
  static constexpr unsigned kSubBits = 7;     // 128 buckets per power of two
  static constexpr unsigned kValueBits = 40;  // 2^40 ns = 18 minutes, longer than any run
  static constexpr std::size_t kSubCount = std::size_t{1} << kSubBits;
  static constexpr std::size_t kBucketCount = (kValueBits - kSubBits + 1) * kSubCount;

  // Values below 128 ns have a bucket each; above, the top 8 bits of the value choose it.
  static std::size_t index_of(std::uint64_t value_ns) noexcept {
    if (value_ns < kSubCount) {
      return static_cast<std::size_t>(value_ns);
    }
    const auto width = static_cast<unsigned>(std::bit_width(value_ns));
    if (width > kValueBits) {
      return kBucketCount - 1;
    }
    const unsigned shift = width - kSubBits - 1;
    return (shift + 1) * kSubCount + static_cast<std::size_t>((value_ns >> shift) - kSubCount);
  }

  static double middle_of(std::size_t index) noexcept {
    if (index < kSubCount) {
      return static_cast<double>(index);
    }
    const auto shift = static_cast<unsigned>(index / kSubCount - 1);
    const std::uint64_t lowest = (kSubCount + index % kSubCount) << shift;
    return static_cast<double>(lowest) + static_cast<double>(std::uint64_t{1} << shift) / 2.0;
  }

  std::array<std::uint64_t, kBucketCount> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t sum_ns_ = 0;
  std::uint64_t max_ns_ = 0;
  std::uint64_t min_ns_ = ~std::uint64_t{0};
};

}  // namespace replblk::bench
