// The connection to the peer, the meeting of the two nodes, and what travels between them (docs/peer_protocol.md 2).
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "membership/transitions.hpp"
#include "node/resource.hpp"

namespace replblk::node {

using blockdev::Configuration;
using blockdev::ResourceRecord;
using replication::ChannelEnd;
using replication::Message;
using replication::PlanKind;
using replication::Refusal;
using replication::VolumeIntroduction;

namespace {

/// A connection that lived this long was worth making: the next attempt comes soon.
constexpr Duration kGoodConnectionMin = kDialBackoffMax;

}  // namespace

// ---- connecting ------------------------------------------------------------------------------------------------

/// The node that stands second dials; the first one listens.
void Resource::dial() {
  if (!has_peer() || is_standalone_ || is_stopping_ || is_copy_failed_ || !is_opened_ || channel_ != nullptr) return;
  connection_state_ = "Connecting";
  if (self() == 0) return;
  ++channel_number_;
  begin_attempt();
  replication::ChannelTimes times{cluster_.ping_interval, cluster_.ping_timeout, seconds(5)};
  channel_ =
      std::make_unique<replication::PeerChannel>(world_, times, static_cast<replication::PeerChannelObserver&>(*this));
  channel_->dial({cluster_.nodes[peer()].address, cluster_.replication_port}, cluster_.nodes[self()].address,
                 identity());
}

void Resource::schedule_dial() {
  if (!has_peer() || is_standalone_ || is_stopping_ || is_copy_failed_) return;
  if (self() == 0) {
    connection_state_ = "Connecting";
    return;
  }
  world_.loop.arm(dial_timer_, world_.loop.now() + dial_backoff_);
}

void Resource::begin_attempt() {
  attempt_began_ = world_.loop.now();
  was_attempt_good_ = false;
}

/// Established, or waiting together: what went wrong before is over.
void Resource::attempt_succeeded() {
  was_attempt_good_ = true;
  dial_backoff_ = cluster_.connect_interval;
  reported_.clear();
}

/// After an attempt that came to nothing the next one waits twice as long. Never hot, never longer than the bound.
void Resource::back_off() {
  if (was_attempt_good_ || world_.loop.now() - attempt_began_ >= kGoodConnectionMin) {
    dial_backoff_ = cluster_.connect_interval;
    return;
  }
  dial_backoff_ = std::min(dial_backoff_ * 2, std::max(kDialBackoffMax, cluster_.connect_interval));
}

/// The reason stands in `status` at once; in the log once, until the nodes have come together again.
void Resource::report_failure(const std::string& reason) {
  if (channel_ == nullptr || phase_ == LinkPhase::none) connection_reason_ = reason;
  if (reported_.is_new(reason)) log_warning("resource {}: connection to the peer: {}", config_.name, reason);
}

void Resource::note_stranger(const std::string& reason) {
  if (channel_ == nullptr && has_peer() && is_opened_ && !is_standalone_) connection_reason_ = reason;
}

replication::HandshakeIdentity Resource::identity() {
  replication::HandshakeIdentity identity;
  identity.cluster = cluster_.name;
  identity.node = cluster_.nodes[self()].name;
  identity.peer = cluster_.nodes[peer()].name;
  identity.resource = config_.name;
  identity.secret = cluster_.secret;
  identity.nonce.resize(replication::kNonceBytes);
  world_.random.fill(std::as_writable_bytes(std::span(identity.nonce)));
  identity.incarnation = incarnation_;
  return identity;
}

void Resource::accept(std::unique_ptr<replication::PeerChannel> channel, const replication::Hello& hello) {
  if (is_standalone_ || is_stopping_ || !is_opened_ || is_copy_failed_) {
    const std::string why = is_opened_ ? "the resource is StandAlone there" : "the resource is not open there";
    channel->end(
        Refusal{fmt::format("{}{}{}", why, connection_reason_.empty() ? "" : ": ", connection_reason_), false});
    retire(std::move(channel));
    return;
  }
  if (candidate_.channel != nullptr) {
    RB_PROBE("candidate_replaces_candidate");
    candidate_.channel->end();
    retire(std::move(candidate_.channel));
  }
  candidate_.channel = std::move(channel);
  candidate_.channel->set_observer(candidate_);
  candidate_.channel->answer_hello(identity(), hello);
}

void Resource::candidate_proven() {
  if (channel_ != nullptr) {
    RB_PROBE("candidate_replaces_live_connection");
    end_channel("Connecting", "the peer connected anew", nullptr);
  }
  ++channel_number_;
  begin_attempt();
  channel_ = std::move(candidate_.channel);
  channel_->set_observer(*this);
  on_proven();
}

void Resource::candidate_ended(ChannelEnd, const std::string& reason) {
  retire(std::move(candidate_.channel));
  report_failure(reason);
}

/// Channels end inside their own callbacks: they are destroyed later in the turn.
void Resource::retire(std::unique_ptr<replication::PeerChannel> channel) {
  retired_channels_.push_back(std::move(channel));
  world_.loop.defer(sweep_task_);
}

void Resource::on_channel_ended(ChannelEnd end, const std::string& reason) {
  if (end == ChannelEnd::connection_failed) {
    dial_backoff_ =
        cluster_.connect_interval;  // Nobody is there: nobody is bothered, and the peer may be back at once.
  } else {
    back_off();
  }
  report_failure(reason);
  end_channel(std::string(to_string(end)), reason, nullptr);
}

/// Ends the channel, if it has not ended, and everything that stood on it.
void Resource::end_channel(const std::string& state, const std::string& reason, const Refusal* refusal) {
  RB_ASSERT(channel_ != nullptr);
  heartbeats_.set_channel(nullptr);
  // Before anything comes back from the peer as lost: an answer that lacks its acknowledgement is held.
  if (is_opened_ && is_connected()) machine_->disconnected(world_.loop.now());
  if (refusal != nullptr) {
    channel_->end(*refusal);
  } else {
    channel_->end();
  }
  retire(std::move(channel_));
  ++channel_number_;
  connection_state_ = is_standalone_ ? "StandAlone" : state;
  connection_reason_ = reason;
  if (is_opened_) link_lost();
  schedule_dial();
  if (is_opened_) pump();
}

void Resource::link_lost() {
  const LinkPhase was = std::exchange(phase_, LinkPhase::none);
  is_resync_beginning_ = false;
  on_undo_ = nullptr;
  if (was != LinkPhase::none && was != LinkPhase::introducing) tell(HandlerEvent::disconnected);
  // The time without a connection is no standstill of the next resync.
  watched_phase_ = LinkPhase::none;
  progress_watch_.stop();
  my_introduction_.reset();
  peer_introduction_.reset();
  set_peer_primary(false);
  end_verify("the connection broke");
  end_resize("the connection broke");
  peer_progress_ = {};
  told_activity_ = replication::SyncProgress::Activity::none;
  pause_.forget_peer();
  apply_pause();
  server_->close();
  if (was == LinkPhase::adding) RB_PROBE("peer_lost_while_adding");
  if (was == LinkPhase::source_syncing) RB_PROBE("peer_lost_while_resyncing_it");
  if (was == LinkPhase::target_syncing) RB_PROBE("source_lost_while_resynced");
  for (const auto& volume : volumes_) {
    volume->resync->stop();
    volume->mirror->peer_lost();
  }
  link_.detach();
}

// ---- meeting ---------------------------------------------------------------------------------------------------

void Resource::on_proven() {
  heartbeats_.set_channel(channel_.get());
  phase_ = LinkPhase::introducing;
  connection_state_ = "Connected";
  connection_reason_.clear();
  introduce();
}

void Resource::introduce() {
  if (my_introduction_.has_value() || !is_settled()) return;
  my_introduction_ = introduction();
  channel_->send(*my_introduction_);
  if (peer_introduction_.has_value()) meet();
}

replication::Introduction Resource::introduction() const {
  replication::Introduction intro;
  intro.shared_fields = cluster_.shared_fields;
  for (const auto& volume : volumes_) {
    const blockdev::Store& store = *volume->store;
    VolumeIntroduction& one = intro.volumes.emplace_back();
    one.uuid = store.volume_uuid();
    one.size_bytes = store.geometry().size_bytes;
    one.room_bytes = store.room_bytes();
    one.logical_block_bytes = store.geometry().logical_block_bytes;
    one.bitmap_block_bytes = store.bitmap_block_bytes();
  }
  intro.configuration = record_.configuration;
  intro.seen = record_.seen;
  intro.pair_id = record_.pair_id;
  intro.generations = record_.generations;
  intro.is_inconsistent = record_.is_inconsistent;
  intro.is_outdated = record_.is_outdated;
  intro.is_crashed_primary = is_crashed_primary_;
  intro.may_have_lost_cache = machine_->may_have_lost_cache();
  intro.survived_connected = machine_->has_survived_connected();
  intro.is_primary = machine_->is_primary();
  intro.is_sync_paused = pause_.is_by_self;
  intro.discards_data = is_discarding_;
  intro.alone_since_ms = record_.alone_since_ms;
  intro.was_primary_at_parting = record_.was_primary_at_parting;
  intro.hardware_addresses = virtual_ips_.hardware_addresses();
  fill_changes(intro);
  return intro;
}

void Resource::on_message(const Message& message) {
  // Nothing is agreed to by a copy that cannot remember it; the peer takes over, and ends the connection.
  if (is_copy_failed_ && !std::holds_alternative<Refusal>(message)) return;
  std::visit(
      [this](const auto& content) {
        using Content = std::decay_t<decltype(content)>;
        if constexpr (std::is_same_v<Content, replication::RoleChange>) {
          role_changed(content);
        } else if constexpr (std::is_same_v<Content, replication::BitmapEnd>) {
          if (phase_ == LinkPhase::source_preparing && link_.is_attached()) {
            start_syncing();
          } else {
            protocol_violation("the peer ended a bitmap that nobody asked for");
          }
        } else if constexpr (std::is_same_v<Content, replication::Hello> ||
                             std::is_same_v<Content, replication::Proof>) {
          protocol_violation("the peer started a second handshake");
        } else {
          receive(content);
        }
      },
      message);
}

void Resource::protocol_violation(const std::string& reason) { channel_->fail(ChannelEnd::protocol_error, reason); }

void Resource::receive(const Refusal& message) {
  if (message.is_final) is_standalone_ = true;
  back_off();
  report_failure("the peer ended the connection: " + message.reason);
  end_channel("Unconnected", message.reason, nullptr);
}

void Resource::receive(const replication::Introduction& message) {
  if (phase_ != LinkPhase::introducing || peer_introduction_.has_value()) {
    protocol_violation("the peer introduced itself twice");
    return;
  }
  peer_introduction_ = message;
  virtual_ips_.set_peer(message.hardware_addresses);
  set_peer_primary(message.is_primary);
  pause_.is_by_peer = message.is_sync_paused;
  apply_pause();
  if (my_introduction_.has_value()) meet();
}

void Resource::role_changed(const replication::RoleChange& message) {
  if (!message.is_primary && message.has_addresses) addresses_given_at_ = world_.loop.now();
  if (message.is_primary && message.has_addresses && target_ != nullptr) target_->finish_move();
  set_peer_primary(message.is_primary);
}

void Resource::set_peer_primary(bool is_primary) {
  is_peer_primary_ = is_primary;
  tell_target();
  if (is_stopping_) world_.loop.defer(stop_task_);
}

/// Where initiators that log in here are sent. Who is named Primary serves in a moment: he lets them wait, unless he
/// has just let them go.
void Resource::tell_target() {
  if (target_ == nullptr) return;
  const bool is_named = record_.configuration.primary == self() && record_.configuration.has_member(self()) &&
                        !record_.is_outdated && !record_.is_inconsistent && !is_copy_failed_ && !is_stopping_ &&
                        machine_->service() != membership::Service::closed;
  target_->set_role_expected(is_named && !target_->is_serving());
  target_->set_peer_serving(is_peer_primary_ || (phase_ == LinkPhase::established && may_peer_serve()));
}

void Resource::meet() {
  if (level_sizes()) return;
  replication::Plan plan = plan_meeting(self(), *my_introduction_, *peer_introduction_);
  split_.clear();
  // The choice to discard is for one meeting; both nodes have it in the Introductions.
  const bool was_discarding = std::exchange(is_discarding_, false);
  if (was_discarding && !plan.is_split && plan.kind != PlanKind::sync_target)
    log_info("resource {}: the copies have not split: nothing is discarded", config_.name);
  if (plan.is_split && !settle_split(plan)) return;
  membership::Meeting meeting;
  meeting.peer_configuration = peer_introduction_->configuration;
  meeting.peer_seen = peer_introduction_->seen;
  meeting.peer_pair_id = peer_introduction_->pair_id;
  meeting.is_split = plan.is_split;
  meeting.given_up = peer_introduction_->generations.current;
  const auto connect = [this, &meeting](LinkPhase phase, membership::Meeting::Direction direction) {
    phase_ = phase;
    meeting.direction = direction;
    machine_->connected(meeting, world_.loop.now());
    pump();
  };
  // A connection that breaks before the peer has recorded the choice (its SyncStart says so) does not take it back.
  if (was_discarding && plan.is_split && plan.kind == PlanKind::sync_target) is_discarding_ = true;
  switch (plan.kind) {
    case PlanKind::wait:
      attempt_succeeded();
      return connect(LinkPhase::wait_created, membership::Meeting::Direction::wait);
    case PlanKind::apart: {
      RB_PROBE("meeting_apart");
      if (plan.is_split) {
        RB_PROBE("meeting_split");
        machine_->split_found(meeting.peer_configuration, world_.loop.now());
      }
      if (plan.is_final) is_standalone_ = true;
      back_off();
      report_failure(plan.reason);
      const Refusal refusal{plan.reason, plan.is_final};
      end_channel("Unconnected", plan.reason, &refusal);
      return;
    }
    case PlanKind::agree:
      return connect(LinkPhase::agreeing, membership::Meeting::Direction::equal);
    case PlanKind::sync_source:
      phase_ = LinkPhase::source_preparing;
      return plan_as_source(plan);
    case PlanKind::sync_target:
      return connect(LinkPhase::target_preparing, membership::Meeting::Direction::target);
  }
  RB_UNREACHABLE();
}

std::function<void()> Resource::for_this_channel(std::function<void()> then) {
  return [this, number = channel_number_, then = std::move(then)] {
    if (number == channel_number_) then();
  };
}

// ---- operations ------------------------------------------------------------------------------------------------

void Resource::on_operation(const replication::FrameHeader& header, BufferRef data) {
  if (is_copy_failed_) return;
  if (header.type == replication::FrameType::read_data) {
    if (!link_.deliver(header.sequence, std::move(data), header.length_bytes))
      protocol_violation("the peer sent data that nobody asked for");
    return;
  }
  // A member in doubt acknowledges nothing (protocol.md 3.3).
  if (!server_->is_open() || !machine_->may_apply_frames()) {
    protocol_violation("the peer sent an operation that this node cannot take now");
    return;
  }
  // Frames that come while this node agrees to a change are of the old configuration: they end the connection.
  server_->apply(header, std::move(data));
}

void Resource::on_acknowledge(std::uint64_t sequence, replication::OperationStatus status) {
  switch (status) {
    case replication::OperationStatus::done:
      if (!link_.acknowledge(sequence)) protocol_violation("the peer acknowledged an operation that is not out");
      return;
    case replication::OperationStatus::full: {
      RB_PROBE("peer_has_no_room");
      const std::string reason = fmt::format("the backing file system of {} is full", cluster_.nodes[peer()].name);
      const Refusal refusal{reason, false};
      back_off();
      report_failure(reason);
      end_channel("Unconnected", reason, &refusal);
      return;
    }
    case replication::OperationStatus::failed:
      if (link_.refuse(sequence)) return;
      break;
  }
  RB_PROBE("peer_cannot_carry_out_operation");
  protocol_violation("the peer could not carry out an operation: its disk failed");
}

void Resource::on_checksums(const replication::FrameHeader& header, ConstBytes entries) {
  if (!link_.acknowledge(header.sequence, entries)) protocol_violation("the peer sent checksums that nobody asked for");
}

// ---- the administrator's connect and disconnect ----------------------------------------------------------------

void Resource::connect(bool discards_data, AdminReplyCallback reply) {
  if (!has_peer())
    return reply({AdminOutcome::refused, config_.name + ": there is no second node in the configuration", {}});
  if (!is_opened_ || is_stopping_ || is_copy_failed_) {
    return reply({AdminOutcome::refused, config_.name + ": the resource is not open; see `status`", {}});
  }
  if (discards_data && is_primary_) {
    return reply({AdminOutcome::refused,
                  config_.name + ": this node is Primary: make it secondary before its data is discarded",
                  {}});
  }
  if (discards_data && (channel_ != nullptr && phase_ != LinkPhase::none)) {
    return reply({AdminOutcome::refused,
                  config_.name + ": the nodes are connected: --discard-my-data is for copies that have split",
                  {}});
  }
  is_discarding_ = discards_data;
  is_standalone_ = false;
  machine_->set_apart(false, world_.loop.now());
  pump();
  connection_reason_.clear();
  reported_.clear();
  dial_backoff_ = cluster_.connect_interval;
  if (channel_ == nullptr) dial();
  if (discards_data) {
    log_warning("resource {}: the administrator gives this copy up if the two have split", config_.name);
    return reply({AdminOutcome::done,
                  config_.name + ": connecting; if the copies have split, this one will be overwritten",
                  {}});
  }
  reply({AdminOutcome::done, config_.name + ": connecting", {}});
}

void Resource::disconnect(AdminReplyCallback reply) {
  if (!has_peer())
    return reply({AdminOutcome::refused, config_.name + ": there is no second node in the configuration", {}});
  if (!is_opened_ || is_stopping_ || is_copy_failed_) {
    return reply({AdminOutcome::refused, config_.name + ": the resource is not open; see `status`", {}});
  }
  const Instant now = world_.loop.now();
  if (phase_ == LinkPhase::established && is_primary_) {
    // The peer remembers that this node goes on without it: promoted by mistake, it would serve old data. The
    // connection ends when it does.
    const membership::Verdict verdict = machine_->leave_peer(now);
    if (!verdict.is_accepted) return reply({AdminOutcome::refused, config_.name + ": " + verdict.message, {}});
  }
  is_standalone_ = true;
  end_verify("the nodes were disconnected");
  is_discarding_ = false;
  world_.loop.cancel(dial_timer_);
  machine_->set_apart(true, now);
  if (channel_ != nullptr && !(phase_ == LinkPhase::established && is_primary_)) {
    const Refusal refusal{"disconnected by the administrator of " + cluster_.nodes[self()].name, false};
    end_channel("StandAlone", "disconnected by the administrator", &refusal);
  }
  connection_state_ = "StandAlone";
  connection_reason_ = "disconnected by the administrator";
  pump();
  reply({AdminOutcome::done, config_.name + ": StandAlone", {}});
}

}  // namespace replblk::node
