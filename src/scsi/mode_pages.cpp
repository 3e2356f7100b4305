// MODE SENSE and MODE SELECT (SPC-4 6.11, 6.12, 7.5; SBC-3 6.5). Pages: read-write error recovery 01h, caching 08h,
// control 0Ah, informational exceptions 1Ch. Changeable: D_SENSE, SWP and TAS of the control page.
#include <array>
#include <cstring>

#include "scsi/commands.hpp"
#include "scsi/data_writer.hpp"
#include "scsi/logical_unit.hpp"

namespace replblk::scsi::commands {

namespace {

constexpr std::uint8_t kRecoveryPage = 0x01;
constexpr std::uint8_t kCachingPage = 0x08;
constexpr std::uint8_t kControlPage = 0x0a;
constexpr std::uint8_t kExceptionsPage = 0x1c;
constexpr std::uint8_t kAllPages = 0x3f;
constexpr std::uint8_t kAllSubpages = 0xff;
constexpr std::uint8_t kPages[] = {kRecoveryPage, kCachingPage, kControlPage, kExceptionsPage};

enum class PageControl : std::uint8_t { current, changeable, defaults, saved };

constexpr std::uint8_t kDSense = 0x04;  // control page, byte 2
constexpr std::uint8_t kSwp = 0x08;     // control page, byte 4
constexpr std::uint8_t kTas = 0x40;     // control page, byte 5

constexpr std::size_t kPageBytesMax = 20;
struct ModePage {
  std::array<std::uint8_t, kPageBytesMax> bytes{};
  std::size_t size = 0;
};

ModePage make_page(LogicalUnit& unit, std::uint8_t code, PageControl control) {
  ModePage page;
  auto& bytes = page.bytes;
  page.size = code == kCachingPage ? 20 : 12;
  bytes[0] = code;
  bytes[1] = static_cast<std::uint8_t>(page.size - 2);
  if (code == kControlPage) {
    const ModeParameters mode = control == PageControl::changeable ? ModeParameters{true, true, true}
                                : control == PageControl::current  ? unit.mode()
                                                                   : ModeParameters{};
    if (mode.is_sense_in_descriptors) bytes[2] |= kDSense;
    if (mode.is_write_protected) bytes[4] |= kSwp;
    if (mode.is_abort_told) bytes[5] |= kTas;
  }
  if (control == PageControl::changeable) return page;
  if (code == kCachingPage) {
    if (unit.geometry().has_write_cache) bytes[2] = 0x04;  // WCE
    bytes[12] = 0x20;                                      // DRA: no read-ahead of ours
  } else if (code == kControlPage) {
    bytes[3] = 0x10;             // unrestricted reordering: initiators order what must be ordered
    bytes[8] = bytes[9] = 0xff;  // busy timeout: unlimited
  }
  return page;
}

bool has_page(std::uint8_t wanted, std::uint8_t code) { return wanted == code || wanted == kAllPages; }

/// Byte 2 and 3 are common to both MODE SENSE forms.
bool check_page(LogicalUnit& unit, Task& task) {
  const auto wanted = std::to_integer<std::uint8_t>(task.cdb[2] & std::byte{0x3f});
  const auto subpage = std::to_integer<std::uint8_t>(task.cdb[3]);
  if (static_cast<PageControl>(std::to_integer<unsigned>(task.cdb[2]) >> 6) == PageControl::saved) {
    unit.reject(task, plain_sense(kSavingParametersNotSupported));
    return false;
  }
  bool is_known = false;
  for (const std::uint8_t code : kPages) is_known = is_known || has_page(wanted, code);
  if (!is_known) {
    unit.reject(task, invalid_cdb_field(2, 5));
    return false;
  }
  if (subpage != 0 && subpage != kAllSubpages) {
    unit.reject(task, invalid_cdb_field(3, 7));
    return false;
  }
  return true;
}

constexpr unsigned kWriteProtected = 0x80;
constexpr unsigned kDpoFua = 0x10;

void write_block_descriptor(const LogicalUnit& unit, DataWriter& out, std::size_t size) {
  const std::uint64_t blocks = unit.block_count();
  if (size == 16) {  // SPC-4 7.5.5.4 (LLBAA)
    out.be(blocks).zeroes(4).be(unit.block_bytes());
  } else if (size == 8) {
    out.be(blocks > UINT32_MAX ? UINT32_MAX : static_cast<std::uint32_t>(blocks)).be(unit.block_bytes());
  }
}

void write_pages(LogicalUnit& unit, const Task& task, DataWriter& out) {
  const auto wanted = std::to_integer<std::uint8_t>(task.cdb[2] & std::byte{0x3f});
  const auto control = static_cast<PageControl>(std::to_integer<unsigned>(task.cdb[2]) >> 6);
  for (const std::uint8_t code : kPages) {
    if (!has_page(wanted, code)) continue;
    const ModePage page = make_page(unit, code, control);
    for (std::size_t index = 0; index < page.size; ++index) out.u8(page.bytes[index]);
  }
}

unsigned device_specific(LogicalUnit& unit) { return kDpoFua | (unit.mode().is_write_protected ? kWriteProtected : 0); }

constexpr std::uint8_t kDbd = 0x08;
constexpr std::uint8_t kLlbaa = 0x10;

}  // namespace

void plan_mode_sense_6(LogicalUnit& unit, Task& task) {
  if (check_page(unit, task)) plan_allocation_4(unit, task);
}

void run_mode_sense_6(LogicalUnit& unit, Task& task) {
  const std::size_t descriptor = has_bits(task.cdb, 1, kDbd) ? 0 : 8;
  DataWriter out(unit.scratch());
  out.u8(0).u8(0).u8(device_specific(unit)).u8(static_cast<unsigned>(descriptor));
  write_block_descriptor(unit, out, descriptor);
  write_pages(unit, task, out);
  out.patch(0, static_cast<std::uint8_t>(out.size() - 1));
  unit.answer(task, out.size());
}

void plan_mode_sense_10(LogicalUnit& unit, Task& task) {
  if (check_page(unit, task)) plan_allocation_7(unit, task);
}

void run_mode_sense_10(LogicalUnit& unit, Task& task) {
  const bool is_long = has_bits(task.cdb, 1, kLlbaa);
  const std::size_t descriptor = has_bits(task.cdb, 1, kDbd) ? 0 : is_long ? 16 : 8;
  DataWriter out(unit.scratch());
  out.be(std::uint16_t{0}).u8(0).u8(device_specific(unit)).u8(descriptor == 16 ? 1 : 0).u8(0);
  out.be(static_cast<std::uint16_t>(descriptor));
  write_block_descriptor(unit, out, descriptor);
  write_pages(unit, task, out);
  out.patch(0, static_cast<std::uint16_t>(out.size() - 2));
  unit.answer(task, out.size());
}

void plan_mode_select_6(LogicalUnit& unit, Task& task) { plan_allocation_4(unit, task); }
void plan_mode_select_10(LogicalUnit& unit, Task& task) { plan_allocation_7(unit, task); }

namespace {

/// What MODE SELECT's parameter list asks for, or why it is refused.
struct Selection {
  ModeParameters mode;
  bool is_refused = false;
  Sense refusal;

