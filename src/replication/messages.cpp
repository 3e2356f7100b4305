#include "replication/messages.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "peer.pb.h"

namespace replblk::replication {

namespace {

using blockdev::Configuration;
using blockdev::Generation;
using blockdev::GenerationSet;

constexpr int kVolumesMax = 256;
constexpr auto kResizeStepMax = static_cast<std::uint32_t>(ResizeStep::give_up);
constexpr int kSharedFieldsMax = 1024;
constexpr std::size_t kNameBytesMax = 255;
constexpr std::size_t kReasonBytesMax = 4096;

/// Names and reasons come from whoever reaches the port, and stand in logs and on terminals.
bool is_control_character(char character) {
  const auto byte = static_cast<unsigned char>(character);
  return byte < 0x20 || byte == 0x7f;
}
bool is_name(const std::string& text) {
  return text.size() <= kNameBytesMax && std::ranges::none_of(text, is_control_character);
}
std::string harmless(std::string reason) {
  if (reason.size() > kReasonBytesMax) reason.resize(kReasonBytesMax);
  std::ranges::replace_if(reason, is_control_character, '?');
  return reason;
}

void put(const Generation& from, peer::Generation* to) {
  to->set_term(from.term);
  to->set_nonce(from.nonce);
}
void put(const GenerationSet& from, peer::Generations* to) {
  put(from.current, to->mutable_current());
  put(from.base, to->mutable_base());
  for (const Generation& generation : from.history) put(generation, to->add_history());
}
void put(const Configuration& from, peer::Configuration* to) {
  to->set_term(from.term);
  to->set_members(from.members);
  to->set_primary(from.primary);
}

Generation get(const peer::Generation& from) { return {from.term(), from.nonce()}; }
bool get(const peer::Generations& from, GenerationSet& to) {
  if (from.history_size() > static_cast<int>(GenerationSet::kHistoryCountMax)) return false;
  to.current = get(from.current());
  to.base = get(from.base());
  for (const peer::Generation& generation : from.history()) to.history.push_back(get(generation));
  return true;
}
bool get(const peer::Configuration& from, Configuration& to) {
  if (from.members() > 3) return false;
  if (from.primary() > 1 && from.primary() != blockdev::kNoNode) return false;
  to.term = from.term();
  to.members = static_cast<std::uint8_t>(from.members());
  to.primary = static_cast<blockdev::NodeIndex>(from.primary());
  return to.primary == blockdev::kNoNode || to.has_member(to.primary);
}

struct Encoder {
  peer::Envelope& envelope;

