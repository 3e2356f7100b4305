// The one table of what this target understands: for each operation code (and service action) its name, CDB length, the
// bits an initiator may set, data direction, and the three functions that carry it out. REPORT SUPPORTED OPERATION
// CODES reports this table and CDBs are validated against it, so neither can lie about the other.
// Not responsible for values of fields: a command's plan() checks those. Used by the logical unit.
// Invariant: rows of one operation code stand together; an operation code has either one row or only service actions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "scsi/persistent_reservation.hpp"
#include "scsi/sense.hpp"
#include "scsi/task.hpp"

namespace replblk::scsi {

class LogicalUnit;

struct Opcode {
  std::string_view name;
  std::uint8_t code = 0;
  bool has_service_action = false;
  std::uint8_t service_action = 0;
  std::uint8_t cdb_length_bytes = 0;
  DataDirection direction = DataDirection::none;
  bool passes_unit_attention = false;  ///< SPC-4 5.14: carried out although a unit attention is pending
  bool passes_reservation = false;     ///< carried out although another initiator holds the reservation
  ReservationClass reservation_class = ReservationClass::excluded;  ///< the same, of a persistent reservation
  bool passes_absent_unit = false;  ///< answered for a LUN that does not exist (SPC-4 5.11)
  bool changes_medium = false;      ///< refused when the unit is write protected
  /// SPC-4 6.27.3 CDB usage data: a one for each bit that is looked at; all ones past the end of the CDB.
  std::array<std::uint8_t, 16> usage{};

  /// At prepare(): checks fields, sets transfer_length_bytes; may decide the task.
  void (*plan)(LogicalUnit& unit, Task& task) = nullptr;
  /// Begins; again when a buffer that it waited for has come.
  void (*run)(LogicalUnit& unit, Task& task) = nullptr;
  /// After each successful request; null: the command is complete with GOOD.
  void (*resume)(LogicalUnit& unit, Task& task) = nullptr;
};

[[nodiscard]] std::span<const Opcode> opcode_table() noexcept;

/// The row of a CDB, or the sense that says why there is none.
struct OpcodeLookup {
  const Opcode* opcode = nullptr;
  SenseCode refusal;
};
[[nodiscard]] OpcodeLookup find_opcode(std::uint8_t code, std::uint8_t service_action) noexcept;

/// The leftmost bit of the CDB that is set and must not be.
struct CdbBit {
  std::uint8_t byte = 0;
  std::uint8_t bit = 0;
};
[[nodiscard]] std::optional<CdbBit> find_reserved_bit(const Opcode& opcode,
                                                      const std::array<std::byte, 16>& cdb) noexcept;

}  // namespace replblk::scsi
