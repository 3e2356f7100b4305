#include "scsi/opcode_table.hpp"

#include <bit>
#include <cstring>
#include <initializer_list>

#include "scsi/commands.hpp"

namespace replblk::scsi {

namespace {

using namespace commands;
using Usage = std::array<std::uint8_t, 16>;

/// CDB usage data; what follows the given bytes is past the end of the CDB.
constexpr Usage cdb(std::initializer_list<std::uint8_t> bytes) {
  Usage usage{};
  usage.fill(0xff);
  std::size_t index = 0;
  for (const std::uint8_t byte : bytes) usage[index++] = byte;
  return usage;
}

// Byte 1 of reads and writes: DPO 10h, FUA 08h, and FUA_NV 02h, which SBC-3 made obsolete and initiators still send.
constexpr std::uint8_t kCacheBits = 0x1a;
// Byte 1 of VERIFY and WRITE AND VERIFY: DPO 10h, BYTCHK 06h.
constexpr std::uint8_t kVerifyBits = 0x16;
// Byte 1 of SYNCHRONIZE CACHE: IMMED 02h, SYNC_NV 04h (obsolete like FUA_NV).
constexpr std::uint8_t kSynchronizeBits = 0x06;

// GROUP NUMBER asks for statistics that we do not keep (SPC-4 7.8.7 GROUP_SUP = 0): taken and not looked at.
constexpr std::uint8_t kGroupBits = 0x1f;

// NACA is in no mask: we have no ACA.
constexpr auto kFree = ReservationClass::free;
constexpr auto kReading = ReservationClass::reading;
// PERSISTENT RESERVE OUT: scope and type in byte 2, parameter list length in bytes 5 to 8.
constexpr auto reserve_out(std::uint8_t action) { return cdb({0x5f, action, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0}); }
constexpr auto reserve_in(std::uint8_t action) { return cdb({0x5e, action, 0, 0, 0, 0, 0, 0xff, 0xff, 0}); }

// clang-format off: one row a command.
constexpr Opcode kTable[] = {
    {.name = "TEST UNIT READY", .code = 0x00, .cdb_length_bytes = 6,
     .reservation_class = kFree, .usage = cdb({0x00, 0, 0, 0, 0, 0}), .plan = plan_nothing, .run = run_good},
    {.name = "REZERO UNIT", .code = 0x01, .cdb_length_bytes = 6,
     .usage = cdb({0x01, 0, 0, 0, 0, 0}), .plan = plan_nothing, .run = run_good},
    {.name = "REQUEST SENSE", .code = 0x03, .cdb_length_bytes = 6, .direction = DataDirection::in,
     .passes_unit_attention = true, .passes_reservation = true, .reservation_class = kFree, .passes_absent_unit = true,
     .usage = cdb({0x03, 0x01, 0, 0, 0xff, 0}), .plan = plan_allocation_4, .run = run_request_sense},
    {.name = "READ(6)", .code = 0x08, .cdb_length_bytes = 6, .direction = DataDirection::in,
     .reservation_class = kReading, .usage = cdb({0x08, 0x1f, 0xff, 0xff, 0xff, 0}), .plan = plan_read, .run = run_read, .resume = resume_read},
    {.name = "WRITE(6)", .code = 0x0a, .cdb_length_bytes = 6, .direction = DataDirection::out, .changes_medium = true,
     .usage = cdb({0x0a, 0x1f, 0xff, 0xff, 0xff, 0}), .plan = plan_write, .run = run_write},
    {.name = "SEEK(6)", .code = 0x0b, .cdb_length_bytes = 6,
     .reservation_class = kReading, .usage = cdb({0x0b, 0x1f, 0xff, 0xff, 0, 0}), .plan = plan_seek, .run = run_good},
    {.name = "INQUIRY", .code = 0x12, .cdb_length_bytes = 6, .direction = DataDirection::in,
     .passes_unit_attention = true, .passes_reservation = true, .reservation_class = kFree, .passes_absent_unit = true,
     .usage = cdb({0x12, 0x01, 0xff, 0xff, 0xff, 0}), .plan = plan_inquiry, .run = run_inquiry},
    {.name = "MODE SELECT(6)", .code = 0x15, .cdb_length_bytes = 6, .direction = DataDirection::out,
     .usage = cdb({0x15, 0x10, 0, 0, 0xff, 0}), .plan = plan_mode_select_6, .run = run_mode_select_6},
    {.name = "RESERVE(6)", .code = 0x16, .cdb_length_bytes = 6,
     .reservation_class = kFree, .usage = cdb({0x16, 0, 0, 0, 0, 0}), .plan = plan_nothing, .run = run_reserve},
    {.name = "RELEASE(6)", .code = 0x17, .cdb_length_bytes = 6, .passes_reservation = true,
     .reservation_class = kFree, .usage = cdb({0x17, 0, 0, 0, 0, 0}), .plan = plan_nothing, .run = run_release},
    {.name = "MODE SENSE(6)", .code = 0x1a, .cdb_length_bytes = 6, .direction = DataDirection::in,
     .usage = cdb({0x1a, 0x08, 0xff, 0xff, 0xff, 0}), .plan = plan_mode_sense_6, .run = run_mode_sense_6},
    {.name = "START STOP UNIT", .code = 0x1b, .cdb_length_bytes = 6,
     .usage = cdb({0x1b, 0x01, 0, 0, 0x07, 0}), .plan = plan_start_stop, .run = run_start_stop},
    // PF 10h, SELFTEST 04h, DEVOFFL 02h, UNITOFFL 01h; the default self test has no other parameters (SPC-4 6.40).
    {.name = "SEND DIAGNOSTIC", .code = 0x1d, .cdb_length_bytes = 6,
     .usage = cdb({0x1d, 0x17, 0, 0, 0, 0}), .plan = plan_nothing, .run = run_good},
    {.name = "PREVENT ALLOW MEDIUM REMOVAL", .code = 0x1e, .cdb_length_bytes = 6,
     .usage = cdb({0x1e, 0, 0, 0, 0x03, 0}), .plan = plan_nothing, .run = run_good},
    {.name = "READ CAPACITY(10)", .code = 0x25, .cdb_length_bytes = 10, .direction = DataDirection::in,
     .reservation_class = kFree, .usage = cdb({0x25, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0}),
     .plan = plan_read_capacity_10, .run = run_read_capacity_10},
    {.name = "READ(10)", .code = 0x28, .cdb_length_bytes = 10, .direction = DataDirection::in,
     .reservation_class = kReading, .usage = cdb({0x28, kCacheBits, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0xff, 0xff, 0}),
     .plan = plan_read, .run = run_read, .resume = resume_read},
    {.name = "WRITE(10)", .code = 0x2a, .cdb_length_bytes = 10, .direction = DataDirection::out, .changes_medium = true,
     .usage = cdb({0x2a, kCacheBits, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0xff, 0xff, 0}), .plan = plan_write, .run = run_write},
    {.name = "SEEK(10)", .code = 0x2b, .cdb_length_bytes = 10,
     .reservation_class = kReading, .usage = cdb({0x2b, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}), .plan = plan_seek, .run = run_good},
    {.name = "WRITE AND VERIFY(10)", .code = 0x2e, .cdb_length_bytes = 10, .direction = DataDirection::out,
     .changes_medium = true, .usage = cdb({0x2e, kVerifyBits, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0xff, 0xff, 0}),
     .plan = plan_write_and_verify, .run = run_write_and_verify, .resume = resume_write_and_verify},
    {.name = "VERIFY(10)", .code = 0x2f, .cdb_length_bytes = 10, .direction = DataDirection::out,
     .reservation_class = kReading, .usage = cdb({0x2f, kVerifyBits, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0xff, 0xff, 0}),
     .plan = plan_verify, .run = run_verify, .resume = resume_verify},
    {.name = "PRE-FETCH(10)", .code = 0x34, .cdb_length_bytes = 10,
     .reservation_class = kReading, .usage = cdb({0x34, 0x02, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0xff, 0xff, 0}), .plan = plan_prefetch, .run = run_prefetch},
    {.name = "SYNCHRONIZE CACHE(10)", .code = 0x35, .cdb_length_bytes = 10,
     .usage = cdb({0x35, kSynchronizeBits, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0xff, 0xff, 0}),
     .plan = plan_synchronize_cache, .run = run_flush},
    // UNMAP 08h. ANCHOR 10h is not: we have no anchored blocks (ANC_SUP = 0).
    {.name = "WRITE SAME(10)", .code = 0x41, .cdb_length_bytes = 10, .direction = DataDirection::out,
     .changes_medium = true, .usage = cdb({0x41, 0x08, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0xff, 0xff, 0}),
     .plan = plan_write_same, .run = run_write_same, .resume = resume_write_same},
    {.name = "UNMAP", .code = 0x42, .cdb_length_bytes = 10, .direction = DataDirection::out, .changes_medium = true,
     .usage = cdb({0x42, 0, 0, 0, 0, 0, kGroupBits, 0xff, 0xff, 0}),
     .plan = plan_unmap, .run = run_unmap, .resume = resume_unmap},
    {.name = "MODE SELECT(10)", .code = 0x55, .cdb_length_bytes = 10, .direction = DataDirection::out,
     .usage = cdb({0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0}), .plan = plan_mode_select_10, .run = run_mode_select_10},
    {.name = "RESERVE(10)", .code = 0x56, .cdb_length_bytes = 10,
     .reservation_class = kFree, .usage = cdb({0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0}), .plan = plan_nothing, .run = run_reserve},
    {.name = "RELEASE(10)", .code = 0x57, .cdb_length_bytes = 10, .passes_reservation = true,
     .reservation_class = kFree, .usage = cdb({0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0}), .plan = plan_nothing, .run = run_release},
    {.name = "MODE SENSE(10)", .code = 0x5a, .cdb_length_bytes = 10, .direction = DataDirection::in,
     .usage = cdb({0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0}),
     .plan = plan_mode_sense_10, .run = run_mode_sense_10},
    {.name = "PERSISTENT RESERVE IN, READ KEYS", .code = 0x5e, .has_service_action = true, .service_action = 0,
     .cdb_length_bytes = 10, .direction = DataDirection::in, .reservation_class = kFree, .usage = reserve_in(0),
     .plan = plan_allocation_7, .run = run_persistent_reserve_in},
    {.name = "PERSISTENT RESERVE IN, READ RESERVATION", .code = 0x5e, .has_service_action = true, .service_action = 1,
     .cdb_length_bytes = 10, .direction = DataDirection::in, .reservation_class = kFree, .usage = reserve_in(1),
     .plan = plan_allocation_7, .run = run_persistent_reserve_in},
    {.name = "PERSISTENT RESERVE IN, REPORT CAPABILITIES", .code = 0x5e, .has_service_action = true, .service_action = 2,
     .cdb_length_bytes = 10, .direction = DataDirection::in, .reservation_class = kFree, .usage = reserve_in(2),
     .plan = plan_allocation_7, .run = run_persistent_reserve_in},
    {.name = "PERSISTENT RESERVE IN, READ FULL STATUS", .code = 0x5e, .has_service_action = true, .service_action = 3,
     .cdb_length_bytes = 10, .direction = DataDirection::in, .reservation_class = kFree, .usage = reserve_in(3),
     .plan = plan_allocation_7, .run = run_persistent_reserve_in},
    {.name = "PERSISTENT RESERVE OUT, REGISTER", .code = 0x5f, .has_service_action = true, .service_action = 0,
     .cdb_length_bytes = 10, .direction = DataDirection::out, .reservation_class = kFree, .usage = reserve_out(0),
     .plan = plan_persistent_reserve_out, .run = run_persistent_reserve_out},
    {.name = "PERSISTENT RESERVE OUT, RESERVE", .code = 0x5f, .has_service_action = true, .service_action = 1,
     .cdb_length_bytes = 10, .direction = DataDirection::out, .reservation_class = kFree, .usage = reserve_out(1),
     .plan = plan_persistent_reserve_out, .run = run_persistent_reserve_out},
    {.name = "PERSISTENT RESERVE OUT, RELEASE", .code = 0x5f, .has_service_action = true, .service_action = 2,
     .cdb_length_bytes = 10, .direction = DataDirection::out, .reservation_class = kFree, .usage = reserve_out(2),
     .plan = plan_persistent_reserve_out, .run = run_persistent_reserve_out},
    {.name = "PERSISTENT RESERVE OUT, CLEAR", .code = 0x5f, .has_service_action = true, .service_action = 3,
     .cdb_length_bytes = 10, .direction = DataDirection::out, .reservation_class = kFree, .usage = reserve_out(3),
     .plan = plan_persistent_reserve_out, .run = run_persistent_reserve_out},
    {.name = "PERSISTENT RESERVE OUT, PREEMPT", .code = 0x5f, .has_service_action = true, .service_action = 4,
     .cdb_length_bytes = 10, .direction = DataDirection::out, .reservation_class = kFree, .usage = reserve_out(4),
     .plan = plan_persistent_reserve_out, .run = run_persistent_reserve_out},
    {.name = "PERSISTENT RESERVE OUT, PREEMPT AND ABORT", .code = 0x5f, .has_service_action = true, .service_action = 5,
     .cdb_length_bytes = 10, .direction = DataDirection::out, .reservation_class = kFree, .usage = reserve_out(5),
     .plan = plan_persistent_reserve_out, .run = run_persistent_reserve_out},
    {.name = "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", .code = 0x5f, .has_service_action = true, .service_action = 6,
     .cdb_length_bytes = 10, .direction = DataDirection::out, .reservation_class = kFree, .usage = reserve_out(6),
     .plan = plan_persistent_reserve_out, .run = run_persistent_reserve_out},
    {.name = "PERSISTENT RESERVE OUT, REGISTER AND MOVE", .code = 0x5f, .has_service_action = true, .service_action = 7,
     .cdb_length_bytes = 10, .direction = DataDirection::out, .reservation_class = kFree, .usage = reserve_out(7),
     .plan = plan_persistent_reserve_out, .run = run_persistent_reserve_out},
    {.name = "READ(16)", .code = 0x88, .cdb_length_bytes = 16, .direction = DataDirection::in,
     .reservation_class = kReading, .usage = cdb({0x88, kCacheBits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_read, .run = run_read, .resume = resume_read},
    {.name = "COMPARE AND WRITE", .code = 0x89, .cdb_length_bytes = 16, .direction = DataDirection::out,
     .changes_medium = true,
     .usage = cdb({0x89, kCacheBits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, kGroupBits, 0}),
     .plan = plan_compare_and_write, .run = run_compare_and_write},
    {.name = "WRITE(16)", .code = 0x8a, .cdb_length_bytes = 16, .direction = DataDirection::out, .changes_medium = true,
     .usage = cdb({0x8a, kCacheBits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_write, .run = run_write},
    {.name = "WRITE AND VERIFY(16)", .code = 0x8e, .cdb_length_bytes = 16, .direction = DataDirection::out,
     .changes_medium = true,
     .usage = cdb({0x8e, kVerifyBits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_write_and_verify, .run = run_write_and_verify, .resume = resume_write_and_verify},
    {.name = "VERIFY(16)", .code = 0x8f, .cdb_length_bytes = 16, .direction = DataDirection::out,
     .reservation_class = kReading, .usage = cdb({0x8f, kVerifyBits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_verify, .run = run_verify, .resume = resume_verify},
    {.name = "PRE-FETCH(16)", .code = 0x90, .cdb_length_bytes = 16,
     .reservation_class = kReading, .usage = cdb({0x90, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_prefetch, .run = run_prefetch},
    {.name = "SYNCHRONIZE CACHE(16)", .code = 0x91, .cdb_length_bytes = 16,
     .usage = cdb({0x91, kSynchronizeBits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_synchronize_cache, .run = run_flush},
    // UNMAP 08h, NDOB 01h.
    {.name = "WRITE SAME(16)", .code = 0x93, .cdb_length_bytes = 16, .direction = DataDirection::out,
     .changes_medium = true,
     .usage = cdb({0x93, 0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_write_same, .run = run_write_same, .resume = resume_write_same},
    {.name = "READ CAPACITY(16)", .code = 0x9e, .has_service_action = true, .service_action = 0x10,
     .cdb_length_bytes = 16, .direction = DataDirection::in,
     .reservation_class = kFree, .usage = cdb({0x9e, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0}),
     .plan = plan_read_capacity_16, .run = run_read_capacity_16},
    {.name = "GET LBA STATUS", .code = 0x9e, .has_service_action = true, .service_action = 0x12,
     .cdb_length_bytes = 16, .direction = DataDirection::in,
     .reservation_class = kFree, .usage = cdb({0x9e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0}),
     .plan = plan_get_lba_status, .run = run_get_lba_status},
    {.name = "REPORT LUNS", .code = 0xa0, .cdb_length_bytes = 12, .direction = DataDirection::in,
     .passes_unit_attention = true, .passes_reservation = true, .reservation_class = kFree, .passes_absent_unit = true,
     .usage = cdb({0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}),
     .plan = plan_report_luns, .run = run_report_luns},
    {.name = "REPORT SUPPORTED OPERATION CODES", .code = 0xa3, .has_service_action = true, .service_action = 0x0c,
     .cdb_length_bytes = 12, .direction = DataDirection::in,
     .usage = cdb({0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0}),
     .plan = plan_report_opcodes, .run = run_report_opcodes},
    {.name = "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", .code = 0xa3, .has_service_action = true,
     .service_action = 0x0d, .cdb_length_bytes = 12, .direction = DataDirection::in,
     .usage = cdb({0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}),
     .plan = plan_report_task_functions, .run = run_report_task_functions},
    {.name = "READ(12)", .code = 0xa8, .cdb_length_bytes = 12, .direction = DataDirection::in,
     .reservation_class = kReading, .usage = cdb({0xa8, kCacheBits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_read, .run = run_read, .resume = resume_read},
    {.name = "WRITE(12)", .code = 0xaa, .cdb_length_bytes = 12, .direction = DataDirection::out, .changes_medium = true,
     .usage = cdb({0xaa, kCacheBits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_write, .run = run_write},
    {.name = "WRITE AND VERIFY(12)", .code = 0xae, .cdb_length_bytes = 12, .direction = DataDirection::out,
     .changes_medium = true,
     .usage = cdb({0xae, kVerifyBits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_write_and_verify, .run = run_write_and_verify, .resume = resume_write_and_verify},
    {.name = "VERIFY(12)", .code = 0xaf, .cdb_length_bytes = 12, .direction = DataDirection::out,
     .reservation_class = kReading, .usage = cdb({0xaf, kVerifyBits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, kGroupBits, 0}),
     .plan = plan_verify, .run = run_verify, .resume = resume_verify},
};
// clang-format on

constexpr std::uint8_t kNoRow = 0xff;

/// The first row of each operation code.
constexpr std::array<std::uint8_t, 256> make_index() {
  std::array<std::uint8_t, 256> index{};
  index.fill(kNoRow);
  for (std::size_t row = std::size(kTable); row > 0; --row) {
    index[kTable[row - 1].code] = static_cast<std::uint8_t>(row - 1);
  }
  return index;
}
constexpr std::array<std::uint8_t, 256> kIndex = make_index();
static_assert(std::size(kTable) < kNoRow);

constexpr std::uint8_t kServiceActionMask = 0x1f;

constexpr std::uint8_t allowed_bits(const Opcode& opcode, std::size_t byte) {
  if (byte == 0) return 0xff;
  // Usage data shows the service action itself (SPC-4 6.27.3), any value of which has already been looked up.
  if (byte == 1 && opcode.has_service_action) return opcode.usage[1] | kServiceActionMask;
  return opcode.usage[byte];
}

}  // namespace

std::span<const Opcode> opcode_table() noexcept { return kTable; }

OpcodeLookup find_opcode(std::uint8_t code, std::uint8_t service_action) noexcept {
  std::size_t row = kIndex[code];
  if (row == kNoRow) return {nullptr, kInvalidOperationCode};
  for (; row < std::size(kTable) && kTable[row].code == code; ++row) {
    if (!kTable[row].has_service_action || kTable[row].service_action == service_action)
      return {&kTable[row], kNoSense};
  }
  return {nullptr, kInvalidFieldInCdb};
}

std::optional<CdbBit> find_reserved_bit(const Opcode& opcode, const std::array<std::byte, 16>& cdb) noexcept {
  for (std::size_t byte = 1; byte < opcode.cdb_length_bytes; ++byte) {
    const auto wrong =
        static_cast<std::uint8_t>(std::to_integer<unsigned>(cdb[byte]) & ~unsigned{allowed_bits(opcode, byte)});
    if (wrong != 0) {
      return CdbBit{static_cast<std::uint8_t>(byte), static_cast<std::uint8_t>(std::bit_width(wrong) - 1)};
    }
  }
  return std::nullopt;
}

}  // namespace replblk::scsi
