#include "membership/transitions.hpp"

#include <gtest/gtest.h>

namespace replblk::membership {
namespace {

ResourceRecord pair_record() {
  ResourceRecord record;
  record.configuration = {7, 3, 0};
  record.seen = 7;
  record.generations.current = {7, 70};
  record.generations.base = {5, 50};
  return record;
}

// Without a new current and the old one as base, the returning peer could not be told from one with other data.
TEST(Transitions, Removing_the_peer_begins_a_new_line_based_on_the_common_one) {
  const ResourceRecord next = become_only_member(pair_record(), 0, 0, 9, 1);
  EXPECT_EQ(next.configuration, (Configuration{10, 1, 0}));
  EXPECT_EQ(next.seen, 10u);
  EXPECT_EQ(next.generations.current, (Generation{10, 1}));
  EXPECT_EQ(next.generations.base, (Generation{7, 70}));
  EXPECT_EQ(next.generations.history, (std::vector<Generation>{{5, 50}}));
  EXPECT_TRUE(next.is_primary_open);
}

// A second mandate alone must not overwrite the generation at which the peer was left (A9).
TEST(Transitions, A_second_mandate_alone_keeps_the_base) {
  const ResourceRecord alone = become_only_member(pair_record(), 0, 0, 0, 1);
  const ResourceRecord again = become_only_member(alone, 0, 0, 0, 2);
  EXPECT_EQ(again.configuration.term, alone.configuration.term + 1);
  EXPECT_EQ(again.generations.base, alone.generations.base);
  EXPECT_EQ(again.generations.history, alone.generations.history);
}

// P6: a peer that stays away through any number of mandates is not "unrelated data" when it comes back.
TEST(Transitions, Mandates_alone_do_not_push_the_peers_generation_out_of_the_history) {
  ResourceRecord alone = become_only_member(pair_record(), 0, 0, 0, 1);
  alone = name_term(alone, alone.seen + 1);
  for (std::uint64_t nonce = 2; nonce < 100; ++nonce) alone = become_only_member(alone, 0, 0, 0, nonce);
  EXPECT_EQ(alone.generations.base, (Generation{8, 1}));
  EXPECT_EQ(alone.generations.history, (std::vector<Generation>{{7, 70}, {5, 50}}));
}

// In doubt the peer may have taken the current generation over: it is the base then.
TEST(Transitions, In_doubt_the_current_generation_becomes_the_base) {
  ResourceRecord alone = become_only_member(pair_record(), 0, 0, 0, 1);
  alone = name_term(alone, alone.seen + 1);
  ASSERT_TRUE(is_in_doubt(alone));
  const ResourceRecord removed = become_only_member(alone, 0, 0, 0, 2);
  EXPECT_EQ(removed.generations.base, alone.generations.current);
  EXPECT_FALSE(is_in_doubt(removed));
}

// protocol.md 3.7. Still Outdated, it would be a source that must not be one, and could not be added again.
TEST(Transitions, Who_takes_over_by_agreement_is_no_longer_Outdated) {
  const ResourceRecord gave_way = become_outdated(pair_record(), {9, 2, 1});
  const ResourceRecord next = take_over_by_agreement(gave_way, 0, 9, 1);
  EXPECT_EQ(next.configuration, (Configuration{10, 1, blockdev::kNoNode}));
  EXPECT_FALSE(next.is_outdated);
  EXPECT_EQ(next.generations.base, (Generation{7, 70}));
}

// An interrupted resync after a split must go on by row 6, and the common past must stay known.
TEST(Transitions, The_copy_that_is_kept_after_a_split_takes_the_other_ones_line_as_its_base) {
  const ResourceRecord alone = become_only_member(pair_record(), 0, 0, 0, 1);
  const ResourceRecord kept = keep_after_split(alone, 0, 0, 20, 2, {12, 99});
  EXPECT_EQ(kept.configuration, (Configuration{21, 1, 0}));
  EXPECT_EQ(kept.generations.current, (Generation{21, 2}));
  EXPECT_EQ(kept.generations.base, (Generation{12, 99}));
  EXPECT_EQ(kept.generations.history, (std::vector<Generation>{{7, 70}, {5, 50}}));
}

// protocol.md 3.1: a change that is not in every volume was never acted upon, but the term that it named was heard.
TEST(Transitions, A_node_that_stopped_between_two_volumes_takes_the_older_configuration_and_every_flag) {
  const ResourceRecord pair = pair_record();
  const ResourceRecord target = become_sync_target(pair, {9, 2, 1}, pair.pair_id);
  for (const auto& records :
       {std::vector{pair, target}, std::vector{target, pair}, std::vector{pair, target, target}}) {
    const ResourceRecord all = record_of_all(records);
    EXPECT_EQ(all.configuration, pair.configuration);
    EXPECT_EQ(all.generations, pair.generations);
    EXPECT_EQ(all.seen, 9u);
    EXPECT_TRUE(all.is_inconsistent && all.is_outdated);
    EXPECT_TRUE(is_in_doubt(all));
  }
  ResourceRecord open = pair;
  open.is_primary_open = true;
  open.is_clean_stop = true;
  const ResourceRecord all = record_of_all(std::vector{pair, open});
  EXPECT_TRUE(all.is_primary_open);
  EXPECT_FALSE(all.is_clean_stop);
}

TEST(Transitions, A_node_remembers_when_it_went_alone_and_whether_it_served) {
  ResourceRecord pair = pair_record();
  pair.is_primary_open = true;
  ResourceRecord alone = become_only_member(pair, 0, 0, 0, 1);
  remember_parting(pair, alone, 0, 1000);
  EXPECT_EQ(alone.alone_since_ms, 1000u);
  EXPECT_TRUE(alone.was_primary_at_parting);
  ResourceRecord again = become_only_member(alone, 0, 0, 0, 2);
  remember_parting(alone, again, 0, 2000);
  EXPECT_EQ(again.alone_since_ms, 1000u);
  ResourceRecord joined = join_pair(again, {20, 3, 0}, again.generations);
  remember_parting(again, joined, 0, 3000);
  EXPECT_EQ(joined.alone_since_ms, 0u);
  EXPECT_FALSE(joined.was_primary_at_parting);
}

TEST(Transitions, Only_the_whole_undoubted_sole_primary_serves_by_itself) {
  ResourceRecord record = become_only_member(pair_record(), 0, 0, 0, 1);
  EXPECT_TRUE(may_serve_alone(record, 0));
  EXPECT_FALSE(may_serve_alone(record, 1));
  ResourceRecord other = record;
  other.is_inconsistent = true;
  EXPECT_FALSE(may_serve_alone(other, 0));
  other = record;
  other.is_outdated = true;
  EXPECT_FALSE(may_serve_alone(other, 0));
  EXPECT_FALSE(may_serve_alone(name_term(record, record.seen + 1), 0));
  EXPECT_FALSE(may_serve_alone(pair_record(), 0));
  EXPECT_FALSE(may_serve_alone(become_only_member(pair_record(), 0, blockdev::kNoNode, 0, 1), 0));
}

// A target that forgot what it gave way to could be named a member again with old data (A4).
TEST(Transitions, A_sync_target_remembers_the_configuration_and_both_flags) {
  const ResourceRecord target = become_sync_target(pair_record(), {9, 2, 1}, pair_record().pair_id);
  EXPECT_EQ(target.configuration, (Configuration{9, 2, 1}));
  EXPECT_TRUE(target.is_inconsistent);
  EXPECT_TRUE(target.is_outdated);
  EXPECT_EQ(target.generations, pair_record().generations);
  const ResourceRecord joined = join_pair(target, {11, 3, 1}, {{9, 99}, {}, {}});
  EXPECT_FALSE(joined.is_inconsistent);
  EXPECT_FALSE(joined.is_outdated);
  EXPECT_EQ(joined.seen, 11u);
  EXPECT_EQ(joined.generations.current, (Generation{9, 99}));
}

TEST(Transitions, History_is_bounded) {
  ResourceRecord record = pair_record();
  for (std::uint64_t nonce = 1; nonce < 100; ++nonce) {
    record = become_only_member(record, 0, 0, 0, nonce);
    record = join_pair(record, {record.seen + 1, 3, 0}, generations_for_pair(record.generations));
  }
  EXPECT_EQ(record.generations.history.size(), GenerationSet::kHistoryCountMax);
}

// A table of reservations that was recorded while a change was being thought of must not be undone by it.
TEST(Transitions, A_decision_leaves_alone_what_is_not_memberships) {
  ResourceRecord record = pair_record();
  record.is_clean_stop = true;
  const ResourceRecord decided = become_outdated(record, {9, 2, 1});
  record.reservations = "a newer table";
  record.boot_id.bytes[0] = std::byte{7};
  record.is_clean_stop = false;
  record.alone_since_ms = 5;
  const ResourceRecord next = with_decision(record, decided);
  ResourceRecord expected = decided;
  expected.reservations = "a newer table";
  expected.boot_id.bytes[0] = std::byte{7};
  expected.is_clean_stop = false;
  expected.alone_since_ms = 5;
  EXPECT_EQ(next, expected);
}

// I6: a term that goes down would let an old configuration win.
TEST(TransitionsDeathTest, Terms_never_go_down) {
  EXPECT_DEATH((void)join_pair(pair_record(), {6, 3, 0}, {}), "assertion failed");
  EXPECT_DEATH((void)become_sync_target(pair_record(), {6, 2, 1}, pair_record().pair_id), "assertion failed");
  EXPECT_DEATH((void)name_term(pair_record(), 7), "assertion failed");
}

}  // namespace
}  // namespace replblk::membership
