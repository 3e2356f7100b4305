// What the administrator asks of resyncs: pause and resume (docs/peer_protocol.md 3).
#include <fmt/format.h>

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

void Resource::apply_pause() {
  for (const auto& volume : volumes_) volume->resync->set_paused(pause_.is_paused());
}

}  // namespace replblk::node
