// Where two copies differ, as verify found it: a bounded, sorted list of ranges with exact sums. Neighbours are joined.
// Plain data; nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "blockdev/dirty_bitmap.hpp"

namespace replblk::replication {

class DifferenceList {
 public:
  /// More than a person reads; the sums count them all.
  static constexpr std::size_t kListedMax = 64;

  /// No range is added twice, and none overlaps another.
  void add(const blockdev::ByteRange& range);
  void clear() noexcept;

  /// In order. When there are more than kListedMax, those that were found first.
  [[nodiscard]] const std::vector<blockdev::ByteRange>& listed() const noexcept { return listed_; }
  /// At least: ranges that are not listed are not joined.
  [[nodiscard]] std::uint64_t ranges_count() const noexcept { return listed_.size() + unlisted_count_; }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  std::vector<blockdev::ByteRange> listed_;
  std::uint64_t unlisted_count_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace replblk::replication
