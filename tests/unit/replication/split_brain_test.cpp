// The split policies as a table: who gives up its copy, for every policy and every combination of roles.
#include "replication/split_brain.hpp"

#include <gtest/gtest.h>

namespace replblk::replication {
namespace {

using blockdev::Generation;
using blockdev::kNoNode;
using blockdev::NodeIndex;

struct Case {
  SplitPolicies policies;
  NodeIndex without_primary;  ///< expected loser when nobody is primary …
  NodeIndex first_primary;    ///< … node 0 is
  NodeIndex second_primary;   ///< … node 1 is
  NodeIndex both_primary;     ///< … both are
};

Introduction side(std::uint64_t changed_bytes, bool was_primary) {
  Introduction intro;
  intro.volumes.resize(2);
  intro.volumes[0].dirty_bytes = changed_bytes / 2;
  intro.volumes[1].dirty_bytes = changed_bytes - changed_bytes / 2;
  intro.was_primary_at_parting = was_primary;
  intro.configuration = {3, 1, 0};
  intro.generations.current = Generation{3, 33};
  intro.generations.base = Generation{1, 11};
  return intro;
}

SplitResolution resolve(const SplitPolicies& policies, Introduction first, Introduction second, bool is_0, bool is_1) {
  first.is_primary = is_0;
  second.is_primary = is_1;
  return resolve_split(policies, {&first, &second});
}

void expect_case(const Case& expected, const Introduction& first, const Introduction& second) {
  const auto loser = [&](bool is_0, bool is_1) {
    return static_cast<int>(resolve(expected.policies, first, second, is_0, is_1).loser);
  };
  EXPECT_EQ(loser(false, false), expected.without_primary);
  EXPECT_EQ(loser(true, false), expected.first_primary);
  EXPECT_EQ(loser(false, true), expected.second_primary);
  EXPECT_EQ(loser(true, true), expected.both_primary);
}

constexpr NodeIndex no = kNoNode;

// Broken if a default destroyed anybody's data.
TEST(SplitBrain, Nothing_is_given_up_by_default) {
  expect_case({{}, no, no, no, no}, side(0, false), side(8192, true));
}

TEST(SplitBrain, Each_policy_without_a_primary_names_its_loser) {
  const auto policy = [](AfterSb0 zero) { return SplitPolicies{zero, no, AfterSb1::disconnect, AfterSb2::disconnect}; };
  const Introduction was_primary = side(4096, true);
  const Introduction was_not = side(8192, false);
  expect_case({policy(AfterSb0::discard_younger_primary), 1, no, no, no}, was_primary, was_not);
  expect_case({policy(AfterSb0::discard_younger_primary), 0, no, no, no}, was_not, was_primary);
  expect_case({policy(AfterSb0::discard_older_primary), 0, no, no, no}, was_primary, was_not);
  expect_case({policy(AfterSb0::discard_older_primary), 1, no, no, no}, was_not, was_primary);
  expect_case({policy(AfterSb0::discard_least_changes), 0, no, no, no}, was_primary, was_not);
  expect_case({policy(AfterSb0::discard_least_changes), 1, no, no, no}, was_not, was_primary);
  expect_case({policy(AfterSb0::discard_zero_changes), no, no, no, no}, was_primary, was_not);
  expect_case({policy(AfterSb0::discard_zero_changes), 0, no, no, no}, side(0, false), was_not);
  expect_case({policy(AfterSb0::discard_zero_changes), 1, no, no, no}, was_not, side(0, false));
  // Ties: the second node. Neither or both were primary: the one with fewer changes.
  expect_case({policy(AfterSb0::discard_zero_changes), 1, no, no, no}, side(0, false), side(0, true));
  expect_case({policy(AfterSb0::discard_least_changes), 1, no, no, no}, side(512, false), side(512, true));
  expect_case({policy(AfterSb0::discard_younger_primary), 0, no, no, no}, side(512, false), side(1024, false));
  expect_case({policy(AfterSb0::discard_older_primary), 1, no, no, no}, side(4096, true), side(1024, true));
  for (const NodeIndex node : {NodeIndex{0}, NodeIndex{1}}) {
    expect_case({{AfterSb0::discard_node, node, AfterSb1::disconnect, AfterSb2::disconnect}, node, no, no, no},
                was_primary, was_not);
  }
}

TEST(SplitBrain, One_primary_gives_up_only_where_the_policy_says_violently) {
  const auto policy = [](NodeIndex node, AfterSb1 one) {
    return SplitPolicies{AfterSb0::discard_node, node, one, AfterSb2::disconnect};
  };
  const Introduction first = side(4096, true);
  const Introduction second = side(8192, false);
  expect_case({policy(0, AfterSb1::consensus), 0, no, 0, no}, first, second);
  expect_case({policy(1, AfterSb1::consensus), 1, 1, no, no}, first, second);
  expect_case({policy(0, AfterSb1::discard_secondary), 0, 1, 0, no}, first, second);
  expect_case({policy(0, AfterSb1::violently_as0p), 0, 0, 0, no}, first, second);
  expect_case({{AfterSb0::disconnect, no, AfterSb1::violently_as0p, AfterSb2::violently_as0p}, no, no, no, no}, first,
              second);
  EXPECT_TRUE(resolve(policy(0, AfterSb1::violently_as0p), first, second, true, false).must_demote);
  EXPECT_FALSE(resolve(policy(0, AfterSb1::violently_as0p), first, second, false, true).must_demote);
}

TEST(SplitBrain, Two_primaries_are_settled_only_violently_and_the_loser_demotes) {
  const SplitPolicies policies{AfterSb0::discard_least_changes, no, AfterSb1::disconnect, AfterSb2::violently_as0p};
  expect_case({policies, 0, no, no, 0}, side(4096, true), side(8192, false));
  EXPECT_TRUE(resolve(policies, side(4096, true), side(8192, false), true, true).must_demote);
}

// Broken if the copy of the wrong node were overwritten, or that of a node that serves.
TEST(SplitBrain, A_choice_by_hand_goes_before_every_policy_and_never_hits_a_primary) {
  const SplitPolicies policies{AfterSb0::discard_node, 1, AfterSb1::discard_secondary, AfterSb2::violently_as0p};
  Introduction first = side(4096, true);
  Introduction second = side(8192, false);
  first.discards_data = true;
  EXPECT_EQ(resolve(policies, first, second, false, false).loser, 0);
  EXPECT_EQ(resolve(policies, first, second, false, true).loser, 0);
  EXPECT_EQ(resolve(policies, first, second, true, false).loser, no);
  EXPECT_EQ(resolve(policies, first, second, true, false).why,
            "the node that was told to discard its data is Primary: make it secondary first");
  second.discards_data = true;
  EXPECT_EQ(resolve(policies, first, second, false, false).loser, no);
}

// protocol.md 5.1 row 0. Broken if half a copy were kept.
TEST(SplitBrain, A_copy_that_is_not_whole_is_never_kept) {
  const SplitPolicies policies{AfterSb0::discard_node, 0, AfterSb1::disconnect, AfterSb2::disconnect};
  Introduction second = side(8192, false);
  second.is_inconsistent = true;
  EXPECT_EQ(resolve(policies, side(0, false), second, false, false).loser, no);
  second.is_inconsistent = false;
  second.is_outdated = true;
  EXPECT_EQ(resolve(policies, side(0, false), second, false, false).loser, no);
}

TEST(SplitBrain, The_bits_suffice_when_both_left_one_generation_behind) {
  Introduction first = side(0, false);
  Introduction second = side(0, false);
  EXPECT_TRUE(is_split_covered_by_bitmaps(first, second));
  second.generations.base = Generation{2, 22};
  EXPECT_FALSE(is_split_covered_by_bitmaps(first, second));
  first.generations.base = second.generations.base = {};
  EXPECT_FALSE(is_split_covered_by_bitmaps(first, second));
}

TEST(SplitBrain, Keywords_are_DRBDs) {
  for (const char* keyword : {"disconnect", "discard-younger-primary", "discard-older-primary", "discard-zero-changes",
                              "discard-least-changes"}) {
    ASSERT_TRUE(parse_after_sb_0pri(keyword).has_value()) << keyword;
    EXPECT_EQ(to_string(*parse_after_sb_0pri(keyword)), keyword);
  }
  for (const char* keyword : {"disconnect", "consensus", "violently-as0p", "discard-secondary"}) {
    ASSERT_TRUE(parse_after_sb_1pri(keyword).has_value()) << keyword;
    EXPECT_EQ(to_string(*parse_after_sb_1pri(keyword)), keyword);
  }
  for (const char* keyword : {"disconnect", "violently-as0p"}) EXPECT_TRUE(parse_after_sb_2pri(keyword).has_value());
  EXPECT_FALSE(parse_after_sb_0pri("consensus").has_value());
  EXPECT_FALSE(parse_after_sb_0pri("discard-node-").has_value());
  EXPECT_FALSE(parse_after_sb_1pri("call-pri-lost-after-sb").has_value());
  EXPECT_FALSE(parse_after_sb_2pri("discard-secondary").has_value());
}

}  // namespace
}  // namespace replblk::replication
