// Commands and their data through a whole session: portal, login, target, SCSI device, memory volume.
#include <gtest/gtest.h>

#include "iscsi_fixture.hpp"

namespace replblk::iscsi::test {
namespace {

std::string fast_keys() {
  return keys({"InitialR2T=No", "ImmediateData=Yes", "MaxRecvDataSegmentLength=262144", "FirstBurstLength=65536",
               "MaxBurstLength=262144", "MaxOutstandingR2T=1"});
}

class SessionTest : public IscsiTest {
 protected:
  Initiator& initiator = make_initiator();
};

// If it failed, nothing would work: the shortest conversation there is.
TEST_F(SessionTest, Writes_immediate_data_and_reads_it_back_with_the_status_in_the_last_data) {
  log_in_ready(initiator, 1, fast_keys());
  const std::vector<std::byte> data = pattern(4096, 1);
  const std::vector<Answer> written = exchange(initiator, initiator.write10(8, 8), data);
  ASSERT_EQ(written.size(), 1u);
  const ScsiResponse status = decode_scsi_response(written[0].bhs);
  EXPECT_EQ(status.status, 0);
  EXPECT_EQ(status.residual, Residual{});
  EXPECT_EQ(status.numbers.exp_cmd_sn, initiator.cmd_sn);
  EXPECT_EQ(status.numbers.max_cmd_sn, initiator.cmd_sn + 127);

  const ScsiCommand read = initiator.read10(8, 8);
  const std::vector<Answer> answers = exchange(initiator, read);
  ASSERT_EQ(answers.size(), 1u);
  ASSERT_EQ(answers[0].opcode(), Opcode::data_in);
  const DataIn in = decode_data_in(answers[0].bhs);
  EXPECT_TRUE(in.is_final && in.has_status);
  EXPECT_EQ(in.initiator_task_tag, read.initiator_task_tag);
  EXPECT_EQ(in.numbers.stat_sn, status.numbers.stat_sn + 1);
  EXPECT_EQ(answers[0].data, data);
}

// If it failed, writes larger than the first burst would hang, or be stored in the wrong place.
TEST_F(SessionTest, Collects_unsolicited_and_solicited_data) {
  log_in_ready(initiator, 1, fast_keys());
  const std::vector<std::byte> data = pattern(400 * 1024, 2);
  ScsiCommand write = initiator.write10(0, 800);
  write.is_final = false;
  initiator.send(encode(write), ConstBytes(data).first(8192));
  DataOut unasked;
  unasked.initiator_task_tag = write.initiator_task_tag;
  unasked.offset_bytes = 8192;
  unasked.is_final = true;
  initiator.send(encode(unasked), ConstBytes(data).subspan(8192, 65536 - 8192));
  loop.run();
  std::uint32_t offset = 65536;
  for (std::uint32_t r2t_sn = 0; r2t_sn < 2; ++r2t_sn) {
    const Answer answer = initiator.take_answer();
    ASSERT_EQ(answer.opcode(), Opcode::r2t);
    const R2t r2t = decode_r2t(answer.bhs);
    EXPECT_EQ(r2t.r2t_sn, r2t_sn);
    EXPECT_EQ(r2t.offset_bytes, offset);
    EXPECT_EQ(r2t.length_bytes, std::min<std::size_t>(262144, data.size() - offset));
    EXPECT_NE(r2t.target_transfer_tag, kReservedTag);
    DataOut asked;
    asked.initiator_task_tag = write.initiator_task_tag;
    asked.target_transfer_tag = r2t.target_transfer_tag;
    std::uint32_t left = r2t.length_bytes;
    while (left > 0) {
      const std::uint32_t length = std::min<std::uint32_t>(left, 100000);
      asked.offset_bytes = offset;
      asked.data_segment_bytes = length;
      asked.is_final = length == left;
      const std::vector<std::byte> pdu = initiator.pack(encode(asked), ConstBytes(data).subspan(offset, length));
      // In two pieces, so that the second can go straight to its place.
      initiator.wire.deliver(ConstBytes(pdu).first(1000));
      initiator.wire.deliver(ConstBytes(pdu).subspan(1000));
      ++asked.data_sn;
      offset += length;
      left -= length;
    }
    loop.run();
  }
  const Answer status = initiator.take_answer();
  ASSERT_EQ(status.opcode(), Opcode::scsi_response);
  EXPECT_EQ(decode_scsi_response(status.bhs).status, 0);
  EXPECT_EQ(decode_scsi_response(status.bhs).exp_data_sn, 2u);
  EXPECT_TRUE(std::equal(data.begin(), data.end(), disk.data.begin()));
  EXPECT_GT(initiator.wire.direct_bytes, 200000u) << "large payloads are to be received in place";
}

// If it failed, a large read would exceed what the initiator takes in one PDU or burst.
TEST_F(SessionTest, Cuts_data_in_to_what_was_declared) {
  log_in_ready(initiator, 1, keys({"MaxRecvDataSegmentLength=4096", "MaxBurstLength=10240"}));
  for (std::size_t at = 0; at < 16384; ++at) disk.data[at] = static_cast<std::byte>(at * 3);
  const std::vector<Answer> answers = exchange(initiator, initiator.read10(0, 32));
  ASSERT_EQ(answers.size(), 5u);
  std::vector<std::byte> data;
  for (std::size_t at = 0; at < answers.size(); ++at) {
    const DataIn in = decode_data_in(answers[at].bhs);
    EXPECT_EQ(in.data_sn, at);
    EXPECT_EQ(in.offset_bytes, data.size());
    EXPECT_EQ(in.is_final, at == 2 || at == 4) << at;
    EXPECT_EQ(in.has_status, at == 4);
    data.insert(data.end(), answers[at].data.begin(), answers[at].data.end());
  }
  EXPECT_TRUE(std::equal(data.begin(), data.end(), disk.data.begin()));
}

// If it failed, digests would be offered and not honoured.
TEST_F(SessionTest, Speaks_with_digests_in_both_directions) {
  log_in_ready(initiator, 1, fast_keys() + keys({"HeaderDigest=CRC32C", "DataDigest=CRC32C"}));
  const std::vector<std::byte> data = pattern(512, 5);
  EXPECT_EQ(decode_scsi_response(exchange(initiator, initiator.write10(3, 1), data).at(0).bhs).status, 0);
  EXPECT_EQ(exchange(initiator, initiator.read10(3, 1)).at(0).data, data);
  // An odd length: padding is under the digest.
  ScsiCommand inquiry = initiator.command({0x12, 0, 0, 0, 37}, 37);
  inquiry.reads = true;
  EXPECT_EQ(exchange(initiator, inquiry).at(0).data.size(), 37u);
}

// If it failed, corrupted data would be written: at recovery level 0 the connection ends.
TEST_F(SessionTest, A_bad_data_digest_ends_the_session_and_writes_nothing) {
  log_in_ready(initiator, 1, fast_keys() + keys({"DataDigest=CRC32C"}));
  std::vector<std::byte> pdu = initiator.pack(encode(initiator.write10(0, 1)), pattern(512, 1));
  pdu[60] ^= std::byte{1};
  initiator.wire.deliver(pdu);
  loop.run();
  EXPECT_TRUE(initiator.wire.is_aborted);
  EXPECT_TRUE(target->is_idle());
  EXPECT_EQ(disk.data[0], std::byte{0});
}

// If it failed, initiators would trust bytes that never came, or libiscsi's residual tests would fail.
TEST_F(SessionTest, Reports_residuals_in_both_directions) {
  log_in_ready(initiator, 1, fast_keys());
  ScsiCommand read = initiator.read10(0, 1);
  read.expected_length_bytes = 10000;
  Answer answer = exchange(initiator, read).at(0);
  EXPECT_EQ(decode_data_in(answer.bhs).residual, (Residual{false, true, 10000 - 512}));
  EXPECT_EQ(answer.data.size(), 512u);
  read = initiator.read10(0, 2);
  read.expected_length_bytes = 512;
  answer = exchange(initiator, read).at(0);
  EXPECT_EQ(decode_data_in(answer.bhs).residual, (Residual{true, false, 512}));
  EXPECT_EQ(answer.data.size(), 512u);
  read = initiator.read10(0, 1);
  read.expected_length_bytes = 0;
  answer = exchange(initiator, read).at(0);
  EXPECT_EQ(answer.opcode(), Opcode::scsi_response);
  EXPECT_EQ(decode_scsi_response(answer.bhs).residual, (Residual{true, false, 512}));
  ScsiCommand write = initiator.write10(4, 1);
  write.expected_length_bytes = 1024;
  answer = exchange(initiator, write, pattern(1024, 9)).at(0);
  EXPECT_EQ(decode_scsi_response(answer.bhs).residual, (Residual{false, true, 512}));
  EXPECT_EQ(disk.data[5 * 512], std::byte{0}) << "what the command did not want must not be written";
}

// If it failed, a lost Data-Out PDU would be answered GOOD.
TEST_F(SessionTest, A_wrong_DataSN_fails_the_command_and_writes_nothing) {
  log_in_ready(initiator, 1, fast_keys());
  ScsiCommand write = initiator.write10(0, 2);
  write.is_final = false;
  initiator.send(encode(write), {});
  DataOut pdu;
  pdu.initiator_task_tag = write.initiator_task_tag;
  pdu.data_sn = 1;
  initiator.send(encode(pdu), pattern(512, 1));
  pdu.data_sn = 0;
  pdu.offset_bytes = 512;
  pdu.is_final = true;
  initiator.send(encode(pdu), pattern(512, 2));
  loop.run();
  const Answer answer = initiator.take_answer();
  EXPECT_EQ(decode_scsi_response(answer.bhs).status, 2);
  ASSERT_GE(answer.data.size(), 16u);
  EXPECT_EQ(answer.data[2 + 12], std::byte{0x47});
  EXPECT_EQ(disk.data[0], std::byte{0});
}

// If it failed, an initiator could write beyond its own command.
TEST_F(SessionTest, Data_out_of_place_ends_the_connection) {
  for (const bool beyond : {false, true}) {
    Initiator& one = make_initiator();
    log_in_ready(one, 1, fast_keys());
    ScsiCommand write = one.write10(0, 2);
    write.is_final = false;
    one.send(encode(write), {});
    DataOut pdu;
    pdu.initiator_task_tag = write.initiator_task_tag;
    pdu.offset_bytes = beyond ? 0 : 512;
    pdu.is_final = true;
    one.send(encode(pdu), pattern(beyond ? 1536 : 512, 1));
    loop.run();
    EXPECT_TRUE(one.wire.is_aborted);
  }
  EXPECT_TRUE(target->is_idle());
}

// If it failed, a command sent twice would be executed twice (RFC 7143 4.2.2.1).
TEST_F(SessionTest, Commands_outside_the_window_are_ignored) {
  log_in_ready(initiator, 1, fast_keys());
  ScsiCommand late = initiator.test_unit_ready();
  late.cmd_sn -= 1;
  EXPECT_TRUE(exchange(initiator, late).empty());
  ScsiCommand early = late;
  early.cmd_sn = initiator.cmd_sn + 500;
  EXPECT_TRUE(exchange(initiator, early, pattern(512, 1)).empty()) << "its data is skipped with it";
  late.cmd_sn = initiator.cmd_sn - 1;
  EXPECT_EQ(exchange(initiator, late).size(), 1u);
}

// If it failed, 128 outstanding commands (open-iscsi's cmds_max) would not be possible, or memory would have no bound.
TEST_F(SessionTest, Takes_as_many_commands_as_it_promised_and_no_more) {
  log_in_ready(initiator, 1, fast_keys());
  disk.is_held = true;
  for (int count = 0; count < 128; ++count) initiator.send(encode(initiator.read10(0, 1)));
  loop.run();
  EXPECT_EQ(disk.pending_count(), 128u);
  initiator.send(encode(initiator.read10(0, 1)));
  loop.run();
  EXPECT_EQ(disk.pending_count(), 128u) << "beyond MaxCmdSN";
  --initiator.cmd_sn;
  disk.complete_all();
  loop.run();
  const std::vector<Answer> answers = initiator.take_answers();
  ASSERT_EQ(answers.size(), 128u);
  EXPECT_EQ(decode_data_in(answers.front().bhs).numbers.max_cmd_sn, initiator.cmd_sn);
  EXPECT_EQ(decode_data_in(answers.back().bhs).numbers.max_cmd_sn, initiator.cmd_sn + 127);
}

// If it failed, two tasks would share a tag and each other's data.
TEST_F(SessionTest, A_tag_in_use_is_refused) {
  log_in_ready(initiator, 1, fast_keys());
  disk.is_held = true;
  ScsiCommand first = initiator.read10(0, 1);
  initiator.send(encode(first));
  ScsiCommand second = initiator.read10(0, 1);
  second.initiator_task_tag = first.initiator_task_tag;
  initiator.send(encode(second));
  EXPECT_TRUE(initiator.wire.is_aborted);
}

// If it failed, SCSI errors would not reach the initiator.
TEST_F(SessionTest, Sense_data_travels_with_its_length) {
  log_in_ready(initiator, 1, fast_keys());
  const Answer answer = exchange(initiator, initiator.command({0xff}, 0)).at(0);
  EXPECT_EQ(decode_scsi_response(answer.bhs).status, 2);
  ASSERT_GT(answer.data.size(), 2u);
  EXPECT_EQ(load_be<std::uint16_t>(answer.data.data()) + 2u, answer.data.size());
}

// If it failed, an error found early would be answered while data is still on its way (RFC 7143 11.4.7.2).
TEST_F(SessionTest, An_early_error_waits_for_the_end_of_unsolicited_data) {
  log_in_ready(initiator, 1, fast_keys());
  ScsiCommand write = initiator.write10(0xffff, 2);  // Beyond the end.
  write.is_final = false;
  initiator.send(encode(write), pattern(512, 1));
  loop.run();
  EXPECT_TRUE(initiator.take_answers().empty());
  DataOut pdu;
  pdu.initiator_task_tag = write.initiator_task_tag;
  pdu.offset_bytes = 512;
  pdu.is_final = true;
  initiator.send(encode(pdu), pattern(512, 1));
  loop.run();
  EXPECT_EQ(decode_scsi_response(initiator.take_answer().bhs).status, 2);
}

// If it failed, the role's loss would be answered like an error, and the initiator would give up instead of moving on.
TEST_F(SessionTest, A_dropped_command_resets_every_connection_without_an_answer) {
  log_in_ready(initiator, 1, fast_keys());
  Initiator& other = make_initiator();
  log_in_ready(other, 2, fast_keys());
  disk.is_held = true;
  initiator.send(encode(initiator.write10(0, 1)), pattern(512, 1));
  loop.run();
  disk.status = blockdev::BlockStatus::not_serving;
  disk.complete_all();
  loop.run();
  EXPECT_TRUE(initiator.wire.is_aborted && other.wire.is_aborted);
  EXPECT_EQ(initiator.take_answer().opcode(), Opcode::async_message);  // And nothing else.
  EXPECT_FALSE(target->is_serving());
  EXPECT_TRUE(target->is_idle());
}

}  // namespace
}  // namespace replblk::iscsi::test
