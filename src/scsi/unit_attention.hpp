// The unit attention conditions that are pending for one I_T nexus at one logical unit (SAM-5 5.14, 6).
// Not responsible for when they are reported: the logical unit asks. Invariant: each condition is reported once, the
// most severe first; a reset takes the place of everything that it implies.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>

#include "scsi/sense.hpp"

namespace replblk::scsi {

/// In the order of reporting.
enum class UnitAttention : std::uint8_t {
  power_on,                 ///< 29/00
  target_reset,             ///< 29/02 SCSI BUS RESET OCCURRED: hard reset (SAM-5 table 44)
  unit_reset,               ///< 29/03 BUS DEVICE RESET FUNCTION OCCURRED: logical unit reset
  commands_cleared,         ///< 2F/00 COMMANDS CLEARED BY ANOTHER INITIATOR
  reservations_preempted,   ///< 2A/03
  reservations_released,    ///< 2A/04
  registrations_preempted,  ///< 2A/05
  mode_changed,             ///< 2A/01 MODE PARAMETERS CHANGED
  capacity_changed,         ///< 2A/09 CAPACITY DATA HAS CHANGED
};

[[nodiscard]] constexpr SenseCode sense_code_of(UnitAttention condition) noexcept {
  switch (condition) {
    case UnitAttention::power_on:
      return {SenseKey::unit_attention, 0x29, 0x00};
    case UnitAttention::target_reset:
      return {SenseKey::unit_attention, 0x29, 0x02};
    case UnitAttention::unit_reset:
      return {SenseKey::unit_attention, 0x29, 0x03};
    case UnitAttention::commands_cleared:
      return {SenseKey::unit_attention, 0x2f, 0x00};
    case UnitAttention::reservations_preempted:
      return {SenseKey::unit_attention, 0x2a, 0x03};
    case UnitAttention::reservations_released:
      return {SenseKey::unit_attention, 0x2a, 0x04};
    case UnitAttention::registrations_preempted:
      return {SenseKey::unit_attention, 0x2a, 0x05};
    case UnitAttention::mode_changed:
      return {SenseKey::unit_attention, 0x2a, 0x01};
    case UnitAttention::capacity_changed:
      return {SenseKey::unit_attention, 0x2a, 0x09};
  }
  RB_UNREACHABLE();
}

class UnitAttentions {
 public:
  void establish(UnitAttention condition) noexcept {
    // SAM-5 5.14.2: a reset clears what was pending; the initiator must look at everything anew.
    if (condition <= UnitAttention::unit_reset) pending_ = 0;
    pending_ |= 1u << static_cast<unsigned>(condition);
  }
  [[nodiscard]] bool any() const noexcept { return pending_ != 0; }
  [[nodiscard]] std::optional<SenseCode> take() noexcept {
    if (pending_ == 0) return std::nullopt;
    const unsigned lowest = static_cast<unsigned>(std::countr_zero(pending_));
    pending_ &= pending_ - 1;
    return sense_code_of(static_cast<UnitAttention>(lowest));
  }
  void clear() noexcept { pending_ = 0; }

 private:
  std::uint32_t pending_ = 0;
};

}  // namespace replblk::scsi
