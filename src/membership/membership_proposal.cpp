// What both nodes decide over the connection: joining, adding, switching over; and the administrator's verbs
// (protocol.md 3.4, 3.7).
#include <utility>

#include "membership/membership_machine.hpp"
#include "membership/transitions.hpp"

namespace replblk::membership {

using blockdev::kNoNode;
using blockdev::ResourceRecord;

namespace {

constexpr Duration kProposalTimeout = seconds(5);

}  // namespace

/// Drain, flush both, name the term, propose. Nothing is answered from the naming until it is decided (A6).
void MembershipMachine::propose(blockdev::NodeIndex primary, Instant now) {
  Proposal proposal;
  proposal.primary = primary;
  proposal.flush_number = ++number_;
  proposal.deadline = now + kProposalTimeout;
  proposal_ = proposal;
  effects_.emplace_back(DrainAndFlushEffect{proposal.flush_number});
}

void MembershipMachine::proposal_received(const blockdev::Configuration& configuration,
                                          const blockdev::GenerationSet& generations, Instant now) {
  if (!wanted_echo_.is_none() && !held_proposal_.has_value()) {
    held_proposal_ = {configuration, generations};
    return;
  }
  const bool is_planned = link_ == Link::established || (link_ == Link::target && record_.is_inconsistent) ||
                          (link_ == Link::met && direction_ == Meeting::Direction::equal);
  const bool is_agreed_state = is_planned && persist_out_ == 0 && !proposal_.has_value();
  const bool is_possible = configuration.is_pair() && configuration.term > record_.seen &&
                           record_.configuration.has_member(peer()) && !is_disk_failed_ && !holds_mandate(now) &&
                           !(is_stopping_ && configuration.primary == self());
  if (!is_agreed_state || !is_possible) {
    end_connection("the peer proposed a configuration while this node was changing its own", now);
    return advance(now);
  }
  forget_changes();
  peer_seen_ = std::max(peer_seen_, configuration.term);
  may_have_lost_cache_ = false;
  is_joining_ = true;
  frames_may_come();
  ResourceRecord next = join_pair(record_, configuration, generations);
  next.is_primary_open = configuration.primary == self();
  lease_.drop();
  persist(next);
  advance(now);
}

void MembershipMachine::proposal_acknowledged(std::uint64_t term, Instant now) {
  const bool is_awaited = proposal_.has_value() && proposal_->stage == Proposal::Stage::out && proposal_->term == term;
  if (!is_awaited || persist_out_ != 0) return;
  proposal_->stage = Proposal::Stage::deciding;
  lease_.drop();
  may_have_lost_cache_ = false;
  ResourceRecord next =
      join_pair(record_, {term, proposal_->members, proposal_->primary}, generations_for_pair(record_.generations));
  next.is_primary_open = proposal_->primary == self();
  persist(next);
  advance(now);
}

/// Who is to be primary of the two (protocol.md 3.7): whom the configuration names, else preferred_node; no standby
/// node if the other one is none. In maintenance it stays as it was.
blockdev::NodeIndex MembershipMachine::choose_primary() const {
  blockdev::NodeIndex chosen = record_.configuration.primary;
  if (is_wanted_) chosen = self();
  if (is_in_maintenance()) return chosen;
  if (chosen == kNoNode) chosen = options_.preferred_node;
  const bool is_peer_standby = peer_.heartbeat.is_standby;
  if (chosen == self() && is_standby_ && !is_peer_standby && !is_peer_addressless()) chosen = peer();
  if (chosen == peer() && is_peer_standby && !is_standby_) chosen = self();
  return chosen;
}

/// Steps that need no failure: serving alone after a start, joining two equal copies, standby. There is no automatic
/// failback (protocol.md 3.7).
void MembershipMachine::arrange_roles(Instant now) {
  const auto& configuration = record_.configuration;
  is_held_back_ = false;
  if (persist_out_ != 0 || is_in_doubt() || proposal_.has_value()) return;
  if (is_sole() && is_copy_whole() && is_flushed_ && !is_split_ && (link_ == Link::none || link_ == Link::source)) {
    const bool is_named = configuration.primary == self();
    if (is_named && is_standby_) return become_alone(next_term(record_, peer_seen_), kNoNode, now);
    // Each mandate of one member begins with a current generation of its own, also after a restart (A9).
    if ((!is_named || is_mandate_begun_) && !is_wanted_) return;
    is_held_back_ = !may_begin_alone(now);
    if (!is_held_back_) become_alone(next_term(record_, peer_seen_), self(), now);
    return;
  }
  if (link_ == Link::met && direction_ == Meeting::Direction::equal && configuration.is_pair()) {
    const auto proposer = configuration.primary == kNoNode ? 0 : configuration.primary;
    if (proposer == self() && is_peer_alive(now)) propose(choose_primary(), now);
    return;
  }
  if (link_ != Link::established || is_leaving_peer_ || is_role_held_ || !is_peer_alive(now)) return;
  if (configuration.primary == self() && holds_mandate(now)) {
    if (is_standby_ && may_peer_take_role(now)) propose(peer(), now);
  } else if (configuration.primary == kNoNode && !is_standby_) {
    const bool is_left_to_this_node = peer_.heartbeat.is_standby && !is_in_maintenance();
    if (is_wanted_ || is_left_to_this_node) propose(self(), now);
  }
  if (configuration.primary != kNoNode) is_wanted_ = false;
}

// ---- the administrator -----------------------------------------------------------------------------------------

Verdict MembershipMachine::make_primary(Instant now) {
  if (record_.configuration.primary == self() && service_ == Service::serving) return {true, "already primary"};
  if (is_disk_failed_ || is_metadata_failed_) return {false, "the local disk has failed"};
  if (record_.is_inconsistent) return {false, "the local copy is Inconsistent: a resync towards it has not finished"};
  if (record_.is_outdated) return {false, "the local copy is Outdated: the peer went on without it"};
  if (is_just_created()) return {false, "the local copy was just created: use --force once"};
  if (is_replaced(now)) {
    return {false, "the arbiter's record names the peer as the only member: meet it, or use --force"};
  }
  if (is_split_) return {false, "the copies have split: say whose is given up, or use --force"};
  if (record_.configuration.primary == peer() && link_ == Link::established) {
    return {false, "the peer is primary: use switchover there"};
  }
  is_wanted_ = true;
  advance(now);
  return {true, "becomes primary as soon as it may; see `status`"};
}

Verdict MembershipMachine::make_secondary(Instant now) {
  if (persist_out_ != 0 || proposal_.has_value() || is_in_doubt()) {
    return {false, "a change of the configuration is under way; try again"};
  }
  is_wanted_ = false;
  if (record_.configuration.primary != self()) return {true, "already secondary"};
  if (is_sole()) {
    if (!is_flushed_) return {false, "the copy is being flushed; try again"};
    become_alone(next_term(record_, peer_seen_), kNoNode, now);
  } else if (link_ == Link::established) {
    propose(kNoNode, now);
  } else {
    return {false, "the nodes are not connected; try again"};
  }
  advance(now);
  return {true, "becomes secondary"};
}

bool MembershipMachine::may_peer_take_role(Instant now) const {
  const Heartbeat& theirs = peer_.heartbeat;
  return link_ == Link::established && is_peer_alive(now) && !is_in_maintenance() && !theirs.is_standby &&
         !theirs.is_addressless && !theirs.has_failed_disk;
}

Verdict MembershipMachine::switch_over(Instant now) {
  if (link_ == Link::established && is_peer_addressless())
    return {false, "the peer cannot hold the virtual IP: `status` there says why"};
  return hand_over(now);
}

Verdict MembershipMachine::hand_over(Instant now) {
  if (record_.configuration.primary != self() || !holds_mandate(now)) return {false, "this node does not serve"};
  if (link_ != Link::established) return {false, "the peer's copy is not UpToDate"};
  if (is_role_held_) return {false, "the peer's copy is being given up"};
  if (persist_out_ != 0 || proposal_.has_value())
    return {false, "a change of the configuration is under way; try again"};
  if (!is_peer_alive(now) || peer_.heartbeat.is_standby || peer_.heartbeat.has_failed_disk) {
    return {false, "the peer is on standby, or its disk has failed"};
  }
  propose(peer(), now);
  advance(now);
  return {true, "the peer becomes primary"};
}

bool MembershipMachine::is_force_needed(Instant now) const { return is_split_ || is_strange_ || is_replaced(now); }

/// A person's decision: this copy is taken for good, whatever the peer or the arbiter hold.
Verdict MembershipMachine::force_primary(Instant now) {
  if (is_disk_failed_ || is_metadata_failed_) return {false, "the local disk has failed"};
  forget_changes();
  end_connection("this node was forced primary", now);
  is_forcing_ = true;
  advance(now);
  return {true, "forced primary as soon as the local disk is flushed; see `status`"};
}

/// Flushed first, as everywhere (A19); the arbiter hears of it when it is durable, or it would refuse both nodes.
void MembershipMachine::take_by_force(Instant now) {
  flush_own(now);
  if (!is_flushed_) return;
  forget_changes();
  may_have_lost_cache_ = is_split_ = is_forcing_ = false;
  is_mandate_begun_ = is_alone_decided_ = is_taken_by_force_ = true;
  is_overwrite_due_ = options_.arbiter == ArbiterKind::etcd;
  is_strange_ = false;
  ResourceRecord next = membership::force_primary(record_, self(), peer_seen_, fresh_nonce());
  if (next.pair_id.is_none()) next.pair_id = fresh_pair_id();
  persist(next);
}

void MembershipMachine::set_standby(bool is_standby, Instant now) {
  if (is_standby_ && !is_standby && record_.configuration.primary == kNoNode) is_wanted_ = true;
  is_standby_ = is_standby;
  advance(now);
  send_heartbeat(now);
}

Verdict MembershipMachine::leave_peer(Instant now) {
  is_role_held_ = false;
  if (link_ != Link::established || !is_copy_whole())
    return {false, "the nodes are not connected, or the copy is not whole"};
  if (persist_out_ != 0 || proposal_.has_value() || is_in_doubt()) {
    return {false, "a change of the configuration is under way; try again"};
  }
  if (record_.configuration.primary == peer()) return {false, "the peer is primary"};
  is_leaving_peer_ = true;
  advance(now);
  return {true, "the peer is being left behind"};
}

void MembershipMachine::set_apart(bool is_apart, Instant now) {
  is_apart_ = is_apart;
  advance(now);
}

void MembershipMachine::stop(Instant now) {
  is_stopping_ = true;
  is_wanted_ = false;
  ask_ = {};  // Nobody gives way any more to a node that will not act upon it.
  advance(now);
  send_heartbeat(now);
}

void MembershipMachine::set_addressless(bool is_addressless, Instant now) {
  if (std::exchange(is_addressless_, is_addressless) != is_addressless) send_heartbeat(now);
}

void MembershipMachine::set_maintenance(bool is_maintenance, Instant now) {
  is_maintenance_ = is_maintenance;
  if (!is_maintenance && !is_peer_alive(now)) is_peer_in_maintenance_ = false;
  advance(now);
  send_heartbeat(now);
}

}  // namespace replblk::membership
