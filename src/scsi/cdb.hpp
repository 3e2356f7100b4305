// Where LBA, block count and allocation length stand in a CDB, by its length (SPC-4 4.2.2, SBC-3 5).
// Not responsible for checking values. Used by the commands.
// Invariant: never reads past the CDB length that the operation code implies.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bytes.hpp"

namespace replblk::scsi {

using Cdb = std::array<std::byte, 16>;

struct BlockRange {
  std::uint64_t lba = 0;
  std::uint64_t count = 0;
};

/// SPC-4 4.2.5.1: the group code in the operation code's upper three bits says how long the CDB is.
[[nodiscard]] inline BlockRange decode_range(const Cdb& cdb) noexcept {
  switch (std::to_integer<unsigned>(cdb[0]) >> 5) {
    case 0: {  // Six bytes: 21-bit LBA; a transfer length of zero means 256 (SBC-3 5.11).
      const auto count = std::to_integer<std::uint64_t>(cdb[4]);
      return {load_be24(&cdb[1]) & 0x1fffffu, count == 0 ? 256 : count};
    }
    case 1:
    case 2:
      return {load_be<std::uint32_t>(&cdb[2]), load_be<std::uint16_t>(&cdb[7])};
    case 4:
      return {load_be<std::uint64_t>(&cdb[2]), load_be<std::uint32_t>(&cdb[10])};
    case 5:
      return {load_be<std::uint32_t>(&cdb[2]), load_be<std::uint32_t>(&cdb[6])};
    default:
      RB_UNREACHABLE();
  }
}

/// The first byte of the count that decode_range() reads, for field pointers.
[[nodiscard]] inline std::uint16_t count_byte(const Cdb& cdb) noexcept {
  constexpr std::uint16_t kByGroup[] = {4, 7, 7, 0, 10, 6, 0, 0};
  return kByGroup[std::to_integer<unsigned>(cdb[0]) >> 5];
}

[[nodiscard]] inline bool has_bits(const Cdb& cdb, std::size_t byte, std::uint8_t bits) noexcept {
  return (std::to_integer<std::uint8_t>(cdb[byte]) & bits) != 0;
}

}  // namespace replblk::scsi
