// The counterexamples that the models found (T1 to T16, as far as they are about membership), each played up to the
// step that must not happen. Those about bits, extents and caches are held by the tests of blockdev, replication and
// the simulator.
#include "machine_fixture.hpp"

namespace replblk::membership {
namespace {

/// Node 1 has lost its primary and its promise has run out: the claim is at the arbiter, the term durable.
void claim_as_secondary(MachineFixture& node) {
  node.establish(0);
  node.give_promise();
  node.lose_connection();
  node.pass(milliseconds(2200));
  node.flush();
  node.pass(milliseconds(20));
  node.read_arbiter(1, 3, 0);
  node.persist();
  node.trace.clear();
}

// T1: a heartbeat of the primary gets through while the claim is out; an echo would be a lease beside the grant.
TEST(Counterexamples, T1_no_echo_while_a_claim_is_out) {
  MachineFixture node(1);
  claim_as_secondary(node);
  node.peer.stamp = {77, {2, 3, 0}, Instant(seconds(20)), 1000};
  node.peer.is_serving = true;
  node.hear();
  node.pass(milliseconds(200));
  EXPECT_TRUE(node.sent.echo.is_none());
  node.replace(true);
  EXPECT_EQ(node.take(), (Trace{"persist (3,{1},1) seen 3", "freeze"}));
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"serve"}));
}

// T2: agreed to be Outdated while the claim was out: its grant is worth nothing any more.
TEST(Counterexamples, T2_a_grant_after_giving_way_is_ignored) {
  MachineFixture node(1);
  claim_as_secondary(node);
  node.peer.request = {4, 99};
  node.peer.seen = 4;
  node.hear();
  EXPECT_EQ(node.take(), (Trace{"persist (4,{0},0) seen 4 Outdated"}));
  node.replace(true);
  node.persist();
  EXPECT_EQ(node.sent.reply, (RemovalTicket{4, 99}));
  node.pass(seconds(5));
  EXPECT_EQ(node.take(), Trace{});
  EXPECT_FALSE(node.may_answer());
}

// T3: echoed, died, restarted: the promise of the run before holds.
TEST(Counterexamples, T3_a_restarted_node_waits_out_its_longest_promise) {
  blockdev::ResourceRecord record = MachineFixture::pair_record(0);
  record.lease_ms_max = 1000;
  MachineFixture node(1, record);
  ASSERT_TRUE(node.machine->make_primary(node.now).is_accepted);
  node.pass(milliseconds(40));
  node.flush();
  node.pass(milliseconds(1040));
  EXPECT_EQ(node.take(), (Trace{"flush"}));
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"read arbiter"}));
}

// T5: the reply to a claim was lost: the same node claims again and is not refused because of its own grant.
TEST(Counterexamples, T5_an_own_grant_does_not_refuse_the_claimant) {
  MachineFixture node(1);
  claim_as_secondary(node);
  node.pass(milliseconds(1300));  // The answer never comes.
  EXPECT_EQ(node.take(), (Trace{"read arbiter"}));
  node.read_arbiter(3, 2, 1);
  EXPECT_EQ(node.take(), (Trace{"persist (2,{01},0) seen 4"}));
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"claim 4"}));
  node.replace(true);
  EXPECT_EQ(node.take(), (Trace{"persist (4,{1},1) seen 4", "freeze"}));
}

// T6: whoever serves alone agrees to nobody, however high the term is that a stale node asks with.
TEST(Counterexamples, T6_the_only_member_agrees_to_nobody) {
  blockdev::ResourceRecord record = MachineFixture::pair_record(1);
  record.configuration = {2, 2, 1};
  record.seen = 2;
  MachineFixture node(1, record);
  node.peer.configuration = {1, 3, 0};
  node.peer.request = {9, 99};
  node.peer.seen = 9;
  node.hear();
  node.pass(milliseconds(20));
  node.flush();
  EXPECT_EQ(node.take(), (Trace{"flush", "freeze", "persist (10,{1},1) seen 10"}));
  node.persist();
  node.peer.request = {12, 99};
  node.hear();
  EXPECT_EQ(node.take(), (Trace{"serve"}));
  EXPECT_TRUE(node.sent.reply.is_none());
}

// T7: its host lost power and perhaps answered writes with it: such a copy claims nothing by itself.
TEST(Counterexamples, T7_a_copy_that_may_have_lost_its_cache_claims_nothing) {
  MachineFixture node(0, MachineFixture::pair_record(0), ArbiterKind::etcd, true);
  node.pass(seconds(119));
  EXPECT_EQ(node.take(), (Trace{"freeze"}));
  EXPECT_NE(node.machine->reason().find("may have lost"), std::string::npos);
  node.pass(seconds(2));  // degraded_start_after: a person's decision, made beforehand.
  node.flush();
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"flush", "read arbiter"}));
}

