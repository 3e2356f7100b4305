// What an operator sees of a resource, in DRBD's words; every state that is not normal with its reason.
#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "membership/transitions.hpp"
#include "node/resource.hpp"

namespace replblk::node {

namespace {

std::string_view replication_state(LinkPhase phase, bool is_paused) {
  switch (phase) {
    case LinkPhase::none:
    case LinkPhase::introducing:
    case LinkPhase::agreeing:
      return "Off";
    case LinkPhase::wait_created:
    case LinkPhase::established:
      return "Established";
    case LinkPhase::source_preparing:
      return "WFBitMapS";
    case LinkPhase::target_preparing:
      return "WFBitMapT";
    case LinkPhase::source_syncing:
      return is_paused ? "PausedSyncS" : "SyncSource";
    case LinkPhase::adding:
      return "SyncSource";
    case LinkPhase::target_syncing:
      return is_paused ? "PausedSyncT" : "SyncTarget";
  }
  RB_UNREACHABLE();
}

}  // namespace

std::string Resource::disk_state() const {
  if (!std::ranges::all_of(volumes_, [](const auto& volume) { return volume->failure.empty(); })) return "Failed";
  if (!is_opened_) return "Attaching";
  if (record_.is_inconsistent || record_.generations.current.is_none()) return "Inconsistent";
  if (record_.is_outdated) return "Outdated";
  if (may_have_lost_cache_) return "Consistent";
  return "UpToDate";
}

std::string Resource::disk_reason(const Volume& volume) const {
  if (!volume.failure.empty()) return volume.failure;
  if (!is_opened_) return {};
  if (record_.generations.current.is_none()) {
    return "just created: run `replblkctl primary --force` on the node whose data is to be kept";
  }
  if (record_.is_inconsistent) return "a resync towards this copy has not finished; it needs the peer";
  if (record_.is_outdated) return "the peer went on without this copy; it needs a resync from the peer";
  if (may_have_lost_cache_)
    return "this host restarted without a clean stop and its write cache may be lost; it needs the peer";
  return {};
}

std::string Resource::replication_reason() const {
  const bool is_syncing = phase_ == LinkPhase::source_syncing || phase_ == LinkPhase::target_syncing;
  if (!is_syncing || !pause_.is_paused()) return sync_failure_;
  std::string where;
  if (pause_.is_by_self) where = cluster_.nodes[self()].name;
  if (pause_.is_by_peer) where += (where.empty() ? "" : " and ") + cluster_.nodes[peer()].name;
  return fmt::format("paused by the administrator: run `replblkctl resume-sync {}` on {}", config_.name, where);
}

std::string Resource::peer_disk_state() const {
  switch (phase_) {
    case LinkPhase::none:
    case LinkPhase::introducing:
      return "DUnknown";
    case LinkPhase::wait_created:
    case LinkPhase::source_preparing:
    case LinkPhase::source_syncing:
    case LinkPhase::adding:
      return "Inconsistent";
    case LinkPhase::agreeing:
    case LinkPhase::target_preparing:
    case LinkPhase::target_syncing:
    case LinkPhase::established:
      return "UpToDate";
  }
  RB_UNREACHABLE();
}

VolumeStatus Resource::volume_status(const Volume& volume) const {
  VolumeStatus status;
  status.volume = volume.index;
  status.lun = volume.config.lun;
  status.backing_path = volume.config.disks[self()].path;
  status.disk_state = volume.disks.data == nullptr ? "Diskless" : disk_state();
  status.disk_reason = disk_reason(volume);
  status.replication_state = replication_state(phase_, pause_.is_paused());
  status.replication_reason = replication_reason();
  status.resync_suspended = pause_.to_drbd();
  status.peer_disk_state = peer_disk_state();
  if (!is_opened_) return status;
  blockdev::Store& store = *volume.store;
  status.size_bytes = store.geometry().size_bytes;
  status.read_bytes = store.counters().read_bytes;
  const blockdev::Store::Counters& counters = store.counters();
  status.written_bytes = counters.written_bytes;
  status.metadata_writes = counters.metadata_writes;
  status.bitmap_page_writes = counters.bitmap_page_writes;
  status.activity_log_writes = counters.activity_log.transactions;
  status.activity_log_hits = counters.activity_log.hits;
  status.activity_log_misses = counters.activity_log.misses;
  status.activity_log_waits = counters.activity_log.waits;
  status.activity_log_evictions = counters.activity_log.evictions;
  status.lower_pending = store.in_flight_count();
  status.upper_pending = volume.mirror->in_flight_count();
  status.out_of_sync_bytes = has_peer() ? store.dirty().dirty_bytes() : 0;
  status.pending = link_.count();
  status.unacked = server_->in_flight_count();
  if (channel_ != nullptr) {
    status.sent_bytes = channel_->sent_bytes();
    status.received_bytes = channel_->received_bytes();
  }
  if (phase_ == LinkPhase::source_syncing || phase_ == LinkPhase::adding) {
    const replication::Resync::Progress progress = volume.resync->progress();
    status.is_syncing = true;
    status.percent_done = progress.percent_done;
    status.sync_rate_bytes_per_second = progress.rate_bytes_per_second;
    status.sync_seconds_left = progress.seconds_left;
  }
  return status;
}

ResourceStatus Resource::status() const {
  ResourceStatus status;
  status.name = config_.name;
  status.role = is_primary_ ? "Primary" : "Secondary";
  status.target_iqn = config_.target.iqn;
  status.is_serving = target_ != nullptr && target_->is_serving();
  status.term = record_.configuration.term;
  for (NodeIndex node = 0; node < cluster_.nodes.size(); ++node) {
    if (!record_.configuration.has_member(node)) continue;
    status.members += (status.members.empty() ? "" : ",") + cluster_.nodes[node].name;
  }
  const blockdev::Generation& current = record_.generations.current;
  status.current_generation = current.is_none() ? "none" : fmt::format("{}:{:016x}", current.term, current.nonce);
  status.is_suspended = !suspended_reason_.empty() && is_primary_;
  status.suspended_reason = status.is_suspended ? suspended_reason_ : "";
  if (is_stopping_) {
    status.role_reason = "the resource was taken down; restart the daemon to bring it up";
  } else if (is_metadata_failed_) {
    status.role_reason = "the metadata cannot be written";
  } else if (is_opened_ && membership::is_in_doubt(record_)) {
    status.role_reason =
        "a change of configuration was proposed and its outcome is unknown; the peer is needed to decide it";
  }
  if (has_peer()) {
    status.peer_name = cluster_.nodes[peer()].name;
    status.connection_state =
        phase_ == LinkPhase::none ? (is_standalone_ ? "StandAlone" : connection_state_) : "Connected";
    status.connection_reason = connection_reason_;
    const bool is_known = phase_ != LinkPhase::none && phase_ != LinkPhase::introducing;
    status.peer_role = !is_known ? "Unknown" : is_peer_primary_ ? "Primary" : "Secondary";
  }
  for (const auto& volume : volumes_) status.volumes.push_back(volume_status(*volume));
  if (target_ != nullptr) {
    const Instant now = world_.loop.now();
    for (const iscsi::SessionInfo& session : target_->sessions()) {
      if (session.is_ending) continue;
      status.sessions.push_back({session.initiator_name, fmt::format("{:012x}", session.isid),
                                 to_string(session.address),
                                 static_cast<std::uint64_t>(to_ms(now - session.since) / 1000),
                                 static_cast<std::uint32_t>(session.commands_in_flight)});
    }
  }
  return status;
}

Resource::Inspection Resource::inspect() const {
  Inspection inspection;
  inspection.record = &record_;
  inspection.is_primary = is_primary_;
  inspection.is_serving = target_ != nullptr && target_->is_serving();
  inspection.phase = phase_;
  inspection.is_quiet = is_opened_ && persists_out_ == 0 && link_.count() == 0 && server_->is_idle();
  for (const auto& volume : volumes_) {
    inspection.stores.push_back(volume->store.get());
    inspection.mirrors.push_back(volume->mirror.get());
    if (volume->mirror == nullptr) continue;
    inspection.is_frozen = inspection.is_frozen || volume->mirror->is_frozen();
    inspection.is_quiet = inspection.is_quiet && volume->mirror->is_idle() && volume->store->in_flight_count() == 0;
  }
  return inspection;
}

}  // namespace replblk::node
