// Who serves a resource (protocol.md 3.2 to 3.7): one machine on each node for removing, taking over, adding, switching
// over, adopting and giving way. Pure: events in by method calls with an explicit now, effects out as data. It does not
// touch disks, sockets, clocks or the arbiter, does not know what the copies hold (replication/meeting says who is
// source), and does not hold addresses (VirtualIpHolder). Node drives it.
//
//   pair, established ── connection breaks ──▶ pair, ended ─┬─ peer agrees, or arbiter grants ──▶ alone ── resynced ──▶
//   adding ──▶ pair
//        ▲   │ switchover, join: proposal                   └─ asked by the peer, refused, or outranked ──▶ Outdated,
//        sync target └───┘
//
// Every change is level-triggered: an event updates what is known, then advance() looks at all of it and takes the next
// step. While a record is being made durable nothing else is begun. Invariants: nothing that names a term leaves before
// `seen` is durable; what heartbeats say is durable; terms and `seen` never go down (I6).
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "membership/lease.hpp"
#include "membership/membership_effects.hpp"

namespace replblk::membership {

enum class ArbiterKind : std::uint8_t { etcd, ping, none };

struct MembershipOptions {
  blockdev::NodeIndex self = 0;
  ArbiterKind arbiter = ArbiterKind::etcd;
  Duration interval = milliseconds(100);
  std::uint32_t lease_ms = 1000;
  Duration peer_timeout = seconds(2);
  /// A question to the arbiter is asked anew after that: longer than the arbiter takes to say that it cannot answer.
  Duration arbiter_timeout = seconds(1);
  /// How long a node that starts waits for its peer before it serves alone (with `etcd`, before it claims). nullopt:
  /// for ever.
  std::optional<Duration> degraded_start_after;
  blockdev::NodeIndex preferred_node = blockdev::kNoNode;  ///< where the pair's configuration names nobody
};

/// What a run of the daemon begins with.
struct MembershipStart {
  blockdev::ResourceRecord record;  ///< durable
  std::uint64_t incarnation = 0;    ///< random, not 0
  bool may_have_lost_cache = false;
};

/// What the two nodes' Introductions came to (replication/meeting).
struct Meeting {
  enum class Direction : std::uint8_t {
    equal,
    source,
    target,
    wait,  ///< both copies were just created: one is forced primary, then they meet anew
  };
  Direction direction = Direction::equal;  ///< of this node
  blockdev::Configuration peer_configuration;
  std::uint64_t peer_seen = 0;
  /// Both copies were changed apart, and policies or a person have said whose is given up: the target's.
  bool is_split = false;
  blockdev::Generation given_up = {};  ///< source after a split: the current generation of that copy
  Uuid peer_pair_id = {};
};

/// The answer to an administrator's verb: whether it was taken up, and a sentence.
struct Verdict {
  bool is_accepted = false;
  std::string message;
};

/// A living peer answers a request within this time, mostly: a round trip and a record made durable.
inline constexpr Duration kAgreementTime = milliseconds(10);
/// Once the peer may serve, whoever reaches the arbiter is the decision's winner or loser within this time, mostly: a
/// flush, two round trips and two records made durable.
inline constexpr Duration kDecisionTime = milliseconds(200);

class MembershipMachine {
 public:
  MembershipMachine(const MembershipOptions& options, MembershipStart start, Instant now);

  // ---- events ----
  void tick(Instant now);  ///< at next_wakeup() or earlier
  void persisted(std::uint64_t number, Instant now);
  void heartbeat_received(const Heartbeat& heartbeat, Instant now);
  /// Both sides are connected, neither is_settled() was false, and both have read the other's Introduction.
  void connected(const Meeting& meeting, Instant now);
  void disconnected(Instant now);
  /// The nodes met, both copies were changed apart, and nobody's is given up. They are not connected.
  void split_found(const blockdev::Configuration& theirs, Instant now);
  /// The peer still sends, and acknowledges nothing, for peer_timeout.
  void acknowledgements_stalled(Instant now);
  /// A resync towards this copy is about to begin: its record must say so first (TargetReadyEffect).
  void resync_begins(const blockdev::Configuration& source, Instant now);
  /// As source: no dirty bit is left.
  void resynced(Instant now);
  void flushed(std::uint64_t number, bool is_good, Instant now);
  /// Instead of flushed(), as source: something was written meanwhile that is not copied yet. resynced() comes again.
  void not_clean(std::uint64_t number, Instant now);
  void proposal_received(const blockdev::Configuration& configuration, const blockdev::GenerationSet& generations,
                         Instant now);
  void proposal_acknowledged(std::uint64_t term, Instant now);
  void disk_failed(Instant now);
  void metadata_failed(Instant now);
  void arbiter_read(std::uint64_t number, const ports::ArbiterReading& reading, Instant now);
  void arbiter_replaced(std::uint64_t number, bool is_replaced, Instant now);
  void arbiter_probed(std::uint64_t number, bool is_reached, Instant now);
  void arbiter_overwritten(std::uint64_t number, Instant now);
  /// Instead of any of them. What was asked for may have come about all the same: only reading tells.
  void arbiter_failed(std::uint64_t number, const std::string& sentence, Instant now);

