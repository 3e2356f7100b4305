// Who holds a resync back (docs/peer_protocol.md 3): each node's administrator has one flag, either of them pauses, and
// only its own side takes a flag away. A node's flag lasts as long as its daemon; what is known of the peer's flag
// lasts as long as the connection. Plain data and DRBD's words for it; Resource sends and applies.
#pragma once

#include <string_view>

namespace replblk::replication {

struct SyncPauseFlags {
  bool is_by_self = false;
  bool is_by_peer = false;

  [[nodiscard]] bool is_paused() const noexcept { return is_by_self || is_by_peer; }
  /// The connection is gone: the peer says it again when the nodes meet.
  void forget_peer() noexcept { is_by_peer = false; }
  /// DRBD's "resync-suspended".
  [[nodiscard]] std::string_view to_drbd() const noexcept {
    if (is_by_self) return is_by_peer ? "user,peer" : "user";
    return is_by_peer ? "peer" : "no";
  }
};

}  // namespace replblk::replication
