// A bounded queue of plain structs into one thread, from any thread: the control thread and the reactors talk through
// one in each direction. A full box refuses, so neither side can drown the other. A mutex, since it is not the data
// path. The reader is a reactor (attach()) or another loop that watches descriptor() and calls take(). Invariant:
// messages come out in the order they went in, each once.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "runtime/event_source.hpp"

namespace replblk::runtime {

template <class Message>
class Mailbox {
 public:
  explicit Mailbox(std::size_t capacity) : capacity_(capacity) {}
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  /// Any thread. False when the box is full: the message was not taken.
  [[nodiscard]] bool post(Message message) {
    bool was_empty = false;
    {
      const std::lock_guard lock(mutex_);
      if (messages_.size() >= capacity_) return false;
      was_empty = messages_.empty();
      messages_.push_back(std::move(message));
    }
    if (was_empty) event_.signal();
    return true;
  }

  /// The reader's thread.
  [[nodiscard]] std::optional<Message> take() {
    const std::lock_guard lock(mutex_);
    if (messages_.empty()) return std::nullopt;
    std::optional<Message> message(std::move(messages_.front()));
    messages_.pop_front();
    return message;
  }
  /// Forgets the wake-up; the reader calls it before taking what is there.
  void drain_event() const noexcept { event_.drain(); }
  [[nodiscard]] int descriptor() const noexcept { return event_.descriptor(); }

  /// The reader is `reactor`: each message is handed to `on_message` on its thread. Undone by detach() or destruction,
  /// on that thread and before the reactor's.
  void attach(Reactor& reactor, Callback<void(Message&)> on_message) {
    on_message_ = on_message;
    watch_ =
        std::make_unique<ReadableWatch>(reactor, event_.descriptor(), Callback<void()>::to<&Mailbox::deliver>(*this));
  }
  void detach() noexcept { watch_.reset(); }

 private:
  void deliver() {
    drain_event();
    // Not more than one boxful per turn, should the writer be quicker than the reader.
    for (std::size_t left = capacity_; left > 0; --left) {
      std::optional<Message> message = take();
      if (!message) return;
      on_message_(*message);
    }
    event_.signal();
  }

  const std::size_t capacity_;
  EventFd event_;
  std::mutex mutex_;
  std::deque<Message> messages_;
  Callback<void(Message&)> on_message_;
  std::unique_ptr<ReadableWatch> watch_;  ///< after event_: goes first
};

}  // namespace replblk::runtime
