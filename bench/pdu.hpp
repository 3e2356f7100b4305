// The 48-byte Basic Header Segment as the initiator needs it: opcodes, flag bits and big-endian field access.
// Deliberately independent of src/iscsi: two implementations written apart find each other's mistakes. Not
// responsible for digests or additional header segments (the load generator negotiates neither). Used by the
// login and by the load connections. Invariant: a Pdu is plain bytes, always in wire order.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace replblk::bench {

// RFC 7143 11.2.1.2: initiator opcodes below 0x20, target opcodes from 0x20 on.
enum class Opcode : std::uint8_t {
  nop_out = 0x00,
  scsi_command = 0x01,
  login_request = 0x03,
  data_out = 0x05,
  logout_request = 0x06,
  nop_in = 0x20,
  scsi_response = 0x21,
  login_response = 0x23,
  data_in = 0x25,
  logout_response = 0x26,
  r2t = 0x31,
  async_message = 0x32,
  reject = 0x3f,
};

constexpr std::uint8_t kImmediateBit = 0x40;  // byte 0: delivered at once, does not advance CmdSN
constexpr std::uint8_t kFinalBit = 0x80;      // byte 1
constexpr std::uint8_t kReadBit = 0x40;       // byte 1 of a SCSI Command
constexpr std::uint8_t kWriteBit = 0x20;
constexpr std::uint8_t kSimpleTask = 0x01;
constexpr std::uint8_t kStatusBit = 0x01;     // byte 1 of a Data-In: the status comes with the data
constexpr std::uint8_t kResidualBits = 0x1e;  // byte 1 of a response: any of o, u, O, U
constexpr std::uint32_t kReservedTag = 0xffffffff;
constexpr std::size_t kHeaderBytes = 48;

constexpr std::uint32_t load_u32(const std::uint8_t* at) noexcept {
  return std::uint32_t{at[0]} << 24 | std::uint32_t{at[1]} << 16 | std::uint32_t{at[2]} << 8 | std::uint32_t{at[3]};
}
constexpr std::uint64_t load_u64(const std::uint8_t* at) noexcept {
  return std::uint64_t{load_u32(at)} << 32 | load_u32(at + 4);
}
constexpr void store_u32(std::uint8_t* at, std::uint32_t value) noexcept {
  at[0] = static_cast<std::uint8_t>(value >> 24);
  at[1] = static_cast<std::uint8_t>(value >> 16);
  at[2] = static_cast<std::uint8_t>(value >> 8);
  at[3] = static_cast<std::uint8_t>(value);
}
constexpr void store_u64(std::uint8_t* at, std::uint64_t value) noexcept {
  store_u32(at, static_cast<std::uint32_t>(value >> 32));
  store_u32(at + 4, static_cast<std::uint32_t>(value));
}

// RFC 7143 4.2.2.1: sequence numbers compare as 32-bit serial numbers (RFC 1982).
constexpr bool serial_less(std::uint32_t left, std::uint32_t right) noexcept {
  return static_cast<std::int32_t>(left - right) < 0;
}

// Field offsets that have the same place in every PDU that carries them.
struct Pdu {
  std::array<std::uint8_t, kHeaderBytes> bytes{};

  [[nodiscard]] Opcode opcode() const noexcept { return static_cast<Opcode>(bytes[0] & 0x3f); }
  [[nodiscard]] std::uint8_t flags() const noexcept { return bytes[1]; }
  [[nodiscard]] std::uint8_t ahs_words() const noexcept { return bytes[4]; }
  [[nodiscard]] std::uint32_t data_length() const noexcept { return load_u32(&bytes[4]) & 0x00ffffff; }
  [[nodiscard]] std::uint32_t u32(std::size_t offset) const noexcept { return load_u32(&bytes[offset]); }
  void set_u32(std::size_t offset, std::uint32_t value) noexcept { store_u32(&bytes[offset], value); }
  void set_data_length(std::uint32_t length) noexcept { store_u32(&bytes[4], length & 0x00ffffff); }

  [[nodiscard]] std::uint32_t task_tag() const noexcept { return u32(16); }
  [[nodiscard]] std::uint32_t transfer_tag() const noexcept { return u32(20); }
  [[nodiscard]] std::uint32_t stat_sn() const noexcept { return u32(24); }
  [[nodiscard]] std::uint32_t exp_cmd_sn() const noexcept { return u32(28); }
  [[nodiscard]] std::uint32_t max_cmd_sn() const noexcept { return u32(32); }
};

// SAM-5 4.7: peripheral addressing below 256, flat space addressing above.
constexpr std::uint64_t encode_lun(std::uint32_t lun) noexcept {
  const std::uint64_t first_level = lun < 256 ? lun : (0x4000U | (lun & 0x3fffU));
  return first_level << 48;
}

}  // namespace replblk::bench
