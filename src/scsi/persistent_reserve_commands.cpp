// PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16). Not offered: REGISTER AND MOVE, and PREEMPT AND ABORT, whose status
// may only come when all aborted commands are over, disks included.
#include "scsi/commands.hpp"
#include "scsi/data_writer.hpp"
#include "scsi/logical_unit.hpp"

namespace replblk::scsi::commands {

namespace {

using Outcome = ReservationOutcome;

enum class InAction : std::uint8_t { read_keys = 0, read_reservation, report_capabilities, read_full_status };
enum class OutAction : std::uint8_t { register_key = 0, reserve, release, clear, preempt, register_and_ignore = 6 };

constexpr std::uint32_t kParameterListBytes = 24;
constexpr std::uint8_t kScopeMask = 0xf0;  // LU_SCOPE is 0
constexpr std::size_t kIscsiNameBytesMax = 223;
/// SPC-4 tables 49 and 487: descriptor, and a TransportID of an initiator port with its ISID, padded.
constexpr std::size_t kFullStatusBytesMax = 24 + 4 + kIscsiNameBytesMax + 17 + 4;
static_assert(8 + PersistentReservation::kRegistrationsMax * kFullStatusBytesMax <= LogicalUnit::kScratchBytes);

OutAction out_action(const Task& task) noexcept {
  return static_cast<OutAction>(std::to_integer<unsigned>(task.cdb[1]) & 0x1f);
}

bool is_known_type(ReservationType type) noexcept {
  switch (type) {
    case ReservationType::write_exclusive:
    case ReservationType::exclusive_access:
    case ReservationType::write_exclusive_registrants:
    case ReservationType::exclusive_access_registrants:
    case ReservationType::write_exclusive_all:
    case ReservationType::exclusive_access_all:
      return true;
    case ReservationType::none:
      return false;
  }
  return false;
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

void write_in(const LogicalUnit& unit, const PersistentReservation& reservation, InAction action, DataWriter& out) {
  if (action == InAction::report_capabilities) {
    // SPC-4 6.15.4: no CRH, SIP, ATP, PTPL; TMV; all six types.
    out.be(std::uint16_t{8}).u8(0).u8(0x80).u8(0xea).u8(0x01).zeroes(2);
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

PersistentReservation::Answer carry_out(LogicalUnit& unit, const Task& task, ConstBytes list) {
  PersistentReservation& reservation = unit.persistent_reservation();
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
      return reservation.preempt(port, key, action_key, type_of(task));
  }
  RB_UNREACHABLE();
}

}  // namespace

void run_persistent_reserve_in(LogicalUnit& unit, Task& task) {
  DataWriter out(unit.scratch());
  write_in(unit, unit.persistent_reservation(), static_cast<InAction>(std::to_integer<unsigned>(task.cdb[1]) & 0x1f),
           out);
  unit.answer(task, out.size());
}

void plan_persistent_reserve_out(LogicalUnit& unit, Task& task) {
  // SPC-4 6.16.1: scope and type are ignored where no reservation is made or ended.
  const OutAction action = out_action(task);
  if (action == OutAction::reserve || action == OutAction::release || action == OutAction::preempt) {
    if (has_bits(task.cdb, 2, kScopeMask)) {
      unit.reject(task, invalid_cdb_field(2, 7));
      return;
    }
    if (!is_known_type(type_of(task))) {
      unit.reject(task, invalid_cdb_field(2, 3));
      return;
    }
  }
  // SPC-4 6.16.1: without SPEC_I_PT the list has exactly 24 bytes.
  if (load_be<std::uint32_t>(&task.cdb[5]) != kParameterListBytes) {
    unit.reject(task, plain_sense(kParameterListLengthError));
    return;
  }
  task.transfer_length_bytes = kParameterListBytes;
}

void run_persistent_reserve_out(LogicalUnit& unit, Task& task) {
  const ConstBytes list = LogicalUnit::data_out(task);
  if (list.size() < kParameterListBytes) {
    unit.fail(task, plain_sense(kParameterListLengthError));
    return;
  }
  // SPEC_I_PT 08h, ALL_TG_PT 04h, APTPL 01h: REPORT CAPABILITIES says that we have none of them.
  constexpr auto kNotOffered = std::byte{0x0d};
  const bool registers =
      out_action(task) == OutAction::register_key || out_action(task) == OutAction::register_and_ignore;
  if (registers && (list[20] & kNotOffered) != std::byte{0}) {
    unit.fail(task, invalid_parameter_field(20));
    return;
  }
  // SPC-2 5.5.1: the two kinds of reservation exclude each other.
  if (unit.has_plain_reservation()) {
    unit.finish(task, Status::reservation_conflict);
    return;
  }
  const PersistentReservation::Answer answer = carry_out(unit, task, list);
  for (const ReservationNotice& notice : answer.notices) unit.establish_for(notice.port, notice.condition);
  switch (answer.outcome) {
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
    case Outcome::no_room:
      unit.fail(task, plain_sense(kInsufficientRegistrationResources));
      return;
  }
}

}  // namespace replblk::scsi::commands
