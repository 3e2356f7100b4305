#include "replication/frame.hpp"

#include "base/assert.hpp"
#include "base/crc32c.hpp"

namespace replblk::replication {

namespace {

constexpr std::uint32_t kMagic = 0x31464252;  // "RBF1"
constexpr std::uint8_t kFlagDurable = 1;

bool is_length_right(const FrameHeader& header) noexcept {
  const std::uint32_t payload = header.payload_length_bytes;
  switch (header.type) {
    case FrameType::control:
      return payload >= 1 && payload <= kControlBytesMax;
    case FrameType::write:
    case FrameType::resync_data:
    case FrameType::read_data:
      return payload == header.length_bytes && payload >= 512 && payload % 512 == 0 &&
             payload <= BufferPool::kBufferBytesMax;
    case FrameType::acknowledge:
      return payload >= kAcknowledgeEntryBytes && payload % kAcknowledgeEntryBytes == 0 &&
             payload <= kAcknowledgeEntryBytes * kAcknowledgeEntriesMax;
    case FrameType::bitmap:
      return payload == kBitmapPageBytes;
    case FrameType::discard:
    case FrameType::write_zeroes:
    case FrameType::resync_zeroes:
      return payload == 0 && header.length_bytes > 0 && header.length_bytes % 512 == 0;
    case FrameType::checksum_request:
    case FrameType::read_request:
      return payload == 0 && header.length_bytes >= 512 && header.length_bytes % 512 == 0 &&
             header.length_bytes <= BufferPool::kBufferBytesMax;
    case FrameType::checksums:
      return payload >= kChecksumEntryBytes && payload % kChecksumEntryBytes == 0 &&
             payload <= kChecksumEntryBytes * kChecksumEntriesMax;
    case FrameType::heartbeat:
      return payload == kHeartbeatFrameBytes;
    case FrameType::flush:
    case FrameType::ping:
    case FrameType::pong:
      return payload == 0;
  }
  return false;
}

}  // namespace

std::string_view to_string(FrameError error) noexcept {
  switch (error) {
    case FrameError::magic:
      return "wrong magic: the other side does not speak this protocol";
    case FrameError::header_checksum:
      return "header checksum mismatch";
    case FrameError::type:
      return "unknown frame type";
    case FrameError::flags:
      return "unknown frame flag";
    case FrameError::reserved:
      return "reserved bytes are not zero";
    case FrameError::length:
      return "payload length does not suit the frame type";
  }
  RB_UNREACHABLE();
}

FrameHeaderBytes encode_frame_header(const FrameHeader& header) noexcept {
  FrameHeaderBytes bytes{};
  store_le(&bytes[0], kMagic);
  bytes[4] = static_cast<std::byte>(header.type);
  bytes[5] = static_cast<std::byte>(header.is_durable ? kFlagDurable : 0);
  store_le(&bytes[6], header.volume);
  store_le(&bytes[8], header.payload_length_bytes);
  store_le(&bytes[12], header.payload_crc);
  store_le(&bytes[16], header.offset_bytes);
  store_le(&bytes[24], header.length_bytes);
  store_le(&bytes[32], header.sequence);
  store_le(&bytes[40], header.term);
  store_le(&bytes[60], crc32c(ConstBytes(bytes).first(60)));
  return bytes;
}

Result<FrameHeader, FrameError> decode_frame_header(ConstBytes bytes) noexcept {
  RB_ASSERT(bytes.size() >= kFrameHeaderBytes);
  if (load_le<std::uint32_t>(&bytes[0]) != kMagic) return fail(FrameError::magic);
  if (load_le<std::uint32_t>(&bytes[60]) != crc32c(bytes.first(60))) return fail(FrameError::header_checksum);
  const auto type = std::to_integer<std::uint8_t>(bytes[4]);
  if (type < 1 || type > static_cast<std::uint8_t>(FrameType::heartbeat)) return fail(FrameError::type);
  const auto flags = std::to_integer<std::uint8_t>(bytes[5]);
  if ((flags & ~kFlagDurable) != 0) return fail(FrameError::flags);
  for (std::size_t index = 48; index < 60; ++index) {
    if (bytes[index] != std::byte{0}) return fail(FrameError::reserved);
  }
  FrameHeader header;
  header.type = static_cast<FrameType>(type);
  header.is_durable = (flags & kFlagDurable) != 0;
  header.volume = load_le<std::uint16_t>(&bytes[6]);
  header.payload_length_bytes = load_le<std::uint32_t>(&bytes[8]);
  header.payload_crc = load_le<std::uint32_t>(&bytes[12]);
  header.offset_bytes = load_le<std::uint64_t>(&bytes[16]);
  header.length_bytes = load_le<std::uint64_t>(&bytes[24]);
  header.sequence = load_le<std::uint64_t>(&bytes[32]);
  header.term = load_le<std::uint64_t>(&bytes[40]);
  if (!is_length_right(header)) return fail(FrameError::length);
  return header;
}

}  // namespace replblk::replication
