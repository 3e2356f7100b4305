// Notices a resync that stands still (protocol.md 6: no progress for 30 s while not paused is an error). A machine: fed
// with the time and what is left, once a tick; knows nothing of why. The caller ends the connection when it says so.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.hpp"

namespace replblk::replication {

class ProgressWatch {
 public:
  static constexpr Duration kLimit = seconds(30);

  void start(Instant now, std::uint64_t left) noexcept {
    is_running_ = true;
    has_progressed_ = false;
    last_progress_ = now;
    lowest_left_ = left;
  }
  void stop() noexcept { is_running_ = false; }
  [[nodiscard]] bool is_running() const noexcept { return is_running_; }

  /// True: it stands still. Progress is less left than ever since start(); a pause is nobody's fault.
  [[nodiscard]] bool is_stuck(Instant now, std::uint64_t left, bool is_paused) noexcept {
    if (left < lowest_left_) {
      lowest_left_ = left;
      has_progressed_ = true;
      last_progress_ = now;
    }
    if (is_paused) last_progress_ = now;
    return is_running_ && now - last_progress_ >= kLimit;
  }
  [[nodiscard]] bool has_progressed() const noexcept { return has_progressed_; }

 private:
  bool is_running_ = false;
  bool has_progressed_ = false;
  Instant last_progress_{};
  std::uint64_t lowest_left_ = 0;
};

}  // namespace replblk::replication
