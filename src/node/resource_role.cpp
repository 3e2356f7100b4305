// Primary and secondary: who may serve (protocol.md 3.2) as far as hands decide it.
#include <fmt/format.h>

#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "membership/transitions.hpp"
#include "node/resource.hpp"

namespace replblk::node {

using blockdev::ResourceRecord;

namespace {

AdminReply refused(std::string message) { return {AdminOutcome::refused, std::move(message), {}}; }
AdminReply done(std::string message) { return {AdminOutcome::done, std::move(message), {}}; }

}  // namespace

AdminReplyCallback Resource::answered_in_any_case(AdminReplyCallback reply) {
  std::erase_if(open_verbs_, [](const auto& open) { return !*open; });
  const auto open = std::make_shared<AdminReplyCallback>(std::move(reply));
  open_verbs_.push_back(open);
  return [open](AdminReply answer) {
    if (*open) std::exchange(*open, nullptr)(std::move(answer));
  };
}

void Resource::answer_open_verbs(const std::string& what) {
  for (const auto& open : std::exchange(open_verbs_, {})) {
    if (*open) std::exchange(*open, nullptr)({AdminOutcome::failed, fmt::format("{}: {}", config_.name, what), {}});
  }
}

/// No half promotion: whether the virtual IPs can be held is known before the role is taken.
void Resource::make_primary(bool is_forced, AdminReplyCallback asked) {
  AdminReplyCallback reply = answered_in_any_case(std::move(asked));
  if (virtual_ips_.empty() || is_primary_ || is_stopping_ || !is_opened_) return promote(is_forced, std::move(reply));
  if (virtual_ips_.is_probing()) {
    return reply(
        refused(config_.name + ": a promotion is under way: the network is asked who has the virtual IP; try again"));
  }
  virtual_ips_.probe([this, is_forced, answer = std::move(reply)](const Result<void, std::string>& result) {
    if (!result && !is_forced) {
      return answer(refused(
          fmt::format("{}: {}; with --force the node becomes primary without it", config_.name, result.error())));
    }
    if (!result) log_warning("resource {}: becomes primary all the same, by force: {}", config_.name, result.error());
    promote(is_forced, answer);
  });
}

void Resource::promote(bool is_forced, AdminReplyCallback reply) {
  const auto refuse = [&](const std::string& why) { reply(refused(fmt::format("{}: {}", config_.name, why))); };
  if (is_stopping_) return refuse("the resource is being taken down");
  if (is_copy_failed_ || !are_volumes_open()) {
    return refuse("a volume is not available here: see `status`; nothing can be served without its disk");
  }
  if (!is_opened_) return refuse("the volumes are still being opened; try again");
  if (is_primary_) return reply(done(fmt::format("{}: already primary", config_.name)));
  is_discarding_ = false;  // Who serves a copy does not give it up.
  if (undo_ != nullptr) undo_->stop();
  if (is_changing_role_ || is_removing_peer_ || persists_out_ > 0) {
    return refuse("a change of role or configuration is under way; try again");
  }
  const bool is_connected = phase_ != LinkPhase::none && phase_ != LinkPhase::introducing;
  if (is_connected && is_peer_primary_) {
    return refuse("the peer is primary; make it secondary first (two primaries are never allowed)");
  }
  const bool is_whole = !record_.is_inconsistent && !record_.is_outdated && !record_.generations.current.is_none();
  if (phase_ == LinkPhase::established) {
    is_changing_role_ = true;
    end_verify("this node became primary");
    when_copiers_idle([this, answer = std::move(reply)] {
      if (phase_ == LinkPhase::established) return promote_with_peer(answer);
      is_changing_role_ = false;
      answer({AdminOutcome::failed,
              config_.name + ": the connection to the peer broke; look at `status` and try again",
              {}});
    });
    return;
  }
  if (is_whole && record_.configuration.is_sole(self()) && !membership::is_in_doubt(record_)) {
    is_changing_role_ = true;
    promote_alone(std::move(reply));
    return;
  }
  // Arbiter `none` (protocol.md 3.5): grants only to a node that was connected as a member until just now.
  const bool was_connected = connected_term_ != 0 && connected_term_ == record_.configuration.term;
  if (is_whole && was_connected && !is_connected && !may_have_lost_cache_ && !membership::is_in_doubt(record_)) {
    log_warning(
        "resource {}: no arbiter is configured: this node becomes primary without knowing that the peer has "
        "stopped; if it still serves, the copies split and the split is reported when the nodes meet",
        config_.name);
    is_changing_role_ = true;
    promote_alone(std::move(reply));
    return;
  }
  if (!is_forced) {
    if (record_.is_inconsistent) return refuse("the local copy is Inconsistent: a resync towards it has not finished");
    if (record_.is_outdated) return refuse("the local copy is Outdated: the peer went on without it");
    if (record_.generations.current.is_none()) {
      return refuse(
          "the local copy is Inconsistent: it was just created. On the node whose data is to be kept run "
          "`replblkctl primary --force` once");
    }
    if (is_connected) return refuse("the nodes are still agreeing; try again");
    return refuse(
        "the peer has not been seen since this daemon started, so it may have newer data or serve right now; "
        "if it is surely down and this copy is the one to keep, use --force");
  }
  is_changing_role_ = true;
  promote_by_force(std::move(reply));
}

/// The only member, or the peer is being left behind.
void Resource::promote_alone(AdminReplyCallback reply) {
  // No ghosts (protocol.md 4): nothing of the old primary's may still be on its way to the disks.
  struct Waiting {
    Resource* resource;
    AdminReplyCallback reply;
  };
  auto* waiting = new Waiting{this, std::move(reply)};
  if (!server_->is_idle()) RB_PROBE("promotion_waits_for_old_primarys_writes");
  server_->when_idle(Callback<void()>::with(waiting, [](void* context) {
    const std::unique_ptr<Waiting> owned(static_cast<Waiting*>(context));
    Resource& resource = *owned->resource;
    // A connection is bound to one configuration: the nodes meet anew.
    if (resource.phase_ == LinkPhase::source_syncing) RB_PROBE("promoted_while_peer_resyncs");
    if (resource.channel_ != nullptr) resource.end_channel("Unconnected", "this node becomes primary", nullptr);
    const auto make_record = [&resource] {
      return membership::become_only_member(resource.record_, resource.self(), resource.self(), 0,
                                            resource.fresh_nonce());
    };
    resource.record_alone(make_record, [&resource, answer = std::move(owned->reply)](bool is_good) {
      resource.is_changing_role_ = false;
      if (!is_good || resource.is_copy_failed_) {
        RB_PROBE("promotion_cannot_flush");
        answer({AdminOutcome::failed, resource.config_.name + ": the local disk failed", {}});
        return;
      }
      resource.serve();
      answer(done(
          fmt::format("{}: primary, alone at term {}", resource.config_.name, resource.record_.configuration.term)));
    });
  }));
}

/// Connected, both members, nobody primary: both agree on {t', both, me}.
void Resource::promote_with_peer(AdminReplyCallback reply) {
  struct Outcome {
    AdminReplyCallback reply;
    bool is_answered = false;
  };
  auto outcome = std::make_shared<Outcome>();
  outcome->reply = std::move(reply);
  propose(3, self(), membership::generations_for_pair(record_.generations), [this, outcome] {
    ResourceRecord next = membership::join_pair(record_, {proposed_term_, 3, self()},
                                                membership::generations_for_pair(record_.generations));
    next.is_primary_open = true;
    proposed_term_ = 0;
    persist(next, [this, outcome] {
      is_changing_role_ = false;
      outcome->is_answered = true;
      if (is_copy_failed_) {
        outcome->reply({AdminOutcome::failed, config_.name + ": the local disk failed", {}});
        return;
      }
      if (phase_ != LinkPhase::established) {
        // The connection broke after both had agreed: alone from here, at a higher term.
        RB_PROBE("promoted_by_both_and_peer_is_lost");
        serve();
        freeze_all();
        remove_peer();
      } else {
        link_.set_term(record_.configuration.term);
        server_->set_term(record_.configuration.term);
        connected_term_ = record_.configuration.term;
        serve();
      }
      outcome->reply(done(fmt::format("{}: primary at term {}", config_.name, record_.configuration.term)));
    });
  });
  on_proposal_lost_ = [this, outcome] {
    if (outcome->is_answered) return;
    RB_PROBE("promotion_lost_its_proposal");
    outcome->is_answered = true;
    is_changing_role_ = false;
    outcome->reply(
        {AdminOutcome::failed,
         config_.name + ": the connection to the peer broke while both agreed; look at `status` and try again",
         {}});
  };
}

void Resource::promote_by_force(AdminReplyCallback reply) {
  std::uint64_t above = 0;
  if (peer_introduction_.has_value())
    above = std::max(peer_introduction_->seen, peer_introduction_->configuration.term);
  RB_PROBE("forced_primary");
  log_warning("resource {}: forced primary: this copy is kept whatever the peer holds", config_.name);
  if (channel_ != nullptr) end_channel("Unconnected", "this node was forced primary", nullptr);
  const auto make_record = [this, above] { return membership::force_primary(record_, self(), above, fresh_nonce()); };
  record_alone(make_record, [this, answer = std::move(reply)](bool is_good) {
    is_changing_role_ = false;
    if (!is_good || is_copy_failed_) {
      answer({AdminOutcome::failed, config_.name + ": the local disk failed", {}});
      return;
    }
    serve();
    answer(done(fmt::format("{}: forced primary at term {}", config_.name, record_.configuration.term)));
  });
}

/// What was answered while two were members may be in this device's cache only, as far as this copy goes. Once the
/// record says that it is the only member, nobody asks the peer for it any more, not even after a loss of power: so the
/// device is flushed first. (protocol.md 3.4 has the flush after the record; then a power cut between the two loses
/// what P1 promises.)
void Resource::record_alone(std::function<ResourceRecord()> make_record, std::function<void(bool is_good)> then) {
  flush_all([this, make_record = std::move(make_record), then = std::move(then)](bool is_flushed) {
    if (!is_flushed || is_copy_failed_) return then(false);
    may_have_lost_cache_ = is_crashed_primary_ = false;
    persist(make_record(), [then] { then(true); });
  });
}

void Resource::serve() {
  RB_ASSERT(record_.is_primary_open && !is_copy_failed_);
  is_primary_ = true;
  is_crashed_primary_ = false;
  for (const auto& volume : volumes_) {
    volume->mirror->set_serving(true);
    if (phase_ == LinkPhase::established) volume->mirror->set_mirroring(true);
  }
  thaw_all();
  device_->load_reservations(record_.reservations);
  target_->set_serving(true);
  virtual_ips_.hold();
  log_info("resource {}: role Primary, term {}", config_.name, record_.configuration.term);
  send_role();
}

/// protocol.md 3.8, down: first the virtual IP goes, then initiators' connections are reset, whatever disks do.
void Resource::stop_serving(const std::string& reason) {
  virtual_ips_.release();
  if (target_ == nullptr) return;
  target_->set_serving(false);
  for (const auto& volume : volumes_) volume->mirror->set_serving(false);
  target_->drop_all(reason);
}

void Resource::make_secondary(AdminReplyCallback asked) {
  AdminReplyCallback reply = answered_in_any_case(std::move(asked));
  if (!is_opened_ || is_stopping_) return reply(refused(config_.name + ": the resource is not open"));
  if (!is_primary_) return reply(done(config_.name + ": already secondary"));
  if (is_changing_role_ || is_removing_peer_ || phase_ == LinkPhase::adding) {
    return reply(refused(config_.name + ": a change of role or configuration is under way; try again"));
  }
  is_changing_role_ = true;
  end_verify("this node became secondary");
  stop_serving("the node becomes secondary");
  drain_all([this, answer = std::move(reply)] {
    flush_all([this, answer](bool is_flushed) {
      if (!is_flushed)
        log_error("resource {}: the local disk cannot be flushed while becoming secondary", config_.name);
      settle_all([this, answer] { demoted(answer); });
    });
  });
}

void Resource::demoted(AdminReplyCallback reply) {
  refuse_keeping();
  ResourceRecord next = record_;
  if (record_.configuration.is_sole(self())) {
    if (phase_ == LinkPhase::source_syncing) RB_PROBE("demoted_while_peer_resyncs");
    // Gives the mandate up but stays the only whole copy; a restart then serves nothing by itself.
    if (channel_ != nullptr) end_channel("Unconnected", "this node became secondary", nullptr);
    next = membership::become_only_member(record_, self(), blockdev::kNoNode, 0, fresh_nonce());
  }
  next.is_primary_open = false;
  persist(next, [this, answer = std::move(reply)] {
    is_changing_role_ = false;
    is_primary_ = false;
    if (phase_ == LinkPhase::established) {
      for (const auto& volume : volumes_) volume->mirror->set_mirroring(false);
    }
    log_info("resource {}: role Secondary", config_.name);
    send_role();
    if (phase_ == LinkPhase::none) schedule_dial();
    answer(done(config_.name + ": secondary"));
  });
}

void Resource::send_role() {
  if (channel_ != nullptr && phase_ != LinkPhase::none && phase_ != LinkPhase::introducing) {
    channel_->send(replication::RoleChange{is_primary_});
  }
}

}  // namespace replblk::node
