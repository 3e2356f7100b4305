#include "blockdev/activity_log_codec.hpp"

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "base/crc32c.hpp"
#include "blockdev/sealed_sector.hpp"

namespace replblk::blockdev {

namespace {

constexpr std::string_view kMagic = "replblkA";
constexpr std::size_t kPageSectors = kPageBytes / kSectorBytes;
constexpr std::size_t kPayloadBytes = kPageSectors * kSectorPayloadBytes;
constexpr std::size_t kCrcAt = 36;
constexpr std::size_t kUpdatesAt = 40;
constexpr std::size_t kUpdateBytes = 6;
constexpr std::size_t kContextAt = kUpdatesAt + kLogUpdatesMax * kUpdateBytes;
static_assert(kContextAt + std::size_t{kLogContextMax} * 4 <= kPayloadBytes);
constexpr std::uint8_t kResetFlag = 1;
constexpr std::uint8_t kExtentShiftMin = 12;
constexpr std::uint8_t kExtentShiftMax = 63;

using Payload = std::array<std::byte, kPayloadBytes>;

[[nodiscard]] LogRecovery damaged(std::string_view reason) {
  LogRecovery recovery;
  recovery.is_damaged = true;
  recovery.reason = reason;
  return recovery;
}

/// Each sector is valid: is what they say together one transaction, and one that makes sense?
[[nodiscard]] bool decode_payload(Payload& payload, const Uuid& volume, LogTransaction& transaction) noexcept {
  const std::byte* at = payload.data();
  transaction.extent_shift = std::to_integer<std::uint8_t>(at[24]);
  transaction.is_reset = std::to_integer<std::uint8_t>(at[25]) == kResetFlag;
  transaction.slots_count = load_le<std::uint16_t>(at + 26);
  transaction.updates_count = load_le<std::uint16_t>(at + 28);
  transaction.context_start = load_le<std::uint16_t>(at + 30);
  transaction.context_count = load_le<std::uint16_t>(at + 32);
  const bool makes_sense =
      std::memcmp(at, kMagic.data(), kMagic.size()) == 0 && std::memcmp(at + 8, volume.bytes.data(), 16) == 0 &&
      std::to_integer<std::uint8_t>(at[25]) <= kResetFlag && transaction.extent_shift >= kExtentShiftMin &&
      transaction.extent_shift <= kExtentShiftMax && transaction.slots_count >= 1 &&
      transaction.slots_count <= kLogSlotsMax && transaction.updates_count <= kLogUpdatesMax &&
      transaction.context_start < transaction.slots_count && transaction.context_count <= kLogContextMax &&
      transaction.context_count <= transaction.slots_count;
  if (!makes_sense) return false;
  for (std::uint32_t index = 0; index < transaction.updates_count; ++index) {
    const std::byte* update = at + kUpdatesAt + index * kUpdateBytes;
    transaction.updates[index] = {load_le<std::uint16_t>(update), load_le<std::uint32_t>(update + 2)};
    if (transaction.updates[index].slot >= transaction.slots_count) return false;
  }
  for (std::uint32_t index = 0; index < transaction.context_count; ++index) {
    transaction.context[index] = load_le<std::uint32_t>(at + kContextAt + std::size_t{index} * 4);
  }
  return true;
}

}  // namespace

void encode_transaction(const LogTransaction& transaction, const Uuid& volume, MutableBytes page) noexcept {
  RB_ASSERT(page.size() == kPageBytes && transaction.slots_count >= 1 && transaction.slots_count <= kLogSlotsMax);
  RB_ASSERT(transaction.updates_count <= kLogUpdatesMax && transaction.context_count <= kLogContextMax);
  Payload payload{};
  std::byte* at = payload.data();
  std::memcpy(at, kMagic.data(), kMagic.size());
  std::memcpy(at + 8, volume.bytes.data(), 16);
  at[24] = std::byte{transaction.extent_shift};
  at[25] = std::byte{transaction.is_reset ? kResetFlag : std::uint8_t{0}};
  store_le<std::uint16_t>(at + 26, static_cast<std::uint16_t>(transaction.slots_count));
  store_le<std::uint16_t>(at + 28, static_cast<std::uint16_t>(transaction.updates_count));
  store_le<std::uint16_t>(at + 30, static_cast<std::uint16_t>(transaction.context_start));
  store_le<std::uint16_t>(at + 32, static_cast<std::uint16_t>(transaction.context_count));
  for (std::uint32_t index = 0; index < transaction.updates_count; ++index) {
    std::byte* update = at + kUpdatesAt + index * kUpdateBytes;
    store_le<std::uint16_t>(update, transaction.updates[index].slot);
    store_le<std::uint32_t>(update + 2, transaction.updates[index].extent);
  }
  for (std::uint32_t index = 0; index < transaction.context_count; ++index) {
    store_le<std::uint32_t>(at + kContextAt + std::size_t{index} * 4, transaction.context[index]);
  }
  store_le<std::uint32_t>(at + kCrcAt, crc32c(payload));
  for (std::size_t index = 0; index < kPageSectors; ++index) {
    std::memcpy(page.data() + index * kSectorBytes, at + index * kSectorPayloadBytes, kSectorPayloadBytes);
    seal_sector(page, index, SealKind::activity_log, transaction.sequence);
  }
}

LogPage decode_transaction(ConstBytes page, const Uuid& volume, LogTransaction& transaction) noexcept {
  RB_ASSERT(page.size() == kPageBytes);
  LogPage found;
  found.sequence_min = UINT64_MAX;
  Payload payload;
  for (std::size_t index = 0; index < kPageSectors; ++index) {
    if (!is_sealed(page, index, SealKind::activity_log)) return found;
    found.sequence_min = std::min(found.sequence_min, sector_sequence(page, index));
    found.sequence_max = std::max(found.sequence_max, sector_sequence(page, index));
    std::memcpy(payload.data() + index * kSectorPayloadBytes, page.data() + index * kSectorBytes, kSectorPayloadBytes);
  }
  const std::uint32_t crc = load_le<std::uint32_t>(payload.data() + kCrcAt);
  store_le<std::uint32_t>(payload.data() + kCrcAt, 0);
  // Of one sequence and yet not of one write: the same transaction was begun twice, before and after a power cut.
  if (found.sequence_min != found.sequence_max || crc != crc32c(payload)) {
    found.state = LogPageState::torn;
    return found;
  }
  transaction.sequence = found.sequence_max;
  if (decode_payload(payload, volume, transaction)) found.state = LogPageState::whole;
  return found;
}

LogRecovery recover_log(ConstBytes ring, const Uuid& volume) {
  RB_ASSERT(ring.size() == kActivityLogBytes);
  const auto page_of = [&](std::uint64_t sequence) {
    return ring.subspan(static_cast<std::size_t>(sequence % kLogPagesCount) * kPageBytes, kPageBytes);
  };
  LogTransaction transaction;
  std::array<LogPage, kLogPagesCount> pages;
  std::uint64_t newest = 0;
  for (std::uint32_t index = 0; index < kLogPagesCount; ++index) {
    pages[index] = decode_transaction(page_of(index), volume, transaction);
    if (pages[index].state == LogPageState::damaged) return damaged("a page of it is damaged");
    if (pages[index].state == LogPageState::whole) newest = std::max(newest, pages[index].sequence_max);
  }
  // Transactions are written one after the other, each durable before the next: only the page after the newest may be
  // torn, between what it held and the transaction that the power cut stopped.
  if (newest < kLogPagesCount) return damaged("it has no beginning");
  for (std::uint64_t age = 0; age < kLogPagesCount; ++age) {
    const std::uint64_t expected = newest - age;
    const LogPage& page = pages[static_cast<std::size_t>(expected % kLogPagesCount)];
    if (page.state == LogPageState::whole) {
      if (page.sequence_max != expected) return damaged("a transaction is missing");
      continue;
    }
    const bool is_next = age == kLogPagesCount - 1;
    const auto may_be = [&](std::uint64_t sequence) { return sequence == expected || sequence == newest + 1; };
    if (!is_next || !may_be(page.sequence_min) || !may_be(page.sequence_max))
      return damaged("a transaction other than the last is torn");
  }

  LogRecovery recovery;
  recovery.sequence = newest;
  static_cast<void>(decode_transaction(page_of(newest), volume, transaction));
  recovery.extent_shift = transaction.extent_shift;
  const std::uint32_t slots_count = transaction.slots_count;
  std::vector<std::uint32_t> slots(slots_count, kNoExtent);
  std::vector<bool> is_known(slots_count, false);
  std::uint32_t unknown_count = slots_count;
  const auto learn = [&](std::uint32_t slot, std::uint32_t extent) {
    if (is_known[slot]) return;
    is_known[slot] = true;
    slots[slot] = extent;
    --unknown_count;
  };
  for (std::uint64_t age = 0; unknown_count > 0; ++age) {
    if (age == kLogPagesCount) return damaged("its transactions do not tell what every slot holds");
    static_cast<void>(decode_transaction(page_of(newest - age), volume, transaction));
    if (transaction.slots_count != slots_count || transaction.extent_shift != recovery.extent_shift)
      return damaged("its transactions do not fit each other");
    for (std::uint32_t index = transaction.updates_count; index-- > 0;) {
      learn(transaction.updates[index].slot, transaction.updates[index].extent);
    }
    for (std::uint32_t index = 0; index < transaction.context_count; ++index) {
      learn((transaction.context_start + index) % slots_count, transaction.context[index]);
    }
    if (transaction.is_reset) break;  // What no later transaction tells of is free.
  }
  for (const std::uint32_t extent : slots) {
    if (extent != kNoExtent) recovery.extents.push_back(extent);
  }
  return recovery;
}

}  // namespace replblk::blockdev
