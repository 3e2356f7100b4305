#include "control/wire.hpp"

#include <gtest/gtest.h>

namespace replblk::control {
namespace {

// A field forgotten in one direction would show as zero for ever.
TEST(Wire, Every_field_of_a_reply_survives_the_way) {
  node::VolumeStatus volume{.volume = 1,
                            .lun = 2,
                            .backing_path = "/dev/vdb",
                            .disk_state = "UpToDate",
                            .disk_reason = "r1",
                            .replication_state = "SyncSource",
                            .peer_disk_state = "Inconsistent",
                            .size_bytes = 3,
                            .read_bytes = 4,
                            .written_bytes = 5,
                            .metadata_writes = 6,
                            .activity_log_writes = 21,
                            .bitmap_page_writes = 22,
                            .activity_log_hits = 23,
                            .activity_log_misses = 24,
                            .activity_log_waits = 25,
                            .activity_log_evictions = 26,
                            .mended_reads = 27,
                            .received_bytes = 7,
                            .sent_bytes = 8,
                            .out_of_sync_bytes = 9,
                            .upper_pending = 10,
                            .lower_pending = 11,
                            .pending = 12,
                            .unacked = 13,
                            .is_syncing = true,
                            .percent_done = 14.5,
                            .sync_rate_bytes_per_second = 15,
                            .sync_seconds_left = 16,
                            .sync_total_bytes = 20,
                            .sync_left_bytes = 21,
                            .sync_average_rate_bytes_per_second = 22,
                            .sync_elapsed_ms = 23,
                            .sync_equal_bytes = 24,
                            .verify = {.is_known = true,
                                       .is_running = true,
                                       .is_complete = true,
                                       .start_bytes = 25,
                                       .stop_bytes = 26,
                                       .compared_bytes = 27,
                                       .differing_bytes = 28,
                                       .differing_ranges_count = 29,
                                       .differing_ranges = {{30, 31}, {32, 33}},
                                       .reason = "r6"},
                            .resync_suspended = "user,peer",
                            .replication_reason = "r5"};
  node::SessionStatus session{.initiator_name = std::string("iqn.\xff", 5),
                              .isid = "00023d000001",
                              .address = "::1",
                              .seconds = 17,
                              .commands_in_flight = 18};
  node::ResourceStatus resource{
      .name = "data",
      .role = "Primary",
      .role_reason = "r2",
      .is_suspended = true,
      .suspended_reason = "r3",
      .target_iqn = "iqn.x",
      .is_serving = true,
      .arbiter = "etcd",
      .term = 19,
      .members = "a,b",
      .current_generation = "g",
      .peer_name = "beta",
      .connection_state = "Connected",
      .connection_reason = "r4",
      .peer_role = "Secondary",
      .split =
          {{.node_name = "alpha",
            .is_primary = true,
            .alone_since_ms = 20,
            .volumes = {{.volume = 1, .changed_bytes = 21, .ranges = {{22, 23}, {24, 25}}, .are_all_ranges = false}}}},
      .volumes = {volume},
      .sessions = {session},
      .virtual_ips = {{"192.0.2.100/24 on eth0", "failed", "r7"}},
      .heartbeat_paths = {{"10.0.0.1 to 10.0.0.2", true, true, 131, "r9"}}};
  const node::AdminReply reply{
      .outcome = node::AdminOutcome::refused,
      .message = "why",
      .status = {.node_name = "alpha", .node_id = 1, .version = "0.1", .resources = {resource}}};
  const auto back = decode_reply(encode_reply(reply));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->outcome, node::AdminOutcome::refused);
  EXPECT_EQ(back->message, "why");
  EXPECT_EQ(back->status.node_name, "alpha");
  EXPECT_EQ(back->status.node_id, 1u);
  EXPECT_EQ(back->status.version, "0.1");
  // Encoding is a function of all fields, so equal bytes mean equal fields; that none is left out both ways is seen by
  // each value being its own.
  EXPECT_EQ(encode_reply(*back), encode_reply(reply));
  const node::ResourceStatus& got = back->status.resources.at(0);
  EXPECT_EQ(got.sessions.at(0).initiator_name, session.initiator_name);
  EXPECT_EQ(got.sessions.at(0).commands_in_flight, 18u);
  EXPECT_EQ(got.volumes.at(0).metadata_writes, 6u);
  EXPECT_EQ(got.volumes.at(0).activity_log_writes, 21u);
  EXPECT_EQ(got.volumes.at(0).bitmap_page_writes, 22u);
  EXPECT_EQ(got.volumes.at(0).activity_log_hits, 23u);
  EXPECT_EQ(got.volumes.at(0).activity_log_misses, 24u);
  EXPECT_EQ(got.volumes.at(0).activity_log_waits, 25u);
  EXPECT_EQ(got.volumes.at(0).activity_log_evictions, 26u);
  EXPECT_EQ(got.volumes.at(0).mended_reads, 27u);
  EXPECT_EQ(got.volumes.at(0).sync_seconds_left, 16u);
  EXPECT_EQ(got.volumes.at(0).resync_suspended, "user,peer");
  EXPECT_EQ(got.volumes.at(0).replication_reason, "r5");
  EXPECT_EQ(got.volumes.at(0).sync_equal_bytes, 24u);
  EXPECT_EQ(got.volumes.at(0).sync_left_bytes, 21u);
  EXPECT_EQ(got.volumes.at(0).verify.reason, "r6");
  EXPECT_EQ(got.volumes.at(0).verify.compared_bytes, 27u);
  EXPECT_EQ(got.volumes.at(0).verify.differing_ranges, (std::vector<blockdev::ByteRange>{{30, 31}, {32, 33}}));
  EXPECT_EQ(got.peer_role, "Secondary");
  EXPECT_EQ(got.term, 19u);
  EXPECT_EQ(got.arbiter, "etcd");
  EXPECT_TRUE(got.heartbeat_paths.at(0).is_heard && got.heartbeat_paths.at(0).is_heard_by_peer);
  EXPECT_EQ(got.heartbeat_paths.at(0).round_trip_us, 131u);
  EXPECT_EQ(got.heartbeat_paths.at(0).reason, "r9");
  EXPECT_EQ(got.split.at(0).volumes.at(0).ranges.at(1).length_bytes, 25u);
}

TEST(Wire, Requests_survive_the_way_and_garbage_does_not) {
  for (auto number = 0; number <= static_cast<int>(node::AdminVerb::maintenance_off); ++number) {
    const auto verb = static_cast<node::AdminVerb>(number);
    const auto back = decode_request(encode_request({.verb = verb,
                                                     .resource = "data",
                                                     .is_forced = true,
                                                     .discards_data = true,
                                                     .start_bytes = 1,
                                                     .stop_bytes = 2,
                                                     .repair_from = "beta"}));
    ASSERT_TRUE(back);
    EXPECT_EQ(back->verb, verb);
    EXPECT_EQ(back->resource, "data");
    EXPECT_TRUE(back->is_forced);
    EXPECT_TRUE(back->discards_data);
    EXPECT_EQ(back->start_bytes, 1u);
    EXPECT_EQ(back->stop_bytes, 2u);
    EXPECT_EQ(back->repair_from, "beta");
  }
  EXPECT_FALSE(decode_request(""));                // no verb
  EXPECT_FALSE(decode_request("\x08\x63"));        // a verb that does not exist
  EXPECT_FALSE(decode_request("GET / HTTP/1.1"));  // not protobuf
  EXPECT_FALSE(decode_request(encode_request({.verb = node::AdminVerb::status,
                                              .resource = std::string(5000, 'x'),
                                              .is_forced = false,
                                              .start_bytes = 0,
                                              .stop_bytes = 1,
                                              .repair_from = {}})));
  EXPECT_EQ(decode_length(encode_length(0x01020304)), 0x01020304u);
}

}  // namespace
}  // namespace replblk::control
