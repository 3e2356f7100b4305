// What an operator sees of a resource, in DRBD's words; every state that is not normal with its reason.
#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "membership/transitions.hpp"
#include "node/resource.hpp"

namespace replblk::node {

using Activity = replication::SyncProgress::Activity;

std::string Resource::disk_state() const {
  if (!std::ranges::all_of(volumes_, [](const auto& volume) { return volume->failure.empty(); })) return "Failed";
  if (!is_opened_) return "Attaching";
  if (record_.is_inconsistent || record_.generations.current.is_none()) return "Inconsistent";
  if (record_.is_outdated) return "Outdated";
  if (machine_->may_have_lost_cache()) return "Consistent";
  return "UpToDate";
}

std::string Resource::disk_reason(const Volume& volume) const {
  if (!volume.failure.empty()) return volume.failure;
  if (!volume.trouble.empty()) return volume.trouble;
  if (!is_opened_) return {};
  if (record_.generations.current.is_none()) {
    return "just created: run `replblkctl primary --force` on the node whose data is to be kept";
  }
  if (record_.is_inconsistent) return "a resync towards this copy has not finished; it needs the peer";
  if (record_.is_outdated) return "the peer went on without this copy; it needs a resync from the peer";
  if (record_.may_be_older)
    return "the record may be an old one, without what this node promised last; it needs the peer (`primary --force` "
           "if the peer is lost)";
  if (machine_->may_have_lost_cache())
    return "this host restarted without a clean stop and its write cache may be lost; it needs the peer";
  if (undo_ != nullptr && undo_->is_running()) {
    return fmt::format("what is about to be overwritten is being kept in {}: {} of {} KiB", config_.undo_directory,
                       undo_->kept_bytes() / 1024, undo_->total_bytes() / 1024);
  }
  if (resizing_ != nullptr && !resizing_->sizes_bytes.empty())
    return fmt::format("grows to {} bytes: what is new is being zeroed", resizing_->sizes_bytes[volume.index]);
  return {};
}

std::string Resource::replication_state() const {
  switch (phase_) {
    case LinkPhase::none:
    case LinkPhase::introducing:
    case LinkPhase::agreeing:
      return "Off";
    case LinkPhase::wait_created:
      return "Established";
    case LinkPhase::established:
      if (activity() == Activity::verify) return "VerifyS";
      if (activity() == Activity::repair) return pause_.is_paused() ? "PausedSyncS" : "SyncSource";
      if (peer_progress_.activity == Activity::verify) return "VerifyT";
      if (peer_progress_.activity == Activity::repair) return pause_.is_paused() ? "PausedSyncT" : "SyncTarget";
      return "Established";
    case LinkPhase::source_preparing:
      return "WFBitMapS";
    case LinkPhase::target_preparing:
      return "WFBitMapT";
    case LinkPhase::source_syncing:
      return pause_.is_paused() ? "PausedSyncS" : "SyncSource";
    case LinkPhase::adding:
      return "SyncSource";
    case LinkPhase::target_syncing:
      return pause_.is_paused() ? "PausedSyncT" : "SyncTarget";
  }
  RB_UNREACHABLE();
}

void Resource::add_progress(const Volume& volume, VolumeStatus& status) const {
  if (const Activity here = activity(); here != Activity::none) {
    const replication::SyncMeter::Reading reading =
        here == Activity::verify ? volume.verify->progress() : volume.resync->progress();
    status.is_syncing = true;
    status.percent_done = reading.percent_done;
    status.sync_rate_bytes_per_second = reading.rate_bytes_per_second;
    status.sync_seconds_left = reading.seconds_left;
    status.sync_total_bytes = reading.total_bytes;
    status.sync_left_bytes = reading.left_bytes;
    status.sync_average_rate_bytes_per_second = reading.average_rate_bytes_per_second;
    status.sync_elapsed_ms = reading.elapsed_ms;
    status.sync_equal_bytes = here == Activity::verify ? 0 : volume.resync->equal_bytes();
    return;
  }
  if (peer_progress_.activity == Activity::none || volume.index >= peer_progress_.volumes.size()) return;
  const replication::SyncProgress::Volume& told = peer_progress_.volumes[volume.index];
  status.is_syncing = true;
  status.sync_total_bytes = told.total_bytes;
  status.sync_left_bytes = told.left_bytes;
  status.percent_done = told.total_bytes == 0 ? 100.0
                                              : 100.0 * static_cast<double>(told.total_bytes - told.left_bytes) /
                                                    static_cast<double>(told.total_bytes);
  status.sync_rate_bytes_per_second = told.rate_bytes_per_second;
  status.sync_seconds_left = told.seconds_left;
}

VerifyStatus Resource::verify_status(const Volume& volume) const {
  const replication::Verify::Report& report = volume.verify->report();
  VerifyStatus status;
  status.is_known = report.is_known;
  status.is_running = volume.is_verifying;
  status.is_complete = report.is_complete && !volume.is_verifying;
  status.start_bytes = report.range.offset_bytes;
  status.stop_bytes = report.range.end_bytes();
  status.compared_bytes = report.compared_bytes;
  status.differing_bytes = report.differences.bytes();
  status.differing_ranges_count = report.differences.ranges_count();
  status.differing_ranges = report.differences.listed();
  if (status.differing_ranges_count > 0) {
    status.reason =
        fmt::format("the copies differed in {} bytes, {} ranges, the first at byte {}", status.differing_bytes,
                    status.differing_ranges_count, status.differing_ranges.front().offset_bytes);
    status.reason += volume.store->dirty().is_clean()
                         ? "; they have been made equal since; look for the cause in the disks and controllers"
                         : fmt::format(
                               "; they are in the resync set: `replblkctl verify --repair NAME {}` overwrites "
                               "them with the copy of NAME, as does disconnect and connect with the primary's",
                               config_.name);
  }
  if (!report.failure.empty()) {
    status.reason += fmt::format("{}it ended early, {} of {} bytes compared: {}", status.reason.empty() ? "" : "; ",
                                 report.compared_bytes, report.range.length_bytes, report.failure);
  }
  return status;
}

std::string Resource::replication_reason() const {
  const bool is_syncing = phase_ == LinkPhase::source_syncing || phase_ == LinkPhase::target_syncing ||
                          activity() == Activity::repair || peer_progress_.activity == Activity::repair;
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
  if (volume.store != nullptr && !volume.store->notice().empty())
    status.disk_reason += (status.disk_reason.empty() ? "" : "; ") + volume.store->notice();
  status.replication_state = replication_state();
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
  status.mended_reads = volume.mirror->mended_reads_count();
  status.lower_pending = store.in_flight_count();
  status.upper_pending = volume.mirror->in_flight_count();
  status.out_of_sync_bytes = has_peer() ? store.dirty().dirty_bytes() : 0;
  status.pending = link_.count();
  status.unacked = server_->in_flight_count();
  if (channel_ != nullptr) {
    status.sent_bytes = channel_->sent_bytes();
    status.received_bytes = channel_->received_bytes();
  }
  add_progress(volume, status);
  status.verify = verify_status(volume);
  return status;
}

ResourceStatus Resource::status() const {
  ResourceStatus status;
  status.name = config_.name;
  status.role = is_primary_ ? "Primary" : "Secondary";
  status.target_iqn = config_.target.iqn;
  status.is_serving = target_ != nullptr && target_->is_serving();
  status.term = record_.configuration.term;
  for (std::size_t node = 0; node < cluster_.nodes.size(); ++node) {
    if (!record_.configuration.has_member(static_cast<NodeIndex>(node))) continue;
    status.members += (status.members.empty() ? "" : ",") + cluster_.nodes[node].name;
  }
  const blockdev::Generation& current = record_.generations.current;
  status.current_generation = current.is_none() ? "none" : fmt::format("{}:{:016x}", current.term, current.nonce);
  status.is_suspended = is_primary_ && machine_->service() != membership::Service::serving;
  status.suspended_reason = status.is_suspended ? machine_->reason() : "";
  if (is_stopping_) {
    status.role_reason = "the resource was taken down; restart the daemon to bring it up";
  } else if (is_copy_failed_) {
    status.role_reason = "the own copy failed; see its disk state";
  } else if (is_opened_ && !is_primary_) {
    status.role_reason = machine_->reason();
  }
  const auto add_reason = [&](const std::string& what) {
    status.role_reason += status.role_reason.empty() ? what : "; " + what;
  };
  if (is_opened_ && record_.is_standby) add_reason("standby: this node takes no role until unstandby");
  if (is_opened_ && record_.is_maintenance) add_reason("maintenance: no role moves by itself until maintenance-off");
  if (is_opened_ && machine_->is_peer_in_maintenance()) {
    add_reason(fmt::format(
        "maintenance on {}: no role moves by itself until maintenance-off there, or here when it is not heard",
        cluster_.nodes[peer()].name));
  }
  if (has_peer()) {
    constexpr std::array kArbiterNames{"none", "etcd", "ping"};
    status.arbiter = kArbiterNames[cluster_.arbiter.index()];
    status.peer_name = cluster_.nodes[peer()].name;
    status.connection_state =
        phase_ == LinkPhase::none ? (is_standalone_ ? "StandAlone" : connection_state_) : "Connected";
    status.connection_reason = connection_reason_;
    if (phase_ == LinkPhase::none && connection_state_ == "Connecting" && self() == 0 && connection_reason_.empty()) {
      status.connection_reason = "waits for " + status.peer_name + " to connect";
    }
    if (phase_ == LinkPhase::introducing) {
      status.connection_reason = my_introduction_.has_value()
                                     ? "waits until the peer introduces itself: a change of its own is under way there"
                                     : "introduces itself once a change of its own is done";
    }
    const bool is_known = phase_ != LinkPhase::none && phase_ != LinkPhase::introducing;
    status.split = split_;
    status.peer_role = !is_known ? "Unknown" : is_peer_primary_ ? "Primary" : "Secondary";
  }
  status.virtual_ips = virtual_ips_.status();
  if (has_peer() && is_opened_) status.heartbeat_paths = heartbeats_.status();
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
  inspection.resource = this;
  inspection.is_open = volumes_.front()->mirror != nullptr;
  inspection.record = &record_;
  inspection.is_primary = is_primary_;
  inspection.machine = machine_.get();
  inspection.is_serving = target_ != nullptr && target_->is_serving();
  inspection.phase = phase_;
  inspection.is_copy_failed = is_copy_failed_;
  inspection.frozen_since = frozen_since_;
  inspection.is_recording = persists_out_ > 0;
  inspection.is_repairing = is_repairing_;
  inspection.is_quiet =
      is_opened_ && persists_out_ == 0 && keepings_.empty() && link_.count() == 0 && server_->is_idle();
  for (const auto& volume : volumes_) {
    if (volume->mirror == nullptr) continue;
    inspection.is_frozen = inspection.is_frozen || volume->mirror->is_frozen();
    inspection.is_quiet = inspection.is_quiet && volume->mirror->is_idle() && volume->store->in_flight_count() == 0;
  }
  return inspection;
}

std::vector<blockdev::Store*> Resource::Inspection::stores() const {
  std::vector<blockdev::Store*> all;
  for (const auto& volume : resource->volumes_) all.push_back(volume->store.get());
  return all;
}

std::vector<const replication::Verify*> Resource::Inspection::verifies() const {
  std::vector<const replication::Verify*> all;
  for (const auto& volume : resource->volumes_) all.push_back(volume->verify.get());
  return all;
}

}  // namespace replblk::node
