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
          {"al-evictions", volume.activity_log_evictions}};
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
      {"has-sync-details", false},  // DRBD's rs-* counters, in its form without them
      {"has-online-verify-details", false},
      {"percent-in-sync",
       volume.size_bytes == 0 ? 0.0 : two_decimals(100 * (1 - static_cast<double>(volume.out_of_sync_bytes) / size))}};
  json["replication-reason"] = volume.replication_reason;
  if (volume.is_syncing) {
    json["percent-resync-done"] = two_decimals(volume.percent_done);
    json["estimated-seconds-to-finish"] = volume.sync_seconds_left;
    json["db1/dt1 [MiB/s]"] = two_decimals(static_cast<double>(volume.sync_rate_bytes_per_second) / (1024.0 * 1024.0));
  }
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
          {"current-generation", resource.current_generation},
          {"sessions", sessions(resource)}};
}

}  // namespace

std::string status_json(const Status& status) {
  Json list = Json::array();
  for (const ResourceStatus& resource : status.resources) list.push_back(resource_json(status, resource));
  return list.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace replblk::control
