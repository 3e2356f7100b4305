// Two whole nodes, and when the role moves by itself, by hand, or not at all.
#include <gtest/gtest.h>

#include "scripted_pair.hpp"

namespace replblk::sim {
namespace {

using node::AdminVerb;

/// Both are UpToDate, and the first is Primary.
struct RolesPair : ScriptedPair {
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
  [[nodiscard]] bool is_primary(std::size_t node) { return hosts[node]->inspect()->is_primary; }
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
    Defect defect;
    defect.length_bytes = UINT64_MAX;
    defect.fails_changes = defect.fails_flushes = true;
    world.hosts[0]->data().set_defect(defect);
    world.request(0, {.verb = AdminVerb::standby, .resource = {}});
    world.run(seconds(5));
    EXPECT_FALSE(world.is_primary(0));
    EXPECT_FALSE(world.is_primary(1));
    world.tell(1, verb == AdminVerb::standby ? AdminVerb::unstandby : AdminVerb::maintenance_off);
    world.run(seconds(3));
    EXPECT_TRUE(world.is_primary(1));
  }
}

}  // namespace
}  // namespace replblk::sim
