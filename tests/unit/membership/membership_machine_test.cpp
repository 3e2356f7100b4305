// What a MembershipMachine does besides refusing counterexamples: each change of protocol.md 3.4 as one trace.
#include "machine_fixture.hpp"
#include "membership/claim.hpp"
#include "membership/transitions.hpp"

namespace replblk::membership {
namespace {

blockdev::ResourceRecord sole_record(blockdev::NodeIndex self) {
  blockdev::ResourceRecord record = MachineFixture::pair_record(self);
  record.configuration = {2, static_cast<std::uint8_t>(1u << self), self};
  record.seen = 2;
  return record;
}

/// An only member serves, and has copied everything to its peer.
void propose_to_add_peer(MachineFixture& node) {
  node.pass(milliseconds(20));
  node.flush();
  node.read_arbiter(2, 1, 0);
  node.persist();
  node.peer.configuration = {3, 1, 0};
  node.hear();
  node.machine->connected({Meeting::Direction::source, {3, 1, 0}, 3}, node.now);
  node.machine->resynced(node.now);
  node.pass(milliseconds(20));
  node.flush();
  node.persist();
}

TEST(MembershipMachine, Two_that_start_together_agree_on_a_higher_term_and_the_named_one_serves) {
  MachineFixture node(0);
  node.hear();
  node.machine->connected({Meeting::Direction::equal, {1, 3, 0}, 1}, node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"freeze", "drain and flush both"}));
  node.flush();
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"persist (1,{01},0) seen 2", "propose (2,{01},0)"}));
  node.machine->proposal_acknowledged(2, node.now);
  node.pass(milliseconds(20));
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"persist (2,{01},0) seen 2", "established"}));
  EXPECT_FALSE(node.may_answer());  // No lease yet.
  node.grant_lease();
  EXPECT_EQ(node.take(), (Trace{"serve"}));
  EXPECT_TRUE(node.may_answer());
}

// protocol.md 3.2: checked at the moment of the answer, not when a timer looks.
TEST(MembershipMachine, The_lease_ends_between_two_ticks) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  const Instant stamped = node.peer.echo.t1;
  EXPECT_TRUE(node.machine->may_answer(stamped + milliseconds(999)));
  EXPECT_FALSE(node.machine->may_answer(stamped + milliseconds(1000)));
  node.pass(milliseconds(1000));
  EXPECT_EQ(node.take(), (Trace{"serve", "freeze"}));
  EXPECT_EQ(node.machine->reason(), "the peer has given no lease");
}

// A stopped process, or a pulled cable: TCP would not say so for seconds.
TEST(MembershipMachine, A_peer_that_is_not_heard_for_a_lease_has_no_connection) {
  for (const int self : {0, 1}) {
    MachineFixture node(static_cast<std::uint8_t>(self));
    node.establish(0);
    if (self == 0) node.grant_lease();
    node.trace.clear();
    node.pass(milliseconds(990));
    EXPECT_TRUE(node.machine->is_established());
    node.pass(milliseconds(200));
    EXPECT_FALSE(node.machine->is_established());
  }
}

TEST(MembershipMachine, Without_the_peer_the_arbiter_removes_it) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.trace.clear();
  node.pass(milliseconds(1200));  // Nothing is heard of it any more.
  node.flush();
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"freeze", "end connection", "flush", "read arbiter"}));
  node.read_arbiter(1, 3, 0);
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"persist (2,{01},0) seen 3", "claim 3"}));
  node.replace(true);
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"persist (3,{0},0) seen 3", "serve"}));
}

// Without a virtual IP a frozen old primary would keep its initiators for good, beside a peer that serves.
TEST(MembershipMachine, A_primary_that_reaches_nobody_lets_its_initiators_go_when_the_peer_may_serve) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.trace.clear();
  node.pass(milliseconds(1100));
  node.flush();
  node.pass(milliseconds(180));  // The promise has run out, and the arbiter has the time to answer.
  EXPECT_EQ(node.take(), (Trace{"freeze", "end connection", "flush", "read arbiter"}));
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"close"}));
  EXPECT_TRUE(node.machine->is_primary());
  // What comes after that changes nothing until it is decided: the peer is heard again, and stays a Secondary.
  node.pass_hearing(milliseconds(300));
  for (const std::string& line : node.take()) EXPECT_NE(line, "freeze");
  node.persist();
  node.peer.reply = node.sent.request;
  node.peer.configuration = {node.sent.request.term, 1, 0};
  node.peer.is_outdated = true;
  node.hear();
  node.persist();
  EXPECT_EQ(node.take().back(), "serve");
}

TEST(MembershipMachine, A_primary_that_reaches_nobody_is_stopped_by_the_refusal_after_it_let_its_initiators_go) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.trace.clear();
  node.pass(milliseconds(1100));
  node.flush();
  node.pass(milliseconds(240));
  EXPECT_EQ(node.take(), (Trace{"freeze", "end connection", "flush", "read arbiter", "close"}));
  node.read_arbiter(4, 2, 1);
  EXPECT_EQ(node.take(), (Trace{"persist (4,{1},1) seen 4 Outdated", "stop"}));
}

// It can record nothing, so it stays what it is.
TEST(MembershipMachine, A_primary_whose_disk_hangs_lets_its_initiators_go_to_the_peer_that_says_that_it_serves) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.trace.clear();
  node.lose_connection();
  node.flush();
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"flush", "freeze", "persist (2,{01},0) seen 3"}));
  node.pass_hearing(milliseconds(1100));
  node.peer.configuration = {4, 2, 1};
  node.peer.is_serving = true;
  node.pass_hearing(milliseconds(300));
  EXPECT_EQ(node.take(), (Trace{"close"}));
}

// Initiators would go from a node that is about to go on to one that is not.
TEST(MembershipMachine, Initiators_stay_while_the_peer_says_that_it_does_not_serve) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.trace.clear();
  node.peer.is_connected = false;
  node.lose_connection();
  node.flush();
  node.pass_hearing(seconds(5));  // It is asked, and its disk does not come to the answer; nor does the arbiter.
  for (const std::string& line : node.take()) EXPECT_NE(line, "close");
}

TEST(MembershipMachine, Initiators_stay_while_both_nodes_agree_on_a_change) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  ASSERT_TRUE(node.machine->switch_over(node.now).is_accepted);
  node.pass_hearing(milliseconds(1500));  // Many writes are still on their way.
  EXPECT_EQ(node.take(), (Trace{"serve", "drain and flush both", "freeze"}));
}

