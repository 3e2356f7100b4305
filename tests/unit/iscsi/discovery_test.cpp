// Discovery sessions and text requests.
#include <gtest/gtest.h>

#include "iscsi_fixture.hpp"

namespace replblk::iscsi::test {
namespace {

class DiscoveryTest : public IscsiTest {
 protected:
  explicit DiscoveryTest(TargetConfig config = {}) : IscsiTest(std::move(config)) {}
  void discover(const std::string& more = {}) {
    connect(initiator);
    initiator.send(encode(initiator.login_request(1, 3, 1)),
                   as_bytes(keys({"InitiatorName=iqn.2026-11.org.example:host", "SessionType=Discovery"}) + more));
    loop.run();
    EXPECT_EQ(decode_login_response(initiator.take_answer().bhs).status_class, 0);
  }
  [[nodiscard]] TextRequest text_request() {
    TextRequest pdu;
    pdu.immediate = true;
    pdu.initiator_task_tag = initiator.next_tag++;
    pdu.cmd_sn = initiator.cmd_sn;
    return pdu;
  }

  Initiator& initiator = make_initiator();
};

// If it failed, initiators would not find the target.
TEST_F(DiscoveryTest, SendTargets_names_each_target_and_the_address_that_was_asked) {
  discover();
  initiator.send(encode(text_request()), as_bytes(keys({"SendTargets=All"})));
  const Answer answer = initiator.take_answer();
  EXPECT_EQ(answer.text(), keys({"TargetName=iqn.2026-11.org.example:disk", "TargetAddress=192.0.2.1:3260,1"}));
  EXPECT_TRUE(decode_text_response(answer.bhs).is_final);
  initiator.send(encode(text_request()), as_bytes(keys({"SendTargets=iqn.other"})));
  EXPECT_TRUE(initiator.take_answer().data.empty());
}

// If it failed, an answer longer than the initiator's limit would be cut or end the connection.
TEST_F(DiscoveryTest, A_long_answer_is_fetched_in_pieces) {
  std::deque<Target> more;
  for (int count = 0; count < 20; ++count) {
    TargetConfig config;
    config.name = "iqn.2026-11.org.example:another-disk-" + std::to_string(count);
    portal->add_target(more.emplace_back(std::move(config), world, *device));
  }
  discover(keys({"MaxRecvDataSegmentLength=512"}));
  TextRequest request = text_request();
  std::string whole;
  std::string text = keys({"SendTargets=All"});
  for (int piece = 0; piece < 10; ++piece) {
    initiator.send(encode(request), as_bytes(text));
    const Answer answer = initiator.take_answer();
    EXPECT_LE(answer.data.size(), 512u);
    whole += answer.text();
    const TextResponse response = decode_text_response(answer.bhs);
    EXPECT_EQ(response.is_final, !response.continues);
    if (response.is_final) break;
    request.target_transfer_tag = response.target_transfer_tag;
    text.clear();
  }
  const auto pairs = parse_text(whole);
  ASSERT_TRUE(pairs);
  EXPECT_EQ(pairs->size(), 42u);
  initiator.wire.close_by_peer();
  loop.run();
  for (Target& each : more) portal->remove_target(each);
}

// A pair without a virtual IP: whichever node is asked names both, so that an initiator knows the survivor.
class RedirectTest : public DiscoveryTest {
 protected:
  RedirectTest() : DiscoveryTest(of_a_pair()) {}
  static TargetConfig of_a_pair() {
    TargetConfig config;
    config.peer_portals = {{"192.0.2.2", 3260}, {"198.51.100.2", 3260}};
    config.node_address = "192.0.2.1";
    return config;
  }
  LoginResponse try_login() {
    connect(initiator);
    initiator.send(encode(initiator.login_request(1, 3, 1)),
                   as_bytes(keys({"InitiatorName=iqn.2026-11.org.example:host", "SessionType=Normal",
                                  "TargetName=iqn.2026-11.org.example:disk"})));
    loop.run();
    const Answer answer = initiator.take_answer();
    text = answer.text();
    return decode_login_response(answer.bhs);
  }
  std::string text;
};

TEST_F(RedirectTest, SendTargets_names_the_portals_of_both_nodes) {
  discover();
  initiator.send(encode(text_request()), as_bytes(keys({"SendTargets=All"})));
  EXPECT_EQ(initiator.take_answer().text(),
            keys({"TargetName=iqn.2026-11.org.example:disk", "TargetAddress=192.0.2.1:3260,1",
                  "TargetAddress=192.0.2.2:3260,1", "TargetAddress=198.51.100.2:3260,1"}));
}

// RFC 7143 13.8: in a redirection the portal group tag is left out.
TEST_F(RedirectTest, A_login_is_sent_to_the_peer_while_that_is_Primary) {
  target->set_serving(false);
  target->set_peer_serving(true);
  const LoginResponse response = try_login();
  EXPECT_EQ(response.status_class, 1);
  EXPECT_EQ(response.status_detail, 1);
  EXPECT_EQ(text, keys({"TargetAddress=192.0.2.2:3260"}));
}

// Sent to a node that may be dead or Secondary, an initiator would wait there instead of here.
TEST_F(RedirectTest, A_login_is_refused_for_now_while_nobody_is_known_to_serve) {
  target->set_serving(false);
  target->set_peer_serving(true);
  target->set_peer_serving(false);
  const LoginResponse response = try_login();
  EXPECT_EQ(response.status_class, 3);
  EXPECT_EQ(response.status_detail, 1);
}

class AskedElsewhereTest : public DiscoveryTest {
 protected:
  AskedElsewhereTest() : DiscoveryTest(on_two_networks()) {}
  static TargetConfig on_two_networks() {
    TargetConfig config;
    config.peer_portals = {{"203.0.113.2", 3260}};
    config.node_address = "203.0.113.1";
    return config;
  }
};

// An initiator that came through a virtual IP or another network would be told of an address that it cannot reach.
TEST_F(AskedElsewhereTest, SendTargets_names_only_the_address_that_was_asked) {
  discover();
  initiator.send(encode(text_request()), as_bytes(keys({"SendTargets=All"})));
  EXPECT_EQ(initiator.take_answer().text(),
            keys({"TargetName=iqn.2026-11.org.example:disk", "TargetAddress=192.0.2.1:3260,1"}));
}

// If it failed, a question that spans PDUs would be answered by its first half.
TEST_F(DiscoveryTest, A_question_in_pieces_is_answered_once) {
  discover();
  TextRequest request = text_request();
  request.is_final = false;
  request.continues = true;
  initiator.send(encode(request), as_bytes(std::string_view("SendTar")));
  const Answer empty = initiator.take_answer();
  EXPECT_TRUE(empty.data.empty());
  request.target_transfer_tag = decode_text_response(empty.bhs).target_transfer_tag;
  EXPECT_NE(request.target_transfer_tag, kReservedTag);
  request.is_final = true;
  request.continues = false;
  initiator.send(encode(request), as_bytes(std::string("gets=All\0", 9)));
  EXPECT_FALSE(initiator.take_answer().data.empty());
}

// If it failed, a discovery session could touch a disk.
TEST_F(DiscoveryTest, Commands_are_rejected_in_discovery) {
  discover();
  initiator.send(encode(initiator.test_unit_ready()));
  EXPECT_EQ(initiator.take_answer().opcode(), Opcode::reject);
}

// If it failed, idle discovery sessions would use up the places for logins.
TEST_F(DiscoveryTest, An_idle_discovery_session_is_ended) {
  discover();
  loop.advance(seconds(31));
  EXPECT_TRUE(initiator.wire.is_aborted);
}

}  // namespace
}  // namespace replblk::iscsi::test
