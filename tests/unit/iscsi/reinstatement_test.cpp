// No ghosts: what happens to the commands of a session that is gone, and when its successor may begin.
#include <gtest/gtest.h>

#include "iscsi_fixture.hpp"

namespace replblk::iscsi::test {
namespace {

class ReinstatementTest : public IscsiTest {
 protected:
  explicit ReinstatementTest(TargetConfig config = {}) : IscsiTest(std::move(config)) {}
  /// A second login of the same initiator port; its answers are not looked at.
  Initiator& log_in_again(std::uint64_t isid = 1) {
    Initiator& successor = make_initiator();
    connect(successor);
    successor.send(
        encode(successor.login_request(1, 3, isid)),
        as_bytes(keys({"InitiatorName=iqn.2026-11.org.example:host", "TargetName=iqn.2026-11.org.example:disk"})));
    loop.run();
    return successor;
  }

  Initiator& first = make_initiator();
};

// If it failed, a write of the old session could land after the new session has read or written the same block.
TEST_F(ReinstatementTest, The_new_login_is_answered_only_after_the_old_writes_have_come_back) {
  log_in_ready(first);
  disk.is_held = true;
  first.send(encode(first.write10(0, 1)), pattern(512, 1));
  first.send(encode(first.write10(8, 1)));  // Waits for its data.
  loop.run();
  ASSERT_EQ(disk.pending_count(), 1u);

  Initiator& successor = log_in_again();
  EXPECT_TRUE(first.wire.is_aborted) << "the old connection ends at once";
  EXPECT_TRUE(successor.take_answers().empty()) << "the old write is still with the disk";
  EXPECT_FALSE(successor.wire.is_over());
  loop.advance(seconds(60));
  EXPECT_TRUE(successor.take_answers().empty()) << "the wait is bounded by the initiator, not by us";
  ASSERT_EQ(target->sessions().size(), 1u);
  EXPECT_TRUE(target->sessions()[0].is_ending);

  disk.complete_all();
  loop.run();
  const LoginResponse answer = decode_login_response(successor.take_answer().bhs);
  EXPECT_EQ(answer.status_class, 0);
  EXPECT_EQ(answer.next_stage, 3);
  EXPECT_EQ(target->sessions().size(), 1u);
}

// If it failed, late data of the old connection would be written after the new session began.
TEST_F(ReinstatementTest, Late_data_of_the_old_connection_is_dropped) {
  log_in_ready(first);
  const ScsiCommand write = first.write10(0, 1);
  first.send(encode(write));
  loop.run();
  const R2t r2t = decode_r2t(first.take_answer().bhs);
  Initiator& successor = log_in_again();
  EXPECT_EQ(successor.take_answers().size(), 1u);
  DataOut late;
  late.initiator_task_tag = write.initiator_task_tag;
  late.target_transfer_tag = r2t.target_transfer_tag;
  late.is_final = true;
  first.send(encode(late), pattern(512, 1));
  loop.run();
  EXPECT_EQ(disk.data[1], std::byte{0});
}

// If it failed, a command that was waiting in order behind others would be executed for a session that is gone.
TEST_F(ReinstatementTest, Commands_not_yet_at_the_disk_never_get_there) {
  log_in_ready(first);
  disk.is_held = true;
  first.send(encode(first.write10(0, 1)), pattern(512, 1));
  ScsiCommand ordered = first.write10(1, 1);
  ordered.attribute = 2;
  first.send(encode(ordered), pattern(512, 2));
  loop.run();
  ASSERT_EQ(disk.pending_count(), 1u) << "the ordered one waits";
  Initiator& successor = log_in_again();
  disk.is_held = false;
  disk.complete_all();
  loop.run();
  EXPECT_EQ(successor.take_answers().size(), 1u);
  EXPECT_EQ(disk.data[512 + 1], std::byte{0});
}

// If it failed, an initiator that gives up its login would leave a waiting login behind, or one that never ends.
TEST_F(ReinstatementTest, A_waiting_login_whose_initiator_goes_is_forgotten) {
  log_in_ready(first);
  disk.is_held = true;
  first.send(encode(first.write10(0, 1)), pattern(512, 1));
  loop.run();
  Initiator& second = log_in_again();
  second.wire.close_by_peer();
  loop.run();
  EXPECT_EQ(portal->connection_count(), 0u);
  Initiator& third = log_in_again();
  Initiator& fourth = log_in_again();
  EXPECT_TRUE(third.wire.is_over()) << "the last login counts";
  EXPECT_FALSE(fourth.wire.is_over());
  disk.complete_all();
  loop.run();
  EXPECT_EQ(fourth.take_answers().size(), 1u);
}

// If it failed, a peer could fill memory while its login waits.
TEST_F(ReinstatementTest, Data_sent_before_the_login_is_answered_ends_the_connection) {
  log_in_ready(first);
  disk.is_held = true;
  first.send(encode(first.write10(0, 1)), pattern(512, 1));
  loop.run();
  Initiator& second = log_in_again();
  second.send(encode(second.test_unit_ready()));
  EXPECT_TRUE(second.wire.is_aborted);
}

// If it failed, a node that lost its role in the meantime would serve a session.
TEST_F(ReinstatementTest, A_waiting_login_is_refused_when_the_target_stops_serving) {
  log_in_ready(first);
  disk.is_held = true;
  first.send(encode(first.write10(0, 1)), pattern(512, 1));
  loop.run();
  Initiator& second = log_in_again();
  target->set_serving(false);
  disk.complete_all();
  loop.run();
  const LoginResponse answer = decode_login_response(second.take_answer().bhs);
  EXPECT_EQ(answer.status_class, 3);
  EXPECT_EQ(answer.status_detail, 1);
}

// If it failed, initiators that come a moment before the role would be refused, and open-iscsi then waits for 2 s.
TEST_F(ReinstatementTest, A_login_waits_for_the_role_that_is_on_its_way) {
  target->set_serving(false);
  target->set_role_expected(true);
  Initiator& early = log_in_again();
  EXPECT_TRUE(early.take_answers().empty());
  target->set_serving(true);
  target->set_role_expected(false);
  loop.run();
  EXPECT_EQ(decode_login_response(early.take_answer().bhs).status_class, 0);
  EXPECT_EQ(target->session_count(), 1u);
}

// If it failed, a role that never comes would hold initiators that could be served elsewhere.
TEST_F(ReinstatementTest, A_login_waits_a_second_for_the_role_and_not_again) {
  target->set_serving(false);
  target->set_role_expected(true);
  loop.advance(milliseconds(600));
  Initiator& first_one = log_in_again(1);
  Initiator& last_one = log_in_again(1);
  EXPECT_TRUE(first_one.wire.is_aborted) << "the last login counts";
  loop.advance(milliseconds(399));
  EXPECT_TRUE(last_one.take_answers().empty());
  loop.advance(milliseconds(2));
  EXPECT_EQ(decode_login_response(last_one.take_answer().bhs).status_class, 3);
  target->set_role_expected(true);
  EXPECT_EQ(decode_login_response(log_in_again(2).take_answer().bhs).status_class, 3);
}

// If it failed, a login that waits behind a slow disk would wait there for a role that is elsewhere.
TEST_F(ReinstatementTest, A_login_that_waits_for_an_old_session_too_is_refused_when_the_role_goes_elsewhere) {
  log_in_ready(first);
  disk.is_held = true;
  first.send(encode(first.write10(0, 1)), pattern(512, 1));
  loop.run();
  target->set_serving(false);
  target->drop_all("the role was lost");
  target->set_role_expected(true);
  Initiator& early = log_in_again();
  target->set_role_expected(false);
  loop.run();
  EXPECT_EQ(decode_login_response(early.take_answer().bhs).status_class, 3);
  disk.complete_all();
  loop.run();
}

// If it failed, a node that does not get the role after all would keep them.
TEST_F(ReinstatementTest, A_login_that_waits_for_the_role_is_refused_when_it_goes_elsewhere) {
  target->set_serving(false);
  target->set_role_expected(true);
  Initiator& early = log_in_again();
  target->set_role_expected(false);
  loop.run();
  EXPECT_EQ(decode_login_response(early.take_answer().bhs).status_class, 3);
}

// If it failed, multipath would not work: each ISID is a session of its own.
TEST_F(ReinstatementTest, Another_isid_is_another_session) {
  log_in_ready(first, 1);
  Initiator& second = make_initiator();
  log_in_ready(second, 2);
  EXPECT_EQ(target->session_count(), 2u);
  EXPECT_FALSE(first.wire.is_over());
}

// If it failed, a second connection would be let into a session that can have one only (RFC 7143 6.3.1).
TEST_F(ReinstatementTest, A_tsih_finds_no_place_in_a_session) {
  log_in_ready(first, 1);
  for (const std::uint16_t tsih : {std::uint16_t{1}, std::uint16_t{999}}) {
    Initiator& second = make_initiator();
    connect(second);
    LoginRequest request = second.login_request(1, 3, 1);
    request.tsih = tsih;
    second.send(
        encode(request),
        as_bytes(keys({"InitiatorName=iqn.2026-11.org.example:host", "TargetName=iqn.2026-11.org.example:disk"})));
    loop.run();
    const LoginResponse answer = decode_login_response(second.take_answer().bhs);
    EXPECT_EQ(answer.status_class, 2);
    EXPECT_EQ(answer.status_detail, tsih == 1 ? 0x06 : 0x0a);
  }
  EXPECT_FALSE(first.wire.is_over());
}

// If it failed, a node that lost its role would go on answering for as long as a disk or an initiator takes.
TEST_F(ReinstatementTest, Losing_the_role_resets_every_connection_at_once) {
  log_in_ready(first);
  disk.is_held = true;
  first.send(encode(first.write10(0, 1)), pattern(512, 1));
  loop.run();
  target->set_serving(false);
  target->drop_all("the role was lost");
  EXPECT_TRUE(first.wire.is_aborted);
  // open-iscsi waits for DefaultTime2Wait after a reset, and not at all after this.
  const AsyncMessage message = decode_async_message(first.take_answer().bhs);
  EXPECT_EQ(message.event, static_cast<std::uint8_t>(AsyncEvent::drops_connection));
  EXPECT_EQ(message.parameter1, 1);  // CID
  EXPECT_EQ(message.parameter2, 0);
  EXPECT_FALSE(target->is_idle());
  disk.complete_all();
  loop.run();
  EXPECT_TRUE(target->is_idle());
  Initiator& second = log_in_again();
  EXPECT_EQ(decode_login_response(second.take_answer().bhs).status_class, 3);
}

class TwoPortalsTest : public ReinstatementTest {
 protected:
  TwoPortalsTest()
      : ReinstatementTest([] {
          TargetConfig config;
          config.peer_portals.push_back({"192.0.2.2", 3260});
          return config;
        }()) {}
};

// If it failed, an initiator would be told that the target has moved, and not where to (RFC 7143 11.13.5).
TEST_F(TwoPortalsTest, A_login_that_waited_in_vain_is_sent_to_the_other_node) {
  target->set_serving(false);
  target->set_role_expected(true);
  Initiator& early = log_in_again();
  target->set_peer_serving(true);
  target->set_role_expected(false);
  loop.run();
  const auto answer = early.take_answer();
  EXPECT_EQ(decode_login_response(answer.bhs).status_class, 1);
  EXPECT_NE(as_text(answer.data).find("TargetAddress=192.0.2.2:3260"), std::string_view::npos);
}

class TwoSessionsTest : public IscsiTest {
 protected:
  TwoSessionsTest()
      : IscsiTest([] {
          TargetConfig config;
          config.sessions_max = 2;
          return config;
        }()) {}
};

// If it failed, peers could make sessions until the memory is gone.
TEST_F(TwoSessionsTest, The_number_of_sessions_is_bounded) {
  Initiator& one = make_initiator();
  Initiator& two = make_initiator();
  Initiator& three = make_initiator();
  log_in(one, 1);
  log_in(two, 2);
  connect(three);
  three.send(encode(three.login_request(1, 3, 3)),
             as_bytes(keys({"InitiatorName=iqn.2026-11.org.example:host", "TargetName=iqn.2026-11.org.example:disk"})));
  loop.run();
  const LoginResponse answer = decode_login_response(three.take_answer().bhs);
  EXPECT_EQ(answer.status_class, 3);
  EXPECT_EQ(answer.status_detail, 2);
}

}  // namespace
}  // namespace replblk::iscsi::test