TEST(MembershipMachine, Initiators_of_the_only_member_stay_whatever_it_waits_for) {
  MachineFixture node(0, sole_record(0));
  node.pass(milliseconds(20));
  node.flush();
  node.read_arbiter(2, 1, 0);
  node.persist();
  ASSERT_EQ(node.take().back(), "serve");
  ASSERT_TRUE(node.machine->force_primary(node.now).is_accepted);
  node.pass(seconds(5));  // The disk takes long to record it.
  EXPECT_EQ(node.take(), (Trace{"persist (1000004,{0},0) seen 1000004", "freeze"}));
}

// The peer may have recorded that it is a member, and have the arbiter's grant by now.
TEST(MembershipMachine, Initiators_of_the_only_member_go_when_nobody_says_whether_the_peer_has_been_added) {
  MachineFixture node(0, sole_record(0));
  propose_to_add_peer(node);
  EXPECT_EQ(node.take().back(), "propose (4,{01},0)");
  node.lose_connection();
  node.persist();
  node.pass(milliseconds(1260));
  for (const std::string& line : node.take()) EXPECT_NE(line, "close");
  node.pass(milliseconds(40));
  EXPECT_EQ(node.take(), (Trace{"close"}));
}

// Resumed, it finds its lease run out long ago, and in its sockets what the peer has said meanwhile.
TEST(MembershipMachine, A_primary_that_stood_still_reads_what_it_missed_before_it_lets_its_initiators_go) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.trace.clear();
  node.now += seconds(10);
  node.pass(milliseconds(200));
  EXPECT_EQ(node.take(), (Trace{"end connection", "flush", "freeze"}));
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"close"}));
}

TEST(MembershipMachine, A_refused_claimant_takes_the_records_configuration_and_is_Outdated) {
  MachineFixture node(0);
  node.establish(0);
  node.pass(milliseconds(1200));
  node.lose_connection();
  node.flush();
  node.trace.clear();
  node.pass(milliseconds(20));
  node.read_arbiter(3, 2, 1);
  EXPECT_EQ(node.take(), (Trace{"persist (3,{1},1) seen 3 Outdated", "stop"}));
  node.persist();
  node.pass(seconds(10));
  EXPECT_EQ(node.take(), Trace{});
  EXPECT_FALSE(node.machine->reason().empty());
}

// A claim of the peer's came between reading and replacing: look again before anything else.
// Broken if a peer that lost its cache over a demotion, in a doubt that only the other one can end, waited for ever
// because nobody is named: it can neither decide nor meet.
TEST(MembershipMachine, A_peer_in_doubt_that_lost_its_cache_is_left_behind_also_where_nobody_is_primary) {
  blockdev::ResourceRecord record = MachineFixture::pair_record(blockdev::kNoNode);
  MachineFixture node(1, record);
  node.peer.configuration = {1, 3, 0};
  node.peer.seen = 4;
  node.peer.may_have_lost_cache = true;
  node.hear();
  node.flush();
  node.persist();
  EXPECT_EQ(node.sent.request.term, 5u);
  node.peer.reply = node.sent.request;
  node.hear();
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"flush", "persist (1,{01},-) seen 5", "persist (5,{1},-) seen 5"}));
}

// What stands in `status` must be what is waited for now.
TEST(MembershipMachine, A_secondary_whose_arbiter_does_not_answer_says_so) {
  MachineFixture node(1);
  node.establish(0);
  node.give_promise();
  node.lose_connection();
  node.pass(milliseconds(600));
  EXPECT_NE(node.machine->reason().find("promise"), std::string::npos);
  node.pass(milliseconds(600));
  node.flush();
  node.pass(seconds(3));
  EXPECT_NE(node.machine->reason().find("the arbiter does not answer"), std::string::npos) << node.machine->reason();
  EXPECT_FALSE(node.may_answer());
}

TEST(MembershipMachine, A_claim_that_lost_the_race_is_judged_anew) {
  MachineFixture node(0);
  node.establish(0);
  node.pass(milliseconds(1200));
  node.lose_connection();
  node.flush();
  node.pass(milliseconds(20));
  node.read_arbiter(1, 3, 0);
  node.persist();
  node.trace.clear();
  node.replace(false);
  EXPECT_EQ(node.take(), (Trace{"read arbiter"}));
  node.read_arbiter(3, 2, 1);
  EXPECT_EQ(node.take(), (Trace{"persist (3,{1},1) seen 3 Outdated", "stop"}));
}

TEST(MembershipMachine, A_frozen_primary_that_restarted_is_taken_over_by_agreement_at_once) {
  MachineFixture node(1);
  node.establish(0);
  node.give_promise();
  node.lose_connection();
  node.peer.is_frozen = true;
  node.peer.is_connected = node.peer.is_serving = false;
  node.hear();
  node.flush();
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"flush", "persist (2,{01},0) seen 3"}));
  node.peer.configuration = {3, 2, 1};
  node.peer.seen = 3;
  node.peer.reply = node.sent.request;
  node.hear();
  node.persist();
  // Its promise would last a second longer; the primary has said, at the new term, that it holds no mandate.
  EXPECT_EQ(node.take(), (Trace{"persist (3,{1},1) seen 3", "freeze", "serve"}));
}

TEST(MembershipMachine, A_lost_reply_is_made_good_by_what_the_peer_says_it_is) {
  MachineFixture node(0);
  node.establish(0);
  node.lose_connection();
  node.flush();
  node.persist();
  node.trace.clear();
  node.peer.configuration = {3, 1, 0};
  node.peer.seen = 3;
  node.peer.is_outdated = true;
  node.hear();
  EXPECT_EQ(node.take(), (Trace{"persist (3,{0},0) seen 3"}));
}

TEST(MembershipMachine, A_reply_with_another_nonce_counts_for_nothing) {
  MachineFixture node(0);
  node.establish(0);
  node.lose_connection();
  node.flush();
  node.persist();
  node.trace.clear();
  node.peer.reply = {node.sent.request.term, node.sent.request.nonce + 1};
  node.hear();
  EXPECT_EQ(node.take(), Trace{});
}

TEST(MembershipMachine, The_reply_to_a_request_leaves_when_it_is_durable) {
  MachineFixture node(1);
  node.establish(0);
  node.lose_connection();
  node.trace.clear();
  node.peer.request = {5, 55};
  node.peer.seen = 5;
  node.hear();
  node.pass(milliseconds(300));
  EXPECT_TRUE(node.sent.reply.is_none());
  node.persist();
  EXPECT_EQ(node.sent.reply, (RemovalTicket{5, 55}));
  EXPECT_EQ(node.sent.configuration, (blockdev::Configuration{5, 1, 0}));
}