  void operator()(const Hello& from) const {
    peer::Hello* to = envelope.mutable_hello();
    to->set_protocol_min(from.protocol_min);
    to->set_protocol_max(from.protocol_max);
    to->set_features(from.features);
    to->set_cluster(from.cluster);
    to->set_node(from.node);
    to->set_expected_peer(from.expected_peer);
    to->set_resource(from.resource);
    to->set_nonce(from.nonce);
    to->set_incarnation(from.incarnation);
  }
  void operator()(const Proof& from) const { envelope.mutable_proof()->set_mac(from.mac); }
  void operator()(const Refusal& from) const {
    envelope.mutable_refusal()->set_reason(from.reason);
    envelope.mutable_refusal()->set_is_final(from.is_final);
  }
  void operator()(const Introduction& from) const {
    peer::Introduction* to = envelope.mutable_introduction();
    for (const std::string& field : from.shared_fields) to->add_shared_fields(field);
    for (const VolumeIntroduction& volume : from.volumes) {
      peer::Volume* item = to->add_volumes();
      item->set_uuid(volume.uuid.bytes.data(), volume.uuid.bytes.size());
      item->set_size_bytes(volume.size_bytes);
      item->set_logical_block_bytes(volume.logical_block_bytes);
      item->set_bitmap_block_bytes(volume.bitmap_block_bytes);
      item->set_has_dirty_blocks(volume.has_dirty_blocks);
      item->set_dirty_bytes(volume.dirty_bytes);
      item->set_room_bytes(volume.room_bytes);
      for (const blockdev::ByteRange& range : volume.dirty_ranges) {
        peer::Range* part = item->add_dirty_range();
        part->set_offset_bytes(range.offset_bytes);
        part->set_length_bytes(range.length_bytes);
      }
    }
    put(from.configuration, to->mutable_configuration());
    to->set_seen(from.seen);
    to->set_pair_id(from.pair_id.bytes.data(), from.pair_id.bytes.size());
    put(from.generations, to->mutable_generations());
    to->set_is_inconsistent(from.is_inconsistent);
    to->set_is_outdated(from.is_outdated);
    to->set_is_crashed_primary(from.is_crashed_primary);
    to->set_may_have_lost_cache(from.may_have_lost_cache);
    to->set_survived_connected(from.survived_connected);
    to->set_is_primary(from.is_primary);
    to->set_is_sync_paused(from.is_sync_paused);
    to->set_discards_data(from.discards_data);
    to->set_alone_since_ms(from.alone_since_ms);
    to->set_was_primary_at_parting(from.was_primary_at_parting);
    for (const ports::HardwareAddress& address : from.hardware_addresses)
      to->add_hardware_address(address.bytes.data(), address.bytes.size());
  }
  void operator()(const SyncStart& from) const {
    put(from.configuration, envelope.mutable_sync_start()->mutable_configuration());
    envelope.mutable_sync_start()->set_is_full(from.is_full);
  }
  void operator()(const BitmapEnd&) const { envelope.mutable_bitmap_end(); }
  void operator()(const Proposal& from) const {
    put(from.configuration, envelope.mutable_proposal()->mutable_configuration());
    put(from.generations, envelope.mutable_proposal()->mutable_generations());
    envelope.mutable_proposal()->set_reservations(from.reservations);
  }
  void operator()(const Reservations& from) const {
    envelope.mutable_reservations()->set_number(from.number);
    envelope.mutable_reservations()->set_table(from.table);
  }
  void operator()(const ReservationsAck& from) const { envelope.mutable_reservations_ack()->set_number(from.number); }
  void operator()(const ProposalAck& from) const { envelope.mutable_proposal_ack()->set_term(from.term); }
  void operator()(const RoleChange& from) const {
    envelope.mutable_role_change()->set_is_primary(from.is_primary);
    envelope.mutable_role_change()->set_has_addresses(from.has_addresses);
  }
  void operator()(const SyncProgress& from) const {
    peer::SyncProgress* to = envelope.mutable_sync_progress();
    to->set_activity(static_cast<std::uint32_t>(from.activity));
    for (const SyncProgress::Volume& volume : from.volumes) {
      peer::SyncProgress::Volume* item = to->add_volumes();
      item->set_total_bytes(volume.total_bytes);
      item->set_left_bytes(volume.left_bytes);
      item->set_rate_bytes_per_second(volume.rate_bytes_per_second);
      item->set_seconds_left(volume.seconds_left);
    }
  }
  void operator()(const VerifyRequest& from) const {
    peer::VerifyRequest* to = envelope.mutable_verify_request();
    to->set_start_bytes(from.start_bytes);
    to->set_stop_bytes(from.stop_bytes);
    to->set_is_repair(from.is_repair);
  }
  void operator()(const Resize& from) const {
    peer::Resize* to = envelope.mutable_resize();
    to->set_step(static_cast<std::uint32_t>(from.step));
    for (const std::uint64_t size : from.sizes_bytes) to->add_size_bytes(size);
  }
  void operator()(const ResizeReply& from) const {
    peer::ResizeReply* to = envelope.mutable_resize_reply();
    to->set_step(static_cast<std::uint32_t>(from.step));
    for (const std::uint64_t size : from.sizes_bytes) to->add_size_bytes(size);
    if (!from.failure.empty()) to->set_failure(from.failure);
  }
  void operator()(const Invalidate&) const { envelope.mutable_invalidate(); }
  void operator()(const SyncPause& from) const { envelope.mutable_sync_pause()->set_is_paused(from.is_paused); }
};

std::optional<Message> get(const peer::Hello& from) {
  if (from.nonce().size() != kNonceBytes || from.protocol_min() > from.protocol_max()) return std::nullopt;
  for (const std::string* name : {&from.cluster(), &from.node(), &from.expected_peer(), &from.resource()}) {
    if (!is_name(*name)) return std::nullopt;
  }
  return Hello{from.protocol_min(),  from.protocol_max(), from.features(), from.cluster(),    from.node(),
               from.expected_peer(), from.resource(),     from.nonce(),    from.incarnation()};
}

std::optional<Message> get(const peer::Introduction& from) {
  Introduction to;
  if (from.shared_fields_size() > kSharedFieldsMax || from.volumes_size() > kVolumesMax) return std::nullopt;
  std::size_t ranges_count = 0;
  to.shared_fields.assign(from.shared_fields().begin(), from.shared_fields().end());
  for (const peer::Volume& item : from.volumes()) {
    VolumeIntroduction volume;
    if (item.uuid().size() != volume.uuid.bytes.size()) return std::nullopt;
    std::ranges::copy(as_bytes(item.uuid()), volume.uuid.bytes.begin());
    volume.size_bytes = item.size_bytes();
    volume.logical_block_bytes = item.logical_block_bytes();
    volume.bitmap_block_bytes = item.bitmap_block_bytes();
    volume.has_dirty_blocks = item.has_dirty_blocks();
    volume.dirty_bytes = item.dirty_bytes();
    volume.room_bytes = item.room_bytes();
    for (const peer::Range& part : item.dirty_range()) {
      if (++ranges_count > kDirtyRangesMax) return std::nullopt;
      volume.dirty_ranges.push_back({part.offset_bytes(), part.length_bytes()});
    }
    to.volumes.push_back(volume);
  }
  if (!get(from.configuration(), to.configuration) || !get(from.generations(), to.generations)) return std::nullopt;
  to.seen = from.seen();
  if (from.pair_id().size() != to.pair_id.bytes.size()) return std::nullopt;
  std::ranges::copy(as_bytes(from.pair_id()), to.pair_id.bytes.begin());
  to.is_inconsistent = from.is_inconsistent();
  to.is_outdated = from.is_outdated();
  to.is_crashed_primary = from.is_crashed_primary();
  to.may_have_lost_cache = from.may_have_lost_cache();
  to.survived_connected = from.survived_connected();
  to.is_primary = from.is_primary();
  to.is_sync_paused = from.is_sync_paused();
  to.discards_data = from.discards_data();
  to.alone_since_ms = from.alone_since_ms();
  to.was_primary_at_parting = from.was_primary_at_parting();
  if (from.hardware_address_size() > static_cast<int>(kHardwareAddressesMax)) return std::nullopt;
  for (const std::string& bytes : from.hardware_address()) {
    ports::HardwareAddress& address = to.hardware_addresses.emplace_back();
    if (bytes.size() != address.bytes.size()) return std::nullopt;
    std::ranges::copy(as_bytes(bytes), std::as_writable_bytes(std::span(address.bytes)).begin());
  }
  return to;
}

std::optional<Message> get(const peer::SyncProgress& from) {
  if (from.volumes_size() > kVolumesMax ||
      from.activity() > static_cast<std::uint32_t>(SyncProgress::Activity::repair)) {
    return std::nullopt;
  }
  SyncProgress to;
  to.activity = static_cast<SyncProgress::Activity>(from.activity());
  for (const peer::SyncProgress::Volume& item : from.volumes()) {
    if (item.left_bytes() > item.total_bytes()) return std::nullopt;
    to.volumes.push_back({item.total_bytes(), item.left_bytes(), item.rate_bytes_per_second(), item.seconds_left()});
  }
  return to;
}

}  // namespace

std::string encode(const Message& message) {
  peer::Envelope envelope;
  std::visit(Encoder{envelope}, message);
  return envelope.SerializeAsString();
}

std::optional<Message> decode(ConstBytes bytes) {
  peer::Envelope envelope;
  if (!envelope.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return std::nullopt;
  switch (envelope.message_case()) {
    case peer::Envelope::kHello:
      return get(envelope.hello());
    case peer::Envelope::kProof:
      return Proof{envelope.proof().mac()};
    case peer::Envelope::kRefusal:
      return Refusal{harmless(envelope.refusal().reason()), envelope.refusal().is_final()};
    case peer::Envelope::kIntroduction:
      return get(envelope.introduction());
    case peer::Envelope::kSyncStart: {
      SyncStart to;
      if (!get(envelope.sync_start().configuration(), to.configuration)) return std::nullopt;
      to.is_full = envelope.sync_start().is_full();
      return to;
    }
    case peer::Envelope::kBitmapEnd:
      return BitmapEnd{};
    case peer::Envelope::kProposal: {
      Proposal to;
      if (!get(envelope.proposal().configuration(), to.configuration)) return std::nullopt;
      if (!get(envelope.proposal().generations(), to.generations)) return std::nullopt;
      to.reservations = envelope.proposal().reservations();
      return to;
    }
    case peer::Envelope::kReservations: {
      return Reservations{envelope.reservations().number(), envelope.reservations().table()};
    }
    case peer::Envelope::kReservationsAck:
      return ReservationsAck{envelope.reservations_ack().number()};
    case peer::Envelope::kResize: {
      const peer::Resize& from = envelope.resize();
      if (from.step() > kResizeStepMax || from.size_bytes_size() > kVolumesMax) return std::nullopt;
      return Resize{static_cast<ResizeStep>(from.step()), {from.size_bytes().begin(), from.size_bytes().end()}};
    }
    case peer::Envelope::kResizeReply: {
      const peer::ResizeReply& from = envelope.resize_reply();
      if (from.step() > kResizeStepMax || from.size_bytes_size() > kVolumesMax) return std::nullopt;
      return ResizeReply{static_cast<ResizeStep>(from.step()),
                         {from.size_bytes().begin(), from.size_bytes().end()},
                         harmless(from.failure())};
    }
    case peer::Envelope::kInvalidate:
      return Invalidate{};
    case peer::Envelope::kProposalAck:
      return ProposalAck{envelope.proposal_ack().term()};
    case peer::Envelope::kRoleChange:
      return RoleChange{envelope.role_change().is_primary(), envelope.role_change().has_addresses()};
    case peer::Envelope::kSyncPause:
      return SyncPause{envelope.sync_pause().is_paused()};
    case peer::Envelope::kSyncProgress:
      return get(envelope.sync_progress());
    case peer::Envelope::kVerifyRequest: {
      const peer::VerifyRequest& from = envelope.verify_request();
      if (from.start_bytes() >= from.stop_bytes()) return std::nullopt;
      return VerifyRequest{from.start_bytes(), from.stop_bytes(), from.is_repair()};
    }
    case peer::Envelope::MESSAGE_NOT_SET:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace replblk::replication
