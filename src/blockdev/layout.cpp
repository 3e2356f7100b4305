#include "blockdev/layout.hpp"

#include <algorithm>
#include <bit>

namespace replblk::blockdev {

namespace {

constexpr std::uint64_t kSuperblocksBytes = 2 * kSuperblockSlotBytes;
constexpr std::uint64_t kBlockBytesMax = std::uint64_t{1} << 30;
/// Keeps all sums below far from overflow.
constexpr std::uint64_t kDeviceBytesMax = std::uint64_t{1} << 60;

[[nodiscard]] std::uint64_t divide_up(std::uint64_t dividend, std::uint64_t divisor) noexcept {
  return (dividend + divisor - 1) / divisor;
}

[[nodiscard]] bool is_block_size(std::uint64_t bytes) noexcept {
  return bytes >= kPageBytes && bytes <= kBlockBytesMax && std::has_single_bit(bytes);
}

[[nodiscard]] std::uint64_t default_block_bytes(std::uint64_t device_bytes) noexcept {
  std::uint64_t block_bytes = kPageBytes;
  while (divide_up(device_bytes, block_bytes) > kBitmapBytesMax * 8) block_bytes *= 2;
  return block_bytes;
}

[[nodiscard]] std::uint64_t bitmap_pages_of(std::uint64_t bytes, std::uint32_t block_bytes) noexcept {
  return divide_up(divide_up(bytes, block_bytes), kBitmapPageBlocks);
}

[[nodiscard]] bool is_page_multiple(std::uint64_t bytes) noexcept { return bytes % kPageBytes == 0; }

}  // namespace

std::uint64_t Layout::room_bytes() const noexcept {
  if (placement == Placement::external) return data_device_bytes;
  return std::min(bitmap_offset_bytes, activity_log_offset_bytes);
}

std::uint64_t Layout::bitmap_pages_count() const noexcept {
  return bitmap_pages_of(data_device_bytes, bitmap_block_bytes);
}

std::uint64_t Layout::bitmap_page_offset_bytes(std::uint64_t page) const noexcept {
  return bitmap_offset_bytes + page * kPageBytes;
}

std::optional<Layout> plan_layout(const LayoutRequest& request) noexcept {
  Layout layout;
  layout.placement = request.placement;
  layout.data_device_bytes = round_down_to_page(request.data_device_bytes);
  if (layout.data_device_bytes == 0 || layout.data_device_bytes > kDeviceBytesMax) return std::nullopt;
  const std::uint64_t block_bytes =
      request.bitmap_block_bytes != 0
          ? request.bitmap_block_bytes
          : default_block_bytes(request.usable_bytes != 0 ? request.usable_bytes : layout.data_device_bytes);
  if (!is_block_size(block_bytes)) return std::nullopt;
  layout.bitmap_block_bytes = static_cast<std::uint32_t>(block_bytes);
  layout.bitmap_bytes = layout.bitmap_pages_count() * kPageBytes;
  layout.activity_log_bytes = kActivityLogBytes;
  if (request.placement == Placement::internal) {
    const std::uint64_t metadata_bytes = kSuperblocksBytes + kActivityLogBytes + layout.bitmap_bytes;
    if (layout.data_device_bytes < metadata_bytes + kPageBytes) return std::nullopt;
    layout.metadata_end_bytes = layout.data_device_bytes;
    layout.usable_bytes = layout.data_device_bytes - metadata_bytes;
    layout.bitmap_offset_bytes = layout.usable_bytes;
    layout.activity_log_offset_bytes = layout.bitmap_offset_bytes + layout.bitmap_bytes;
  } else {
    layout.usable_bytes = layout.data_device_bytes;
    layout.activity_log_offset_bytes = kSuperblocksBytes;
    layout.bitmap_offset_bytes = kSuperblocksBytes + kActivityLogBytes;
    layout.metadata_end_bytes = layout.bitmap_offset_bytes + layout.bitmap_bytes;
    if (request.metadata_device_bytes < layout.metadata_end_bytes) return std::nullopt;
  }
  if (request.usable_bytes > layout.usable_bytes) return std::nullopt;
  if (request.usable_bytes != 0) layout.usable_bytes = round_down_to_page(request.usable_bytes);
  return layout;
}

std::optional<Layout> grow_layout(const Layout& layout, std::uint64_t data_device_bytes,
                                  std::uint64_t metadata_device_bytes) noexcept {
  auto grown = plan_layout({layout.placement, data_device_bytes, metadata_device_bytes, layout.bitmap_block_bytes});
  if (!grown || grown->usable_bytes < layout.usable_bytes) return std::nullopt;
  const bool moves = layout.placement == Placement::internal && data_device_bytes != layout.data_device_bytes;
  if (moves && grown->data_device_bytes < layout.data_device_bytes + kSuperblocksBytes) return std::nullopt;
  if (grown->bitmap_bytes > kGrownBitmapBytesMax / 63 * 64) return std::nullopt;  // A page holds 63 parts of bits.
  grown->usable_bytes = layout.usable_bytes;
  return grown;
}

std::optional<std::uint64_t> former_size(std::uint64_t device_bytes, std::uint64_t end_bytes) noexcept {
  constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  const std::uint64_t distance = device_bytes - end_bytes;
  const std::uint64_t step = distance < 64 * kMiB ? kPageBytes : distance < 64 * kGiB ? kMiB : kGiB;
  const std::uint64_t former = (end_bytes - 1) / step * step;
  if (former < kSuperblocksBytes + kActivityLogBytes) return std::nullopt;
  return former;
}

std::optional<std::array<std::uint64_t, 2>> superblock_offsets(Placement placement,
                                                               std::uint64_t metadata_device_bytes) noexcept {
  const std::uint64_t end_bytes = round_down_to_page(metadata_device_bytes);
  if (end_bytes < kSuperblocksBytes) return std::nullopt;
  if (placement == Placement::external) return std::array<std::uint64_t, 2>{0, kSuperblockSlotBytes};
  return std::array<std::uint64_t, 2>{end_bytes - kSuperblocksBytes, end_bytes - kSuperblockSlotBytes};
}

bool is_sound(const Layout& layout) noexcept {
  for (const std::uint64_t bytes :
       {layout.data_device_bytes, layout.usable_bytes, layout.metadata_end_bytes, layout.activity_log_offset_bytes,
        layout.activity_log_bytes, layout.bitmap_offset_bytes, layout.bitmap_bytes}) {
    if (!is_page_multiple(bytes) || bytes > kDeviceBytesMax) return false;
  }
  if (!is_block_size(layout.bitmap_block_bytes)) return false;
  if (layout.activity_log_bytes != kActivityLogBytes) return false;
  if (layout.usable_bytes == 0 || layout.usable_bytes > layout.data_device_bytes) return false;
  if (layout.bitmap_bytes < bitmap_pages_of(layout.usable_bytes, layout.bitmap_block_bytes) * kPageBytes) return false;
  const bool is_internal = layout.placement == Placement::internal;
  if (is_internal && layout.metadata_end_bytes != layout.data_device_bytes) return false;
  if (layout.metadata_end_bytes < kSuperblocksBytes) return false;
  const std::uint64_t begin_bytes = is_internal ? layout.usable_bytes : kSuperblocksBytes;
  const std::uint64_t end_bytes =
      is_internal ? layout.metadata_end_bytes - kSuperblocksBytes : layout.metadata_end_bytes;
  const std::uint64_t log_end_bytes = layout.activity_log_offset_bytes + layout.activity_log_bytes;
  const std::uint64_t bitmap_end_bytes = layout.bitmap_offset_bytes + layout.bitmap_bytes;
  if (layout.activity_log_offset_bytes < begin_bytes || log_end_bytes > end_bytes) return false;
  if (layout.bitmap_offset_bytes < begin_bytes || bitmap_end_bytes > end_bytes) return false;
  return log_end_bytes <= layout.bitmap_offset_bytes || bitmap_end_bytes <= layout.activity_log_offset_bytes;
}

}  // namespace replblk::blockdev
