// Stamped sectors: every 512 bytes that a simulated initiator writes say which write they come from and where they
// belong, so that a misplaced, torn or mixed sector cannot pass for a good one. A value is the number of the write;
// 0 is a sector of zeroes (never written, discarded, zeroed).
#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.hpp"
#include "seeded.hpp"
#include "sim_disk.hpp"

namespace replblk::sim {

/// Fills one sector.
inline void write_stamp(std::byte* sector, std::uint64_t value, std::uint64_t lba) noexcept {
  store_le<std::uint64_t>(sector, value);
  store_le<std::uint64_t>(sector + 8, lba);
  std::uint64_t word = mix64(value ^ mix64(lba));
  for (std::size_t at = 16; at < kSectorBytes; at += 8) {
    word = word * 0x9e3779b97f4a7c15u + 0x7f4a7c15u;
    store_le<std::uint64_t>(sector + at, word);
  }
}

/// The value of a sector that was read at `lba`; nothing: it is neither a stamp of this place nor zeroes.
[[nodiscard]] inline std::optional<std::uint64_t> read_stamp(const std::byte* sector, std::uint64_t lba) noexcept {
  const std::uint64_t value = load_le<std::uint64_t>(sector);
  std::byte expected[kSectorBytes] = {};
  if (value != 0) write_stamp(expected, value, lba);
  if (std::memcmp(sector, expected, kSectorBytes) != 0) return std::nullopt;
  return value;
}

}  // namespace replblk::sim
