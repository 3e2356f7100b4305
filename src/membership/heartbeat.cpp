#include "membership/heartbeat.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <algorithm>
#include <span>
#include <string>

#include "base/assert.hpp"

namespace replblk::membership {

namespace {

using blockdev::Configuration;
using blockdev::kNoNode;

constexpr std::array kMagic = {std::byte{'R'}, std::byte{'B'}, std::byte{'H'}, std::byte{'1'}};
constexpr std::uint8_t kVersion = 2;
constexpr std::size_t kMacBytes = 32;
constexpr std::size_t kMacOffset = kHeartbeatBytes - kMacBytes;
constexpr std::uint32_t kFlagsCount = 10;

/// Writes the fields one after the other.
class Writer {
 public:
  explicit Writer(std::byte* at) noexcept : at_(at) {}
  template <std::unsigned_integral T>
  void le(T value) noexcept {
    store_le(at_, value);
    at_ += sizeof(T);
  }
  void le(Instant time) noexcept { le(static_cast<std::uint64_t>(time.time_since_epoch().count())); }
  void configuration(const Configuration& value) noexcept {
    le(value.term);
    le(value.members);
    le(value.primary);
    le(std::uint16_t{0});
  }
  void stamp(const Stamp& value) noexcept {
    le(value.incarnation);
    configuration(value.configuration);
    le(value.lease_ms);
    le(value.t1);
  }
  void ticket(const RemovalTicket& value) noexcept {
    le(value.term);
    le(value.nonce);
  }
  void uuid(const Uuid& value) noexcept { at_ = std::ranges::copy(value.bytes, at_).out; }
  [[nodiscard]] const std::byte* at() const noexcept { return at_; }

 private:
  std::byte* at_;
};

Instant read_instant(ByteReader& reader) noexcept {
  return Instant(Duration(static_cast<std::int64_t>(reader.le<std::uint64_t>())));
}

bool read_configuration(ByteReader& reader, Configuration& value) noexcept {
  value.term = reader.le<std::uint64_t>();
  value.members = reader.le<std::uint8_t>();
  value.primary = reader.le<std::uint8_t>();
  const bool is_padded = reader.le<std::uint16_t>() == 0;
  return is_padded && value.members <= 3 && (value.primary < 2 || value.primary == kNoNode);
}

bool read_stamp(ByteReader& reader, Stamp& value) noexcept {
  value.incarnation = reader.le<std::uint64_t>();
  const bool is_good = read_configuration(reader, value.configuration);
  value.lease_ms = reader.le<std::uint32_t>();
  value.t1 = read_instant(reader);
  return is_good;
}

RemovalTicket read_ticket(ByteReader& reader) noexcept {
  RemovalTicket value;
  value.term = reader.le<std::uint64_t>();
  value.nonce = reader.le<std::uint64_t>();
  return value;
}

template <class Content, class Visit>
void for_each_flag(Content& content, Visit visit) {
  visit(content.is_frozen);
  visit(content.is_serving);
  visit(content.is_standby);
  visit(content.is_connected);
  visit(content.is_outdated);
  visit(content.is_inconsistent);
  visit(content.has_failed_disk);
  visit(content.may_have_lost_cache);
  visit(content.is_maintenance);
  visit(content.is_addressless);
}

std::array<std::byte, kMacBytes> mac_of(ConstBytes bytes, std::string_view secret) {
  std::array<std::byte, kMacBytes> mac{};
  unsigned int count = 0;
  const unsigned char* made = HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
                                   reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
                                   reinterpret_cast<unsigned char*>(mac.data()), &count);
  RB_ASSERT(made != nullptr && count == kMacBytes);
  return mac;
}

/// After magic, version and MAC are found right.
bool read_fields(ByteReader& reader, HeartbeatMessage& message) {
  HeartbeatHeader& header = message.header;
  Heartbeat& content = message.content;
  header.sender = reader.le<std::uint8_t>();
  header.path = reader.le<std::uint8_t>();
  const auto kind = reader.le<std::uint8_t>();
  header.has_content = kind == 1;
  header.resource_key = reader.le<std::uint64_t>();
  header.incarnation = reader.le<std::uint64_t>();
  header.receiver_incarnation = reader.le<std::uint64_t>();
  header.challenge = reader.le<std::uint64_t>();
  header.answer = reader.le<std::uint64_t>();
  header.counter = reader.le<std::uint64_t>();
  header.sent_at = read_instant(reader);
  header.heard_sent_at = read_instant(reader);
  header.held_for = Duration(static_cast<std::int64_t>(reader.le<std::uint64_t>()));
  bool is_good = header.sender < 2 && header.path < kHeartbeatPathsMax && kind <= 1 && header.incarnation != 0 &&
                 header.counter != 0 && header.held_for >= Duration::zero();
  is_good = read_configuration(reader, content.configuration) && is_good;
  const auto flags = reader.le<std::uint32_t>();
  std::uint32_t bit = 0;
  for_each_flag(content, [&](bool& flag) { flag = (flags >> bit++ & 1) != 0; });
  content.seen = reader.le<std::uint64_t>();
  content.current = {reader.le<std::uint64_t>(), reader.le<std::uint64_t>()};
  is_good = read_stamp(reader, content.stamp) && is_good;
  is_good = read_stamp(reader, content.echo) && is_good;
  content.request = read_ticket(reader);
  content.reply = read_ticket(reader);
  header.paths_heard = reader.le<std::uint32_t>();
  is_good = reader.le<std::uint32_t>() == 0 && is_good;
  std::ranges::copy(reader.take(content.pair_id.bytes.size()), content.pair_id.bytes.begin());
  return is_good && flags >> kFlagsCount == 0 && reader.ok();
}

}  // namespace