// T7, with degraded_start_after: no person decides against a whole copy that can be heard.
TEST(Counterexamples, T7_a_copy_that_may_have_lost_its_cache_waits_for_a_whole_peer_that_it_hears) {
  MachineFixture node(0, MachineFixture::pair_record(0), ArbiterKind::etcd, true);
  node.peer.is_frozen = false;
  node.pass_hearing(seconds(130));
  EXPECT_EQ(node.take(), (Trace{"freeze"}));
  node.peer.is_inconsistent = true;  // That one is nobody to wait for.
  node.hear();
  EXPECT_EQ(node.take(), (Trace{"flush"}));
}

// T13: alone, and the power fails before what both answered is on the device: nobody would have it.
TEST(Counterexamples, T13_the_device_is_flushed_before_the_record_says_alone) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  ASSERT_EQ(node.take(), (Trace{"serve"}));
  node.lose_connection();
  node.pass_hearing(milliseconds(500));
  EXPECT_EQ(node.take(), (Trace{"flush", "freeze"}));
  EXPECT_TRUE(node.sent.request.is_none());
  node.flush();
  EXPECT_EQ(node.take(), (Trace{"persist (2,{01},0) seen 3"}));
  node.persist();
  ASSERT_EQ(node.sent.request.term, 3u);
  node.peer.configuration = {3, 1, 0};
  node.peer.seen = 3;
  node.peer.reply = node.sent.request;
  node.hear();
  EXPECT_EQ(node.take(), (Trace{"persist (3,{0},0) seen 3"}));
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"serve"}));
}

// T13, and the device cannot be flushed: this node can never go on alone, so it must not make the peer give way.
TEST(Counterexamples, T13_who_cannot_flush_asks_for_nothing) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  node.lose_connection();
  ASSERT_EQ(node.take(), (Trace{"serve", "flush", "freeze"}));
  for (int attempt = 0; attempt < 3; ++attempt) {
    node.machine->flushed(node.flush_out, false, node.now);
    node.pass_hearing(milliseconds(990));
    EXPECT_EQ(node.take(), Trace{});
    EXPECT_EQ(node.machine->reason(), "the local disk cannot be flushed");
    node.pass_hearing(milliseconds(20));
    EXPECT_EQ(node.take(), (Trace{"flush"}));  // Once a second.
  }
  EXPECT_TRUE(node.sent.request.is_none());
  EXPECT_FALSE(node.may_answer());
}

// T15: a peer that is added without a flush of both would hold what was flushed in its cache only.
TEST(Counterexamples, T15_nothing_is_proposed_before_both_are_flushed) {
  blockdev::ResourceRecord record = MachineFixture::pair_record(0);
  record.configuration = {2, 1, 0};
  record.seen = 2;
  MachineFixture node(0, record);
  node.pass(milliseconds(20));
  node.flush();
  node.read_arbiter(2, 1, 0);
  node.persist();
  node.peer.configuration = {3, 1, 0};
  node.peer.seen = 3;
  node.peer.is_outdated = node.peer.is_inconsistent = true;
  node.hear();
  node.machine->connected({Meeting::Direction::source, {3, 1, 0}, 3}, node.now);
  node.trace.clear();
  node.machine->resynced(node.now);
  node.pass(milliseconds(20));
  EXPECT_EQ(node.take(), (Trace{"source ready", "drain and flush both", "freeze"}));
  node.pass_hearing(seconds(1));
  EXPECT_EQ(node.take(), Trace{});
  node.flush();
  EXPECT_EQ(node.take(), (Trace{"persist (3,{0},0) seen 4"}));
  EXPECT_FALSE(node.may_answer());
  node.persist();
  EXPECT_EQ(node.take(), (Trace{"propose (4,{01},0)"}));
}

// T16: the link comes back within the lease: the configuration of two does not go on as it was.
TEST(Counterexamples, T16_a_pair_does_not_outlive_its_connection) {
  MachineFixture node(0);
  node.establish(0);
  node.grant_lease();
  ASSERT_TRUE(node.may_answer());
  node.lose_connection();
  EXPECT_FALSE(node.may_answer());
  node.peer.echo = node.sent.stamp;
  node.hear();
  node.flush();
  node.persist();
  node.hear();
  EXPECT_FALSE(node.may_answer());
  EXPECT_FALSE(
      node.machine->is_settled());  // No Introduction before the removal that was asked for is carried through.
  EXPECT_EQ(node.sent.request.term, 3u);
}

// F9: a term that the peer has named already would be worth nothing.
TEST(Counterexamples, F9_a_new_term_is_above_all_that_either_node_has_named) {
  MachineFixture node(1);
  claim_as_secondary(node);
  node.peer.seen = 8;
  node.hear();
  node.pass(milliseconds(1100));  // The arbiter does not answer; the peer might agree.
  EXPECT_EQ(node.take(), (Trace{"persist (2,{01},0) seen 9"}));
  node.persist();
  EXPECT_EQ(node.sent.request.term, 9u);
}

}  // namespace
}  // namespace replblk::membership
