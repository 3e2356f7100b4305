// One opened backing device or file. Implemented by runtime (io_uring, O_DIRECT or buffered) and by the simulator
// (volatile cache, power cuts). Whoever submits owns the DiskOp and its memory until on_done.
// Ordering: none between operations in flight, also not between overlapping ones: callers order them.
// Durability: a completed write may be lost in a power cut until a flush that was submitted after its completion has
// completed, or when it was submitted with `is_durable`. After a failed flush nothing may be assumed durable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/callback.hpp"
#include "base/intrusive_list.hpp"
#include "base/result.hpp"

namespace replblk::ports {

enum class IoError : std::uint8_t {
  io,             ///< EIO, ENXIO, short transfer: the medium or the path failed
  no_space,       ///< ENOSPC/EDQUOT of a backing file system: the device itself is well
  not_supported,  ///< the operation is not offered there (discard, zeroing)
  access,         ///< EROFS, EPERM, EBADF
  timed_out,      ///< disk_timeout: the kernel still has the buffer
};
[[nodiscard]] std::string_view to_string(IoError error) noexcept;

enum class DiskOpKind : std::uint8_t { read, write, flush, discard, write_zeroes };

/// One operation. Not copyable, not movable while submitted.
class DiskOp : public IntrusiveNode<DiskOp> {
 public:
  DiskOpKind kind = DiskOpKind::read;
  bool is_durable = false;         ///< write, write_zeroes: durable when done (FUA)
  std::uint64_t offset_bytes = 0;  ///< multiple of Disk::Geometry::alignment_bytes for read and write
  std::uint64_t length_bytes = 0;  ///< likewise; at most BufferPool::kBufferBytesMax for read and write
  std::byte* memory = nullptr;     ///< read, write: aligned to alignment_bytes; inside the pool's region it is cheapest
  /// Called once per submit, from the loop. A short read or write is an error (io), never a partial success.
  Callback<void(DiskOp&, Result<void, IoError>)> on_done;
};

class Disk {
 public:
  struct Geometry {
    std::uint64_t size_bytes = 0;
    std::uint32_t logical_block_bytes = 512;    ///< smallest unit the device addresses: 512 or 4096
    std::uint32_t physical_block_bytes = 4096;  ///< unit written without read-modify-write
    std::uint32_t alignment_bytes = 512;        ///< for offset, length and memory of reads and writes (1 when buffered)
    bool supports_discard = false;              ///< discard is accepted and reads back as zeroes
    bool supports_write_zeroes = false;         ///< write_zeroes is accepted without sending zeroes
    bool is_rotational = false;
  };

  virtual ~Disk() = default;
  [[nodiscard]] virtual const Geometry& geometry() const noexcept = 0;
  /// Asks how large the device is now, in bytes. If it grew, geometry() says so from here on; a device that became
  /// smaller keeps its size there, and operations beyond its end fail.
  [[nodiscard]] virtual Result<std::uint64_t, IoError> measure() noexcept { return geometry().size_bytes; }
  /// Queues the operation; it is handed to the kernel at the latest at the end of this turn.
  virtual void submit(DiskOp& op) noexcept = 0;
  /// Operations that were reported as timed_out and that the device has not given back: it may still read or fill their
  /// memory, and a write of them may still take effect, over a later one too.
  [[nodiscard]] virtual std::size_t unreturned_count() const noexcept { return 0; }
};

}  // namespace replblk::ports
