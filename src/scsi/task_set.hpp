// The tasks of one logical unit in the order of SAM-5 8: which may run now.
// Not responsible for running them. Used by the logical unit. SIMPLE tasks run unordered; an ORDERED task waits for all
// tasks before it and holds back all after it; a HEAD OF QUEUE task runs at once and holds back what has not begun.
// Invariant: without ORDERED and HEAD OF QUEUE tasks nothing is ever searched.
#pragma once

#include <cstddef>

#include "scsi/task.hpp"

namespace replblk::scsi {

class TaskSet {
 public:
  void add(Task& task) noexcept;
  void remove(Task& task) noexcept;
  [[nodiscard]] bool may_run(Task& task) noexcept;
  /// The first blocked task that may run now, or null.
  [[nodiscard]] Task* find_released() noexcept;
  void note_blocked() noexcept { ++blocked_count_; }
  void note_released() noexcept;
  [[nodiscard]] bool has_blocked() const noexcept { return blocked_count_ > 0; }
  /// Iteration in order; the current task may be removed when next was fetched before.
  [[nodiscard]] Task* first() noexcept;
  [[nodiscard]] Task* next(Task& task) noexcept;

 private:
  [[nodiscard]] static bool is_barrier(const Task& task) noexcept {
    return task.attribute == TaskAttribute::ordered || task.attribute == TaskAttribute::head_of_queue;
  }

  IntrusiveList<TaskWork, TaskSetLink> tasks_;
  std::size_t barrier_count_ = 0;
  std::size_t blocked_count_ = 0;
};

}  // namespace replblk::scsi