TEST(MembershipMachine, A_node_that_holds_the_mandate_agrees_to_nothing) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.trace.clear();
  node.peer.request = {9, 99};
  node.hear();
  EXPECT_EQ(node.take(), Trace{});
}

// A longer lease than ever is recorded before the first echo of it, or a restart would forget it.
TEST(MembershipMachine, A_longer_lease_is_durable_before_it_is_echoed) {
  MachineFixture node(1);
  node.establish(0);
  node.peer.stamp = {77, {2, 3, 0}, Instant(seconds(5)), 1500};
  node.hear();
  node.pass(milliseconds(200));
  EXPECT_TRUE(node.sent.echo.is_none());
  // The primary writes as soon as the nodes have joined: nothing changes for it.
  EXPECT_TRUE(node.machine->may_apply_frames());
  node.persist();
  EXPECT_EQ(node.sent.echo.lease_ms, 1500u);
  EXPECT_EQ(node.machine->record().lease_ms_max, 1500u);
}

// Broken if a role change right after the nodes have joined cost them their connection.
TEST(MembershipMachine, A_proposal_that_comes_while_a_longer_lease_is_recorded_is_taken_up_after_it) {
  MachineFixture node(1);
  node.establish(0);
  node.peer.stamp = {77, {2, 3, 0}, Instant(seconds(5)), 1500};
  node.hear();
  node.trace.clear();
  node.machine->proposal_received({3, 3, 1}, node.machine->record().generations, node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), Trace{});
  node.persist();
  EXPECT_EQ(node.machine->record().configuration, (blockdev::Configuration{3, 3, 1}));
}

// Broken if a node that stops took a role that it will not fill.
TEST(MembershipMachine, A_node_that_stops_agrees_to_no_role_of_its_own) {
  MachineFixture node(1);
  node.establish(0);
  node.machine->stop(node.now);
  node.trace.clear();
  node.machine->proposal_received({3, 3, 1}, node.machine->record().generations, node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.machine->record().configuration, (blockdev::Configuration{2, 3, 0}));
}

TEST(MembershipMachine, Switchover_ends_with_the_old_primary_stopped_before_the_new_one_serves) {
  MachineFixture old_primary(0);
  old_primary.establish(0);
  old_primary.grant_lease();
  old_primary.trace.clear();
  ASSERT_TRUE(old_primary.machine->switch_over(old_primary.now).is_accepted);
  old_primary.pass(milliseconds(20));
  EXPECT_EQ(old_primary.take(), (Trace{"drain and flush both", "freeze"}));
  EXPECT_TRUE(old_primary.may_answer());  // What was admitted before is still answered.
  old_primary.flush();
  EXPECT_FALSE(old_primary.may_answer());
  old_primary.persist();
  old_primary.machine->proposal_acknowledged(3, old_primary.now);
  old_primary.pass(milliseconds(20));
  EXPECT_EQ(old_primary.take(),
            (Trace{"persist (2,{01},0) seen 3", "propose (3,{01},1)", "persist (3,{01},1) seen 3", "stop"}));

  MachineFixture new_primary(1);
  new_primary.establish(0);
  new_primary.give_promise();
  new_primary.machine->proposal_received({3, 3, 1}, new_primary.machine->record().generations, new_primary.now);
  new_primary.pass(milliseconds(20));
  new_primary.persist();
  EXPECT_EQ(new_primary.take(), (Trace{"persist (3,{01},1) seen 3", "freeze", "acknowledge 3", "established"}));
  new_primary.grant_lease();
  EXPECT_FALSE(new_primary.may_answer());  // The old primary may still hold its lease.
  new_primary.peer.configuration = {3, 3, 1};
  new_primary.grant_lease();
  EXPECT_EQ(new_primary.take(), (Trace{"serve"}));
}

// Broken if each waited for its next heartbeat's turn: initiators would wait for two of them whenever the role moves.
TEST(MembershipMachine, A_lease_is_asked_for_and_given_as_soon_as_both_have_recorded_the_move) {
  MachineFixture new_primary(1);
  new_primary.establish(0);
  new_primary.give_promise();
  new_primary.machine->proposal_received({3, 3, 1}, new_primary.machine->record().generations, new_primary.now);
  new_primary.pass(milliseconds(20));
  new_primary.persist();
  new_primary.pass(milliseconds(20));
  new_primary.peer.configuration = {3, 3, 1};
  new_primary.hear();
  EXPECT_EQ(new_primary.sent.stamp.t1, new_primary.now);
  new_primary.peer.echo = new_primary.sent.stamp;
  new_primary.trace.clear();
  new_primary.hear();
  EXPECT_EQ(new_primary.take(), (Trace{"serve"}));

  auto record = MachineFixture::pair_record(0);
  record.lease_ms_max = 1000;  // Nothing has to be recorded for it.
  MachineFixture secondary(1, record);
  secondary.establish(0);
  secondary.pass(milliseconds(20));
  secondary.peer.stamp = {77, {2, 3, 0}, Instant(seconds(9)), 1000};
  secondary.hear();
  EXPECT_EQ(secondary.sent.echo, secondary.peer.stamp);
  // From then on the interval is enough.
  secondary.peer.stamp.t1 += milliseconds(20);
  secondary.hear();
  EXPECT_NE(secondary.sent.echo, secondary.peer.stamp);
}

TEST(MembershipMachine, A_proposal_whose_answer_is_lost_ends_in_a_removal_at_a_higher_term) {
  MachineFixture node(0, sole_record(0));
  propose_to_add_peer(node);
  node.trace.clear();
  node.lose_connection();
  EXPECT_EQ(node.take(), (Trace{"persist (3,{0},0) seen 5"}));
  EXPECT_FALSE(node.may_answer());
  node.persist();
  EXPECT_EQ(node.sent.request.term, 5u);
}

TEST(MembershipMachine, The_only_member_serves_after_a_restart_with_a_generation_of_its_own) {
  MachineFixture node(0, sole_record(0));
  node.pass(milliseconds(20));
  node.flush();
  EXPECT_EQ(node.take(), (Trace{"flush", "freeze", "read arbiter"}));
  node.read_arbiter(1, 3, 0);  // It may lag: this node was left alone by agreement.
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"persist (3,{0},0) seen 3", "serve"}));
  EXPECT_EQ(node.machine->record().generations.current.term, 3u);
}

