// PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16): all service actions.
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "scsi/commands.hpp"
#include "scsi/data_writer.hpp"
#include "scsi/logical_unit.hpp"

namespace replblk::scsi::commands {

namespace {

using Outcome = ReservationOutcome;

enum class InAction : std::uint8_t { read_keys = 0, read_reservation, report_capabilities, read_full_status };
enum class OutAction : std::uint8_t {
  register_key = 0,
  reserve,
  release,
  clear,
  preempt,
  preempt_and_abort,
  register_and_ignore,
  register_and_move
};

constexpr std::uint32_t kParameterListBytes = 24;
constexpr auto kUnregisterBit = std::byte{0x02};  // of REGISTER AND MOVE
/// SPC-4 table 487: a TransportID of an initiator port with its ISID, padded.
constexpr std::size_t kTransportIdBytesMax = 4 + NexusInfo::kNameBytesMax + 17 + 4;
constexpr std::size_t kMoveListBytesMax = kParameterListBytes + kTransportIdBytesMax;
constexpr std::uint8_t kScopeMask = 0xf0;  // LU_SCOPE is 0
/// SPC-4 table 49: descriptor and TransportID.
constexpr std::size_t kFullStatusBytesMax = 24 + kTransportIdBytesMax;
static_assert(8 + PersistentReservation::kRegistrationsMax * kFullStatusBytesMax <= LogicalUnit::kScratchBytes);

OutAction out_action(const Task& task) noexcept {
  return static_cast<OutAction>(std::to_integer<unsigned>(task.cdb[1]) & 0x1f);
}

bool has_known_type(const Task& task) noexcept {
  const auto type = to_reservation_type(std::to_integer<std::uint8_t>(task.cdb[2]) & 0x0f);
  return type.has_value() && *type != ReservationType::none;
}

ReservationType type_of(const Task& task) noexcept {
  return static_cast<ReservationType>(std::to_integer<unsigned>(task.cdb[2]) & 0x0f);
}

/// SPC-4 7.6.4.6 table 487, format 01b: "name,i,0x" and the ISID in twelve digits, null-terminated, a multiple of four.
void write_transport_id(const NexusInfo& port, DataWriter& out) {
  constexpr char kHex[] = "0123456789abcdef";
  char isid[] = ",i,0x000000000000";
  for (unsigned digit = 0; digit < 12; ++digit) isid[5 + digit] = kHex[port.isid >> (44 - 4 * digit) & 0xf];
  const std::size_t length = port.initiator_name.size() + sizeof(isid);
  const std::size_t padded = (length + 3) / 4 * 4;
  out.u8(0x40 | 0x05).u8(0).be(static_cast<std::uint16_t>(padded));
  out.text(port.initiator_name).text({isid, sizeof(isid)}).zeroes(padded - length);
}

/// The same, read: an initiator port with its ISID, nothing else; padding is not looked at.
std::optional<NexusInfo> read_transport_id(ConstBytes id) {
  constexpr std::string_view kSeparator = ",i,0x";
  constexpr std::size_t kIsidDigitsMax = 12;
  if (id.size() < 4 || id[0] != std::byte{0x45} || load_be<std::uint16_t>(&id[2]) != id.size() - 4) return std::nullopt;
  std::string_view text = as_text(id.subspan(4));
  const std::size_t end = text.find('\0');
  if (end == std::string_view::npos) return std::nullopt;
  text = text.substr(0, end);
  const std::size_t separator = text.find(kSeparator);
  if (separator == std::string_view::npos || separator == 0 || separator > NexusInfo::kNameBytesMax)
    return std::nullopt;
  const std::string_view digits = text.substr(separator + kSeparator.size());
  if (digits.empty() || digits.size() > kIsidDigitsMax) return std::nullopt;
  NexusInfo port{std::string(text.substr(0, separator)), 0};
  const auto [past, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port.isid, 16);
  if (error != std::errc{} || past != digits.data() + digits.size()) return std::nullopt;
  return port;
}

void write_full_status(const LogicalUnit& unit, const PersistentReservation& reservation, DataWriter& out) {
  for (const PersistentReservation::Registration& registration : reservation.registrations()) {
    const bool is_holder = reservation.is_reserved() && reservation.is_holder(registration.port);
    out.be(registration.key).zeroes(4);
    out.u8(is_holder ? 0x01 : 0x00).u8(is_holder ? static_cast<unsigned>(reservation.type()) : 0u);
    out.zeroes(4).be(unit.device().relative_target_port_id);
    const std::size_t length_at = out.size();
    out.be(std::uint32_t{0});
    write_transport_id(registration.port, out);
    out.patch(length_at, static_cast<std::uint32_t>(out.size() - length_at - 4));
  }
}

/// Persistent through power loss, always: what was registered with APTPL = 0 is kept as well, since with two nodes the
/// loss of power of one must not show.
bool is_kept(const LogicalUnit& unit) noexcept { return unit.device().reservation_keeper != nullptr; }

/// SPC-4 6.16.4 and 5.13.8.
std::optional<Sense> find_fault_of_move(const LogicalUnit& unit, const Task& task, ConstBytes list) {
  constexpr auto kPersistBit = std::byte{0x01};
  if (load_be<std::uint32_t>(&list[20]) != list.size() - kParameterListBytes)
    return plain_sense(kParameterListLengthError);
  if (!is_kept(unit) && (list[17] & kPersistBit) != std::byte{0}) return invalid_parameter_field(17);
  if (load_be<std::uint16_t>(&list[18]) != unit.device().relative_target_port_id) return invalid_parameter_field(18);
  const auto to = read_transport_id(list.subspan(kParameterListBytes));
  if (!to.has_value() || *to == unit.port_of(task.nexus)) return invalid_parameter_field(24);
  return std::nullopt;
}

void write_in(const LogicalUnit& unit, const PersistentReservation& reservation, InAction action, DataWriter& out) {
  if (action == InAction::report_capabilities) {
    // SPC-4 6.15.4: no CRH, SIP, ATP; PTPL_C and PTPL_A; TMV; all six types.
    const unsigned persists = is_kept(unit) ? 1 : 0;
    out.be(std::uint16_t{8}).u8(persists).u8(0x80 | persists).u8(0xea).u8(0x01).zeroes(2);
    return;
  }
  out.be(reservation.generation()).be(std::uint32_t{0});
  if (action == InAction::read_keys) {
    for (const PersistentReservation::Registration& registration : reservation.registrations())
      out.be(registration.key);
  } else if (action == InAction::read_full_status) {
    write_full_status(unit, reservation, out);
  } else if (reservation.is_reserved()) {
    out.be(reservation.holder_key()).zeroes(5).u8(static_cast<unsigned>(reservation.type())).zeroes(2);
  }
  out.patch(4, static_cast<std::uint32_t>(out.size() - 8));
}

}  // namespace

PersistentReservation::Answer change_reservation(const LogicalUnit& unit, const Task& task,
                                                 PersistentReservation& reservation) {
  // SPC-2 5.5.1: the two kinds of reservation exclude each other.
  if (unit.has_plain_reservation()) return {ReservationOutcome::conflict, {}, {}};
  const ConstBytes list = LogicalUnit::data_out(task);
  const NexusInfo& port = unit.port_of(task.nexus);
  const auto key = load_be<std::uint64_t>(&list[0]);
  const auto action_key = load_be<std::uint64_t>(&list[8]);
  switch (out_action(task)) {
    case OutAction::register_key:
      return reservation.register_key(port, key, action_key, false);
    case OutAction::register_and_ignore:
      return reservation.register_key(port, key, action_key, true);
    case OutAction::reserve:
      return reservation.reserve(port, key, type_of(task));
    case OutAction::release:
      return reservation.release(port, key, type_of(task));
    case OutAction::clear:
      return reservation.clear(port, key);
    case OutAction::preempt:
      return reservation.preempt(port, key, action_key, type_of(task), false);
    case OutAction::preempt_and_abort:
      return reservation.preempt(port, key, action_key, type_of(task), true);
    case OutAction::register_and_move: {
      const auto to = read_transport_id(list.subspan(kParameterListBytes));
      RB_ASSERT(to.has_value());
      return reservation.register_and_move(port, key, action_key, *to, (list[17] & kUnregisterBit) != std::byte{0});
    }
  }
  RB_UNREACHABLE();
}

void answer_reservation(LogicalUnit& unit, Task& task, ReservationOutcome outcome) {
  switch (outcome) {
    case Outcome::good:
      unit.finish(task);
      return;
    case Outcome::conflict:
      unit.finish(task, Status::reservation_conflict);
      return;
    case Outcome::invalid_release:
      unit.fail(task, plain_sense(kInvalidRelease));
      return;
    case Outcome::invalid_key:
      unit.fail(task, invalid_parameter_field(8));
      return;
    case Outcome::no_reservation:
      unit.fail(task, invalid_cdb_field(1, 4));  // SPC-4 5.13.8
      return;
    case Outcome::no_room:
      unit.fail(task, plain_sense(kInsufficientRegistrationResources));
      return;
  }
}

void run_persistent_reserve_in(LogicalUnit& unit, Task& task) {
  DataWriter out(unit.scratch());
  write_in(unit, unit.persistent_reservation(), static_cast<InAction>(std::to_integer<unsigned>(task.cdb[1]) & 0x1f),
           out);
  unit.answer(task, out.size());
}

void plan_persistent_reserve_out(LogicalUnit& unit, Task& task) {
  // SPC-4 6.16.1: scope and type are ignored where no reservation is made or ended.
  const OutAction action = out_action(task);
  if (action == OutAction::reserve || action == OutAction::release || action == OutAction::preempt ||
      action == OutAction::preempt_and_abort) {
    if (has_bits(task.cdb, 2, kScopeMask)) {
      unit.reject(task, invalid_cdb_field(2, 7));
      return;
    }
    if (!has_known_type(task)) {
      unit.reject(task, invalid_cdb_field(2, 3));
      return;
    }
  }
  // SPC-4 6.16.1: without SPEC_I_PT the list has exactly 24 bytes; 6.16.4: REGISTER AND MOVE has a TransportID behind.
  const auto length = load_be<std::uint32_t>(&task.cdb[5]);
  const bool is_possible = action == OutAction::register_and_move
                               ? length > kParameterListBytes && length <= kMoveListBytesMax
                               : length == kParameterListBytes;
  if (!is_possible) {
    unit.reject(task, plain_sense(kParameterListLengthError));
    return;
  }
  task.transfer_length_bytes = length;
}

void run_persistent_reserve_out(LogicalUnit& unit, Task& task) {
  const ConstBytes list = LogicalUnit::data_out(task);
  if (list.size() < task.transfer_length_bytes) {
    unit.fail(task, plain_sense(kParameterListLengthError));
    return;
  }
  if (out_action(task) == OutAction::register_and_move) {
    if (const auto sense = find_fault_of_move(unit, task, list)) {
      unit.fail(task, *sense);
      return;
    }
  }
  // SPEC_I_PT 08h, ALL_TG_PT 04h, APTPL 01h: refused as REPORT CAPABILITIES says.
  const auto not_offered = is_kept(unit) ? std::byte{0x0c} : std::byte{0x0d};
  const bool registers =
      out_action(task) == OutAction::register_key || out_action(task) == OutAction::register_and_ignore;
  if (registers && (list[20] & not_offered) != std::byte{0}) {
    unit.fail(task, invalid_parameter_field(20));
    return;
  }
  unit.change_reservation(task);
}

}  // namespace replblk::scsi::commands
