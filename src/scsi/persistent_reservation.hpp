// The persistent reservation of one logical unit: who is registered with which key, who holds the reservation, and whom
// it lets pass (SPC-4 5.13). A machine: no I/O, no clock. Not responsible for CDBs, parameter lists or the attentions
// themselves (persistent_reserve_commands.cpp), nor for RESERVE(6). Called by the logical unit and its commands.
// It survives the loss of sessions and resets, and, kept as a table (reservation_table.hpp), the end of serving here.
// Invariant: the reservation's holder is registered, and there is no reservation without registrations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "scsi/device.hpp"
#include "scsi/unit_attention.hpp"

namespace replblk::scsi {

/// SPC-4 table 51. The registrants-only and all-registrants types share their access with whoever is registered.
enum class ReservationType : std::uint8_t {
  none = 0,
  write_exclusive = 1,
  exclusive_access = 3,
  write_exclusive_registrants = 5,
  exclusive_access_registrants = 6,
  write_exclusive_all = 7,
  exclusive_access_all = 8,
};

/// What a command does to the medium in the eyes of SPC-4 table 49 and SBC-3 table 13: always carried out; carried out
/// while a type of the write exclusive kind is held; by those only whom the reservation includes.
enum class ReservationClass : std::uint8_t { excluded = 0, reading, free };

enum class ReservationOutcome : std::uint8_t { good, conflict, invalid_release, invalid_key, no_reservation, no_room };

/// Whom an action concerns besides its initiator.
struct ReservationNotice {
  NexusInfo port;
  UnitAttention condition;
};

class PersistentReservation {
 public:
  /// READ FULL STATUS of that many fits LogicalUnit::kScratchBytes.
  static constexpr std::size_t kRegistrationsMax = 128;

  struct Registration {
    NexusInfo port;
    std::uint64_t key = 0;  ///< not 0
    friend bool operator==(const Registration&, const Registration&) = default;
  };
  /// All that there is, for those who keep it.
  struct State {
    std::uint32_t generation = 0;
    ReservationType type = ReservationType::none;
    std::optional<std::size_t> holder;  ///< index of its registration; none with none and the all-registrants types
    std::vector<Registration> registrations;
  };
  struct Answer {
    ReservationOutcome outcome = ReservationOutcome::good;
    std::vector<ReservationNotice> notices;
    std::vector<NexusInfo> aborted;  ///< PREEMPT AND ABORT: the ports whose commands are over
  };

  /// Nothing: the state breaks the invariant, or has too many registrations, one without key, or two of one port.
  [[nodiscard]] static std::optional<PersistentReservation> from(State state);
  [[nodiscard]] State state() const;
  friend bool operator==(const PersistentReservation&, const PersistentReservation&) = default;

  // SPC-4 6.16. `key` is the RESERVATION KEY, `action_key` the SERVICE ACTION RESERVATION KEY.
  [[nodiscard]] Answer register_key(const NexusInfo& port, std::uint64_t key, std::uint64_t action_key,
                                    bool ignores_existing);
  [[nodiscard]] Answer reserve(const NexusInfo& port, std::uint64_t key, ReservationType type);
  [[nodiscard]] Answer release(const NexusInfo& port, std::uint64_t key, ReservationType type);
  [[nodiscard]] Answer clear(const NexusInfo& port, std::uint64_t key);
  [[nodiscard]] Answer preempt(const NexusInfo& port, std::uint64_t key, std::uint64_t action_key, ReservationType type,
                               bool aborts);

  /// SPC-4 5.13.8: `to`, another port, is registered with `action_key` and holds the reservation from now on.
  [[nodiscard]] Answer register_and_move(const NexusInfo& port, std::uint64_t key, std::uint64_t action_key,
                                         const NexusInfo& to, bool unregisters);

  [[nodiscard]] bool permits(const NexusInfo& port, ReservationClass command) const noexcept;
  [[nodiscard]] bool is_holder(const NexusInfo& port) const noexcept;
  [[nodiscard]] bool is_reserved() const noexcept { return type_ != ReservationType::none; }
  [[nodiscard]] ReservationType type() const noexcept { return type_; }
  /// Zero for the all-registrants types (SPC-4 6.15.3.2), which have no one holder.
  [[nodiscard]] std::uint64_t holder_key() const noexcept;
  [[nodiscard]] const std::vector<Registration>& registrations() const noexcept { return registrations_; }
  [[nodiscard]] std::uint32_t generation() const noexcept { return generation_; }

 private:
  [[nodiscard]] Registration* find(const NexusInfo& port) noexcept;
  [[nodiscard]] const Registration* find(const NexusInfo& port) const noexcept;
  [[nodiscard]] bool is_registered_with(const NexusInfo& port, std::uint64_t key) const noexcept;
  void unregister(const NexusInfo& port, Answer& answer);
  void drop_reservation() noexcept;
  void tell_others(const NexusInfo& but, UnitAttention condition, Answer& answer) const;

  std::vector<Registration> registrations_;
  std::uint32_t generation_ = 0;
  ReservationType type_ = ReservationType::none;
  std::optional<NexusInfo> holder_;  ///< none with the all-registrants types
};

/// Nothing: obsolete or reserved (SPC-4 table 51). 0 is none.
[[nodiscard]] constexpr std::optional<ReservationType> to_reservation_type(std::uint8_t code) noexcept {
  const auto type = static_cast<ReservationType>(code);
  switch (type) {
    case ReservationType::none:
    case ReservationType::write_exclusive:
    case ReservationType::exclusive_access:
    case ReservationType::write_exclusive_registrants:
    case ReservationType::exclusive_access_registrants:
    case ReservationType::write_exclusive_all:
    case ReservationType::exclusive_access_all:
      return type;
  }
  return std::nullopt;
}
[[nodiscard]] constexpr bool is_all_registrants(ReservationType type) noexcept {
  return type == ReservationType::write_exclusive_all || type == ReservationType::exclusive_access_all;
}
[[nodiscard]] constexpr bool includes_registrants(ReservationType type) noexcept {
  return is_all_registrants(type) || type == ReservationType::write_exclusive_registrants ||
         type == ReservationType::exclusive_access_registrants;
}
[[nodiscard]] constexpr bool excludes_readers(ReservationType type) noexcept {
  return type == ReservationType::exclusive_access || type == ReservationType::exclusive_access_registrants ||
         type == ReservationType::exclusive_access_all;
}

}  // namespace replblk::scsi
