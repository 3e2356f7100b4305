#include "blockdev/record_codec.hpp"

#include <climits>
#include <cstring>

#include "base/assert.hpp"
#include "blockdev/superblock.hpp"
#include "metadata.pb.h"

namespace replblk::blockdev {

namespace {

// What is left for the resource's name, the history and the rest.
static_assert(ResourceRecord::kReservationsBytesMax + 16384 <= kRecordBytesMax);

void encode_generation(const Generation& generation, metadata::Generation& message) {
  message.set_term(generation.term);
  message.set_nonce(generation.nonce);
}

[[nodiscard]] Generation decode_generation(const metadata::Generation& message) {
  return {message.term(), message.nonce()};
}

[[nodiscard]] std::string encode_uuid(const Uuid& uuid) {
  if (uuid.is_none()) return {};
  return std::string(as_text(uuid.bytes));
}

[[nodiscard]] bool decode_uuid(const std::string& text, Uuid& uuid) {
  if (text.empty()) return true;
  if (text.size() != uuid.bytes.size()) return false;
  std::memcpy(uuid.bytes.data(), text.data(), text.size());
  return true;
}

}  // namespace

std::vector<std::byte> encode_record(std::string_view resource_name, const ResourceRecord& record) {
  RB_ASSERT(record.generations.history.size() <= GenerationSet::kHistoryCountMax);
  RB_ASSERT(record.reservations.size() <= ResourceRecord::kReservationsBytesMax);
  RB_ASSERT(record.configuration.primary < 2 || record.configuration.primary == kNoNode);
  metadata::MetadataRecord message;
  message.set_resource_name(std::string(resource_name));
  message.set_term(record.configuration.term);
  message.set_members(record.configuration.members);
  if (record.configuration.primary != kNoNode) message.set_primary_plus_one(record.configuration.primary + 1u);
  message.set_seen(record.seen);
  message.set_pair_id(encode_uuid(record.pair_id));
  encode_generation(record.generations.current, *message.mutable_current());
  encode_generation(record.generations.base, *message.mutable_base());
  for (const Generation& generation : record.generations.history) encode_generation(generation, *message.add_history());
  message.set_boot_id(encode_uuid(record.boot_id));
  message.set_lease_ms_max(record.lease_ms_max);
  message.set_is_inconsistent(record.is_inconsistent);
  message.set_is_outdated(record.is_outdated);
  message.set_is_primary_open(record.is_primary_open);
  message.set_is_clean_stop(record.is_clean_stop);
  message.set_reservations(record.reservations);
  message.set_alone_since_ms(record.alone_since_ms);
  message.set_was_primary_at_parting(record.was_primary_at_parting);
  message.set_merged_term(record.merged_term);
  message.set_may_be_older(record.may_be_older);
  message.set_is_standby(record.is_standby);
  message.set_is_maintenance(record.is_maintenance);
  std::vector<std::byte> bytes(message.ByteSizeLong());
  const bool is_done = message.SerializeToArray(bytes.data(), static_cast<int>(bytes.size()));
  RB_ASSERT(is_done);
  return bytes;
}

std::optional<NamedRecord> decode_record(ConstBytes bytes) {
  metadata::MetadataRecord message;
  if (bytes.size() > INT_MAX || !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return std::nullopt;
  if (message.members() > 3 || message.primary_plus_one() > 2) return std::nullopt;
  if (message.history_size() > static_cast<int>(GenerationSet::kHistoryCountMax)) return std::nullopt;
  if (message.reservations().size() > ResourceRecord::kReservationsBytesMax) return std::nullopt;
  NamedRecord named;
  named.resource_name = message.resource_name();
  ResourceRecord& record = named.record;
  record.configuration.term = message.term();
  record.configuration.members = static_cast<std::uint8_t>(message.members());
  record.configuration.primary =
      message.primary_plus_one() == 0 ? kNoNode : static_cast<NodeIndex>(message.primary_plus_one() - 1);
  record.seen = message.seen();
  record.generations.current = decode_generation(message.current());
  record.generations.base = decode_generation(message.base());
  for (const metadata::Generation& generation : message.history()) {
    record.generations.history.push_back(decode_generation(generation));
  }
  if (!decode_uuid(message.pair_id(), record.pair_id)) return std::nullopt;
  if (!decode_uuid(message.boot_id(), record.boot_id)) return std::nullopt;
  record.lease_ms_max = message.lease_ms_max();
  record.is_inconsistent = message.is_inconsistent();
  record.is_outdated = message.is_outdated();
  record.is_primary_open = message.is_primary_open();
  record.is_clean_stop = message.is_clean_stop();
  record.reservations = message.reservations();
  record.alone_since_ms = message.alone_since_ms();
  record.was_primary_at_parting = message.was_primary_at_parting();
  record.merged_term = message.merged_term();
  record.may_be_older = message.may_be_older();
  record.is_standby = message.is_standby();
  record.is_maintenance = message.is_maintenance();
  return named;
}

}  // namespace replblk::blockdev
