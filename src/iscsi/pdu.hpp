// The iSCSI PDUs of RFC 7143 section 11 as plain structs, and their translation to and from the 48-byte basic
// header segment, in both directions: the target uses one half, the tests and the simulator's initiator the other.
// Not responsible for digests, data segments or the meaning of a field. Called by connection, session and tests.
// Invariant: decode(encode(x)) == x for every struct whose fields fit their widths.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/bytes.hpp"

namespace replblk::iscsi {

inline constexpr std::size_t kBhsBytes = 48;
inline constexpr std::size_t kAhsBytesMax =
    std::size_t{255} * 4;  ///< TotalAHSLength counts words in one byte (RFC 7143 11.2.1.5)
inline constexpr std::size_t kDigestBytes = 4;
inline constexpr std::uint32_t kReservedTag = 0xffffffff;  ///< "no tag" for ITT and TTT (RFC 7143 11.2.1.8)

using Bhs = std::array<std::byte, kBhsBytes>;

/// RFC 7143 11.2.1.2.
enum class Opcode : std::uint8_t {
  nop_out = 0x00,
  scsi_command = 0x01,
  task_management_request = 0x02,
  login_request = 0x03,
  text_request = 0x04,
  data_out = 0x05,
  logout_request = 0x06,
  snack_request = 0x10,
  nop_in = 0x20,
  scsi_response = 0x21,
  task_management_response = 0x22,
  login_response = 0x23,
  text_response = 0x24,
  data_in = 0x25,
  logout_response = 0x26,
  r2t = 0x31,
  async_message = 0x32,
  reject = 0x3f,
};

/// The six opcode bits as they came; not necessarily one of the enumerators.
[[nodiscard]] inline Opcode opcode_of(const Bhs& bhs) noexcept { return static_cast<Opcode>(bhs[0] & std::byte{0x3f}); }
[[nodiscard]] inline bool is_immediate(const Bhs& bhs) noexcept { return (bhs[0] & std::byte{0x40}) != std::byte{0}; }
[[nodiscard]] inline std::size_t ahs_bytes(const Bhs& bhs) noexcept { return std::to_integer<std::size_t>(bhs[4]) * 4; }
[[nodiscard]] inline std::uint32_t data_segment_bytes(const Bhs& bhs) noexcept { return load_be24(bhs.data() + 5); }
[[nodiscard]] inline std::size_t padding_bytes(std::size_t length_bytes) noexcept { return (0 - length_bytes) & 3; }

struct NopOut {
  bool immediate = false;
  std::uint32_t data_segment_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = kReservedTag;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
};

struct ScsiCommand {
  bool immediate = false;
  bool is_final = true;  ///< no unsolicited Data-Out follows
  bool reads = false;
  bool writes = false;
  std::uint8_t attribute = 1;  ///< 11.3.1: 0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA
  std::uint32_t data_segment_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t expected_length_bytes = 0;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
  std::array<std::byte, 16> cdb{};
};

struct TaskManagementRequest {
  bool immediate = false;
  std::uint8_t function = 0;  ///< 11.5.1
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t referenced_task_tag = kReservedTag;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
  std::uint32_t ref_cmd_sn = 0;
  std::uint32_t exp_data_sn = 0;
};

struct LoginRequest {
  bool transit = false;
  bool continues = false;
  std::uint8_t current_stage = 0;
  std::uint8_t next_stage = 0;
  std::uint8_t version_max = 0;
  std::uint8_t version_min = 0;
  std::uint32_t data_segment_bytes = 0;
  std::uint64_t isid = 0;  ///< 48 bits
  std::uint16_t tsih = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint16_t cid = 0;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
};

struct TextRequest {
  bool immediate = false;
  bool is_final = true;
  bool continues = false;
  std::uint32_t data_segment_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = kReservedTag;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
};

struct DataOut {
  bool is_final = false;
  std::uint32_t data_segment_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = kReservedTag;
  std::uint32_t exp_stat_sn = 0;
  std::uint32_t data_sn = 0;
  std::uint32_t offset_bytes = 0;
};

struct LogoutRequest {
  bool immediate = false;
  std::uint8_t reason = 0;  ///< 11.14.1: 0 close session, 1 close connection, 2 remove connection for recovery
  std::uint32_t initiator_task_tag = 0;
  std::uint16_t cid = 0;
  std::uint32_t cmd_sn = 0;
  std::uint32_t exp_stat_sn = 0;
};

struct SnackRequest {
  std::uint8_t type = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = kReservedTag;
  std::uint32_t target_transfer_tag = kReservedTag;
  std::uint32_t exp_stat_sn = 0;
  std::uint32_t begin_run = 0;
  std::uint32_t run_length = 0;
};

/// What every PDU to the initiator says about the numbering (RFC 7143 4.2.2).
struct SequenceNumbers {
  std::uint32_t stat_sn = 0;
  std::uint32_t exp_cmd_sn = 0;
  std::uint32_t max_cmd_sn = 0;
  friend bool operator==(const SequenceNumbers&, const SequenceNumbers&) = default;
};

struct NopIn {
  std::uint32_t data_segment_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = kReservedTag;
  std::uint32_t target_transfer_tag = kReservedTag;
  SequenceNumbers numbers;
};

/// RFC 7143 11.4.1, 11.7.3.
struct Residual {
  bool is_overflow = false;
  bool is_underflow = false;
  std::uint32_t count_bytes = 0;
  friend bool operator==(const Residual&, const Residual&) = default;
};

struct ScsiResponse {
  Residual residual;
  std::uint8_t response = 0;  ///< 0 completed at target, 1 target failure
  std::uint8_t status = 0;
  std::uint32_t data_segment_bytes = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t snack_tag = 0;
  SequenceNumbers numbers;
  std::uint32_t exp_data_sn = 0;  ///< number of Data-In and R2T PDUs sent for the command
};

struct TaskManagementResponse {
  std::uint8_t response = 0;  ///< 11.6.1
  std::uint32_t initiator_task_tag = 0;
  SequenceNumbers numbers;
};

struct LoginResponse {
  bool transit = false;
  bool continues = false;
  std::uint8_t current_stage = 0;
  std::uint8_t next_stage = 0;
  std::uint8_t version_max = 0;
  std::uint8_t version_active = 0;
  std::uint32_t data_segment_bytes = 0;
  std::uint64_t isid = 0;
  std::uint16_t tsih = 0;
  std::uint32_t initiator_task_tag = 0;
  SequenceNumbers numbers;
  std::uint8_t status_class = 0;
  std::uint8_t status_detail = 0;
};

struct TextResponse {
  bool is_final = true;
  bool continues = false;
  std::uint32_t data_segment_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = kReservedTag;
  SequenceNumbers numbers;
};

struct DataIn {
  bool is_final = false;
  bool acknowledge = false;
  bool has_status = false;  ///< phase collapse: status and residual are valid
  Residual residual;
  std::uint8_t status = 0;
  std::uint32_t data_segment_bytes = 0;
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = kReservedTag;
  SequenceNumbers numbers;  ///< stat_sn only with has_status
  std::uint32_t data_sn = 0;
  std::uint32_t offset_bytes = 0;
};

struct LogoutResponse {
  std::uint8_t response = 0;  ///< 11.15.1: 0 closed, 1 CID not found, 2 recovery not supported, 3 cleanup failed
  std::uint32_t initiator_task_tag = 0;
  SequenceNumbers numbers;
  std::uint16_t time2wait_s = 0;
  std::uint16_t time2retain_s = 0;
};

struct R2t {
  std::uint64_t lun = 0;
  std::uint32_t initiator_task_tag = 0;
  std::uint32_t target_transfer_tag = 0;
  SequenceNumbers numbers;  ///< stat_sn: the next one, not advanced
  std::uint32_t r2t_sn = 0;
  std::uint32_t offset_bytes = 0;
  std::uint32_t length_bytes = 0;
};

/// RFC 7143 11.9.1.
enum class AsyncEvent : std::uint8_t {
  scsi_event = 0,
  request_logout = 1,
  drops_connection = 2,
  drops_all_connections = 3,
  request_negotiation = 4,
};

/// With an event that drops something parameter1 is the CID, parameter2 Time2Wait and parameter3 Time2Retain, in
/// seconds.
struct AsyncMessage {
  std::uint32_t data_segment_bytes = 0;
  std::uint64_t lun = 0;
  SequenceNumbers numbers;
  std::uint8_t event = 0;
  std::uint8_t vendor_code = 0;
  std::uint16_t parameter1 = 0;
  std::uint16_t parameter2 = 0;
  std::uint16_t parameter3 = 0;
};

/// RFC 7143 11.17.1.
enum class RejectReason : std::uint8_t {
  data_digest_error = 0x02,
  snack_reject = 0x03,
  protocol_error = 0x04,
  command_not_supported = 0x05,
  too_many_immediate_commands = 0x06,
  task_in_progress = 0x07,
  invalid_data_ack = 0x08,
  invalid_pdu_field = 0x09,
  out_of_resources = 0x0a,
  waiting_for_logout = 0x0c,
};

struct Reject {
  std::uint8_t reason = 0;
  std::uint32_t data_segment_bytes = 0;
  SequenceNumbers numbers;
  std::uint32_t data_sn = 0;
};

[[nodiscard]] Bhs encode(const NopOut& pdu) noexcept;
[[nodiscard]] Bhs encode(const ScsiCommand& pdu) noexcept;
[[nodiscard]] Bhs encode(const TaskManagementRequest& pdu) noexcept;
[[nodiscard]] Bhs encode(const LoginRequest& pdu) noexcept;
[[nodiscard]] Bhs encode(const TextRequest& pdu) noexcept;
[[nodiscard]] Bhs encode(const DataOut& pdu) noexcept;
[[nodiscard]] Bhs encode(const LogoutRequest& pdu) noexcept;
[[nodiscard]] Bhs encode(const SnackRequest& pdu) noexcept;
[[nodiscard]] Bhs encode(const NopIn& pdu) noexcept;
[[nodiscard]] Bhs encode(const ScsiResponse& pdu) noexcept;
[[nodiscard]] Bhs encode(const TaskManagementResponse& pdu) noexcept;
[[nodiscard]] Bhs encode(const LoginResponse& pdu) noexcept;
[[nodiscard]] Bhs encode(const TextResponse& pdu) noexcept;
[[nodiscard]] Bhs encode(const DataIn& pdu) noexcept;
[[nodiscard]] Bhs encode(const LogoutResponse& pdu) noexcept;
[[nodiscard]] Bhs encode(const R2t& pdu) noexcept;
[[nodiscard]] Bhs encode(const AsyncMessage& pdu) noexcept;
[[nodiscard]] Bhs encode(const Reject& pdu) noexcept;

/// The caller has looked at opcode_of(); the fields are read as that PDU's, whatever they hold.
[[nodiscard]] NopOut decode_nop_out(const Bhs& bhs) noexcept;
[[nodiscard]] ScsiCommand decode_scsi_command(const Bhs& bhs) noexcept;
[[nodiscard]] TaskManagementRequest decode_task_management_request(const Bhs& bhs) noexcept;
[[nodiscard]] LoginRequest decode_login_request(const Bhs& bhs) noexcept;
[[nodiscard]] TextRequest decode_text_request(const Bhs& bhs) noexcept;
[[nodiscard]] DataOut decode_data_out(const Bhs& bhs) noexcept;
[[nodiscard]] LogoutRequest decode_logout_request(const Bhs& bhs) noexcept;
[[nodiscard]] SnackRequest decode_snack_request(const Bhs& bhs) noexcept;
[[nodiscard]] NopIn decode_nop_in(const Bhs& bhs) noexcept;
[[nodiscard]] ScsiResponse decode_scsi_response(const Bhs& bhs) noexcept;
[[nodiscard]] TaskManagementResponse decode_task_management_response(const Bhs& bhs) noexcept;
[[nodiscard]] LoginResponse decode_login_response(const Bhs& bhs) noexcept;
[[nodiscard]] TextResponse decode_text_response(const Bhs& bhs) noexcept;
[[nodiscard]] DataIn decode_data_in(const Bhs& bhs) noexcept;
[[nodiscard]] LogoutResponse decode_logout_response(const Bhs& bhs) noexcept;
[[nodiscard]] R2t decode_r2t(const Bhs& bhs) noexcept;
[[nodiscard]] AsyncMessage decode_async_message(const Bhs& bhs) noexcept;
[[nodiscard]] Reject decode_reject(const Bhs& bhs) noexcept;

}  // namespace replblk::iscsi
