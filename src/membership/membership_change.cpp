// Going alone: removing the peer, taking over, with the peer's agreement or the arbiter's grant
// (protocol.md 3.4, 3.5, 3.7).
#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "membership/claim.hpp"
#include "membership/membership_machine.hpp"
#include "membership/transitions.hpp"

namespace replblk::membership {

using blockdev::kNoNode;

namespace {

constexpr Duration kClaimBackoffMin = milliseconds(100);
constexpr Duration kClaimBackoffMax = seconds(2);

}  // namespace

void MembershipMachine::pursue(Instant now) {
  const bool is_open = claim_.stage != Claim::Stage::idle && claim_.stage != Claim::Stage::granted;
  if (is_open && now >= claim_.deadline) {
    claim_failed("the arbiter does not answer: retries", now);
  }
  if (!wants_to_go_alone(now)) {
    if (!has_named_claim()) claim_.stage = Claim::Stage::idle;
    if (!is_in_doubt()) ask_ = {};
    return;
  }
  flush_own(now);
  if (claim_.stage == Claim::Stage::granted) return act_on_grant(now);
  // Whoever cannot flush can never go on alone: it must not make the peer give way first, or nobody would serve.
  if (!is_flushed_) return;
  if (!ask(now)) claim(now);
}

/// Its term is in `seen`: another one would make the answer worthless.
bool MembershipMachine::has_named_claim() const noexcept {
  return claim_.stage == Claim::Stage::naming || claim_.stage == Claim::Stage::swapping ||
         claim_.stage == Claim::Stage::granted;
}

/// The role is the peer's, and in maintenance nobody takes it by itself: the peer's copy waits for its resync, too.
bool MembershipMachine::must_leave_role() const noexcept {
  return is_in_maintenance() && !is_wanted_ && record_.configuration.primary == peer();
}

bool MembershipMachine::wants_to_go_alone(Instant now) {
  if (!is_in_doubt() && must_leave_role()) {
    claim_reason_ = "maintenance: no role moves by itself";
    return false;
  }
  if (may_take_over_outdated(now) || may_take_back(now)) return true;
  const auto& configuration = record_.configuration;
  if (!is_copy_whole() || !configuration.has_member(self()) || proposal_.has_value()) return false;
  const bool may_decide = may_trust_copy(now);
  // A change that was named is carried through.
  if (is_in_doubt()) return may_decide || (is_peer_alive(now) && peer_.heartbeat.may_have_lost_cache);
  if (is_sole()) return false;
  switch (link_) {
    case Link::met:
      return direction_ == Meeting::Direction::source;
    case Link::established:
      return is_leaving_peer_;
    case Link::waiting:
    case Link::source:
    case Link::target:
      return false;
    case Link::none:
      return may_decide && pair_is_over(now);
  }
  RB_UNREACHABLE();
}

/// Two are members and the connection is gone: whether this node is the one to act, now.
bool MembershipMachine::pair_is_over(Instant now) {
  const auto primary = record_.configuration.primary;
  // It can neither decide nor meet; what this node has is all that was answered.
  const Heartbeat& theirs = peer_.heartbeat;
  const bool is_peer_helpless =
      is_peer_alive(now) && theirs.may_have_lost_cache && theirs.seen > theirs.configuration.term;
  if (primary == kNoNode && !is_wanted_ && !is_peer_helpless) return false;
  const bool was_connected = connected_term_ == record_.configuration.term;
  if (primary == self() && was_connected) return true;
  if (is_apart_ && !is_wanted_) {
    claim_reason_ = "the administrator keeps the nodes apart: takes no role";
    return false;
  }
  if ((is_in_maintenance() && !is_wanted_) || is_standby_) {
    claim_reason_ = is_standby_ ? "standby: takes no role" : "maintenance: no role moves by itself";
    return false;
  }
  if (is_peer_helpless) return true;
  if (!was_connected) {
    if (is_wanted_ || has_waited_for_peer(now)) return true;
    claim_reason_ = "waits for its peer, which it has not met since it started";
    return false;
  }
  const bool is_alive = is_peer_alive(now);
  // It restarted, is frozen without a lease, or its disk has failed: it can agree at once.
  if (is_alive && theirs.is_frozen && (!theirs.is_connected || theirs.has_failed_disk)) return true;
  if (!promise_.has_run_out(now)) {
    claim_reason_ = "a promise not to serve, given to the peer, has not run out";
    return false;
  }
  if (!is_alive && (peer_.is_known || now - link_lost_at_ >= lease_length())) return true;
  const Duration patience = with_margin(lease_length());
  if (is_alive && peer_.heartbeat.is_frozen && now - peer_.frozen_since >= patience) return true;
  if (now - link_lost_at_ >= 2 * patience) return true;
  claim_reason_ = "the primary lives without a connection: waits for it to decide";
  return false;
}

/// protocol.md 3.7: it gave way to a change that its peer never acted upon, and the peer may have lost its cache since.
bool MembershipMachine::may_take_over_outdated(Instant now) const {
  if (!record_.is_outdated || record_.is_inconsistent || is_disk_failed_ || may_have_lost_cache_) return false;
  if (is_just_created()) return false;
  const Heartbeat& theirs = peer_.heartbeat;
  return is_peer_alive(now) && record_.configuration.is_sole(peer()) && theirs.may_have_lost_cache &&
         theirs.configuration.term < record_.configuration.term && theirs.configuration.has_member(self()) &&
         !theirs.is_outdated;
}

/// It gave way to a peer that it could not hear (`ping`), and now hears it. If the peer went on, it refuses; if it did
/// not, or gave way too, its agreement is as good as ever.
bool MembershipMachine::may_take_back(Instant now) const {
  const bool gave_way_unheard = record_.is_outdated && record_.configuration.has_member(self()) && !is_just_created();
  return gave_way_unheard && !record_.is_inconsistent && !is_disk_failed_ && link_ == Link::none &&
         is_peer_alive(now) && !peer_.heartbeat.is_serving;
}

bool MembershipMachine::has_waited_for_peer(Instant now) const {
  return options_.degraded_start_after.has_value() && now - started_at_ >= *options_.degraded_start_after;
}

/// A13: a copy that may have lost its cache is served alone only by degraded_start_after, and not while a peer is heard
/// whose copy lost nothing: that one can decide, or be met.
bool MembershipMachine::may_trust_copy(Instant now) const {
  if (!may_have_lost_cache_) return true;
  const Heartbeat& theirs = peer_.heartbeat;
  const bool is_peer_whole =
      !theirs.may_have_lost_cache && !theirs.is_inconsistent && !theirs.has_failed_disk && !theirs.current.is_none();
  return has_waited_for_peer(now) && !(is_peer_alive(now) && is_peer_whole);
}

// ---- by agreement ----------------------------------------------------------------------------------------------

/// Names a term for the request, once that is needed. True: a record is on its way.
bool MembershipMachine::ask(Instant now) {
  if (!is_peer_alive(now)) return false;
  const bool is_source = is_planned(Meeting::Direction::source);
  if (may_have_lost_cache_ && !peer_.heartbeat.may_have_lost_cache && !is_source) return false;
  if (has_named_claim()) return false;
  const bool has_agreed =
      peer_.heartbeat.configuration.term == ask_.term && peer_.heartbeat.configuration.is_sole(self());
  const bool is_useless = ask_.is_none() || ask_.term != record_.seen || (peer_seen_ >= ask_.term && !has_agreed);
  if (!is_useless || now < ask_again_at_ || yields(now)) return false;
  if (ask_.is_none()) asked_at_ = now;
  claim_.stage = Claim::Stage::idle;
  // Two that ask each other at once would name the same terms for ever if both waited equally long.
  ask_again_at_ = now + options_.interval * (2 + self());
  ask_ = {next_term(record_, peer_seen_), fresh_nonce()};
  persist(name_term(record_, ask_.term));
  return true;
}

/// Two that ask each other would name ever higher terms: the one with the lower rank waits for the other's request to
/// come.
bool MembershipMachine::yields(Instant now) const {
  const Heartbeat& theirs = peer_.heartbeat;
  if (theirs.request.is_none() || now - asked_at_ > 4 * lease_length()) return false;
  const auto& mine = record_.configuration;
  if (theirs.configuration.term != mine.term) return theirs.configuration.term > mine.term;
  return mine.primary == kNoNode ? self() != 0 : mine.primary == peer();
}

// ---- by the arbiter --------------------------------------------------------------------------------------------

void MembershipMachine::claim(Instant now) {
  if (persist_out_ != 0 || claim_.stage != Claim::Stage::idle || now < claim_.next_at || record_.is_outdated) return;
  if (!may_trust_copy(now)) return;
  if (!promise_.has_run_out(now)) {
    claim_reason_ = "a promise not to serve, given to the peer, has not run out";
    return;
  }
  // The peer may agree, which needs no arbiter; one whose disk has failed can hardly remember that it did.
  const bool may_agree = is_peer_alive(now) && !peer_.heartbeat.has_failed_disk;
  // An arbiter that remembers decides rightly whoever else agrees to what, so a primary whose peer's daemon is gone
  // does not wait until it is silent.
  const bool is_left =
      options_.arbiter == ArbiterKind::etcd && record_.configuration.primary == self() && link_ == Link::none;
  if (may_agree && !ask_.is_none() && now - asked_at_ < (is_left ? kAgreementTime : 2 * lease_length())) return;
  if (options_.arbiter != ArbiterKind::etcd && !has_listened(now)) return;
  claim_.number = ++number_;
  claim_.deadline = now + options_.arbiter_timeout;
  if (options_.arbiter == ArbiterKind::etcd) {
    claim_.stage = Claim::Stage::reading;
    effects_.emplace_back(ReadArbiterEffect{claim_.number});
    return;
  }
  // protocol.md 3.5: they remember nothing, so they grant only to who was connected as a member until just now.
  if (!was_connected_member() && !has_waited_for_peer(now)) {
    claim_reason_ =
        "this node was not connected to its peer since it started: without an arbiter that remembers, only "
        "the peer or a person (primary --force) can decide";
    return;
  }
  if (options_.arbiter == ArbiterKind::none) {
    become_alone(next_term(record_, peer_seen_), primary_when_alone(), now);
  } else {
    claim_.stage = Claim::Stage::probing;
    effects_.emplace_back(ProbeAddressesEffect{claim_.number});
  }
}

/// What decides without a memory must not be asked while the peer can be heard, nor before it had the time to speak: a
/// node that stood still itself finds its connection broken and its peer serving. A peer that says that its disk has
/// failed will not serve in this run, and gets nothing from them in its next one.
bool MembershipMachine::has_listened(Instant now) const {
  const bool may_serve = is_peer_alive(now) && (peer_.heartbeat.is_serving || !peer_.heartbeat.has_failed_disk);
  return !may_serve && now - stalled_at_ >= lease_length();
}

bool MembershipMachine::was_connected_member() const noexcept {
  return own_doubt_ != 0 || (connected_term_ != 0 && connected_term_ == record_.configuration.term);
}

void MembershipMachine::claim_failed(std::string why, Instant now) {
  claim_.stage = Claim::Stage::idle;
  claim_.backoff = std::clamp(claim_.backoff * 2, kClaimBackoffMin, kClaimBackoffMax);
  claim_.next_at = now + claim_.backoff;
  claim_reason_ = std::move(why);
}

/// protocol.md 3.7, but for what only a person can have done: while this node was away the peer was taken by force, and
/// the arbiter's record says so. Where nobody answers the own record counts. A peer that is heard says more than the
/// arbiter's record, which may name a disk that is no more.
bool MembershipMachine::may_begin_alone(Instant now) {
  using Stage = StartQuestion::Stage;
  if (options_.arbiter != ArbiterKind::etcd || is_alone_decided_) return true;
  StartQuestion& question = start_question_;
  if (is_peer_alive(now)) {
    question.stage = Stage::answered;
    question.other.reset();
    return true;
  }
  if (!question.deadline) question.deadline = now + options_.arbiter_timeout;
  if (question.stage != Stage::answered && now >= *question.deadline) question.stage = Stage::answered;
  if (question.stage == Stage::due && now >= question.again_at) {
    question.stage = Stage::out;
    question.number = ++number_;
    effects_.emplace_back(ReadArbiterEffect{question.number});
  }
  return question.stage == Stage::answered && !is_replaced(now);
}

/// In the role and as the only member, as far as the arbiter's record says.
bool MembershipMachine::is_replaced(Instant now) const {
  return start_question_.other.has_value() && !is_alone_decided_ && !is_peer_alive(now);
}

void MembershipMachine::take_who_is_left(const std::optional<ports::ArbiterRecord>& record) {
  if (start_question_.stage != StartQuestion::Stage::out) return;
  start_question_.stage = StartQuestion::Stage::answered;
  const ClaimJudgement judgement = judge_claim(record_, self(), record);
  if (judgement.verdict == ClaimVerdict::refused) start_question_.other = judgement.configuration;
}

void MembershipMachine::arbiter_read(std::uint64_t number, const ports::ArbiterReading& reading, Instant now) {
  if (number == start_question_.number) {
    take_who_is_left(reading.record);
    return advance(now);
  }
  const bool is_wanted = claim_.stage == Claim::Stage::reading && claim_.number == number && persist_out_ == 0 &&
                         wants_to_go_alone(now) && promise_.has_run_out(now);
  if (!is_wanted) return;
  const ClaimJudgement judgement = judge_claim(record_, self(), reading.record);
  switch (judgement.verdict) {
    case ClaimVerdict::no_record:
      claim_failed("the arbiter has no record of this pair: only a person (primary --force) can decide", now);
      break;
    case ClaimVerdict::refused:
      forget_changes();
      end_connection("the arbiter refused this node", now);
      persist(give_way(record_, judgement.configuration));
      break;
    case ClaimVerdict::grantable:
      claim_.stage = Claim::Stage::naming;
      claim_.revision = reading.revision;
      claim_.term = std::max(judgement.term, next_term(record_, peer_seen_));
      claim_.configuration = record_.configuration;
      claim_.deadline = now + options_.arbiter_timeout;
      persist(name_term(record_, claim_.term));
      break;
  }
  advance(now);
}

void MembershipMachine::arbiter_failed(std::uint64_t number, const std::string& sentence, Instant now) {
  if (number == start_question_.number) {
    // The network of a node that has just booted may not be up yet.
    if (start_question_.stage == StartQuestion::Stage::out) start_question_.stage = StartQuestion::Stage::due;
    start_question_.again_at = now + kClaimBackoffMin;
  } else if (number == overwrite_number_) {
    overwrite_number_ = 0;
  } else if (claim_.number == number && claim_.stage != Claim::Stage::idle && claim_.stage != Claim::Stage::granted) {
    claim_failed("the arbiter does not answer: " + sentence, now);
  }
  advance(now);
}

void MembershipMachine::arbiter_replaced(std::uint64_t number, bool is_replaced, Instant now) {
  if (claim_.stage != Claim::Stage::swapping || claim_.number != number) return;
  if (is_replaced) {
    claim_.stage = Claim::Stage::granted;
  } else {
    claim_failed("another claim came first: looks who", now);
    claim_.next_at = now;
  }
  advance(now);
}

/// A2: a grant is acted upon only in the doubt from which it was claimed.
void MembershipMachine::act_on_grant(Instant now) {
  const bool is_same_doubt = record_.seen == claim_.term && record_.configuration == claim_.configuration;
  if (!is_same_doubt || record_.is_outdated || is_disk_failed_) {
    claim_.stage = Claim::Stage::idle;
  } else if (is_flushed_ && promise_.has_run_out(now)) {
    become_alone(claim_.term, primary_when_alone(), now);
  }
}

void MembershipMachine::arbiter_probed(std::uint64_t number, bool is_reached, Instant now) {
  if (claim_.stage != Claim::Stage::probing || claim_.number != number || persist_out_ != 0) return;
  claim_.stage = Claim::Stage::idle;
  if (is_reached && wants_to_go_alone(now) && promise_.has_run_out(now) && is_flushed_) {
    become_alone(next_term(record_, peer_seen_), primary_when_alone(), now);
  } else if (!is_reached) {
    forget_changes();
    persist(give_way_unheard(record_));
  }
  advance(now);
}

// ---- the outcome -----------------------------------------------------------------------------------------------

blockdev::NodeIndex MembershipMachine::primary_when_alone() const {
  const auto primary = record_.configuration.primary;
  if (primary == kNoNode && !is_wanted_) return kNoNode;
  return is_standby_ && primary != self() ? kNoNode : self();
}

/// {term, {me}, primary} and a new current generation.
void MembershipMachine::become_alone(std::uint64_t term, blockdev::NodeIndex primary, Instant now) {
  RB_ASSERT(!is_just_created());
  if (!is_sole()) is_alone_decided_ = true;
  forget_changes();
  if (is_planned(Meeting::Direction::source)) {
    is_source_starting_ = true;
  } else {
    end_connection("this node goes on alone", now);
  }
  may_have_lost_cache_ = false;
  is_mandate_begun_ = true;
  is_wanted_ = false;
  is_split_ = false;
  persist(become_only_member_at(record_, self(), primary, term, fresh_nonce()));
}

/// Whatever this node was about to do is overtaken by a decision.
void MembershipMachine::forget_changes() {
  ask_ = {};
  reply_ = {};
  claim_ = {};
  claim_reason_.clear();
  own_doubt_ = 0;
  is_leaving_peer_ = false;
  proposal_.reset();
}

}  // namespace replblk::membership
