#include "membership/membership_machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "membership/transitions.hpp"

namespace replblk::membership {

using blockdev::kNoNode;
using blockdev::ResourceRecord;

namespace {

/// How long a meeting may take to come to a resync or an agreement before the nodes meet anew.
constexpr Duration kMeetingTimeout = seconds(5);
/// Between attempts to flush a device that fails to.
constexpr Duration kFlushPause = seconds(1);

}  // namespace

MembershipMachine::MembershipMachine(const MembershipOptions& options, MembershipStart start, Instant now)
    : options_(options),
      incarnation_(start.incarnation),
      started_at_(now),
      record_(std::move(start.record)),
      durable_(record_),
      lease_(start.incarnation),
      promise_(now, record_.lease_ms_max),
      last_turn_at_(now),
      stalled_at_(now),
      may_have_lost_cache_(start.may_have_lost_cache) {
  RB_ASSERT(options_.self < 2 && incarnation_ != 0 && options_.lease_ms > 0);
  RB_ASSERT(!may_have_lost_cache_ || !is_sole() || is_in_doubt());
}

// ---- the turn --------------------------------------------------------------------------------------------------

void MembershipMachine::tick(Instant now) { advance(now); }

/// The next heartbeat, or sooner what initiators wait for.
Instant MembershipMachine::next_wakeup(Instant now) const {
  Instant next = last_sent_at_ + options_.interval;
  for (const Instant moment :
       {peer_.heard_at + lease_length(), promise_.until(), asked_at_ + kAgreementTime, closing_at()}) {
    if (moment >= now) next = std::min(next, moment + milliseconds(1));
  }
  return std::max(now, next);
}

/// Looks at everything that is known and takes the next step.
void MembershipMachine::advance(Instant now) {
  if (now - std::exchange(last_turn_at_, now) > lease_length() / 2) stalled_at_ = now;
  // The connection goes first: what the peer acknowledged before its disk failed may still be on its way, and would be
  // answered after the flush below had begun.
  const bool is_one_copy_left = is_peer_alive(now) && peer_.heartbeat.has_failed_disk;
  if (link_ == Link::established && is_one_copy_left && record_.configuration.primary != kNoNode) {
    end_connection("the peer's disk has failed", now);
  }
  // A living one is heard, over any path. Whoever has just stood still himself has not listened.
  if (link_ == Link::established && now - std::max({linked_at_, peer_.heard_at, stalled_at_}) > lease_length()) {
    end_connection("nothing was heard from the peer for a lease", now);
  }
  const bool leads = link_ == Link::established && record_.configuration.primary == self();
  if (leads && !proposal_.has_value() && persist_out_ == 0) {
    if (lease_.is_valid(now)) lease_lost_at_ = now;
    if (now - std::max(lease_lost_at_, linked_at_) > options_.peer_timeout) {
      end_connection("the peer gives no lease", now);
    }
  } else if (link_ != Link::none && now - std::max(linked_at_, peer_.heard_at) > options_.peer_timeout) {
    end_connection("nothing was heard from the peer for peer_timeout", now);
  } else if (link_ == Link::met && !proposal_.has_value() && now - linked_at_ > kMeetingTimeout) {
    end_connection("the nodes met and came to no agreement", now);
  }
  if (proposal_.has_value() && persist_out_ == 0 && now >= proposal_->deadline) {
    end_connection("the peer did not answer a proposal", now);
  }
  overwrite_arbiter(now);
  if (persist_out_ == 0 && is_forcing_) {
    take_by_force(now);
  } else if (persist_out_ == 0 && start_.has_value()) {
    begin_as_target();
  } else if (persist_out_ == 0 && !is_stopping_) {
    if (is_sole()) flush_own(now);
    if (given_up_.has_value()) keep_after_split(now);
    if (!is_strange_) {
      pursue(now);
      arrange_roles(now);
    }
  }
  update_service(now);
  if (now - last_sent_at_ >= options_.interval) send_heartbeat(now);
}

/// Until it has come about, or the pair has gone on to another configuration: then the arbiter's record may lag, as
/// ever.
void MembershipMachine::overwrite_arbiter(Instant now) {
  if (!is_overwrite_due_ || persist_out_ != 0 || now < overwrite_again_at_) return;
  const auto& configuration = record_.configuration;
  const auto& current = record_.generations.current;
  if (!is_sole()) {
    is_overwrite_due_ = false;
    return;
  }
  overwrite_number_ = ++number_;
  overwrite_again_at_ = now + 2 * options_.arbiter_timeout;
  effects_.emplace_back(OverwriteRecordEffect{
      overwrite_number_,
      {record_.pair_id, configuration.term, configuration.members, self(), current.term, current.nonce}});
}

void MembershipMachine::arbiter_overwritten(std::uint64_t number, Instant now) {
  if (number != overwrite_number_) return;
  overwrite_number_ = 0;
  is_overwrite_due_ = false;
  advance(now);
}

/// Before this node may be the only member, what both answered must be on its device, not in its cache: were it
/// recorded first, a power cut would leave a copy that counts as whole and is not (A13, A19).
void MembershipMachine::flush_own(Instant now) {
  if (is_flushed_ || flush_number_ != 0 || now < flush_again_at_ || is_disk_failed_) return;
  flush_number_ = ++number_;
  effects_.emplace_back(FlushOwnEffect{flush_number_});
}

void MembershipMachine::persist(const ResourceRecord& next) {
  RB_ASSERT(persist_out_ == 0 && !is_metadata_failed_);
  RB_ASSERT(next.seen >= record_.seen && next.configuration.term >= record_.configuration.term);
  if (next.configuration != record_.configuration) echo_ = wanted_echo_ = {};
  record_ = next;
  persist_out_ = ++number_;
  effects_.emplace_back(PersistEffect{persist_out_, record_});
}

void MembershipMachine::persisted(std::uint64_t number, Instant now) {
  if (is_metadata_failed_) return;
  RB_ASSERT(number == persist_out_);
  persist_out_ = 0;
  durable_ = record_;
  if (!wanted_echo_.is_none()) echo(std::exchange(wanted_echo_, {}), now);
  if (const auto held = std::exchange(held_proposal_, std::nullopt))
    return proposal_received(held->configuration, held->generations, now);
  if (is_joining_) {
    is_joining_ = false;
    connected_term_ = record_.configuration.term;
    if (link_ != Link::none) {
      link_ = Link::established;
      frames_may_come();
      linked_at_ = lease_lost_at_ = now;
      effects_.emplace_back(SendProposalAckEffect{record_.configuration.term});
      effects_.emplace_back(EstablishedEffect{record_.configuration.term});
    }
  }
  if (std::exchange(is_target_starting_, false) && link_ == Link::target) effects_.emplace_back(TargetReadyEffect{});
  if (std::exchange(is_source_starting_, false) && link_ == Link::met) begin_as_source();
  if (proposal_.has_value() && proposal_->stage == Proposal::Stage::naming) {
    proposal_->stage = Proposal::Stage::out;
    effects_.emplace_back(SendProposalEffect{{proposal_->term, proposal_->members, proposal_->primary},
                                             generations_for_pair(record_.generations)});
  } else if (proposal_.has_value() && proposal_->stage == Proposal::Stage::deciding) {
    proposal_.reset();
    own_doubt_ = 0;
    connected_term_ = record_.configuration.term;
    if (link_ != Link::none) {
      link_ = Link::established;
      frames_may_come();
      linked_at_ = lease_lost_at_ = now;
      effects_.emplace_back(EstablishedEffect{record_.configuration.term});
    }
  }
  if (claim_.stage == Claim::Stage::naming) {
    claim_.stage = Claim::Stage::swapping;
    const auto& current = record_.generations.current;
    effects_.emplace_back(ReplaceRecordEffect{
        claim_.number,
        claim_.revision,
        {record_.pair_id, claim_.term, static_cast<std::uint8_t>(1u << self()), self(), current.term, current.nonce}});
  }
  advance(now);
  send_heartbeat(now);
  if (persist_out_ == 0 && std::exchange(is_parting_, false)) end_connection("the peer goes on without this node", now);
}

// ---- heartbeats that go out ------------------------------------------------------------------------------------

void MembershipMachine::send_heartbeat(Instant now) {
  last_sent_at_ = now;
  if (is_metadata_failed_) {
    effects_.emplace_back(SendHeartbeatEffect{compose_failed()});
    return;
  }
  if (persist_out_ != 0) return;  // What it says must be durable; the next one is an interval away.
  effects_.emplace_back(SendHeartbeatEffect{compose(now)});
}

Heartbeat MembershipMachine::compose(Instant now) {
  Heartbeat heartbeat;
  heartbeat.configuration = record_.configuration;
  heartbeat.seen = record_.seen;
  heartbeat.current = record_.generations.current;
  heartbeat.is_serving = holds_mandate(now);
  heartbeat.is_frozen = record_.configuration.primary == self() && !heartbeat.is_serving;
  heartbeat.is_standby = is_standby_;
  heartbeat.is_connected = link_ == Link::established;
  heartbeat.is_outdated = record_.is_outdated;
  heartbeat.is_inconsistent = record_.is_inconsistent;
  heartbeat.has_failed_disk = is_disk_failed_ || is_metadata_failed_;
  heartbeat.may_have_lost_cache = may_have_lost_cache_;
  heartbeat.is_maintenance = is_maintenance_;
  heartbeat.is_addressless = is_addressless_;
  heartbeat.pair_id = record_.pair_id;
  const bool asks_for_lease = link_ == Link::established && record_.configuration.primary == self() && !is_in_doubt();
  if (asks_for_lease) heartbeat.stamp = lease_.stamp(record_.configuration, now, options_.lease_ms);
  if (!is_in_doubt()) heartbeat.echo = echo_;
  if (!ask_.is_none() && record_.seen == ask_.term) heartbeat.request = ask_;
  const bool has_agreed = !reply_.is_none() && record_.configuration.term == reply_.term &&
                          record_.configuration.is_sole(peer()) && record_.is_outdated;
  if (has_agreed) heartbeat.reply = reply_;
  return heartbeat;
}

/// What this node will never do again in this run is worth saying: the peer need not wait for it.
Heartbeat MembershipMachine::compose_failed() const {
  Heartbeat heartbeat;
  heartbeat.configuration = durable_.configuration;
  heartbeat.seen = durable_.seen;
  heartbeat.current = durable_.generations.current;
  heartbeat.is_frozen = durable_.configuration.primary == self();
  heartbeat.is_outdated = durable_.is_outdated;
  heartbeat.is_inconsistent = durable_.is_inconsistent;
  heartbeat.has_failed_disk = true;
  heartbeat.is_standby = is_standby_;
  heartbeat.is_maintenance = is_maintenance_;
  heartbeat.may_have_lost_cache = may_have_lost_cache_;
  heartbeat.pair_id = durable_.pair_id;
  return heartbeat;
}

// ---- the connection --------------------------------------------------------------------------------------------

void MembershipMachine::end_connection(const std::string& reason, Instant now) {
  if (link_ == Link::none) return;
  effects_.emplace_back(EndConnectionEffect{reason});
  link_gone(now);
}

/// protocol.md 3.3: when the connection breaks while two are members, the configuration never goes on as it was.
void MembershipMachine::link_gone(Instant now) {
  link_ = Link::none;
  is_role_held_ = false;
  link_lost_at_ = now;
  lease_.drop();
  echo_ = wanted_echo_ = {};
  held_proposal_.reset();
  is_target_starting_ = is_source_starting_ = is_parting_ = false;
  start_.reset();
  given_up_.reset();
  if (proposal_.has_value() && proposal_->stage != Proposal::Stage::deciding) proposal_.reset();
}

void MembershipMachine::disconnected(Instant now) {
  if (link_ != Link::none) link_gone(now);
  advance(now);
}

void MembershipMachine::acknowledgements_stalled(Instant now) {
  end_connection("the peer acknowledges nothing", now);
  advance(now);
}

void MembershipMachine::connected(const Meeting& meeting, Instant now) {
  RB_ASSERT(link_ == Link::none);
  peer_seen_ = std::max({peer_seen_, meeting.peer_seen, meeting.peer_configuration.term});
  peer_pair_id_ = meeting.peer_pair_id;
  is_strange_ = false;
  link_ = Link::met;
  linked_at_ = now;
  direction_ = meeting.direction;
  const auto& mine = record_.configuration;
  const auto& theirs = meeting.peer_configuration;
  switch (meeting.direction) {
    case Meeting::Direction::equal:
      break;
    case Meeting::Direction::wait:
      link_ = Link::waiting;
      break;
    case Meeting::Direction::source:
      if (meeting.is_split) {
        given_up_ = meeting.given_up;
      } else if (is_sole() && !is_in_doubt() && mine.term >= theirs.term) {
        begin_as_source();
      }
      break;
    case Meeting::Direction::target:
      if (!theirs.is_sole(peer()) || theirs.term < mine.term) {
        if (meeting.is_split) link_ = Link::target;
        break;
      }
      link_ = Link::target;
      // One that went on alone has lost a split that was decided before: it stays what it is until the resync begins,
      // since what it has may be kept first.
      if (!are_both_alone(theirs) && persist_out_ == 0 && theirs != mine) {
        forget_changes();
        persist(give_way(record_, theirs));
      }
      break;
  }
  advance(now);
}

void MembershipMachine::resync_begins(const blockdev::Configuration& source, Instant now) {
  const auto& mine = record_.configuration;
  const bool may_be_left = mine.primary != self() || !mine.has_member(self());
  const bool is_expected =
      link_ == Link::target && !start_.has_value() && source.is_sole(peer()) && source.term >= mine.term && may_be_left;
  if (!is_expected) {
    end_connection("a resync began that was not agreed upon", now);
  } else {
    start_ = source;
  }
  advance(now);
}

void MembershipMachine::begin_as_target() {
  is_target_starting_ = true;
  forget_changes();
  frames_may_come();
  persist(become_sync_target(record_, *std::exchange(start_, std::nullopt), peer_pair_id_));
}

void MembershipMachine::begin_as_source() {
  link_ = Link::source;
  effects_.emplace_back(SourceReadyEffect{});
}

// ---- both have gone on alone -----------------------------------------------------------------------------------

/// A sole member that is in doubt has proposed to add the peer, which may have agreed and gone on: that is no split.
bool MembershipMachine::are_both_alone(const blockdev::Configuration& theirs) const noexcept {
  return is_sole() && theirs.is_sole(peer()) && !is_in_doubt();
}

/// protocol.md 3.3, 3.5: of one term neither answers. Of two terms the lower one holds its answers: without an arbiter
/// that remembers, nobody has decided against its copy, and what was written there must be weighed when the nodes meet.
/// With one, only a person can have, and the higher one is adopted.
bool MembershipMachine::has_split(const blockdev::Configuration& theirs) const noexcept {
  if (!are_both_alone(theirs)) return false;
  const auto mine = record_.configuration.term;
  return theirs.term == mine || (theirs.term > mine && options_.arbiter != ArbiterKind::etcd);
}

void MembershipMachine::split_found(const blockdev::Configuration& theirs, Instant now) {
  peer_seen_ = std::max(peer_seen_, theirs.term);
  is_split_ = has_split(theirs);
  advance(now);
}

/// protocol.md 5.1 row 9: the copy that is given up becomes the base of this one, durably, before anything is copied.
void MembershipMachine::keep_after_split(Instant now) {
  if (!is_sole() || !is_copy_whole()) return end_connection("the copy that is to be kept is not whole", now);
  if (!is_flushed_) return;
  const blockdev::Generation given_up = *std::exchange(given_up_, std::nullopt);
  const auto primary = record_.configuration.primary;
  forget_changes();
  is_mandate_begun_ = true;
  is_split_ = is_wanted_ = false;
  is_alone_decided_ = true;
  is_source_starting_ = true;
  persist(membership::keep_after_split(record_, self(), primary, peer_seen_, fresh_nonce(), given_up));
}

void MembershipMachine::resynced(Instant now) {
  if (link_ == Link::source && !proposal_.has_value() && persist_out_ == 0) propose(record_.configuration.primary, now);
  advance(now);
}

void MembershipMachine::frames_may_come() noexcept {
  is_flushed_ = false;
  flush_number_ = 0;  // One that is under way began before them.
}

// ---- flushes and disks -----------------------------------------------------------------------------------------

void MembershipMachine::flushed(std::uint64_t number, bool is_good, Instant now) {
  if (number == flush_number_ && flush_number_ != 0) {
    flush_number_ = 0;
    is_flushed_ = is_good;
    flush_again_at_ = now + kFlushPause;
    flush_failure_ = is_good ? "" : "the local disk cannot be flushed";
  } else if (proposal_.has_value() && proposal_->flush_number == number &&
             proposal_->stage == Proposal::Stage::draining) {
    if (!is_good || persist_out_ != 0 || is_in_doubt()) {
      end_connection("the copies cannot be flushed for a change of the configuration", now);
    } else {
      proposal_->stage = Proposal::Stage::naming;
      proposal_->term = next_term(record_, peer_seen_);
      own_doubt_ = proposal_->term;
      persist(name_term(record_, proposal_->term));
    }
  }
  advance(now);
}

void MembershipMachine::not_clean(std::uint64_t number, Instant now) {
  const bool is_awaited =
      proposal_.has_value() && proposal_->flush_number == number && proposal_->stage == Proposal::Stage::draining;
  if (is_awaited) proposal_.reset();
  advance(now);
}

void MembershipMachine::disk_failed(Instant now) {
  is_disk_failed_ = true;
  advance(now);
  send_heartbeat(now);
}

void MembershipMachine::metadata_failed(Instant now) {
  is_metadata_failed_ = true;
  persist_out_ = ++number_;  // Nothing is ever persisted again: nothing is begun, agreed to, or said.
  end_connection("the metadata cannot be written", now);
  advance(now);
  send_heartbeat(now);
}

// ---- the mandate -----------------------------------------------------------------------------------------------

bool MembershipMachine::is_in_doubt() const noexcept { return membership::is_in_doubt(record_); }

bool MembershipMachine::is_copy_whole() const {
  return !record_.is_outdated && !record_.is_inconsistent && !is_disk_failed_ && !is_metadata_failed_ &&
         !is_just_created();
}

bool MembershipMachine::is_peer_alive(Instant now) const {
  return peer_.is_known && now - peer_.heard_at <= lease_length();
}

/// protocol.md 3.2.
bool MembershipMachine::holds_mandate(Instant now) const {
  const auto& configuration = record_.configuration;
  if (persist_out_ != 0 || configuration.primary != self() || !configuration.has_member(self()) || is_in_doubt()) {
    return false;
  }
  if (!is_copy_whole() || may_have_lost_cache_ || is_split_ || !promise_.has_run_out(now)) return false;
  if (is_leaving_peer_ || is_stopping_ || is_strange_) return false;
  if (proposal_.has_value() && proposal_->stage != Proposal::Stage::draining) return false;
  if (is_sole()) return is_flushed_ && is_mandate_begun_ && !is_held_back_;
  return link_ == Link::established && lease_.is_valid(now);
}

bool MembershipMachine::may_answer(Instant now) const { return holds_mandate(now); }

bool MembershipMachine::is_peer_alone() const {
  const auto& theirs = peer_.heartbeat.configuration;
  return peer_.is_known && theirs.is_sole(peer()) && theirs.term >= record_.configuration.term;
}

/// While a longer lease is recorded nothing else changes: the first write after the nodes have joined may come then.
bool MembershipMachine::may_apply_frames() const {
  const bool is_lease_only = !wanted_echo_.is_none();
  if ((persist_out_ != 0 && !is_lease_only) || is_disk_failed_) return false;
  if (link_ == Link::target) return record_.is_inconsistent && record_.configuration.is_sole(peer());
  return link_ == Link::established && record_.configuration.is_pair() && record_.configuration.primary != self() &&
         !is_in_doubt();
}

bool MembershipMachine::is_settled() const {
  const bool is_bound = is_in_doubt() && !record_.is_outdated;
  const bool is_failed = is_disk_failed_ || is_metadata_failed_;
  return persist_out_ == 0 && !is_bound && !is_failed && !is_forcing_ && claim_.stage == Claim::Stage::idle &&
         !proposal_.has_value() && !is_stopping_;
}

/// From then on a node that is frozen keeps no initiators (docs/membership.md): the peer says that it went on alone, or
/// nothing was heard of it since its last promise was given, and that has run out. Whoever has just stood still himself
/// reads first what it said meanwhile.
Instant MembershipMachine::closing_at() const {
  const Instant silent_at = is_peer_alone() ? Instant{} : peer_.heard_at + with_margin(lease_length());
  return std::max(silent_at, stalled_at_) + kDecisionTime;
}

void MembershipMachine::update_service(Instant now) {
  const bool is_mine = record_.configuration.primary == self() && record_.configuration.has_member(self()) &&
                       !record_.is_outdated && !record_.is_inconsistent && !is_stopping_;
  Service next = is_mine ? Service::frozen : Service::stopped;
  if (holds_mandate(now) && !proposal_.has_value()) next = Service::serving;
  // Beside an only member nobody else may serve, unless a change was named. Who has served nobody keeps nobody. What
  // was closed opens when it is decided, not before.
  const bool may_peer_serve = has_served_ && (!is_sole() || is_in_doubt()) && now >= closing_at();
  if (next == Service::frozen && (service_ == Service::closed || may_peer_serve)) next = Service::closed;
  reason_ = next == Service::serving ? std::string() : why_not_serving(now);
  if (next == service_) return;
  if (next == Service::serving) serving_since_ = now;
  service_ = next;
  has_served_ = next != Service::stopped && (has_served_ || next == Service::serving);
  effects_.emplace_back(ServiceEffect{next});
  send_heartbeat(now);
}

std::string MembershipMachine::why_not_serving(Instant now) const {
  const auto& configuration = record_.configuration;
  if (is_metadata_failed_) return "the metadata cannot be written: this node agrees to nothing and serves nothing";
  if (is_stopping_) return "the resource is being taken down";
  if (is_split_)
    return "split: both nodes went on alone; this one answers nothing until it is decided whose copy is kept";
  if (is_strange_) {
    return "the peer has a copy of another pair, or of this one before create-md: one of the two disks is the wrong "
           "one, "
           "and nothing is served until the right one is back, create-md --force was run on the one to be overwritten, "
           "or "
           "primary --force says whose is right";
  }
  if (is_disk_failed_) return "the local disk has failed: waits for the peer to take over";
  if (is_forcing_) return flush_failure_.empty() ? "the copy is being flushed before it is taken" : flush_failure_;
  if (is_just_created()) return "the copy was just created: run `primary --force` on one node once";
  if (record_.is_inconsistent) return "the copy is Inconsistent: a resync towards it has not finished";
  if (record_.is_outdated) return "the copy is Outdated: the peer went on without it";
  if (persist_out_ != 0) return "a change of the configuration is being recorded";
  if (proposal_.has_value()) return "both nodes are agreeing on a change of the configuration";
  if (is_leaving_peer_) return "the peer is being left behind";
  if (may_have_lost_cache_) {
    return "the copy may have lost what was answered, see its disk state: waits for the peer, or degraded_start_after";
  }
  if (is_in_doubt()) {
    return fmt::format("in doubt at term {}: a change was named and its outcome is unknown; {}", record_.seen,
                       claim_reason_.empty() ? "waits for the peer or the arbiter" : claim_reason_);
  }
  if (configuration.primary == peer()) {
    if (configuration.is_pair() && link_ != Link::established && link_ != Link::target) {
      return claim_reason_.empty() ? "the connection to the primary is lost: waits before taking over" : claim_reason_;
    }
    return {};
  }
  if (is_sole() && is_replaced(now)) {
    return fmt::format(
        "the arbiter's record names the peer as the only member at term {}: it was forced primary while this node was "
        "away, and this copy is not served before the nodes meet, or `primary --force` says that it is the right one",
        start_question_.other->term);
  }
  if (is_held_back_) return "the only member asks the arbiter whether it still is, before it serves";
  if (configuration.primary == kNoNode) return "no node was asked to be primary";
  if (!flush_failure_.empty()) return flush_failure_;
  if (!is_flushed_ && link_ != Link::established) return "the copy is being flushed before it is served alone";
  if (!promise_.has_run_out(now)) return "a promise not to serve, given to the peer, has not run out";
  if (link_ == Link::established) return "the peer has given no lease";
  return claim_reason_.empty() ? "two are members: waits for the peer or the arbiter" : claim_reason_;
}

std::uint64_t MembershipMachine::fresh_nonce() {
  // SplitMix64 over a random incarnation and a counter: no two alike in practice, and no randomness in a machine.
  std::uint64_t value = incarnation_ + ++number_ * 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  value ^= value >> 31;
  return value == 0 ? 1 : value;
}

Uuid MembershipMachine::fresh_pair_id() {
  Uuid id;
  store_le(id.bytes.data(), fresh_nonce());
  store_le(id.bytes.data() + sizeof(std::uint64_t), fresh_nonce());
  return id;
}

}  // namespace replblk::membership