  // ---- the administrator ----
  [[nodiscard]] Verdict make_primary(Instant now);
  [[nodiscard]] Verdict make_secondary(Instant now);
  /// What only force ends: a split, a strange copy at the peer, an arbiter's record that names the peer.
  [[nodiscard]] bool is_force_needed(Instant now) const;
  [[nodiscard]] Verdict force_primary(Instant now);
  [[nodiscard]] Verdict switch_over(Instant now);
  /// The daemon ends: the same, also to a peer that cannot hold the virtual IP. Redirected initiators reach it.
  [[nodiscard]] Verdict hand_over(Instant now);
  /// Whether a virtual IP could not be held here. No role comes here by plan then; a takeover is none: better served
  /// without the address, which is tried again each second, than not at all.
  void set_addressless(bool is_addressless, Instant now);
  /// Takes make_primary() back, as far as nothing has come of it.
  void drop_wish() noexcept { is_wanted_ = false; }
  void set_standby(bool is_standby, Instant now);
  /// Off: what a peer said last that is not heard any more is forgotten, too: it may be gone for good.
  void set_maintenance(bool is_maintenance, Instant now);
  /// The connected peer is left behind: it is asked to give way over the connection, which ends when it has.
  /// (`disconnect` of the primary; `invalidate` of the peer's copy, once every block counts as different, durably.)
  [[nodiscard]] Verdict leave_peer(Instant now);
  /// What that needs is being recorded: until leave_peer(), or the end of the connection, the role stays where it is.
  void prepare_to_leave_peer() noexcept { is_role_held_ = true; }
  /// The administrator keeps the nodes apart: nobody takes over because of it.
  void set_apart(bool is_apart, Instant now);
  /// The daemon ends: serves no more and begins nothing, but still agrees to what the peer asks.
  void stop(Instant now);

  // ---- answers ----
  /// The mandate, at this very moment. Asked before each answer to an initiator, after the data was read.
  [[nodiscard]] bool may_answer(Instant now) const;
  /// Frames of the peer's may be applied and acknowledged. False ends the connection that brought one (protocol.md 3.3:
  /// a member in doubt acknowledges nothing).
  [[nodiscard]] bool may_apply_frames() const;
  /// The peer has said that it is the only member, in this configuration or a later one.
  [[nodiscard]] bool is_peer_alone() const;
  /// Either node is, by the peer's last word: no role moves by itself.
  [[nodiscard]] bool is_in_maintenance() const noexcept { return is_maintenance_ || is_peer_in_maintenance_; }
  [[nodiscard]] bool is_peer_in_maintenance() const noexcept { return is_peer_in_maintenance_; }
  [[nodiscard]] bool is_peer_addressless() const noexcept { return peer_.heartbeat.is_addressless; }
  /// The connected peer would take the role if this node gave it up now.
  [[nodiscard]] bool may_peer_take_role(Instant now) const;
  /// No change is under way, and the copy has not failed: an Introduction may be sent.
  [[nodiscard]] bool is_settled() const;
  /// Why this node does not serve, or what it waits for; empty when it serves, or is a Secondary with nothing to tell.
  [[nodiscard]] const std::string& reason() const noexcept { return reason_; }
  [[nodiscard]] Service service() const noexcept { return service_; }
  /// It has served in this run and was not stopped since: initiators may wait for its answers
  /// (Introduction.is_primary).
  [[nodiscard]] bool is_primary() const noexcept { return has_served_; }
  [[nodiscard]] const blockdev::ResourceRecord& record() const noexcept { return record_; }
  [[nodiscard]] bool is_established() const noexcept { return link_ == Link::established; }
  [[nodiscard]] bool is_source() const noexcept { return link_ == Link::source; }
  [[nodiscard]] bool is_target() const noexcept { return link_ == Link::target; }
  /// This run was connected as a member of the configuration of now (Introduction.survived_connected).
  [[nodiscard]] bool has_survived_connected() const noexcept {
    return connected_term_ != 0 && connected_term_ == record_.configuration.term;
  }
  [[nodiscard]] bool may_have_lost_cache() const noexcept { return may_have_lost_cache_; }
  [[nodiscard]] Instant next_wakeup(Instant now) const;
  [[nodiscard]] Effects take_effects() { return std::exchange(effects_, {}); }

