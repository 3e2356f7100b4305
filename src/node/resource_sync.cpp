// What the administrator asks of resyncs: pause and resume (docs/peer_protocol.md 3); and the watch over their
// progress.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "membership/transitions.hpp"
#include "node/resource.hpp"

namespace replblk::node {

namespace {

AdminReply refused(std::string message) { return {AdminOutcome::refused, std::move(message), {}}; }
AdminReply done(std::string message) { return {AdminOutcome::done, std::move(message), {}}; }

}  // namespace

void Resource::pause_sync(AdminReplyCallback reply) {
  if (!has_peer()) return reply(refused(config_.name + ": there is no second node in the configuration"));
  if (!pause_.is_by_self) log_info("resource {}: resyncs are paused by the administrator", config_.name);
  pause_.is_by_self = true;
  send_pause();
  apply_pause();
  reply(done(config_.name + ": resyncs are paused until resume-sync on this node"));
}

void Resource::resume_sync(AdminReplyCallback reply) {
  if (!has_peer()) return reply(refused(config_.name + ": there is no second node in the configuration"));
  if (pause_.is_by_self) log_info("resource {}: resyncs are resumed by the administrator", config_.name);
  pause_.is_by_self = false;
  send_pause();
  apply_pause();
  reply(done(pause_.is_by_peer ? fmt::format("{}: resumed here; {} still pauses: run resume-sync there too",
                                             config_.name, cluster_.nodes[peer()].name)
                               : config_.name + ": resyncs are not paused"));
}

/// Until this node has introduced itself the Introduction will say it.
void Resource::send_pause() {
  if (channel_ == nullptr || !my_introduction_.has_value()) return;
  channel_->send(replication::SyncPause{pause_.is_by_self});
}

void Resource::receive(const replication::SyncPause& message) {
  pause_.is_by_peer = message.is_paused;
  apply_pause();
}

replication::ResyncMode Resource::choose_mode(const replication::Plan& plan) const {
  using replication::ResyncMode;
  switch (config_.resync.checksum) {
    case ChecksumUse::always:
      return ResyncMode::compare_first;
    case ChecksumUse::never:
      return ResyncMode::copy;
    case ChecksumUse::automatic:
      break;
  }
  // A copy that was just made by create-md has little in common with this one: reading it first would be for nothing.
  if (plan.row == replication::MeetingRow::one_created) return ResyncMode::copy;
  const bool has_crashed =
      is_set_coarse_ || my_introduction_->is_crashed_primary || peer_introduction_->is_crashed_primary;
  return has_crashed || plan.is_full ? ResyncMode::compare_first : ResyncMode::copy;
}

bool Resource::end_stuck_sync(Instant now) {
  if (phase_ != watched_phase_) {
    watched_phase_ = phase_;
    progress_watch_.stop();
  }
  // The target leaves it to the source: what the source does not send, it has a reason for.
  const bool is_watched = phase_ == LinkPhase::source_preparing || phase_ == LinkPhase::target_preparing ||
                          phase_ == LinkPhase::source_syncing;
  if (!is_watched) return false;
  std::uint64_t left = 0;
  for (const auto& volume : volumes_) left += volume->store->dirty().dirty_blocks_count();
  if (!progress_watch_.is_running()) progress_watch_.start(now, left);
  const bool is_paused = pause_.is_paused() && phase_ == LinkPhase::source_syncing;
  const bool is_stuck = progress_watch_.is_stuck(now, left, is_paused);
  if (phase_ == LinkPhase::source_syncing && progress_watch_.has_progressed()) {
    dial_backoff_ = cluster_.connect_interval;
    sync_failure_.clear();
  }
  if (!is_stuck) return false;
  sync_failure_ = fmt::format(
      "the resync made no progress for {} s ({}); the nodes connect anew: look into the logs of both for errors of the "
      "disks",
      to_ms(replication::ProgressWatch::kLimit) / 1000,
      phase_ == LinkPhase::source_syncing ? fmt::format("{} blocks left", left) : "it did not begin");
  log_error("resource {}: {}", config_.name, sync_failure_);
  dial_backoff_ = std::min(dial_backoff_ * 2, kDialBackoffMax);
  const replication::Refusal refusal{sync_failure_, false};
  end_channel("Timeout", sync_failure_, &refusal);
  return true;
}

void Resource::apply_pause() {
  if (!is_opened_) return;  // all_opened() comes back.
  for (const auto& volume : volumes_) volume->resync->set_paused(pause_.is_paused());
}

// ---- verify and repair -----------------------------------------------------------------------------------------

std::string Resource::why_no_verify() const {
  if (phase_ != LinkPhase::established || is_stopping_) {
    return "a verify compares two members: the nodes must be connected, and both copies UpToDate; see `status`";
  }
  if (resizing_ != nullptr) return "a resize is under way; see `status`";
  return why_members_are_busy();
}

std::string Resource::why_members_are_busy() const {
  // A table of reservations on its way to the record changes neither role nor configuration.
  const bool is_record_changing = persists_out_ > 0 && !is_keeping_;
  if (is_record_changing || (!is_keeping_ && !machine_->is_settled())) {
    return "a change of role or configuration is under way; try again";
  }
  if (activity() != replication::SyncProgress::Activity::none ||
      peer_progress_.activity != replication::SyncProgress::Activity::none) {
    return "a verify is already running; see `status`";
  }
  if (!are_copiers_idle()) return "the last verify is still ending; try again";
  return {};
}

void Resource::verify(const AdminRequest& request, AdminReplyCallback reply) {
  const auto refuse = [&](const std::string& why) { reply(refused(fmt::format("{}: {}", config_.name, why))); };
  if (!has_peer()) return refuse("there is no second node in the configuration");
  if (const std::string why = why_no_verify(); !why.empty()) return refuse(why);
  if (std::ranges::all_of(
          volumes_, [&](const auto& volume) { return request.start_bytes >= volume->store->geometry().size_bytes; })) {
    return refuse(fmt::format("--start {} is beyond the end of every volume", request.start_bytes));
  }
  const NodeIndex primary = is_primary_ ? self() : is_peer_primary_ ? peer() : blockdev::kNoNode;
  NodeIndex driver = primary == blockdev::kNoNode ? self() : primary;
  const bool is_repair = !request.repair_from.empty();
  if (is_repair) {
    NodeIndex from = blockdev::kNoNode;
    if (request.repair_from == "local" || request.repair_from == cluster_.nodes[self()].name) from = self();
    if (request.repair_from == "peer" || request.repair_from == cluster_.nodes[peer()].name) from = peer();
    if (from == blockdev::kNoNode) {
      return refuse(fmt::format("--repair {}: local, peer, {} or {}", request.repair_from, cluster_.nodes[0].name,
                                cluster_.nodes[1].name));
    }
    if (primary != blockdev::kNoNode && from != primary) {
      return refuse(fmt::format(
          "the copy of {} would be overwritten under its initiators: make it secondary and {} primary first",
          cluster_.nodes[primary].name, cluster_.nodes[from].name));
    }
    driver = from;
  }
  if (driver == self()) {
    begin_verify({request.start_bytes, request.stop_bytes - request.start_bytes}, is_repair);
    return reply(done(config_.name + ": the verify has begun; `status` shows progress and result"));
  }
  channel_->send(replication::VerifyRequest{request.start_bytes, request.stop_bytes, is_repair});
  reply(done(fmt::format("{}: {} was asked to verify; its `status` shows progress and result", config_.name,
                         cluster_.nodes[driver].name)));
}

void Resource::receive(const replication::VerifyRequest& message) {
  std::string why = why_no_verify();
  // The role may have moved while the request was on its way: a served copy is not overwritten.
  if (why.empty() && message.is_repair && is_peer_primary_) why = "the peer's copy is Primary";
  const bool is_beyond = std::ranges::all_of(
      volumes_, [&](const auto& volume) { return message.start_bytes >= volume->store->geometry().size_bytes; });
  if (why.empty() && is_beyond) why = "the range is beyond the end of every volume";
  if (!why.empty()) {
    log_warning("resource {}: the peer's request for a verify is not followed: {}", config_.name, why);
    return;
  }
  begin_verify({message.start_bytes, message.stop_bytes - message.start_bytes}, message.is_repair);
}

void Resource::begin_verify(blockdev::ByteRange range, bool is_repair) {
  is_verify_repair_ = is_repair;
  ++verify_number_;
  log_info("resource {}: VerifyS{}, term {}", config_.name, is_repair ? ", to repair the peer's copy" : "",
           record_.configuration.term);
  for (const auto& volume : volumes_) {
    if (range.offset_bytes >= volume->store->geometry().size_bytes) continue;
    volume->is_verifying = true;
    volume->verify->start(range, Callback<void()>::to<&Volume::on_verified>(*volume));
  }
  send_progress();
}

void Resource::Volume::on_verified() { resource->volume_verified(*this); }

void Resource::volume_verified(Volume& volume) {
  RB_ASSERT(volume.is_verifying);
  // Nothing else remembers it (no extent is active for it): it must outlive a crash before anybody hears of it.
  save_bitmaps([this, &volume, number = verify_number_] {
    if (number != verify_number_) return;
    volume.is_verifying = false;
    if (!is_verifying()) verified();
  });
}

void Resource::verified() {
  bool is_dirty = false;
  for (const auto& volume : volumes_) {
    const replication::Verify::Report& report = volume->verify->report();
    is_dirty = is_dirty || !volume->store->dirty().is_clean();
    log_info("resource {}: volume {}: verify compared {} KiB: {} differ in {} ranges{}{}", config_.name, volume->index,
             report.compared_bytes / 1024, report.differences.bytes(), report.differences.ranges_count(),
             report.failure.empty() ? "" : "; it ended early: ", report.failure);
  }
  const bool is_different = std::ranges::any_of(
      volumes_, [](const auto& volume) { return volume->verify->report().differences.bytes() > 0; });
  if (is_different) tell(HandlerEvent::out_of_sync);
  if (is_verify_repair_ && is_dirty) begin_repair();
  send_progress();
}

/// Both stay members: the peer's copy only gets better, piece by piece, each under its range lock.
void Resource::begin_repair() {
  is_repairing_ = true;
  log_info("resource {}: what differs is overwritten by the copy of this node", config_.name);
  for (const auto& volume : volumes_) {
    volume->is_resynced = volume->store->dirty().is_clean();
    // Without a role nothing is mirrored, but the flushes that clear bits must reach the peer.
    volume->mirror->set_mirroring(true);
    if (volume->is_resynced) continue;
    volume->resync->start(replication::ResyncMode::copy, Callback<void()>::to<&Volume::on_resynced>(*volume));
  }
}

void Resource::volume_repaired() {
  if (!std::ranges::all_of(volumes_, [](const auto& volume) { return volume->is_resynced; })) return;
  is_repairing_ = false;
  for (const auto& volume : volumes_) volume->mirror->set_mirroring(is_primary_);
  log_info("resource {}: what differed is equal again", config_.name);
  send_progress();
}

void Resource::end_verify(const std::string& why) {
  if (!is_opened_) return;
  ++verify_number_;
  if (is_verifying() && !is_copy_failed_) save_bitmaps([] {});
  for (const auto& volume : volumes_) {
    volume->verify->stop(why);
    volume->is_verifying = false;
  }
  if (is_repairing_) {
    is_repairing_ = false;
    for (const auto& volume : volumes_) {
      volume->resync->stop();
      if (!is_primary_) volume->mirror->set_mirroring(false);
    }
    log_warning("resource {}: the repair ended early: {}; what is left is in the resync set", config_.name, why);
  }
  if (phase_ == LinkPhase::established) send_progress();
}

// ---- one copy is given up ----------------------------------------------------------------------------------------

std::string Resource::why_no_invalidation() const {
  if (!has_peer()) return "there is no second node in the configuration";
  if (!is_opened_ || is_stopping_ || is_copy_failed_) return "the resource is not open here; see `status`";
  if (phase_ != LinkPhase::established)
    return "a copy is given up only while both are connected and UpToDate: now it may be the only good one";
  if (!machine_->is_settled() || persists_out_ > 0 || is_keeping_)
    return "a change of role or configuration is under way; try again";
  return {};
}

/// It serves from the moment when its promotion was agreed to here; the news that it does comes later.
bool Resource::may_peer_serve() const { return is_peer_primary_ || record_.configuration.primary == peer(); }

/// The peer does it: at no moment is there less than one whole copy that knows to be one.
void Resource::invalidate(AdminReplyCallback reply) {
  std::string why = why_no_invalidation();
  if (why.empty() && is_primary_) why = "this node is Primary: its copy would be overwritten under its initiators";
  if (!why.empty()) return reply(refused(config_.name + ": " + why));
  channel_->send(replication::Invalidate{});
  reply(done(fmt::format("{}: {} was asked to overwrite this copy; `status` shows the resync", config_.name,
                         cluster_.nodes[peer()].name)));
}

void Resource::invalidate_remote(AdminReplyCallback reply) {
  std::string why = why_no_invalidation();
  if (why.empty() && may_peer_serve()) why = "the peer is Primary: its copy would be overwritten under its initiators";
  if (!why.empty()) return reply(refused(config_.name + ": " + why));
  overwrite_peer();
  reply(done(config_.name + ": the peer's copy is overwritten; `status` shows the resync"));
}

void Resource::receive(const replication::Invalidate&) {
  std::string why = why_no_invalidation();
  if (why.empty() && may_peer_serve()) why = "the peer is Primary";
  if (why.empty()) return overwrite_peer();
  log_warning("resource {}: the peer's request to overwrite its copy is not followed: {}", config_.name, why);
}

/// Every block counts as different, durably; then this node goes on alone, and the next meeting is a resync.
void Resource::overwrite_peer() {
  log_warning("resource {}: the administrator gives the copy of {} up: it is overwritten by this one", config_.name,
              cluster_.nodes[peer()].name);
  end_verify("the peer's copy is overwritten");
  // Else bits of all blocks would stay behind at a Secondary.
  machine_->prepare_to_leave_peer();
  for (const auto& volume : volumes_) volume->store->dirty().set_all();
  save_bitmaps(for_this_channel([this] {
    const membership::Verdict verdict = machine_->leave_peer(world_.loop.now());
    if (!verdict.is_accepted) log_warning("resource {}: {}; try again", config_.name, verdict.message);
    pump();
  }));
}

// ---- what both need --------------------------------------------------------------------------------------------

bool Resource::are_copiers_idle() const {
  return std::ranges::all_of(volumes_,
                             [](const auto& volume) { return volume->resync->is_idle() && volume->verify->is_idle(); });
}

void Resource::when_copiers_idle(std::function<void()> then) {
  on_copiers_idle_.push_back(std::move(then));
  check_copiers_idle();
}

void Resource::check_copiers_idle() {
  if (on_copiers_idle_.empty() || !are_copiers_idle()) return;
  for (const auto& then : std::exchange(on_copiers_idle_, {})) then();
}

replication::SyncProgress::Activity Resource::activity() const {
  using Activity = replication::SyncProgress::Activity;
  if (phase_ == LinkPhase::source_syncing || phase_ == LinkPhase::adding) return Activity::resync;
  if (is_repairing_) return Activity::repair;
  return is_verifying() ? Activity::verify : Activity::none;
}

bool Resource::is_verifying() const {
  return std::ranges::any_of(volumes_, [](const auto& volume) { return volume->is_verifying; });
}

/// Tells the peer, for its status, at each change and each second.
void Resource::send_progress() {
  using Activity = replication::SyncProgress::Activity;
  const Activity now_doing = activity();
  const Instant now = world_.loop.now();
  const bool is_due = now_doing != Activity::none && now - last_progress_sent_ >= seconds(1);
  if (channel_ == nullptr || !my_introduction_.has_value() || (now_doing == told_activity_ && !is_due)) return;
  told_activity_ = now_doing;
  last_progress_sent_ = now;
  replication::SyncProgress message;
  message.activity = now_doing;
  for (const auto& volume : volumes_) {
    const replication::SyncMeter::Reading reading =
        now_doing == Activity::verify ? volume->verify->progress() : volume->resync->progress();
    message.volumes.push_back(
        {reading.total_bytes, reading.left_bytes, reading.rate_bytes_per_second, reading.seconds_left});
  }
  channel_->send(message);
}

void Resource::receive(const replication::SyncProgress& message) { peer_progress_ = message; }

}  // namespace replblk::node
