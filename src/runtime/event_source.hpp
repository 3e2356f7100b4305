// Wake-ups of a reactor from outside its ring: an eventfd that other threads may signal, and a descriptor that
// becomes readable (signalfd). Used by Mailbox, Signals and UdpDatagrams.
// Not for streams or disks. Invariant: no callback after destruction; what the kernel still holds frees itself.
#pragma once

#include <cstdint>

#include "base/callback.hpp"
#include "runtime/reactor.hpp"

namespace replblk::runtime {

/// Tells when `fd` is readable, over and over; the callback reads it, and may destroy the watch. The descriptor is the
/// caller's and may be closed after this object's destruction.
class ReadableWatch {
 public:
  ReadableWatch(Reactor& reactor, int fd, Callback<void()> on_readable);
  ReadableWatch(const ReadableWatch&) = delete;
  ReadableWatch& operator=(const ReadableWatch&) = delete;
  ~ReadableWatch();

 private:
  struct Armed;
  Armed* armed_;
};

/// A counter that wakes its reader. signal() may be called from any thread, and from a signal handler.
class EventFd {
 public:
  EventFd();
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;
  ~EventFd();
  void signal() const noexcept;
  /// Takes all signals so far.
  void drain() const noexcept;
  [[nodiscard]] int descriptor() const noexcept { return fd_; }

 private:
  int fd_;
};

}  // namespace replblk::runtime