// Broken if a node that was dead when its peer was forced served beside it as soon as it was back, cut off from it.
TEST(MembershipMachine, An_only_member_that_the_arbiter_does_not_name_any_more_waits_for_its_peer_or_a_person) {
  const auto begin = [](MachineFixture& node) {
    node.pass(milliseconds(20));
    node.flush();
    node.read_arbiter(1000002, 2, 1);
  };
  MachineFixture node(0, sole_record(0));
  begin(node);
  node.pass(seconds(300));
  EXPECT_EQ(node.take(), (Trace{"flush", "freeze", "read arbiter"}));
  EXPECT_NE(node.machine->reason().find("names the peer as the only member at term 1000002"), std::string::npos);
  EXPECT_FALSE(node.machine->make_primary(node.now).is_accepted);
  // The peer is there, and its word is newer: it has given way, or never served.
  node.peer.configuration = {2, 1, 0};
  node.hear();
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"persist (3,{0},0) seen 3", "serve"}));

  MachineFixture left_behind(0, sole_record(0));
  begin(left_behind);
  left_behind.trace.clear();
  left_behind.peer.configuration = {1000002, 2, 1};
  left_behind.peer.seen = 1000002;
  left_behind.hear();
  left_behind.persist();
  EXPECT_TRUE(left_behind.machine->record().is_outdated);
  EXPECT_FALSE(left_behind.may_answer());

  MachineFixture forced(0, sole_record(0));
  begin(forced);
  ASSERT_TRUE(forced.machine->force_primary(forced.now).is_accepted);
  forced.pass(milliseconds(20));
  forced.persist();
  EXPECT_TRUE(forced.may_answer());
}

// Broken if the only copy were not served because the arbiter is down as well, or for longer than it takes to learn
// that.
TEST(MembershipMachine, An_only_member_serves_by_its_own_record_when_the_arbiter_does_not_answer) {
  MachineFixture silent(0, sole_record(0));
  silent.pass(milliseconds(20));
  silent.flush();
  silent.pass(MembershipOptions{}.arbiter_timeout + milliseconds(200));
  silent.persist();
  EXPECT_TRUE(silent.may_answer());

  MachineFixture failing(0, sole_record(0));
  failing.pass(milliseconds(20));
  failing.flush();
  failing.machine->arbiter_failed(std::exchange(failing.arbiter_out, 0), "down", failing.now);
  // A node that has just booted may reach it in a moment.
  failing.pass(milliseconds(300));
  EXPECT_FALSE(failing.may_answer());
  failing.machine->arbiter_failed(std::exchange(failing.arbiter_out, 0), "down", failing.now);
  failing.pass(MembershipOptions{}.arbiter_timeout);
  failing.persist();
  EXPECT_TRUE(failing.may_answer());

  MachineFixture booting(0, sole_record(0));
  booting.pass(milliseconds(20));
  booting.flush();
  booting.machine->arbiter_failed(std::exchange(booting.arbiter_out, 0), "network is unreachable", booting.now);
  booting.pass(milliseconds(300));
  booting.read_arbiter(1000002, 2, 1);
  booting.pass(seconds(5));
  EXPECT_FALSE(booting.may_answer());
}

// Broken if what needs no force for any other node were a way around it here.
TEST(MembershipMachine, An_only_member_that_the_arbiter_does_not_name_is_not_made_primary_by_way_of_secondary) {
  for (const bool is_standby : {false, true}) {
    MachineFixture node(0, sole_record(0));
    if (is_standby) node.machine->set_standby(true, node.now);
    node.pass(milliseconds(20));
    node.flush();
    if (is_standby) {
      node.persist();
      node.machine->set_standby(false, node.now);
    } else {
      node.read_arbiter(1000002, 2, 1);
      ASSERT_TRUE(node.machine->make_secondary(node.now).is_accepted);
      node.pass(milliseconds(20));
      node.persist();
      static_cast<void>(node.machine->make_primary(node.now));
    }
    node.pass(milliseconds(200));
    if (node.arbiter_out != 0) node.read_arbiter(1000002, 2, 1);
    node.pass(seconds(20));
    EXPECT_FALSE(node.may_answer());
    EXPECT_TRUE(node.machine->is_force_needed(node.now));
    EXPECT_NE(node.machine->reason().find("names the peer"), std::string::npos) << node.machine->reason();
  }
}

// Broken if it served for a moment when it meets a peer before the arbiter has answered.
TEST(MembershipMachine, An_only_member_that_has_just_started_serves_nothing_while_the_nodes_meet) {
  MachineFixture node(0, sole_record(0));
  node.machine->connected({Meeting::Direction::target, {1000002, 2, 1}, 1000002}, node.now);
  node.pass(milliseconds(20));
  node.flush();
  node.pass(milliseconds(20));
  EXPECT_FALSE(node.may_answer());
}

// protocol.md 3.3: a split stops both, and says so.
TEST(MembershipMachine, Two_only_members_of_one_term_both_stop) {
  MachineFixture node(0, sole_record(0), ArbiterKind::none);
  node.pass(milliseconds(20));
  node.flush();
  node.persist();
  ASSERT_TRUE(node.may_answer());
  node.peer.configuration = {3, 2, 1};
  node.hear();
  EXPECT_FALSE(node.may_answer());
  EXPECT_NE(node.machine->reason().find("split"), std::string::npos);
}

// Broken if a copy that was written alone gave way to another one on a heartbeat's word: what stood in it would be
// overwritten without anybody having said that there is a split.
TEST(MembershipMachine, Of_two_only_members_the_lower_one_holds_its_answers_until_the_nodes_meet) {
  MachineFixture node(0, sole_record(0), ArbiterKind::none);
  node.pass(milliseconds(20));
  node.flush();
  node.persist();
  ASSERT_TRUE(node.may_answer());
  node.trace.clear();
  node.peer.configuration = {9, 2, 1};
  node.peer.seen = 9;
  node.hear();
  EXPECT_EQ(node.take(), (Trace{"freeze"}));
  EXPECT_FALSE(node.machine->record().is_outdated);
  EXPECT_TRUE(node.machine->is_primary());
  EXPECT_NE(node.machine->reason().find("split"), std::string::npos);

  MachineFixture higher(0, sole_record(0), ArbiterKind::none);
  higher.pass(milliseconds(20));
  higher.flush();
  higher.persist();
  higher.peer.configuration = {2, 2, 1};
  higher.hear();
  EXPECT_TRUE(higher.may_answer());

  // With an arbiter that remembers, only a person can have decided so.
  MachineFixture decided(0, sole_record(0), ArbiterKind::etcd);
  decided.pass(milliseconds(20));
  decided.flush();
  decided.read_arbiter(2, 1, 0);
  decided.persist();
  decided.trace.clear();
  decided.peer.configuration = {9, 2, 1};
  decided.hear();
  EXPECT_EQ(decided.take(), (Trace{"persist (9,{1},1) seen 9 Outdated", "stop"}));
}

