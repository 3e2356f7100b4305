// What the runtime's tests share: a reactor, and turning it until something has happened or a bound has passed.
// Not a mock: a real ring. Each test makes its own.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "runtime/reactor.hpp"

namespace replblk::runtime::test {

inline std::unique_ptr<Reactor> make_reactor(const ReactorOptions& options = {}) {
  auto made = Reactor::create(options);
  if (!made) {
    ADD_FAILURE() << made.error();
    std::abort();
  }
  return std::move(*made);
}

/// Turns until `is_done()`; false after ten seconds.
template <class Condition>
[[nodiscard]] bool turn_until(Reactor& reactor, Condition is_done) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!is_done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    reactor.run_turn(milliseconds(50));
  }
  return true;
}

inline void turn_for(Reactor& reactor, Duration duration) {
  const auto end = std::chrono::steady_clock::now() + duration;
  while (std::chrono::steady_clock::now() < end) reactor.run_turn(milliseconds(5));
}

/// Bytes that differ at every place and for every seed, the same in each run.
inline std::vector<std::byte> pattern(std::size_t length_bytes, std::uint64_t seed) {
  std::vector<std::byte> bytes(length_bytes);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (std::byte& byte : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<std::byte>(state >> 32);
  }
  return bytes;
}

}  // namespace replblk::runtime::test
