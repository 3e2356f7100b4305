// READ CAPACITY, GET LBA STATUS and REPORT LUNS (SBC-3 5.15, 5.16, 5.7; SPC-4 6.33).
#include <algorithm>
#include <bit>

#include "scsi/commands.hpp"
#include "scsi/data_writer.hpp"
#include "scsi/logical_unit.hpp"

namespace replblk::scsi::commands {

namespace {

/// SBC-2 5.10: without PMI the LBA must be zero. (SBC-3 made both obsolete.)
void reject_lba_without_pmi(LogicalUnit& unit, Task& task, std::size_t pmi_byte) {
  const std::uint64_t lba = pmi_byte == 8 ? load_be<std::uint32_t>(&task.cdb[2]) : load_be<std::uint64_t>(&task.cdb[2]);
  if (lba != 0 && !has_bits(task.cdb, pmi_byte, 0x01)) unit.reject(task, invalid_cdb_field(2, 7));
}

}  // namespace

void plan_read_capacity_10(LogicalUnit& unit, Task& task) {
  task.transfer_length_bytes = 8;
  reject_lba_without_pmi(unit, task, 8);
}

void run_read_capacity_10(LogicalUnit& unit, Task& task) {
  DataWriter out(unit.scratch());
  // SBC-3 5.15.2: all ones: too many blocks for this command, use READ CAPACITY(16).
  const std::uint64_t last = unit.block_count() - 1;
  out.be(last > UINT32_MAX ? UINT32_MAX : static_cast<std::uint32_t>(last)).be(unit.block_bytes());
  unit.answer(task, out.size());
}

void plan_read_capacity_16(LogicalUnit& unit, Task& task) {
  plan_allocation_10(unit, task);
  reject_lba_without_pmi(unit, task, 14);
}

void run_read_capacity_16(LogicalUnit& unit, Task& task) {
  const blockdev::VolumeGeometry& geometry = unit.geometry();
  DataWriter out(unit.scratch());
  out.be(unit.block_count() - 1).be(unit.block_bytes()).u8(0);
  const auto exponent = std::countr_zero(geometry.physical_block_bytes / geometry.logical_block_bytes);
  out.u8(static_cast<unsigned>(exponent));
  out.be(static_cast<std::uint16_t>(geometry.supports_discard ? 0xc000 : 0));  // LBPME, LBPRZ; lowest aligned LBA 0
  out.zeroes(16);
  unit.answer(task, out.size());
}

void plan_get_lba_status(LogicalUnit& unit, Task& task) {
  plan_allocation_10(unit, task);
  const std::uint64_t lba = load_be<std::uint64_t>(&task.cdb[2]);
  if (lba >= unit.block_count()) unit.reject(task, sense_with_information(kLbaOutOfRange, lba));
}

/// SBC-3 5.7.2. The disks below keep their own maps and do not show them to us, so everything from the LBA on is called
/// mapped: whoever copies reads too much rather than too little.
void run_get_lba_status(LogicalUnit& unit, Task& task) {
  const std::uint64_t lba = load_be<std::uint64_t>(&task.cdb[2]);
  constexpr std::uint32_t kLengthOfOneDescriptor = 4 + 16;
  constexpr unsigned kMapped = 0;
  DataWriter out(unit.scratch());
  out.be(kLengthOfOneDescriptor).zeroes(4);
  out.be(lba).be(static_cast<std::uint32_t>(std::min<std::uint64_t>(unit.block_count() - lba, UINT32_MAX)));
  out.u8(kMapped).zeroes(3);
  unit.answer(task, out.size());
}

void plan_report_luns(LogicalUnit& unit, Task& task) {
  plan_allocation_6(unit, task);
  // SPC-4 6.33: 00h ordinary units, 01h well known units (none), 02h all.
  if (std::to_integer<unsigned>(task.cdb[2]) > 2) unit.reject(task, invalid_cdb_field(2, 7));
}

void run_report_luns(LogicalUnit& unit, Task& task) {
  DataWriter out(unit.scratch());
  out.be(std::uint32_t{0}).zeroes(4);
  if (std::to_integer<unsigned>(task.cdb[2]) != 1) {
    for (const UnitConfig& config : unit.device().units) out.be(std::uint64_t{config.lun} << 48);
  }
  out.patch(0, static_cast<std::uint32_t>(out.size() - 8));
  unit.answer(task, out.size());
}

}  // namespace replblk::scsi::commands
