// What the source knows of the peer's copy of one volume (protocol.md 4, 5.3): which acknowledged blocks the peer may
// still lose in a power cut (unstable), and which dirty bits a flush of the peer will clear. Knows no connection:
// Mirror and Resync report what was acknowledged, Mirror reports flushes and the loss of the peer. Invariant (A16): a
// dirty bit is cleared only by a flush that was sent after the block's acknowledgement.
#pragma once

#include "blockdev/dirty_bitmap.hpp"

namespace replblk::replication {

class PeerCopy {
 public:
  PeerCopy(blockdev::DirtyBitmap& dirty, std::uint64_t volume_size_bytes, bool has_write_cache);

  /// The volume became larger.
  void grow(std::uint64_t volume_size_bytes);
  [[nodiscard]] std::uint64_t volume_size_bytes() const noexcept { return volume_size_bytes_; }

  /// The peer has applied a write or resync of the range; `is_durable`: and made it durable.
  void acknowledged(blockdev::ByteRange range, bool is_durable);
  /// The own disk failed a change that the peer may have applied: the copies may differ there, whatever the peer has
  /// acknowledged or will acknowledge of that change (the caller no longer reports it).
  void own_copy_failed(blockdev::ByteRange range);
  /// A flush is about to be sent; it covers all that was acknowledged so far. One at a time.
  void flush_begins();
  void flush_done();
  /// The peer is gone: what it had not flushed joins the dirty set.
  void lost();
  /// How often that happened: what was acknowledged before says nothing of the copy that comes back.
  [[nodiscard]] std::uint64_t losses_count() const noexcept { return losses_count_; }

  [[nodiscard]] bool needs_flush() const noexcept { return !unstable_.is_clean() || !clearable_.is_clean(); }
  [[nodiscard]] bool is_flushing() const noexcept { return is_flushing_; }

 private:
  /// The blocks that lie wholly inside `range`; a write of part of a dirty block does not make the block equal.
  [[nodiscard]] blockdev::ByteRange whole_blocks(blockdev::ByteRange range) const noexcept;

  blockdev::DirtyBitmap& dirty_;
  std::uint64_t volume_size_bytes_;
  bool has_write_cache_;
  bool is_flushing_ = false;
  std::uint64_t losses_count_ = 0;
  blockdev::DirtyBitmap unstable_;
  blockdev::DirtyBitmap unstable_flushing_;
  blockdev::DirtyBitmap clearable_;
  blockdev::DirtyBitmap clearable_flushing_;
};

}  // namespace replblk::replication