TEST(MembershipMachine, A_split_without_heartbeats_is_found_by_the_meeting) {
  MachineFixture node(0, sole_record(0), ArbiterKind::none);
  node.pass(milliseconds(20));
  node.flush();
  node.persist();
  node.trace.clear();
  node.machine->split_found({9, 2, 1}, node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"freeze"}));
}

// protocol.md 5.1 row 9: the decision is durable, as this copy's base, before the resync begins.
TEST(MembershipMachine, The_winner_of_a_split_records_whose_copy_is_given_up_and_then_begins) {
  MachineFixture node(0, sole_record(0), ArbiterKind::none);
  node.pass(milliseconds(20));
  node.flush();
  node.persist();
  node.peer.configuration = {9, 2, blockdev::kNoNode};
  node.peer.seen = 9;
  node.hear();
  node.trace.clear();
  node.machine->connected({Meeting::Direction::source, {9, 2, blockdev::kNoNode}, 9, true, {9, 99}}, node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"persist (10,{0},0) seen 10"}));
  EXPECT_EQ(node.machine->record().generations.base, (blockdev::Generation{9, 99}));
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"source ready", "serve"}));
}

TEST(MembershipMachine, The_loser_of_a_split_keeps_its_record_until_the_resync_begins) {
  MachineFixture node(1, sole_record(1), ArbiterKind::none);
  node.pass(milliseconds(20));
  node.flush();
  node.persist();
  ASSERT_TRUE(node.machine->make_secondary(node.now).is_accepted);
  node.pass(milliseconds(20));
  node.persist();
  node.trace.clear();
  node.machine->connected({Meeting::Direction::target, {2, 1, 0}, 2, true}, node.now);
  node.peer.configuration = {8, 1, 0};
  node.peer.seen = 8;
  node.hear();
  EXPECT_EQ(node.take(), Trace{});
  node.machine->resync_begins({8, 1, 0}, node.now);
  node.pass(milliseconds(20));
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"persist (8,{0},0) seen 8 Outdated", "target ready"}));
}

// The connection on which the nodes met is the one over which the resync goes.
TEST(MembershipMachine, The_source_of_a_pair_asks_its_peer_to_give_way_and_begins_on_the_same_connection) {
  MachineFixture node(0);
  node.hear();
  node.machine->connected({Meeting::Direction::source, {1, 3, 0}, 1}, node.now);
  node.pass(milliseconds(20));
  node.flush();
  node.persist();
  ASSERT_EQ(node.sent.request.term, 2u);
  node.peer.reply = node.sent.request;
  node.hear();
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"freeze", "flush", "persist (1,{01},0) seen 2", "persist (2,{0},0) seen 2",
                                "source ready", "serve"}));

  MachineFixture target(1);
  target.machine->connected({Meeting::Direction::target, {1, 3, 0}, 1}, target.now);
  target.peer.request = {2, 22};
  target.hear();
  target.persist();
  target.machine->resync_begins({2, 1, 0}, target.now);
  target.pass(milliseconds(20));
  target.persist();
  EXPECT_EQ(target.take(),
            (Trace{"persist (2,{0},0) seen 2 Outdated", "persist (2,{0},0) seen 2 Outdated", "target ready"}));
}

// Broken if an empty copy became a member because its peer's configuration names both, or served because the peer gave
// way to what stood on the disk before.
TEST(MembershipMachine, A_copy_that_was_just_created_becomes_no_member_and_stands_in_nobodys_way) {
  MachineFixture node(1, blockdev::ResourceRecord{});
  node.peer.current = {4, 44};
  node.peer.configuration = {4, 3, 0};
  node.peer.seen = 4;
  node.hear();
  EXPECT_EQ(node.take(), Trace{});
  node.peer.configuration = {4, 2, 1};
  node.hear();
  EXPECT_EQ(node.take(), Trace{});
  node.peer.configuration = {4, 3, 0};
  node.peer.request = {5, 55};
  node.hear();
  EXPECT_EQ(node.take(), (Trace{"persist (5,{0},0) seen 5 Outdated"}));
  node.persist();
  EXPECT_EQ(node.sent.reply, (RemovalTicket{5, 55}));
  node.trace.clear();
  node.peer.request = {};
  node.peer.may_have_lost_cache = true;  // Nor does it take over from one that has lost something.
  node.pass_hearing(seconds(5));
  EXPECT_EQ(node.take(), Trace{});

  MachineFixture asked(0);
  asked.peer.current = {};
  asked.peer.request = {5, 55};
  asked.hear();
  EXPECT_EQ(asked.machine->record().seen, 1u);
}

TEST(MembershipMachine, Two_copies_that_were_just_created_wait_until_one_is_forced) {
  MachineFixture node(0, blockdev::ResourceRecord{});
  node.peer.configuration = {};
  node.hear();
  node.machine->connected({Meeting::Direction::wait, {}, 0}, node.now);
  node.pass_hearing(seconds(30));
  EXPECT_EQ(node.take(), Trace{});
  ASSERT_TRUE(node.machine->force_primary(node.now).is_accepted);
  node.pass(milliseconds(20));
  node.flush();
  node.persist();
  EXPECT_EQ(node.take(),
            (Trace{"end connection", "flush", "persist (1,{0},0) seen 1", "freeze", "overwrite arbiter 1", "serve"}));
}

