// One operation given to the kernel: its address is the user_data of the submission, so a completion needs no
// look-up and an operation no allocation. A member of whoever waits for it.
// Not responsible for the operation's buffers: the owner keeps them until `completed` has been called.
// Invariant: an Op stays where it is from Reactor::prepare() to its completion; also a cancelled one completes.
#pragma once

#include <cstdint>

#include "base/assert.hpp"
#include "base/callback.hpp"

namespace replblk::runtime {

class Op {
 public:
  Op() = default;
  /// `group` names the owner for Reactor::reap_until(): what it has in flight can be waited for alone.
  Op(Callback<void(std::int32_t)> callback, const void* group_of_op) : completed(callback), group(group_of_op) {}
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;
  ~Op() { RB_ASSERT(!is_in_flight); }

  Callback<void(std::int32_t)> completed;  ///< the kernel's result: a count, or a negated errno
  const void* group = nullptr;
  bool is_in_flight = false;
};

}  // namespace replblk::runtime
