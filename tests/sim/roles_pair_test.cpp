// Two whole nodes, and when the role moves by itself, by hand, or not at all.
#include <gtest/gtest.h>

#include <optional>

#include "scripted_pair.hpp"
#include "sim_virtual_ip.hpp"

namespace replblk::sim {
namespace {

using node::AdminVerb;

/// Both are UpToDate, and the first is Primary.
struct RolesPair : ScriptedPair {
  RolesPair() {
    for (const auto& host : hosts) host->set_lan(&lan);
  }
  /// Before they start.
  void prefer_second(std::optional<Duration> failback_after) {
    for (const auto& host : hosts) {
      host->set_config_edit([failback_after](node::ClusterConfig& config) {
        config.resources.front().preferred_node = 1;
        config.resources.front().failback_after = failback_after;
      });
    }
  }
  void establish() {
    begin({}, {});
    run(seconds(2));
    request(0, {.verb = AdminVerb::primary, .resource = {}, .is_forced = true});
    run(seconds(10));
    ASSERT_TRUE(is_established());
    ASSERT_TRUE(is_primary(0));
  }
  void tell(std::size_t node, AdminVerb verb) {
    request(node, {.verb = verb, .resource = {}});
    EXPECT_EQ(replies[node].outcome, node::AdminOutcome::done) << replies[node].message;
  }
  /// The first node's disk finishes nothing any more, while something waits for it.
  void stall() {
    hosts[0]->data().hang();
    request(0, {.verb = AdminVerb::verify, .resource = {}});
  }
  /// It fails a change, which becomes known at once.
  void fail_disk() {
    Defect defect;
    defect.length_bytes = UINT64_MAX;
    defect.fails_changes = defect.fails_flushes = true;
    hosts[0]->data().set_defect(defect);
    request(0, {.verb = AdminVerb::unstandby, .resource = {}});
  }
  [[nodiscard]] bool is_primary(std::size_t node) { return hosts[node]->inspect()->is_primary; }

