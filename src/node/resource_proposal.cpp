// Changes of the configuration that both nodes make together, over the connection (docs/peer_protocol.md 3).
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
using replication::Refusal;

namespace {

constexpr Duration kProposalTimeout = seconds(5);

}  // namespace

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

}  // namespace replblk::node
