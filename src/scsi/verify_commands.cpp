// VERIFY and WRITE AND VERIFY (SBC-3 5.30, 5.40). BYTCHK 00b: the blocks can be read. 01b: they equal the Data-Out
// Buffer. 11b (VERIFY): each equals the one block of the Data-Out Buffer.
#include <algorithm>
#include <cstring>

#include "scsi/commands.hpp"
#include "scsi/limits.hpp"
#include "scsi/logical_unit.hpp"

namespace replblk::scsi::commands {

namespace {

using blockdev::BlockOp;

enum class ByteCheck : std::uint8_t { none = 0, each = 1, reserved = 2, one_block = 3 };

ByteCheck byte_check(const Task& task) noexcept {
  return static_cast<ByteCheck>(std::to_integer<unsigned>(task.cdb[1]) >> 1 & 0x03);
}

std::size_t piece_bytes(const LogicalUnit& unit, const Task& task) noexcept {
  const std::uint64_t total = task.work.block_count * unit.block_bytes();
  return static_cast<std::size_t>(std::min(total - task.progress_bytes, kDataPieceBytes));
}

/// Reads the next piece into the buffer that request_buffer() brought.
void submit_read(LogicalUnit& unit, Task& task) {
  task.request.op = BlockOp::read;
  task.request.is_fua = false;
  task.request.offset_bytes = task.work.lba * unit.block_bytes() + task.progress_bytes;
  task.request.length_bytes = piece_bytes(unit, task);
  task.request.buffer = task.data_in.share();
  task.request.buffer_offset_bytes = 0;
  unit.submit(task);
}

/// The first byte at which both differ, or their length.
std::size_t first_difference(const std::byte* left, const std::byte* right, std::size_t length) noexcept {
  if (std::memcmp(left, right, length) == 0) return length;
  return static_cast<std::size_t>(std::mismatch(left, left + length, right).first - left);
}

/// Compares the piece that was read; the offset in the Data-Out Buffer of the first difference goes to `difference`.
bool is_equal(LogicalUnit& unit, const Task& task, std::uint64_t& difference) noexcept {
  const ConstBytes expected = LogicalUnit::data_out(task);
  const std::size_t length = static_cast<std::size_t>(task.request.length_bytes);
  const std::byte* const read = task.data_in.data();
  if (byte_check(task) == ByteCheck::each) {
    const std::size_t at = static_cast<std::size_t>(task.progress_bytes);
    RB_ASSERT(at + length <= expected.size());
    const std::size_t same = first_difference(expected.data() + at, read, length);
    difference = at + same;
    return same == length;
  }
  for (std::size_t at = 0; at < length; at += unit.block_bytes()) {
    const std::size_t same = first_difference(expected.data(), read + at, unit.block_bytes());
    difference = same;
    if (same != unit.block_bytes()) return false;
  }
  return true;
}

/// After a piece was read: compares, reads the next, or ends.
void check_piece(LogicalUnit& unit, Task& task) {
  std::uint64_t difference = 0;
  if (byte_check(task) != ByteCheck::none && !is_equal(unit, task, difference)) {
    unit.fail(task, sense_with_information(kMiscompareDuringVerify, difference));
    return;
  }
  task.progress_bytes += task.request.length_bytes;
  if (task.progress_bytes < task.work.block_count * unit.block_bytes()) {
    submit_read(unit, task);
  } else {
    unit.finish(task);
  }
}

constexpr std::uint32_t kStepWritten = 1;

}  // namespace

void plan_verify(LogicalUnit& unit, Task& task) {
  if (!unit.plan_range(task)) return;
  switch (byte_check(task)) {
    case ByteCheck::none:
      task.direction = DataDirection::none;
      return;
    case ByteCheck::each:
      (void)unit.plan_transfer(task, task.work.block_count);
      return;
    case ByteCheck::one_block:
      task.transfer_length_bytes = task.work.block_count == 0 ? 0 : unit.block_bytes();
      return;
    case ByteCheck::reserved:
      unit.reject(task, invalid_cdb_field(1, 2));
      return;
  }
}

void run_verify(LogicalUnit& unit, Task& task) {
  const std::size_t received = LogicalUnit::data_out(task).size();
  // What the initiator did not send cannot be compared; whole blocks are (the transport reports the residual).
  if (received % unit.block_bytes() != 0) {
    unit.fail(task, plain_sense(kInvalidFieldInInformationUnit));
    return;
  }
  if (byte_check(task) == ByteCheck::each) task.work.block_count = received / unit.block_bytes();
  if (byte_check(task) == ByteCheck::one_block && received == 0) task.work.block_count = 0;
  if (task.work.block_count == 0) {
    unit.finish(task);
    return;
  }
  if (!unit.request_buffer(task, piece_bytes(unit, task))) return;
  submit_read(unit, task);
}

void resume_verify(LogicalUnit& unit, Task& task) { check_piece(unit, task); }

void plan_write_and_verify(LogicalUnit& unit, Task& task) {
  if (byte_check(task) > ByteCheck::each) {
    unit.reject(task, invalid_cdb_field(1, 2));
    return;
  }
  if (unit.plan_range(task)) (void)unit.plan_transfer(task, task.work.block_count);
}

/// What is verified is the medium, so the write is durable before it is read back.
void run_write_and_verify(LogicalUnit& unit, Task& task) {
  if (task.step == kStepWritten) {  // the buffer to read into has come
    submit_read(unit, task);
    return;
  }
  const std::size_t received = LogicalUnit::data_out(task).size();
  if (received % unit.block_bytes() != 0) {
    unit.fail(task, plain_sense(kInvalidFieldInInformationUnit));
    return;
  }
  task.work.block_count = received / unit.block_bytes();
  if (received == 0) {
    unit.finish(task);
    return;
  }
  task.request.op = BlockOp::write;
  task.request.is_fua = true;
  task.request.offset_bytes = task.work.lba * unit.block_bytes();
  task.request.length_bytes = received;
  task.request.buffer = task.data_out.share();
  task.request.buffer_offset_bytes = 0;
  unit.submit(task);
}

void resume_write_and_verify(LogicalUnit& unit, Task& task) {
  if (task.step == kStepWritten) {
    check_piece(unit, task);
    return;
  }
  task.step = kStepWritten;
  task.request.buffer.reset();
  if (unit.request_buffer(task, piece_bytes(unit, task))) submit_read(unit, task);
}

}  // namespace replblk::scsi::commands
