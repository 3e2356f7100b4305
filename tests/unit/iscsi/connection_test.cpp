// What a connection does besides commands: login by pieces, time-outs, pings, logout, rejects, limits.
#include <gtest/gtest.h>

#include "iscsi_fixture.hpp"

namespace replblk::iscsi::test {
namespace {

class ConnectionTest : public IscsiTest {
 protected:
  Initiator& initiator = make_initiator();
};

// If it failed, a slow network would make logins and commands impossible.
TEST_F(ConnectionTest, Understands_login_and_command_byte_by_byte) {
  connect(initiator);
  const std::string text =
      keys({"InitiatorName=iqn.2026-11.org.example:host", "TargetName=iqn.2026-11.org.example:disk"});
  std::vector<std::byte> bytes = initiator.pack(encode(initiator.login_request(1, 3, 1)), as_bytes(text));
  for (const std::byte byte : bytes) initiator.wire.deliver(ConstBytes(&byte, 1));
  loop.run();
  EXPECT_EQ(initiator.take_answers().size(), 1u);
  (void)exchange(initiator, initiator.test_unit_ready());
  bytes = initiator.pack(encode(initiator.write10(0, 1)), pattern(512, 3));
  for (const std::byte byte : bytes) initiator.wire.deliver(ConstBytes(&byte, 1));
  loop.run();
  EXPECT_EQ(decode_scsi_response(initiator.take_answer().bhs).status, 0);
  EXPECT_EQ(disk.data[5], pattern(512, 3)[5]);
}

// If it failed, a port scanner would be kept as a connection, or bring the target down.
TEST_F(ConnectionTest, Anything_but_a_login_first_ends_the_connection) {
  for (const unsigned garbage : {0x00u, 0x01u, 0x47u, 0xffu}) {
    Initiator& one = make_initiator();
    connect(one);
    one.wire.deliver(std::vector<std::byte>(2000, static_cast<std::byte>(garbage)));
    loop.run();
    EXPECT_TRUE(one.wire.is_over()) << garbage;
  }
  EXPECT_EQ(portal->connection_count(), 0u);
}

// If it failed, silent connections would use up all places.
TEST_F(ConnectionTest, A_connection_that_does_not_log_in_is_dropped) {
  connect(initiator);
  loop.advance(milliseconds(14900));
  EXPECT_FALSE(initiator.wire.is_over());
  loop.advance(milliseconds(200));
  EXPECT_TRUE(initiator.wire.is_aborted);
}

// If it failed, anybody could fill memory with connections.
TEST_F(ConnectionTest, The_number_of_connections_before_login_is_bounded) {
  for (int count = 0; count < 64; ++count) connect(make_initiator());
  Initiator& one_more = make_initiator();
  connect(one_more);
  EXPECT_TRUE(one_more.wire.is_over());
  EXPECT_EQ(portal->connection_count(), 64u);
}

// If it failed, a vanished initiator would keep its session, and its reservation, until TCP gives up.
TEST_F(ConnectionTest, A_silent_initiator_is_pinged_and_dropped) {
  log_in_ready(initiator);
  loop.advance(milliseconds(4900));
  EXPECT_TRUE(initiator.take_answers().empty());
  loop.advance(milliseconds(200));
  const NopIn ping = decode_nop_in(initiator.take_answer().bhs);
  EXPECT_EQ(ping.initiator_task_tag, kReservedTag);
  EXPECT_NE(ping.target_transfer_tag, kReservedTag);
  // Answered: it lives.
  NopOut pong;
  pong.immediate = true;
  pong.initiator_task_tag = kReservedTag;
  pong.target_transfer_tag = ping.target_transfer_tag;
  pong.cmd_sn = initiator.cmd_sn;
  initiator.send(encode(pong));
  loop.advance(milliseconds(5050));
  EXPECT_FALSE(initiator.wire.is_over());
  EXPECT_EQ(initiator.take_answers().size(), 1u) << "the next ping";
  // Not answered.
  loop.advance(milliseconds(5050));
  EXPECT_TRUE(initiator.wire.is_aborted);
  EXPECT_TRUE(target->is_idle());
}

// If it failed, initiators that ping (all of them) would drop us.
TEST_F(ConnectionTest, A_ping_is_echoed) {
  log_in_ready(initiator, 1, keys({"MaxRecvDataSegmentLength=512"}));
  NopOut ping;
  ping.immediate = true;
  ping.initiator_task_tag = 0x99;
  ping.cmd_sn = initiator.cmd_sn;
  initiator.send(encode(ping), pattern(600, 1));
  const Answer answer = initiator.take_answer();
  EXPECT_EQ(decode_nop_in(answer.bhs).initiator_task_tag, 0x99u);
  EXPECT_EQ(answer.data.size(), 512u) << "no more than the initiator takes";
  EXPECT_TRUE(std::equal(answer.data.begin(), answer.data.end(), pattern(600, 1).begin()));
}

// If it failed, an orderly end would look like a failure to one side.
TEST_F(ConnectionTest, A_logout_is_answered_and_closes) {
  log_in_ready(initiator);
  LogoutRequest logout;
  logout.immediate = true;
  logout.initiator_task_tag = 0x55;
  logout.cmd_sn = initiator.cmd_sn;
  initiator.send(encode(logout));
  loop.run();
  EXPECT_EQ(decode_logout_response(initiator.take_answer().bhs).response, 0);
  EXPECT_TRUE(initiator.wire.is_closed);
  EXPECT_TRUE(target->is_idle());
}

// If it failed, a write could land after the initiator was told that its session is over.
TEST_F(ConnectionTest, A_logout_waits_for_commands_at_the_disk) {
  log_in_ready(initiator);
  disk.is_held = true;
  initiator.send(encode(initiator.write10(0, 1)), pattern(512, 1));
  loop.run();
  LogoutRequest logout;
  logout.immediate = true;
  logout.initiator_task_tag = 0x55;
  logout.cmd_sn = initiator.cmd_sn;
  initiator.send(encode(logout));
  loop.run();
  EXPECT_TRUE(initiator.take_answers().empty());
  disk.complete_all();
  loop.run();
  EXPECT_EQ(initiator.take_answer().opcode(), Opcode::logout_response);
  EXPECT_TRUE(initiator.wire.is_closed);
}

// If it failed, an initiator that tries a feature that we lack would hang without an answer.
TEST_F(ConnectionTest, What_is_not_offered_is_rejected_with_its_header) {
  log_in_ready(initiator);
  SnackRequest snack;
  snack.begin_run = 1;
  initiator.send(encode(snack));
  Answer answer = initiator.take_answer();
  EXPECT_EQ(answer.opcode(), Opcode::reject);
  EXPECT_EQ(decode_reject(answer.bhs).reason, 0x03);
  const Bhs rejected = encode(snack);
  EXPECT_EQ(answer.data, std::vector<std::byte>(rejected.begin(), rejected.end()));
  Bhs vendor = encode(NopOut{});
  vendor[0] = std::byte{0x5c};
  initiator.send(vendor, pattern(8, 1));
  answer = initiator.take_answer();
  EXPECT_EQ(decode_reject(answer.bhs).reason, 0x05);
  EXPECT_FALSE(initiator.wire.is_over());
}

// If it failed, a missing command would be passed over in silence and order lost.
TEST_F(ConnectionTest, A_gap_in_CmdSN_ends_the_connection) {
  log_in_ready(initiator);
  ++initiator.cmd_sn;
  initiator.send(encode(initiator.test_unit_ready()));
  EXPECT_TRUE(initiator.wire.is_aborted);
}

// If it failed, an initiator that does not read its answers would make our queue grow without bound.
TEST_F(ConnectionTest, Commands_wait_while_answers_are_not_taken) {
  log_in_ready(initiator);
  initiator.wire.queued_bytes = ports::Stream::kQueueHighBytes + 1;
  for (int count = 0; count < 10; ++count) initiator.send(encode(initiator.test_unit_ready()));
  loop.run();
  EXPECT_EQ(initiator.take_answers().size(), 1u);
  initiator.wire.give_room();
  loop.run();
  initiator.wire.deliver({});
  loop.run();
  EXPECT_EQ(initiator.take_answers().size(), 9u);
}

}  // namespace
}  // namespace replblk::iscsi::test
