#include "iscsi/pdu.hpp"

#include <cstring>

namespace replblk::iscsi {

namespace {

/// Writes fields into a header. Each PDU's layout stands once, in its describe(), and serves both directions.
class HeaderWriter {
 public:
  explicit HeaderWriter(Opcode opcode) noexcept { bhs_[0] = static_cast<std::byte>(opcode); }
  void bit(std::size_t at, std::uint8_t mask, const bool& value) noexcept {
    if (value) bhs_[at] |= static_cast<std::byte>(mask);
  }
  void bits(std::size_t at, unsigned shift, std::uint8_t mask, const std::uint8_t& value) noexcept {
    bhs_[at] |= static_cast<std::byte>((value & mask) << shift);
  }
  void u8(std::size_t at, const std::uint8_t& value) noexcept { bhs_[at] = static_cast<std::byte>(value); }
  void u16(std::size_t at, const std::uint16_t& value) noexcept { store_be(bhs_.data() + at, value); }
  void u24(std::size_t at, const std::uint32_t& value) noexcept { store_be24(bhs_.data() + at, value); }
  void u32(std::size_t at, const std::uint32_t& value) noexcept { store_be(bhs_.data() + at, value); }
  void u48(std::size_t at, const std::uint64_t& value) noexcept {
    store_be(bhs_.data() + at, static_cast<std::uint32_t>(value >> 16));
    store_be(bhs_.data() + at + 4, static_cast<std::uint16_t>(value));
  }
  void u64(std::size_t at, const std::uint64_t& value) noexcept { store_be(bhs_.data() + at, value); }
  void bytes16(std::size_t at, const std::array<std::byte, 16>& value) noexcept {
    std::memcpy(bhs_.data() + at, value.data(), value.size());
  }
  void constant(std::size_t at, std::uint8_t value) noexcept { bhs_[at] |= static_cast<std::byte>(value); }
  [[nodiscard]] const Bhs& bhs() const noexcept { return bhs_; }

 private:
  Bhs bhs_{};
};

class HeaderReader {
 public:
  explicit HeaderReader(const Bhs& bhs) noexcept : bhs_(bhs) {}
  void bit(std::size_t at, std::uint8_t mask, bool& value) const noexcept {
    value = (bhs_[at] & static_cast<std::byte>(mask)) != std::byte{0};
  }
  void bits(std::size_t at, unsigned shift, std::uint8_t mask, std::uint8_t& value) const noexcept {
    value = static_cast<std::uint8_t>((std::to_integer<unsigned>(bhs_[at]) >> shift) & mask);
  }
  void u8(std::size_t at, std::uint8_t& value) const noexcept { value = std::to_integer<std::uint8_t>(bhs_[at]); }
  void u16(std::size_t at, std::uint16_t& value) const noexcept { value = load_be<std::uint16_t>(bhs_.data() + at); }
  void u24(std::size_t at, std::uint32_t& value) const noexcept { value = load_be24(bhs_.data() + at); }
  void u32(std::size_t at, std::uint32_t& value) const noexcept { value = load_be<std::uint32_t>(bhs_.data() + at); }
  void u48(std::size_t at, std::uint64_t& value) const noexcept {
    value =
        (std::uint64_t{load_be<std::uint32_t>(bhs_.data() + at)} << 16) | load_be<std::uint16_t>(bhs_.data() + at + 4);
  }
  void u64(std::size_t at, std::uint64_t& value) const noexcept { value = load_be<std::uint64_t>(bhs_.data() + at); }
  void bytes16(std::size_t at, std::array<std::byte, 16>& value) const noexcept {
    std::memcpy(value.data(), bhs_.data() + at, value.size());
  }
  void constant(std::size_t, std::uint8_t) const noexcept {}

 private:
  const Bhs& bhs_;
};

template <class Io, class Numbers>
void describe_numbers(Io& io, Numbers& numbers) noexcept {
  io.u32(24, numbers.stat_sn);
  io.u32(28, numbers.exp_cmd_sn);
  io.u32(32, numbers.max_cmd_sn);
}

// 11.18
template <class Io, class Pdu>
void describe_nop_out(Io& io, Pdu& pdu) noexcept {
  io.bit(0, 0x40, pdu.immediate);
  io.constant(1, 0x80);
  io.u24(5, pdu.data_segment_bytes);
  io.u64(8, pdu.lun);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.target_transfer_tag);
  io.u32(24, pdu.cmd_sn);
  io.u32(28, pdu.exp_stat_sn);
}

// 11.3
template <class Io, class Pdu>
void describe_scsi_command(Io& io, Pdu& pdu) noexcept {
  io.bit(0, 0x40, pdu.immediate);
  io.bit(1, 0x80, pdu.is_final);
  io.bit(1, 0x40, pdu.reads);
  io.bit(1, 0x20, pdu.writes);
  io.bits(1, 0, 0x07, pdu.attribute);
  io.u24(5, pdu.data_segment_bytes);
  io.u64(8, pdu.lun);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.expected_length_bytes);
  io.u32(24, pdu.cmd_sn);
  io.u32(28, pdu.exp_stat_sn);
  io.bytes16(32, pdu.cdb);
}