std::string_view to_string(HeartbeatError error) noexcept {
  switch (error) {
    case HeartbeatError::wrong_size:
      return "wrong size";
    case HeartbeatError::wrong_magic:
      return "no heartbeat";
    case HeartbeatError::wrong_version:
      return "another version";
    case HeartbeatError::not_authentic:
      return "not made with this cluster's secret";
    case HeartbeatError::bad_field:
      return "a field is out of its range";
  }
  RB_UNREACHABLE();
}

std::uint64_t resource_key(std::string_view cluster, std::string_view resource) {
  const std::string text = std::to_string(cluster.size()) + ":" + std::string(cluster) + std::string(resource);
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return load_le<std::uint64_t>(reinterpret_cast<const std::byte*>(digest.data()));
}

std::optional<std::uint64_t> resource_key_of(ConstBytes bytes) noexcept {
  if (bytes.size() != kHeartbeatBytes) return std::nullopt;
  return load_le<std::uint64_t>(&bytes[8]);
}

HeartbeatBytes encode(const HeartbeatMessage& message, std::string_view secret) {
  HeartbeatBytes bytes{};
  std::ranges::copy(kMagic, bytes.begin());
  const HeartbeatHeader& header = message.header;
  const Heartbeat& content = message.content;
  Writer writer(bytes.data() + kMagic.size());
  writer.le(kVersion);
  writer.le(header.sender);
  writer.le(header.path);
  writer.le(static_cast<std::uint8_t>(header.has_content ? 1 : 0));
  writer.le(header.resource_key);
  writer.le(header.incarnation);
  writer.le(header.receiver_incarnation);
  writer.le(header.challenge);
  writer.le(header.answer);
  writer.le(header.counter);
  writer.le(header.sent_at);
  writer.le(header.heard_sent_at);
  writer.le(static_cast<std::uint64_t>(header.held_for.count()));
  writer.configuration(content.configuration);
  std::uint32_t flags = 0;
  std::uint32_t bit = 0;
  for_each_flag(content, [&](bool flag) { flags |= (flag ? 1u : 0u) << bit++; });
  writer.le(flags);
  writer.le(content.seen);
  writer.le(content.current.term);
  writer.le(content.current.nonce);
  writer.stamp(content.stamp);
  writer.stamp(content.echo);
  writer.ticket(content.request);
  writer.ticket(content.reply);
  writer.le(header.paths_heard);
  writer.le(std::uint32_t{0});
  writer.uuid(content.pair_id);
  RB_ASSERT(bit == kFlagsCount && writer.at() == bytes.data() + kMacOffset);
  const auto mac = mac_of(std::span(bytes).first(kMacOffset), secret);
  std::ranges::copy(mac, bytes.begin() + kMacOffset);
  return bytes;
}

Result<HeartbeatMessage, HeartbeatError> decode_heartbeat(ConstBytes bytes, std::string_view secret) {
  if (bytes.size() != kHeartbeatBytes) return fail(HeartbeatError::wrong_size);
  if (!std::ranges::equal(bytes.first(kMagic.size()), kMagic)) return fail(HeartbeatError::wrong_magic);
  ByteReader reader(bytes.subspan(kMagic.size(), kMacOffset - kMagic.size()));
  if (reader.le<std::uint8_t>() != kVersion) return fail(HeartbeatError::wrong_version);
  const auto mac = mac_of(bytes.first(kMacOffset), secret);
  if (CRYPTO_memcmp(mac.data(), bytes.data() + kMacOffset, kMacBytes) != 0) return fail(HeartbeatError::not_authentic);
  HeartbeatMessage message;
  if (!read_fields(reader, message)) return fail(HeartbeatError::bad_field);
  return message;
}

}  // namespace replblk::membership
