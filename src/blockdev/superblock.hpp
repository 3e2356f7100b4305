// A superblock as bytes (docs/ondisk_format.md 2), and which of the two copies counts. Pure: no disk, no clock.
// decode_superblock takes whatever a disk returns: any bytes at all. What the record inside means is record_codec's and
// the resource's business. Used by MetadataArea. Invariant: a copy with any bit flipped in what was written is never
// `whole`.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/bytes.hpp"
#include "base/uuid.hpp"
#include "blockdev/layout.hpp"
#include "blockdev/sealed_sector.hpp"

namespace replblk::blockdev {

inline constexpr std::uint32_t kFormatVersion = 1;
inline constexpr std::size_t kSlotSectors = kSuperblockSlotBytes / kSectorBytes;
inline constexpr std::size_t kRecordBytesMax = (kSlotSectors - 1) * kSectorPayloadBytes;

struct Superblock {
  std::uint64_t sequence = 0;
  Uuid volume_uuid;
  std::uint32_t volume = 0;
  std::uint32_t logical_block_bytes = 512;
  Layout layout;
  std::vector<std::byte> record;  ///< at most kRecordBytesMax
  friend bool operator==(const Superblock&, const Superblock&) = default;
};

/// Seals `superblock` as copy 0 or 1 into the first sectors of `slot` (64 KiB). Returns how many bytes must be written,
/// a multiple of 4096; the sectors after them are sealed too, for create-md, which writes the whole slot.
[[nodiscard]] std::size_t encode_superblock(const Superblock& superblock, std::uint8_t copy,
                                            MutableBytes slot) noexcept;

/// What is found in one slot.
enum class CopyState : std::uint8_t { unreadable, absent, damaged, from_the_future, torn, whole };

struct SuperblockCopy {
  CopyState state = CopyState::unreadable;
  Superblock superblock;           ///< whole only
  std::uint64_t sequence_max = 0;  ///< the newest save that any sector is of (whole, torn: that is used); 0: none
  std::uint32_t version = 0;       ///< from_the_future: what the header says
  std::uint32_t features = 0;
};
[[nodiscard]] SuperblockCopy decode_superblock(ConstBytes slot, std::uint8_t copy);

/// Whether these first bytes of a slot claim to be a superblock: only worth a closer look.
[[nodiscard]] bool has_superblock_magic(ConstBytes bytes) noexcept;

/// What follows from both copies.
struct SuperblockVerdict {
  enum class Kind : std::uint8_t { good, one_only, none, damaged, different, from_the_future, unreadable };
  Kind kind = Kind::none;
  std::uint8_t chosen = 0;        ///< good, one_only: the copy that counts; from_the_future: the one that says so
  bool is_repair_needed = false;  ///< the other copy must be written again before the next save
};
[[nodiscard]] SuperblockVerdict judge_superblocks(const std::array<SuperblockCopy, 2>& copies) noexcept;

}  // namespace replblk::blockdev