// 11.5
template <class Io, class Pdu>
void describe_task_management_request(Io& io, Pdu& pdu) noexcept {
  io.bit(0, 0x40, pdu.immediate);
  io.constant(1, 0x80);
  io.bits(1, 0, 0x7f, pdu.function);
  io.u64(8, pdu.lun);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.referenced_task_tag);
  io.u32(24, pdu.cmd_sn);
  io.u32(28, pdu.exp_stat_sn);
  io.u32(32, pdu.ref_cmd_sn);
  io.u32(36, pdu.exp_data_sn);
}

// 11.12
template <class Io, class Pdu>
void describe_login_request(Io& io, Pdu& pdu) noexcept {
  io.constant(0, 0x40);
  io.bit(1, 0x80, pdu.transit);
  io.bit(1, 0x40, pdu.continues);
  io.bits(1, 2, 0x03, pdu.current_stage);
  io.bits(1, 0, 0x03, pdu.next_stage);
  io.u8(2, pdu.version_max);
  io.u8(3, pdu.version_min);
  io.u24(5, pdu.data_segment_bytes);
  io.u48(8, pdu.isid);
  io.u16(14, pdu.tsih);
  io.u32(16, pdu.initiator_task_tag);
  io.u16(20, pdu.cid);
  io.u32(24, pdu.cmd_sn);
  io.u32(28, pdu.exp_stat_sn);
}

// 11.10
template <class Io, class Pdu>
void describe_text_request(Io& io, Pdu& pdu) noexcept {
  io.bit(0, 0x40, pdu.immediate);
  io.bit(1, 0x80, pdu.is_final);
  io.bit(1, 0x40, pdu.continues);
  io.u24(5, pdu.data_segment_bytes);
  io.u64(8, pdu.lun);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.target_transfer_tag);
  io.u32(24, pdu.cmd_sn);
  io.u32(28, pdu.exp_stat_sn);
}

// 11.7
template <class Io, class Pdu>
void describe_data_out(Io& io, Pdu& pdu) noexcept {
  io.bit(1, 0x80, pdu.is_final);
  io.u24(5, pdu.data_segment_bytes);
  io.u64(8, pdu.lun);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.target_transfer_tag);
  io.u32(28, pdu.exp_stat_sn);
  io.u32(36, pdu.data_sn);
  io.u32(40, pdu.offset_bytes);
}

// 11.14
template <class Io, class Pdu>
void describe_logout_request(Io& io, Pdu& pdu) noexcept {
  io.bit(0, 0x40, pdu.immediate);
  io.constant(1, 0x80);
  io.bits(1, 0, 0x7f, pdu.reason);
  io.u32(16, pdu.initiator_task_tag);
  io.u16(20, pdu.cid);
  io.u32(24, pdu.cmd_sn);
  io.u32(28, pdu.exp_stat_sn);
}

// 11.16
template <class Io, class Pdu>
void describe_snack_request(Io& io, Pdu& pdu) noexcept {
  io.constant(1, 0x80);
  io.bits(1, 0, 0x0f, pdu.type);
  io.u64(8, pdu.lun);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.target_transfer_tag);
  io.u32(28, pdu.exp_stat_sn);
  io.u32(40, pdu.begin_run);
  io.u32(44, pdu.run_length);
}

// 11.19
template <class Io, class Pdu>
void describe_nop_in(Io& io, Pdu& pdu) noexcept {
  io.constant(1, 0x80);
  io.u24(5, pdu.data_segment_bytes);
  io.u64(8, pdu.lun);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.target_transfer_tag);
  describe_numbers(io, pdu.numbers);
}

template <class Io, class Value>
void describe_residual(Io& io, Value& residual) noexcept {
  io.bit(1, 0x04, residual.is_overflow);
  io.bit(1, 0x02, residual.is_underflow);
  io.u32(44, residual.count_bytes);
}

// 11.4
template <class Io, class Pdu>
void describe_scsi_response(Io& io, Pdu& pdu) noexcept {
  io.constant(1, 0x80);
  io.u8(2, pdu.response);
  io.u8(3, pdu.status);
  io.u24(5, pdu.data_segment_bytes);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.snack_tag);
  describe_numbers(io, pdu.numbers);
  io.u32(36, pdu.exp_data_sn);
  describe_residual(io, pdu.residual);
}

