#include "runtime/disk_file.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.hpp"
#include "runtime/error_map.hpp"

namespace replblk::runtime {

using ports::DiskOp;
using ports::DiskOpKind;
using ports::IoError;

namespace {

// EINTR and EAGAIN come from a kernel short of memory or workers; they pass, or the path is dead.
constexpr std::uint32_t kRetriesMax = 16;

// About 20 us of copying. More would hold the loop up for longer than it saves.
constexpr std::uint64_t kCopyBytesMax = std::uint64_t{128} << 10;

// A busy machine runs timers late, too.
constexpr Duration kLateMin = milliseconds(100);

}  // namespace

DiskFile::DiskFile(Reactor& reactor, int fd, const Geometry& geometry, Backing backing, std::uint32_t in_flight_max,
                   Duration timeout)
    : reactor_(reactor),
      fd_(fd),
      slot_(reactor.ring().register_file(fd)),
      geometry_(geometry),
      pending_(std::make_unique<Pending[]>(in_flight_max)),
      backing_(backing),
      timeout_(timeout),
      watch_timer_(Callback<void()>::to<&DiskFile::on_watch>(*this)),
      copied_task_(Callback<void()>::to<&DiskFile::complete_copied>(*this)),
      flush_op_(Callback<void(std::int32_t)>::to<&DiskFile::on_flushed>(*this), this),
      refused_task_(Callback<void()>::to<&DiskFile::report_refused>(*this)) {
  for (std::uint32_t index = in_flight_max; index > 0; --index) {
    Pending& pending = pending_[index - 1];
    pending.op.completed = Callback<void(std::int32_t)>::to<&Pending::on_completed>(pending);
    pending.op.group = this;
    pending.disk = this;
    pending.next_free = std::exchange(free_, &pending);
  }
}

DiskFile::~DiskFile() {
  RB_ASSERT(!is_reporting_);
  is_closing_ = true;
  for (Queue* queue : {&waiting_, &flush_waiting_}) {
    while (queue->pop_front() != nullptr) {
    }
  }
  for (Queue& queue : refused_) {
    while (queue.pop_front() != nullptr) {
    }
  }
  while (copied_.pop_front() != nullptr) --in_flight_count_;
  while (watched_.pop_front() != nullptr) {
  }
  reactor_.cancel(watch_timer_);
  const auto is_idle = [](void* context) {
    const auto& self = *static_cast<DiskFile*>(context);
    return self.in_flight_count_ == 0 && !self.flush_op_.is_in_flight;
  };
  reactor_.reap_until(this, Callback<bool()>::with(this, is_idle));
  // Unlocked by hand: some kernels keep a registered file for a moment, and a successor must not find it in use.
  struct flock lock{};
  lock.l_type = F_UNLCK;
  lock.l_whence = SEEK_SET;
  static_cast<void>(::fcntl(fd_, F_OFD_SETLK, &lock));
  reactor_.ring().unregister_file(slot_);
  ::close(fd_);
}

Result<std::uint64_t, IoError> DiskFile::measure() noexcept {
  struct stat status{};
  std::uint64_t size = 0;
  if (::fstat(fd_, &status) != 0) return fail(IoError::io);
  if (!S_ISBLK(status.st_mode)) {
    size = static_cast<std::uint64_t>(status.st_size);
  } else if (::ioctl(fd_, BLKGETSIZE64, &size) != 0) {
    return fail(IoError::io);
  }
  size = size / geometry_.logical_block_bytes * geometry_.logical_block_bytes;
  geometry_.size_bytes = std::max(geometry_.size_bytes, size);
  return size;
}

void DiskFile::submit(DiskOp& request) noexcept {
  RB_ASSERT(!request.is_linked());
  // It owes us something: what is asked now would only wait behind that, for another time-out.
  if (unreturned_count() > 0) return refuse(request, IoError::timed_out);
  if (request.kind == DiskOpKind::flush) {
    if (is_durability_lost_) return refuse(request, IoError::io);
    flush_waiting_.push_back(request);
    if (flushing_.empty() && !is_flush_given_up_) start_flush();
    return;
  }
  // A write beyond the end would make a file longer; a read there is short.
  if (!is_inside(request)) return refuse(request, IoError::io);
  if (request.kind == DiskOpKind::discard && !geometry_.supports_discard)
    return refuse(request, IoError::not_supported);
  if (request.kind == DiskOpKind::write_zeroes && !geometry_.supports_write_zeroes) {
    return refuse(request, IoError::not_supported);
  }
  if (free_ == nullptr) {
    waiting_.push_back(request);
  } else {
    start(request);
  }
}

bool DiskFile::is_inside(const DiskOp& request) const noexcept {
  return request.offset_bytes <= geometry_.size_bytes &&
         request.length_bytes <= geometry_.size_bytes - request.offset_bytes;
}

void DiskFile::start(DiskOp& request) noexcept {
  Pending& pending = *free_;
  free_ = pending.next_free;
  ++in_flight_count_;
  pending.request = &request;
  pending.done_bytes = 0;
  pending.retry_count = 0;
  pending.is_syncing = false;
  pending.started = reactor_.now();
  issue(pending);
  if (!pending.is_linked()) watched_.push_back(pending);
  watch();
}

// ---- what does not come back -----------------------------------------------------------------------------------

/// One timer for all: it looks at the oldest.
void DiskFile::watch() noexcept {
  if (timeout_ > Duration{} && !watch_timer_.is_armed()) look_at(reactor_.now() + timeout_);
}

/// Not later than a part of the time-out from now, so that a process that stands still is noticed.
void DiskFile::look_at(Instant due) noexcept {
  next_look_ = std::min(due, reactor_.now() + timeout_ / 4);
  reactor_.arm(watch_timer_, next_look_);
}

void DiskFile::on_watch() noexcept {
  const Instant now = reactor_.now();
  // Stopped, or its machine was: the kernel's threads that work for it stood still as well.
  if (now - next_look_ > std::max<Duration>(kLateMin, timeout_ / 8)) resumed_at_ = now;
  const auto is_overdue = [&](Instant started) { return now - std::max(started, resumed_at_) >= timeout_; };
  Queue late;
  while (Pending* pending = watched_.front()) {
    if (!is_overdue(pending->started)) break;
    pending->unlink();
    ++given_up_count_;
    late.push_back(*std::exchange(pending->request, nullptr));
  }
  if (!late.empty()) {
    log_error("a disk does not answer: operations are given up after {} ms", to_ms(timeout_));
    // What waits for a place in the kernel behind these would wait for ever.
    late.splice_back(waiting_);
  }
  if (!flushing_.empty() && is_overdue(flush_started_)) {
    log_error("a disk does not answer: a flush is given up after {} ms", to_ms(timeout_));
    is_flush_given_up_ = is_durability_lost_ = true;
    late.splice_back(flushing_);
    late.splice_back(flush_waiting_);
  }
  Instant oldest = Instant::max();
  if (const Pending* pending = watched_.front()) oldest = pending->started;
  if (!flushing_.empty()) oldest = std::min(oldest, flush_started_);
  if (oldest != Instant::max()) look_at(std::max(oldest, resumed_at_) + timeout_);
  while (DiskOp* request = late.pop_front()) report(*request, fail(IoError::timed_out));
}

void DiskFile::set_target(io_uring_sqe& entry) const noexcept {
  if (slot_ < 0) return;
  entry.fd = slot_;
  entry.flags |= IOSQE_FIXED_FILE;
}

void DiskFile::issue(Pending& pending) noexcept {
  switch (pending.request->kind) {
    case DiskOpKind::read:
    case DiskOpKind::write:
      return issue_transfer(pending);
    case DiskOpKind::discard:
    case DiskOpKind::write_zeroes:
      return issue_fallocate(pending);
    case DiskOpKind::flush:
      break;  // Has its own path.
  }
  RB_UNREACHABLE();
}

void DiskFile::issue_transfer(Pending& pending) noexcept {
  const DiskOp& request = *pending.request;
  RB_ASSERT(request.length_bytes <= BufferPool::kBufferBytesMax);
  if (backing_ == Backing::memory && request.kind == DiskOpKind::write && request.length_bytes <= kCopyBytesMax) {
    return copy_now(pending);
  }
  std::byte* memory = request.memory + pending.done_bytes;
  const auto length = static_cast<unsigned>(request.length_bytes - pending.done_bytes);
  const std::uint64_t offset = request.offset_bytes + pending.done_bytes;
  const int buffer = reactor_.ring().fixed_buffer(memory, length);
  io_uring_sqe& entry = reactor_.prepare(pending.op);
  if (request.kind == DiskOpKind::read) {
    if (buffer >= 0) {
      io_uring_prep_read_fixed(&entry, fd_, memory, length, offset, buffer);
    } else {
      io_uring_prep_read(&entry, fd_, memory, length, offset);
    }
  } else {
    if (buffer >= 0) {
      io_uring_prep_write_fixed(&entry, fd_, memory, length, offset, buffer);
    } else {
      io_uring_prep_write(&entry, fd_, memory, length, offset);
    }
    // Unlike a linked fsync it stays out of the kernel's worker threads.
    if (request.is_durable) entry.rw_flags = RWF_DSYNC;
  }
  set_target(entry);
}

/// The effect is there when this returns, the news of it comes at the end of the turn like any other completion.
void DiskFile::copy_now(Pending& pending) noexcept {
  const DiskOp& request = *pending.request;
  const iovec piece{request.memory + pending.done_bytes, request.length_bytes - pending.done_bytes};
  const auto offset = static_cast<off_t>(request.offset_bytes + pending.done_bytes);
  const ssize_t count = ::pwritev2(fd_, &piece, 1, offset, request.is_durable ? RWF_DSYNC : 0);
  pending.copied_result = count >= 0 ? static_cast<std::int32_t>(count) : -errno;
  pending.unlink();
  copied_.push_back(pending);
  reactor_.defer_to_turn_end(copied_task_);
}

void DiskFile::complete_copied() noexcept {
  IntrusiveList<Pending, Pending> copied;
  copied.splice_back(copied_);
  while (Pending* pending = copied.pop_front()) on_completed(*pending, pending->copied_result);
}

void DiskFile::issue_fallocate(Pending& pending) noexcept {
  const DiskOp& request = *pending.request;
  io_uring_sqe& entry = reactor_.prepare(pending.op);
  if (pending.is_syncing) {
    io_uring_prep_fsync(&entry, fd_, IORING_FSYNC_DATASYNC);
  } else {
    const int mode = request.kind == DiskOpKind::discard ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    io_uring_prep_fallocate(&entry, fd_, mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(request.offset_bytes),
                            static_cast<off_t>(request.length_bytes));
  }
  set_target(entry);
}

/// Whether the kernel has more to do for this request; otherwise `result` is its end: 0 or a negated errno.
bool DiskFile::needs_more(Pending& pending, std::int32_t& result) noexcept {
  const DiskOp& request = *pending.request;
  if (result < 0) return is_transient(-result) && ++pending.retry_count <= kRetriesMax;
  if (request.kind == DiskOpKind::read || request.kind == DiskOpKind::write) {
    pending.done_bytes += static_cast<std::uint32_t>(result);
    const bool is_whole = pending.done_bytes == request.length_bytes;
    // No progress is the end of the medium; a piece that breaks the alignment can't be continued under O_DIRECT.
    const bool can_go_on = result > 0 && pending.done_bytes % geometry_.alignment_bytes == 0;
    result = is_whole || can_go_on ? 0 : -EIO;
    return !is_whole && can_go_on;
  }
  if (request.kind == DiskOpKind::write_zeroes && request.is_durable && !pending.is_syncing) {
    pending.is_syncing = true;
    return true;
  }
  return false;
}

void DiskFile::on_completed(Pending& pending, std::int32_t result) noexcept {
  if (pending.request == nullptr) {
    // It was given up long ago. A write that still had an effect: nobody relies on what is there.
    pending.next_free = std::exchange(free_, &pending);
    --in_flight_count_;
    --given_up_count_;
    return;
  }
  if (needs_more(pending, result) && !is_closing_) return issue(pending);
  if (result >= 0) return finish(pending, {});
  const IoError error = io_error_from(-result);
  // The file's write-back error may have been consumed by this request: see the invariant.
  if (error == IoError::io && (pending.is_syncing || pending.request->is_durable)) is_durability_lost_ = true;
  finish(pending, fail(error));
}

void DiskFile::finish(Pending& pending, Result<void, IoError> result) noexcept {
  DiskOp& request = *std::exchange(pending.request, nullptr);
  pending.unlink();
  pending.next_free = std::exchange(free_, &pending);
  --in_flight_count_;
  if (is_closing_) return;
  if (DiskOp* next = waiting_.pop_front(); next != nullptr) start(*next);
  report(request, result);
}

void DiskFile::start_flush() noexcept {
  flushing_.splice_back(flush_waiting_);
  flush_retry_count_ = 0;
  flush_started_ = reactor_.now();
  issue_flush();
  watch();
}

void DiskFile::issue_flush() noexcept {
  io_uring_sqe& entry = reactor_.prepare(flush_op_);
  io_uring_prep_fsync(&entry, fd_, IORING_FSYNC_DATASYNC);
  set_target(entry);
}

void DiskFile::on_flushed(std::int32_t result) noexcept {
  if (is_flush_given_up_) return;  // Every later one fails: durability is lost.
  Queue done;
  done.splice_back(flushing_);
  if (is_closing_) {
    while (done.pop_front() != nullptr) {
    }
    return;
  }
  if (result < 0 && is_transient(-result) && ++flush_retry_count_ <= kRetriesMax) {
    flushing_.splice_back(done);
    return issue_flush();
  }
  Result<void, IoError> outcome;
  if (result < 0) {
    const IoError error = io_error_from(-result);
    is_durability_lost_ = true;
    outcome = fail(error);
    done.splice_back(flush_waiting_);
  }
  if (!flush_waiting_.empty()) start_flush();
  while (DiskOp* request = done.pop_front()) report(*request, outcome);
}

void DiskFile::refuse(DiskOp& request, IoError error) noexcept {
  const auto place = std::ranges::find(kRefusals, error);
  RB_ASSERT(place != kRefusals.end());
  refused_[static_cast<std::size_t>(place - kRefusals.begin())].push_back(request);
  reactor_.defer(refused_task_);
}

void DiskFile::report_refused() noexcept {
  // Taken first: whoever is told may ask again.
  std::array<Queue, kRefusals.size()> refused;
  for (std::size_t index = 0; index < refused.size(); ++index) refused[index].splice_back(refused_[index]);
  for (std::size_t index = 0; index < refused.size(); ++index) {
    while (DiskOp* request = refused[index].pop_front()) report(*request, fail(kRefusals[index]));
  }
}

void DiskFile::report(DiskOp& request, Result<void, IoError> result) noexcept {
  is_reporting_ = true;
  request.on_done(request, result);
  is_reporting_ = false;
}

}  // namespace replblk::runtime
