// The membership of a pair under faults, without disks, initiators or TCP: two MembershipMachines with their durable
// records, HeartbeatSessions, a register as data, and an arbiter, on one seed. Thousands of runs a minute, so that what
// takes several coincidences comes about. Whole nodes are replblk_sim's matter.
//
// Faults: datagrams that are lost, late, doubled, sent again much later; each path cut one way; connections that break
// at one end first; an arbiter that a node cannot reach, answers that are lost, claims that commit late; processes that
// die, also while a record is being written (which may or may not be durable then), restart, pause longer than a lease;
// hosts that lose power and what their caches held; clocks whose rates differ by less than the margin and begin anew at
// a boot; failing disks, and disks that are replaced by empty ones; an administrator.
//
// Held after every event: I1 (with `ping` and `none` only while the nodes could hear each other), I6, I7, and that who
// may answer has every answered write (with `ping` and `none`: no copy that was written alone is overwritten unless the
// meeting said that there is a split). At the end, without faults, within a bound: I9.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "membership/heartbeat_session.hpp"
#include "membership/membership_machine.hpp"
#include "replication/meeting.hpp"
#include "sim/seeded.hpp"

namespace replblk::sim {

struct MembershipOutcome {
  std::string failure;  ///< empty: held
  std::uint64_t writes = 0;
  std::uint64_t changes = 0;  ///< configurations made durable
};

class MembershipWorld {
 public:
  MembershipWorld(std::uint64_t seed, bool is_traced);
  [[nodiscard]] MembershipOutcome run();

 private:
  using Index = blockdev::NodeIndex;
  static constexpr std::size_t kDatagramPaths = 2;
  static constexpr std::size_t kConnectionPath = 2;
  /// From when something can reach a node until something has: many heartbeats, of which most may be lost.
  static constexpr Duration kHearingMax = seconds(1);
  /// Of datagrams: where more are lost, all of a lease may be, by chance.
  static constexpr double kLossMax = 0.1;

  enum class FrameKind : std::uint8_t {
    write,
    ack,
    flush,
    flush_ack,
    proposal,
    proposal_ack,
    sync_start,
    target_ready,
    sync_data,
    sync_ack,
    heartbeat
  };
  struct Frame {
    FrameKind kind = FrameKind::write;
    std::uint64_t value = 0;
    std::uint64_t term = 0;
    blockdev::Configuration configuration = {};
    blockdev::GenerationSet generations = {};
    membership::HeartbeatBytes heartbeat{};
  };
  struct Node {
    // durable
    blockdev::ResourceRecord record;
    std::uint64_t data = 0;
    std::uint64_t stable = 0;
    // the host
    Uuid boot_id;
    Duration clock_offset{};
    double clock_rate = 1.0;
    std::uint32_t lease_ms = 1000;
    bool is_disk_broken = false;
    bool is_away = false;  ///< for good
    // the process; run counts them, 0: down
    std::uint64_t run = 0;
    std::unique_ptr<membership::MembershipMachine> machine;
    std::unique_ptr<membership::HeartbeatSession> session;
    Duration paused_until{};
    Instant started_at{};
    bool is_crashed_primary = false;
    bool has_dirty = false;
    bool is_discarding = false;     ///< the administrator gives this copy up, should there be a split
    bool is_split_decided = false;  ///< the present meeting is one that the administrator has decided
    membership::Service service = membership::Service::stopped;
    std::uint64_t pending_write = 0;  ///< not yet answered
    bool is_acknowledged = false;
    std::uint64_t drain_number = 0;
    std::uint64_t client_flush_floor = 0;  ///< waits for the peer's flush
    std::uint64_t flushing_data = 0;       ///< what a flush of both covers: what was there when it began
    Duration peer_heard_at{};
    bool is_flushing = false;
    bool is_syncing = false;
    bool is_synced = false;
    std::optional<blockdev::ResourceRecord> record_out;
    Duration reached_for{};  ///< when that was asked for: since when something could reach it from its peer
    // the network, at this node's end
    bool is_linked = false;
    std::uint64_t frames_sent_at = 0;  ///< keeps the connection's order
    bool reaches_arbiter = true;
    Duration unreached_at{};            ///< when nothing could reach it from its peer last
    std::array<bool, 3> is_path_cut{};  ///< outgoing; the last one is the connection's
    // ghosts
    bool lost_cache = false;
    bool has_written_alone = false;  ///< answered, and no pair was agreed upon since
    std::set<std::uint64_t> granted_terms;
    std::set<std::uint64_t> agreed_terms;    ///< the peer made itself Outdated for this node
    std::set<std::uint64_t> asked_terms;     ///< this node's requests
    std::set<std::uint64_t> proposed_terms;  ///< this node's proposals
    std::set<std::uint64_t> pair_terms;      ///< configurations of two that were durable here
    std::set<std::uint64_t>
        run_terms;  ///< of this run: pairs that it proposed or made durable, doubts as the only member
  };
  struct Arbiter {
    std::uint64_t revision = 1;
    std::optional<ports::ArbiterRecord> record;
  };

