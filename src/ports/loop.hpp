// The clock, the timers and the turn of the event loop, as machines and stages see them.
// Implemented by runtime::Reactor (io_uring) and by the simulator. One thread: everything here is called from it.
// A turn: reap what has completed → run its callbacks → run deferred tasks until none is left → run turn-end
// tasks → send what connections have queued. Callbacks are never called from inside the call that started the work.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/callback.hpp"
#include "base/intrusive_list.hpp"
#include "base/time.hpp"

namespace replblk::ports {

/// Work to run later in this turn (or in the next, when scheduled at the turn's end). A member of whoever
/// schedules it; its destructor takes it off the queue.
class DeferredTask : public IntrusiveNode<DeferredTask> {
 public:
  DeferredTask() = default;
  explicit DeferredTask(Callback<void()> callback) : run(callback) {}
  ~DeferredTask() { unlink(); }
  Callback<void()> run;
};

/// One deadline. A member of whoever waits; not armed when destroyed (Loop::cancel it first; asserted).
class Timer {
 public:
  Timer() = default;
  explicit Timer(Callback<void()> callback) : expired(callback) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { RB_ASSERT(!is_armed()); }
  [[nodiscard]] bool is_armed() const noexcept { return position_ != kIdle; }
  [[nodiscard]] Instant deadline() const noexcept { return deadline_; }
  Callback<void()> expired;

  /// For implementations of Loop only: place in their heap.
  static constexpr std::size_t kIdle = static_cast<std::size_t>(-1);
  std::size_t position_ = kIdle;
  Instant deadline_{};
  std::uint64_t order_ = 0;
};

class Loop {
 public:
  virtual ~Loop() = default;

  /// The time at the beginning of this turn (CLOCK_BOOTTIME). Never goes back.
  [[nodiscard]] virtual Instant now() const noexcept = 0;
  /// The calendar's time in milliseconds since 1970 (CLOCK_REALTIME). May jump either way: for people only, nothing may
  /// be decided by it.
  [[nodiscard]] virtual std::uint64_t unix_ms() const noexcept = 0;
  /// Calls timer.expired once at or after `deadline`; arming an armed timer moves it. Timers of one deadline expire
  /// in the order of arming.
  virtual void arm(Timer& timer, Instant deadline) = 0;
  virtual void cancel(Timer& timer) noexcept = 0;
  /// Runs the task after the running callback, in this turn. A queued task is not queued twice.
  virtual void defer(DeferredTask& task) noexcept = 0;
  /// Runs the task once at the end of this turn, before queued output is sent: for batching.
  virtual void defer_to_turn_end(DeferredTask& task) noexcept = 0;
};

/// Unpredictable bytes: OpenSSL's generator, or the simulator's seeded one.
class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(std::span<std::byte> bytes) noexcept = 0;
  [[nodiscard]] std::uint64_t next_u64() noexcept {
    std::uint64_t value = 0;
    fill(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
};

}  // namespace replblk::ports
