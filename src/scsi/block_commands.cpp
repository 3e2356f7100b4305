// READ, WRITE, COMPARE AND WRITE, SYNCHRONIZE CACHE, PRE-FETCH, SEEK, START STOP UNIT (SBC-3 5).
#include "scsi/commands.hpp"
#include "scsi/logical_unit.hpp"

namespace replblk::scsi::commands {

namespace {

using blockdev::BlockOp;

constexpr std::uint8_t kFua = 0x08;

/// Byte 1 of a six byte CDB is part of the LBA.
bool is_fua(const Task& task) noexcept {
  return (std::to_integer<unsigned>(task.cdb[0]) >> 5) != 0 && has_bits(task.cdb, 1, kFua);
}

void set_range(LogicalUnit& unit, Task& task, std::uint64_t blocks) noexcept {
  task.request.offset_bytes = task.work.lba * unit.block_bytes();
  task.request.length_bytes = blocks * unit.block_bytes();
  task.request.is_fua = false;
}

void submit_flush(LogicalUnit& unit, Task& task) {
  task.request.op = BlockOp::flush;
  task.request.is_fua = false;
  task.request.offset_bytes = 0;
  task.request.length_bytes = 0;
  unit.submit(task);
}

constexpr std::uint32_t kStepFlush = 1;

}  // namespace

void plan_nothing(LogicalUnit&, Task&) {}
void run_good(LogicalUnit& unit, Task& task) { unit.finish(task); }

void plan_read(LogicalUnit& unit, Task& task) {
  if (!unit.plan_range(task)) return;
  (void)unit.plan_transfer(task, task.work.block_count);
}

void run_read(LogicalUnit& unit, Task& task) {
  if (task.work.block_count == 0) {
    unit.finish(task);
    return;
  }
  // SBC-3 4.15.2: FUA reads from the medium, so what is newer in a volatile cache goes there first.
  if (is_fua(task) && unit.geometry().has_write_cache && task.step == 0) {
    task.step = kStepFlush;
    submit_flush(unit, task);
    return;
  }
  if (!unit.request_buffer(task, task.transfer_length_bytes)) return;
  task.step = 0;
  set_range(unit, task, task.work.block_count);
  task.request.op = BlockOp::read;
  task.request.buffer = std::move(task.data_in);
  task.request.buffer_offset_bytes = 0;
  unit.submit(task);
}

void resume_read(LogicalUnit& unit, Task& task) {
  if (task.step == kStepFlush) {
    run_read(unit, task);
    return;
  }
  task.data_in = std::move(task.request.buffer);
  task.data_in_length_bytes = task.transfer_length_bytes;
  unit.finish(task);
}

void plan_write(LogicalUnit& unit, Task& task) {
  if (!unit.plan_range(task)) return;
  (void)unit.plan_transfer(task, task.work.block_count);
}

void run_write(LogicalUnit& unit, Task& task) {
  // The initiator may have had less than the CDB says (the transport reports the residual): whole blocks are written.
  const std::size_t received = LogicalUnit::data_out(task).size();
  if (received % unit.block_bytes() != 0) {
    unit.fail(task, plain_sense(kInvalidFieldInInformationUnit));
    return;
  }
  if (received == 0) {
    unit.finish(task);
    return;
  }
  set_range(unit, task, received / unit.block_bytes());
  task.request.op = BlockOp::write;
  task.request.is_fua = is_fua(task);
  task.request.buffer = std::move(task.data_out);
  task.request.buffer_offset_bytes = 0;
  unit.submit(task);
}

void plan_compare_and_write(LogicalUnit& unit, Task& task) {
  task.work.lba = load_be<std::uint64_t>(&task.cdb[2]);
  task.work.block_count = std::to_integer<std::uint64_t>(task.cdb[13]);
  const std::uint64_t blocks = unit.block_count();
  if (task.work.lba > blocks || task.work.block_count > blocks - task.work.lba) {
    unit.reject(task, sense_with_information(kLbaOutOfRange, std::max(task.work.lba, blocks)));
    return;
  }
  if (!unit.plan_transfer(task, 2 * task.work.block_count)) return;
  // Half a comparison must not decide about a write: other than exactly both halves is refused. An initiator that wants
  // more blocks than byte 13 can say has it cut to a smaller number, so that byte is what is wrong.
  if (task.expected_length_bytes != task.transfer_length_bytes) unit.reject(task, invalid_cdb_field(13, 7));
}

void run_compare_and_write(LogicalUnit& unit, Task& task) {
  if (task.work.block_count == 0) {
    unit.finish(task);
    return;
  }
  if (task.data_out_length_bytes < task.transfer_length_bytes) {
    unit.fail(task, plain_sense(kInvalidFieldInInformationUnit));
    return;
  }
  set_range(unit, task, task.work.block_count);
  task.request.op = BlockOp::compare_and_write;
  task.request.is_fua = is_fua(task);
  task.request.buffer = std::move(task.data_out);
  task.request.buffer_offset_bytes = 0;
  unit.submit(task);
}

void plan_synchronize_cache(LogicalUnit& unit, Task& task) { (void)unit.plan_range(task); }

/// IMMED is not used: an answer before the data is durable would be an answer about nothing.
void run_flush(LogicalUnit& unit, Task& task) { submit_flush(unit, task); }

void plan_prefetch(LogicalUnit& unit, Task& task) { (void)unit.plan_range(task); }

/// SBC-3 5.8: CONDITION MET would say that all the blocks are in a cache of ours; GOOD says that they do not fit. We
/// keep no read cache, and libiscsi's conformance tests take CONDITION MET for a failure.
void run_prefetch(LogicalUnit& unit, Task& task) { unit.finish(task); }

void plan_seek(LogicalUnit& unit, Task& task) {
  const BlockRange range = decode_range(task.cdb);
  if (range.lba >= unit.block_count()) {
    unit.reject(task, sense_with_information(kLbaOutOfRange, range.lba));
  }
}

void plan_start_stop(LogicalUnit& unit, Task& task) {
  // SBC-3 5.25: LOEJ 02h means nothing to a medium that cannot be removed.
  if (has_bits(task.cdb, 4, 0x02)) unit.reject(task, invalid_cdb_field(4, 1));
}

/// One initiator must not stop a disk that others use: STOP only makes the data durable, unless NO_FLUSH.
void run_start_stop(LogicalUnit& unit, Task& task) {
  constexpr std::uint8_t kStart = 0x01;
  constexpr std::uint8_t kNoFlush = 0x04;
  if (has_bits(task.cdb, 4, kStart | kNoFlush)) {
    unit.finish(task);
  } else {
    submit_flush(unit, task);
  }
}

}  // namespace replblk::scsi::commands
