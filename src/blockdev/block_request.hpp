// One operation on a volume and the interface of everything that carries it (Mirror, Store): the vertical seam between
// SCSI and the disks. A request belongs to whoever submits it (it is a member of its context) and must live, with its
// buffer, until `on_complete`, which comes exactly once per submit, from the loop, never from inside submit().
// Validated at the edge (SCSI): alignment and range are asserted below, not checked again.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/buffer_pool.hpp"
#include "base/callback.hpp"
#include "base/intrusive_list.hpp"

namespace replblk::blockdev {

enum class BlockOp : std::uint8_t {
  read,
  write,
  flush,              ///< whole volume, offset and length ignored: what completed before is durable after
  discard,            ///< reads back as zeroes
  write_zeroes,       ///< zeroes, stays allocated where the device can
  compare_and_write,  ///< buffer: length_bytes to compare, then length_bytes to write; atomic against all others
};

enum class BlockStatus : std::uint8_t {
  good,
  io_error,       ///< no copy could do it
  timed_out,      ///< the device has not given it back: a read may still fill its buffer, a change still take effect
  no_space,       ///< the backing file system is full: SPACE ALLOCATION FAILED WRITE PROTECT
  miscompare,     ///< compare_and_write: miscompare_offset_bytes says where
  not_supported,  ///< discard on a device without it
  not_serving,    ///< the role was lost before the request could be answered: send no answer at all
};
[[nodiscard]] std::string_view to_string(BlockStatus status) noexcept;

class BlockRequest : public IntrusiveNode<BlockRequest> {
 public:
  BlockOp op = BlockOp::read;
  bool is_fua = false;  ///< write, write_zeroes, compare_and_write: durable (on all copies) before completion
  std::uint64_t offset_bytes = 0;         ///< multiple of the volume's logical block
  std::uint64_t length_bytes = 0;         ///< likewise, > 0 but for flush; read, write: ≤ BufferPool::kBufferBytesMax
  BufferRef buffer;                       ///< read: filled; write: source. Stages share() it where they keep it longer
  std::uint32_t buffer_offset_bytes = 0;  ///< where the data begins in the buffer; a multiple of the logical block

  BlockStatus status = BlockStatus::good;  ///< valid in on_complete
  std::uint32_t miscompare_offset_bytes = 0;
  Callback<void(BlockRequest&)> on_complete;

  [[nodiscard]] std::byte* data() const noexcept { return buffer.data() + buffer_offset_bytes; }
  [[nodiscard]] std::uint64_t end_bytes() const noexcept { return offset_bytes + length_bytes; }
  /// Everything but read and flush changes the range.
  [[nodiscard]] bool is_change() const noexcept { return op != BlockOp::read && op != BlockOp::flush; }
};

/// What a volume looks like to an initiator; the same on both nodes.
struct VolumeGeometry {
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 512;  ///< 512 or 4096
  std::uint32_t physical_block_bytes = 4096;
  bool supports_discard = false;  ///< offered only when both sides read back zeroes
  bool has_write_cache = true;    ///< write_cache: on → WCE in mode page 08
  bool is_rotational = false;
};

class BlockBackend {
 public:
  virtual ~BlockBackend() = default;
  [[nodiscard]] virtual const VolumeGeometry& geometry() const noexcept = 0;
  virtual void submit(BlockRequest& request) noexcept = 0;
};

}  // namespace replblk::blockdev
