// SIGTERM, SIGINT and SIGHUP as events of a reactor. Made in the main thread before any other thread, so that all
// inherit the blocked mask and the kernel has nobody else to interrupt. Not responsible for what a signal means.
// Invariant: while this lives these signals interrupt nothing; afterwards the former mask is back.
#pragma once

#include <csignal>
#include <memory>

#include "runtime/event_source.hpp"

namespace replblk::runtime {

class Signals {
 public:
  /// `on_signal` gets the number, on the reactor's thread.
  Signals(Reactor& reactor, Callback<void(int)> on_signal);
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  ~Signals();

 private:
  void read_signals();

  Callback<void(int)> on_signal_;
  sigset_t former_mask_{};
  int fd_ = -1;
  std::unique_ptr<ReadableWatch> watch_;
};

}  // namespace replblk::runtime
