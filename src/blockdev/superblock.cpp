#include "blockdev/superblock.hpp"

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "base/crc32c.hpp"

namespace replblk::blockdev {

namespace {

constexpr std::string_view kMagic = "replblkS";
constexpr std::uint32_t kKnownFeatures = 0;

[[nodiscard]] std::size_t record_sectors(std::size_t record_bytes) noexcept {
  return (record_bytes + kSectorPayloadBytes - 1) / kSectorPayloadBytes;
}

}  // namespace

std::size_t encode_superblock(const Superblock& superblock, std::uint8_t copy, MutableBytes slot) noexcept {
  RB_ASSERT(slot.size() == kSuperblockSlotBytes && copy < 2 && superblock.record.size() <= kRecordBytesMax);
  std::fill(slot.begin(), slot.end(), std::byte{0});
  std::byte* at = slot.data();
  std::memcpy(at, kMagic.data(), kMagic.size());
  store_le<std::uint32_t>(at + 8, kFormatVersion);
  store_le<std::uint32_t>(at + 12, kKnownFeatures);
  at[20] = std::byte{copy};
  at[21] = static_cast<std::byte>(superblock.layout.placement);
  std::memcpy(at + 24, superblock.volume_uuid.bytes.data(), 16);
  store_le<std::uint32_t>(at + 40, superblock.volume);
  store_le<std::uint32_t>(at + 44, superblock.logical_block_bytes);
  store_le<std::uint64_t>(at + 48, superblock.layout.data_device_bytes);
  store_le<std::uint64_t>(at + 56, superblock.layout.usable_bytes);
  store_le<std::uint64_t>(at + 64, superblock.layout.metadata_end_bytes);
  store_le<std::uint64_t>(at + 72, superblock.layout.activity_log_offset_bytes);
  store_le<std::uint64_t>(at + 80, superblock.layout.activity_log_bytes);
  store_le<std::uint64_t>(at + 88, superblock.layout.bitmap_offset_bytes);
  store_le<std::uint64_t>(at + 96, superblock.layout.bitmap_bytes);
  store_le<std::uint32_t>(at + 104, superblock.layout.bitmap_block_bytes);
  store_le<std::uint32_t>(at + 120, static_cast<std::uint32_t>(superblock.record.size()));
  store_le<std::uint32_t>(at + 124, crc32c(superblock.record));
  for (std::size_t done = 0, index = 1; done < superblock.record.size(); ++index) {
    const std::size_t count = std::min(kSectorPayloadBytes, superblock.record.size() - done);
    std::memcpy(at + index * kSectorBytes, superblock.record.data() + done, count);
    done += count;
  }
  for (std::size_t index = 0; index < kSlotSectors; ++index)
    seal_sector(slot, index, SealKind::superblock, superblock.sequence);
  const std::size_t used_bytes = (1 + record_sectors(superblock.record.size())) * kSectorBytes;
  return (used_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

namespace {

/// Of a slot that is not to be believed: what any of its sectors is of.
[[nodiscard]] std::uint64_t newest_sequence(ConstBytes slot) noexcept {
  std::uint64_t newest = 0;
  for (std::size_t index = 0; index < kSlotSectors; ++index) {
    if (is_sealed(slot, index, SealKind::superblock)) newest = std::max(newest, sector_sequence(slot, index));
  }
  return newest;
}

[[nodiscard]] SuperblockCopy decode(ConstBytes slot, std::uint8_t copy) {
  SuperblockCopy found;
  const std::byte* at = slot.data();
  const bool has_magic = std::memcmp(at, kMagic.data(), kMagic.size()) == 0;
  found.state = CopyState::damaged;
  if (!has_magic || !is_sealed(slot, 0, SealKind::superblock)) {
    if (!has_magic && !is_sealed(slot, 0, SealKind::superblock)) found.state = CopyState::absent;
    return found;
  }
  found.version = load_le<std::uint32_t>(at + 8);
  found.features = load_le<std::uint32_t>(at + 12);
  if (found.version > kFormatVersion || (found.features & ~kKnownFeatures) != 0) {
    found.state = CopyState::from_the_future;
    return found;
  }
  const std::uint32_t record_bytes = load_le<std::uint32_t>(at + 120);
  if (found.version == 0 || at[20] != std::byte{copy} || record_bytes > kRecordBytesMax) return found;

  // Ordered like docs/ondisk_format.md 2.4: a sector that is not valid is damage whatever the others say. Sectors that
  // were written along with the record to fill the page are looked at too.
  const std::size_t used_sectors = 1 + record_sectors(record_bytes);
  const std::size_t written_sectors = (used_sectors + 7) / 8 * 8;
  bool is_of_one_save = true;
  for (std::size_t index = 0; index < written_sectors; ++index) {
    if (!is_sealed(slot, index, SealKind::superblock)) return found;
    const std::uint64_t sequence = sector_sequence(slot, index);
    found.sequence_max = std::max(found.sequence_max, sequence);
    is_of_one_save = is_of_one_save && sequence == sector_sequence(slot, 0);
  }
  Superblock& superblock = found.superblock;
  superblock.record.reserve(record_bytes);
  for (std::size_t index = 1; superblock.record.size() < record_bytes; ++index) {
    const std::byte* payload = at + index * kSectorBytes;
    const std::size_t count = std::min(kSectorPayloadBytes, record_bytes - superblock.record.size());
    superblock.record.insert(superblock.record.end(), payload, payload + count);
  }
  if (!is_of_one_save || crc32c(superblock.record) != load_le<std::uint32_t>(at + 124)) {
    found.state = CopyState::torn;
    superblock = {};
    return found;
  }

  superblock.sequence = sector_sequence(slot, 0);
  std::memcpy(superblock.volume_uuid.bytes.data(), at + 24, 16);
  superblock.volume = load_le<std::uint32_t>(at + 40);
  superblock.logical_block_bytes = load_le<std::uint32_t>(at + 44);
  superblock.layout.placement = static_cast<Placement>(at[21]);
  superblock.layout.data_device_bytes = load_le<std::uint64_t>(at + 48);
  superblock.layout.usable_bytes = load_le<std::uint64_t>(at + 56);
  superblock.layout.metadata_end_bytes = load_le<std::uint64_t>(at + 64);
  superblock.layout.activity_log_offset_bytes = load_le<std::uint64_t>(at + 72);
  superblock.layout.activity_log_bytes = load_le<std::uint64_t>(at + 80);
  superblock.layout.bitmap_offset_bytes = load_le<std::uint64_t>(at + 88);
  superblock.layout.bitmap_bytes = load_le<std::uint64_t>(at + 96);
  superblock.layout.bitmap_block_bytes = load_le<std::uint32_t>(at + 104);
  const bool makes_sense = at[21] <= std::byte{1} && is_sound(superblock.layout) &&
                           (superblock.logical_block_bytes == 512 || superblock.logical_block_bytes == 4096);
  if (makes_sense) {
    found.state = CopyState::whole;
  } else {
    superblock = {};
  }
  return found;
}

}  // namespace

SuperblockCopy decode_superblock(ConstBytes slot, std::uint8_t copy) {
  RB_ASSERT(slot.size() == kSuperblockSlotBytes && copy < 2);
  SuperblockCopy found = decode(slot, copy);
  if (found.state == CopyState::damaged || found.state == CopyState::absent) found.sequence_max = newest_sequence(slot);
  return found;
}

bool has_superblock_magic(ConstBytes bytes) noexcept {
  return bytes.size() >= kMagic.size() && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
}

SuperblockVerdict judge_superblocks(const std::array<SuperblockCopy, 2>& copies) noexcept {
  using Kind = SuperblockVerdict::Kind;
  const auto& [a, b] = copies;
  for (std::uint8_t copy = 0; copy < 2; ++copy) {
    if (copies[copy].state == CopyState::from_the_future) return {Kind::from_the_future, copy, false};
  }
  if (a.state == CopyState::whole && b.state == CopyState::whole) {
    if (a.superblock.volume_uuid != b.superblock.volume_uuid) return {Kind::different, 0, false};
    if (a.superblock.sequence == b.superblock.sequence) {
      return a.superblock == b.superblock ? SuperblockVerdict{Kind::good, 0, false}
                                          : SuperblockVerdict{Kind::different, 0, false};
    }
    // A is written and flushed before B is begun: A one ahead is a power cut between the two. Anything else is a write
    // that was acknowledged and lost; then nothing says that the newer copy is the newest.
    if (a.superblock.sequence == b.superblock.sequence + 1) return {Kind::good, 0, true};
    if (a.superblock.layout != b.superblock.layout) return {Kind::different, 0, false};
    return {Kind::one_only, static_cast<std::uint8_t>(a.superblock.sequence > b.superblock.sequence ? 0 : 1), true};
  }
  for (std::uint8_t copy = 0; copy < 2; ++copy) {
    if (copies[copy].state != CopyState::whole) continue;
    const SuperblockCopy& other = copies[1 - copy];
    const std::uint64_t sequence = copies[copy].superblock.sequence;
    // A save is done only when it is in both, so the one that is left holds the last, unless it has lost a write: then
    // what is left of the other tells of a later save. That of a broken A may be of the save after the one that B
    // holds, of a broken B of the one that A holds.
    const std::uint64_t sequence_allowed = copy == 0 ? sequence : sequence + 1;
    return {other.sequence_max <= sequence_allowed ? Kind::good : Kind::one_only, copy, true};
  }
  if (a.state == CopyState::absent && b.state == CopyState::absent) return {Kind::none, 0, false};
  if (a.state == CopyState::unreadable || b.state == CopyState::unreadable) return {Kind::unreadable, 0, false};
  return {Kind::damaged, 0, false};
}

}  // namespace replblk::blockdev
