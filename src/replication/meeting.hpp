// What two nodes do when they meet (protocol.md 3.3, 5.1): one pure function from both Introductions to a plan. Both
// sides evaluate it and reach mirrored results. No I/O, no state; Resource carries the plan out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "replication/messages.hpp"

namespace replblk::replication {

[[nodiscard]] std::vector<std::uint64_t> volume_sizes(const Introduction& side);
/// What the volumes of `mine` are to have, in bytes: a resize may have been cut off after it was done on one node. A
/// volume that is smaller than its copy in `yours`, and has room for as much, becomes as large.
[[nodiscard]] std::vector<std::uint64_t> sizes_to_grow_to(const Introduction& mine, const Introduction& yours);

enum class PlanKind : std::uint8_t {
  wait,         ///< both just created: Inconsistent until one is forced primary
  agree,        ///< copies are equal: a common configuration at a higher term
  sync_source,  ///< this node's copy is the good one
  sync_target,
  apart,  ///< no common way: `reason`
};

/// The row of the table in protocol.md 5.1 that decided; for logs, status and tests.
enum class MeetingRow : std::uint8_t {
  incompatible,         ///< before the table: configuration files or volumes do not fit
  configuration_split,  ///< two different only members of one term
  both_created,         // 1
  one_created,          // 2
  by_agreement,         // 3.7: a whole copy that gave way takes over from one that may have lost its cache
  survivor,             // 3
  both_crashed,         // 4
  equal,                // 5
  base_is_yours,        // 6
  base_is_mine,         // 7
  in_history,           // 8
  split_brain,          // 9
  unrelated,            // 10
};

struct Plan {
  PlanKind kind = PlanKind::apart;
  MeetingRow row = MeetingRow::incompatible;
  bool is_full = false;   ///< every block is in the resync set
  bool is_split = false;  ///< both copies hold changes that the other lacks
  bool is_final = false;  ///< apart: do not try again before a person decides
  std::string reason;     ///< apart: a sentence for the operator
};

/// `self` is the node whose view is wanted; `mine` and `yours` are what the two said.
[[nodiscard]] Plan plan_meeting(blockdev::NodeIndex self, const Introduction& mine, const Introduction& yours);

/// Whether the peer's copy is the very one that this node was the source of already: what that resync had merged and
/// has not yet copied is then the whole resync set, and neither a full sync nor the target's own bits need to be begun
/// anew. `merged_term`: of the own record. Safe because nothing changes an Inconsistent copy but its source, the source
/// cleared bits by flushes of that copy only, what the source has written since is in its set or its activity log, and
/// whatever could give either copy another history (create-md, a forced primary, an add) ends that: the source forgets
/// `merged_term` before it begins another resync and when it is not the only member any more.
[[nodiscard]] bool is_same_resync(std::uint64_t merged_term, blockdev::NodeIndex self, const Introduction& mine,
                                  const Introduction& yours) noexcept;

/// Of two configurations the one that both go on from (protocol.md 3.3): the higher term, or of one term the one with
/// one member. Two different ones with one member each have no higher: returns false.
[[nodiscard]] bool pick_higher(const blockdev::Configuration& one, const blockdev::Configuration& two,
                               blockdev::Configuration& higher) noexcept;

}  // namespace replblk::replication
