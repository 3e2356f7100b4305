#include "control/wire.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "control.pb.h"

namespace replblk::control {

namespace {

api::Verb to_wire(node::AdminVerb verb) noexcept {
  switch (verb) {
    case node::AdminVerb::status:
      return api::VERB_STATUS;
    case node::AdminVerb::primary:
      return api::VERB_PRIMARY;
    case node::AdminVerb::secondary:
      return api::VERB_SECONDARY;
    case node::AdminVerb::connect:
      return api::VERB_CONNECT;
    case node::AdminVerb::disconnect:
      return api::VERB_DISCONNECT;
    case node::AdminVerb::down:
      return api::VERB_DOWN;
    case node::AdminVerb::pause_sync:
      return api::VERB_PAUSE_SYNC;
    case node::AdminVerb::resume_sync:
      return api::VERB_RESUME_SYNC;
    case node::AdminVerb::verify:
      return api::VERB_VERIFY;
    case node::AdminVerb::invalidate:
      return api::VERB_INVALIDATE;
    case node::AdminVerb::invalidate_remote:
      return api::VERB_INVALIDATE_REMOTE;
    case node::AdminVerb::detach:
      return api::VERB_DETACH;
    case node::AdminVerb::attach:
      return api::VERB_ATTACH;
    case node::AdminVerb::resize:
      return api::VERB_RESIZE;
    case node::AdminVerb::switchover:
      return api::VERB_SWITCHOVER;
    case node::AdminVerb::standby:
      return api::VERB_STANDBY;
    case node::AdminVerb::unstandby:
      return api::VERB_UNSTANDBY;
    case node::AdminVerb::maintenance_on:
      return api::VERB_MAINTENANCE_ON;
    case node::AdminVerb::maintenance_off:
      return api::VERB_MAINTENANCE_OFF;
  }
  RB_UNREACHABLE();
}

std::optional<node::AdminVerb> from_wire(int verb) noexcept {
  switch (verb) {
    case api::VERB_STATUS:
      return node::AdminVerb::status;
    case api::VERB_PRIMARY:
      return node::AdminVerb::primary;
    case api::VERB_SECONDARY:
      return node::AdminVerb::secondary;
    case api::VERB_CONNECT:
      return node::AdminVerb::connect;
    case api::VERB_DISCONNECT:
      return node::AdminVerb::disconnect;
    case api::VERB_DOWN:
      return node::AdminVerb::down;
    case api::VERB_PAUSE_SYNC:
      return node::AdminVerb::pause_sync;
    case api::VERB_RESUME_SYNC:
      return node::AdminVerb::resume_sync;
    case api::VERB_VERIFY:
      return node::AdminVerb::verify;
    case api::VERB_INVALIDATE:
      return node::AdminVerb::invalidate;
    case api::VERB_INVALIDATE_REMOTE:
      return node::AdminVerb::invalidate_remote;
    case api::VERB_DETACH:
      return node::AdminVerb::detach;
    case api::VERB_ATTACH:
      return node::AdminVerb::attach;
    case api::VERB_RESIZE:
      return node::AdminVerb::resize;
    case api::VERB_SWITCHOVER:
      return node::AdminVerb::switchover;
    case api::VERB_STANDBY:
      return node::AdminVerb::standby;
    case api::VERB_UNSTANDBY:
      return node::AdminVerb::unstandby;
    case api::VERB_MAINTENANCE_ON:
      return node::AdminVerb::maintenance_on;
    case api::VERB_MAINTENANCE_OFF:
      return node::AdminVerb::maintenance_off;
    default:
      return std::nullopt;  // a newer replblkctl's
  }
}

node::AdminOutcome outcome_from_wire(int outcome) noexcept {
  switch (outcome) {
    case api::OUTCOME_DONE:
      return node::AdminOutcome::done;
    case api::OUTCOME_USAGE:
      return node::AdminOutcome::usage;
    case api::OUTCOME_REFUSED:
      return node::AdminOutcome::refused;
    default:
      return node::AdminOutcome::failed;
  }
}

void put(const node::VolumeStatus& from, api::VolumeStatus& to) {
  to.set_volume(from.volume);
  to.set_lun(from.lun);
  to.set_backing_path(from.backing_path);
  to.set_disk_state(from.disk_state);
  to.set_disk_reason(from.disk_reason);
  to.set_replication_state(from.replication_state);
  to.set_peer_disk_state(from.peer_disk_state);
  to.set_size_bytes(from.size_bytes);
  to.set_read_bytes(from.read_bytes);
  to.set_written_bytes(from.written_bytes);
  to.set_received_bytes(from.received_bytes);
  to.set_sent_bytes(from.sent_bytes);
  to.set_out_of_sync_bytes(from.out_of_sync_bytes);
  to.set_upper_pending(from.upper_pending);
  to.set_lower_pending(from.lower_pending);
  to.set_pending(from.pending);
  to.set_unacked(from.unacked);
  to.set_is_syncing(from.is_syncing);
  to.set_percent_done(from.percent_done);
  to.set_sync_rate_bytes_per_second(from.sync_rate_bytes_per_second);
  to.set_sync_seconds_left(from.sync_seconds_left);
  to.set_metadata_writes(from.metadata_writes);
  to.set_activity_log_writes(from.activity_log_writes);
  to.set_bitmap_page_writes(from.bitmap_page_writes);
  to.set_activity_log_hits(from.activity_log_hits);
  to.set_activity_log_misses(from.activity_log_misses);
  to.set_activity_log_waits(from.activity_log_waits);
  to.set_activity_log_evictions(from.activity_log_evictions);
  to.set_mended_reads(from.mended_reads);
  to.set_resync_suspended(from.resync_suspended);
  to.set_replication_reason(from.replication_reason);
  to.set_sync_total_bytes(from.sync_total_bytes);
  to.set_sync_left_bytes(from.sync_left_bytes);
  to.set_sync_average_rate_bytes_per_second(from.sync_average_rate_bytes_per_second);
  to.set_sync_elapsed_ms(from.sync_elapsed_ms);
  to.set_sync_equal_bytes(from.sync_equal_bytes);
  const node::VerifyStatus& verify = from.verify;
  if (!verify.is_known) return;
  api::VerifyStatus* result = to.mutable_verify();
  result->set_is_running(verify.is_running);
  result->set_is_complete(verify.is_complete);
  result->set_start_bytes(verify.start_bytes);
  result->set_stop_bytes(verify.stop_bytes);
  result->set_compared_bytes(verify.compared_bytes);
  result->set_differing_bytes(verify.differing_bytes);
  result->set_differing_ranges_count(verify.differing_ranges_count);
  for (const blockdev::ByteRange& range : verify.differing_ranges) {
    result->add_range_offset_bytes(range.offset_bytes);
    result->add_range_length_bytes(range.length_bytes);
  }
  result->set_reason(verify.reason);
}

node::VolumeStatus get(const api::VolumeStatus& from) {
  node::VolumeStatus to;
  to.volume = from.volume();
  to.lun = static_cast<std::uint16_t>(from.lun());
  to.backing_path = from.backing_path();
  to.disk_state = from.disk_state();
  to.disk_reason = from.disk_reason();
  to.replication_state = from.replication_state();
  to.peer_disk_state = from.peer_disk_state();
  to.size_bytes = from.size_bytes();
  to.read_bytes = from.read_bytes();
  to.written_bytes = from.written_bytes();
  to.received_bytes = from.received_bytes();
  to.sent_bytes = from.sent_bytes();
  to.out_of_sync_bytes = from.out_of_sync_bytes();
  to.upper_pending = from.upper_pending();
  to.lower_pending = from.lower_pending();
  to.pending = from.pending();
  to.unacked = from.unacked();
  to.is_syncing = from.is_syncing();
  to.percent_done = from.percent_done();
  to.sync_rate_bytes_per_second = from.sync_rate_bytes_per_second();
  to.sync_seconds_left = from.sync_seconds_left();
  to.metadata_writes = from.metadata_writes();
  to.activity_log_writes = from.activity_log_writes();
  to.bitmap_page_writes = from.bitmap_page_writes();
  to.activity_log_hits = from.activity_log_hits();
  to.activity_log_misses = from.activity_log_misses();
  to.activity_log_waits = from.activity_log_waits();
  to.activity_log_evictions = from.activity_log_evictions();
  to.mended_reads = from.mended_reads();
  to.resync_suspended = from.resync_suspended();
  to.replication_reason = from.replication_reason();
  to.sync_total_bytes = from.sync_total_bytes();
  to.sync_left_bytes = from.sync_left_bytes();
  to.sync_average_rate_bytes_per_second = from.sync_average_rate_bytes_per_second();
  to.sync_elapsed_ms = from.sync_elapsed_ms();
  to.sync_equal_bytes = from.sync_equal_bytes();
  if (!from.has_verify()) return to;
  const api::VerifyStatus& result = from.verify();
  node::VerifyStatus& verify = to.verify;
  verify.is_known = true;
  verify.is_running = result.is_running();
  verify.is_complete = result.is_complete();
  verify.start_bytes = result.start_bytes();
  verify.stop_bytes = result.stop_bytes();
  verify.compared_bytes = result.compared_bytes();
  verify.differing_bytes = result.differing_bytes();
  verify.differing_ranges_count = result.differing_ranges_count();
  const int count = std::min(result.range_offset_bytes_size(), result.range_length_bytes_size());
  for (int index = 0; index < count; ++index) {
    verify.differing_ranges.push_back({result.range_offset_bytes(index), result.range_length_bytes(index)});
  }
  verify.reason = result.reason();
  return to;
}

void put(const node::SessionStatus& from, api::SessionStatus& to) {
  to.set_initiator_name(from.initiator_name);
  to.set_isid(from.isid);
  to.set_address(from.address);
  to.set_seconds(from.seconds);
  to.set_commands_in_flight(from.commands_in_flight);
}

node::SessionStatus get(const api::SessionStatus& from) {
  node::SessionStatus to;
  to.initiator_name = from.initiator_name();
  to.isid = from.isid();
  to.address = from.address();
  to.seconds = from.seconds();
  to.commands_in_flight = from.commands_in_flight();
  return to;
}

void put(const node::SplitSideStatus& from, api::SplitSide& to) {
  to.set_node_name(from.node_name);
  to.set_is_primary(from.is_primary);
  to.set_alone_since_ms(from.alone_since_ms);
  for (const node::ChangesStatus& changes : from.volumes) {
    api::Changes& item = *to.add_volumes();
    item.set_volume(changes.volume);
    item.set_changed_bytes(changes.changed_bytes);
    item.set_are_all_ranges(changes.are_all_ranges);
    for (const blockdev::ByteRange& range : changes.ranges) {
      api::Range& part = *item.add_ranges();
      part.set_offset_bytes(range.offset_bytes);
      part.set_length_bytes(range.length_bytes);
    }
  }
}

node::SplitSideStatus get(const api::SplitSide& from) {
  node::SplitSideStatus to;
  to.node_name = from.node_name();
  to.is_primary = from.is_primary();
  to.alone_since_ms = from.alone_since_ms();
  for (const api::Changes& item : from.volumes()) {
    node::ChangesStatus& changes = to.volumes.emplace_back();
    changes.volume = item.volume();
    changes.changed_bytes = item.changed_bytes();
    changes.are_all_ranges = item.are_all_ranges();
    for (const api::Range& part : item.ranges()) changes.ranges.push_back({part.offset_bytes(), part.length_bytes()});
  }
  return to;
}

void put(const node::ResourceStatus& from, api::ResourceStatus& to) {
  to.set_name(from.name);
  to.set_role(from.role);
  to.set_role_reason(from.role_reason);
  to.set_is_suspended(from.is_suspended);
  to.set_suspended_reason(from.suspended_reason);
  to.set_target_iqn(from.target_iqn);
  to.set_is_serving(from.is_serving);
  to.set_arbiter(from.arbiter);
  to.set_term(from.term);
  to.set_members(from.members);
  to.set_current_generation(from.current_generation);
  to.set_peer_name(from.peer_name);
  to.set_connection_state(from.connection_state);
  to.set_connection_reason(from.connection_reason);
  to.set_peer_role(from.peer_role);
  for (const node::VolumeStatus& item : from.volumes) put(item, *to.add_volumes());
  for (const node::SessionStatus& item : from.sessions) put(item, *to.add_sessions());
  for (const node::SplitSideStatus& item : from.split) put(item, *to.add_split());
  for (const node::VirtualIpStatus& item : from.virtual_ips) {
    api::VirtualIp& ip = *to.add_virtual_ips();
    ip.set_name(item.name);
    ip.set_state(item.state);
    ip.set_reason(item.reason);
  }
  for (const node::HeartbeatPathStatus& item : from.heartbeat_paths) {
    api::HeartbeatPath& path = *to.add_heartbeat_paths();
    path.set_name(item.name);
    path.set_is_heard(item.is_heard);
    path.set_is_heard_by_peer(item.is_heard_by_peer);
    path.set_round_trip_us(item.round_trip_us);
    path.set_reason(item.reason);
  }
}

node::ResourceStatus get(const api::ResourceStatus& from) {
  node::ResourceStatus to;
  to.name = from.name();
  to.role = from.role();
  to.role_reason = from.role_reason();
  to.is_suspended = from.is_suspended();
  to.suspended_reason = from.suspended_reason();
  to.target_iqn = from.target_iqn();
  to.is_serving = from.is_serving();
  to.arbiter = from.arbiter();
  to.term = from.term();
  to.members = from.members();
  to.current_generation = from.current_generation();
  to.peer_name = from.peer_name();
  to.connection_state = from.connection_state();
  to.connection_reason = from.connection_reason();
  to.peer_role = from.peer_role();
  for (const api::VolumeStatus& item : from.volumes()) to.volumes.push_back(get(item));
  for (const api::SessionStatus& item : from.sessions()) to.sessions.push_back(get(item));
  for (const api::SplitSide& item : from.split()) to.split.push_back(get(item));
  for (const api::VirtualIp& item : from.virtual_ips())
    to.virtual_ips.push_back({item.name(), item.state(), item.reason()});
  for (const api::HeartbeatPath& item : from.heartbeat_paths()) {
    to.heartbeat_paths.push_back(
        {item.name(), item.is_heard(), item.is_heard_by_peer(), item.round_trip_us(), item.reason()});
  }
  return to;
}

void put(const node::Status& from, api::Status& to) {
  to.set_node_name(from.node_name);
  to.set_node_id(from.node_id);
  to.set_version(from.version);
  for (const node::ResourceStatus& item : from.resources) put(item, *to.add_resources());
}

node::Status get(const api::Status& from) {
  node::Status to;
  to.node_name = from.node_name();
  to.node_id = from.node_id();
  to.version = from.version();
  for (const api::ResourceStatus& item : from.resources()) to.resources.push_back(get(item));
  return to;
}

}  // namespace

std::array<unsigned char, kLengthBytes> encode_length(std::size_t length_bytes) noexcept {
  RB_ASSERT(length_bytes <= 0xffffffffu);
  return {static_cast<unsigned char>(length_bytes >> 24), static_cast<unsigned char>(length_bytes >> 16 & 0xff),
          static_cast<unsigned char>(length_bytes >> 8 & 0xff), static_cast<unsigned char>(length_bytes & 0xff)};
}

std::size_t decode_length(const std::array<unsigned char, kLengthBytes>& bytes) noexcept {
  return std::size_t{bytes[0]} << 24 | std::size_t{bytes[1]} << 16 | std::size_t{bytes[2]} << 8 | bytes[3];
}

std::string encode_request(const node::AdminRequest& request) {
  api::Request message;
  message.set_verb(to_wire(request.verb));
  message.set_resource(request.resource);
  message.set_is_forced(request.is_forced);
  message.set_start_bytes(request.start_bytes);
  message.set_stop_bytes(request.stop_bytes);
  message.set_repair_from(request.repair_from);
  message.set_discards_data(request.discards_data);
  return message.SerializeAsString();
}

std::optional<node::AdminRequest> decode_request(std::string_view bytes) {
  api::Request message;
  if (bytes.size() > kRequestBytesMax || !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return std::nullopt;
  }
  const std::optional<node::AdminVerb> verb = from_wire(message.verb());
  if (!verb) return std::nullopt;
  return node::AdminRequest{.verb = *verb,
                            .resource = message.resource(),
                            .is_forced = message.is_forced(),
                            .discards_data = message.discards_data(),
                            .start_bytes = message.start_bytes(),
                            .stop_bytes = message.stop_bytes() == 0 ? UINT64_MAX : message.stop_bytes(),
                            .repair_from = message.repair_from()};
}

std::string encode_reply(const node::AdminReply& reply) {
  api::Reply message;
  message.set_outcome(static_cast<api::Outcome>(reply.outcome));
  message.set_message(reply.message);
  put(reply.status, *message.mutable_status());
  return message.SerializeAsString();
}

std::optional<node::AdminReply> decode_reply(std::string_view bytes) {
  api::Reply message;
  if (bytes.size() > kReplyBytesMax || !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return std::nullopt;
  }
  return node::AdminReply{
      .outcome = outcome_from_wire(message.outcome()), .message = message.message(), .status = get(message.status())};
}

}  // namespace replblk::control
