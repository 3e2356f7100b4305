// Where log lines go: spdlog to standard error, from a thread of its own, so that a slow terminal or journal never
// holds the reactor; when lines come faster than they go, the oldest are dropped. For systemd's journal each line
// begins with its priority, <6>; elsewhere with time and level. Made once, by main.
#pragma once

#include "base/log.hpp"

namespace replblk::control {

/// Sets base/log's sink while it lives; writes out what is queued when destroyed.
class LogSink {
 public:
  explicit LogSink(LogLevel lowest);
  LogSink(const LogSink&) = delete;
  LogSink& operator=(const LogSink&) = delete;
  ~LogSink() { finish(); }
  /// Writes out what is queued; lines after it go nowhere.
  void finish() noexcept;
};

}  // namespace replblk::control
