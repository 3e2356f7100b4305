// WRITE SAME (SBC-3 5.43, 5.44): one block to many. Zeroes become write_zeroes or discard, anything else is written
// from a buffer that holds the block many times over.
#include <algorithm>
#include <cstring>

#include "scsi/commands.hpp"
#include "scsi/limits.hpp"
#include "scsi/logical_unit.hpp"

namespace replblk::scsi::commands {

namespace {

using blockdev::BlockOp;

constexpr std::uint8_t kUnmap = 0x08;
constexpr std::uint8_t kNdob = 0x01;

constexpr std::uint32_t kStepZeroes = 1;
constexpr std::uint32_t kStepPattern = 2;

void submit_piece(LogicalUnit& unit, Task& task, std::uint64_t piece_bytes) {
  const std::uint64_t total = task.work.block_count * unit.block_bytes();
  task.request.offset_bytes = task.work.lba * unit.block_bytes() + task.progress_bytes;
  task.request.length_bytes = std::min(total - task.progress_bytes, piece_bytes);
  task.request.is_fua = false;
  task.progress_bytes += task.request.length_bytes;
  unit.submit(task);
}

void submit_next(LogicalUnit& unit, Task& task) {
  if (task.step == kStepZeroes) {
    // SBC-3 5.43.2: UNMAP with zeroes as data: unmapped blocks read as zeroes (LBPRZ).
    task.request.op = has_bits(task.cdb, 1, kUnmap) ? BlockOp::discard : BlockOp::write_zeroes;
    submit_piece(unit, task, kZeroPieceBytes);
  } else {
    task.request.op = BlockOp::write;
    task.request.buffer = task.data_in.share();
    task.request.buffer_offset_bytes = 0;
    submit_piece(unit, task, kDataPieceBytes);
  }
}

}  // namespace

void plan_write_same(LogicalUnit& unit, Task& task) {
  if (has_bits(task.cdb, 1, kUnmap) && !unit.geometry().supports_discard) {
    unit.reject(task, invalid_cdb_field(1, 3));
    return;
  }
  const std::uint64_t count = decode_range(task.cdb).count;
  if (count == 0 || count > kWriteSameBlocksMax) {  // WSNZ, MAXIMUM WRITE SAME LENGTH
    unit.reject(task, invalid_cdb_field(count_byte(task.cdb), 7));
    return;
  }
  if (!unit.plan_range(task)) return;
  if (has_bits(task.cdb, 1, kNdob)) {  // only the mask of WRITE SAME(16) lets it pass
    task.direction = DataDirection::none;
    return;
  }
  task.transfer_length_bytes = unit.block_bytes();
  if (task.expected_length_bytes != task.transfer_length_bytes) {
    unit.reject(task, plain_sense(kInvalidFieldInInformationUnit));
  }
}

void run_write_same(LogicalUnit& unit, Task& task) {
  const ConstBytes block = LogicalUnit::data_out(task);
  if (task.direction == DataDirection::out && block.size() != unit.block_bytes()) {
    unit.fail(task, plain_sense(kInvalidFieldInInformationUnit));
    return;
  }
  if (is_all_zero(block)) {
    task.step = kStepZeroes;
  } else {
    const std::uint64_t total = task.work.block_count * unit.block_bytes();
    const std::size_t length = static_cast<std::size_t>(std::min(total, kDataPieceBytes));
    if (!unit.request_buffer(task, length)) return;
    for (std::size_t at = 0; at < length; at += block.size()) {
      std::memcpy(task.data_in.data() + at, block.data(), block.size());
    }
    task.step = kStepPattern;
  }
  submit_next(unit, task);
}

void resume_write_same(LogicalUnit& unit, Task& task) {
  if (task.progress_bytes < task.work.block_count * unit.block_bytes()) {
    submit_next(unit, task);
  } else {
    unit.finish(task);
  }
}

}  // namespace replblk::scsi::commands
