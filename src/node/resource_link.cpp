// The connection to the peer and what the two nodes agree upon (docs/peer_protocol.md 2 and 3).
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
using blockdev::GenerationSet;
using blockdev::ResourceRecord;
using replication::ChannelEnd;
using replication::Message;
using replication::PlanKind;
using replication::Refusal;
using replication::VolumeIntroduction;

namespace {

/// A connection that lived this long was worth making: the next attempt comes soon.
constexpr Duration kGoodConnectionMin = kDialBackoffMax;
constexpr Duration kProposalTimeout = seconds(5);
constexpr std::uint8_t kBoth = 3;

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
}

/// protocol.md 3.3: a configuration of two never outlives its connection while one of them serves.
void Resource::link_lost() {
  const LinkPhase was = std::exchange(phase_, LinkPhase::none);
  is_handler_asked_ = false;
  if (was != LinkPhase::none && was != LinkPhase::introducing) tell(HandlerEvent::disconnected);
  // The time without a connection is no standstill of the next resync.
  watched_phase_ = LinkPhase::none;
  progress_watch_.stop();
  my_introduction_.reset();
  peer_introduction_.reset();
  set_peer_primary(false);
  end_verify("the connection broke");
  peer_progress_ = {};
  told_activity_ = replication::SyncProgress::Activity::none;
  pause_.forget_peer();
  apply_pause();
  server_->close();
  const bool serves_as_pair = is_primary_ && record_.is_primary_open && record_.configuration.is_pair();
  const bool is_in_doubt_as_source = was == LinkPhase::adding && membership::is_in_doubt(record_);
  // A peer that came back, and is lost again, while its removal still waits for the disk is being removed already.
  const bool must_remove = !is_copy_failed_ && !is_removing_peer_ && (serves_as_pair || is_in_doubt_as_source);
  if (is_removing_peer_) RB_PROBE("peer_lost_again_before_its_removal_is_done");
  if (is_in_doubt_as_source) RB_PROBE("peer_lost_in_doubt_while_adding");
  if (was == LinkPhase::adding && !is_in_doubt_as_source) RB_PROBE("peer_lost_while_adding_before_proposal");
  if (was == LinkPhase::source_syncing) RB_PROBE("peer_lost_while_resyncing_it");
  if (was == LinkPhase::target_syncing) RB_PROBE("source_lost_while_resynced");
  if (serves_as_pair && is_changing_role_) RB_PROBE("peer_lost_while_demoting");
  if (proposed_term_ != 0 && persists_out_ == 0) RB_PROBE("proposal_lost_after_persist");
  if (proposed_term_ != 0 && persists_out_ > 0) RB_PROBE("proposal_lost_before_persist");
  if (must_remove) freeze_all();
  if (was == LinkPhase::adding) on_drained_ = nullptr;
  for (const auto& volume : volumes_) {
    volume->resync->stop();
    volume->mirror->peer_lost();
  }
  link_.detach();
  proposed_term_ = 0;
  on_agreed_ = nullptr;
  if (on_proposal_lost_) std::exchange(on_proposal_lost_, {})();
  if (must_remove) {
    remove_peer();
  } else if (was == LinkPhase::adding) {
    thaw_all();
  }
}

/// protocol.md 3.4, remove, with the arbiter `none`: answers that lack the peer's acknowledgement are held already.
void Resource::remove_peer() {
  RB_ASSERT(!is_removing_peer_);
  is_removing_peer_ = true;
  suspended_reason_ = "the peer was lost: going on alone is being recorded";
  const auto make_record = [this] {
    const NodeIndex primary = is_primary_ ? self() : blockdev::kNoNode;
    return membership::become_only_member(record_, self(), primary, peer_seen_, fresh_nonce());
  };
  record_alone(make_record, [this](bool is_good) {
    is_removing_peer_ = false;
    if (!is_good) {
      RB_PROBE("removal_cannot_flush");
      log_error("resource {}: the peer is gone and the local disk cannot be flushed: nothing can be served",
                config_.name);
      stop_serving("the local disk cannot be flushed");
      is_primary_ = false;
      refuse_keeping();
      return;
    }
    log_warning("resource {}: goes on without the peer at term {}", config_.name, record_.configuration.term);
    thaw_all();
    // A table of reservations that the lost peer has not confirmed is on all members now.
    is_keeping_at_peer_ = false;
    check_kept();
    if (phase_ == LinkPhase::introducing) {
      RB_PROBE("peer_back_before_its_removal_is_done");
      introduce();
    }
  });
}

