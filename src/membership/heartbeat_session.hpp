// Which heartbeats of the peer are fresh (docs/heartbeat.md 2), and how each path is. A machine: datagrams in,
// heartbeats out, an explicit now; no socket, no randomness (incarnations are random and given).
//
//   no session ── an introduction or heartbeat that repeats my incarnation and my challenge of now ──▶ session of that
//   incarnation session    ── its counters, each once, over whatever path ──▶ content, newest first session    ──
//   another incarnation repeats both ──▶ its session; the challenge changes, so nobody older can come back
//
// Invariant: content is delivered only when its sender lived after this daemon started, never twice, and never after
// newer content of the same sender.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "membership/heartbeat.hpp"

namespace replblk::membership {

struct HeartbeatIdentity {
  blockdev::NodeIndex self = 0;
  std::uint64_t incarnation = 0;  ///< random, not 0
  std::uint64_t resource_key = 0;
  std::string secret;
  std::size_t paths_count = 1;  ///< 1 to kHeartbeatPathsMax
};

struct PathState {
  std::optional<Instant> last_heard;
  std::optional<Duration> round_trip;  ///< of the last datagram that allowed to tell
  bool is_heard_by_peer = false;       ///< as the peer says
};

class HeartbeatSession {
 public:
  explicit HeartbeatSession(HeartbeatIdentity identity);

  /// The bytes to send over `path` now.
  [[nodiscard]] HeartbeatBytes seal(const Heartbeat& content, std::size_t path, Instant now, Duration lease);

  struct Received {
    std::optional<Heartbeat> fresh;       ///< content that is newer than all before
    bool is_new_incarnation = false;      ///< the peer's daemon is another run than before
    std::optional<HeartbeatBytes> reply;  ///< to send back over the same path at once
  };
  /// A datagram that came over `path`. Everything that cannot be believed is dropped and counted.
  [[nodiscard]] Received open(ConstBytes bytes, std::size_t path, Instant now);

  [[nodiscard]] const std::vector<PathState>& paths() const noexcept { return paths_; }
  /// 0: no session yet.
  [[nodiscard]] std::uint64_t peer_incarnation() const noexcept { return peer_incarnation_; }

  struct Dropped {
    std::uint64_t malformed = 0;      ///< no heartbeat, or of another release
    std::uint64_t not_authentic = 0;  ///< another secret, or forged
    std::uint64_t misdirected = 0;    ///< another resource, or this node's own
    std::uint64_t replayed = 0;       ///< seen before, or from before this run or the peer's present one
  };
  [[nodiscard]] const Dropped& dropped() const noexcept { return dropped_; }

 private:
  struct Path {
    Instant peer_sent_at{};
    Instant arrived_at{};
    bool has_heard = false;
  };
  [[nodiscard]] HeartbeatBytes seal_to(std::uint64_t receiver, std::uint64_t answer, const Heartbeat* content,
                                       std::size_t path, Instant now, Duration lease);
  [[nodiscard]] bool admit_counter(std::uint64_t counter);
  void note_path(const HeartbeatHeader& header, std::size_t path, Instant now);

  HeartbeatIdentity identity_;
  std::uint64_t counter_ = 0;
  std::uint64_t challenge_ = 1;
  std::uint64_t peer_incarnation_ = 0;
  std::uint64_t peer_challenge_ = 0;
  std::uint64_t counter_max_ = 0;
  std::uint64_t counters_seen_ = 0;  ///< bit n: counter_max_ - n has come
  std::uint64_t content_counter_ = 0;
  std::vector<Path> traces_;
  std::vector<PathState> paths_;
  Dropped dropped_;
};

}  // namespace replblk::membership
