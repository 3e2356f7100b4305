// Where the areas of a volume lie on its device(s) (docs/ondisk_format.md 1). Arithmetic only: reads and writes
// nothing. Used by MetadataArea at create-md and open. Invariant of a layout that came from plan_layout or passed
// is_sound(): no two areas overlap, all lie on the device, everything begins and ends at a multiple of 4096.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

namespace replblk::blockdev {

inline constexpr std::uint64_t kPageBytes = 4096;
inline constexpr std::uint64_t kSuperblockSlotBytes = std::uint64_t{64} << 10;
inline constexpr std::uint64_t kActivityLogBytes = std::uint64_t{1} << 20;
/// Bits of a volume take at most this much memory, and little more on disk.
inline constexpr std::uint64_t kBitmapBytesMax = std::uint64_t{128} << 20;
/// Blocks whose bits one page of the bitmap area holds (docs/ondisk_format.md 4).
inline constexpr std::uint64_t kBitmapPageBlocks = std::uint64_t{8} * 63 * 64;

enum class Placement : std::uint8_t { internal = 0, external = 1 };

struct Layout {
  Placement placement = Placement::internal;
  std::uint64_t data_device_bytes = 0;   ///< rounded down to 4096
  std::uint64_t usable_bytes = 0;        ///< size of the volume; data begins at 0
  std::uint64_t metadata_end_bytes = 0;  ///< on the device that holds the metadata
  std::uint64_t activity_log_offset_bytes = 0;
  std::uint64_t activity_log_bytes = 0;
  std::uint64_t bitmap_offset_bytes = 0;
  std::uint64_t bitmap_bytes = 0;
  std::uint32_t bitmap_block_bytes = 0;
  friend bool operator==(const Layout&, const Layout&) = default;

  /// The largest that the volume can become where its metadata lies: usable_bytes, or more after the device grew.
  [[nodiscard]] std::uint64_t room_bytes() const noexcept;
  [[nodiscard]] std::uint64_t bitmap_pages_count() const noexcept;
  [[nodiscard]] std::uint64_t bitmap_page_offset_bytes(std::uint64_t page) const noexcept;
};

/// What a device of this size is used up to.
[[nodiscard]] constexpr std::uint64_t round_down_to_page(std::uint64_t bytes) noexcept {
  return bytes / kPageBytes * kPageBytes;
}

struct LayoutRequest {
  Placement placement = Placement::internal;
  std::uint64_t data_device_bytes = 0;
  std::uint64_t metadata_device_bytes = 0;  ///< external only
  std::uint32_t bitmap_block_bytes = 0;     ///< 0: chosen by the size
  std::uint64_t usable_bytes = 0;           ///< 0: all that there is room for
};

/// Null when the device has no room for the metadata and one block of data, or for usable_bytes, or the block is no
/// power of two ≥ 4096.
[[nodiscard]] std::optional<Layout> plan_layout(const LayoutRequest& request) noexcept;

/// The layout of a volume whose devices have these sizes now (docs/ondisk_format.md 1, "A device that changed its
/// size"): the same volume, with room for more, and the same blocks. Null when they have no room for what the volume
/// has, its bits would take more than kGrownBitmapBytesMax, or the new superblocks would lie on the old ones.
inline constexpr std::uint64_t kGrownBitmapBytesMax = 4 * kBitmapBytesMax;
[[nodiscard]] std::optional<Layout> grow_layout(const Layout& layout, std::uint64_t data_device_bytes,
                                                std::uint64_t metadata_device_bytes) noexcept;

/// The next smaller size, below `end_bytes`, that a device of `device_bytes` may have had before it grew: each page for
/// the last 64 MiB, each MiB for the last 64 GiB, then each GiB. Null: there is none that could hold metadata.
[[nodiscard]] std::optional<std::uint64_t> former_size(std::uint64_t device_bytes, std::uint64_t end_bytes) noexcept;

/// Offsets of slots A and B on the device that holds the metadata; null when it is too small to have them.
[[nodiscard]] std::optional<std::array<std::uint64_t, 2>> superblock_offsets(
    Placement placement, std::uint64_t metadata_device_bytes) noexcept;

/// Whether a layout that was read is one that a reader can obey at all (not whether the devices still have its size).
[[nodiscard]] bool is_sound(const Layout& layout) noexcept;

}  // namespace replblk::blockdev
