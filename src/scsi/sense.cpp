#include "scsi/sense.hpp"

#include <algorithm>

namespace replblk::scsi {

namespace {

constexpr std::uint8_t kFixedBytes = 18;
constexpr std::byte kSksv{0x80};

/// SPC-4 table 50: SKSV, C/D, BPV, bit pointer, field pointer.
void encode_field_pointer(const Sense& sense, std::byte* out) noexcept {
  out[0] = kSksv;
  if (sense.is_field_in_cdb) out[0] |= std::byte{0x40};
  if (sense.has_bit_pointer) out[0] |= std::byte{0x08} | static_cast<std::byte>(sense.field_bit & 0x07);
  store_be<std::uint16_t>(out + 1, sense.field_byte);
}

}  // namespace

Sense plain_sense(SenseCode code) noexcept {
  Sense sense;
  sense.code = code;
  return sense;
}

Sense sense_with_information(SenseCode code, std::uint64_t information) noexcept {
  Sense sense = plain_sense(code);
  sense.has_information = true;
  sense.information = information;
  return sense;
}

Sense invalid_cdb_field(std::uint16_t byte, std::uint8_t bit) noexcept {
  Sense sense = plain_sense(kInvalidFieldInCdb);
  sense.has_field_pointer = true;
  sense.is_field_in_cdb = true;
  sense.has_bit_pointer = true;
  sense.field_byte = byte;
  sense.field_bit = bit;
  return sense;
}

Sense invalid_parameter_field(std::uint16_t byte) noexcept {
  Sense sense = plain_sense(kInvalidFieldInParameterList);
  sense.has_field_pointer = true;
  sense.field_byte = byte;
  return sense;
}

Sense sense_of(const blockdev::BlockRequest& request) noexcept {
  using blockdev::BlockStatus;
  switch (request.status) {
    case BlockStatus::io_error:
    case BlockStatus::timed_out:
      return plain_sense(request.op == blockdev::BlockOp::read ? kUnrecoveredReadError : kWriteError);
    case BlockStatus::no_space:
      return plain_sense(kSpaceAllocationFailed);
    case BlockStatus::miscompare:
      // SBC-3 5.2: INFORMATION is the offset of the first byte that differs, from the start of the Data-Out Buffer.
      return sense_with_information(kMiscompareDuringVerify, request.miscompare_offset_bytes);
    case BlockStatus::not_supported:
      return plain_sense(kInvalidOperationCode);
    case BlockStatus::good:
    case BlockStatus::not_serving:
      break;
  }
  RB_UNREACHABLE();
}

std::uint8_t encode(const Sense& sense, SenseFormat format, MutableBytes out) noexcept {
  const auto key = static_cast<std::byte>(sense.code.key);
  if (format == SenseFormat::fixed) {
    RB_ASSERT(out.size() >= kFixedBytes);
    std::fill_n(out.begin(), kFixedBytes, std::byte{0});
    out[0] = std::byte{0x70};
    // SPC-4 4.5.3: VALID is zero when the value does not fit the four bytes of the fixed format.
    if (sense.has_information && sense.information <= UINT32_MAX) {
      out[0] |= std::byte{0x80};
      store_be(&out[3], static_cast<std::uint32_t>(sense.information));
    }
    out[2] = key;
    out[7] = static_cast<std::byte>(kFixedBytes - 8);
    out[12] = static_cast<std::byte>(sense.code.asc);
    out[13] = static_cast<std::byte>(sense.code.ascq);
    if (sense.has_field_pointer) encode_field_pointer(sense, &out[15]);
    return kFixedBytes;
  }
  RB_ASSERT(out.size() >= 8 + 12 + 8);
  std::fill_n(out.begin(), 8 + 12 + 8, std::byte{0});
  std::uint8_t length = 8;
  out[0] = std::byte{0x72};
  out[1] = key;
  out[2] = static_cast<std::byte>(sense.code.asc);
  out[3] = static_cast<std::byte>(sense.code.ascq);
  if (sense.has_information) {  // SPC-4 4.5.2.2
    out[length + 1u] = std::byte{0x0a};
    out[length + 2u] = std::byte{0x80};
    store_be(&out[length + 4u], sense.information);
    length += 12;
  }
  if (sense.has_field_pointer) {  // SPC-4 4.5.2.4
    out[length] = std::byte{0x02};
    out[length + 1u] = std::byte{0x06};
    encode_field_pointer(sense, &out[length + 4u]);
    length += 8;
  }
  out[7] = static_cast<std::byte>(length - 8);
  return length;
}

}  // namespace replblk::scsi
