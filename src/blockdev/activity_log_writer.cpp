#include "blockdev/activity_log_writer.hpp"

#include <utility>

#include "base/assert.hpp"
#include "base/probe.hpp"

namespace replblk::blockdev {

using IoResult = Result<void, ports::IoError>;

ActivityLogWriter::ActivityLogWriter(ports::Loop& loop, ports::Disk& disk, ActivityLog::Shape shape, Hooks hooks)
    : loop_(loop),
      disk_(disk),
      log_(shape),
      hooks_(hooks),
      memory_(make_aligned_memory(kPageBytes)),
      pump_task_(Callback<void()>::to<&ActivityLogWriter::pump>(*this)) {
  op_.on_done = Callback<void(ports::DiskOp&, IoResult)>::to<&ActivityLogWriter::on_written>(*this);
  cleaning_.reserve(shape.slots_count);
}

ActivityLogWriter::~ActivityLogWriter() { RB_ASSERT(!is_writing_); }

void ActivityLogWriter::start(std::uint64_t offset_bytes, const Uuid& volume, std::uint64_t sequence) {
  offset_bytes_ = offset_bytes;
  volume_ = volume;
  sequence_ = sequence;
  is_open_ = false;
}

bool ActivityLogWriter::acquire(Claim& claim, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  if (log_.acquire(claim, offset_bytes, length_bytes)) return true;
  loop_.defer(pump_task_);
  return false;
}

void ActivityLogWriter::release(Claim& claim, bool is_durable) {
  log_.release(claim, is_durable);
  if (log_.has_waiting() || quiescent_) loop_.defer(pump_task_);
}

void ActivityLogWriter::flush_done(bool is_good) {
  log_.flush_done(is_good);
  // What cannot be flushed is not waited for.
  if (!is_good) {
    closes_flushed_ = false;
    has_flush_failed_ = true;
  }
  if (log_.has_waiting() || quiescent_) loop_.defer(pump_task_);
}

void ActivityLogWriter::cleaned() {
  is_cleaning_ = false;
  log_.cleaning_done();
  loop_.defer(pump_task_);
}

void ActivityLogWriter::pump() {
  if (is_failed_) {
    while (Claim* claim = log_.pop_ungranted()) claim->on_active(false);
    if (quiescent_) std::exchange(quiescent_, {})();
    return;
  }
  if (has_flush_failed_ && log_.is_stuck()) {
    RB_PROBE("activity_log_cannot_be_flushed");
    log_.refuse_waiting();
    while (Claim* claim = log_.pop_refused()) claim->on_active(false);
  }
  // Not asked for again while the claims that it was for still wait for what is being cleaned.
  has_flush_failed_ = has_flush_failed_ && log_.is_blocked();
  // Claims that came in one turn, and those that came while the last transaction was written, share one.
  if (!is_writing_ && log_.plan(transaction_)) write();
  while (Claim* claim = log_.pop_ready()) claim->on_active(true);
  if (log_.is_closing()) return close_when_still();
  if (!is_cleaning_ && log_.wants_cleaning()) {
    cleaning_.clear();
    log_.pick_cleaning(hooks_.are_saved, cleaning_);
    is_cleaning_ = true;
    if (cleaning_.empty()) {
      cleaned();
    } else {
      hooks_.save(cleaning_);
    }
  }
  if (on_flush_wanted_ && !has_flush_failed_ && log_.wants_flush()) on_flush_wanted_();
}

void ActivityLogWriter::close_when_still() {
  if (!quiescent_ || !log_.is_quiescent() || is_cleaning_) return;
  if (closes_flushed_ && on_flush_wanted_ && log_.has_unstable()) return on_flush_wanted_();
  std::exchange(quiescent_, {})();
}

void ActivityLogWriter::write() {
  RB_ASSERT(offset_bytes_ > 0 && !is_writing_);
  is_writing_ = true;
  transaction_.sequence = ++sequence_;
  transaction_.is_reset = !is_open_;
  is_open_ = true;
  encode_transaction(transaction_, volume_, {memory_.get(), kPageBytes});
  op_.kind = ports::DiskOpKind::write;
  op_.is_durable = true;
  op_.offset_bytes = offset_bytes_ + sequence_ % kLogPagesCount * kPageBytes;
  op_.length_bytes = kPageBytes;
  op_.memory = memory_.get();
  ++writes_count_;
  disk_.submit(op_);
}

void ActivityLogWriter::on_written(ports::DiskOp&, IoResult result) {
  is_writing_ = false;
  if (!result) {
    if (result.error() == ports::IoError::timed_out) {
      abandoned_ = std::move(memory_);
      memory_ = make_aligned_memory(kPageBytes);
    }
    hooks_.on_failed(result.error());
    if (closed_) std::exchange(closed_, {})(result);
    return;
  }
  if (closed_) {
    is_open_ = false;
    std::exchange(closed_, {})(result);
    return;
  }
  log_.transaction_done();
  pump();
}

void ActivityLogWriter::begin_closing(bool flushes, Callback<void()> done) {
  RB_ASSERT(!quiescent_);
  log_.set_closing(true);
  closes_flushed_ = flushes;
  quiescent_ = done;
  loop_.defer(pump_task_);
}

void ActivityLogWriter::write_closing(Done done) {
  RB_ASSERT(log_.is_quiescent() || is_failed_);
  log_.clear();
  closed_ = done;
  transaction_ = {};
  transaction_.extent_shift = log_.shape().extent_shift;
  transaction_.slots_count = log_.shape().slots_count;
  is_open_ = false;  // So that it is a reset.
  write();
}

void ActivityLogWriter::finish_closing() {
  log_.set_closing(false);
  loop_.defer(pump_task_);
}

void ActivityLogWriter::fail_all() {
  is_failed_ = true;
  loop_.defer(pump_task_);
}

}  // namespace replblk::blockdev