 private:
  enum class Link : std::uint8_t { none, waiting, met, source, target, established };
  struct Peer {
    Heartbeat heartbeat;
    Instant heard_at{};
    Instant frozen_since{};  ///< of the present stretch of is_frozen
    bool is_known = false;
  };
  struct Proposal {
    enum class Stage : std::uint8_t { draining, naming, out, deciding };
    Stage stage = Stage::draining;
    std::uint8_t members = 3;
    blockdev::NodeIndex primary = blockdev::kNoNode;
    std::uint64_t flush_number = 0;
    std::uint64_t term = 0;
    Instant deadline{};
  };
  struct Claim {
    enum class Stage : std::uint8_t { idle, reading, naming, swapping, granted, probing };
    Stage stage = Stage::idle;
    std::uint64_t number = 0;
    std::uint64_t revision = 0;
    std::uint64_t term = 0;
    blockdev::Configuration configuration;  ///< of the doubt from which it was made
    Instant deadline{};
    Instant next_at{};
    Duration backoff{};
  };

  // membership_machine.cpp
  void advance(Instant now);
  void persist(const blockdev::ResourceRecord& next);
  void send_heartbeat(Instant now);
  [[nodiscard]] Heartbeat compose(Instant now);
  [[nodiscard]] Heartbeat compose_failed() const;
  void end_connection(const std::string& reason, Instant now);
  void link_gone(Instant now);
  void begin_as_target();
  void begin_as_source();
  void keep_after_split(Instant now);
  [[nodiscard]] bool are_both_alone(const blockdev::Configuration& theirs) const noexcept;
  [[nodiscard]] bool has_split(const blockdev::Configuration& theirs) const noexcept;
  void flush_own(Instant now);
  void take_by_force(Instant now);
  void overwrite_arbiter(Instant now);
  void frames_may_come() noexcept;
  void update_service(Instant now);
  [[nodiscard]] std::string why_not_serving(Instant now) const;
  [[nodiscard]] bool holds_mandate(Instant now) const;
  [[nodiscard]] Instant closing_at() const;
  [[nodiscard]] bool is_copy_whole() const;
  [[nodiscard]] bool is_in_doubt() const noexcept;
  [[nodiscard]] bool is_sole() const noexcept { return record_.configuration.is_sole(self()); }
  [[nodiscard]] bool is_just_created() const noexcept { return record_.generations.current.is_none(); }
  /// Met, and the plan is a resync in this direction that has not begun.
  [[nodiscard]] bool is_planned(Meeting::Direction direction) const noexcept {
    return link_ == Link::met && direction_ == direction;
  }
  [[nodiscard]] bool is_peer_alive(Instant now) const;
  [[nodiscard]] Duration lease_length() const noexcept { return milliseconds(options_.lease_ms); }
  [[nodiscard]] blockdev::NodeIndex self() const noexcept { return options_.self; }
  [[nodiscard]] blockdev::NodeIndex peer() const noexcept { return blockdev::other_node(options_.self); }
  [[nodiscard]] std::uint64_t fresh_nonce();
  [[nodiscard]] Uuid fresh_pair_id();

  // membership_peer.cpp: what the peer says
  void hear_stranger(Instant now);
  bool adopt(const Heartbeat& heartbeat, Instant now);
  void agree_to_removal(const Heartbeat& heartbeat, Instant now);
  void take_reply(const RemovalTicket& reply, Instant now);
  void echo(const Stamp& stamp, Instant now);

  // membership_change.cpp: going alone
  [[nodiscard]] bool wants_to_go_alone(Instant now);
  [[nodiscard]] bool must_leave_role() const noexcept;
  [[nodiscard]] bool pair_is_over(Instant now);
  [[nodiscard]] bool may_take_over_outdated(Instant now) const;
  [[nodiscard]] bool may_take_back(Instant now) const;
  void pursue(Instant now);
  [[nodiscard]] bool has_named_claim() const noexcept;
  bool ask(Instant now);
  [[nodiscard]] bool yields(Instant now) const;
  void claim(Instant now);
  void act_on_grant(Instant now);
  void claim_failed(std::string why, Instant now);
  void become_alone(std::uint64_t term, blockdev::NodeIndex primary, Instant now);
  [[nodiscard]] blockdev::NodeIndex primary_when_alone() const;
  void forget_changes();
  [[nodiscard]] bool was_connected_member() const noexcept;
  [[nodiscard]] bool has_listened(Instant now) const;
  [[nodiscard]] bool has_waited_for_peer(Instant now) const;
  [[nodiscard]] bool may_trust_copy(Instant now) const;
  [[nodiscard]] bool may_begin_alone(Instant now);
  [[nodiscard]] bool is_replaced(Instant now) const;
  void take_who_is_left(const std::optional<ports::ArbiterRecord>& record);

