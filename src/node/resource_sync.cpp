// What the administrator asks of resyncs: pause and resume (docs/peer_protocol.md 3); and the watch over their
// progress.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "node/resource.hpp"

namespace replblk::node {

namespace {

AdminReply refused(std::string message) { return {AdminOutcome::refused, std::move(message), {}}; }
AdminReply done(std::string message) { return {AdminOutcome::done, std::move(message), {}}; }

}  // namespace

void Resource::pause_sync(AdminReplyCallback reply) {
  if (!has_peer()) return reply(refused(config_.name + ": there is no second node in the configuration"));
  // A peer of an older version reads of the pause when the nodes meet, not before: only the source can pause then.
  const bool is_target = phase_ == LinkPhase::target_preparing || phase_ == LinkPhase::target_syncing;
  if (is_target && channel_->protocol_version() < replication::kVersionOfSyncPause) {
    return reply(refused(fmt::format("{}: {} runs an older version, which cannot be told: pause the resync there",
                                     config_.name, cluster_.nodes[peer()].name)));
  }
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
  if (channel_->protocol_version() < replication::kVersionOfSyncPause) return;
  channel_->send(replication::SyncPause{pause_.is_by_self});
}

void Resource::receive(const replication::SyncPause& message) {
  pause_.is_by_peer = message.is_paused;
  apply_pause();
}

replication::ResyncMode Resource::choose_mode(const replication::Plan& plan) const {
  using replication::ResyncMode;
  if (channel_->protocol_version() < replication::kVersionOfChecksums) return ResyncMode::copy;
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
  for (const auto& volume : volumes_) volume->resync->set_paused(pause_.is_paused());
}

}  // namespace replblk::node