// ---- meeting ---------------------------------------------------------------------------------------------------

void Resource::on_proven() {
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
    one.logical_block_bytes = store.geometry().logical_block_bytes;
    one.bitmap_block_bytes = store.bitmap_block_bytes();
  }
  intro.configuration = record_.configuration;
  intro.seen = record_.seen;
  intro.generations = record_.generations;
  intro.is_inconsistent = record_.is_inconsistent;
  intro.is_outdated = record_.is_outdated;
  intro.is_crashed_primary = is_crashed_primary_;
  intro.may_have_lost_cache = may_have_lost_cache_;
  intro.survived_connected = connected_term_ != 0 && connected_term_ == record_.configuration.term;
  intro.is_primary = is_primary_;
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
          set_peer_primary(content.is_primary);
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
  peer_seen_ = std::max({peer_seen_, message.seen, message.configuration.term});
  if (my_introduction_.has_value()) meet();
}

/// Where initiators that log in here are sent.
void Resource::set_peer_primary(bool is_primary) {
  is_peer_primary_ = is_primary;
  target_->set_peer_serving(is_primary);
}

void Resource::meet() {
  replication::Plan plan = plan_meeting(self(), *my_introduction_, *peer_introduction_);
  split_.clear();
  // The choice to discard is for one meeting; both nodes have it in the Introductions.
  const bool was_discarding = std::exchange(is_discarding_, false);
  if (was_discarding && !plan.is_split && plan.kind != PlanKind::sync_target)
    log_info("resource {}: the copies have not split: nothing is discarded", config_.name);
  if (plan.is_split && !settle_split(plan)) return;
  // A connection that breaks before the peer has recorded the choice (its SyncStart says so) does not take it back.
  if (was_discarding && plan.is_split && plan.kind == PlanKind::sync_target) is_discarding_ = true;
  switch (plan.kind) {
    case PlanKind::wait:
      phase_ = LinkPhase::wait_created;
      attempt_succeeded();
      return;
    case PlanKind::apart: {
      RB_PROBE("meeting_apart");
      if (plan.is_split) RB_PROBE("meeting_split");
      if (plan.is_final) is_standalone_ = true;
      back_off();
      report_failure(plan.reason);
      const Refusal refusal{plan.reason, plan.is_final};
      end_channel("Unconnected", plan.reason, &refusal);
      return;
    }
    case PlanKind::agree:
      phase_ = LinkPhase::agreeing;
      // Nobody serves here (a primary whose connection broke has removed its peer): the first node proposes.
      if (self() == 0) {
        propose(kBoth, blockdev::kNoNode, membership::generations_for_pair(record_.generations), [this] {
          const Configuration agreed{proposed_term_, 3, blockdev::kNoNode};
          may_have_lost_cache_ = is_crashed_primary_ = false;
          ResourceRecord next =
              membership::join_pair(record_, agreed, membership::generations_for_pair(record_.generations));
          next.is_primary_open = false;
          persist(next, for_this_channel([this] { joined(); }));
        });
      }
      return;
    case PlanKind::sync_source:
      phase_ = LinkPhase::source_preparing;
      start_as_source(plan);
      return;
    case PlanKind::sync_target:
      phase_ = LinkPhase::target_preparing;
      return;
  }
  RB_UNREACHABLE();
}

std::function<void()> Resource::for_this_channel(std::function<void()> then) {
  return [this, number = channel_number_, then = std::move(then)] {
    if (number == channel_number_) then();
  };
}

// ---- proposals -------------------------------------------------------------------------------------------------

/// protocol.md 3.3: `seen` is durable before the message that names the term leaves; from here until the answer, doubt.
void Resource::propose(std::uint8_t members, NodeIndex primary, const GenerationSet& generations,
                       std::function<void()> agreed) {
  proposed_term_ = membership::next_term(record_, peer_seen_);
  proposal_deadline_ = world_.loop.now() + kProposalTimeout;
  on_agreed_ = std::move(agreed);
  const replication::Proposal proposal{{proposed_term_, members, primary}, generations, record_.reservations};
  persist(membership::name_term(record_, proposed_term_),
          for_this_channel([this, proposal] { channel_->send(proposal); }));
}

