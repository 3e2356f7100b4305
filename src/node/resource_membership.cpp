// The MembershipMachine at work: what happens here is told to it, and what it wants done is carried out in order,
// durable first, then acted upon (docs/membership.md). Nothing in src/node decides who serves but it.
#include <fmt/format.h>

#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "membership/transitions.hpp"
#include "node/resource.hpp"

namespace replblk::node {

using blockdev::ResourceRecord;
using membership::Service;
using replication::Refusal;

namespace {

membership::ArbiterKind kind_of(const ArbiterConfig& arbiter) {
  constexpr std::array kKinds{membership::ArbiterKind::none, membership::ArbiterKind::etcd,
                              membership::ArbiterKind::ping};
  return kKinds[arbiter.index()];
}

/// What the arbiter itself takes at most, and a little.
Duration answer_time(const ArbiterConfig& arbiter) {
  constexpr Duration kMargin = milliseconds(500);
  if (const auto* etcd = std::get_if<EtcdConfig>(&arbiter)) return etcd->timeout + kMargin;
  if (const auto* ping = std::get_if<PingConfig>(&arbiter)) return ping->timeout + kMargin;
  return kMargin;
}

}  // namespace

void Resource::build_machine(bool may_have_lost_cache) {
  membership::MembershipOptions options;
  options.self = self();
  options.arbiter = kind_of(cluster_.arbiter);
  options.interval = cluster_.heartbeat.interval;
  options.lease_ms = static_cast<std::uint32_t>(to_ms(cluster_.heartbeat.lease));
  options.arbiter_timeout = answer_time(cluster_.arbiter);
  options.degraded_start_after = config_.degraded_start_after;
  options.preferred_node = config_.preferred_node;
  options.peer_timeout = cluster_.peer_timeout;
  machine_ = std::make_unique<membership::MembershipMachine>(
      options, membership::MembershipStart{record_, fresh_nonce(), may_have_lost_cache}, world_.loop.now());
  for (const auto& volume : volumes_)
    volume->mirror->set_answer_gate(Callback<bool()>::to<&Resource::may_answer>(*this));
}

// ---- events ----------------------------------------------------------------------------------------------------

void Resource::on_membership_timer() {
  machine_->tick(world_.loop.now());
  pump();
}

void Resource::on_heartbeat(const membership::Heartbeat& heartbeat) {
  if (is_membership_over_ || machine_ == nullptr) return;
  machine_->heartbeat_received(heartbeat, world_.loop.now());
  pump();
}

void Resource::on_heartbeat_frame(ConstBytes bytes) { heartbeats_.on_channel_bytes(bytes); }

/// protocol.md 3.2: asked by the mirrors before each answer.
bool Resource::may_answer() {
  if (machine_->may_answer(world_.loop.now())) return true;
  world_.loop.defer(gate_task_);
  return false;
}

/// An answer was held although nothing is frozen: the lease has run out between two looks. If it was renewed since,
/// what was held goes on.
void Resource::gate_closed() {
  if (is_membership_over_) return;
  on_membership_timer();
  if (is_primary_ && machine_->service() == Service::serving) thaw_all();
}

void Resource::receive(const replication::Proposal& message) {
  if (!server_->is_idle() || message.reservations.size() > ResourceRecord::kReservationsBytesMax) {
    protocol_violation("the peer proposed a configuration that cannot be");
    return;
  }
  // What was asked for before the answer below is sent is taken by the peer before it: the order on the connection.
  end_verify("the configuration changed");
  proposed_reservations_ = {message.configuration.term, message.reservations};
  machine_->proposal_received(message.configuration, message.generations, world_.loop.now());
  pump();
}

void Resource::receive(const replication::ProposalAck& message) {
  machine_->proposal_acknowledged(message.term, world_.loop.now());
  pump();
}

// ---- effects ---------------------------------------------------------------------------------------------------

/// Carries out what the machine wants, until it wants nothing more. Called after each event.
void Resource::pump() {
  if (is_pumping_ || is_membership_over_) return;
  is_pumping_ = true;
  for (auto effects = machine_->take_effects(); !effects.empty() && !is_membership_over_;
       effects = machine_->take_effects()) {
    for (const membership::Effect& effect : effects) {
      std::visit([this](const auto& one) { carry_out(one); }, effect);
    }
  }
  is_pumping_ = false;
  if (is_membership_over_) return;
  world_.loop.arm(membership_timer_, machine_->next_wakeup(world_.loop.now()));
  tell_target();
  answer_done_verbs();
  if (is_stopping_) world_.loop.defer(stop_task_);
  if (phase_ == LinkPhase::introducing) introduce();
}

void Resource::carry_out(const membership::PersistEffect& effect) {
  ResourceRecord next = membership::with_decision(record_, effect.record);
  const bool is_join = next.configuration.is_pair() && next.configuration != record_.configuration;
  if (is_join && proposed_reservations_.term == next.configuration.term)
    next.reservations = std::move(proposed_reservations_.table);
  // protocol.md 5.3: the target keeps its own bits until it persists the add. A change of roles is no add: bits that a
  // failed disk left stay.
  const bool is_add = is_join && phase_ == LinkPhase::target_syncing;
  if (next.configuration != record_.configuration && next.configuration.has_member(self())) is_crashed_primary_ = false;
  const bool leaves_peer = record_.configuration.is_pair() && next.configuration.is_sole(self()) && channel_ == nullptr;
  const bool gives_way = next.is_outdated && !record_.is_outdated && record_.configuration.primary == self();
  // What this node said of itself on a connection on which the nodes have not met yet is not true any more.
  if (phase_ == LinkPhase::introducing && my_introduction_.has_value()) {
    RB_PROBE("record_changes_between_introduction_and_meeting");
    const Refusal refusal{"a change of this node's own is under way", false};
    end_channel("Unconnected", "the configuration changed while the nodes met", &refusal);
  }
  persist(next, [this, number = effect.number, is_add, leaves_peer, gives_way] {
    if (leaves_peer) tell(HandlerEvent::fence_peer);
    if (gives_way) tell(HandlerEvent::pri_lost);
    if (is_add) {
      for (const auto& volume : volumes_) volume->store->dirty().clear_all();
    }
    if (is_membership_over_) return;
    machine_->persisted(number, world_.loop.now());
    pump();
  });
}

void Resource::carry_out(const membership::SendHeartbeatEffect& effect) {
  if (has_peer()) heartbeats_.send(effect.heartbeat);
}

void Resource::carry_out(const membership::SendProposalEffect& effect) {
  if (channel_ == nullptr) return;
  channel_->send(replication::Proposal{effect.configuration, effect.generations, record_.reservations});
}

void Resource::carry_out(const membership::SendProposalAckEffect& effect) {
  if (channel_ != nullptr) channel_->send(replication::ProposalAck{effect.term});
}

void Resource::carry_out(const membership::EndConnectionEffect& effect) {
  if (channel_ == nullptr || phase_ == LinkPhase::introducing) return;
  log_info("resource {}: the connection ends: {}", config_.name, effect.reason);
  const Refusal refusal{effect.reason, false};
  end_channel("Unconnected", effect.reason, &refusal);
}

void Resource::carry_out(const membership::EstablishedEffect&) {
  if (channel_ != nullptr) joined();
}

/// Both are members of record_.configuration, durably here.
void Resource::joined() {
  const std::uint64_t term = record_.configuration.term;
  if (phase_ == LinkPhase::target_syncing) tell(HandlerEvent::after_resync_target);
  if (phase_ == LinkPhase::adding) tell(HandlerEvent::unfence_peer);
  phase_ = LinkPhase::established;
  attempt_succeeded();
  sync_failure_.clear();
  is_set_coarse_ = false;
  peer_progress_ = {};
  if (link_.is_attached()) {
    link_.set_term(term);
  } else {
    link_.attach(*channel_, term);
  }
  if (server_->is_open()) {
    server_->set_term(term);
  } else {
    server_->open(*channel_, term);
  }
  for (const auto& volume : volumes_) {
    // Off only here, where both copies have been flushed for it, and at the end of the connection.
    volume->mirror->set_mirroring(is_primary_ && record_.configuration.primary == self());
    volume->mirror->set_reading_at_peer(true);
    volume->trouble.clear();  // It has been flushed, and is not the only good copy any more.
  }
  save_bitmaps([] {});  // Bits that a crash would bring back for nothing.
  log_info("resource {}: Established, both copies UpToDate, term {}", config_.name, term);
}

void Resource::carry_out(const membership::TargetReadyEffect&) {
  is_crashed_primary_ = false;
  if (channel_ != nullptr) send_bitmaps();
}

void Resource::carry_out(const membership::SourceReadyEffect&) {
  if (channel_ != nullptr) begin_as_source();
}

void Resource::carry_out(const membership::DrainAndFlushEffect& effect) {
  end_verify("the configuration changes");
  const bool is_add = phase_ == LinkPhase::source_syncing;
  if (is_add) phase_ = LinkPhase::adding;
  when_copiers_idle([this, number = effect.number, is_add] {
    drain_all([this, number, is_add] {
      flush_all([this, number, is_add](bool is_flushed) {
        if (is_membership_over_) return;
        const bool is_clean =
            std::ranges::all_of(volumes_, [](const auto& volume) { return volume->store->dirty().is_clean(); });
        if (is_add && phase_ == LinkPhase::adding && is_flushed && !is_clean) {
          // Something was written in between that could not be copied yet: another pass.
          RB_PROBE("add_needs_another_pass");
          machine_->not_clean(number, world_.loop.now());
          start_syncing();
        } else {
          machine_->flushed(number, is_flushed, world_.loop.now());
        }
        pump();
      });
    });
  });
}

void Resource::carry_out(const membership::FlushOwnEffect& effect) {
  struct Waiting {
    Resource* resource;
    std::uint64_t number;
  };
  // No ghosts (protocol.md 4): nothing of the old primary's may still be on its way to the disks.
  if (!server_->is_idle()) RB_PROBE("promotion_waits_for_old_primarys_writes");
  server_->when_idle(Callback<void()>::with(new Waiting{this, effect.number}, [](void* context) {
    const std::unique_ptr<Waiting> waiting(static_cast<Waiting*>(context));
    Resource& resource = *waiting->resource;
    resource.drain_all([&resource, number = waiting->number] {
      resource.flush_all([&resource, number](bool is_flushed) {
        if (resource.is_membership_over_) return;
        if (!is_flushed) RB_PROBE("removal_cannot_flush");
        resource.machine_->flushed(number, is_flushed, resource.world_.loop.now());
        resource.pump();
      });
    });
  }));
}

void Resource::carry_out(const membership::ReadArbiterEffect& effect) {
  if (arbiter_ != nullptr) arbiter_->read(effect.number);
}

void Resource::carry_out(const membership::ReplaceRecordEffect& effect) {
  if (arbiter_ != nullptr) arbiter_->replace(effect.number, effect.revision, effect.record);
}

void Resource::carry_out(const membership::OverwriteRecordEffect& effect) {
  if (arbiter_ != nullptr) arbiter_->overwrite(effect.number, effect.record);
}

void Resource::carry_out(const membership::ProbeAddressesEffect& effect) {
  if (arbiter_ != nullptr) arbiter_->probe(effect.number);
}

void Resource::carry_out(const membership::ServiceEffect& effect) {
  switch (effect.service) {
    case Service::serving:
      frozen_since_.reset();
      if (!is_primary_) return serve();
      thaw_all();
      open_to_initiators();
      // A table of reservations that the lost peer has not confirmed is on all members now.
      if (record_.configuration.is_sole(self())) is_keeping_at_peer_ = false;
      check_kept();
      return;
    case Service::frozen:
      if (!is_primary_) return;
      if (!frozen_since_) frozen_since_ = world_.loop.now();
      freeze_all();
      return;
    case Service::closed:
      if (!is_primary_) return;
      if (!frozen_since_) frozen_since_ = world_.loop.now();
      freeze_all();
      RB_PROBE("initiators_let_go_while_frozen");
      log_warning("resource {}: initiators are let go, since the peer may serve by now: {}", config_.name,
                  machine_->reason());
      // If the peer serves it has begun to before that.
      close_to_initiators("this node may not serve for the moment",
                          iscsi::Target::kMoveTime - membership::kDecisionTime);
      return;
    case Service::stopped:
      frozen_since_.reset();
      if (is_primary_) step_down(machine_->reason());
      return;
  }
  RB_UNREACHABLE();
}

// ---- the arbiter's answers -------------------------------------------------------------------------------------

void Resource::on_arbiter_read(std::uint64_t number, const ports::ArbiterReading& reading) {
  if (is_membership_over_) return;
  machine_->arbiter_read(number, reading, world_.loop.now());
  pump();
}

void Resource::on_arbiter_replaced(std::uint64_t number, bool is_replaced) {
  if (is_membership_over_) return;
  machine_->arbiter_replaced(number, is_replaced, world_.loop.now());
  pump();
}

void Resource::on_arbiter_overwritten(std::uint64_t number) {
  if (is_membership_over_) return;
  machine_->arbiter_overwritten(number, world_.loop.now());
  pump();
}

void Resource::on_arbiter_failed(std::uint64_t number, const ports::ArbiterFailure& failure) {
  if (is_membership_over_) return;
  machine_->arbiter_failed(number, failure.sentence, world_.loop.now());
  pump();
}

void Resource::on_arbiter_probed(std::uint64_t number, bool is_reached) {
  if (is_membership_over_) return;
  machine_->arbiter_probed(number, is_reached, world_.loop.now());
  pump();
}

}  // namespace replblk::node
