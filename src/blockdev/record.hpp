// What a node remembers of a resource (protocol.md 3.1, 5.1): the plain data that every superblock of every volume
// carries, and nothing that acts on it. membership and replication decide what it becomes; Store makes it durable.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/uuid.hpp"

namespace replblk::blockdev {

/// A node's place in the configuration file: 0 or 1. kNoNode: nobody.
using NodeIndex = std::uint8_t;
inline constexpr NodeIndex kNoNode = 255;
[[nodiscard]] constexpr NodeIndex other_node(NodeIndex node) noexcept { return node == 0 ? 1 : 0; }

/// Names one line of history of the data. {0, 0} means "just created" as current, "none" elsewhere.
struct Generation {
  std::uint64_t term = 0;
  std::uint64_t nonce = 0;
  friend bool operator==(const Generation&, const Generation&) = default;
  [[nodiscard]] bool is_none() const noexcept { return term == 0 && nonce == 0; }
};

struct GenerationSet {
  static constexpr std::size_t kHistoryCountMax = 32;
  Generation current;
  Generation base;                  ///< where the absent peer was left; belongs to the bitmap
  std::vector<Generation> history;  ///< newest first, at most kHistoryCountMax
  friend bool operator==(const GenerationSet&, const GenerationSet&) = default;
};

/// Which copies hold every answered write, and who may serve.
struct Configuration {
  std::uint64_t term = 0;
  std::uint8_t members = 0;  ///< bit n: node n
  NodeIndex primary = kNoNode;
  friend bool operator==(const Configuration&, const Configuration&) = default;
  [[nodiscard]] bool has_member(NodeIndex node) const noexcept { return node < 2 && (members >> node & 1) != 0; }
  [[nodiscard]] bool is_sole(NodeIndex node) const noexcept { return node < 2 && members == 1u << node; }
  [[nodiscard]] bool is_pair() const noexcept { return members == 3; }
};

struct ResourceRecord {
  static constexpr std::size_t kReservationsBytesMax = 40960;  ///< leaves the rest of a superblock slot room
  Configuration configuration;
  std::uint64_t seen = 0;  ///< the highest term named or agreed to; > configuration.term means doubt
  /// Drawn when the first copy is taken (primary --force of one that was just created), handed on to the peer's with
  /// its first resync; none before. Copies with different ones were never one: nothing that their nodes say of terms
  /// and members is about the same pair.
  Uuid pair_id;
  GenerationSet generations;
  Uuid boot_id;                      ///< the host's, when the copy was last opened
  std::uint32_t lease_ms_max = 0;    ///< the longest lease ever promised
  std::string reservations;          ///< scsi's table of persistent reservations, opaque here
  bool is_inconsistent = false;      ///< a resync towards this copy has begun and not been finished
  bool is_outdated = false;          ///< gave way to the peer
  bool is_primary_open = false;      ///< serves or served without a clean end: found at open, it is a crashed primary
  bool is_clean_stop = false;        ///< cleared, durably, when opened
  std::uint64_t alone_since_ms = 0;  ///< Unix time when it became the only member, until it is one of two; 0: did not
  bool may_be_older = false;         ///< a device had lost a write of it: something promised later may be missing
  bool was_primary_at_parting = false;  ///< it served when it became the only member
  /// The source of a resync, which has been the only member since this term, had merged the target's bits by then,
  /// durably: its set holds all that this target lacks. 0: there is no such target.
  std::uint64_t merged_term = 0;
  bool is_standby = false;      ///< the administrator wants no role here
  bool is_maintenance = false;  ///< the administrator wants no role to move by itself
  friend bool operator==(const ResourceRecord&, const ResourceRecord&) = default;
};

}  // namespace replblk::blockdev
