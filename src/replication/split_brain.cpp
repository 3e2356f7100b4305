#include "replication/split_brain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"

namespace replblk::replication {

namespace {

using blockdev::kNoNode;
using blockdev::NodeIndex;
using blockdev::other_node;
using Nodes = std::array<const Introduction*, 2>;

constexpr AfterSb0 kAll0[] = {AfterSb0::disconnect, AfterSb0::discard_younger_primary, AfterSb0::discard_older_primary,
                              AfterSb0::discard_zero_changes, AfterSb0::discard_least_changes};
constexpr AfterSb1 kAll1[] = {AfterSb1::disconnect, AfterSb1::consensus, AfterSb1::violently_as0p,
                              AfterSb1::discard_secondary};
constexpr AfterSb2 kAll2[] = {AfterSb2::disconnect, AfterSb2::violently_as0p};

template <class Policy, std::size_t kCount>
std::optional<Policy> find_keyword(const Policy (&all)[kCount], std::string_view keyword) noexcept {
  const auto* found = std::ranges::find_if(all, [&](Policy policy) { return to_string(policy) == keyword; });
  return found == std::end(all) ? std::nullopt : std::optional<Policy>(*found);
}

/// DRBD breaks ties by a flag that one of the two happens to have; here it is the second node that gives way.
constexpr NodeIndex kLosesTies = 1;

std::uint64_t changed_bytes(const Introduction& side) noexcept {
  std::uint64_t bytes = 0;
  for (const VolumeIntroduction& volume : side.volumes) bytes += volume.dirty_bytes;
  return bytes;
}

NodeIndex with_least_changes(const Nodes& nodes) noexcept {
  const std::uint64_t first = changed_bytes(*nodes[0]);
  const std::uint64_t second = changed_bytes(*nodes[1]);
  if (first == second) return kLosesTies;
  return first < second ? 0 : 1;
}

/// Who gives way when nobody is primary; kNoNode: the policy leaves it to a person.
NodeIndex loser_without_primary(const SplitPolicies& policies, const Nodes& nodes) noexcept {
  switch (policies.without_primary) {
    case AfterSb0::disconnect:
      return kNoNode;
    case AfterSb0::discard_younger_primary:
    case AfterSb0::discard_older_primary: {
      const bool was_first = nodes[0]->was_primary_at_parting;
      if (was_first == nodes[1]->was_primary_at_parting) return with_least_changes(nodes);
      const NodeIndex older = was_first ? 0 : 1;
      return policies.without_primary == AfterSb0::discard_older_primary ? older : other_node(older);
    }
    case AfterSb0::discard_zero_changes: {
      const bool is_first_unchanged = changed_bytes(*nodes[0]) == 0;
      const bool is_second_unchanged = changed_bytes(*nodes[1]) == 0;
      if (is_first_unchanged && is_second_unchanged) return kLosesTies;
      return is_first_unchanged ? 0 : is_second_unchanged ? 1 : kNoNode;
    }
    case AfterSb0::discard_least_changes:
      return with_least_changes(nodes);
    case AfterSb0::discard_node:
      return policies.discarded_node;
  }
  RB_UNREACHABLE();
}

NodeIndex loser_with_one_primary(const SplitPolicies& policies, const Nodes& nodes, NodeIndex primary) noexcept {
  switch (policies.with_one_primary) {
    case AfterSb1::disconnect:
      return kNoNode;
    case AfterSb1::consensus:
      return loser_without_primary(policies, nodes) == other_node(primary) ? other_node(primary) : kNoNode;
    case AfterSb1::violently_as0p:
      return loser_without_primary(policies, nodes);
    case AfterSb1::discard_secondary:
      return other_node(primary);
  }
  RB_UNREACHABLE();
}

bool is_whole(const Introduction& side) noexcept {
  return !side.is_inconsistent && !side.is_outdated && !side.generations.current.is_none();
}

SplitResolution by_policy(const SplitPolicies& policies, const Nodes& nodes) {
  SplitResolution resolution;
  std::string policy;
  if (nodes[0]->is_primary && nodes[1]->is_primary) {
    policy = fmt::format("after_sb_2pri {}", to_string(policies.with_two_primaries));
    if (policies.with_two_primaries == AfterSb2::violently_as0p)
      resolution.loser = loser_without_primary(policies, nodes);
  } else if (nodes[0]->is_primary || nodes[1]->is_primary) {
    policy = fmt::format("after_sb_1pri {}", to_string(policies.with_one_primary));
    resolution.loser = loser_with_one_primary(policies, nodes, nodes[0]->is_primary ? 0 : 1);
  } else {
    policy = fmt::format("after_sb_0pri {}", to_string(policies.without_primary));
    resolution.loser = loser_without_primary(policies, nodes);
  }
  resolution.must_demote = resolution.loser != kNoNode && nodes[resolution.loser]->is_primary;
  resolution.why = resolution.loser == kNoNode ? fmt::format("{} leaves it to a person", policy) : policy;
  return resolution;
}

}  // namespace

std::optional<AfterSb0> parse_after_sb_0pri(std::string_view keyword) noexcept { return find_keyword(kAll0, keyword); }
std::optional<AfterSb1> parse_after_sb_1pri(std::string_view keyword) noexcept { return find_keyword(kAll1, keyword); }
std::optional<AfterSb2> parse_after_sb_2pri(std::string_view keyword) noexcept { return find_keyword(kAll2, keyword); }

std::string_view to_string(AfterSb0 policy) noexcept {
  switch (policy) {
    case AfterSb0::disconnect:
      return "disconnect";
    case AfterSb0::discard_younger_primary:
      return "discard-younger-primary";
    case AfterSb0::discard_older_primary:
      return "discard-older-primary";
    case AfterSb0::discard_zero_changes:
      return "discard-zero-changes";
    case AfterSb0::discard_least_changes:
      return "discard-least-changes";
    case AfterSb0::discard_node:
      return "discard-node-";
  }
  RB_UNREACHABLE();
}

std::string_view to_string(AfterSb1 policy) noexcept {
  switch (policy) {
    case AfterSb1::disconnect:
      return "disconnect";
    case AfterSb1::consensus:
      return "consensus";
    case AfterSb1::violently_as0p:
      return "violently-as0p";
    case AfterSb1::discard_secondary:
      return "discard-secondary";
  }
  RB_UNREACHABLE();
}

std::string_view to_string(AfterSb2 policy) noexcept {
  switch (policy) {
    case AfterSb2::disconnect:
      return "disconnect";
    case AfterSb2::violently_as0p:
      return "violently-as0p";
  }
  RB_UNREACHABLE();
}

SplitResolution resolve_split(const SplitPolicies& policies, const std::array<const Introduction*, 2>& nodes) {
  SplitResolution resolution;
  if (nodes[0]->discards_data && nodes[1]->discards_data) {
    resolution.why = "both nodes were told to discard their data: connect one of them without --discard-my-data";
    return resolution;
  }
  if (nodes[0]->discards_data || nodes[1]->discards_data) {
    const NodeIndex loser = nodes[0]->discards_data ? 0 : 1;
    if (nodes[loser]->is_primary) {
      resolution.why = "the node that was told to discard its data is Primary: make it secondary first";
      return resolution;
    }
    resolution.loser = loser;
    resolution.why = "connect --discard-my-data";
  } else {
    resolution = by_policy(policies, nodes);
  }
  if (resolution.loser == kNoNode) return resolution;
  if (nodes[resolution.loser]->generations.current.is_none()) {
    return {kNoNode, false, fmt::format("by {} a copy would be given up that holds nothing", resolution.why)};
  }
  // protocol.md 5.1 row 0: what is kept must be whole.
  if (!is_whole(*nodes[other_node(resolution.loser)])) {
    return {kNoNode, false,
            fmt::format("by {} the copy that would be kept is Inconsistent or Outdated", resolution.why)};
  }
  return resolution;
}

bool is_split_covered_by_bitmaps(const Introduction& one, const Introduction& two) noexcept {
  return !one.generations.base.is_none() && one.generations.base == two.generations.base;
}

}  // namespace replblk::replication
