// The armed timers of one loop as a binary heap by (deadline, order of arming). Timers are members of whoever waits;
// the heap holds pointers and tells each its place, so moving and cancelling cost O(log n) and no allocation in
// steady state. Used by Reactor only; not responsible for reading a clock.
#pragma once

#include <cstdint>
#include <vector>

#include "ports/loop.hpp"

namespace replblk::runtime {

class TimerHeap {
 public:
  void arm(ports::Timer& timer, Instant deadline);
  void cancel(ports::Timer& timer) noexcept;
  /// Disarms and returns the first timer that is due and was armed before `order_end`, or null. A due timer armed
  /// later waits for the next turn, so that one that re-arms itself for now cannot hold the loop.
  [[nodiscard]] ports::Timer* pop_due(Instant now, std::uint64_t order_end) noexcept;
  [[nodiscard]] std::uint64_t next_order() const noexcept { return next_order_; }
  [[nodiscard]] bool empty() const noexcept { return heap_.empty(); }
  [[nodiscard]] Instant first_deadline() const noexcept { return heap_.front()->deadline_; }

 private:
  [[nodiscard]] static bool is_before(const ports::Timer& left, const ports::Timer& right) noexcept {
    return left.deadline_ != right.deadline_ ? left.deadline_ < right.deadline_ : left.order_ < right.order_;
  }
  void place(ports::Timer& timer, std::size_t position) noexcept {
    heap_[position] = &timer;
    timer.position_ = position;
  }
  void sift_up(std::size_t position) noexcept;
  void sift_down(std::size_t position) noexcept;

  std::vector<ports::Timer*> heap_;
  std::uint64_t next_order_ = 0;
};

}  // namespace replblk::runtime
