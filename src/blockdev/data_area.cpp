#include "blockdev/data_area.hpp"

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "base/probe.hpp"
#include "blockdev/error_map.hpp"

namespace replblk::blockdev {

namespace {

using IoResult = Result<void, ports::IoError>;

/// Zeroes are written in pieces of this size: large enough for the bandwidth of a disk, small beside the pool.
constexpr std::uint64_t kZeroPieceBytes = std::uint64_t{256} << 10;
/// The span of one bounced piece: most requests in one piece, and a reserve that costs little.
constexpr std::uint64_t kBounceSpanBytes = std::uint64_t{128} << 10;
/// What a disk's zeroing is asked for at once, so that one request of gigabytes cannot outlast the disk timeout.
constexpr std::uint64_t kDiskZeroBytesMax = std::uint64_t{256} << 20;

[[nodiscard]] std::uint64_t round_down(std::uint64_t bytes, std::uint64_t mask) noexcept { return bytes & ~mask; }
[[nodiscard]] std::uint64_t round_up(std::uint64_t bytes, std::uint64_t mask) noexcept {
  return (bytes + mask) & ~mask;
}

[[nodiscard]] bool is_zeroing(BlockOp op) noexcept { return op == BlockOp::discard || op == BlockOp::write_zeroes; }

}  // namespace

DataArea::DataArea(BufferPool& buffers, ports::Disk& disk, Options options)
    : buffers_(buffers), disk_(disk), options_(options), operations_(options.requests_max) {
  RB_ASSERT(options.requests_max > 0);
}

DataArea::~DataArea() { RB_ASSERT(in_flight_count_ == 0); }

void DataArea::open(std::uint64_t size_bytes, std::uint32_t logical_block_bytes) {
  const ports::Disk::Geometry& geometry = disk_.geometry();
  RB_ASSERT(geometry.alignment_bytes > 0 && geometry.alignment_bytes <= 4096 && geometry.logical_block_bytes <= 4096);
  size_bytes_ = size_bytes;
  logical_block_bytes_ = logical_block_bytes;
  alignment_mask_ = geometry.alignment_bytes - 1;
  zeroing_mask_ = std::max(geometry.alignment_bytes, geometry.logical_block_bytes) - 1;
  can_discard_ = geometry.supports_discard;
  can_write_zeroes_ = geometry.supports_write_zeroes;
  if (zeroes_ == nullptr) zeroes_ = make_aligned_memory(kZeroPieceBytes);
  if (alignment_mask_ != 0 && reserve_ == nullptr) reserve_ = make_aligned_memory(kBounceSpanBytes);
}

bool DataArea::is_straight(const BlockRequest& request) const noexcept {
  const std::uint64_t address = reinterpret_cast<std::uintptr_t>(request.data());
  return ((request.offset_bytes | request.length_bytes | address) & alignment_mask_) == 0;
}

void DataArea::submit(BlockRequest& request) noexcept {
  if (has_quarantine() && disk_.unreturned_count() == 0) end_quarantine();
  RB_ASSERT(size_bytes_ > 0 && request.op != BlockOp::compare_and_write);
  if (request.op != BlockOp::flush) {
    RB_ASSERT(request.length_bytes > 0 && request.length_bytes <= size_bytes_ &&
              request.offset_bytes <= size_bytes_ - request.length_bytes);
    RB_ASSERT(((request.offset_bytes | request.length_bytes) & (logical_block_bytes_ - 1)) == 0);
    if (!is_zeroing(request.op)) {
      RB_ASSERT(request.length_bytes <= BufferPool::kBufferBytesMax &&
                request.buffer_offset_bytes + request.length_bytes <= request.buffer.capacity_bytes());
    }
  }
  ++in_flight_count_;
  Operation* operation = waiting_requests_.empty() ? operations_.acquire() : nullptr;
  if (operation == nullptr) {
    waiting_requests_.push_back(request);
    return;
  }
  start(request, *operation);
}

void DataArea::start(BlockRequest& request, Operation& operation) noexcept {
  operation.request = &request;
  operation.on_done = Callback<void(ports::DiskOp&, IoResult)>::to<&DataArea::on_op_done>(*this);
  operation.position_bytes = request.offset_bytes;
  operation.is_durable = false;
  switch (request.op) {
    case BlockOp::flush:
      operation.stage = Stage::straight;
      operation.kind = ports::DiskOpKind::flush;
      operation.offset_bytes = operation.length_bytes = 0;
      operation.memory = nullptr;
      disk_.submit(operation);
      return;
    case BlockOp::read:
    case BlockOp::write:
      if (!is_straight(request)) {
        ++counters_.bounces;
        start_next(operation);
        return;
      }
      operation.stage = Stage::straight;
      operation.kind = request.op == BlockOp::read ? ports::DiskOpKind::read : ports::DiskOpKind::write;
      operation.is_durable = request.op == BlockOp::write && is_durable(request);
      operation.offset_bytes = request.offset_bytes;
      operation.length_bytes = request.length_bytes;
      operation.memory = request.data();
      disk_.submit(operation);
      return;
    case BlockOp::discard:
    case BlockOp::write_zeroes:
      start_next(operation);
      return;
    case BlockOp::compare_and_write:
      break;
  }
  RB_UNREACHABLE();
}

/// The next piece of a request that goes in pieces.
void DataArea::start_next(Operation& operation) noexcept {
  if (is_zeroing(operation.request->op)) {
    start_zeroing(operation);
  } else {
    start_bounce(operation);
  }
}

void DataArea::start_zeroing(Operation& operation) noexcept {
  const BlockRequest& request = *operation.request;
  const std::uint64_t begin = operation.position_bytes;
  const std::uint64_t end = request.end_bytes();
  const bool is_by_disk = (request.op == BlockOp::discard && can_discard_) || can_write_zeroes_;
  const std::uint64_t mask = is_by_disk ? zeroing_mask_ : alignment_mask_;
  const std::uint64_t middle_begin = round_up(begin, mask);
  const std::uint64_t middle_end = round_down(end, mask);
  operation.is_durable = is_durable(request);
  if (begin != middle_begin || middle_begin >= middle_end) {
    // Head or tail: less than the disk can zero. It is written as zeroes, straight where writes need less alignment.
    operation.piece_bytes = std::min(middle_begin == begin ? end : middle_begin, end) - begin;
    if (((begin | operation.piece_bytes) & alignment_mask_) != 0) {
      start_bounce(operation);
      return;
    }
    operation.kind = ports::DiskOpKind::write;
  } else if (is_by_disk) {
    const bool is_discard = request.op == BlockOp::discard && can_discard_;
    operation.kind = is_discard ? ports::DiskOpKind::discard : ports::DiskOpKind::write_zeroes;
    operation.is_durable = operation.is_durable && !is_discard;
    operation.piece_bytes = std::min(middle_end - begin, kDiskZeroBytesMax);
  } else {
    operation.kind = ports::DiskOpKind::write;
    operation.piece_bytes = std::min(middle_end - begin, kZeroPieceBytes);
  }
  operation.stage = Stage::zeroing;
  operation.offset_bytes = begin;
  operation.length_bytes = operation.piece_bytes;
  operation.memory = operation.kind == ports::DiskOpKind::write ? zeroes_.get() : nullptr;
  disk_.submit(operation);
}

std::byte* DataArea::bounce_memory(const Operation& operation) const noexcept {
  return operation.has_reserve ? reserve_.get() : operation.bounce.data();
}

void DataArea::start_bounce(Operation& operation) noexcept {
  const BlockRequest& request = *operation.request;
  const std::uint64_t span_begin = round_down(operation.position_bytes, alignment_mask_);
  if (!is_zeroing(request.op)) {
    operation.piece_bytes = std::min(request.end_bytes(), span_begin + kBounceSpanBytes) - operation.position_bytes;
  }
  // Those who wait have waited longer.
  if (waiting_operations_.empty()) {
    const std::uint64_t span_end = round_up(operation.position_bytes + operation.piece_bytes, alignment_mask_);
    operation.bounce = buffers_.acquire(static_cast<std::size_t>(span_end - span_begin));
    operation.has_reserve = !operation.bounce && !is_reserve_taken_;
  }
  if (!operation.bounce && !operation.has_reserve) {
    RB_PROBE("operation_waits_for_bounce_memory");
    waiting_operations_.push_back(operation);
    return;
  }
  is_reserve_taken_ = is_reserve_taken_ || operation.has_reserve;
  begin_bounce(operation);
}

void DataArea::serve_memory_waiters() noexcept {
  while (Operation* operation = waiting_operations_.front()) {
    const std::uint64_t span_begin = round_down(operation->position_bytes, alignment_mask_);
    const std::uint64_t span_end = round_up(operation->position_bytes + operation->piece_bytes, alignment_mask_);
    operation->bounce = buffers_.acquire(static_cast<std::size_t>(span_end - span_begin));
    operation->has_reserve = !operation->bounce && !is_reserve_taken_;
    if (!operation->bounce && !operation->has_reserve) return;
    is_reserve_taken_ = is_reserve_taken_ || operation->has_reserve;
    static_cast<IntrusiveNode<Operation>&>(*operation).unlink();
    begin_bounce(*operation);
  }
}

void DataArea::begin_bounce(Operation& operation) noexcept {
  const std::uint64_t begin = operation.position_bytes;
  const std::uint64_t end = begin + operation.piece_bytes;
  operation.offset_bytes = round_down(begin, alignment_mask_);
  operation.length_bytes = round_up(end, alignment_mask_) - operation.offset_bytes;
  operation.memory = bounce_memory(operation);
  const bool has_edges = operation.offset_bytes != begin || operation.length_bytes != operation.piece_bytes;
  if (operation.request->op != BlockOp::read && !has_edges) {
    write_bounced(operation);
    return;
  }
  operation.stage = Stage::bounce_read;
  operation.kind = ports::DiskOpKind::read;
  operation.is_durable = false;
  disk_.submit(operation);
}

void DataArea::write_bounced(Operation& operation) noexcept {
  const BlockRequest& request = *operation.request;
  std::byte* into = operation.memory + (operation.position_bytes - operation.offset_bytes);
  if (request.op == BlockOp::write) {
    std::memcpy(into, request.data() + (operation.position_bytes - request.offset_bytes), operation.piece_bytes);
  } else {
    std::memset(into, 0, operation.piece_bytes);
  }
  operation.stage = Stage::bounce_write;
  operation.kind = ports::DiskOpKind::write;
  operation.is_durable = is_durable(request);
  disk_.submit(operation);
}

void DataArea::drop_bounce(Operation& operation) noexcept {
  if (operation.has_reserve) is_reserve_taken_ = false;
  operation.has_reserve = false;
  operation.bounce.reset();
}

void DataArea::on_op_done(ports::DiskOp& op, IoResult result) {
  Operation& operation = static_cast<Operation&>(op);
  if (!result && result.error() == ports::IoError::timed_out) quarantine(operation);
  switch (operation.stage) {
    case Stage::straight:
    case Stage::final_flush:
      complete(operation, result);
      return;
    case Stage::bounce_read:
      if (result && operation.request->op != BlockOp::read) {
        write_bounced(operation);
        return;
      }
      if (result) {
        const BlockRequest& request = *operation.request;
        std::memcpy(request.data() + (operation.position_bytes - request.offset_bytes),
                    operation.memory + (operation.position_bytes - operation.offset_bytes), operation.piece_bytes);
      }
      on_piece_done(operation, result);
      return;
    case Stage::bounce_write:
      on_piece_done(operation, result);
      return;
    case Stage::zeroing:
      if (!result && fall_back(operation, result.error())) {
        start_next(operation);
        return;
      }
      on_piece_done(operation, result);
      return;
  }
  RB_UNREACHABLE();
}

/// A disk that offered a way to zero and refuses it is asked no more; the request goes on with the next best way.
bool DataArea::fall_back(Operation& operation, ports::IoError error) noexcept {
  if (error != ports::IoError::not_supported) return false;
  RB_PROBE("disk_refuses_to_zero");
  if (operation.kind == ports::DiskOpKind::discard) {
    can_discard_ = false;
    return true;
  }
  if (operation.kind == ports::DiskOpKind::write_zeroes) {
    can_write_zeroes_ = false;
    return true;
  }
  return false;
}

void DataArea::on_piece_done(Operation& operation, IoResult result) noexcept {
  drop_bounce(operation);
  if (!waiting_operations_.empty()) serve_memory_waiters();
  BlockRequest& request = *operation.request;
  if (!result) {
    complete(operation, result);
    return;
  }
  operation.position_bytes += operation.piece_bytes;
  if (operation.position_bytes < request.end_bytes()) {
    start_next(operation);
    return;
  }
  if (request.op == BlockOp::discard && is_durable(request)) {
    // A discard cannot be asked to be durable.
    operation.stage = Stage::final_flush;
    operation.kind = ports::DiskOpKind::flush;
    operation.is_durable = false;
    operation.offset_bytes = operation.length_bytes = 0;
    operation.memory = nullptr;
    disk_.submit(operation);
    return;
  }
  complete(operation, result);
}

/// disk_timeout: the kernel may still read or fill the memory of this operation. Nobody else is given it before
/// Disk::unreturned_count() is 0.
void DataArea::quarantine(Operation& operation) {
  if (operation.stage == Stage::straight && operation.request->buffer) {
    quarantine_.push_back(operation.request->buffer.share());
  } else if (operation.bounce) {
    quarantine_.push_back(std::move(operation.bounce));
  } else if (operation.has_reserve) {
    reserve_quarantine_.push_back(std::move(reserve_));
    reserve_ = make_aligned_memory(kBounceSpanBytes);
  }
}

void DataArea::end_quarantine() noexcept {
  // Whoever waits for a buffer may come back here.
  const std::vector<BufferRef> buffers = std::exchange(quarantine_, {});
  reserve_quarantine_.clear();
}

void DataArea::complete(Operation& operation, IoResult result) noexcept {
  BlockRequest& request = *operation.request;
  request.status = result ? BlockStatus::good : to_block_status(result.error());
  ++counters_.operations;
  if (!result) {
    ++counters_.io_errors;
  } else if (request.op == BlockOp::read) {
    counters_.read_bytes += request.length_bytes;
  } else if (request.op == BlockOp::write) {
    counters_.written_bytes += request.length_bytes;
  } else if (request.op == BlockOp::flush) {
    ++counters_.flushes;
  }
  operation.request = nullptr;
  --in_flight_count_;
  if (BlockRequest* next = waiting_requests_.pop_front()) {
    start(*next, operation);
  } else {
    operations_.release(operation);
  }
  const Callback<void(BlockRequest&)> on_complete = request.on_complete;
  on_complete(request);
}

}  // namespace replblk::blockdev
