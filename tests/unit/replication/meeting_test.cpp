#include "replication/meeting.hpp"

#include <gtest/gtest.h>

namespace replblk::replication {
namespace {

using blockdev::Configuration;
using blockdev::Generation;
using blockdev::GenerationSet;

constexpr Generation g1{1, 11}, g2{2, 22}, g3{3, 33}, g4{4, 44};

Introduction side(Configuration configuration, GenerationSet generations) {
  Introduction intro;
  VolumeIntroduction volume;
  volume.size_bytes = 1u << 20;
  volume.logical_block_bytes = 512;
  volume.bitmap_block_bytes = 4096;
  intro.volumes = {volume};
  intro.configuration = configuration;
  intro.seen = configuration.term;
  intro.generations = std::move(generations);
  return intro;
}

Plan plan(const Introduction& mine, const Introduction& yours) { return plan_meeting(0, mine, yours); }

TEST(Meeting, Both_just_created_wait) {
  const Plan result = plan(side({}, {}), side({}, {}));
  EXPECT_EQ(result.kind, PlanKind::wait);
  EXPECT_EQ(result.row, MeetingRow::both_created);
}

TEST(Meeting, A_new_copy_gets_everything) {
  const Plan result = plan(side({1, 1, 0}, {g1, {}, {}}), side({}, {}));
  EXPECT_EQ(result.kind, PlanKind::sync_source);
  EXPECT_EQ(result.row, MeetingRow::one_created);
  EXPECT_TRUE(result.is_full);
}

TEST(Meeting, A_peer_that_was_left_behind_gets_the_bitmap) {
  const Plan result = plan(side({3, 1, 0}, {g3, g2, {g1}}), side({2, 3, 0}, {g2, {}, {g1}}));
  EXPECT_EQ(result.kind, PlanKind::sync_source);
  EXPECT_EQ(result.row, MeetingRow::base_is_yours);
  EXPECT_FALSE(result.is_full);
}

TEST(Meeting, A_peer_older_than_the_base_gets_everything) {
  const Plan result = plan(side({4, 1, 0}, {g4, g3, {g2, g1}}), side({1, 3, 0}, {g1, {}, {}}));
  EXPECT_EQ(result.kind, PlanKind::sync_source);
  EXPECT_EQ(result.row, MeetingRow::in_history);
  EXPECT_TRUE(result.is_full);
}

// What may go on with the bits that are left. Each condition that is left out lets a copy of another history through,
// whose differences are in no set.
TEST(Meeting, Only_the_same_incomplete_copy_under_the_same_configuration_goes_on_where_it_was_cut_off) {
  const Configuration source{7, 1, 0};
  const Introduction mine = side(source, {g3, g2, {}});
  Introduction target = side(source, {});
  target.is_inconsistent = target.is_outdated = true;
  EXPECT_TRUE(is_same_resync(7, 0, mine, target));
  EXPECT_TRUE(is_same_resync(6, 0, mine, target));         // the source was started again
  EXPECT_FALSE(is_same_resync(0, 0, mine, target));        // it has merged nobody's bits
  EXPECT_FALSE(is_same_resync(7, 1, mine, target));        // this is the other one's configuration
  EXPECT_FALSE(is_same_resync(7, 0, mine, side({}, {})));  // create-md since
  Introduction other = target;
  other.configuration.term = 6;  // it never heard of this resync
  EXPECT_FALSE(is_same_resync(7, 0, mine, other));
  other.configuration.term = 8;  // nor is this a term of this source
  EXPECT_FALSE(is_same_resync(7, 0, mine, other));
  other = target;
  other.is_inconsistent = false;  // Outdated only: this resync had not begun there, or somebody forced it
  EXPECT_FALSE(is_same_resync(7, 0, mine, other));
  Introduction pair = side({7, 3, 0}, {g3, g2, {}});
  other = target;
  other.configuration = pair.configuration;
  EXPECT_FALSE(is_same_resync(7, 0, pair, other));
  Introduction doubt = mine;
  doubt.seen = 8;  // an add was proposed, and may have been agreed to
  EXPECT_FALSE(is_same_resync(7, 0, doubt, target));
}

// protocol.md P4: a split that is merged silently destroys one side's answered writes.
TEST(Meeting, Two_lines_from_one_base_are_a_split) {
  const Plan result = plan(side({3, 1, 0}, {g3, g1, {}}), side({4, 2, 1}, {g4, g1, {}}));
  EXPECT_EQ(result.kind, PlanKind::apart);
  EXPECT_TRUE(result.is_split);
  EXPECT_TRUE(result.is_final);
}

TEST(Meeting, Two_only_members_of_one_term_are_a_split_whatever_the_generations_say) {
  const Plan result = plan(side({3, 1, 0}, {g3, g1, {}}), side({3, 2, 1}, {g1, {}, {}}));
  EXPECT_EQ(result.row, MeetingRow::configuration_split);
  EXPECT_TRUE(result.is_split);
}

TEST(Meeting, Nothing_in_common_is_refused) {
  const Plan result = plan(side({3, 1, 0}, {g3, {}, {}}), side({4, 2, 1}, {g4, {}, {}}));
  EXPECT_EQ(result.row, MeetingRow::unrelated);
  EXPECT_TRUE(result.is_final);
}

// Broken if an old copy of this pair, from before create-md, were taken for one that the generations happen to fit.
TEST(Meeting, Copies_of_two_pairs_are_unrelated_whatever_the_generations_say) {
  Introduction mine = side({3, 1, 0}, {g3, g1, {}});
  Introduction yours = side({3, 1, 0}, {g3, g1, {}});
  mine.pair_id.bytes[0] = std::byte{1};
  EXPECT_NE(plan(mine, yours).row, MeetingRow::unrelated);
  yours.pair_id.bytes[0] = std::byte{2};
  const Plan result = plan(mine, yours);
  EXPECT_EQ(result.row, MeetingRow::unrelated);
  EXPECT_TRUE(result.is_final);
}

// Row 3: the survivor has everything that was answered; the crashed primary may lack or exceed it.
TEST(Meeting, The_survivor_is_source_over_the_crashed_primary) {
  Introduction crashed = side({2, 3, 0}, {g2, {}, {}});
  crashed.is_crashed_primary = true;
  Introduction survivor = side({2, 3, 0}, {g2, {}, {}});
  survivor.survived_connected = true;
  EXPECT_EQ(plan(crashed, survivor).kind, PlanKind::sync_target);
  EXPECT_EQ(plan(survivor, crashed).kind, PlanKind::sync_source);
  EXPECT_EQ(plan(survivor, crashed).row, MeetingRow::survivor);
}

// F21: the one whose cache may be lost must not overwrite the one that has it.
TEST(Meeting, After_two_crashes_the_one_whose_host_did_not_reboot_is_source) {
  Introduction crashed = side({2, 3, 0}, {g2, {}, {}});
  crashed.is_crashed_primary = true;
  crashed.may_have_lost_cache = true;
  const Introduction other = side({2, 3, 0}, {g2, {}, {}});
  EXPECT_EQ(plan(crashed, other).kind, PlanKind::sync_target);
  crashed.may_have_lost_cache = false;
  EXPECT_EQ(plan(crashed, other).kind, PlanKind::sync_source);
}

// protocol.md 3.7: the primary named a removal, its peer agreed and became Outdated, and the power went before the
// primary acted upon it. What its cache held may be gone; the peer has it all.
TEST(Meeting, A_whole_peer_that_gave_way_for_nothing_takes_over_from_a_copy_that_lost_its_cache) {
  Introduction rebooted = side({2, 3, 0}, {g2, {}, {}});
  rebooted.seen = 3;
  rebooted.is_crashed_primary = true;
  rebooted.may_have_lost_cache = true;
  Introduction gave_way = side({3, 1, 0}, {g2, {}, {}});
  gave_way.is_outdated = true;
  EXPECT_EQ(plan_meeting(0, rebooted, gave_way).kind, PlanKind::sync_target);
  EXPECT_EQ(plan_meeting(1, gave_way, rebooted).kind, PlanKind::sync_source);
  EXPECT_EQ(plan_meeting(1, gave_way, rebooted).row, MeetingRow::by_agreement);
  // Only the daemon died: it has everything itself.
  rebooted.may_have_lost_cache = false;
  EXPECT_EQ(plan_meeting(1, gave_way, rebooted).kind, PlanKind::sync_target);
}

// Broken if a primary gave its role away by agreeing with its peer that nobody has it.
TEST(Meeting, A_primary_with_nothing_to_copy_adds_its_peer_and_stays_primary) {
  Introduction primary = side({2, 3, 1}, {g2, {}, {}});
  primary.is_primary = true;
  const Introduction other = side({2, 3, 1}, {g2, {}, {}});
  EXPECT_EQ(plan_meeting(1, primary, other).kind, PlanKind::sync_source);
  EXPECT_EQ(plan_meeting(0, other, primary).kind, PlanKind::sync_target);
}

// F24: a half-synced copy is never the source, not even of a crashed primary.
TEST(Meeting, An_Inconsistent_survivor_is_not_source) {
  Introduction crashed = side({2, 3, 0}, {g2, {}, {}});
  crashed.is_crashed_primary = true;
  Introduction survivor = side({2, 3, 0}, {g2, {}, {}});
  survivor.survived_connected = true;
  survivor.is_inconsistent = true;
  EXPECT_EQ(plan(crashed, survivor).kind, PlanKind::sync_source);
}

TEST(Meeting, Equal_copies_agree) {
  const Plan result = plan(side({2, 3, 0}, {g2, {}, {g1}}), side({2, 3, 0}, {g2, {}, {g1}}));
  EXPECT_EQ(result.kind, PlanKind::agree);
}

TEST(Meeting, Differing_configuration_files_are_named_field_by_field) {
  Introduction mine = side({}, {});
  Introduction yours = side({}, {});
  mine.shared_fields = {"cluster.name=x", "resource.r0.lun=0", "only.here=1"};
  yours.shared_fields = {"cluster.name=x", "resource.r0.lun=5", "only.there=2"};
  const Plan result = plan(mine, yours);
  EXPECT_EQ(result.kind, PlanKind::apart);
  EXPECT_EQ(result.reason,
            "the configuration files differ: resource.r0.lun: here 0, there 5; only.here: here 1, there (absent); "
            "only.there: here (absent), there 2");
}

TEST(Meeting, Volumes_of_different_size_are_named) {
  Introduction mine = side({}, {});
  Introduction yours = side({}, {});
  yours.volumes[0].size_bytes = 4096;
  EXPECT_NE(plan(mine, yours).reason.find("usable size here 1048576 bytes, there 4096 bytes"), std::string::npos);
}

// A resize that was cut off between the nodes: the one that has not grown does, if it has room and it is the same
// volume.
TEST(Meeting, The_smaller_copy_grows_to_the_larger_one_only_when_it_has_room) {
  Introduction mine = side({2, 3, 0}, {g1, {}, {}}), yours = mine;
  yours.volumes[0].size_bytes = 3u << 20;
  EXPECT_EQ(sizes_to_grow_to(mine, yours), volume_sizes(mine)) << "no room";
  mine.volumes[0].room_bytes = (3u << 20) - 4096;
  EXPECT_EQ(sizes_to_grow_to(mine, yours), volume_sizes(mine)) << "too little";
  mine.volumes[0].room_bytes = 4u << 20;
  EXPECT_EQ(sizes_to_grow_to(mine, yours), volume_sizes(yours));
  EXPECT_EQ(sizes_to_grow_to(yours, mine), volume_sizes(yours)) << "nothing ever shrinks";
  yours.volumes[0].size_bytes += 512;
  EXPECT_EQ(sizes_to_grow_to(mine, yours), volume_sizes(mine)) << "no size that a volume can have";
  yours.volumes[0].size_bytes -= 512;
  yours.volumes[0].uuid.bytes[0] = std::byte{1};
  EXPECT_EQ(sizes_to_grow_to(mine, yours), volume_sizes(mine)) << "another volume";
}

// The whole small domain: both sides must come to mirrored plans, and the rules that guard data must hold in each.
TEST(Meeting, Plans_are_mirrored_and_no_bad_copy_is_source_over_the_whole_domain) {
  const std::vector<Configuration> configurations = {{},        {2, 3, 0}, {2, 3, blockdev::kNoNode}, {3, 1, 0},
                                                     {3, 2, 1}, {4, 3, 1}, {4, 1, blockdev::kNoNode}};
  const std::vector<GenerationSet> generations = {
      {}, {g1, {}, {}}, {g2, g1, {}}, {g2, {}, {g1}}, {g3, g2, {g1}}, {g3, g1, {}}, {g4, {}, {}}, {g4, g2, {g3, g1}}};
  std::vector<Introduction> sides;
  for (const Configuration& configuration : configurations) {
    for (const GenerationSet& set : generations) {
      for (unsigned flags = 0; flags < 64; ++flags) {
        Introduction one = side(configuration, set);
        one.is_inconsistent = (flags & 1) != 0;
        one.is_outdated = (flags & 2) != 0;
        one.is_crashed_primary = (flags & 4) != 0;
        one.may_have_lost_cache = (flags & 8) != 0;
        one.survived_connected = (flags & 16) != 0;
        one.volumes[0].has_dirty_blocks = (flags & 32) != 0;
        sides.push_back(one);
      }
    }
  }
  const auto mirrored = [](PlanKind kind) {
    if (kind == PlanKind::sync_source) return PlanKind::sync_target;
    return kind == PlanKind::sync_target ? PlanKind::sync_source : kind;
  };
  std::size_t checked = 0;
  for (std::size_t first = 0; first < sides.size(); first += 3) {
    for (std::size_t second = first % 7; second < sides.size(); second += 7) {
      const Introduction& a = sides[first];
      const Introduction& b = sides[second];
      const Plan seen_by_a = plan_meeting(0, a, b);
      const Plan seen_by_b = plan_meeting(1, b, a);
      ++checked;
      ASSERT_EQ(seen_by_b.kind, mirrored(seen_by_a.kind)) << first << " " << second;
      ASSERT_EQ(seen_by_a.is_full, seen_by_b.is_full);
      ASSERT_EQ(seen_by_a.is_split, seen_by_b.is_split);
      if (seen_by_a.kind == PlanKind::apart) {
        ASSERT_FALSE(seen_by_a.reason.empty());
      }
      if (seen_by_a.kind == PlanKind::sync_source || seen_by_a.kind == PlanKind::sync_target) {
        const Introduction& source = seen_by_a.kind == PlanKind::sync_source ? a : b;
        ASSERT_FALSE(source.is_inconsistent) << first << " " << second;
        ASSERT_TRUE(!source.is_outdated || seen_by_a.row == MeetingRow::by_agreement) << first << " " << second;
        ASSERT_FALSE(source.generations.current.is_none());
      }
      if (seen_by_a.kind == PlanKind::agree) {
        ASSERT_EQ(a.generations.current, b.generations.current);
        ASSERT_FALSE(a.is_inconsistent || a.is_outdated || b.is_inconsistent || b.is_outdated);
        ASSERT_FALSE(a.volumes[0].has_dirty_blocks || b.volumes[0].has_dirty_blocks);
      }
    }
  }
  EXPECT_GT(checked, 100000u);
}

}  // namespace
}  // namespace replblk::replication