// Broken if the disk of another pair, or of an earlier life of this one, took the role away from the node that serves:
// its terms may be higher.
TEST(MembershipMachine, Who_was_connected_goes_on_as_if_a_stranger_did_not_speak) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  ASSERT_TRUE(node.may_answer());
  node.trace.clear();
  node.lose_connection();
  EXPECT_EQ(node.take(), (Trace{"flush", "freeze"}));
  node.peer = {};
  node.peer.pair_id.bytes[0] = std::byte{2};
  node.peer.configuration = {900, 2, 1};
  node.peer.seen = 900;
  node.peer.current = {900, 1};
  node.peer.is_serving = true;
  node.peer.request = {901, 1};
  node.pass_hearing(milliseconds(200));
  EXPECT_EQ(node.take(), Trace{});
  node.flush();
  node.persist();  // The peer of before was heard a moment ago, and is asked first.
  node.pass_hearing(milliseconds(200));
  node.read_arbiter(2, 3, 0);
  node.persist();
  node.replace(true);
  node.persist();
  EXPECT_EQ(node.machine->record().configuration, (blockdev::Configuration{4, 1, 0}));
  EXPECT_TRUE(node.may_answer());
}

TEST(MembershipMachine, Who_has_just_started_serves_nothing_beside_a_stranger_until_a_person_decides) {
  const auto sole = [] {
    auto record = MachineFixture::pair_record(0);
    record.configuration = {3, 1, 0};
    record.seen = 3;
    return record;
  };
  MachineFixture node(0, sole());
  node.pass(milliseconds(20));
  node.flush();
  node.read_arbiter(3, 1, 0);
  node.persist();
  ASSERT_TRUE(node.may_answer());
  const auto before = node.machine->record();
  node.peer = {};
  node.peer.pair_id.bytes[0] = std::byte{2};
  node.peer.configuration = {1, 2, 1};
  node.hear();
  EXPECT_FALSE(node.may_answer());
  EXPECT_NE(node.machine->reason().find("another pair"), std::string::npos);
  node.pass_hearing(seconds(200));
  node.pass(seconds(200));
  EXPECT_FALSE(node.may_answer());
  EXPECT_EQ(node.machine->record(), before);

  // The other copy was made anew.
  node.peer.pair_id = {};
  node.peer.configuration = {};
  node.hear();
  EXPECT_TRUE(node.may_answer());

  // Or this one is said to be the right one.
  MachineFixture forced(0, sole());
  forced.peer.pair_id.bytes[0] = std::byte{2};
  forced.hear();
  ASSERT_TRUE(forced.machine->force_primary(forced.now).is_accepted);
  forced.pass(milliseconds(20));
  forced.flush();
  forced.persist();
  forced.hear();
  EXPECT_TRUE(forced.may_answer());
}

// What a copy belongs to is drawn when it is taken, and handed on with the first resync.
TEST(MembershipMachine, A_copy_that_was_just_created_gets_the_pair_of_its_source) {
  MachineFixture taken(0, blockdev::ResourceRecord{});
  ASSERT_TRUE(taken.machine->force_primary(taken.now).is_accepted);
  taken.pass(milliseconds(20));
  taken.flush();
  taken.persist();
  const Uuid id = taken.machine->record().pair_id;
  EXPECT_FALSE(id.is_none());
  EXPECT_EQ(taken.sent.pair_id, id);

  MachineFixture target(1, blockdev::ResourceRecord{});
  target.hear();
  Meeting meeting{Meeting::Direction::target, {1, 1, 0}, 1};
  meeting.peer_pair_id = id;
  target.machine->connected(meeting, target.now);
  target.pass(milliseconds(20));
  if (target.persist_out != 0) target.persist();
  target.machine->resync_begins({1, 1, 0}, target.now);
  target.pass(milliseconds(20));
  target.persist();
  EXPECT_EQ(target.machine->record().pair_id, id);
  ASSERT_TRUE(target.machine->force_primary(target.now).is_accepted);
  target.pass(milliseconds(20));
  if (target.flush_out != 0) target.flush();
  target.persist();
  EXPECT_EQ(target.machine->record().pair_id, id);
}

// `disconnect` of a primary, `invalidate` of the peer's copy: the peer knows that it is left behind before the
// connection ends, so that nobody promotes it by mistake.
TEST(MembershipMachine, A_peer_is_left_behind_over_the_connection) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.trace.clear();
  ASSERT_TRUE(node.machine->leave_peer(node.now).is_accepted);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"flush", "freeze"}));
  node.flush();
  node.persist();
  node.peer.reply = node.sent.request;
  node.hear();
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"persist (2,{01},0) seen 3", "end connection", "persist (3,{0},0) seen 3", "serve"}));

  MachineFixture left(1);
  left.establish(0);
  left.peer.request = {3, 33};
  left.hear();
  EXPECT_FALSE(left.machine->may_apply_frames());
  EXPECT_EQ(left.take(), (Trace{"persist (3,{0},0) seen 3 Outdated"}));
  left.persist();
  EXPECT_EQ(left.sent.reply, (RemovalTicket{3, 33}));
  EXPECT_EQ(left.take(), (Trace{"end connection"}));
}

TEST(MembershipMachine, A_node_that_the_administrator_keeps_apart_does_not_take_over) {
  MachineFixture node(1, MachineFixture::pair_record(0), ArbiterKind::none);
  node.establish(0);
  node.machine->set_apart(true, node.now);
  node.lose_connection();
  node.pass(seconds(30));
  EXPECT_EQ(node.take(), Trace{});
  EXPECT_NE(node.machine->reason().find("apart"), std::string::npos);
  node.machine->set_apart(false, node.now);
  node.pass(seconds(1));
  EXPECT_EQ(node.take(), (Trace{"flush"}));
}

TEST(MembershipMachine, A_node_that_stops_serves_no_more_and_still_agrees_to_give_way) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.trace.clear();
  node.machine->stop(node.now);
  node.lose_connection();
  EXPECT_EQ(node.take(), (Trace{"stop"}));
  node.pass_hearing(seconds(3));
  EXPECT_EQ(node.take(), Trace{});
  EXPECT_TRUE(node.sent.is_frozen);
  node.peer.request = {3, 33};
  node.hear();
  EXPECT_EQ(node.take(), (Trace{"persist (3,{1},1) seen 3 Outdated"}));
  node.persist();
  EXPECT_EQ(node.sent.reply, (RemovalTicket{3, 33}));
}

// It will not serve in this run, and is granted nothing in its next one; but only if it says so itself.
TEST(MembershipMachine, Without_an_arbiter_a_primary_whose_disk_failed_is_taken_over_though_it_is_heard) {
  MachineFixture node(1, MachineFixture::pair_record(0), ArbiterKind::none);
  node.establish(0);
  node.give_promise();
  node.peer.has_failed_disk = node.peer.is_frozen = true;
  node.peer.is_serving = false;
  node.hear();
  node.flush();
  node.persist();
  node.trace.clear();
  node.pass_hearing(milliseconds(2500));
  EXPECT_EQ(node.take(), (Trace{"persist (4,{1},1) seen 4", "freeze"}));
}

