#include "control/status_text.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace replblk::control {
namespace {

node::Status healthy() {
  node::VolumeStatus volume;
  volume.volume = 0;
  volume.backing_path = "/dev/vdb";
  volume.disk_state = "UpToDate";
  volume.replication_state = "Established";
  volume.peer_disk_state = "UpToDate";
  volume.size_bytes = std::uint64_t{1} << 30;
  volume.read_bytes = 10240;
  volume.written_bytes = 2048;
  volume.metadata_writes = 9;
  volume.activity_log_writes = 7;
  volume.bitmap_page_writes = 3;
  node::ResourceStatus resource;
  resource.name = "iscsi_data";
  resource.role = "Primary";
  resource.target_iqn = "iqn.2026-11.org.example:iscsi-data";
  resource.is_serving = true;
  resource.peer_name = "pcmk-2";
  resource.connection_state = "Connected";
  resource.peer_role = "Secondary";
  resource.volumes = {volume};
  return {.node_name = "pcmk-1", .node_id = 0, .version = "0.1.0", .resources = {resource}};
}

// Scripts made for drbdadm parse this.
TEST(StatusText, Healthy_pair_prints_as_drbdadm_does) {
  EXPECT_EQ(status_text(healthy(), {}),
            "iscsi_data role:Primary\n"
            "  disk:UpToDate\n"
            "  pcmk-2 role:Secondary\n"
            "    peer-disk:UpToDate\n");
  EXPECT_EQ(status_reasons(healthy()), "");
}

// After a split a person must choose: what each side would lose has to be on the screen.
TEST(StatusText, A_split_brain_says_on_each_side_how_much_was_changed_where_and_since_when) {
  node::Status status = healthy();
  node::ResourceStatus& resource = status.resources[0];
  resource.connection_state = "StandAlone";
  resource.connection_reason = "split brain";
  resource.split = {
      {.node_name = "pcmk-1",
       .is_primary = true,
       .alone_since_ms = 1764110448000,
       .volumes = {{.volume = 0, .changed_bytes = 12288, .ranges = {{0, 4096}, {65536, 4096}}, .are_all_ranges = false},
                   {.volume = 1, .changed_bytes = 0, .ranges = {}, .are_all_ranges = true}}},
      {.node_name = "pcmk-2", .is_primary = false, .alone_since_ms = 0, .volumes = {}}};
  EXPECT_EQ(status_reasons(status),
            "iscsi_data: connection StandAlone: split brain\n"
            "iscsi_data: split brain: pcmk-1 (Primary), alone since 2025-11-25T22:40:48Z, has changed volume 0: 12288 "
            "bytes at 0+4096, 65536+4096, and more; volume 1: 0 bytes\n"
            "iscsi_data: split brain: pcmk-2 (Secondary), alone since ?, has changed\n");
  const auto json = nlohmann::json::parse(status_json(status)).at(0).at("split-brain");
  EXPECT_EQ(json.at(0).at("alone-since"), "2025-11-25T22:40:48Z");
  EXPECT_EQ(json.at(0).at("volumes").at(0).at("ranges").at(1).at("offset"), 65536);
  EXPECT_EQ(json.at(0).at("volumes").at(0).at("all-ranges"), false);
  EXPECT_EQ(json.at(1).at("role"), "Secondary");
  EXPECT_TRUE(nlohmann::json::parse(status_json(healthy())).at(0).at("split-brain").empty());
}

TEST(StatusText, A_virtual_ip_that_cannot_be_set_says_why) {
  node::Status status = healthy();
  status.resources[0].virtual_ips = {{"192.0.2.100/24 on eth0", "held", ""},
                                     {"2001:db8::1/64 on eth1", "failed", "no carrier"}};
  EXPECT_EQ(status_reasons(status), "iscsi_data: virtual IP failed: no carrier\n");
  EXPECT_NE(status_text(status, {.is_verbose = true}).find("\n  virtual-ip:192.0.2.100/24 on eth0 state:held\n"),
            std::string::npos);
  EXPECT_EQ(status_text(status, {}).find("virtual-ip"), std::string::npos) << "drbdadm's grammar has no such line";
  EXPECT_EQ(nlohmann::json::parse(status_json(status)).at(0).at("virtual-ips").at(1).at("state"), "failed");
}

TEST(StatusText, Resynchronization_prints_its_progress) {
  node::Status status = healthy();
  node::VolumeStatus& volume = status.resources[0].volumes[0];
  volume.replication_state = "SyncSource";
  volume.peer_disk_state = "Inconsistent";
  volume.is_syncing = true;
  volume.percent_done = 1.0337;
  EXPECT_EQ(status_text(status, {}),
            "iscsi_data role:Primary\n"
            "  disk:UpToDate\n"
            "  pcmk-2 role:Secondary\n"
            "    replication:SyncSource peer-disk:Inconsistent done:1.03\n");
}

TEST(StatusText, Paused_resynchronization_says_who_pauses_and_what_to_do) {
  node::Status status = healthy();
  node::VolumeStatus& volume = status.resources[0].volumes[0];
  volume.replication_state = "PausedSyncS";
  volume.peer_disk_state = "Inconsistent";
  volume.is_syncing = true;
  volume.percent_done = 50;
  volume.resync_suspended = "user,peer";
  volume.replication_reason = "paused by the administrator";
  EXPECT_EQ(status_text(status, {}),
            "iscsi_data role:Primary\n"
            "  disk:UpToDate\n"
            "  pcmk-2 role:Secondary\n"
            "    replication:PausedSyncS peer-disk:Inconsistent done:50.00 resync-suspended:user,peer\n");
  EXPECT_EQ(status_reasons(status), "iscsi_data: volume 0 replication PausedSyncS: paused by the administrator\n");
}

TEST(StatusText, Peer_that_is_away_shows_the_connection_and_nothing_of_the_peer) {
  node::Status status = healthy();
  node::ResourceStatus& resource = status.resources[0];
  resource.role = "Secondary";
  resource.connection_state = "Connecting";
  resource.connection_reason = "192.0.2.2:7789 refused the connection; is replblkd running on pcmk-2?";
  resource.peer_role = "Unknown";
  resource.volumes[0].replication_state = "Off";
  resource.volumes[0].peer_disk_state = "DUnknown";
  resource.volumes[0].disk_state = "Outdated";
  resource.volumes[0].disk_reason = "the peer has newer data";
  EXPECT_EQ(status_text(status, {}),
            "iscsi_data role:Secondary\n"
            "  disk:Outdated\n"
            "  pcmk-2 connection:Connecting\n");
  EXPECT_EQ(
      status_reasons(status),
      "iscsi_data: volume 0 disk Outdated: the peer has newer data\n"
      "iscsi_data: connection Connecting: 192.0.2.2:7789 refused the connection; is replblkd running on pcmk-2?\n");
}

TEST(StatusText, Volumes_are_numbered_when_there_are_several_or_it_is_not_zero) {
  node::Status status = healthy();
  status.resources[0].volumes[0].volume = 3;
  EXPECT_EQ(status_text(status, {}),
            "iscsi_data role:Primary\n"
            "  volume:3 disk:UpToDate\n"
            "  pcmk-2 role:Secondary\n"
            "    volume:3 peer-disk:UpToDate\n");
  status.resources[0].volumes.push_back(healthy().resources[0].volumes[0]);
  status.resources[0].volumes[1].disk_state = "Diskless";
  status.resources.push_back(healthy().resources[0]);
  EXPECT_EQ(status_text(status, {}),
            "iscsi_data role:Primary\n"
            "  volume:3 disk:UpToDate\n"
            "  volume:0 disk:Diskless client:no\n"
            "  pcmk-2 role:Secondary\n"
            "    volume:3 peer-disk:UpToDate\n"
            "    volume:0 peer-disk:UpToDate\n"
            "\n"
            "iscsi_data role:Primary\n"
            "  disk:UpToDate\n"
            "  pcmk-2 role:Secondary\n"
            "    peer-disk:UpToDate\n");
}

TEST(StatusText, Single_node_has_no_connection_and_held_commands_are_shown) {
  node::Status status = healthy();
  status.resources[0].peer_name.clear();
  status.resources[0].connection_state.clear();
  status.resources[0].is_suspended = true;
  EXPECT_EQ(status_text(status, {}),
            "iscsi_data role:Primary suspended:quorum\n"
            "  disk:UpToDate quorum:no\n");
}

TEST(StatusText, Verbose_and_statistics_show_everything) {
  EXPECT_EQ(
      status_text(healthy(), {.is_verbose = true, .has_statistics = true}),
      "iscsi_data node-id:0 role:Primary suspended:no force-io-failures:no\n"
      "    write-ordering:flush\n"
      "  volume:0 disk:UpToDate backing_dev:/dev/vdb quorum:yes open:no\n"
      "      size:1048576 read:10 written:2 al-writes:7 bm-writes:3 upper-pending:0 lower-pending:0 al-suspended:no\n"
      "  pcmk-2 node-id:1 connection:Connected role:Secondary tls:no congested:no\n"
      "    volume:0 replication:Established peer-disk:UpToDate resync-suspended:no\n"
      "        received:0 sent:0 out-of-sync:0 pending:0 unacked:0\n");
}

// drbd-reactor and monitoring scripts look these keys up.
TEST(StatusJson, Has_the_keys_of_drbdsetup) {
  node::Status status = healthy();
  node::VolumeStatus& volume = status.resources[0].volumes[0];
  volume.out_of_sync_bytes = std::uint64_t{1} << 29;
  volume.is_syncing = true;
  volume.percent_done = 50.004;
  status.resources[0].sessions.push_back(
      {.initiator_name = "iqn.\xff", .isid = "0", .address = "::1", .seconds = 1, .commands_in_flight = 2});
  const nlohmann::json json = nlohmann::json::parse(status_json(status));
  ASSERT_EQ(json.size(), 1u);
  const nlohmann::json& resource = json[0];
  for (const char* key :
       {"name", "node-id", "role", "suspended", "suspended-user", "suspended-no-data", "suspended-fencing",
        "suspended-quorum", "force-io-failures", "write-ordering", "devices", "connections"}) {
    EXPECT_TRUE(resource.contains(key)) << key;
  }
  const nlohmann::json& device = resource["devices"][0];
  for (const char* key : {"volume", "minor", "disk-state", "client", "open", "quorum", "size", "read", "written",
                          "al-writes", "bm-writes", "upper-pending", "lower-pending"}) {
    EXPECT_TRUE(device.contains(key)) << key;
  }
  EXPECT_EQ(device["size"], 1048576);
  EXPECT_EQ(device["open"], true);
  const nlohmann::json& connection = resource["connections"][0];
  for (const char* key :
       {"peer-node-id", "name", "connection-state", "congested", "peer-role", "tls", "paths", "peer_devices"}) {
    EXPECT_TRUE(connection.contains(key)) << key;
  }
  EXPECT_EQ(connection["peer-node-id"], 1);
  const nlohmann::json& peer_device = connection["peer_devices"][0];
  for (const char* key : {"volume", "replication-state", "peer-disk-state", "peer-client", "resync-suspended",
                          "received", "sent", "out-of-sync", "pending", "unacked", "has-sync-details",
                          "has-online-verify-details", "percent-in-sync", "percent-resync-done"}) {
    EXPECT_TRUE(peer_device.contains(key)) << key;
  }
  EXPECT_EQ(peer_device["out-of-sync"], 524288);
  EXPECT_EQ(peer_device["percent-in-sync"], 50.0);
  EXPECT_EQ(peer_device["percent-resync-done"], 50.0);
  EXPECT_TRUE(peer_device["online-verify"].is_null());
}

TEST(StatusText, Statistics_of_a_resynchronization_have_speed_and_time_left) {
  node::Status status = healthy();
  node::VolumeStatus& volume = status.resources[0].volumes[0];
  volume.replication_state = "SyncTarget";
  volume.is_syncing = true;
  volume.percent_done = 25;
  volume.sync_rate_bytes_per_second = 3 << 19;
  volume.sync_seconds_left = 90;
  const std::string text = status_text(status, {.has_statistics = true});
  EXPECT_NE(text.find("replication:SyncTarget peer-disk:UpToDate done:25.00"), std::string::npos) << text;
  EXPECT_NE(text.find(" dbdt1:1.50 eta:90\n"), std::string::npos) << text;
}

// What verify found must reach whoever looks: a script by JSON, a person by the sentence.
TEST(StatusJson, Verify_reports_progress_and_differences) {
  node::Status status = healthy();
  node::VolumeStatus& volume = status.resources[0].volumes[0];
  volume.replication_state = "VerifyS";
  volume.is_syncing = true;
  volume.percent_done = 50;
  volume.sync_total_bytes = 8192;
  volume.sync_left_bytes = 4096;
  volume.sync_seconds_left = 7;
  volume.verify = {.is_known = true,
                   .is_running = true,
                   .is_complete = false,
                   .start_bytes = 4096,
                   .stop_bytes = 12288,
                   .compared_bytes = 4096,
                   .differing_bytes = 4096,
                   .differing_ranges_count = 1,
                   .differing_ranges = {{4096, 4096}},
                   .reason = "the copies differed"};
  const nlohmann::json json = nlohmann::json::parse(status_json(status));
  const nlohmann::json& peer_device = json[0]["connections"][0]["peer_devices"][0];
  EXPECT_EQ(peer_device["has-online-verify-details"], true);
  EXPECT_EQ(peer_device["ov-start-sector"], 8);
  EXPECT_EQ(peer_device["ov-stop-sector"], 24);
  EXPECT_EQ(peer_device["ov-position"], 16);
  EXPECT_EQ(peer_device["ov-left"], 8);
  EXPECT_EQ(peer_device["estimated-seconds-to-finish"], 7);
  EXPECT_EQ(peer_device["online-verify"]["differing-bytes"], 4096);
  EXPECT_EQ(peer_device["online-verify"]["differing-ranges"], 1);
  EXPECT_EQ(peer_device["online-verify"]["ranges"], nlohmann::json::parse(R"([{"offset":4096,"length":4096}])"));
  EXPECT_EQ(status_reasons(status), "iscsi_data: volume 0 verify: the copies differed\n");
}

}  // namespace
}  // namespace replblk::control
