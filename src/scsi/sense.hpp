// Sense data: what a unit says about a command that did not simply succeed (SPC-4 4.5), in fixed or descriptor format.
// Not responsible for deciding what to say. Used by every command of the unit, and by the device for unknown LUNs.
// Invariant: encode() never writes more than Task::kSenseBytesMax bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.hpp"
#include "blockdev/block_request.hpp"

namespace replblk::scsi {

enum class SenseKey : std::uint8_t {
  no_sense = 0x0,
  not_ready = 0x2,
  medium_error = 0x3,
  illegal_request = 0x5,
  unit_attention = 0x6,
  data_protect = 0x7,
  aborted_command = 0xb,
  miscompare = 0xe,
};

struct SenseCode {
  SenseKey key = SenseKey::no_sense;
  std::uint8_t asc = 0;
  std::uint8_t ascq = 0;
  friend bool operator==(const SenseCode&, const SenseCode&) = default;
};

inline constexpr SenseCode kNoSense{SenseKey::no_sense, 0x00, 0x00};
inline constexpr SenseCode kWriteError{SenseKey::medium_error, 0x0c, 0x00};
inline constexpr SenseCode kUnrecoveredReadError{SenseKey::medium_error, 0x11, 0x00};
inline constexpr SenseCode kParameterListLengthError{SenseKey::illegal_request, 0x1a, 0x00};
inline constexpr SenseCode kInvalidOperationCode{SenseKey::illegal_request, 0x20, 0x00};
inline constexpr SenseCode kLbaOutOfRange{SenseKey::illegal_request, 0x21, 0x00};
inline constexpr SenseCode kInvalidFieldInCdb{SenseKey::illegal_request, 0x24, 0x00};
inline constexpr SenseCode kUnitNotSupported{SenseKey::illegal_request, 0x25, 0x00};
inline constexpr SenseCode kInvalidFieldInParameterList{SenseKey::illegal_request, 0x26, 0x00};
inline constexpr SenseCode kSavingParametersNotSupported{SenseKey::illegal_request, 0x39, 0x00};
inline constexpr SenseCode kInvalidMessage{SenseKey::illegal_request, 0x49, 0x00};
inline constexpr SenseCode kInvalidFieldInInformationUnit{SenseKey::illegal_request, 0x0e, 0x03};
inline constexpr SenseCode kInvalidRelease{SenseKey::illegal_request, 0x26, 0x04};
inline constexpr SenseCode kInsufficientRegistrationResources{SenseKey::illegal_request, 0x55, 0x04};
inline constexpr SenseCode kSoftwareWriteProtected{SenseKey::data_protect, 0x27, 0x02};
inline constexpr SenseCode kSpaceAllocationFailed{SenseKey::data_protect, 0x27, 0x07};
inline constexpr SenseCode kMiscompareDuringVerify{SenseKey::miscompare, 0x1d, 0x00};

struct Sense {
  SenseCode code;
  bool has_information = false;
  std::uint64_t information = 0;
  /// SPC-4 4.5.2.4.2: sense key specific field pointer, for ILLEGAL REQUEST.
  bool has_field_pointer = false;
  bool is_field_in_cdb = false;  ///< else in the parameter data
  bool has_bit_pointer = false;
  std::uint8_t field_bit = 0;
  std::uint16_t field_byte = 0;
};

[[nodiscard]] Sense plain_sense(SenseCode code) noexcept;
[[nodiscard]] Sense sense_with_information(SenseCode code, std::uint64_t information) noexcept;
/// INVALID FIELD IN CDB that points to byte `byte`, bit `bit` being the leftmost wrong one.
[[nodiscard]] Sense invalid_cdb_field(std::uint16_t byte, std::uint8_t bit) noexcept;
/// INVALID FIELD IN PARAMETER LIST that points to byte `byte`.
[[nodiscard]] Sense invalid_parameter_field(std::uint16_t byte) noexcept;
/// What a failed request means to the initiator; not for good and not_serving.
[[nodiscard]] Sense sense_of(const blockdev::BlockRequest& request) noexcept;

enum class SenseFormat : std::uint8_t { fixed, descriptor };

/// Returns the length written.
std::uint8_t encode(const Sense& sense, SenseFormat format, MutableBytes out) noexcept;

}  // namespace replblk::scsi