  void refuse(const Sense& sense) {
    is_refused = true;
    refusal = sense;
  }
};

/// One page against ours: what is not changeable must stay as it is (SPC-4 6.9.1).
void select_page(LogicalUnit& unit, ConstBytes list, std::size_t at, Selection& selection) {
  const auto code = std::to_integer<std::uint8_t>(list[at] & std::byte{0x3f});
  const ModePage current = make_page(unit, code, PageControl::current);
  const ModePage changeable = make_page(unit, code, PageControl::changeable);
  for (std::size_t index = 2; index < current.size; ++index) {
    const auto wanted = std::to_integer<std::uint8_t>(list[at + index]);
    const auto fixed = static_cast<std::uint8_t>(~changeable.bytes[index]);
    if (((wanted ^ current.bytes[index]) & fixed) != 0) {
      selection.refuse(invalid_parameter_field(static_cast<std::uint16_t>(at + index)));
      return;
    }
  }
  if (code != kControlPage) return;
  const auto bit = [&](std::size_t byte, std::uint8_t mask) {
    return (std::to_integer<std::uint8_t>(list[at + byte]) & mask) != 0;
  };
  selection.mode = {bit(2, kDSense), bit(4, kSwp), bit(5, kTas)};
}

void select_block_descriptor(const LogicalUnit& unit, ConstBytes descriptor, std::size_t at, Selection& selection) {
  const std::uint32_t blocks = load_be<std::uint32_t>(&descriptor[0]);
  const std::uint32_t length = load_be24(&descriptor[5]);
  // SBC-3 6.5.2: zero and all ones leave the number of blocks alone; formatting is not ours to do.
  if (blocks != 0 && blocks != UINT32_MAX && blocks != unit.block_count()) {
    selection.refuse(invalid_parameter_field(static_cast<std::uint16_t>(at)));
  } else if (length != 0 && length != unit.block_bytes()) {
    selection.refuse(invalid_parameter_field(static_cast<std::uint16_t>(at + 5)));
  }
}

Selection parse_selection(LogicalUnit& unit, ConstBytes list, std::size_t header, std::size_t descriptor_bytes) {
  Selection selection;
  selection.mode = unit.mode();
  if (descriptor_bytes != 0 && descriptor_bytes != 8) {
    selection.refuse(invalid_parameter_field(static_cast<std::uint16_t>(header - 1)));
    return selection;
  }
  if (list.size() < header + descriptor_bytes) {
    selection.refuse(plain_sense(kParameterListLengthError));
    return selection;
  }
  if (descriptor_bytes == 8) select_block_descriptor(unit, list.subspan(header, 8), header, selection);
  for (std::size_t at = header + descriptor_bytes; at < list.size() && !selection.is_refused;) {
    const auto code =
        std::to_integer<std::uint8_t>(list[at] & std::byte{0x7f});  // 7Fh: with SPF, which no page of ours has
    bool is_known = false;
    for (const std::uint8_t known : kPages) is_known = is_known || known == code;
    if (!is_known) {
      selection.refuse(invalid_parameter_field(static_cast<std::uint16_t>(at)));
      break;
    }
    const std::size_t size = make_page(unit, code, PageControl::current).size;
    if (list.size() - at < 2) {
      selection.refuse(plain_sense(kParameterListLengthError));
    } else if (std::to_integer<std::size_t>(list[at + 1]) != size - 2) {
      selection.refuse(invalid_parameter_field(static_cast<std::uint16_t>(at + 1)));
    } else if (list.size() - at < size) {
      selection.refuse(plain_sense(kParameterListLengthError));
    } else {
      select_page(unit, list, at, selection);
    }
    at += size;
  }
  return selection;
}

void run_mode_select(LogicalUnit& unit, Task& task, std::size_t header) {
  if (task.transfer_length_bytes == 0) {  // SPC-4 6.9.1: no list is no error.
    unit.finish(task);
    return;
  }
  const ConstBytes list = LogicalUnit::data_out(task);
  if (list.size() < task.transfer_length_bytes || list.size() < header) {
    unit.fail(task, plain_sense(kParameterListLengthError));
    return;
  }
  const std::size_t descriptor_bytes =
      header == 4 ? std::to_integer<std::size_t>(list[3]) : load_be<std::uint16_t>(&list[6]);
  const Selection selection = parse_selection(unit, list, header, descriptor_bytes);
  if (selection.is_refused) {
    unit.fail(task, selection.refusal);
    return;
  }
  if (selection.mode != unit.mode()) {
    unit.mode() = selection.mode;
    unit.establish_for_all(UnitAttention::mode_changed, &task.nexus);
  }
  unit.finish(task);
}

}  // namespace

void run_mode_select_6(LogicalUnit& unit, Task& task) { run_mode_select(unit, task, 4); }
void run_mode_select_10(LogicalUnit& unit, Task& task) { run_mode_select(unit, task, 8); }

}  // namespace replblk::scsi::commands
