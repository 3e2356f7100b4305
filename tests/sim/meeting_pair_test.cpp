// Two whole nodes whose superblocks say what takes a rare moment to come about, and what they make of it when they
// meet.
#include <gtest/gtest.h>

#include "scripted_pair.hpp"

namespace replblk::sim {
namespace {

using blockdev::Generation;
using blockdev::kNoNode;
using blockdev::NodeIndex;
using blockdev::ResourceRecord;
using World = ScriptedPair;

constexpr Generation g1{1, 11}, g2{2, 22}, g3{3, 33}, g4{4, 44};

constexpr std::size_t kAll = ScriptedPair::kDataBytes / kSectorBytes;

// protocol.md 3.7, P1. Broken if answered writes that only the peer's cache still held were overwritten by the copy
// that lost its cache, because the peer had agreed to a removal that came to nothing.
TEST(MeetingPair, A_whole_peer_that_gave_way_for_nothing_overwrites_the_copy_that_lost_its_cache) {
  ResourceRecord rebooted;
  rebooted.configuration = {2, 3, 0};
  rebooted.seen = 3;
  rebooted.generations.current = g2;
  rebooted.is_primary_open = true;
  rebooted.boot_id.bytes.fill(std::byte{9});
  ResourceRecord gave_way;
  gave_way.configuration = {3, 1, 0};
  gave_way.seen = 3;
  gave_way.generations.current = g2;
  gave_way.is_outdated = true;
  World world;
  world.begin(rebooted, gave_way);
  world.run(seconds(30));
  EXPECT_TRUE(world.is_established());
  EXPECT_EQ(world.sectors_of(0, 1), kAll);
  EXPECT_EQ(world.sectors_of(1, 1), kAll);
  EXPECT_GT(world.hosts[1]->persisted(true).configuration.term, 3u);
}

/// Two that went on alone from the generation `base_…`; secondaries.
ResourceRecord alone(NodeIndex node, std::uint64_t term, const Generation& current, const Generation& base) {
  ResourceRecord record;
  record.configuration = {term, static_cast<std::uint8_t>(1u << node), kNoNode};
  record.seen = term;
  record.generations.current = current;
  record.generations.base = base;
  record.is_clean_stop = true;
  return record;
}

// Broken if a copy were given up without anybody's word, or the wrong one with it, or only in the blocks that a bitmap
// of another past names.
TEST(MeetingPair, A_split_is_resolved_by_hand_and_whole_where_the_bitmaps_have_no_common_past) {
  for (const std::size_t loser : {0u, 1u}) {
    ResourceRecord first = alone(0, 5, g3, g1);
    first.generations.history = {g2};
    World world;
    world.begin(first, alone(1, 6, g4, g2));
    world.run(seconds(5));
    for (const std::size_t node : {0u, 1u}) {
      EXPECT_EQ(world.status(node).connection_state, "StandAlone");
      EXPECT_EQ(world.status(node).split.size(), 2u);
      EXPECT_NE(world.status(node).connection_reason.find("--discard-my-data"), std::string::npos);
    }
    world.request(loser, {.verb = node::AdminVerb::connect, .resource = {}, .discards_data = true});
    world.run(seconds(2));
    EXPECT_EQ(world.sectors_of(loser, loser), kAll);  // The other one has not been asked.
    world.request(1 - loser, {.verb = node::AdminVerb::connect, .resource = {}});
    world.run(seconds(30));
    EXPECT_TRUE(world.is_established());
    EXPECT_EQ(world.sectors_of(0, 1 - loser), kAll);
    EXPECT_EQ(world.sectors_of(1, 1 - loser), kAll);
    EXPECT_TRUE(world.status(loser).split.empty());
  }
}

// Broken if the word given for one meeting were kept for a later one.
TEST(MeetingPair, A_choice_to_discard_is_for_one_meeting_and_never_for_a_primary) {
  World world;
  world.begin(alone(0, 5, g3, g1), alone(1, 6, g4, g1));
  world.run(seconds(5));
  const node::AdminRequest discard{.verb = node::AdminVerb::connect, .resource = {}, .discards_data = true};
  // Both: nobody gives up. The next meeting knows nothing of it.
  world.request(0, discard);
  world.request(1, discard);
  world.run(seconds(5));
  EXPECT_NE(world.status(0).connection_reason.find("both nodes were told to discard"), std::string::npos);
  for (const std::size_t node : {0u, 1u}) world.request(node, {.verb = node::AdminVerb::connect, .resource = {}});
  world.run(seconds(5));
  EXPECT_NE(world.status(0).connection_reason.find("after_sb_0pri disconnect leaves it to a person"),
            std::string::npos);
  // A primary is refused, and who becomes one takes the word back.
  world.request(1, discard);
  world.request(1, {.verb = node::AdminVerb::primary, .resource = {}});
  EXPECT_EQ(world.replies[1].outcome, node::AdminOutcome::done) << world.replies[1].message;
  world.request(1, discard);
  EXPECT_EQ(world.replies[1].outcome, node::AdminOutcome::refused);
  // The lower one of the two waits for what is decided.
  world.request(0, {.verb = node::AdminVerb::primary, .resource = {}});
  EXPECT_EQ(world.replies[0].outcome, node::AdminOutcome::refused);
  EXPECT_NE(world.replies[0].message.find("split"), std::string::npos) << world.replies[0].message;
  for (const std::size_t node : {0u, 1u}) world.request(node, {.verb = node::AdminVerb::connect, .resource = {}});
  world.run(seconds(5));
  for (const std::size_t node : {0u, 1u}) {
    EXPECT_EQ(world.status(node).connection_state, "StandAlone");
    EXPECT_EQ(world.sectors_of(node, node), kAll);
  }
}

// Broken if the Primary of the copy that loses kept its role, or nobody were told that it lost it.
TEST(MeetingPair, A_primary_whose_copy_loses_gives_up_role_and_copy_and_tells_its_handler) {
  World world;
  world.options.has_handlers = true;
  world.options.split_policies = {replication::AfterSb0::discard_node, 1, replication::AfterSb1::violently_as0p, {}};
  world.cut(true);
  ResourceRecord first = alone(0, 5, g3, g1);
  first.generations.history = {g2};
  world.begin(first, alone(1, 6, g4, g2));
  world.run(seconds(2));
  world.request(1, {.verb = node::AdminVerb::primary, .resource = {}});
  EXPECT_EQ(world.replies[1].outcome, node::AdminOutcome::done) << world.replies[1].message;
  world.cut(false);
  world.run(seconds(30));
  EXPECT_TRUE(world.is_established());
  for (const std::size_t node : {0u, 1u}) EXPECT_EQ(world.sectors_of(node, 0), kAll);
  EXPECT_FALSE(world.hosts[1]->inspect()->is_primary);
  EXPECT_EQ(std::ranges::count(world.hosts[1]->told(), "pri_lost_after_sb of r0"), 1);
  EXPECT_EQ(std::ranges::count(world.hosts[0]->told(), "pri_lost_after_sb of r0"), 0);
}

// Broken if the administrator waited for ever for what cannot be recorded.
TEST(MeetingPair, A_wish_that_cannot_be_recorded_is_answered) {
  for (const node::AdminVerb verb : {node::AdminVerb::standby, node::AdminVerb::maintenance_on}) {
    World world;
    world.begin({}, {});
    world.run(seconds(2));
    world.request(0, {.verb = node::AdminVerb::primary, .resource = {}, .is_forced = true});
    world.run(seconds(10));
    ASSERT_TRUE(world.is_established());
    Defect defect;
    defect.length_bytes = UINT64_MAX;
    defect.fails_changes = true;
    world.hosts[1]->data().set_defect(defect);
    world.request(1, {.verb = verb, .resource = {}});
    world.run(seconds(1));
    EXPECT_EQ(world.replies[1].outcome, node::AdminOutcome::failed);
    EXPECT_FALSE(world.replies[1].message.empty());
  }
}

// Broken if an operator could not see which ways between the nodes work before they are needed.
TEST(MeetingPair, Each_way_of_the_heartbeats_is_shown_with_why_it_does_not_work) {
  World world;
  world.begin({}, {});
  world.run(seconds(2));
  for (std::size_t node = 0; node < 2; ++node) {
    const auto paths = world.status(node).heartbeat_paths;
    ASSERT_EQ(paths.size(), 2u);
    for (const auto& path : paths) {
      EXPECT_TRUE(path.is_heard && path.is_heard_by_peer) << path.name << ": " << path.reason;
      EXPECT_GT(path.round_trip_us, 0u);
    }
    EXPECT_EQ(paths.back().name, "replication connection");
  }
  world.fabric.link(world.hosts[0]->address(), world.hosts[1]->address()).is_cut = true;
  world.run(seconds(2));
  EXPECT_FALSE(world.status(1).heartbeat_paths.front().is_heard);
  EXPECT_NE(world.status(1).heartbeat_paths.front().reason.find("nothing was heard for"), std::string::npos);
  EXPECT_TRUE(world.status(0).heartbeat_paths.front().is_heard);
  EXPECT_NE(world.status(0).heartbeat_paths.front().reason.find("one way is cut"), std::string::npos);
}

}  // namespace
}  // namespace replblk::sim