  SimLan lan{timeline};
};

// Broken if a disk that is slow for a while took the service away altogether.
TEST(RolesPair, A_stalled_disk_gives_the_role_only_to_a_peer_that_takes_it) {
  for (const auto verb : {AdminVerb::standby, AdminVerb::maintenance_on}) {
    RolesPair world;
    world.options.disk_stall_timeout = seconds(3);
    world.establish();
    world.tell(1, verb);
    world.stall();
    world.run(seconds(10));
    EXPECT_TRUE(world.is_primary(0));
    world.tell(1, verb == AdminVerb::standby ? AdminVerb::unstandby : AdminVerb::maintenance_off);
    world.run(seconds(2));
    EXPECT_FALSE(world.is_primary(0));
    EXPECT_TRUE(world.is_primary(1));
  }
}

// Broken if what the administrator has to do were not what helps: a copy that failed can serve nothing.
TEST(RolesPair, A_failed_disk_waits_for_the_peer_to_be_allowed_to_serve) {
  for (const auto verb : {AdminVerb::standby, AdminVerb::maintenance_on}) {
    RolesPair world;
    world.establish();
    world.tell(1, verb);
    world.fail_disk();
    world.run(seconds(5));
    EXPECT_FALSE(world.is_primary(0));
    EXPECT_FALSE(world.is_primary(1));
    world.tell(1, verb == AdminVerb::standby ? AdminVerb::unstandby : AdminVerb::maintenance_off);
    world.run(seconds(3));
    EXPECT_TRUE(world.is_primary(1));
  }
}

// Broken if a node took a role that it can only half play, without a person's word.
TEST(RolesPair, A_node_that_cannot_hold_the_virtual_ip_becomes_primary_by_force_only) {
  RolesPair world;
  world.establish();
  world.tell(0, AdminVerb::secondary);
  world.lan.set_trouble(0, "virtual IP x: the device is down");
  world.request(0, {.verb = AdminVerb::primary, .resource = {}});
  world.run(seconds(2));
  EXPECT_EQ(world.replies[0].outcome, node::AdminOutcome::refused);
  EXPECT_NE(world.replies[0].message.find("the device is down; with --force"), std::string::npos);
  EXPECT_FALSE(world.is_primary(0));
  world.request(0, {.verb = AdminVerb::primary, .resource = {}, .is_forced = true});
  world.run(seconds(2));
  EXPECT_EQ(world.replies[0].outcome, node::AdminOutcome::done) << world.replies[0].message;
  EXPECT_EQ(world.status(0).virtual_ips.front().state, "failed");
}

// Broken if a healthy Primary gave its role by plan to a node that initiators do not find, or nobody said why not.
TEST(RolesPair, No_role_is_moved_to_a_node_that_cannot_hold_the_virtual_ip) {
  RolesPair world;
  world.establish();
  world.lan.set_trouble(1, "virtual IP x: the device is down");
  world.run(seconds(2));
  EXPECT_EQ(world.status(1).virtual_ips.front().reason, "virtual IP x: the device is down");
  for (const auto verb : {AdminVerb::switchover, AdminVerb::standby}) {
    world.request(0, {.verb = verb, .resource = {}});
    EXPECT_EQ(world.replies[0].outcome, node::AdminOutcome::refused);
    EXPECT_NE(world.replies[0].message.find("cannot hold the virtual IP"), std::string::npos);
    EXPECT_TRUE(world.is_primary(0));
  }
  world.lan.set_trouble(1, {});
  world.run(seconds(2));
  EXPECT_EQ(world.status(1).virtual_ips.front().reason, "");
  world.tell(0, AdminVerb::switchover);
  world.run(seconds(1));
  EXPECT_TRUE(world.is_primary(1));
}

// Broken if nobody served because the one that is left cannot hold the address: it can be reached by a redirect.
TEST(RolesPair, A_daemon_that_ends_hands_over_also_without_the_virtual_ip) {
  RolesPair world;
  world.establish();
  world.lan.set_trouble(1, "virtual IP x: the device is down");
  world.run(seconds(2));
  world.hosts[0]->stop([] {});
  world.run(seconds(1));
  EXPECT_TRUE(world.is_primary(1));
  EXPECT_EQ(world.status(1).virtual_ips.front().state, "failed");
}

// Broken if initiators found nobody at the virtual IP, though a node that could hold it stood by: for good, or over a
// cable that is plugged in anew.
TEST(RolesPair, The_role_follows_a_virtual_ip_that_cannot_be_held_any_more) {
  RolesPair world;
  world.establish();
  world.lan.set_trouble(0, "virtual IP x: the device is down");
  world.run(milliseconds(1500));
  EXPECT_TRUE(world.is_primary(0));
  EXPECT_EQ(world.status(0).virtual_ips.front().state, "failed");
  EXPECT_EQ(world.status(0).virtual_ips.front().reason, "virtual IP x: the device is down");
  world.lan.set_trouble(0, {});
  world.run(seconds(5));
  EXPECT_TRUE(world.is_primary(0));
  EXPECT_EQ(world.status(0).virtual_ips.front().state, "held");

  world.lan.set_trouble(0, "virtual IP x: the device is down");
  world.run(seconds(5));
  EXPECT_FALSE(world.is_primary(0));
  EXPECT_TRUE(world.is_primary(1));
  EXPECT_EQ(world.status(1).virtual_ips.front().state, "held");
  // Where neither can hold it the role stays.
  world.lan.set_trouble(1, "virtual IP x: the device is down");
  world.run(seconds(10));
  EXPECT_TRUE(world.is_primary(1));
}

// Broken if it was taken from where a person put it, or though a person works on the pair.
TEST(RolesPair, A_person_keeps_the_role_where_the_virtual_ip_cannot_be_held) {
  for (const bool is_in_maintenance : {false, true}) {
    RolesPair world;
    world.establish();
    if (is_in_maintenance) {
      world.tell(0, AdminVerb::maintenance_on);
    } else {
      world.tell(0, AdminVerb::secondary);
    }
    world.lan.set_trouble(0, "virtual IP x: the device is down");
    if (!is_in_maintenance) world.request(0, {.verb = AdminVerb::primary, .resource = {}, .is_forced = true});
    world.run(seconds(20));
    EXPECT_TRUE(world.is_primary(0));
    EXPECT_FALSE(world.is_primary(1));
  }
}

// Broken if a role that moves by plan waited for a heartbeat's turn, or for what the network says to a question that
// the peer has answered.
TEST(RolesPair, A_switchover_takes_as_long_as_its_messages) {
  RolesPair world;
  world.establish();
  world.run(seconds(2));
  world.request(0, {.verb = AdminVerb::switchover, .resource = {}});
  world.run(milliseconds(60));
  EXPECT_TRUE(world.is_primary(1));
  EXPECT_EQ(world.status(1).virtual_ips.front().state, "held");
  EXPECT_EQ(world.lan.announced_by(), 1);
}

// Broken if a node whose peer is worked on took the role, or could not be freed once that peer is gone for good.
TEST(RolesPair, Maintenance_on_one_node_keeps_the_other_one_from_taking_over) {
  RolesPair world;
  world.establish();
  world.tell(0, AdminVerb::maintenance_on);
  world.hosts[0]->kill();
  world.run(seconds(10));
  EXPECT_FALSE(world.is_primary(1));
  const std::string reason = world.status(1).role_reason;
  EXPECT_NE(reason.find("maintenance on a"), std::string::npos) << reason;
  EXPECT_NE(reason.find("maintenance-off there, or here"), std::string::npos) << reason;
  world.tell(1, AdminVerb::maintenance_off);
  world.run(seconds(10));
  EXPECT_TRUE(world.is_primary(1));
}

// Broken if the word of a peer that lives could be ended where it was not given, or outlived what it was about.
TEST(RolesPair, Maintenance_ends_where_it_began) {
  RolesPair world;
  world.establish();
  world.tell(0, AdminVerb::maintenance_on);
  world.tell(1, AdminVerb::maintenance_off);
  EXPECT_NE(world.replies[1].message.find("but the peer is heard"), std::string::npos) << world.replies[1].message;
  world.hosts[0]->stop([] {});
  world.run(seconds(10));
  EXPECT_FALSE(world.is_primary(1));
  world.hosts[0]->start();
  world.run(seconds(10));
  EXPECT_TRUE(world.is_primary(0));
  world.tell(0, AdminVerb::maintenance_off);
  world.hosts[0]->kill();
  world.run(seconds(10));
  EXPECT_TRUE(world.is_primary(1));
}

// Broken if a node whose disk fails forgot what it said: the peer would take the role in maintenance.
TEST(RolesPair, A_failed_disk_does_not_end_maintenance) {
  RolesPair world;
  world.establish();
  world.tell(0, AdminVerb::maintenance_on);
  world.fail_disk();
  world.run(seconds(5));
  EXPECT_FALSE(world.is_primary(0));
  EXPECT_FALSE(world.is_primary(1));
  world.tell(0, AdminVerb::maintenance_off);
  world.run(seconds(3));
  EXPECT_TRUE(world.is_primary(1));
}

/// The nodes meet again after the role was given up.
bool is_promoted_by_a_blip(RolesPair& world) {
  world.tell(0, AdminVerb::secondary);
  world.cut(true);
  world.run(seconds(5));
  world.cut(false);
  world.run(seconds(10));
  EXPECT_TRUE(world.is_established());
  EXPECT_FALSE(world.is_primary(0));
  return world.is_primary(1);
}

// Broken if nobody were Primary of a pair that prefers one, or if a lost packet made one in maintenance.
TEST(RolesPair, A_meeting_chooses_the_preferred_node_but_in_maintenance) {
  for (const bool is_maintenance : {false, true}) {
    RolesPair world;
    world.prefer_second({});
    world.establish();
    if (is_maintenance) world.tell(1, AdminVerb::maintenance_on);
    EXPECT_EQ(is_promoted_by_a_blip(world), !is_maintenance);
  }
}

// Broken if the role went back too early, never, to a node on standby, or in maintenance.
TEST(RolesPair, The_role_goes_back_to_the_preferred_node_after_a_while) {
  for (const auto verb : {AdminVerb::status, AdminVerb::standby, AdminVerb::maintenance_on}) {
    RolesPair world;
    world.prefer_second(seconds(60));
    world.establish();
    if (verb != AdminVerb::status) world.tell(1, verb);
    world.run(seconds(45));
    EXPECT_TRUE(world.is_primary(0));
    world.hosts[1]->kill();  // UpToDate anew: the time begins again.
    world.run(seconds(5));
    world.hosts[1]->start();
    world.run(seconds(45));
    ASSERT_TRUE(world.is_established());
    EXPECT_TRUE(world.is_primary(0));
    world.run(seconds(30));
    EXPECT_EQ(world.is_primary(1), verb == AdminVerb::status);
    world.run(seconds(120));
    EXPECT_EQ(world.is_primary(1), verb == AdminVerb::status);
  }
}

// Broken if failback moved the role where initiators do not find it.
TEST(RolesPair, The_role_does_not_go_back_to_a_node_that_cannot_hold_the_virtual_ip) {
  RolesPair world;
  world.prefer_second(seconds(10));
  world.lan.set_trouble(1, "virtual IP x: the device is down");
  world.establish();
  world.run(seconds(60));
  EXPECT_TRUE(world.is_primary(0));
  world.lan.set_trouble(1, {});
  world.run(seconds(15));
  EXPECT_TRUE(world.is_primary(1));
}

}  // namespace
}  // namespace replblk::sim
