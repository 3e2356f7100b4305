#include "replication/peer_copy.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"

namespace replblk::replication {

using blockdev::ByteRange;
using blockdev::DirtyBitmap;

PeerCopy::PeerCopy(DirtyBitmap& dirty, std::uint64_t volume_size_bytes, bool has_write_cache)
    : dirty_(dirty),
      volume_size_bytes_(volume_size_bytes),
      has_write_cache_(has_write_cache),
      unstable_(volume_size_bytes, dirty.block_bytes()),
      unstable_flushing_(volume_size_bytes, dirty.block_bytes()),
      clearable_(volume_size_bytes, dirty.block_bytes()),
      clearable_flushing_(volume_size_bytes, dirty.block_bytes()) {}

void PeerCopy::grow(std::uint64_t volume_size_bytes) {
  volume_size_bytes_ = volume_size_bytes;
  for (DirtyBitmap* set : {&unstable_, &unstable_flushing_, &clearable_, &clearable_flushing_})
    set->grow(volume_size_bytes);
}

void PeerCopy::acknowledged(ByteRange range, bool is_durable) {
  if (has_write_cache_ && !is_durable) unstable_.set(range.offset_bytes, range.length_bytes);
  if (dirty_.is_clean()) return;
  const ByteRange whole = whole_blocks(range);
  if (whole.length_bytes > 0 && dirty_.is_dirty(whole.offset_bytes, whole.length_bytes)) {
    clearable_.set(whole.offset_bytes, whole.length_bytes);
  }
}

void PeerCopy::own_copy_failed(ByteRange range) {
  dirty_.set(range.offset_bytes, range.length_bytes);
  const std::uint64_t block = dirty_.block_bytes();
  const std::uint64_t begin = range.offset_bytes / block * block;
  const std::uint64_t end = std::min((range.end_bytes() + block - 1) / block * block, volume_size_bytes_);
  for (DirtyBitmap* set : {&clearable_, &clearable_flushing_}) set->clear(begin, end - begin);
}

void PeerCopy::flush_begins() {
  RB_ASSERT(!is_flushing_ && unstable_flushing_.is_clean() && clearable_flushing_.is_clean());
  is_flushing_ = true;
  std::swap(unstable_, unstable_flushing_);
  std::swap(clearable_, clearable_flushing_);
}

void PeerCopy::flush_done() {
  RB_ASSERT(is_flushing_);
  is_flushing_ = false;
  unstable_flushing_.clear_all();
  std::uint64_t from = 0;
  while (const auto range = clearable_flushing_.next_dirty(from, UINT64_MAX)) {
    dirty_.clear(range->offset_bytes, range->length_bytes);
    from = range->end_bytes();
    if (from >= volume_size_bytes_) break;
  }
  clearable_flushing_.clear_all();
}

void PeerCopy::lost() {
  ++losses_count_;
  is_flushing_ = false;
  dirty_.merge(unstable_);
  dirty_.merge(unstable_flushing_);
  for (DirtyBitmap* set : {&unstable_, &unstable_flushing_, &clearable_, &clearable_flushing_}) set->clear_all();
}

ByteRange PeerCopy::whole_blocks(ByteRange range) const noexcept {
  const std::uint64_t block = dirty_.block_bytes();
  const std::uint64_t begin = (range.offset_bytes + block - 1) / block * block;
  const std::uint64_t end =
      range.end_bytes() >= volume_size_bytes_ ? range.end_bytes() : range.end_bytes() / block * block;
  if (begin >= end) return {};
  return {begin, end - begin};
}

}  // namespace replblk::replication