void Resource::receive(const replication::ProposalAck& message) {
  if (proposed_term_ == 0 || message.term != proposed_term_ || !on_agreed_) {
    protocol_violation("the peer agreed to something that was not proposed");
    return;
  }
  peer_seen_ = std::max(peer_seen_, message.term);
  on_proposal_lost_ = nullptr;
  const auto agreed = std::exchange(on_agreed_, nullptr);
  agreed();
}

void Resource::receive(const replication::Proposal& message) {
  const bool is_expected = (phase_ == LinkPhase::agreeing && self() != 0) || phase_ == LinkPhase::target_syncing ||
                           phase_ == LinkPhase::established;
  if (!is_expected || is_primary_ || is_changing_role_ || persists_out_ > 0 || proposed_term_ != 0) {
    RB_PROBE("proposal_refused_because_of_own_change");
    const Refusal refusal{"a change of this node's own is under way", false};
    back_off();
    end_channel("Unconnected", "both nodes wanted to change the configuration at once", &refusal);
    return;
  }
  // What was asked for before the answer below is sent is taken by the peer before it: the order on the connection.
  end_verify("the configuration changed");
  const Configuration& proposed = message.configuration;
  const bool is_removal = phase_ == LinkPhase::established && is_peer_primary_ && proposed.is_sole(peer()) &&
                          proposed.primary == peer() && proposed.term > record_.seen;
  if (is_removal) {
    agree_to_removal(proposed);
    return;
  }
  if (!proposed.is_pair() || proposed.term <= record_.seen || proposed.primary == self() || !server_->is_idle() ||
      message.reservations.size() > ResourceRecord::kReservationsBytesMax) {
    protocol_violation("the peer proposed a configuration that cannot be");
    return;
  }
  peer_seen_ = std::max(peer_seen_, proposed.term);
  may_have_lost_cache_ = is_crashed_primary_ = false;
  ResourceRecord next = membership::join_pair(record_, proposed, message.generations);
  next.reservations = message.reservations;
  next.is_primary_open = false;
  // protocol.md 5.3: the target keeps its own bits until it persists the add. A change of roles is no add: bits that a
  // failed disk left stay.
  const bool is_add = phase_ != LinkPhase::established;
  persist(next, [this, number = channel_number_, term = proposed.term, is_add] {
    for (const auto& volume : volumes_) {
      if (is_add) volume->store->dirty().clear_all();
    }
    if (number != channel_number_) {
      RB_PROBE("agreed_and_connection_is_gone");
      return;
    }
    joined();
    channel_->send(replication::ProposalAck{term});
  });
}

/// protocol.md 3.4, remove: the peer goes on alone and asks this copy to remember that it is left behind.
void Resource::agree_to_removal(const Configuration& proposed) {
  RB_PROBE("agreed_to_own_removal");
  peer_seen_ = proposed.term;
  connected_term_ = 0;
  persist(membership::become_outdated(record_, proposed),
          for_this_channel([this, term = proposed.term] { channel_->send(replication::ProposalAck{term}); }));
}

/// Both are members of record_.configuration, durably here.
void Resource::joined() {
  const std::uint64_t term = record_.configuration.term;
  proposed_term_ = 0;
  if (phase_ == LinkPhase::target_syncing) tell(HandlerEvent::after_resync_target);
  phase_ = LinkPhase::established;
  connected_term_ = term;
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
  const bool is_readable = channel_->protocol_version() >= replication::kVersionOfTakeOver;
  for (const auto& volume : volumes_) {
    volume->mirror->set_mirroring(is_primary_);
    volume->mirror->set_reading_at_peer(is_readable);
  }
  save_bitmaps([] {});  // Bits that a crash would bring back for nothing.
  log_info("resource {}: Established, both copies UpToDate, term {}", config_.name, term);
}

// ---- resync ----------------------------------------------------------------------------------------------------

