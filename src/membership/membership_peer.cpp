// What the peer says: leases, higher configurations, requests to give way and the replies to them
// (protocol.md 3.3, 3.6).
#include <algorithm>

#include "membership/membership_machine.hpp"
#include "membership/transitions.hpp"

namespace replblk::membership {

namespace {

/// Longer ones are a mistake: they would keep a node that starts waiting.
constexpr std::uint32_t kLeaseMsMax = 60'000;

}  // namespace

void MembershipMachine::heartbeat_received(const Heartbeat& heartbeat, Instant now) {
  const bool are_both_named = !heartbeat.pair_id.is_none() && !record_.pair_id.is_none();
  if (are_both_named && heartbeat.pair_id != record_.pair_id) return hear_stranger(now);
  is_strange_ = false;
  const bool is_news = !peer_.is_known || peer_.heartbeat.configuration != heartbeat.configuration;
  const bool was_frozen = is_peer_alive(now) && peer_.heartbeat.is_frozen;
  if (heartbeat.is_frozen && !was_frozen) peer_.frozen_since = now;
  peer_.heartbeat = heartbeat;
  peer_.heard_at = now;
  peer_.is_known = true;
  is_peer_in_maintenance_ = heartbeat.is_maintenance;
  peer_seen_ = std::max({peer_seen_, heartbeat.seen, heartbeat.configuration.term});
  const auto& mine = record_.configuration;
  const auto& theirs = heartbeat.configuration;
  is_split_ = has_split(theirs);
  if (persist_out_ == 0) {
    const bool counts = link_ == Link::established && mine.is_pair() && mine.primary == self() && !is_in_doubt();
    if (counts) lease_.count(heartbeat.echo, mine, now);
    // Durably so at the peer: whatever was promised to it, it holds no mandate, and can get none without a higher term.
    if (theirs.term >= mine.term && theirs.primary != peer()) promise_.release();
    // It serves no more in this run, and its next one resumes nothing of two members.
    if (heartbeat.has_failed_disk && !heartbeat.is_serving) promise_.release();
    if (!adopt(heartbeat, now)) {
      take_reply(heartbeat.reply, now);
      agree_to_removal(heartbeat, now);
      echo(heartbeat.stamp, now);
    }
    // Only now can it promise anything to this node, and nothing is served before.
    if (is_news && counts && theirs == mine) send_heartbeat(now);
  }
  advance(now);
}

/// A disk of another pair was put into one of the nodes, or of an earlier life of this one. Nothing that it says is
/// about this node's copy. Whose disk is the wrong one is known only to a node that was a member together with its peer
/// in this run, or that has served for a while: that one goes on as if nobody spoke. Any other one begins nothing until
/// a person has decided.
void MembershipMachine::hear_stranger(Instant now) {
  const bool has_served = service_ == Service::serving && now - serving_since_ > lease_length();
  if (connected_term_ == 0 && !has_served && !is_taken_by_force_) is_strange_ = true;
  advance(now);
}

/// protocol.md 3.3: who meets a higher configuration adopts it. True: it does.
bool MembershipMachine::adopt(const Heartbeat& heartbeat, Instant now) {
  const auto& theirs = heartbeat.configuration;
  const auto& mine = record_.configuration;
  const bool is_higher = theirs.term > mine.term || (theirs.term == mine.term && mine.is_pair() && !theirs.is_pair());
  if (!is_higher || is_split_) return false;
  if (theirs.is_sole(self())) {
    // It gave way to this node, or to an earlier run of it; the reply was lost.
    if (record_.is_inconsistent || is_disk_failed_ || is_just_created()) return false;
    if (may_have_lost_cache_ && !heartbeat.may_have_lost_cache) return false;
    flush_own(now);
    if (!is_flushed_) return false;  // The next heartbeat says it again.
    become_alone(std::max({record_.seen, theirs.term, mine.term + 1}), primary_when_alone(), now);
    return true;
  }
  if (theirs.is_sole(peer())) {
    forget_changes();
    if (is_planned(Meeting::Direction::target)) {
      link_ = Link::target;
    } else {
      end_connection("the peer went on without this node", now);
    }
    persist(give_way(record_, theirs));
    return true;
  }
  // Both are members: the answer to a proposal of this node's was lost, or this is a restart after it.
  const bool is_answer_on_its_way = proposal_.has_value() && link_ != Link::none;
  if (!theirs.is_pair() || theirs.term < record_.seen || record_.is_outdated || record_.is_inconsistent ||
      is_just_created() || is_answer_on_its_way) {
    return false;
  }
  if (own_doubt_ == theirs.term) connected_term_ = theirs.term;
  forget_changes();
  end_connection("the peer is at a higher configuration", now);
  ResourceRecord next = join_pair(record_, theirs, generations_for_pair(record_.generations));
  persist(next);
  return true;
}

/// protocol.md 3.3: to mark itself Outdated. The reply leaves with the next heartbeat, which says what is durable. A
/// copy that was just created holds nothing and stands in nobody's way.
void MembershipMachine::agree_to_removal(const Heartbeat& heartbeat, Instant now) {
  const RemovalTicket& request = heartbeat.request;
  if (persist_out_ != 0 || request.is_none() || request.term <= record_.seen) return;
  if ((!record_.configuration.has_member(peer()) && !is_just_created()) || holds_mandate(now)) return;
  if (heartbeat.current.is_none()) return;
  if (heartbeat.may_have_lost_cache && !may_have_lost_cache_ && is_copy_whole()) return;
  forget_changes();
  if (is_planned(Meeting::Direction::target)) {
    link_ = Link::target;
  } else if (link_ == Link::established) {
    is_parting_ = true;
  } else {
    end_connection("the peer goes on without this node", now);
  }
  reply_ = request;
  persist(become_outdated(record_, {request.term, static_cast<std::uint8_t>(1u << peer()), peer()}));
}

/// Only the reply to the pending request counts.
void MembershipMachine::take_reply(const RemovalTicket& reply, Instant now) {
  if (persist_out_ != 0 || reply.is_none() || reply != ask_ || record_.seen != ask_.term) return;
  if (record_.is_inconsistent || is_disk_failed_ || !is_flushed_) return;
  promise_.release();
  become_alone(ask_.term, primary_when_alone(), now);
}

/// protocol.md 3.6: the promise comes before the echo, and a longer one than ever is durable before it.
void MembershipMachine::echo(const Stamp& stamp, Instant now) {
  if (persist_out_ != 0 || stamp.is_none() || stamp.lease_ms > kLeaseMsMax || link_ != Link::established) return;
  const auto& mine = record_.configuration;
  if (!mine.is_pair() || mine.primary != peer() || stamp.configuration != mine || is_in_doubt()) return;
  if (!is_copy_whole() || claim_.stage != Claim::Stage::idle || peer_.heartbeat.has_failed_disk) return;
  if (stamp.lease_ms > record_.lease_ms_max) {
    ResourceRecord next = record_;
    next.lease_ms_max = stamp.lease_ms;
    wanted_echo_ = stamp;
    persist(next);
    return;
  }
  const bool is_awaited = echo_.is_none();
  promise_.give(stamp, now);
  echo_ = stamp;
  if (is_awaited) send_heartbeat(now);
}

}  // namespace replblk::membership
