// The event loop of one thread: the ring, the timers, the deferred work. Implements ports::Loop; sockets and disks of
// this folder prepare their operations through it. Made, run and destroyed on one thread.
// Not responsible for policy: it knows nothing of streams or disks beyond an Op's callback.
// A turn: submit and wait once → completions → due timers → deferred tasks until none is left → turn-end tasks →
// flushes (each stream's one gathered send). Invariant: no callback runs from inside a call that starts work.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/buffer_pool.hpp"
#include "base/result.hpp"
#include "ports/loop.hpp"
#include "runtime/op.hpp"
#include "runtime/ring.hpp"
#include "runtime/timer_heap.hpp"

namespace replblk::runtime {

struct ReactorOptions {
  RingOptions ring;
  BufferPool* buffers = nullptr;  ///< registered with the ring when given; must outlive the reactor
};

class Reactor final : public ports::Loop {
 public:
  /// The error is one sentence for the operator. Logs one line about what the kernel granted.
  [[nodiscard]] static Result<std::unique_ptr<Reactor>, std::string> create(const ReactorOptions& options);
  /// Cancels what is still in flight and waits for it.
  ~Reactor() override;

  [[nodiscard]] Instant now() const noexcept override { return now_; }
  [[nodiscard]] std::uint64_t unix_ms() const noexcept override;
  void arm(ports::Timer& timer, Instant deadline) override { timers_.arm(timer, deadline); }
  void cancel(ports::Timer& timer) noexcept override { timers_.cancel(timer); }
  void defer(ports::DeferredTask& task) noexcept override { queue(deferred_, task); }
  void defer_to_turn_end(ports::DeferredTask& task) noexcept override { queue(turn_end_, task); }

  /// Turns until stop() is called.
  void run();
  /// The running turn is the last one. From this thread (others go through a Mailbox).
  void stop() noexcept { is_stopping_ = true; }
  /// One turn; waits at most `wait_max` for something to happen.
  void run_turn(Duration wait_max);

  // For the sockets, disks and event sources of this folder.

  /// A blank submission entry for `op`: fill it with io_uring_prep_*. Submitted at the end of this turn at the latest.
  [[nodiscard]] io_uring_sqe& prepare(Op& op) noexcept;
  /// Asks the kernel to give `op` up. Its completion still comes.
  void cancel(Op& op) noexcept;
  /// Runs the task after the turn-end tasks, just before submission.
  void defer_to_flush(ports::DeferredTask& task) noexcept { queue(flushes_, task); }
  /// Completes operations of `group` only, until `is_done`; others' completions wait for the next turn. For
  /// destructors that must see their memory back from the kernel.
  void reap_until(const void* group, Callback<bool()> is_done) noexcept;
  [[nodiscard]] Ring& ring() noexcept { return ring_; }
  [[nodiscard]] bool has_registered_buffers() const noexcept { return has_registered_buffers_; }

 private:
  using TaskList = IntrusiveList<ports::DeferredTask, ports::DeferredTask>;

  Reactor();
  static void queue(TaskList& list, ports::DeferredTask& task) noexcept {
    if (!task.is_linked()) list.push_back(task);
  }
  static void run_once(TaskList& list);
  void register_buffers(BufferPool& buffers);
  void read_clock() noexcept;
  [[nodiscard]] Duration wait_time(Duration wait_max) noexcept;
  void complete(const RingCompletion& completion);
  void run_stashed();
  void run_due_timers();

  Ring ring_;
  TimerHeap timers_;
  TaskList deferred_;
  TaskList turn_end_;
  TaskList flushes_;
  std::vector<RingCompletion> stashed_;  ///< reaped by reap_until() for somebody else
  std::size_t in_flight_count_ = 0;
  Instant now_{};
  bool is_stopping_ = false;
  bool has_registered_buffers_ = false;
};

}  // namespace replblk::runtime