  // membership_world.cpp: time, processes, checks
  void at(Duration delay, std::function<void()> event);
  void at_node(Index index, Duration delay, std::function<void(Node&)> event);
  [[nodiscard]] Instant local(const Node& node) const;
  [[nodiscard]] Index index_of(const Node& node) const { return &node == &nodes_[0] ? 0 : 1; }
  [[nodiscard]] Node& other(const Node& node) { return nodes_[1 - index_of(node)]; }
  void start(Index index);
  void kill(Index index, bool is_power_lost);
  void pump(Node& node);
  void carry_out(Node& node, membership::Effect& effect);
  void tick(Index index, std::uint64_t run);
  void check();
  void look_for_silence();
  void check_record(Node& node, const blockdev::ResourceRecord& before, const blockdev::ResourceRecord& now);
  [[nodiscard]] bool is_going_alone_decided(Node& node, const blockdev::ResourceRecord& before, std::uint64_t term);
  void note_degraded_start(Node& node);
  void fail(const std::string& what);
  void trace(const Node& node, const std::string& what);

  // membership_network.cpp: datagrams, the connection, the arbiter, the register
  void send_heartbeat(Node& node, const membership::Heartbeat& heartbeat);
  void send_datagram(Node& node, std::size_t path, const membership::HeartbeatBytes& bytes);
  void deliver(Index to, std::size_t path, const membership::HeartbeatBytes& bytes);
  void send_frame(Node& node, Frame frame);
  void receive_frame(Node& node, const Frame& frame);
  void close_link(Node& node);
  void try_connect();
  [[nodiscard]] replication::Introduction introduce(const Node& node) const;
  void ask_arbiter(Node& node, std::function<std::function<void(Node&)>()> transaction);
  void load(Node& node);
  void answer_if_possible(Node& node);
  void drain_if_possible(Node& node);
  void meet(Index index, const replication::Plan& plan, const replication::Introduction& theirs, Duration delay);
  void split_found(const std::array<replication::Introduction, 2>& intros);
  void note_power_loss(Node& node);

  // membership_faults.cpp
  void draw_fault();
  void lose_power_soon();
  void heal();
  void administer(Node& node);
  void replace_disk(Index index);
  [[nodiscard]] bool is_service_owed() const;

  Seeded random_;
  bool is_traced_;
  Duration now_{};
  std::uint64_t order_ = 0;
  std::map<std::pair<Duration, std::uint64_t>, std::function<void()>> events_;
  std::array<Node, 2> nodes_;
  Arbiter arbiter_;
  membership::MembershipOptions options_;
  std::uint64_t runs_ = 0;
  std::uint64_t link_number_ = 0;
  std::uint64_t link_ready_at_ = 0;
  std::array<Duration, 2> link_order_{};

  // what this run has
  double loss_ = 0;
  double replay_ = 0;
  Duration delay_max_{};
  Duration fault_interval_{};
  bool has_cache_ = false;
  bool has_power_loss_ = false;
  bool has_crashes_ = false;
  bool has_cuts_ = false;
  bool has_pauses_ = false;
  bool has_arbiter_faults_ = false;
  bool has_administrator_ = false;
  bool has_disk_failures_ = false;
  bool is_healing_ = false;
  bool is_final_alone_ = false;
  Duration not_both_at_{};  ///< when not both held a mandate last
  Duration deaf_until_{};   ///< `ping`, `none`: until then the nodes may not have heard each other

  // the register: who may answer has data >= floor
  std::uint64_t written_ = 0;
  std::uint64_t floor_ = 0;
  std::uint64_t floor_both_ = 0;   ///< of these, answered by two
  std::uint64_t floor_flush_ = 0;  ///< of these, flushed
  std::uint64_t changes_ = 0;
  std::string failure_;
};

}  // namespace replblk::sim