TEST(MembershipMachine, Without_an_arbiter_a_node_that_was_not_connected_waits_and_says_why) {
  MachineFixture node(0, MachineFixture::pair_record(0), ArbiterKind::none);
  ASSERT_TRUE(node.machine->make_primary(node.now).is_accepted);
  node.pass(seconds(2));
  node.flush();
  node.pass(seconds(60));
  EXPECT_EQ(node.take(), (Trace{"flush", "freeze"}));
  EXPECT_NE(node.machine->reason().find("not connected to its peer since it started"), std::string::npos);
}

TEST(MembershipMachine, Without_an_arbiter_a_connected_member_goes_on_when_the_peer_is_silent) {
  MachineFixture node(0, MachineFixture::pair_record(0), ArbiterKind::none);
  node.establish(0);
  node.pass(milliseconds(200));
  node.lose_connection();
  node.flush();
  node.persist();
  node.trace.clear();
  node.pass_hearing(seconds(3));  // Heard, and does not agree: never alone against a living peer.
  EXPECT_EQ(node.take(), Trace{});
  node.pass(milliseconds(1100));
  EXPECT_EQ(node.take(), (Trace{"persist (4,{0},0) seen 4"}));
}

// A2: a node in doubt acknowledges nothing: it may be about to go on alone, and what it acknowledged would count.
TEST(MembershipMachine, A_node_in_doubt_takes_no_frames) {
  MachineFixture node(1);
  node.establish(0);
  EXPECT_TRUE(node.machine->may_apply_frames());
  node.peer.request = {5, 55};
  node.hear();
  EXPECT_FALSE(node.machine->may_apply_frames());
  node.persist();
  EXPECT_FALSE(node.machine->may_apply_frames());
}

// An Outdated copy that is being resynced applies frames whatever its `seen`.
TEST(MembershipMachine, A_sync_target_takes_frames_when_its_record_says_so_durably) {
  blockdev::ResourceRecord record = sole_record(0);
  record.is_outdated = true;
  record.seen = 6;
  MachineFixture node(1, record);
  node.hear();
  node.machine->connected({Meeting::Direction::target, {2, 1, 0}, 2}, node.now);
  EXPECT_FALSE(node.machine->may_apply_frames());
  node.machine->resync_begins({2, 1, 0}, node.now);
  node.pass(milliseconds(20));
  EXPECT_FALSE(node.machine->may_apply_frames());
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"persist (2,{0},0) seen 6 Outdated", "target ready"}));
  EXPECT_TRUE(node.machine->may_apply_frames());
}

TEST(MembershipMachine, A_proposal_that_the_meeting_did_not_plan_is_refused) {
  MachineFixture node(1);
  node.hear();
  node.machine->connected({Meeting::Direction::target, {1, 3, 0}, 1}, node.now);
  node.machine->proposal_received({2, 3, 0}, node.machine->record().generations, node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"end connection"}));
}

// Isolated, and the peer surely goes on: it gives way for good, until it hears that the peer did not.
TEST(MembershipMachine, Ping_gives_way_without_an_address_and_takes_back_with_the_peers_agreement) {
  MachineFixture node(0, MachineFixture::pair_record(0), ArbiterKind::ping);
  node.establish(0);
  node.pass(milliseconds(1200));
  node.flush();
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"end connection", "flush", "probe"}));
  node.machine->arbiter_probed(node.arbiter_out, false, node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"persist (2,{01},0) seen 2 Outdated", "stop"}));
  node.persist();
  node.pass(seconds(20));
  EXPECT_EQ(node.take(), Trace{});
  node.peer.is_connected = false;
  node.hear();
  EXPECT_EQ(node.take(), (Trace{"persist (2,{01},0) seen 3 Outdated"}));
  node.persist();
  EXPECT_EQ(node.sent.request.term, 3u);
}

TEST(MembershipMachine, A_failed_disk_of_the_primary_makes_the_secondary_claim) {
  MachineFixture node(1);
  node.establish(0);
  node.give_promise();
  node.peer.has_failed_disk = true;
  node.peer.is_frozen = true;
  node.peer.is_serving = false;
  node.hear();
  // What the primary acknowledged before may still be on its way: the connection ends before the flush begins.
  EXPECT_EQ(node.take(), (Trace{"end connection", "flush"}));
  node.flush();
  node.persist();
  EXPECT_EQ(node.sent.request.term, 3u);
  // It can hardly remember that it is left behind: the arbiter decides, and nothing is waited for, not even the
  // promise.
  EXPECT_EQ(node.take(), (Trace{"persist (2,{01},0) seen 3", "read arbiter"}));
}

TEST(MembershipMachine, Standby_hands_the_role_over_and_maintenance_moves_nothing) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.machine->set_maintenance(true, node.now);
  node.machine->set_standby(true, node.now);
  node.hear();
  EXPECT_EQ(node.take(), (Trace{"serve"}));
  node.machine->set_maintenance(false, node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"drain and flush both", "freeze"}));

  MachineFixture other(1);
  other.establish(0);
  other.machine->set_maintenance(true, other.now);
  other.lose_connection();
  other.pass(seconds(30));
  EXPECT_EQ(other.take(), Trace{});
  EXPECT_NE(other.machine->reason().find("maintenance"), std::string::npos);
}

// `pcs property set maintenance-mode` is the cluster's, so one node's word is enough, also its last one.
TEST(MembershipMachine, The_peers_maintenance_counts_until_it_ends_there_or_is_ended_here) {
  MachineFixture node(1);
  node.peer.is_maintenance = true;
  node.establish(0);
  node.lose_connection();
  node.pass(seconds(30));
  EXPECT_EQ(node.take(), Trace{});
  EXPECT_TRUE(node.machine->is_peer_in_maintenance());
  node.hear();
  node.machine->set_maintenance(false, node.now);
  node.pass_hearing(seconds(2));
  EXPECT_EQ(node.take(), Trace{}) << "it lives";
  node.pass(seconds(2));
  node.machine->set_maintenance(false, node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), Trace{"flush"});
}

