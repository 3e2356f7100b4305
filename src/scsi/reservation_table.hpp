// The persistent reservations of all units as the bytes that outlive the process (docs/ondisk_format.md 3.1).
// Not responsible for keeping them (ReservationKeeper) nor for when (ReservationChanges). Used by the device.
// Invariant: what decode_reservations() takes, encode_reservations() gives back; what is malformed is refused whole.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scsi/persistent_reservation.hpp"

namespace replblk::scsi {

struct UnitReservation {
  std::uint16_t lun = 0;
  PersistentReservation reservation;
  friend bool operator==(const UnitReservation&, const UnitReservation&) = default;
};

/// No LUN twice. Units that were never registered with are left out; of none at all the table is empty.
[[nodiscard]] std::string encode_reservations(const std::vector<UnitReservation>& units);

/// Nothing: the table is not one that encode_reservations() makes.
[[nodiscard]] std::optional<std::vector<UnitReservation>> decode_reservations(std::string_view table);

}  // namespace replblk::scsi
