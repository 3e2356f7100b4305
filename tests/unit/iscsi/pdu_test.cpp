#include "iscsi/pdu.hpp"

#include <gtest/gtest.h>

namespace replblk::iscsi {
namespace {

template <class Pdu>
void expect_round_trip(Bhs filled, Pdu (*decode)(const Bhs&) noexcept) {
  const Bhs once = encode(decode(filled));
  EXPECT_EQ(encode(decode(once)), once);
}

// If it failed, a field would be read from another place than it is written to.
TEST(Pdu, Every_pdu_survives_decoding_and_encoding) {
  for (unsigned seed = 0; seed < 64; ++seed) {
    Bhs bhs{};
    for (std::size_t at = 0; at < bhs.size(); ++at) bhs[at] = static_cast<std::byte>(at * 37 + seed * 101);
    expect_round_trip(bhs, decode_nop_out);
    expect_round_trip(bhs, decode_scsi_command);
    expect_round_trip(bhs, decode_task_management_request);
    expect_round_trip(bhs, decode_login_request);
    expect_round_trip(bhs, decode_text_request);
    expect_round_trip(bhs, decode_data_out);
    expect_round_trip(bhs, decode_logout_request);
    expect_round_trip(bhs, decode_snack_request);
    expect_round_trip(bhs, decode_nop_in);
    expect_round_trip(bhs, decode_scsi_response);
    expect_round_trip(bhs, decode_task_management_response);
    expect_round_trip(bhs, decode_login_response);
    expect_round_trip(bhs, decode_text_response);
    expect_round_trip(bhs, decode_data_in);
    expect_round_trip(bhs, decode_logout_response);
    expect_round_trip(bhs, decode_r2t);
    expect_round_trip(bhs, decode_async_message);
    expect_round_trip(bhs, decode_reject);
  }
}

// If it failed, real initiators would not understand commands and answers (layouts of RFC 7143 11.3, 11.7, 11.8).
TEST(Pdu, Fields_stand_where_the_standard_puts_them) {
  ScsiCommand command;
  command.immediate = true;
  command.is_final = true;
  command.writes = true;
  command.attribute = 2;
  command.lun = 0x0001000000000000;
  command.initiator_task_tag = 0x01020304;
  command.expected_length_bytes = 0x00010000;
  command.cmd_sn = 7;
  command.exp_stat_sn = 8;
  command.cdb[0] = std::byte{0x2a};
  const Bhs bhs = encode(command);
  EXPECT_EQ(bhs[0], std::byte{0x41});
  EXPECT_EQ(bhs[1], std::byte{0xa2});
  EXPECT_EQ(bhs[9], std::byte{0x01});
  EXPECT_EQ(load_be<std::uint32_t>(&bhs[16]), 0x01020304u);
  EXPECT_EQ(load_be<std::uint32_t>(&bhs[20]), 0x00010000u);
  EXPECT_EQ(load_be<std::uint32_t>(&bhs[24]), 7u);
  EXPECT_EQ(load_be<std::uint32_t>(&bhs[28]), 8u);
  EXPECT_EQ(bhs[32], std::byte{0x2a});

  DataIn data_in;
  data_in.is_final = data_in.has_status = true;
  data_in.residual = {false, true, 512};
  data_in.data_sn = 3;
  data_in.offset_bytes = 4096;
  const Bhs in = encode(data_in);
  EXPECT_EQ(in[0], std::byte{0x25});
  EXPECT_EQ(in[1], std::byte{0x83});
  EXPECT_EQ(load_be<std::uint32_t>(&in[20]), kReservedTag);
  EXPECT_EQ(load_be<std::uint32_t>(&in[36]), 3u);
  EXPECT_EQ(load_be<std::uint32_t>(&in[40]), 4096u);
  EXPECT_EQ(load_be<std::uint32_t>(&in[44]), 512u);

  LoginRequest login;
  login.isid = 0x800001020304;
  login.cid = 0x0506;
  const Bhs request = encode(login);
  EXPECT_EQ(request[0], std::byte{0x43});
  EXPECT_EQ(request[8], std::byte{0x80});
  EXPECT_EQ(request[13], std::byte{0x04});
  EXPECT_EQ(request[20], std::byte{0x05});
}

}  // namespace
}  // namespace replblk::iscsi
