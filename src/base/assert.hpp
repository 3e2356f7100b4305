// RB_ASSERT: a bug of ours ends the process, in every build. A storage daemon that goes on with broken
// invariants destroys data; one that stops is taken over by its peer.
// Not for operating errors or untrusted input: those are values.
#pragma once

namespace replblk {

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line) noexcept;

}  // namespace replblk

#define RB_ASSERT(expression) \
  (static_cast<bool>(expression) ? static_cast<void>(0) : ::replblk::assertion_failed(#expression, __FILE__, __LINE__))
#define RB_UNREACHABLE() ::replblk::assertion_failed("unreachable", __FILE__, __LINE__)
