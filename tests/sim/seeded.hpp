// The one source of chance of a simulated run: a counted generator (SplitMix64 seeding xoshiro256**) with the few draws
// the simulator needs. Not <random>: its distributions differ between libraries, and a seed must mean the same run
// everywhere. Also ports::Random of every simulated host. Invariant: equal seed and equal calls give equal values.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "base/assert.hpp"
#include "base/time.hpp"
#include "ports/loop.hpp"

namespace replblk::sim {

[[nodiscard]] constexpr std::uint64_t mix64(std::uint64_t value) noexcept {
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

class Seeded final : public ports::Random {
 public:
  explicit Seeded(std::uint64_t seed) noexcept {
    for (std::uint64_t& word : state_) word = seed = mix64(seed);
  }
  [[nodiscard]] std::uint64_t next() noexcept {
    const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }
  /// 0 … count-1.
  [[nodiscard]] std::uint64_t below(std::uint64_t count) noexcept {
    RB_ASSERT(count > 0);
    return next() % count;
  }
  /// first … last, both possible.
  [[nodiscard]] std::uint64_t between(std::uint64_t first, std::uint64_t last) noexcept {
    return first + below(last - first + 1);
  }
  [[nodiscard]] bool chance(double probability) noexcept {
    return static_cast<double>(next() >> 11) * 0x1.0p-53 < probability;
  }
  [[nodiscard]] Duration duration(Duration least, Duration most) noexcept {
    return Duration(least.count() +
                    static_cast<std::int64_t>(below(static_cast<std::uint64_t>((most - least).count()) + 1)));
  }
  void fill(std::span<std::byte> bytes) noexcept override {
    while (!bytes.empty()) {
      const std::uint64_t word = next();
      const std::size_t count = bytes.size() < sizeof(word) ? bytes.size() : sizeof(word);
      std::memcpy(bytes.data(), &word, count);
      bytes = bytes.subspan(count);
    }
  }

 private:
  std::array<std::uint64_t, 4> state_{};
};

}  // namespace replblk::sim
