// Tasks that are complete and wait for the end of the running callback to be told so: a command is never answered from
// inside the call that started it. Not responsible for what they answer. Used by the logical units; the device is told.
// Invariant: a task in the queue is in no task set and has no request, waiter or buffer of its own out.
#pragma once

#include "ports/loop.hpp"
#include "scsi/task.hpp"

namespace replblk::scsi {

class CompletionQueue {
 public:
  CompletionQueue(ports::Loop& loop, Callback<void(Task&)> deliver) : loop_(loop), deliver_(deliver) {}

  void push(Task& task) noexcept {
    ready_.push_back(task.work);
    loop_.defer(deferred_);
  }

 private:
  void run() noexcept {
    while (TaskWork* work = ready_.pop_front()) deliver_(work->task);
  }

  ports::Loop& loop_;
  Callback<void(Task&)> deliver_;
  IntrusiveList<TaskWork, ReadyLink> ready_;
  ports::DeferredTask deferred_{Callback<void()>::to<&CompletionQueue::run>(*this)};
};

}  // namespace replblk::scsi
