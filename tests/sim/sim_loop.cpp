#include "sim_loop.hpp"

#include <algorithm>

namespace replblk::sim {

namespace {

constexpr std::size_t kDeferredPerTurnMax = 1'000'000;  // more is a task that defers itself for ever

}  // namespace

SimLoop::~SimLoop() {
  *exists_ = false;
  for (auto& [key, timer] : timers_) timer->position_ = ports::Timer::kIdle;
  while (deferred_.pop_front() != nullptr) {
  }
  while (turn_end_.pop_front() != nullptr) {
  }
}

Instant SimLoop::host_time(Instant when) const noexcept {
  const auto world = static_cast<double>(when.time_since_epoch().count());
  return Instant(Duration(static_cast<std::int64_t>(world * clock_rate_)));
}

Instant SimLoop::when_host_shows(Instant time) const noexcept {
  if (time == Instant::max()) return time;
  const auto host = static_cast<double>(time.time_since_epoch().count());
  Instant when(Duration(static_cast<std::int64_t>(host / clock_rate_)));
  while (host_time(when) < time) when += Duration(1);
  return when;
}

void SimLoop::arm(ports::Timer& timer, Instant deadline) {
  cancel(timer);
  timer.position_ = 0;
  timer.deadline_ = deadline;
  timer.order_ = timer_order_++;
  timers_.emplace(std::pair(deadline, timer.order_), &timer);
  wake_at(when_host_shows(deadline));
}

void SimLoop::cancel(ports::Timer& timer) noexcept {
  if (!timer.is_armed()) return;
  timer.position_ = ports::Timer::kIdle;
  timers_.erase(std::pair(timer.deadline_, timer.order_));
}

void SimLoop::defer(ports::DeferredTask& task) noexcept {
  if (task.is_linked()) return;
  deferred_.push_back(task);
  wake_at(timeline_.now());
}

void SimLoop::defer_to_turn_end(ports::DeferredTask& task) noexcept {
  if (task.is_linked()) return;
  turn_end_.push_back(task);
  wake_at(timeline_.now());
}

void SimLoop::post(Task task) {
  if (!is_alive_) return;
  posted_.push_back(std::move(task));
  wake_at(timeline_.now());
}

void SimLoop::at_output(Task task) {
  if (!is_alive_) return;
  outputs_.push_back(std::move(task));
  wake_at(timeline_.now());
}

void SimLoop::hang(Duration duration) { busy_until_ = std::max(busy_until_, timeline_.now() + duration); }

void SimLoop::wake_at(Instant when) {
  if (!is_alive_ || is_in_turn_) return;  // The turn's end looks at everything again.
  when = std::max({when, busy_until_, timeline_.now()});
  if (when >= wake_time_) return;
  wake_time_ = when;
  timeline_.at(when, [this, exists = exists_, order = ++wake_order_] {
    if (*exists && is_alive_ && order == wake_order_) turn();
  });
}

void SimLoop::expire_timers() {
  while (is_alive_ && !timers_.empty() && timers_.begin()->first.first <= turn_time_) {
    ports::Timer& timer = *timers_.begin()->second;
    timer.position_ = ports::Timer::kIdle;
    timers_.erase(timers_.begin());
    timer.expired();
  }
}

void SimLoop::run_deferred() {
  for (std::size_t count = 0; ports::DeferredTask* task = deferred_.pop_front(); ++count) {
    RB_ASSERT(count < kDeferredPerTurnMax);
    task->run();
  }
}

void SimLoop::turn() {
  if (busy_until_ > timeline_.now()) {  // It was made to hang after this turn was scheduled.
    wake_time_ = Instant::max();
    wake_at(busy_until_);
    return;
  }
  is_in_turn_ = true;
  running_ = this;
  turn_time_ = host_time(timeline_.now());
  timeline_.mix(0x7475726e);
  // Whether a timer or a completion of the same moment is seen first is nobody's promise.
  const bool is_timer_first = timeline_.random().chance(0.5);
  if (is_timer_first) expire_timers();
  std::vector<Task> batch = std::exchange(posted_, {});
  for (Task& task : batch) task();
  if (!is_timer_first) expire_timers();
  run_deferred();
  IntrusiveList<ports::DeferredTask, ports::DeferredTask> ending;
  ending.splice_back(turn_end_);
  while (ports::DeferredTask* task = ending.pop_front()) task->run();
  std::vector<Task> outputs = std::exchange(outputs_, {});
  for (Task& task : outputs) task();
  is_in_turn_ = false;
  running_ = nullptr;
  wake_time_ = Instant::max();
  busy_until_ = std::max(busy_until_, timeline_.now() + timeline_.random().duration(microseconds(1), microseconds(30)));
  if (!posted_.empty() || !deferred_.empty() || !turn_end_.empty() || !outputs_.empty()) wake_at(busy_until_);
  if (!timers_.empty()) wake_at(when_host_shows(timers_.begin()->first.first));
}

}  // namespace replblk::sim
