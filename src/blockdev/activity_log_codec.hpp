// The activity log as bytes (docs/ondisk_format.md 5): one transaction as a page, and what a ring of pages says after a
// stop of any kind. Pure: no disk, no clock. recover_log takes whatever a disk returns: any bytes at all. Used by
// ActivityLogWriter and Store. Invariant: a ring with any bit flipped is never believed; one whose newest transaction
// was torn by a power cut is read as if that transaction had not been begun.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/uuid.hpp"
#include "blockdev/layout.hpp"

namespace replblk::blockdev {

inline constexpr std::uint32_t kLogPagesCount = kActivityLogBytes / kPageBytes;
inline constexpr std::uint32_t kLogUpdatesMax = 256;
inline constexpr std::uint32_t kLogContextMax = 512;
/// A free slot.
inline constexpr std::uint32_t kNoExtent = UINT32_MAX;
/// A transaction's snapshot of 512 slots must come round within the ring; and slots are 16 bits.
inline constexpr std::uint32_t kLogSlotsMax = 65534;
static_assert((kLogSlotsMax + kLogContextMax - 1) / kLogContextMax < kLogPagesCount);

struct LogUpdate {
  std::uint16_t slot = 0;
  std::uint32_t extent = kNoExtent;
};

struct LogTransaction {
  std::uint64_t sequence = 0;     ///< its page is sequence mod kLogPagesCount
  bool is_reset = false;          ///< all slots are free before its updates
  std::uint8_t extent_shift = 0;  ///< an extent is 2^shift bytes
  std::uint32_t slots_count = 0;  ///< 1 … kLogSlotsMax
  std::uint32_t updates_count = 0;
  std::array<LogUpdate, kLogUpdatesMax> updates{};
  /// What the slots from `context_start` on (round and round) hold after the updates.
  std::uint32_t context_start = 0;
  std::uint32_t context_count = 0;
  std::array<std::uint32_t, kLogContextMax> context{};

  void add(std::uint16_t slot, std::uint32_t extent) noexcept { updates[updates_count++] = {slot, extent}; }
};

void encode_transaction(const LogTransaction& transaction, const Uuid& volume, MutableBytes page) noexcept;

enum class LogPageState : std::uint8_t { damaged, torn, whole };
struct LogPage {
  LogPageState state = LogPageState::damaged;
  std::uint64_t sequence_min = 0;  ///< of its sectors; torn, whole
  std::uint64_t sequence_max = 0;
};
/// `transaction` is filled in when the page is whole.
[[nodiscard]] LogPage decode_transaction(ConstBytes page, const Uuid& volume, LogTransaction& transaction) noexcept;

struct LogRecovery {
  bool is_damaged = false;  ///< nobody can say which extents were active
  std::string_view reason;  ///< damaged: what was found
  std::uint64_t sequence = 0;
  std::uint8_t extent_shift = 0;
  std::vector<std::uint32_t> extents;  ///< the active ones
};
/// `ring`: kActivityLogBytes.
[[nodiscard]] LogRecovery recover_log(ConstBytes ring, const Uuid& volume);

}  // namespace replblk::blockdev
