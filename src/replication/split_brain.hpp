// What becomes of a split (protocol.md 5.1 row 9): DRBD's policies after_sb_0pri, 1pri and 2pri, or a person's
// `connect --discard-my-data`, name the node whose copy is given up, or nobody. A pure function of both Introductions
// that both nodes evaluate to the same result. Does not decide whether there is a split (meeting) and carries nothing
// out (Resource).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "replication/meeting.hpp"
#include "replication/messages.hpp"

namespace replblk::replication {

/// Nobody is Primary when the nodes meet.
enum class AfterSb0 : std::uint8_t {
  disconnect,
  discard_younger_primary,  ///< the node that was not primary when they parted gives up its copy
  discard_older_primary,    ///< the one that was
  discard_zero_changes,     ///< a copy to which nothing was written since they parted is given up
  discard_least_changes,    ///< the copy to which less was written
  discard_node,             ///< a node that is named
};
/// One is.
enum class AfterSb1 : std::uint8_t {
  disconnect,
  consensus,       ///< after_sb_0pri, if it gives up the secondary's copy
  violently_as0p,  ///< after_sb_0pri, even if the primary must give up role and copy
  discard_secondary,
};
/// Both are.
enum class AfterSb2 : std::uint8_t { disconnect, violently_as0p };

struct SplitPolicies {
  AfterSb0 without_primary = AfterSb0::disconnect;
  blockdev::NodeIndex discarded_node = blockdev::kNoNode;  ///< AfterSb0::discard_node
  AfterSb1 with_one_primary = AfterSb1::disconnect;
  AfterSb2 with_two_primaries = AfterSb2::disconnect;
  friend bool operator==(const SplitPolicies&, const SplitPolicies&) = default;
};

/// DRBD's keywords. `discard-node-NAME` is not among those of AfterSb0: who reads the file knows the names.
[[nodiscard]] std::optional<AfterSb0> parse_after_sb_0pri(std::string_view keyword) noexcept;
[[nodiscard]] std::optional<AfterSb1> parse_after_sb_1pri(std::string_view keyword) noexcept;
[[nodiscard]] std::optional<AfterSb2> parse_after_sb_2pri(std::string_view keyword) noexcept;
[[nodiscard]] std::string_view to_string(AfterSb0 policy) noexcept;  ///< discard_node: "discard-node-"
[[nodiscard]] std::string_view to_string(AfterSb1 policy) noexcept;
[[nodiscard]] std::string_view to_string(AfterSb2 policy) noexcept;

struct SplitResolution {
  blockdev::NodeIndex loser = blockdev::kNoNode;  ///< whose copy is given up; kNoNode: a person must decide
  bool must_demote = false;  ///< the loser is Primary: it gives up the role first, then they meet anew
  std::string why;           ///< who decided, or why nobody could; a clause for the operator
};

/// `nodes[n]` is what node n said. The two have split.
[[nodiscard]] SplitResolution resolve_split(const SplitPolicies& policies,
                                            const std::array<const Introduction*, 2>& nodes);

/// Whether the bits of both sides cover all that differs: both left the same generation behind.
[[nodiscard]] bool is_split_covered_by_bitmaps(const Introduction& one, const Introduction& two) noexcept;

}  // namespace replblk::replication
