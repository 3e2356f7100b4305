#include "replication/meeting.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "blockdev/layout.hpp"

namespace replblk::replication {

namespace {

using blockdev::Configuration;
using blockdev::Generation;
using blockdev::GenerationSet;
using blockdev::NodeIndex;
using blockdev::other_node;

Plan apart(MeetingRow row, std::string reason, bool is_final) {
  Plan plan;
  plan.kind = PlanKind::apart;
  plan.row = row;
  plan.is_final = is_final;
  plan.reason = std::move(reason);
  return plan;
}

/// The lines that stand on one side only, as "key: here VALUE, there VALUE".
std::string differing_fields(const Introduction& mine, const Introduction& yours) {
  std::string text;
  const auto split = [](const std::string& line) {
    const std::size_t at = line.find('=');
    return std::pair(line.substr(0, at), at == std::string::npos ? std::string() : line.substr(at + 1));
  };
  const auto find = [&](const std::vector<std::string>& fields, const std::string& key) -> std::string {
    for (const std::string& line : fields) {
      if (split(line).first == key) return split(line).second;
    }
    return "(absent)";
  };
  const auto append = [&](const std::string& key, const std::string& here, const std::string& there) {
    text += fmt::format("{}{}: here {}, there {}", text.empty() ? "" : "; ", key, here, there);
  };
  for (const std::string& line : mine.shared_fields) {
    const auto [key, value] = split(line);
    const std::string there = find(yours.shared_fields, key);
    if (there != value) append(key, value, there);
  }
  for (const std::string& line : yours.shared_fields) {
    const auto [key, value] = split(line);
    if (find(mine.shared_fields, key) == "(absent)") append(key, "(absent)", value);
  }
  return text;
}

std::string volume_mismatch(const Introduction& mine, const Introduction& yours) {
  if (mine.volumes.size() != yours.volumes.size()) {
    return fmt::format("number of volumes: here {}, there {}", mine.volumes.size(), yours.volumes.size());
  }
  for (std::size_t index = 0; index < mine.volumes.size(); ++index) {
    const VolumeIntroduction& here = mine.volumes[index];
    const VolumeIntroduction& there = yours.volumes[index];
    if (here.uuid != there.uuid) {
      return fmt::format("volume {}: UUID here {}, there {}: these are not two copies of one volume", index,
                         to_string(here.uuid), to_string(there.uuid));
    }
    if (here.size_bytes != there.size_bytes) {
      return fmt::format(
          "volume {}: usable size here {} bytes, there {} bytes: if the larger copy is the new one, run `create-md "
          "--size {}` on it again",
          index, here.size_bytes, there.size_bytes, std::min(here.size_bytes, there.size_bytes));
    }
    if (here.logical_block_bytes != there.logical_block_bytes) {
      return fmt::format("volume {}: logical block size here {}, there {}", index, here.logical_block_bytes,
                         there.logical_block_bytes);
    }
    if (here.bitmap_block_bytes != there.bitmap_block_bytes) {
      return fmt::format("volume {}: bitmap block size here {}, there {}", index, here.bitmap_block_bytes,
                         there.bitmap_block_bytes);
    }
  }
  return {};
}

bool is_in_history(const GenerationSet& set, const Generation& generation) {
  return !generation.is_none() && std::ranges::find(set.history, generation) != set.history.end();
}

bool have_common_ancestor(const GenerationSet& one, const GenerationSet& two) {
  const auto is_known = [](const GenerationSet& set, const Generation& generation) {
    return !generation.is_none() && (set.base == generation || is_in_history(set, generation));
  };
  if (is_known(two, one.base)) return true;
  return std::ranges::any_of(one.history, [&](const Generation& generation) { return is_known(two, generation); });
}

bool has_dirty_blocks(const Introduction& side) {
  return std::ranges::any_of(side.volumes, [](const VolumeIntroduction& volume) { return volume.has_dirty_blocks; });
}

/// Row 0: Inconsistent, Outdated, just created, or outside the higher configuration.
bool may_be_source(const Introduction& side, NodeIndex node, const Configuration& higher) {
  return !side.is_inconsistent && !side.is_outdated && !side.generations.current.is_none() && higher.has_member(node);
}

std::string why_not_source(const Introduction& side, NodeIndex node, const Configuration& higher) {
  if (side.is_inconsistent) return "is Inconsistent";
  if (side.is_outdated) return "is Outdated";
  if (side.generations.current.is_none()) return "holds no data yet";
  if (!higher.has_member(node)) return fmt::format("is not a member of the configuration of term {}", higher.term);
  return {};
}

struct Direction {
  MeetingRow row = MeetingRow::unrelated;
  bool is_mine = false;  ///< this node is the source
  bool is_full = false;
  bool has_work = true;  ///< false: the copies are equal
};

/// protocol.md 3.7: `giver` agreed to be left behind, the change was never acted upon, and the one it gave way to may
/// since have lost what its cache held. Everything that was answered is in the giver's copy.
bool takes_over_by_agreement(const Introduction& giver, const Introduction& other, NodeIndex other_index) {
  return giver.is_outdated && !giver.is_inconsistent && !giver.may_have_lost_cache &&
         giver.configuration.is_sole(other_index) && giver.configuration.term > other.configuration.term &&
         other.may_have_lost_cache && !other.is_outdated && !other.is_inconsistent && !other.is_primary;
}

/// Rows 3 to 5: the currents are equal.
Direction compare_equal(NodeIndex self, const Introduction& mine, const Introduction& yours,
                        const Configuration& higher) {
  Direction direction;
  const bool any_crashed = mine.is_crashed_primary || yours.is_crashed_primary;
  if (mine.is_crashed_primary && !yours.is_crashed_primary && yours.survived_connected) {
    direction.row = MeetingRow::survivor;
    direction.is_mine = false;
    return direction;
  }
  if (yours.is_crashed_primary && !mine.is_crashed_primary && mine.survived_connected) {
    direction.row = MeetingRow::survivor;
    direction.is_mine = true;
    return direction;
  }
  direction.row = any_crashed ? MeetingRow::both_crashed : MeetingRow::equal;
  direction.has_work = any_crashed || has_dirty_blocks(mine) || has_dirty_blocks(yours);
  if (mine.may_have_lost_cache != yours.may_have_lost_cache) {
    direction.is_mine = !mine.may_have_lost_cache;
  } else if (mine.is_crashed_primary != yours.is_crashed_primary) {
    direction.is_mine = mine.is_crashed_primary;
  } else if (higher.primary != blockdev::kNoNode) {
    direction.is_mine = higher.primary == self;
  } else {
    direction.is_mine = self == 0;
  }
  return direction;
}

Direction compare_generations(NodeIndex self, const Introduction& mine, const Introduction& yours,
                              const Configuration& higher) {
  const GenerationSet& my = mine.generations;
  const GenerationSet& your = yours.generations;
  if (!mine.pair_id.is_none() && !yours.pair_id.is_none() && mine.pair_id != yours.pair_id) {
    return {MeetingRow::unrelated, false, false, true};
  }
  if (my.current.is_none()) return {MeetingRow::one_created, false, true, true};
  if (your.current.is_none()) return {MeetingRow::one_created, true, true, true};
  if (my.current == your.current) return compare_equal(self, mine, yours, higher);
  const bool base_is_yours = !my.base.is_none() && my.base == your.current;
  const bool base_is_mine = !your.base.is_none() && your.base == my.current;
  if (base_is_yours != base_is_mine) {
    return {base_is_yours ? MeetingRow::base_is_yours : MeetingRow::base_is_mine, base_is_yours, false, true};
  }
  const bool yours_is_older = is_in_history(my, your.current);
  const bool mine_is_older = is_in_history(your, my.current);
  if (!base_is_yours && yours_is_older != mine_is_older) return {MeetingRow::in_history, yours_is_older, true, true};
  if (base_is_yours || yours_is_older || have_common_ancestor(my, your))
    return {MeetingRow::split_brain, false, false, true};
  return {MeetingRow::unrelated, false, false, true};
}

}  // namespace

std::vector<std::uint64_t> volume_sizes(const Introduction& side) {
  std::vector<std::uint64_t> sizes;
  for (const VolumeIntroduction& volume : side.volumes) sizes.push_back(volume.size_bytes);
  return sizes;
}

std::vector<std::uint64_t> sizes_to_grow_to(const Introduction& mine, const Introduction& yours) {
  std::vector<std::uint64_t> sizes = volume_sizes(mine);
  if (mine.volumes.size() != yours.volumes.size()) return sizes;
  for (std::size_t index = 0; index < sizes.size(); ++index) {
    const VolumeIntroduction& here = mine.volumes[index];
    const VolumeIntroduction& there = yours.volumes[index];
    const bool is_copy = here.uuid == there.uuid && here.bitmap_block_bytes == there.bitmap_block_bytes;
    const bool has_room = there.size_bytes % blockdev::kPageBytes == 0 && here.room_bytes >= there.size_bytes;
    if (is_copy && has_room && here.size_bytes < there.size_bytes) sizes[index] = there.size_bytes;
  }
  return sizes;
}

bool is_same_resync(std::uint64_t merged_term, NodeIndex self, const Introduction& mine,
                    const Introduction& yours) noexcept {
  // It follows this node's terms, from the one under which the resync began.
  const Configuration& theirs = yours.configuration;
  const bool follows = theirs.members == mine.configuration.members && theirs.term >= merged_term &&
                       theirs.term <= mine.configuration.term;
  return merged_term != 0 && mine.configuration.is_sole(self) && mine.seen == mine.configuration.term && follows &&
         yours.is_inconsistent;
}

bool pick_higher(const Configuration& one, const Configuration& two, Configuration& higher) noexcept {
  if (one.term != two.term) {
    higher = one.term > two.term ? one : two;
    return true;
  }
  if (one.members == two.members) {
    // kNoNode is the largest. Two different primaries of one term cannot be; both sides must still pick the same.
    higher = one.primary <= two.primary ? one : two;
    return true;
  }
  if (one.is_pair() || two.is_pair()) {
    higher = one.is_pair() ? two : one;
    return true;
  }
  return false;
}

Plan plan_meeting(NodeIndex self, const Introduction& mine, const Introduction& yours) {
  if (std::string fields = differing_fields(mine, yours); !fields.empty()) {
    return apart(MeetingRow::incompatible, "the configuration files differ: " + fields, false);
  }
  if (std::string volumes = volume_mismatch(mine, yours); !volumes.empty()) {
    return apart(MeetingRow::incompatible, "the volumes do not fit: " + volumes, false);
  }
  Plan plan;
  if (mine.generations.current.is_none() && yours.generations.current.is_none()) {
    plan.kind = PlanKind::wait;
    plan.row = MeetingRow::both_created;
    return plan;
  }
  const auto split = [](MeetingRow row) {
    Plan result = apart(row,
                        "split brain: both copies were changed while the nodes were apart; on the node whose changes "
                        "are to be given up run `replblkctl connect --discard-my-data`, on the other one `replblkctl "
                        "connect`",
                        true);
    result.is_split = true;
    return result;
  };
  Configuration higher;
  if (!pick_higher(mine.configuration, yours.configuration, higher)) return split(MeetingRow::configuration_split);

  const NodeIndex peer = other_node(self);
  if (!mine.generations.current.is_none() && mine.generations.current == yours.generations.current) {
    const bool is_mine = takes_over_by_agreement(mine, yours, peer);
    if (is_mine || takes_over_by_agreement(yours, mine, self)) {
      plan.kind = is_mine ? PlanKind::sync_source : PlanKind::sync_target;
      plan.row = MeetingRow::by_agreement;
      return plan;
    }
  }
  Direction direction = compare_generations(self, mine, yours, higher);
  if (direction.row == MeetingRow::split_brain) return split(direction.row);
  if (direction.row == MeetingRow::unrelated) {
    return apart(direction.row,
                 "unrelated data: the two copies were never one: a disk of another pair, or of this one before "
                 "create-md; run create-md --force on the one to be overwritten",
                 true);
  }
  const bool mine_may = may_be_source(mine, self, higher);
  const bool yours_may = may_be_source(yours, peer, higher);
  const bool are_equal = mine.generations.current == yours.generations.current;
  if (are_equal && mine_may != yours_may) {
    direction.is_mine = mine_may;
    direction.has_work = true;
  }
  plan.row = direction.row;
  if (mine_may && yours_may && !direction.has_work) {
    if (!mine.is_primary && !yours.is_primary) {
      plan.kind = PlanKind::agree;
      return plan;
    }
    direction.is_mine = mine.is_primary;  // Whoever serves goes on doing so: it adds its peer, with nothing to copy.
  }
  const bool source_may = direction.is_mine ? mine_may : yours_may;
  if (!source_may) {
    return apart(
        direction.row,
        fmt::format("the {} copy would be the source of the resync but {}", direction.is_mine ? "local" : "peer's",
                    direction.is_mine ? why_not_source(mine, self, higher) : why_not_source(yours, peer, higher)),
        false);
  }
  // A copy that serves is never overwritten under its initiators.
  const bool target_serves = direction.is_mine ? yours.is_primary : mine.is_primary;
  if (target_serves && direction.row != MeetingRow::one_created && higher.has_member(direction.is_mine ? peer : self)) {
    return apart(direction.row, "the copy that would be overwritten is Primary; make it secondary first", false);
  }
  plan.kind = direction.is_mine ? PlanKind::sync_source : PlanKind::sync_target;
  plan.is_full = direction.is_full;
  return plan;
}

}  // namespace replblk::replication