// 11.6
template <class Io, class Pdu>
void describe_task_management_response(Io& io, Pdu& pdu) noexcept {
  io.constant(1, 0x80);
  io.u8(2, pdu.response);
  io.u32(16, pdu.initiator_task_tag);
  describe_numbers(io, pdu.numbers);
}

// 11.13
template <class Io, class Pdu>
void describe_login_response(Io& io, Pdu& pdu) noexcept {
  io.bit(1, 0x80, pdu.transit);
  io.bit(1, 0x40, pdu.continues);
  io.bits(1, 2, 0x03, pdu.current_stage);
  io.bits(1, 0, 0x03, pdu.next_stage);
  io.u8(2, pdu.version_max);
  io.u8(3, pdu.version_active);
  io.u24(5, pdu.data_segment_bytes);
  io.u48(8, pdu.isid);
  io.u16(14, pdu.tsih);
  io.u32(16, pdu.initiator_task_tag);
  describe_numbers(io, pdu.numbers);
  io.u8(36, pdu.status_class);
  io.u8(37, pdu.status_detail);
}

// 11.11
template <class Io, class Pdu>
void describe_text_response(Io& io, Pdu& pdu) noexcept {
  io.bit(1, 0x80, pdu.is_final);
  io.bit(1, 0x40, pdu.continues);
  io.u24(5, pdu.data_segment_bytes);
  io.u64(8, pdu.lun);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.target_transfer_tag);
  describe_numbers(io, pdu.numbers);
}

// 11.7
template <class Io, class Pdu>
void describe_data_in(Io& io, Pdu& pdu) noexcept {
  io.bit(1, 0x80, pdu.is_final);
  io.bit(1, 0x40, pdu.acknowledge);
  io.bit(1, 0x01, pdu.has_status);
  io.u8(3, pdu.status);
  io.u24(5, pdu.data_segment_bytes);
  io.u64(8, pdu.lun);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.target_transfer_tag);
  describe_numbers(io, pdu.numbers);
  io.u32(36, pdu.data_sn);
  io.u32(40, pdu.offset_bytes);
  describe_residual(io, pdu.residual);
}

// 11.15
template <class Io, class Pdu>
void describe_logout_response(Io& io, Pdu& pdu) noexcept {
  io.constant(1, 0x80);
  io.u8(2, pdu.response);
  io.u32(16, pdu.initiator_task_tag);
  describe_numbers(io, pdu.numbers);
  io.u16(40, pdu.time2wait_s);
  io.u16(42, pdu.time2retain_s);
}

// 11.8
template <class Io, class Pdu>
void describe_r2t(Io& io, Pdu& pdu) noexcept {
  io.constant(1, 0x80);
  io.u64(8, pdu.lun);
  io.u32(16, pdu.initiator_task_tag);
  io.u32(20, pdu.target_transfer_tag);
  describe_numbers(io, pdu.numbers);
  io.u32(36, pdu.r2t_sn);
  io.u32(40, pdu.offset_bytes);
  io.u32(44, pdu.length_bytes);
}

// 11.9
template <class Io, class Pdu>
void describe_async_message(Io& io, Pdu& pdu) noexcept {
  io.constant(1, 0x80);
  io.u24(5, pdu.data_segment_bytes);
  io.u64(8, pdu.lun);
  for (std::size_t at = 16; at < 20; ++at) io.constant(at, 0xff);
  describe_numbers(io, pdu.numbers);
  io.u8(36, pdu.event);
  io.u8(37, pdu.vendor_code);
  io.u16(38, pdu.parameter1);
  io.u16(40, pdu.parameter2);
  io.u16(42, pdu.parameter3);
}

// 11.17
template <class Io, class Pdu>
void describe_reject(Io& io, Pdu& pdu) noexcept {
  io.constant(1, 0x80);
  io.u8(2, pdu.reason);
  io.u24(5, pdu.data_segment_bytes);
  for (std::size_t at = 16; at < 20; ++at) io.constant(at, 0xff);
  describe_numbers(io, pdu.numbers);
  io.u32(36, pdu.data_sn);
}

}  // namespace

