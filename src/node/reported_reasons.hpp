// Which sentences have been logged since things last went well, so that each is logged once however often it comes
// back. Used by Node and Resource for connections that are refused again and again. Bounded: a sentence that is pushed
// out by many others counts as new again.
#pragma once

#include <algorithm>
#include <deque>
#include <string>
#include <utility>

namespace replblk::node {

class ReportedReasons {
 public:
  /// Remembers the sentence; true when it was not there.
  [[nodiscard]] bool is_new(std::string reason) {
    if (std::ranges::find(reasons_, reason) != reasons_.end()) return false;
    if (reasons_.size() == kReasonsMax) reasons_.pop_front();
    reasons_.push_back(std::move(reason));
    return true;
  }
  void clear() noexcept { reasons_.clear(); }

 private:
  static constexpr std::size_t kReasonsMax = 16;  // more than the ways in which a handshake can fail
  std::deque<std::string> reasons_;
};

}  // namespace replblk::node
