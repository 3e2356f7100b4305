// Result<T, E>: a value or an operating error, the one way an expected failure travels.
// Not for bugs of ours (RB_ASSERT) and not for protocol verdicts (ordinary data).
// Test it, then dereference it; value() is banned because it throws.
#pragma once

#include <expected>
#include <utility>

namespace replblk {

template <class T, class E>
using Result = std::expected<T, E>;

template <class E>
[[nodiscard]] constexpr auto fail(E&& error) {
  return std::unexpected<std::decay_t<E>>(std::forward<E>(error));
}

}  // namespace replblk