Bhs encode(const NopOut& pdu) noexcept {
  HeaderWriter io(Opcode::nop_out);
  describe_nop_out(io, pdu);
  return io.bhs();
}
Bhs encode(const ScsiCommand& pdu) noexcept {
  HeaderWriter io(Opcode::scsi_command);
  describe_scsi_command(io, pdu);
  return io.bhs();
}
Bhs encode(const TaskManagementRequest& pdu) noexcept {
  HeaderWriter io(Opcode::task_management_request);
  describe_task_management_request(io, pdu);
  return io.bhs();
}
Bhs encode(const LoginRequest& pdu) noexcept {
  HeaderWriter io(Opcode::login_request);
  describe_login_request(io, pdu);
  return io.bhs();
}
Bhs encode(const TextRequest& pdu) noexcept {
  HeaderWriter io(Opcode::text_request);
  describe_text_request(io, pdu);
  return io.bhs();
}
Bhs encode(const DataOut& pdu) noexcept {
  HeaderWriter io(Opcode::data_out);
  describe_data_out(io, pdu);
  return io.bhs();
}
Bhs encode(const LogoutRequest& pdu) noexcept {
  HeaderWriter io(Opcode::logout_request);
  describe_logout_request(io, pdu);
  return io.bhs();
}
Bhs encode(const SnackRequest& pdu) noexcept {
  HeaderWriter io(Opcode::snack_request);
  describe_snack_request(io, pdu);
  return io.bhs();
}
Bhs encode(const NopIn& pdu) noexcept {
  HeaderWriter io(Opcode::nop_in);
  describe_nop_in(io, pdu);
  return io.bhs();
}
Bhs encode(const ScsiResponse& pdu) noexcept {
  HeaderWriter io(Opcode::scsi_response);
  describe_scsi_response(io, pdu);
  return io.bhs();
}
Bhs encode(const TaskManagementResponse& pdu) noexcept {
  HeaderWriter io(Opcode::task_management_response);
  describe_task_management_response(io, pdu);
  return io.bhs();
}
Bhs encode(const LoginResponse& pdu) noexcept {
  HeaderWriter io(Opcode::login_response);
  describe_login_response(io, pdu);
  return io.bhs();
}
Bhs encode(const TextResponse& pdu) noexcept {
  HeaderWriter io(Opcode::text_response);
  describe_text_response(io, pdu);
  return io.bhs();
}
Bhs encode(const DataIn& pdu) noexcept {
  HeaderWriter io(Opcode::data_in);
  describe_data_in(io, pdu);
  return io.bhs();
}
Bhs encode(const LogoutResponse& pdu) noexcept {
  HeaderWriter io(Opcode::logout_response);
  describe_logout_response(io, pdu);
  return io.bhs();
}
Bhs encode(const R2t& pdu) noexcept {
  HeaderWriter io(Opcode::r2t);
  describe_r2t(io, pdu);
  return io.bhs();
}
Bhs encode(const AsyncMessage& pdu) noexcept {
  HeaderWriter io(Opcode::async_message);
  describe_async_message(io, pdu);
  return io.bhs();
}
Bhs encode(const Reject& pdu) noexcept {
  HeaderWriter io(Opcode::reject);
  describe_reject(io, pdu);
  return io.bhs();
}
NopOut decode_nop_out(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  NopOut pdu;
  describe_nop_out(io, pdu);
  return pdu;
}
ScsiCommand decode_scsi_command(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  ScsiCommand pdu;
  describe_scsi_command(io, pdu);
  return pdu;
}
TaskManagementRequest decode_task_management_request(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  TaskManagementRequest pdu;
  describe_task_management_request(io, pdu);
  return pdu;
}
LoginRequest decode_login_request(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  LoginRequest pdu;
  describe_login_request(io, pdu);
  return pdu;
}
TextRequest decode_text_request(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  TextRequest pdu;
  describe_text_request(io, pdu);
  return pdu;
}
DataOut decode_data_out(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  DataOut pdu;
  describe_data_out(io, pdu);
  return pdu;
}
LogoutRequest decode_logout_request(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  LogoutRequest pdu;
  describe_logout_request(io, pdu);
  return pdu;
}
SnackRequest decode_snack_request(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  SnackRequest pdu;
  describe_snack_request(io, pdu);
  return pdu;
}
NopIn decode_nop_in(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  NopIn pdu;
  describe_nop_in(io, pdu);
  return pdu;
}
ScsiResponse decode_scsi_response(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  ScsiResponse pdu;
  describe_scsi_response(io, pdu);
  return pdu;
}
TaskManagementResponse decode_task_management_response(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  TaskManagementResponse pdu;
  describe_task_management_response(io, pdu);
  return pdu;
}
LoginResponse decode_login_response(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  LoginResponse pdu;
  describe_login_response(io, pdu);
  return pdu;
}
TextResponse decode_text_response(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  TextResponse pdu;
  describe_text_response(io, pdu);
  return pdu;
}
DataIn decode_data_in(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  DataIn pdu;
  describe_data_in(io, pdu);
  return pdu;
}
LogoutResponse decode_logout_response(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  LogoutResponse pdu;
  describe_logout_response(io, pdu);
  return pdu;
}
R2t decode_r2t(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  R2t pdu;
  describe_r2t(io, pdu);
  return pdu;
}
AsyncMessage decode_async_message(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  AsyncMessage pdu;
  describe_async_message(io, pdu);
  return pdu;
}
Reject decode_reject(const Bhs& bhs) noexcept {
  const HeaderReader io(bhs);
  Reject pdu;
  describe_reject(io, pdu);
  return pdu;
}

}  // namespace replblk::iscsi
