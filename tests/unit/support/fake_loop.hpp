// A hand-driven ports::Loop for unit tests: time stands still until advance(), work runs when run() is called.
// Not a simulator: no I/O, no order but that of the interface. Used by unit tests of all folders.
// Invariant: nothing runs inside defer(), arm() or cancel(); run() leaves no deferred task and no expired timer behind.
#pragma once

#include <algorithm>
#include <vector>

#include "ports/loop.hpp"

namespace replblk::test {

class FakeLoop final : public ports::Loop {
 public:
  FakeLoop() = default;
  ~FakeLoop() override {
    while (deferred_.pop_front() != nullptr) {
    }
    while (turn_end_.pop_front() != nullptr) {
    }
  }

  [[nodiscard]] Instant now() const noexcept override { return now_; }

  [[nodiscard]] std::uint64_t unix_ms() const noexcept override {
    return static_cast<std::uint64_t>(to_ms(now_.time_since_epoch()));
  }

  void arm(ports::Timer& timer, Instant deadline) override {
    cancel(timer);
    timer.deadline_ = deadline;
    timer.order_ = ++order_;
    timer.position_ = 0;
    timers_.push_back(&timer);
  }
  void cancel(ports::Timer& timer) noexcept override {
    std::erase(timers_, &timer);
    timer.position_ = ports::Timer::kIdle;
  }
  void defer(ports::DeferredTask& task) noexcept override {
    if (!task.is_linked()) deferred_.push_back(task);
  }
  void defer_to_turn_end(ports::DeferredTask& task) noexcept override {
    if (!task.is_linked()) turn_end_.push_back(task);
  }

  /// One turn and as many more as have something to do.
  void run() {
    do {
      run_deferred();
      while (ports::DeferredTask* task = turn_end_.pop_front()) task->run();
      expire();
    } while (!deferred_.empty() || !turn_end_.empty());
  }

  /// Moves the clock, stopping at each deadline on the way.
  void advance(Duration by) {
    const Instant until = now_ + by;
    for (ports::Timer* timer = earliest(); timer != nullptr && timer->deadline() <= until; timer = earliest()) {
      now_ = std::max(now_, timer->deadline());
      run();
    }
    now_ = until;
    run();
  }

  [[nodiscard]] bool is_idle() const noexcept { return timers_.empty(); }

 private:
  void run_deferred() {
    while (ports::DeferredTask* task = deferred_.pop_front()) task->run();
  }
  [[nodiscard]] ports::Timer* earliest() const {
    const auto found = std::min_element(timers_.begin(), timers_.end(), [](const auto* left, const auto* right) {
      return left->deadline_ != right->deadline_ ? left->deadline_ < right->deadline_ : left->order_ < right->order_;
    });
    return found == timers_.end() ? nullptr : *found;
  }
  void expire() {
    for (ports::Timer* timer = earliest(); timer != nullptr && timer->deadline() <= now_; timer = earliest()) {
      cancel(*timer);
      timer->expired();
      run_deferred();
    }
  }

  Instant now_{seconds(1)};
  std::uint64_t order_ = 0;
  std::vector<ports::Timer*> timers_;
  IntrusiveList<ports::DeferredTask, ports::DeferredTask> deferred_;
  IntrusiveList<ports::DeferredTask, ports::DeferredTask> turn_end_;
};

}  // namespace replblk::test
