// Carries block requests to the data device. Three ways: straight (aligned: one disk operation, the request's own
// memory), bounced (the disk wants more alignment than the request has: read, modify, write of the aligned span, piece
// by piece), and zeroing (discard and write_zeroes: the aligned middle as an operation where the disk has one, zeroes
// otherwise). Not responsible for order between overlapping requests: the caller holds the range. Owned by Store; one
// thread. Invariant: nothing is allocated per request, and a request that has begun never waits for memory held by one
// that has not.
//
// A change:      [head | middle | tail]   head and tail: parts of a unit that the disk cannot touch alone
//   write        straight, or bounced as a whole
//   write_zeroes head and tail bounced with zeroes, middle by the disk, or from a shared buffer of zeroes
//   discard      likewise, the middle discarded if the disk can
#pragma once

#include <cstdint>
#include <vector>

#include "base/slot_pool.hpp"
#include "blockdev/block_request.hpp"
#include "blockdev/metadata_io.hpp"
#include "blockdev/store.hpp"

namespace replblk::blockdev {

class DataArea {
 public:
  struct Options {
    bool has_write_cache = true;
    std::uint32_t requests_max = 1024;
  };
  DataArea(BufferPool& buffers, ports::Disk& disk, Options options);
  ~DataArea();

  /// From here on submit() is allowed, within this size.
  void open(std::uint64_t size_bytes, std::uint32_t logical_block_bytes);
  /// Only larger.
  void grow(std::uint64_t size_bytes) noexcept { size_bytes_ = size_bytes; }
  void submit(BlockRequest& request) noexcept;
  [[nodiscard]] std::uint32_t in_flight_count() const noexcept { return in_flight_count_; }
  [[nodiscard]] const Store::Counters& counters() const noexcept { return counters_; }

 private:
  /// How the current piece of a request goes to the disk.
  enum class Stage : std::uint8_t { straight, bounce_read, bounce_write, zeroing, final_flush };

  struct Operation : ports::DiskOp, IntrusiveNode<Operation> {
    BlockRequest* request = nullptr;
    Stage stage = Stage::straight;
    std::uint64_t position_bytes = 0;  ///< on the device: everything of the request before it is done
    std::uint64_t piece_bytes = 0;     ///< of the request, in the piece under way
    BufferRef bounce;
    bool has_reserve = false;  ///< bounces through the reserve instead
  };

  void start(BlockRequest& request, Operation& operation) noexcept;
  void start_next(Operation& operation) noexcept;
  void start_zeroing(Operation& operation) noexcept;
  void start_bounce(Operation& operation) noexcept;
  void begin_bounce(Operation& operation) noexcept;
  void write_bounced(Operation& operation) noexcept;
  void serve_memory_waiters() noexcept;
  void drop_bounce(Operation& operation) noexcept;
  void on_op_done(ports::DiskOp& op, Result<void, ports::IoError> result);
  void on_piece_done(Operation& operation, Result<void, ports::IoError> result) noexcept;
  [[nodiscard]] bool fall_back(Operation& operation, ports::IoError error) noexcept;
  void quarantine(Operation& operation);
  [[nodiscard]] bool has_quarantine() const noexcept { return !quarantine_.empty() || !reserve_quarantine_.empty(); }
  void end_quarantine() noexcept;
  void complete(Operation& operation, Result<void, ports::IoError> result) noexcept;

  [[nodiscard]] bool is_durable(const BlockRequest& request) const noexcept {
    return request.is_fua || !options_.has_write_cache;
  }
  [[nodiscard]] bool is_straight(const BlockRequest& request) const noexcept;
  [[nodiscard]] std::byte* bounce_memory(const Operation& operation) const noexcept;

  BufferPool& buffers_;
  ports::Disk& disk_;
  Options options_;
  std::uint64_t size_bytes_ = 0;
  std::uint32_t logical_block_bytes_ = 0;
  std::uint64_t alignment_mask_ = 0;  ///< of reads and writes
  std::uint64_t zeroing_mask_ = 0;    ///< of what discard and write_zeroes of the disk are given
  bool can_discard_ = false;          ///< until the disk says otherwise
  bool can_write_zeroes_ = false;

  SlotPool<Operation> operations_;
  IntrusiveList<BlockRequest, BlockRequest> waiting_requests_;
  IntrusiveList<Operation, Operation> waiting_operations_;  ///< for bounce memory
  AlignedMemory zeroes_;
  AlignedMemory reserve_;  ///< bounce memory that no request can hold on to while it waits
  bool is_reserve_taken_ = false;
  std::vector<BufferRef> quarantine_;  ///< of operations that timed out: the kernel still has the memory
  std::vector<AlignedMemory> reserve_quarantine_;
  std::uint32_t in_flight_count_ = 0;
  Store::Counters counters_;
};

}  // namespace replblk::blockdev
