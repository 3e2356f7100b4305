#include "runtime/reactor.hpp"

#include <sys/resource.h>
#include <time.h>

#include <algorithm>

#include "base/log.hpp"
#include "runtime/start_error.hpp"

namespace replblk::runtime {

namespace {

// The kernel's wait counts CLOCK_MONOTONIC, our deadlines CLOCK_BOOTTIME: after a suspend a wait would be late by the
// time slept. Waking once a second bounds that, and costs nothing measurable.
constexpr Duration kWaitMax = seconds(1);

}  // namespace

Reactor::Reactor() { read_clock(); }

Result<std::unique_ptr<Reactor>, std::string> Reactor::create(const ReactorOptions& options) {
  std::unique_ptr<Reactor> reactor(new Reactor);
  if (auto opened = reactor->ring_.open(options.ring); !opened) return fail(std::move(opened.error()));
  if (options.buffers != nullptr) reactor->register_buffers(*options.buffers);
  log_info("io_uring: {}, {}", reactor->ring_.description(),
           reactor->has_registered_buffers_ ? "registered buffers" : "plain buffers");
  return reactor;
}

void Reactor::register_buffers(BufferPool& buffers) {
  const int error = ring_.register_region(buffers.region());
  has_registered_buffers_ = error == 0;
  if (error == 0) return;
  rlimit limit{};
  static_cast<void>(getrlimit(RLIMIT_MEMLOCK, &limit));
  log_warning("{}", describe_region_failure(error, buffers.region().size(), limit.rlim_cur));
}

Reactor::~Reactor() {
  while (deferred_.pop_front() != nullptr) {
  }
  while (turn_end_.pop_front() != nullptr) {
  }
  while (flushes_.pop_front() != nullptr) {
  }
  if (in_flight_count_ > 0) {
    io_uring_sqe& entry = ring_.submission();
    io_uring_prep_cancel64(&entry, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
    entry.user_data = 0;
  }
  while (in_flight_count_ > 0) {
    run_stashed();
    if (in_flight_count_ > 0 && ring_.ready_count() == 0) ring_.enter(kWaitMax);
    RingCompletion completion;
    while (ring_.pop(completion)) complete(completion);
  }
  // Owners that heard of their completion just now may have queued work again; nobody will run it.
  while (deferred_.pop_front() != nullptr) {
  }
  while (flushes_.pop_front() != nullptr) {
  }
}

void Reactor::run() {
  is_stopping_ = false;
  while (!is_stopping_) run_turn(kWaitMax);
}

void Reactor::run_turn(Duration wait_max) {
  ring_.enter(wait_time(wait_max));
  read_clock();
  run_stashed();
  // Only what is there now: a callback's own submissions may complete at once, and they must not starve the timers.
  RingCompletion completion;
  for (std::size_t left = ring_.ready_count(); left > 0 && ring_.pop(completion); --left) complete(completion);
  run_due_timers();
  while (ports::DeferredTask* task = deferred_.pop_front()) task->run();
  run_once(turn_end_);
  run_once(flushes_);
}

void Reactor::run_once(TaskList& list) {
  // What a task queues on the same list belongs to the next turn.
  TaskList running;
  running.splice_back(list);
  while (ports::DeferredTask* task = running.pop_front()) task->run();
}

Duration Reactor::wait_time(Duration wait_max) noexcept {
  if (!deferred_.empty() || !turn_end_.empty() || !flushes_.empty() || !stashed_.empty()) return {};
  if (ring_.ready_count() > 0) return {};
  wait_max = std::min(wait_max, kWaitMax);
  if (timers_.empty()) return wait_max;
  timespec time{};
  clock_gettime(CLOCK_BOOTTIME, &time);
  const Duration until = timers_.first_deadline().time_since_epoch() - seconds(time.tv_sec) - Duration(time.tv_nsec);
  return std::clamp(until, Duration::zero(), wait_max);
}

void Reactor::read_clock() noexcept {
  timespec time{};
  clock_gettime(CLOCK_BOOTTIME, &time);
  now_ = std::max(now_, Instant(seconds(time.tv_sec) + Duration(time.tv_nsec)));
}

std::uint64_t Reactor::unix_ms() const noexcept {
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  return static_cast<std::uint64_t>(to_ms(seconds(time.tv_sec) + Duration(time.tv_nsec)));
}

void Reactor::run_due_timers() {
  const std::uint64_t order_end = timers_.next_order();
  while (ports::Timer* timer = timers_.pop_due(now_, order_end)) timer->expired();
}

io_uring_sqe& Reactor::prepare(Op& op) noexcept {
  RB_ASSERT(!op.is_in_flight);
  op.is_in_flight = true;
  ++in_flight_count_;
  io_uring_sqe& entry = ring_.submission();
  entry.user_data = reinterpret_cast<std::uint64_t>(&op);
  return entry;
}

void Reactor::cancel(Op& op) noexcept {
  if (!op.is_in_flight) return;
  io_uring_sqe& entry = ring_.submission();
  io_uring_prep_cancel64(&entry, reinterpret_cast<std::uint64_t>(&op), 0);
  entry.user_data = 0;
}

void Reactor::complete(const RingCompletion& completion) {
  if (completion.user_data == 0) return;  // A cancellation's own answer.
  Op& op = *reinterpret_cast<Op*>(completion.user_data);
  RB_ASSERT(op.is_in_flight && in_flight_count_ > 0);
  op.is_in_flight = false;
  --in_flight_count_;
  op.completed(completion.result);
}

void Reactor::run_stashed() {
  if (stashed_.empty()) return;
  // One at a time: a callback may call reap_until(), which looks through the stash again.
  while (!stashed_.empty()) {
    const RingCompletion completion = stashed_.front();
    stashed_.erase(stashed_.begin());
    complete(completion);
  }
}

void Reactor::reap_until(const void* group, Callback<bool()> is_done) noexcept {
  const auto belongs = [group](const RingCompletion& completion) {
    return completion.user_data != 0 && reinterpret_cast<const Op*>(completion.user_data)->group == group;
  };
  while (!is_done()) {
    if (const auto found = std::ranges::find_if(stashed_, belongs); found != stashed_.end()) {
      const RingCompletion completion = *found;
      stashed_.erase(found);
      complete(completion);
      continue;
    }
    RingCompletion completion;
    if (!ring_.pop(completion)) {
      ring_.enter(kWaitMax);
    } else if (belongs(completion)) {
      complete(completion);
    } else if (completion.user_data != 0) {
      stashed_.push_back(completion);
    }
  }
}

}  // namespace replblk::runtime
