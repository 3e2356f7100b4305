#include "scsi/task_set.hpp"

namespace replblk::scsi {

void TaskSet::add(Task& task) noexcept {
  if (is_barrier(task)) ++barrier_count_;
  if (task.attribute == TaskAttribute::head_of_queue) {
    tasks_.push_front(task.work);
  } else {
    tasks_.push_back(task.work);
  }
}

void TaskSet::remove(Task& task) noexcept {
  auto& link = static_cast<IntrusiveNode<TaskSetLink>&>(task.work);
  RB_ASSERT(link.is_linked());
  link.unlink();
  if (is_barrier(task)) --barrier_count_;
}

void TaskSet::note_released() noexcept {
  RB_ASSERT(blocked_count_ > 0);
  --blocked_count_;
}

bool TaskSet::may_run(Task& task) noexcept {
  if (barrier_count_ == 0 || task.attribute == TaskAttribute::head_of_queue) return true;
  if (task.attribute == TaskAttribute::ordered) return tasks_.front() == &task.work;
  for (TaskWork* work = tasks_.front(); work != &task.work; work = tasks_.next(*work)) {
    RB_ASSERT(work != nullptr);
    if (is_barrier(work->task)) return false;
  }
  return true;
}

Task* TaskSet::find_released() noexcept {
  if (blocked_count_ == 0) return nullptr;
  for (TaskWork* work = tasks_.front(); work != nullptr; work = tasks_.next(*work)) {
    const bool is_first = work == tasks_.front();
    const bool is_ordered = work->task.attribute == TaskAttribute::ordered;
    if (work->state == TaskState::blocked && (is_first || !is_ordered)) return &work->task;
    // Nothing behind the first barrier may run.
    if (is_barrier(work->task)) return nullptr;
  }
  return nullptr;
}

Task* TaskSet::first() noexcept {
  TaskWork* work = tasks_.front();
  return work == nullptr ? nullptr : &work->task;
}

Task* TaskSet::next(Task& task) noexcept {
  TaskWork* work = tasks_.next(task.work);
  return work == nullptr ? nullptr : &work->task;
}

}  // namespace replblk::scsi
