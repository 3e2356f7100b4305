// The table of protocol.md 5.1 stated a second time, straight from its text, and held against plan_meeting() for every
// pair of states of a small but complete domain: every relation that two sets of generations can have, every relation
// of two configurations, every combination of flags on both sides. The statement below shares nothing with the code: it
// is a list of rows, each a predicate "x is the source for y", tried in order and in both orientations.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "replication/meeting.hpp"

namespace replblk::replication {
namespace {

using blockdev::Configuration;
using blockdev::Generation;
using blockdev::GenerationSet;
using blockdev::kNoNode;
using blockdev::NodeIndex;

// ---- the reference -----------------------------------------------------------------------------------------------

struct Side {
  const Introduction& says;
  NodeIndex node;
};

/// `x` is the source for `y`.
using Rule = std::function<bool(const Side& x, const Side& y)>;
using Preference = std::function<bool(const Side& x)>;

enum class Outcome : std::uint8_t { wait, agree, source_is_0, source_is_1, apart, split, unrelated };

struct Expected {
  Outcome outcome = Outcome::apart;
  MeetingRow row = MeetingRow::unrelated;  ///< as node 0 names it
  bool is_full = false;
};

bool is_created(const Side& x) { return x.says.generations.current.is_none(); }
bool is_same(const Generation& one, const Generation& two) { return !one.is_none() && one == two; }
bool is_in_history(const Side& x, const Generation& what) {
  return std::ranges::any_of(x.says.generations.history, [&](const Generation& old) { return is_same(old, what); });
}
/// {base} ∪ history
bool is_known_past(const Side& x, const Generation& what) {
  return is_same(x.says.generations.base, what) || is_in_history(x, what);
}
bool have_equal_current(const Side& x, const Side& y) {
  return is_same(x.says.generations.current, y.says.generations.current);
}
bool has_bits(const Side& x) {
  return std::ranges::any_of(x.says.volumes, [](const auto& volume) { return volume.has_dirty_blocks; });
}

/// 3.3: the higher term; of one term the one with one member.
Configuration higher_of(const Configuration& one, const Configuration& two) {
  if (one.term != two.term) return one.term > two.term ? one : two;
  if (one.is_pair() != two.is_pair()) return one.is_pair() ? two : one;
  return one.primary < two.primary ? one : two;  // the same members: whoever is named as primary, first node first
}

Expected expect(const Introduction& first, const Introduction& second) {
  const Side a{first, 0};
  const Side b{second, 1};
  const auto with = [&](const Rule& rule) { return std::pair(rule(a, b), rule(b, a)); };

  // 1
  if (is_created(a) && is_created(b)) return {Outcome::wait, MeetingRow::both_created, false};
  // 3.3: two different configurations of one term with one member each
  const Configuration& of_a = first.configuration;
  const Configuration& of_b = second.configuration;
  const auto has_one_member = [](const Configuration& c) { return c.is_sole(0) || c.is_sole(1); };
  if (of_a.term == of_b.term && has_one_member(of_a) && has_one_member(of_b) && of_a.members != of_b.members) {
    return {Outcome::split, MeetingRow::configuration_split, false};
  }
  const Configuration higher = higher_of(of_a, of_b);
  // 0
  const auto may_be_source = [&](const Side& x) {
    return !is_created(x) && !x.says.is_inconsistent && !x.says.is_outdated && higher.has_member(x.node);
  };
  const auto named = [](bool is_a) { return is_a ? Outcome::source_is_0 : Outcome::source_is_1; };
  // The copy that would be overwritten serves, and the configuration lets it: nobody pulls it away under its
  // initiators.
  const auto unless_it_serves = [&](Expected what) {
    const Side& target = what.outcome == Outcome::source_is_0 ? b : a;
    if (target.says.is_primary && higher.has_member(target.node) && !is_created(target)) what.outcome = Outcome::apart;
    return what;
  };
  // The configuration must agree with the direction.
  const auto if_it_may = [&](bool is_a, MeetingRow row, bool is_full) -> Expected {
    if (!may_be_source(is_a ? a : b)) return {Outcome::apart, row, is_full};
    return unless_it_serves({named(is_a), row, is_full});
  };

  // 2
  const auto [a_feeds_new, b_feeds_new] =
      with([](const Side& x, const Side& y) { return !is_created(x) && is_created(y); });
  if (a_feeds_new || b_feeds_new) return if_it_may(a_feeds_new, MeetingRow::one_created, true);

  if (have_equal_current(a, b)) {
    // 3.7: "If its peer is whole but Outdated at a term that this node never acted upon, the peer takes over by
    // agreement."
    const auto [a_takes_over, b_takes_over] = with([](const Side& x, const Side& y) {
      return x.says.is_outdated && !x.says.is_inconsistent && !x.says.may_have_lost_cache &&
             x.says.configuration.is_sole(y.node) && x.says.configuration.term > y.says.configuration.term &&
             y.says.may_have_lost_cache && !y.says.is_outdated && !y.says.is_inconsistent && !y.says.is_primary;
    });
    if (a_takes_over || b_takes_over) return {named(a_takes_over), MeetingRow::by_agreement, false};

    const bool may_a = may_be_source(a);
    const bool may_b = may_be_source(b);
    // 3
    const auto [a_survived, b_survived] = with([](const Side& x, const Side& y) {
      return y.says.is_crashed_primary && !x.says.is_crashed_primary && x.says.survived_connected;
    });
    const bool is_row_3 = a_survived || b_survived;
    const bool has_crash = first.is_crashed_primary || second.is_crashed_primary;
    const MeetingRow row = is_row_3 ? MeetingRow::survivor : has_crash ? MeetingRow::both_crashed : MeetingRow::equal;
    // 4 and 5: the first preference that fits exactly one side names the source.
    const std::vector<Preference> preferences = {
        may_be_source,
        [&](const Side& x) { return x.node == 0 ? a_survived : b_survived; },
        [](const Side& x) { return !x.says.may_have_lost_cache; },
        [](const Side& x) { return x.says.is_crashed_primary; },
        [&](const Side& x) { return higher.primary == x.node; },
        [](const Side& x) { return x.node == 0; },
    };
    const auto decides = std::ranges::find_if(preferences, [&](const Preference& fits) { return fits(a) != fits(b); });
    if (is_row_3 && may_a == may_b) return if_it_may(a_survived, row, false);
    if (may_a && may_b && !has_crash && !has_bits(a) && !has_bits(b)) {
      // Nothing differs. Whoever serves goes on doing so: it adds its peer.
      if (first.is_primary && second.is_primary) return {Outcome::apart, row, false};
      if (first.is_primary || second.is_primary) return {named(first.is_primary), row, false};
      return {Outcome::agree, row, false};
    }
    return if_it_may((*decides)(a), row, false);
  }

  // 6 and 7; if both hold, each claims to be the other's descendant: nobody's word counts.
  const auto [a_left_b, b_left_a] =
      with([](const Side& x, const Side& y) { return is_same(x.says.generations.base, y.says.generations.current); });
  if (a_left_b != b_left_a) {
    return if_it_may(a_left_b, a_left_b ? MeetingRow::base_is_yours : MeetingRow::base_is_mine, false);
  }
  // 8
  const auto [a_is_younger, b_is_younger] =
      with([](const Side& x, const Side& y) { return is_in_history(x, y.says.generations.current); });
  if (!a_left_b && a_is_younger != b_is_younger) return if_it_may(a_is_younger, MeetingRow::in_history, true);
  // 9
  std::vector<Generation> past = first.generations.history;
  past.push_back(first.generations.base);
  const bool have_met = std::ranges::any_of(past, [&](const Generation& old) { return is_known_past(b, old); });
  if (have_met || (a_left_b && b_left_a) || (a_is_younger && b_is_younger)) {
    return {Outcome::split, MeetingRow::split_brain, false};
  }
  // 10
  return {Outcome::unrelated, MeetingRow::unrelated, false};
}

// ---- the domain --------------------------------------------------------------------------------------------------

constexpr Generation g1{1, 11}, g2{2, 22}, g3{3, 33}, g4{4, 44};
using GenerationPair = std::pair<GenerationSet, GenerationSet>;

/// Every relation that the rows ask for, in both orientations, and those that contradict themselves.
const std::vector<GenerationPair>& generation_pairs() {
  static const std::vector<GenerationPair> pairs = {
      {{}, {}},                            // both created
      {{g2, {}, {g1}}, {}},                // one created
      {{}, {g2, g1, {}}},                  //
      {{g2, {}, {g1}}, {g2, {}, {g1}}},    // equal
      {{g3, g2, {g1}}, {g2, {}, {g1}}},    // base is the other's current
      {{g2, {}, {}}, {g3, g2, {}}},        //
      {{g2, g3, {}}, {g3, g2, {}}},        // … of both
      {{g3, g2, {}}, {g2, {}, {g3}}},      // base is its current, which has mine in its history
      {{g3, g2, {g1}}, {g1, {}, {}}},      // in history
      {{g1, {}, {}}, {g3, {}, {g2, g1}}},  //
      {{g2, {}, {g3}}, {g3, {}, {g2}}},    // … of both
      {{g3, g1, {}}, {g4, g1, {}}},        // base = base
      {{g3, g2, {g1}}, {g4, g1, {}}},      // base in history
      {{g3, {}, {g1}}, {g4, g1, {}}},      //
      {{g3, {}, {g2, g1}}, {g4, g2, {}}},  //
      {{g3, g2, {g1}}, {g4, {}, {g1}}},    // history meets history
      {{g3, g2, {}}, {g4, g1, {}}},        // nothing in common
      {{g3, {}, {}}, {g4, {}, {}}},        // … with nothing known at all
  };
  return pairs;
}

const std::vector<std::pair<Configuration, Configuration>>& configuration_pairs() {
  constexpr Configuration pair_none{2, 3, kNoNode}, pair_0{2, 3, 0}, pair_1{2, 3, 1};
  constexpr Configuration sole_0{3, 1, 0}, sole_1{3, 2, 1}, sole_0_none{3, 1, kNoNode}, next_pair{4, 3, 1};
  constexpr Configuration sole_0_later{5, 1, 0}, sole_1_later{5, 2, 1}, sole_0_same_term{2, 1, 0};
  static const std::vector<std::pair<Configuration, Configuration>> pairs = {
      {pair_none, pair_none},     {pair_0, pair_0},    {pair_0, pair_1},       {pair_none, pair_1},
      {sole_0, pair_0},           {pair_0, sole_1},    {sole_0, sole_0},       {sole_0, sole_1},
      {sole_0_none, sole_0},      {sole_0, next_pair}, {sole_0, sole_1_later}, {sole_0_later, sole_1},
      {sole_0_same_term, pair_1}, {pair_0, sole_0},    {sole_1, pair_none},
  };
  return pairs;
}

constexpr unsigned kFlagsCount = 128;

Introduction make_side(const Configuration& configuration, const GenerationSet& generations, unsigned flags) {
  Introduction intro;
  VolumeIntroduction volume;
  volume.size_bytes = 1u << 20;
  volume.logical_block_bytes = 512;
  volume.bitmap_block_bytes = 4096;
  intro.is_inconsistent = (flags & 1) != 0;
  intro.is_outdated = (flags & 2) != 0;
  intro.is_crashed_primary = (flags & 4) != 0;
  intro.may_have_lost_cache = (flags & 8) != 0;
  intro.survived_connected = (flags & 16) != 0;
  intro.is_primary = (flags & 32) != 0;
  volume.has_dirty_blocks = (flags & 64) != 0;
  intro.volumes = {volume};
  intro.configuration = configuration;
  intro.seen = configuration.term;
  intro.generations = generations;
  return intro;
}

Outcome outcome_of(const Plan& plan, NodeIndex self) {
  switch (plan.kind) {
    case PlanKind::wait:
      return Outcome::wait;
    case PlanKind::agree:
      return Outcome::agree;
    case PlanKind::sync_source:
      return self == 0 ? Outcome::source_is_0 : Outcome::source_is_1;
    case PlanKind::sync_target:
      return self == 0 ? Outcome::source_is_1 : Outcome::source_is_0;
    case PlanKind::apart:
      if (plan.is_split) return Outcome::split;
      return plan.row == MeetingRow::unrelated ? Outcome::unrelated : Outcome::apart;
  }
  return Outcome::apart;
}

MeetingRow mirrored(MeetingRow row) {
  if (row == MeetingRow::base_is_yours) return MeetingRow::base_is_mine;
  return row == MeetingRow::base_is_mine ? MeetingRow::base_is_yours : row;
}

std::string describe(const Introduction& side) {
  const GenerationSet& set = side.generations;
  std::string history;
  for (const Generation& old : set.history) history += fmt::format(" {}", old.term);
  return fmt::format("{{term {} members {} primary {}; current {} base {} history{}{}{}{}{}{}{}{}}}",
                     side.configuration.term, side.configuration.members, side.configuration.primary, set.current.term,
                     set.base.term, history, side.is_inconsistent ? " inconsistent" : "",
                     side.is_outdated ? " outdated" : "", side.is_crashed_primary ? " crashed" : "",
                     side.may_have_lost_cache ? " lost-cache" : "", side.survived_connected ? " survived" : "",
                     side.is_primary ? " primary" : "", side.volumes[0].has_dirty_blocks ? " dirty" : "");
}

// Broken if a copy is overwritten by the one that the contract calls the older, or if the two sides disagree about it.
TEST(MeetingReference, Every_pair_of_states_comes_to_what_the_table_says_on_both_sides) {
  std::size_t differences = 0;
  std::size_t checked = 0;
  for (const auto& [generations_0, generations_1] : generation_pairs()) {
    for (const auto& [configuration_0, configuration_1] : configuration_pairs()) {
      std::vector<Introduction> here;
      std::vector<Introduction> there;
      for (unsigned flags = 0; flags < kFlagsCount; ++flags) {
        here.push_back(make_side(configuration_0, generations_0, flags));
        there.push_back(make_side(configuration_1, generations_1, flags));
      }
      for (const Introduction& first : here) {
        for (const Introduction& second : there) {
          ++checked;
          const Expected expected = expect(first, second);
          const Plan seen_by_0 = plan_meeting(0, first, second);
          const Plan seen_by_1 = plan_meeting(1, second, first);
          const bool is_sync = expected.outcome == Outcome::source_is_0 || expected.outcome == Outcome::source_is_1;
          const bool is_good =
              outcome_of(seen_by_0, 0) == expected.outcome && outcome_of(seen_by_1, 1) == expected.outcome &&
              seen_by_0.row == expected.row && seen_by_1.row == mirrored(expected.row) &&
              (!is_sync || (seen_by_0.is_full == expected.is_full && seen_by_1.is_full == expected.is_full)) &&
              seen_by_0.is_final == (expected.outcome == Outcome::split || expected.outcome == Outcome::unrelated) &&
              seen_by_1.is_final == seen_by_0.is_final &&
              (seen_by_0.kind == PlanKind::apart) == !seen_by_0.reason.empty();
          if (is_good) continue;
          if (++differences <= 10) {
            ADD_FAILURE() << describe(first) << " meets " << describe(second) << ": the table says "
                          << static_cast<int>(expected.outcome) << " by row " << static_cast<int>(expected.row)
                          << ", node 0 plans " << static_cast<int>(outcome_of(seen_by_0, 0)) << " by "
                          << static_cast<int>(seen_by_0.row) << " full " << seen_by_0.is_full << ", node 1 "
                          << static_cast<int>(outcome_of(seen_by_1, 1)) << " by " << static_cast<int>(seen_by_1.row)
                          << " full " << seen_by_1.is_full << "; " << seen_by_0.reason;
          }
        }
      }
    }
  }
  EXPECT_EQ(differences, 0u);
  EXPECT_GT(checked, 4'000'000u);
}

}  // namespace
}  // namespace replblk::replication
