// Where the next operation goes and what a write carries: random or sequential offsets within a region, and
// data that does not compress or deduplicate. Not responsible for SCSI. All connections of a run share one
// cursor. Invariant: an operation never crosses the end of the region (of fewer than 2^32 operations), and the same
// seed gives the same offsets.
#pragma once

#include "options.hpp"

#include <cstdint>
#include <vector>

namespace replblk::bench {

class WorkloadCursor {
 public:
  WorkloadCursor(Workload workload, std::uint32_t block_bytes, std::uint64_t region_bytes, std::uint64_t seed)
      : sequential_(sequential(workload)),
        block_bytes_(block_bytes),
        slot_count_(region_bytes / block_bytes),
        state_(seed * 0x9e3779b97f4a7c15U + 0x2545f4914f6cdd1dU),
        pattern_(kPatternBytes + block_bytes) {
    for (std::uint8_t& byte : pattern_) {
      byte = static_cast<std::uint8_t>(next_random() >> 56);
    }
  }

  [[nodiscard]] std::uint64_t next_offset_bytes() noexcept {
    if (sequential_) {
      const std::uint64_t slot = sequential_slot_;
      sequential_slot_ = slot + 1 == slot_count_ ? 0 : slot + 1;
      return slot * block_bytes_;
    }
    // Multiply-shift instead of a division; the bias is far below what can be measured.
    const std::uint64_t slot = ((next_random() >> 32) * slot_count_) >> 32;
    return slot * block_bytes_;
  }

  [[nodiscard]] const std::uint8_t* next_data() noexcept {
    return pattern_.data() + (next_random() & (kPatternBytes - 64));
  }

 private:
  // 256 KiB stays in the second-level cache, so the generator does not pay memory bandwidth for its data.
  static constexpr std::uint64_t kPatternBytes = 256 * 1024;

  // xorshift64*: a few cycles, and good enough to spread offsets.
  std::uint64_t next_random() noexcept {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1dU;
  }

  bool sequential_;
  std::uint32_t block_bytes_;
  std::uint64_t slot_count_;
  std::uint64_t sequential_slot_ = 0;
  std::uint64_t state_;
  std::vector<std::uint8_t> pattern_;
};

}  // namespace replblk::bench
