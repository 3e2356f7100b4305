#include "runtime/event_source.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace replblk::runtime {

/// On the heap, since the kernel's poll may outlive the watch by a turn.
struct ReadableWatch::Armed {
  Armed(Reactor& owner, int watched_fd, Callback<void()> callback)
      : reactor(owner),
        fd(watched_fd),
        on_readable(callback),
        op(Callback<void(std::int32_t)>::to<&Armed::on_polled>(*this), nullptr) {}

  void arm() noexcept { io_uring_prep_poll_add(&reactor.prepare(op), fd, POLLIN); }
  void on_polled(std::int32_t result) {
    is_in_callback = true;
    if (is_watched && result > 0) on_readable();
    is_in_callback = false;
    if (is_watched && result != -ECANCELED) {
      arm();
    } else if (!is_watched) {
      delete this;
    }
  }

  Reactor& reactor;
  int fd;
  Callback<void()> on_readable;
  Op op;
  bool is_watched = true;
  bool is_in_callback = false;
};

ReadableWatch::ReadableWatch(Reactor& reactor, int fd, Callback<void()> on_readable)
    : armed_(new Armed(reactor, fd, on_readable)) {
  armed_->arm();
}

ReadableWatch::~ReadableWatch() {
  armed_->is_watched = false;
  if (armed_->is_in_callback) return;  // It frees itself after the callback.
  if (armed_->op.is_in_flight) {
    armed_->reactor.cancel(armed_->op);
  } else {
    delete armed_;
  }
}

EventFd::EventFd() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { RB_ASSERT(fd_ >= 0); }

EventFd::~EventFd() { ::close(fd_); }

void EventFd::signal() const noexcept {
  const std::uint64_t one = 1;
  // EAGAIN means that the counter is full: the reader is awake already.
  [[maybe_unused]] const ssize_t count = ::write(fd_, &one, sizeof one);
}

void EventFd::drain() const noexcept {
  std::uint64_t signals = 0;
  [[maybe_unused]] const ssize_t count = ::read(fd_, &signals, sizeof signals);
}

}  // namespace replblk::runtime