// What a person asks for is done.
TEST(MembershipMachine, In_maintenance_the_administrator_moves_the_role) {
  MachineFixture node(1);
  node.establish(0);
  node.machine->set_maintenance(true, node.now);
  node.lose_connection();
  node.pass(seconds(30));
  EXPECT_EQ(node.take(), Trace{});
  EXPECT_TRUE(node.machine->make_primary(node.now).is_accepted);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), Trace{"flush"});

  MachineFixture other(1, MachineFixture::pair_record(blockdev::kNoNode));
  other.establish(blockdev::kNoNode);
  other.machine->set_maintenance(true, other.now);
  EXPECT_TRUE(other.machine->make_primary(other.now).is_accepted);
  other.pass(milliseconds(20));
  EXPECT_EQ(other.take(), Trace{"drain and flush both"});
}

// The Primary's disk hung, and its copy needs a resync: that is no reason to take the role in maintenance.
TEST(MembershipMachine, In_maintenance_the_better_copy_does_not_take_the_role_by_itself) {
  MachineFixture node(1);
  node.machine->set_maintenance(true, node.now);
  node.hear();
  node.machine->connected({Meeting::Direction::source, node.peer.configuration, node.peer.seen}, node.now);
  node.pass_hearing(seconds(2));
  EXPECT_EQ(node.take(), Trace{});
  EXPECT_NE(node.machine->reason().find("maintenance"), std::string::npos);
  node.machine->set_maintenance(false, node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), Trace{"flush"});
}

TEST(MembershipMachine, Force_takes_the_copy_and_tells_the_arbiter) {
  blockdev::ResourceRecord record = MachineFixture::pair_record(0);
  record.configuration = {4, 1, 0};
  record.seen = 4;
  record.is_outdated = true;
  MachineFixture node(1, record);
  EXPECT_FALSE(node.machine->make_primary(node.now).is_accepted);
  ASSERT_TRUE(node.machine->force_primary(node.now).is_accepted);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"flush"}));
  node.flush();
  EXPECT_EQ(node.take(), (Trace{"persist (1000005,{1},1) seen 1000005", "freeze"}));
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"overwrite arbiter 1000005", "serve"}));
  // Each start of a copy that serves alone raised its term, and nobody heard of it.
  node.peer.configuration = {12, 1, 0};
  node.peer.seen = 12;
  node.hear();
  EXPECT_TRUE(node.may_answer());
  EXPECT_FALSE(node.machine->record().is_outdated);

  // What remembers nothing is told nothing.
  for (const ArbiterKind arbiter : {ArbiterKind::ping, ArbiterKind::none}) {
    MachineFixture forgetful(1, record, arbiter);
    ASSERT_TRUE(forgetful.machine->force_primary(forgetful.now).is_accepted);
    forgetful.pass(milliseconds(20));
    forgetful.flush();
    forgetful.persist();
    EXPECT_EQ(forgetful.take(), (Trace{"flush", "persist (1000005,{1},1) seen 1000005", "freeze", "serve"}));
  }
}

TEST(MembershipMachine, There_is_no_automatic_failback) {
  MembershipOptions options;
  options.preferred_node = 1;
  MachineFixture node(0, options);
  node.establish(0);
  for (int turn = 0; turn < 1200; ++turn) node.grant_lease();
  EXPECT_EQ(node.take(), (Trace{"serve"}));
}

// Whoever wanted the role while the nodes were apart does not take it when the role is given up much later.
TEST(MembershipMachine, A_wish_for_the_role_ends_when_somebody_has_it) {
  MachineFixture node(1);
  ASSERT_TRUE(node.machine->make_primary(node.now).is_accepted);
  node.establish(0);
  node.machine->proposal_received({3, 3, blockdev::kNoNode}, node.machine->record().generations, node.now);
  node.pass(milliseconds(20));
  node.persist();
  node.peer.configuration = {3, 3, blockdev::kNoNode};
  node.peer.is_serving = false;
  node.pass_hearing(seconds(2));
  EXPECT_EQ(node.take(), (Trace{"persist (3,{01},-) seen 3", "acknowledge 3", "established"}));
}

TEST(MembershipMachine, Whoever_cannot_write_its_metadata_says_only_that) {
  MachineFixture node(1);
  node.establish(0);
  node.machine->metadata_failed(node.now);
  node.peer.request = {9, 99};
  node.sent = {};
  node.pass_hearing(seconds(3));
  Heartbeat expected;
  expected.configuration = {2, 3, 0};
  expected.seen = 2;
  expected.current = node.machine->record().generations.current;
  expected.has_failed_disk = true;
  expected.pair_id = node.machine->record().pair_id;
  EXPECT_EQ(node.sent, expected);
  EXPECT_EQ(node.take(), (Trace{"end connection"}));
}

// The whole domain that matters, against the rule in other words: refused only by who went on without me, at my term or
// later.
TEST(Claim, Is_granted_unless_the_record_went_on_without_the_claimant) {
  for (std::uint64_t own_term = 1; own_term <= 3; ++own_term) {
    for (std::uint64_t seen = own_term; seen <= 4; ++seen) {
      for (std::uint64_t record_term = 1; record_term <= 4; ++record_term) {
        for (std::uint8_t members = 1; members <= 3; ++members) {
          blockdev::ResourceRecord own = MachineFixture::pair_record(0);
          own.configuration.term = own_term;
          own.seen = seen;
          const ports::ArbiterRecord record{own.pair_id, record_term, members, 0, 0, 0};
          const ClaimJudgement judgement = judge_claim(own, 0, record);
          const bool went_on_without_me = members == 2 && record_term >= own_term;
          EXPECT_EQ(judgement.verdict == ClaimVerdict::refused, went_on_without_me);
          if (went_on_without_me) continue;
          EXPECT_EQ(judgement.term, std::max({own_term, seen, record_term}) + 1);
        }
      }
    }
  }
}

// F13: a wiped or foreign arbiter grants nothing but to a person.
TEST(Claim, No_record_and_another_pairs_record_grant_nothing) {
  const blockdev::ResourceRecord own = MachineFixture::pair_record(0);
  EXPECT_EQ(judge_claim(own, 0, std::nullopt).verdict, ClaimVerdict::no_record);
  EXPECT_EQ(judge_claim(own, 0, ports::ArbiterRecord{{}, 1, 3, 0, 0, 0}).verdict, ClaimVerdict::no_record);
  for (const std::uint8_t members : std::initializer_list<std::uint8_t>{0, 4, 7}) {
    const ports::ArbiterRecord record{own.pair_id, 5, members, 0, 0, 0};
    EXPECT_EQ(judge_claim(own, 0, record).verdict, ClaimVerdict::no_record);
  }
}

}  // namespace
}  // namespace replblk::membership
