// A fixed number of objects made at start, named by handles {index, generation} so that a late completion for a
// freed slot is detected instead of followed. acquire() never allocates; null when all are taken.
// One thread only. The destructor asserts that all slots were given back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/assert.hpp"

namespace replblk {

struct SlotHandle {
  std::uint32_t index = UINT32_MAX;
  std::uint32_t generation = 0;
  friend bool operator==(const SlotHandle&, const SlotHandle&) = default;
};

template <class T>
class SlotPool {
 public:
  explicit SlotPool(std::size_t capacity)
      : capacity_(capacity), items_(std::make_unique<T[]>(capacity)), generations_(capacity, 0) {
    free_.reserve(capacity);
    for (std::size_t index = capacity; index > 0; --index) free_.push_back(static_cast<std::uint32_t>(index - 1));
  }
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;
  ~SlotPool() { RB_ASSERT(free_.size() == capacity_); }

  [[nodiscard]] T* acquire() noexcept {
    if (free_.empty()) return nullptr;
    const std::uint32_t index = free_.back();
    free_.pop_back();
    return &items_[index];
  }
  void release(T& item) noexcept {
    const std::uint32_t index = index_of(item);
    ++generations_[index];
    RB_ASSERT(free_.size() < capacity_);
    free_.push_back(index);
  }
  [[nodiscard]] SlotHandle handle(const T& item) const noexcept {
    const std::uint32_t index = index_of(item);
    return {index, generations_[index]};
  }
  /// Null when the slot was released since the handle was taken.
  [[nodiscard]] T* find(SlotHandle handle) noexcept {
    if (handle.index >= capacity_ || generations_[handle.index] != handle.generation) return nullptr;
    return &items_[handle.index];
  }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] std::size_t in_use_count() const noexcept { return capacity_ - free_.size(); }

 private:
  [[nodiscard]] std::uint32_t index_of(const T& item) const noexcept {
    const std::ptrdiff_t index = &item - items_.get();
    RB_ASSERT(index >= 0 && static_cast<std::size_t>(index) < capacity_);
    return static_cast<std::uint32_t>(index);
  }

  std::size_t capacity_;
  std::unique_ptr<T[]> items_;
  std::vector<std::uint32_t> generations_;
  std::vector<std::uint32_t> free_;
};

}  // namespace replblk