void Resource::start_as_source(const replication::Plan& plan) {
  const bool is_alone_already = !plan.is_split && record_.configuration.is_sole(self()) &&
                                !membership::is_in_doubt(record_) &&
                                record_.configuration.term >= peer_introduction_->configuration.term;
  is_resync_continued_ =
      is_alone_already && replication::is_same_resync(synced_term_, *my_introduction_, *peer_introduction_);
  if (!is_resync_continued_) resync_mode_ = choose_mode(plan);
  const auto begin = [this, is_full = plan.is_full && !is_resync_continued_] {
    const auto attach = [this, is_full] {
      link_.attach(*channel_, record_.configuration.term);
      channel_->send(replication::SyncStart{record_.configuration, is_full});
    };
    if (!is_full) return attach();
    for (const auto& volume : volumes_) volume->store->dirty().set_all();
    save_bitmaps(for_this_channel(attach));
  };
  if (is_alone_already) {
    begin();
    return;
  }
  RB_PROBE("source_leaves_pair_to_resync");
  const auto record = [this, plan, begin] {
    // As record_alone(), but a connection that has ended meanwhile takes the plan with it.
    flush_all([this, number = channel_number_, plan, begin](bool is_flushed) {
      if (number != channel_number_) return;
      if (!is_flushed) {
        back_off();
        report_failure("the local disk cannot be flushed");
        return end_channel("Unconnected", "the local disk cannot be flushed", nullptr);
      }
      may_have_lost_cache_ = is_crashed_primary_ = false;
      persist(record_as_source(plan), for_this_channel(begin));
    });
  };
  if (!plan.is_split || !plan.is_full) return record();
  // Before the record says that the bits cover all that differs, they must, durably.
  for (const auto& volume : volumes_) volume->store->dirty().set_all();
  save_bitmaps(for_this_channel(record));
}

ResourceRecord Resource::record_as_source(const replication::Plan& plan) {
  const NodeIndex primary = is_primary_ ? self() : blockdev::kNoNode;
  if (plan.row == replication::MeetingRow::by_agreement) {
    log_warning(
        "resource {}: the peer may have lost what its write cache held; this copy, which it left behind at a term that "
        "it never acted upon, is whole and takes over",
        config_.name);
    return membership::take_over_by_agreement(record_, self(), peer_seen_, fresh_nonce());
  }
  if (!plan.is_split) return membership::become_only_member(record_, self(), primary, peer_seen_, fresh_nonce());
  return membership::keep_after_split(record_, self(), primary, peer_seen_, fresh_nonce(),
                                      peer_introduction_->generations.current);
}

void Resource::receive(const replication::SyncStart& message) {
  const Configuration& source = message.configuration;
  if (phase_ != LinkPhase::target_preparing || server_->is_open() || persists_out_ > 0 || is_handler_asked_) {
    protocol_violation("the peer began a resync that was not planned");
    return;
  }
  if (!source.is_sole(peer()) || source.term < record_.configuration.term || is_primary_) {
    protocol_violation("the peer began a resync under a configuration that does not stand above this node's");
    return;
  }
  connected_term_ = 0;
  is_discarding_ = false;
  peer_seen_ = std::max(peer_seen_, source.term);
  ask_before_resync([this, source] {
    // The own bits are durable before the flags that told of them go (A16, A17).
    settle_all(for_this_channel([this, source] {
      is_crashed_primary_ = false;
      persist(membership::become_sync_target(record_, source), for_this_channel([this] { send_bitmaps(); }));
    }));
  });
}

void Resource::send_bitmaps() {
  server_->open(*channel_, record_.configuration.term);
  phase_ = LinkPhase::target_syncing;
  for (const auto& volume : volumes_) {
    const blockdev::DirtyBitmap& dirty = volume->store->dirty();
    for (std::size_t page = 0; page < dirty.pages_count(); ++page) {
      if (!dirty.has_page(page)) continue;
      std::array<std::byte, blockdev::DirtyBitmap::kPageBytes> bits{};
      dirty.get_page(page, bits);
      replication::FrameHeader header;
      header.type = replication::FrameType::bitmap;
      header.volume = volume->index;
      header.offset_bytes = page;
      header.term = record_.configuration.term;
      channel_->send(header, bits);
    }
  }
  channel_->send(replication::BitmapEnd{});
  log_info("resource {}: SyncTarget, term {}", config_.name, record_.configuration.term);
}

void Resource::on_bitmap_page(const replication::FrameHeader& header, ConstBytes page) {
  const bool is_expected =
      phase_ == LinkPhase::source_preparing && link_.is_attached() && header.volume < volumes_.size();
  if (!is_expected || header.offset_bytes >= volumes_[header.volume]->store->dirty().pages_count()) {
    protocol_violation("the peer sent a bitmap page that nobody asked for");
    return;
  }
  // They are in the set already, as far as they have not been copied since.
  if (is_resync_continued_) return;
  volumes_[header.volume]->store->dirty().merge_page(header.offset_bytes,
                                                     page.first<blockdev::DirtyBitmap::kPageBytes>());
}

