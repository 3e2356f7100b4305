#include "runtime/timer_heap.hpp"

#include <utility>

#include "base/assert.hpp"

namespace replblk::runtime {

void TimerHeap::arm(ports::Timer& timer, Instant deadline) {
  cancel(timer);
  timer.deadline_ = deadline;
  timer.order_ = next_order_++;
  heap_.push_back(&timer);
  timer.position_ = heap_.size() - 1;
  sift_up(timer.position_);
}

void TimerHeap::cancel(ports::Timer& timer) noexcept {
  if (!timer.is_armed()) return;
  const std::size_t position = std::exchange(timer.position_, ports::Timer::kIdle);
  RB_ASSERT(position < heap_.size() && heap_[position] == &timer);
  ports::Timer* last = heap_.back();
  heap_.pop_back();
  if (last == &timer) return;
  place(*last, position);
  sift_up(position);
  sift_down(last->position_);
}

ports::Timer* TimerHeap::pop_due(Instant now, std::uint64_t order_end) noexcept {
  if (heap_.empty()) return nullptr;
  ports::Timer* first = heap_.front();
  if (first->deadline_ > now || first->order_ >= order_end) return nullptr;
  cancel(*first);
  return first;
}

void TimerHeap::sift_up(std::size_t position) noexcept {
  ports::Timer* timer = heap_[position];
  while (position > 0) {
    const std::size_t parent = (position - 1) / 2;
    if (!is_before(*timer, *heap_[parent])) break;
    place(*heap_[parent], position);
    position = parent;
  }
  place(*timer, position);
}

void TimerHeap::sift_down(std::size_t position) noexcept {
  ports::Timer* timer = heap_[position];
  while (true) {
    std::size_t child = 2 * position + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && is_before(*heap_[child + 1], *heap_[child])) ++child;
    if (!is_before(*heap_[child], *timer)) break;
    place(*heap_[child], position);
    position = child;
  }
  place(*timer, position);
}

}  // namespace replblk::runtime
