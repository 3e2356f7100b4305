#include <cmath>
#include <nlohmann/json.hpp>

#include "control/status_text.hpp"

namespace replblk::control {

namespace {

using Json = nlohmann::ordered_json;
using node::ResourceStatus;
using node::SessionStatus;
using node::Status;
using node::VolumeStatus;

double two_decimals(double value) { return std::round(value * 100) / 100; }

// DRBD's keys first and in its order (sizes in KiB), then ours.
Json device(const ResourceStatus& resource, const VolumeStatus& volume) {
  return {{"volume", volume.volume},
          {"minor", volume.volume},
          {"disk-state", volume.disk_state},
          {"client", false},
          {"open", !resource.sessions.empty()},
          {"quorum", !resource.is_suspended},
          {"size", volume.size_bytes / 1024},
          {"read", volume.read_bytes / 1024},
          {"written", volume.written_bytes / 1024},
          {"al-writes", volume.activity_log_writes},
          {"bm-writes", volume.bitmap_page_writes},
          {"upper-pending", volume.upper_pending},
          {"lower-pending", volume.lower_pending},
          {"lun", volume.lun},
          {"backing-dev", volume.backing_path},
          {"disk-reason", volume.disk_reason},
          {"metadata-writes", volume.metadata_writes},
          {"al-hits", volume.activity_log_hits},
          {"al-misses", volume.activity_log_misses},
          {"al-waits", volume.activity_log_waits},
          {"al-evictions", volume.activity_log_evictions},
          {"mended-reads", volume.mended_reads}};
}

double mib_per_second(std::uint64_t bytes_per_second) {
  return two_decimals(static_cast<double>(bytes_per_second) / (1024.0 * 1024.0));
}

bool is_verifying(const VolumeStatus& volume) {
  return volume.is_syncing && volume.replication_state.starts_with("Verify");
}

/// While something is copied or compared. DRBD's keys: rs-* and ov-* count sectors of 512 bytes, dt1 is of late.
void add_sync_details(const VolumeStatus& volume, Json& json) {
  if (!volume.is_syncing) return;
  constexpr std::uint64_t kSector = 512;
  json["rs-total"] = volume.sync_total_bytes / kSector;
  json["rs-dt-start-ms"] = volume.sync_elapsed_ms;
  if (is_verifying(volume)) {
    json["ov-start-sector"] = volume.verify.start_bytes / kSector;
    json["ov-stop-sector"] = volume.verify.stop_bytes / kSector;
    json["ov-position"] = (volume.verify.start_bytes + volume.verify.compared_bytes) / kSector;
    json["ov-left"] = volume.sync_left_bytes / kSector;
    json["ov-skipped"] = 0;
  } else {
    json["rs-failed"] = 0;
    json["rs-same-csum"] = volume.sync_equal_bytes / kSector;
  }
  json["db1/dt1 [MiB/s]"] = mib_per_second(volume.sync_rate_bytes_per_second);
  json["estimated-seconds-to-finish"] = volume.sync_seconds_left;
  json["db/dt [MiB/s]"] = mib_per_second(volume.sync_average_rate_bytes_per_second);
  json["percent-resync-done"] = two_decimals(volume.percent_done);
}

/// Of the last verify that this node drove; null: none since its start.
Json online_verify(const node::VerifyStatus& verify) {
  if (!verify.is_known) return nullptr;
  Json ranges = Json::array();
  for (const auto& range : verify.differing_ranges) {
    ranges.push_back({{"offset", range.offset_bytes}, {"length", range.length_bytes}});
  }
  return {{"running", verify.is_running},
          {"complete", verify.is_complete},
          {"start", verify.start_bytes},
          {"stop", verify.stop_bytes},
          {"compared", verify.compared_bytes},
          {"differing-bytes", verify.differing_bytes},
          {"differing-ranges", verify.differing_ranges_count},
          {"ranges", std::move(ranges)},
          {"reason", verify.reason}};
}

Json peer_device(const VolumeStatus& volume) {
  const double size = static_cast<double>(volume.size_bytes);
  Json json = {
      {"volume", volume.volume},
      {"replication-state", volume.replication_state},
      {"peer-disk-state", volume.peer_disk_state},
      {"peer-client", false},
      {"resync-suspended", volume.resync_suspended},
      {"received", volume.received_bytes / 1024},
      {"sent", volume.sent_bytes / 1024},
      {"out-of-sync", volume.out_of_sync_bytes / 1024},
      {"pending", volume.pending},
      {"unacked", volume.unacked},
      {"has-sync-details", volume.is_syncing},
      {"has-online-verify-details", is_verifying(volume)},
      {"percent-in-sync",
       volume.size_bytes == 0 ? 0.0 : two_decimals(100 * (1 - static_cast<double>(volume.out_of_sync_bytes) / size))}};
  add_sync_details(volume, json);
  json["replication-reason"] = volume.replication_reason;
  json["online-verify"] = online_verify(volume.verify);
  return json;
}

Json connections(const Status& status, const ResourceStatus& resource) {
  Json list = Json::array();
  if (resource.peer_name.empty()) return list;
  Json peer_devices = Json::array();
  for (const VolumeStatus& volume : resource.volumes) peer_devices.push_back(peer_device(volume));
  list.push_back({{"peer-node-id", 1 - static_cast<int>(status.node_id)},
                  {"name", resource.peer_name},
                  {"connection-state", resource.connection_state},
                  {"congested", false},
                  {"peer-role", resource.peer_role},
                  {"tls", false},
                  {"paths", Json::array()},
                  {"peer_devices", std::move(peer_devices)},
                  {"connection-reason", resource.connection_reason}});
  return list;
}

Json sessions(const ResourceStatus& resource) {
  Json list = Json::array();
  for (const SessionStatus& session : resource.sessions) {
    list.push_back({{"initiator-name", session.initiator_name},
                    {"isid", session.isid},
                    {"address", session.address},
                    {"seconds", session.seconds},
                    {"commands-in-flight", session.commands_in_flight}});
  }
  return list;
}

/// Both sides of a split brain, or nothing.
Json split_brain(const ResourceStatus& resource) {
  Json sides = Json::array();
  for (const node::SplitSideStatus& side : resource.split) {
    Json volumes = Json::array();
    for (const node::ChangesStatus& changes : side.volumes) {
      Json ranges = Json::array();
      for (const blockdev::ByteRange& range : changes.ranges) {
        ranges.push_back({{"offset", range.offset_bytes}, {"length", range.length_bytes}});
      }
      volumes.push_back({{"volume", changes.volume},
                         {"changed-bytes", changes.changed_bytes},
                         {"ranges", std::move(ranges)},
                         {"all-ranges", changes.are_all_ranges}});
    }
    sides.push_back({{"node", side.node_name},
                     {"role", side.is_primary ? "Primary" : "Secondary"},
                     {"alone-since", calendar_text(side.alone_since_ms)},
                     {"volumes", std::move(volumes)}});
  }
  return sides;
}

Json virtual_ips(const ResourceStatus& resource) {
  Json list = Json::array();
  for (const node::VirtualIpStatus& ip : resource.virtual_ips)
    list.push_back({{"name", ip.name}, {"state", ip.state}, {"reason", ip.reason}});
  return list;
}

Json heartbeat_paths(const ResourceStatus& resource) {
  Json list = Json::array();
  for (const node::HeartbeatPathStatus& path : resource.heartbeat_paths) {
    list.push_back({{"name", path.name},
                    {"heard", path.is_heard},
                    {"heard-by-peer", path.is_heard_by_peer},
                    {"round-trip-us", path.round_trip_us},
                    {"reason", path.reason}});
  }
  return list;
}

Json resource_json(const Status& status, const ResourceStatus& resource) {
  Json devices = Json::array();
  for (const VolumeStatus& volume : resource.volumes) devices.push_back(device(resource, volume));
  return {{"name", resource.name},
          {"node-id", status.node_id},
          {"role", resource.role},
          {"suspended", resource.is_suspended},
          {"suspended-user", false},
          {"suspended-no-data", false},
          {"suspended-fencing", false},
          {"suspended-quorum", resource.is_suspended},
          {"force-io-failures", false},
          {"write-ordering", "flush"},
          {"devices", std::move(devices)},
          {"connections", connections(status, resource)},
          {"node-name", status.node_name},
          {"version", status.version},
          {"role-reason", resource.role_reason},
          {"suspended-reason", resource.suspended_reason},
          {"target", {{"iqn", resource.target_iqn}, {"serving", resource.is_serving}}},
          {"configuration", {{"term", resource.term}, {"members", resource.members}}},
          {"arbiter", resource.arbiter},
          {"current-generation", resource.current_generation},
          {"split-brain", split_brain(resource)},
          {"virtual-ips", virtual_ips(resource)},
          {"heartbeat-paths", heartbeat_paths(resource)},
          {"sessions", sessions(resource)}};
}

}  // namespace

std::string status_json(const Status& status) {
  Json list = Json::array();
  for (const ResourceStatus& resource : status.resources) list.push_back(resource_json(status, resource));
  return list.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace replblk::control
