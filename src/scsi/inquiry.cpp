// INQUIRY and REQUEST SENSE (SPC-4 6.6, 6.39).
#include "scsi/commands.hpp"
#include "scsi/logical_unit.hpp"
#include "scsi/vpd.hpp"

namespace replblk::scsi::commands {

namespace {

/// SPC-4 6.6.2. 96 bytes: version descriptors, then reserved.
void write_standard_inquiry(const LogicalUnit& unit, DataWriter& out) {
  // SPC-4 6.6.2: qualifier 011b, type 1Fh: there is no such unit.
  out.u8(unit.is_present() ? 0x00 : 0x7f);
  out.u8(0);
  out.u8(0x06);  // SPC-4
  out.u8(0x12);  // HISUP, response data format 2
  out.u8(96 - 5);
  out.u8(0);  // no TPGS, no third-party copy
  out.u8(0);
  out.u8(0x02);  // CMDQUE
  out.ascii(kVendor, 8).ascii(unit.config().product, 16).ascii("0001", 4);
  out.zeroes(58 - 36);
  constexpr std::uint16_t kVersions[] = {0x00a0, 0x0960, 0x0460, 0x04c0};  // SAM-5, iSCSI, SPC-4, SBC-3
  for (const std::uint16_t version : kVersions) out.be(version);
  out.zeroes(96 - 58 - 8);
}

constexpr std::uint8_t kEvpd = 0x01;

}  // namespace

void plan_allocation_4(LogicalUnit&, Task& task) {
  task.transfer_length_bytes = std::to_integer<std::uint32_t>(task.cdb[4]);
}
void plan_allocation_3(LogicalUnit&, Task& task) { task.transfer_length_bytes = load_be<std::uint16_t>(&task.cdb[3]); }
void plan_allocation_7(LogicalUnit&, Task& task) { task.transfer_length_bytes = load_be<std::uint16_t>(&task.cdb[7]); }

namespace {

/// SPC-4 4.2.5.6: an allocation length is only a maximum; ours is what the largest buffer holds.
void plan_long_allocation(Task& task, std::size_t byte) {
  constexpr std::uint32_t kMax = BufferPool::kBufferBytesMax;
  task.transfer_length_bytes = std::min(load_be<std::uint32_t>(&task.cdb[byte]), kMax);
}

}  // namespace

void plan_allocation_6(LogicalUnit&, Task& task) { plan_long_allocation(task, 6); }
void plan_allocation_10(LogicalUnit&, Task& task) { plan_long_allocation(task, 10); }

void plan_inquiry(LogicalUnit& unit, Task& task) {
  plan_allocation_3(unit, task);
  const auto page = std::to_integer<std::uint8_t>(task.cdb[2]);
  if (!has_bits(task.cdb, 1, kEvpd)) {
    // SPC-4 6.6.1: a page code without EVPD is an error.
    if (page != 0) unit.reject(task, invalid_cdb_field(2, 7));
    return;
  }
  DataWriter out(unit.scratch());
  if (!unit.is_present() || !write_vpd_page(unit, page, out)) unit.reject(task, invalid_cdb_field(2, 7));
}

void run_inquiry(LogicalUnit& unit, Task& task) {
  DataWriter out(unit.scratch());
  if (has_bits(task.cdb, 1, kEvpd)) {
    RB_ASSERT(write_vpd_page(unit, std::to_integer<std::uint8_t>(task.cdb[2]), out));
  } else {
    write_standard_inquiry(unit, out);
  }
  unit.answer(task, out.size());
}

/// SPC-4 6.39: the pending unit attention, which is then no longer pending; never an error.
void run_request_sense(LogicalUnit& unit, Task& task) {
  constexpr std::uint8_t kDesc = 0x01;
  SenseCode code = kNoSense;
  if (!unit.is_present()) {
    code = kUnitNotSupported;
  } else if (task.step == 0) {
    code = unit.attentions(task.nexus).take().value_or(kNoSense);
  }
  const SenseFormat format = has_bits(task.cdb, 1, kDesc) ? SenseFormat::descriptor : SenseFormat::fixed;
  unit.answer(task, encode(plain_sense(code), format, unit.scratch()));
}

}  // namespace replblk::scsi::commands
