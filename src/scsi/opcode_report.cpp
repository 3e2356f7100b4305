// REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.27, 6.28).
#include "scsi/commands.hpp"
#include "scsi/data_writer.hpp"
#include "scsi/logical_unit.hpp"
#include "scsi/opcode_table.hpp"

namespace replblk::scsi::commands {

namespace {

/// REPORTING OPTIONS: all; one operation code; one with service action; one, whichever it has.
enum class Report : std::uint8_t { all, code, service_action, either };

constexpr std::uint8_t kRctd = 0x80;

struct Query {
  Report report = Report::all;
  bool wants_timeouts = false;
  std::uint8_t code = 0;
  std::uint16_t service_action = 0;
};

Query decode_query(const Cdb& cdb) noexcept {
  return {static_cast<Report>(std::to_integer<unsigned>(cdb[2]) & 0x07), has_bits(cdb, 2, kRctd),
          std::to_integer<std::uint8_t>(cdb[3]), load_be<std::uint16_t>(&cdb[4])};
}

const Opcode* find_exactly(const Query& query) noexcept {
  if (query.service_action > 0x1f) return nullptr;
  return find_opcode(query.code, static_cast<std::uint8_t>(query.service_action)).opcode;
}

/// SPC-4 6.27.4: both timeouts are "not stated".
void write_timeouts(DataWriter& out) { out.be(std::uint16_t{10}).zeroes(10); }

void write_all(const Query& query, DataWriter& out) {
  out.be(std::uint32_t{0});
  for (const Opcode& opcode : opcode_table()) {
    out.u8(opcode.code).u8(0).be(static_cast<std::uint16_t>(opcode.service_action)).u8(0);
    // CTDP, SERVACTV.
    out.u8((query.wants_timeouts ? 0x02u : 0u) | (opcode.has_service_action ? 0x01u : 0u));
    out.be(static_cast<std::uint16_t>(opcode.cdb_length_bytes));
    if (query.wants_timeouts) write_timeouts(out);
  }
  out.patch(0, static_cast<std::uint32_t>(out.size() - 4));
}

void write_one(const Query& query, DataWriter& out) {
  const Opcode* opcode = find_exactly(query);
  constexpr unsigned kNotSupported = 1;
  constexpr unsigned kAsInStandard = 3;
  if (opcode == nullptr) {
    out.u8(0).u8(kNotSupported).be(std::uint16_t{0});
    return;
  }
  out.u8(0).u8((query.wants_timeouts ? 0x80u : 0u) | kAsInStandard);
  out.be(static_cast<std::uint16_t>(opcode->cdb_length_bytes));
  for (std::size_t byte = 0; byte < opcode->cdb_length_bytes; ++byte) out.u8(opcode->usage[byte]);
  if (query.wants_timeouts) write_timeouts(out);
}

}  // namespace

void plan_report_opcodes(LogicalUnit& unit, Task& task) {
  plan_allocation_6(unit, task);
  const Query query = decode_query(task.cdb);
  if (query.report > Report::either) {
    unit.reject(task, invalid_cdb_field(2, 2));
    return;
  }
  const OpcodeLookup lookup = find_opcode(query.code, static_cast<std::uint8_t>(query.service_action & 0x1f));
  const bool has_service_actions =
      lookup.opcode != nullptr ? lookup.opcode->has_service_action : lookup.refusal == kInvalidFieldInCdb;
  const bool is_implemented = lookup.opcode != nullptr || has_service_actions;
  // SPC-4 6.27.1: asked without service action about a code that has some, or with one about a code that has none.
  if (query.report == Report::code && has_service_actions) unit.reject(task, invalid_cdb_field(2, 2));
  if (query.report == Report::service_action && is_implemented && !has_service_actions) {
    unit.reject(task, invalid_cdb_field(2, 2));
  }
}

void run_report_opcodes(LogicalUnit& unit, Task& task) {
  const Query query = decode_query(task.cdb);
  DataWriter out(unit.scratch());
  if (query.report == Report::all) {
    write_all(query, out);
  } else {
    write_one(query, out);
  }
  unit.answer(task, out.size());
}

void plan_report_task_functions(LogicalUnit& unit, Task& task) {
  plan_allocation_6(unit, task);
  // SPC-4 6.28: an allocation length below four is an error, unlike elsewhere.
  if (task.transfer_length_bytes < 4) unit.reject(task, invalid_cdb_field(6, 7));
}

void run_report_task_functions(LogicalUnit& unit, Task& task) {
  constexpr std::uint8_t kRepd = 0x80;
  DataWriter out(unit.scratch());
  out.u8(0x80 | 0x40 | 0x10 | 0x08 | 0x02);  // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LU RESET, TARGET RESET
  out.zeroes(2);
  if (has_bits(task.cdb, 2, kRepd)) {
    out.u8(12).zeroes(12);  // SPC-4 6.28.3: no timeouts stated
  } else {
    out.u8(0);
  }
  unit.answer(task, out.size());
}

}  // namespace replblk::scsi::commands
