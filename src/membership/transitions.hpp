// The changes of a node's record that protocol.md 3.3 and 3.4 allow, as pure functions: old record in, new record out.
// Nothing here decides whether a change may happen, and nothing is durable before Store says so: Resource sees to both.
// Invariant: neither the term nor `seen` ever goes down (I6); asserted.
#pragma once

#include <span>

#include "blockdev/record.hpp"

namespace replblk::membership {

using blockdev::Configuration;
using blockdev::Generation;
using blockdev::GenerationSet;
using blockdev::NodeIndex;
using blockdev::ResourceRecord;

/// Doubt: a change is out and its outcome unknown.
[[nodiscard]] inline bool is_in_doubt(const ResourceRecord& record) noexcept {
  return record.seen > record.configuration.term;
}

/// May this node serve as soon as it runs, asking nobody (protocol.md 3.2, 3.7)? The only member and not in doubt, copy
/// whole.
[[nodiscard]] bool may_serve_alone(const ResourceRecord& record, NodeIndex self) noexcept;

/// A term above all that is known here and `above`.
[[nodiscard]] std::uint64_t next_term(const ResourceRecord& record, std::uint64_t above) noexcept;

/// Remove the peer, take over, or become the source of a resync: {t', {self}, primary} and a new current generation.
/// `primary` is self or kNoNode (holds the only copy, serves nothing).
[[nodiscard]] ResourceRecord become_only_member(const ResourceRecord& record, NodeIndex self, NodeIndex primary,
                                                std::uint64_t above, std::uint64_t nonce);

/// As above, at a term that is named already (protocol.md 3.3: a node that becomes the only member takes `seen` as its
/// term). `term` is not below `seen` and above the configuration's. A copy that gave way and takes over is whole again.
[[nodiscard]] ResourceRecord become_only_member_at(const ResourceRecord& record, NodeIndex self, NodeIndex primary,
                                                   std::uint64_t term, std::uint64_t nonce);

/// A copy that nobody hears raises its term by one at each start, and no arbiter hears of that either: the copy that a
/// person chooses must be above it when it comes back (protocol.md 3.3: the higher one is adopted).
inline constexpr std::uint64_t kForcedTermLeap = 1'000'000;

/// A person's decision (`primary --force`): as become_only_member(), by that leap unless the copy was just created, and
/// the copy is taken for good, whatever it was.
[[nodiscard]] ResourceRecord force_primary(const ResourceRecord& record, NodeIndex self, std::uint64_t above,
                                           std::uint64_t nonce);

/// Takes over by agreement (protocol.md 3.7): this copy is whole and gave way to a change that its peer never acted
/// upon. As become_only_member(), serving nothing, and no longer Outdated.
[[nodiscard]] ResourceRecord take_over_by_agreement(const ResourceRecord& record, NodeIndex self, std::uint64_t above,
                                                    std::uint64_t nonce);

/// The copy that is kept after a split (protocol.md 5.1 row 9). As become_only_member(), and `given_up`, the current
/// generation of the other copy, becomes base: if the resync is interrupted, the next meeting goes on with it (row 6)
/// and nobody has to decide again.
[[nodiscard]] ResourceRecord keep_after_split(const ResourceRecord& record, NodeIndex self, NodeIndex primary,
                                              std::uint64_t above, std::uint64_t nonce, const Generation& given_up);

/// `record` with what membership decides taken from `decided`. Reservations, boot id, clean stop and what people are
/// told are not membership's: they may have changed since `decided` was thought of.
[[nodiscard]] ResourceRecord with_decision(const ResourceRecord& record, const ResourceRecord& decided);

/// Completes a change: a node that becomes the only member by it remembers when, and whether it served; one of a pair
/// forgets. `unix_ms` is the time now.
void remember_parting(const ResourceRecord& before, ResourceRecord& next, NodeIndex self,
                      std::uint64_t unix_ms) noexcept;

/// What the records of a resource's volumes say together. They differ when a node stopped between two of its volumes: a
/// change that is not in every one of them was never acted upon, so the older configuration counts, with every flag
/// that one of them has, and the highest `seen`. At least one.
[[nodiscard]] ResourceRecord record_of_all(std::span<const ResourceRecord> records);

/// Names a term before a proposal leaves (doubt begins).
[[nodiscard]] ResourceRecord name_term(const ResourceRecord& record, std::uint64_t term);

/// Gives way to `configuration`, in which this node is no member; a resync towards this copy begins, from one of
/// `pair_id`.
[[nodiscard]] ResourceRecord become_sync_target(const ResourceRecord& record, const Configuration& configuration,
                                                const Uuid& pair_id);

/// Agrees to be left behind: `configuration` has the asker as its only member (protocol.md 3.3, mark itself Outdated).
[[nodiscard]] ResourceRecord become_outdated(const ResourceRecord& record, const Configuration& configuration);

/// Learns of `configuration`, in which this node is no member: it was refused by the arbiter, or meets a higher one.
[[nodiscard]] ResourceRecord give_way(const ResourceRecord& record, const Configuration& configuration);

/// Gives way to a peer that it cannot hear, and whose configuration it cannot know (protocol.md 3.5, `ping`).
[[nodiscard]] ResourceRecord give_way_unheard(const ResourceRecord& record);

/// Both are members again: takes configuration and generations.
[[nodiscard]] ResourceRecord join_pair(const ResourceRecord& record, const Configuration& configuration,
                                       const GenerationSet& generations);

/// What the generations become when the peer is added: base goes into the history.
[[nodiscard]] GenerationSet generations_for_pair(const GenerationSet& generations);

}  // namespace replblk::membership
