// Vital product data pages of a logical unit (SPC-4 7.8, SBC-3 6.6): who it is and what it allows.
// Not responsible for INQUIRY's CDB. Used by INQUIRY. Invariant: everything in it that names the disk comes from the
// volume's UUID, so that a disk looks the same through both nodes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/uuid.hpp"
#include "scsi/data_writer.hpp"

namespace replblk::scsi {

class LogicalUnit;

inline constexpr std::string_view kVendor = "REPLBLK";

/// Writes the page; false when there is no such page.
[[nodiscard]] bool write_vpd_page(const LogicalUnit& unit, std::uint8_t page, DataWriter& out);

/// NAA IEEE Registered Extended (type 6) identifier: 6h, a 24-bit company id, 100 bits of the UUID. We have no company
/// id, so it is 02-52-42 ("RB"): its locally administered bit is set, no registered one can equal it.
/// The 100 bits are the UUID's hex digits without those that version and variant fix (the 13th and the 17th); of the 30
/// left the last five are folded into the first five.
[[nodiscard]] std::array<std::byte, 16> naa_of(const Uuid& volume) noexcept;

/// VPD 80: the UUID's 32 hex digits.
[[nodiscard]] std::array<char, 32> serial_of(const Uuid& volume) noexcept;

}  // namespace replblk::scsi