  // membership_proposal.cpp: what both decide
  void propose(blockdev::NodeIndex primary, Instant now);
  void arrange_roles(Instant now);
  [[nodiscard]] blockdev::NodeIndex choose_primary() const;

  const MembershipOptions options_;
  const std::uint64_t incarnation_;
  const Instant started_at_;
  blockdev::ResourceRecord record_;   ///< as last handed out; durable when persist_out_ is 0
  blockdev::ResourceRecord durable_;  ///< what is_metadata_failed_ leaves of it
  std::uint64_t persist_out_ = 0;
  std::uint64_t number_ = 0;
  Effects effects_;

  Lease lease_;
  Promise promise_;
  Stamp echo_;         ///< the last one promised for; sent with every heartbeat
  Stamp wanted_echo_;  ///< waits for a longer lease to be recorded
  struct HeldProposal {
    blockdev::Configuration configuration;
    blockdev::GenerationSet generations;
  };
  std::optional<HeldProposal> held_proposal_;  ///< came while that was being recorded
  Instant last_sent_at_{};
  Instant last_turn_at_{};
  Instant stalled_at_{};  ///< when this process last went on after it had stood still
  Peer peer_;
  std::uint64_t peer_seen_ = 0;
  Uuid peer_pair_id_;        ///< as it was introduced
  bool is_strange_ = false;  ///< the peer has a copy of another pair, and this run has not proved that its own is right

  Link link_ = Link::none;
  Meeting::Direction direction_ = Meeting::Direction::equal;
  Instant linked_at_{};
  Instant link_lost_at_{};
  std::uint64_t connected_term_ = 0;  ///< the configuration that this run was established in; 0: none
  Instant lease_lost_at_{};
  bool is_joining_ = false;  ///< a proposal of the peer's is being made durable
  bool is_target_starting_ = false;
  bool is_source_starting_ = false;  ///< the only member as soon as that is durable, with this connection
  bool is_parting_ = false;          ///< agreed to be left behind: the reply goes over the connection before it ends
  std::optional<blockdev::Configuration> start_;  ///< the resync that the peer has begun
  std::optional<blockdev::Generation> given_up_;  ///< of the copy that loses a split that this node wins

  std::optional<Proposal> proposal_;
  std::uint64_t own_doubt_ = 0;  ///< the term of a proposal of this run's whose outcome is unknown
  RemovalTicket ask_;
  Instant asked_at_{};
  Instant ask_again_at_{};
  RemovalTicket reply_;
  Claim claim_;

  /// Of a start as the only member: the arbiter is asked once whether a person has put the peer in its place.
  struct StartQuestion {
    enum class Stage : std::uint8_t { due, out, answered };
    Stage stage = Stage::due;
    std::uint64_t number = 0;
    Instant again_at{};
    std::optional<Instant> deadline;
    std::optional<blockdev::Configuration> other;  ///< is the only member by the arbiter's record
  };
  StartQuestion start_question_;
  bool is_held_back_ = false;      ///< by that, in this turn
  bool is_alone_decided_ = false;  ///< in this run, not only remembered
  bool is_mandate_begun_ = false;  ///< this run has become the only member, or begun anew as such
  /// Nothing that was answered by two is in the own device's cache only: flushed since frames could last come (A19).
  bool is_flushed_ = false;
  std::uint64_t flush_number_ = 0;
  Instant flush_again_at_{};
  std::string flush_failure_;
  bool may_have_lost_cache_ = false;
  bool is_disk_failed_ = false;
  bool is_metadata_failed_ = false;
  bool is_standby_ = false;
  bool is_maintenance_ = false;
  bool is_peer_in_maintenance_ = false;  ///< as it said last
  bool is_addressless_ = false;
  bool is_apart_ = false;         ///< the administrator keeps the nodes apart
  bool is_role_held_ = false;     ///< prepare_to_leave_peer()
  bool is_leaving_peer_ = false;  ///< leave_peer(), until this node is the only member or has given way
  bool is_stopping_ = false;
  bool is_wanted_ = false;              ///< the administrator asked for the role here, and nobody has had it since
  bool is_split_ = false;               ///< both went on alone; the other one's configuration is not below this node's
  bool is_taken_by_force_ = false;      ///< in this run
  bool is_forcing_ = false;             ///< a person took this copy; waits for the flush
  bool is_overwrite_due_ = false;       ///< the arbiter is told once the forced record is durable
  std::uint64_t overwrite_number_ = 0;  ///< it is being told
  Instant overwrite_again_at_{};
  std::string claim_reason_;
  std::string reason_;
  Service service_ = Service::stopped;
  bool has_served_ = false;
  Instant serving_since_{};
};

}  // namespace replblk::membership
