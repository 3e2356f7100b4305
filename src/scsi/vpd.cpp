#include "scsi/vpd.hpp"

#include <bit>

#include "scsi/limits.hpp"
#include "scsi/logical_unit.hpp"

namespace replblk::scsi {

namespace {

// SPC-4 7.8.6.1: code set, association and designator type.
constexpr unsigned kBinary = 1;
constexpr unsigned kAscii = 2;
constexpr unsigned kUtf8 = 3;
constexpr unsigned kOfUnit = 0x00;
constexpr unsigned kOfPort = 0x10;
constexpr unsigned kOfDevice = 0x20;
constexpr unsigned kProtocolIscsi = 0x50;
constexpr unsigned kProtocolValid = 0x80;
constexpr unsigned kT10Vendor = 1;
constexpr unsigned kNaa = 3;
constexpr unsigned kRelativePort = 4;
constexpr unsigned kPortGroup = 5;
constexpr unsigned kScsiName = 8;

unsigned digit_of(const Uuid& uuid, std::size_t index) noexcept {
  const auto byte = std::to_integer<unsigned>(uuid.bytes[index / 2]);
  return index % 2 == 0 ? byte >> 4 : byte & 0xf;
}

void write_name(DataWriter& out, unsigned association, std::initializer_list<std::string_view> parts) {
  // SPC-4 7.8.6.11: null-terminated, padded to a multiple of four.
  std::size_t length = 0;
  for (const std::string_view part : parts) length += part.size();
  const std::size_t padded = (length + 1 + 3) / 4 * 4;
  out.u8(kProtocolIscsi | kUtf8).u8(kProtocolValid | association | kScsiName).u8(0).u8(static_cast<unsigned>(padded));
  for (const std::string_view part : parts) out.text(part);
  out.zeroes(padded - length);
}

void write_supported_pages(DataWriter& out) {
  for (const unsigned page : {0x00u, 0x80u, 0x83u, 0x86u, 0xb0u, 0xb1u, 0xb2u}) out.u8(page);
}

void write_serial(const LogicalUnit& unit, DataWriter& out) {
  const auto serial = serial_of(unit.config().volume_uuid);
  out.text({serial.data(), serial.size()});
}

void write_identification(const LogicalUnit& unit, DataWriter& out) {
  const auto naa = naa_of(unit.config().volume_uuid);
  out.u8(kBinary).u8(kOfUnit | kNaa).u8(0).u8(naa.size()).text(as_text(naa));

  const auto serial = serial_of(unit.config().volume_uuid);
  const std::string_view product = std::string_view(unit.config().product).substr(0, 16);
  out.u8(kAscii).u8(kOfUnit | kT10Vendor).u8(0).u8(static_cast<unsigned>(8 + product.size() + 1 + serial.size()));
  out.ascii(kVendor, 8).text(product).text(":").text({serial.data(), serial.size()});

  const DeviceConfig& device = unit.device();
  out.u8(kProtocolIscsi | kBinary).u8(kProtocolValid | kOfPort | kRelativePort).u8(0).u8(4);
  out.zeroes(2).be(device.relative_target_port_id);
  out.u8(kProtocolIscsi | kBinary).u8(kProtocolValid | kOfPort | kPortGroup).u8(0).u8(4);
  out.zeroes(2).be(device.target_portal_group_tag);

  // RFC 7143 4.2.7.1 and SPC-4 table 485: the port is "name,t,0xTTTT", the device is its name.
  constexpr char kHex[] = "0123456789abcdef";
  const unsigned tag = device.target_portal_group_tag;
  const char port[] = {
      ',', 't', ',', '0', 'x', kHex[tag >> 12 & 0xf], kHex[tag >> 8 & 0xf], kHex[tag >> 4 & 0xf], kHex[tag & 0xf]};
  write_name(out, kOfPort, {device.target_name, {port, sizeof(port)}});
  write_name(out, kOfDevice, {device.target_name});
}

/// SPC-4 7.8.7.
void write_extended_inquiry(const LogicalUnit& unit, DataWriter& out) {
  out.u8(0);
  out.u8(0x07);                                           // HEADSUP, ORDSUP, SIMPSUP
  out.u8(unit.geometry().has_write_cache ? 0x01 : 0x00);  // V_SUP: a volatile cache
  out.zeroes(57);
}

/// SBC-3 6.6.3.
void write_block_limits(const LogicalUnit& unit, DataWriter& out) {
  const blockdev::VolumeGeometry& geometry = unit.geometry();
  const auto granularity = geometry.physical_block_bytes / geometry.logical_block_bytes;
  const bool can_unmap = geometry.supports_discard;
  out.u8(0x01);  // WSNZ: WRITE SAME of zero blocks does not mean "to the end"
  out.u8(kCompareAndWriteBlocksMax);
  out.be(static_cast<std::uint16_t>(granularity));
  out.be(transfer_blocks_max(geometry));
  out.be(static_cast<std::uint32_t>(kOptimalTransferBytes / geometry.logical_block_bytes));
  out.be(std::uint32_t{0});  // no limit of PRE-FETCH
  out.be(can_unmap ? kUnmapBlocksMax : 0u);
  out.be(can_unmap ? kUnmapDescriptorsMax : 0u);
  out.be(can_unmap ? granularity : 0u);
  out.be(can_unmap ? 0x80000000u : 0u);  // UGAVALID, alignment 0
  out.be(std::uint64_t{kWriteSameBlocksMax});
  out.zeroes(20);  // no atomic writes
}

/// SBC-3 6.6.2: rotation rate 1 is "does not rotate", 0 is "not reported".
void write_characteristics(const LogicalUnit& unit, DataWriter& out) {
  out.be(static_cast<std::uint16_t>(unit.geometry().is_rotational ? 0 : 1)).zeroes(58);
}

/// SBC-3 6.6.4.
void write_provisioning(const LogicalUnit& unit, DataWriter& out) {
  const bool can_unmap = unit.geometry().supports_discard;
  out.u8(0);
  out.u8(can_unmap ? 0x80 | 0x40 | 0x20 | 0x04 : 0);  // LBPU, LBPWS, LBPWS10, LBPRZ
  out.u8(can_unmap ? 0x02 : 0);                       // thin provisioned
  out.u8(0);
}

}  // namespace

bool write_vpd_page(const LogicalUnit& unit, std::uint8_t page, DataWriter& out) {
  out.u8(0).u8(page).be(std::uint16_t{0});
  switch (page) {
    case 0x00:
      write_supported_pages(out);
      break;
    case 0x80:
      write_serial(unit, out);
      break;
    case 0x83:
      write_identification(unit, out);
      break;
    case 0x86:
      write_extended_inquiry(unit, out);
      break;
    case 0xb0:
      write_block_limits(unit, out);
      break;
    case 0xb1:
      write_characteristics(unit, out);
      break;
    case 0xb2:
      write_provisioning(unit, out);
      break;
    default:
      return false;
  }
  out.patch(2, static_cast<std::uint16_t>(out.size() - 4));
  return true;
}

std::array<std::byte, 16> naa_of(const Uuid& volume) noexcept {
  std::array<unsigned, 30> digits{};
  std::size_t count = 0;
  for (std::size_t index = 0; index < 32; ++index) {
    if (index != 12 && index != 16) digits[count++] = digit_of(volume, index);
  }
  for (std::size_t index = 0; index < 5; ++index) digits[index] ^= digits[25 + index];
  constexpr unsigned kPrefix[] = {6, 0, 2, 5, 2, 4, 2};
  std::array<std::byte, 16> naa{};
  for (std::size_t index = 0; index < 32; ++index) {
    const unsigned digit = index < 7 ? kPrefix[index] : digits[index - 7];
    naa[index / 2] |= static_cast<std::byte>(index % 2 == 0 ? digit << 4 : digit);
  }
  return naa;
}

std::array<char, 32> serial_of(const Uuid& volume) noexcept {
  std::array<char, 32> serial{};
  for (std::size_t index = 0; index < 32; ++index) serial[index] = "0123456789abcdef"[digit_of(volume, index)];
  return serial;
}

}  // namespace replblk::scsi
