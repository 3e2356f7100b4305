// Task management while commands collect data, are with the disk, or are already answered.
#include <gtest/gtest.h>

#include "iscsi_fixture.hpp"

namespace replblk::iscsi::test {
namespace {

class TaskManagementTest : public IscsiTest {
 protected:
  TaskManagementTest() { log_in_ready(initiator); }

  unsigned manage(Initiator& from, const TaskManagementRequest& pdu) {
    from.send(encode(pdu));
    loop.run();
    for (const Answer& answer : from.take_answers()) {
      if (answer.opcode() == Opcode::task_management_response) {
        return decode_task_management_response(answer.bhs).response;
      }
    }
    return 1000;
  }

  Initiator& initiator = make_initiator();
};

// If it failed, a stuck disk would stop the abort too, and the initiator would reset the whole session.
TEST_F(TaskManagementTest, An_abort_is_answered_before_the_disk_returns) {
  disk.is_held = true;
  const ScsiCommand write = initiator.write10(0, 1);
  initiator.send(encode(write), pattern(512, 1));
  loop.run();
  ASSERT_EQ(disk.pending_count(), 1u);
  EXPECT_EQ(manage(initiator, initiator.function(1, write.initiator_task_tag, write.cmd_sn)), 0u);
  disk.complete_all();
  loop.run();
  EXPECT_TRUE(initiator.take_answers().empty()) << "an aborted command must not be answered";
}

// If it failed, data of an aborted write could still reach the disk, or its late Data-Out would end the session.
TEST_F(TaskManagementTest, An_aborted_write_that_waits_for_data_is_gone_and_its_late_data_is_dropped) {
  ScsiCommand write = initiator.write10(0, 1);
  initiator.send(encode(write));
  loop.run();
  const R2t r2t = decode_r2t(initiator.take_answer().bhs);
  EXPECT_EQ(manage(initiator, initiator.function(1, write.initiator_task_tag, write.cmd_sn)), 0u);
  DataOut late;
  late.initiator_task_tag = write.initiator_task_tag;
  late.target_transfer_tag = r2t.target_transfer_tag;
  late.is_final = true;
  initiator.send(encode(late), pattern(512, 1));
  loop.run();
  EXPECT_TRUE(initiator.take_answers().empty());
  EXPECT_EQ(disk.data[1], std::byte{0});
  // The tag is free again.
  ScsiCommand again = initiator.read10(0, 1);
  again.initiator_task_tag = write.initiator_task_tag;
  EXPECT_EQ(exchange(initiator, again).size(), 1u);
}

// If it failed, an initiator would take a finished write for an aborted one.
TEST_F(TaskManagementTest, An_abort_of_a_task_that_was_answered_says_so) {
  const ScsiCommand read = initiator.read10(0, 1);
  EXPECT_EQ(exchange(initiator, read).size(), 1u);
  EXPECT_EQ(manage(initiator, initiator.function(1, read.initiator_task_tag, read.cmd_sn)), 1u);
  EXPECT_EQ(manage(initiator, initiator.function(1, 0x7777, initiator.cmd_sn)), 1u)
      << "not sent yet: an initiator's error";
}

// If it failed, commands after the abort of 128 stuck ones would wait for ever: no answer would tell of the new room.
TEST_F(TaskManagementTest, A_closed_window_that_opens_without_an_answer_is_announced) {
  disk.is_held = true;
  std::vector<ScsiCommand> reads;
  for (int count = 0; count < 128; ++count) {
    reads.push_back(initiator.read10(0, 1));
    initiator.send(encode(reads.back()));
  }
  loop.run();
  for (const ScsiCommand& read : reads) {
    EXPECT_EQ(manage(initiator, initiator.function(1, read.initiator_task_tag, read.cmd_sn)), 0u);
  }
  disk.complete_all();
  loop.run();
  const std::vector<Answer> answers = initiator.take_answers();
  ASSERT_FALSE(answers.empty());
  const NopIn news = decode_nop_in(answers.front().bhs);
  EXPECT_EQ(answers.front().opcode(), Opcode::nop_in);
  EXPECT_EQ(news.target_transfer_tag, kReservedTag);
  EXPECT_EQ(news.numbers.max_cmd_sn, initiator.cmd_sn);
}

// If it failed, commands of the unit would run on after a reset, or TASK ABORTED would not reach whoever wants it.
TEST_F(TaskManagementTest, A_lun_reset_tells_other_sessions_when_TAS_is_set) {
  Initiator& other = make_initiator();
  log_in_ready(other, 2);
  // The control mode page, with TAS (SPC-4 7.5.8: byte 5, bit 6).
  ScsiCommand sense = other.command({0x1a, 0x08, 0x0a, 0, 255}, 255);
  sense.reads = true;
  std::vector<std::byte> page = exchange(other, sense).at(0).data;
  ASSERT_EQ(page.size(), 16u);
  page[0] = page[2] = std::byte{0};
  page[4 + 5] |= std::byte{0x40};
  ScsiCommand select = other.command({0x15, 0x10, 0, 0, 16}, 16);
  select.writes = true;
  ASSERT_EQ(decode_scsi_response(exchange(other, select, page).at(0).bhs).status, 0);
  other.send(encode(other.write10(0, 1)));  // Waits for its data.
  loop.run();
  (void)other.take_answers();
  EXPECT_EQ(manage(initiator, initiator.function(5)), 0u);
  const std::vector<Answer> told = other.take_answers();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(decode_scsi_response(told[0].bhs).status, 0x40);
}

// If it failed, a LUN reset would leave commands of the unit running on as if nothing had happened.
TEST_F(TaskManagementTest, A_lun_reset_ends_the_commands_of_all_sessions) {
  Initiator& other = make_initiator();
  log_in_ready(other, 2);
  disk.is_held = true;
  initiator.send(encode(initiator.read10(0, 1)));
  other.send(encode(other.write10(0, 1)));  // Waits for its data.
  loop.run();
  (void)other.take_answers();
  EXPECT_EQ(manage(initiator, initiator.function(5)), 0u);
  disk.complete_all();
  loop.run();
  EXPECT_TRUE(initiator.take_answers().empty());
  EXPECT_TRUE(other.take_answers().empty()) << "TAS is not set: it learns by a unit attention";
  EXPECT_EQ(decode_scsi_response(exchange(other, other.test_unit_ready()).at(0).bhs).status, 2);
}

// If it failed, initiators would get a wrong verdict for what we do not offer.
TEST_F(TaskManagementTest, Functions_have_the_standards_response_codes) {
  TaskManagementRequest reset = initiator.function(5);
  reset.lun = 0x0009000000000000;
  EXPECT_EQ(manage(initiator, reset), 2u);
  EXPECT_EQ(manage(initiator, initiator.function(2)), 0u);
  EXPECT_EQ(manage(initiator, initiator.function(3)), 5u);
  EXPECT_EQ(manage(initiator, initiator.function(6)), 0u);
  EXPECT_EQ(manage(initiator, initiator.function(8)), 4u);
  EXPECT_EQ(manage(initiator, initiator.function(0)), 5u);
  EXPECT_EQ(manage(initiator, initiator.function(99)), 5u);
}

// If it failed, a cold reset would leave sessions that believe in their old state (RFC 7143 11.5.1).
TEST_F(TaskManagementTest, A_cold_reset_is_answered_and_then_ends_every_session) {
  Initiator& other = make_initiator();
  log_in_ready(other, 2);
  EXPECT_EQ(manage(initiator, initiator.function(7)), 0u);
  EXPECT_TRUE(initiator.wire.is_closed);
  EXPECT_TRUE(other.wire.is_aborted);
  EXPECT_TRUE(target->is_idle());
}

}  // namespace
}  // namespace replblk::iscsi::test