void Resource::start_syncing() {
  phase_ = LinkPhase::source_syncing;
  synced_term_ = record_.configuration.term;
  std::uint64_t bytes = 0;
  for (const auto& volume : volumes_) {
    bytes += volume->store->dirty().dirty_bytes();
    volume->is_resynced = false;
    volume->mirror->set_mirroring(true);
    volume->resync->start(resync_mode_, Callback<void()>::to<&Volume::on_resynced>(*volume));
  }
  log_info("resource {}: SyncSource, {} KiB to {}{}, term {}", config_.name, bytes / 1024,
           resync_mode_ == replication::ResyncMode::compare_first ? "compare" : "copy",
           is_resync_continued_ ? ", going on where it was cut off" : "", record_.configuration.term);
}

void Resource::Volume::on_resynced() { resource->volume_resynced(*this); }

void Resource::volume_resynced(Volume& volume) {
  volume.is_resynced = true;
  if (is_repairing_) return volume_repaired();
  if (std::ranges::all_of(volumes_, [](const auto& one) { return one->is_resynced; })) begin_add();
}

/// protocol.md 3.4, add: drain, flush both, propose; nothing is answered until it is decided.
void Resource::begin_add() {
  // A demotion under way ends first; on_tick() does not call again, so the demotion's end does (see demoted()).
  phase_ = LinkPhase::adding;
  freeze_all();
  suspended_reason_ = "the peer is being added";
  if (is_changing_role_) {
    RB_PROBE("add_while_demoting");
    return;
  }
  drain_all(for_this_channel([this] {
    flush_all([this, number = channel_number_](bool is_flushed) {
      if (number != channel_number_) return;
      const bool is_clean =
          std::ranges::all_of(volumes_, [](const auto& volume) { return volume->store->dirty().is_clean(); });
      if (is_flushed && is_clean) {
        finish_add();
        return;
      }
      // Something was written in between that could not be copied yet: another pass.
      RB_PROBE("add_needs_another_pass");
      thaw_all();
      start_syncing();
    });
  }));
}

void Resource::finish_add() {
  const NodeIndex primary = is_primary_ ? self() : blockdev::kNoNode;
  propose(kBoth, primary, membership::generations_for_pair(record_.generations), [this, primary] {
    ResourceRecord next = membership::join_pair(record_, {proposed_term_, 3, primary},
                                                membership::generations_for_pair(record_.generations));
    next.is_primary_open = is_primary_;
    persist(next, for_this_channel([this] {
              joined();
              thaw_all();
            }));
  });
}

// ---- operations ------------------------------------------------------------------------------------------------

void Resource::on_operation(const replication::FrameHeader& header, BufferRef data) {
  if (is_copy_failed_) return;
  if (header.type == replication::FrameType::read_data) {
    if (!link_.deliver(header.sequence, std::move(data), header.length_bytes))
      protocol_violation("the peer sent data that nobody asked for");
    return;
  }
  if (!server_->is_open() || is_primary_) {
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
  // A table of reservations on its way to the peer would be in the way of the proposal below.
  if (is_changing_role_ || phase_ == LinkPhase::adding || proposed_term_ != 0 || is_keeping_) {
    return reply(
        {AdminOutcome::refused, config_.name + ": a change of role or configuration is under way; try again", {}});
  }
  is_standalone_ = true;
  end_verify("the nodes were disconnected");
  is_discarding_ = false;
  world_.loop.cancel(dial_timer_);
  const auto end = [this] {
    if (channel_ != nullptr) {
      const Refusal refusal{"disconnected by the administrator of " + cluster_.nodes[self()].name, false};
      end_channel("StandAlone", "disconnected by the administrator", &refusal);
    }
    connection_state_ = "StandAlone";
    connection_reason_ = "disconnected by the administrator";
  };
  if (phase_ == LinkPhase::established && is_primary_) {
    // The peer remembers that this node goes on without it: promoted by mistake, it would serve old data.
    freeze_all();
    suspended_reason_ = "the peer is being left behind";
    const std::uint8_t only_self = static_cast<std::uint8_t>(1u << self());
    propose(only_self, self(), record_.generations, end);
  } else {
    end();
  }
  reply({AdminOutcome::done, config_.name + ": StandAlone", {}});
}

}  // namespace replblk::node
