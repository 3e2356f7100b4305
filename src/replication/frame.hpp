// The frame header of the peer protocol (docs/peer_protocol.md 1): plain data, encode, decode with every check that
// needs no state. Not responsible for payloads, order or connections.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/buffer_pool.hpp"
#include "base/bytes.hpp"
#include "base/result.hpp"

namespace replblk::replication {

enum class FrameType : std::uint8_t {
  control = 1,
  write = 2,
  discard = 3,
  write_zeroes = 4,
  flush = 5,
  acknowledge = 6,
  resync_data = 7,
  resync_zeroes = 8,
  bitmap = 9,
  ping = 10,
  pong = 11,
  checksum_request = 12,
  checksums = 13,
  read_request = 14,
  read_data = 15,
  heartbeat = 16,
};

/// Of an acknowledgement.
enum class OperationStatus : std::uint32_t {
  done = 0,
  failed = 1,
  full = 2,  ///< from version 3: the backing file system has no room; nothing else is wrong
};

inline constexpr std::size_t kFrameHeaderBytes = 64;
inline constexpr std::uint32_t kControlBytesMax = 65536;
inline constexpr std::uint32_t kControlBytesMaxBeforeProof = 4096;
inline constexpr std::uint32_t kAcknowledgeEntryBytes = 16;
inline constexpr std::uint32_t kAcknowledgeEntriesMax = 256;
inline constexpr std::uint32_t kBitmapPageBytes = 4096;
inline constexpr std::uint32_t kChecksumEntryBytes = 16;
inline constexpr std::uint32_t kChecksumEntriesMax = 1024;
inline constexpr std::uint32_t kHeartbeatFrameBytes = 272;

struct FrameHeader {
  FrameType type = FrameType::ping;
  bool is_durable = false;
  std::uint16_t volume = 0;
  std::uint32_t payload_length_bytes = 0;
  std::uint32_t payload_crc = 0;
  std::uint64_t offset_bytes = 0;  ///< bitmap: page number
  std::uint64_t length_bytes = 0;
  std::uint64_t sequence = 0;
  std::uint64_t term = 0;
  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

enum class FrameError : std::uint8_t { magic, header_checksum, type, flags, reserved, length };
[[nodiscard]] std::string_view to_string(FrameError error) noexcept;

using FrameHeaderBytes = std::array<std::byte, kFrameHeaderBytes>;

[[nodiscard]] FrameHeaderBytes encode_frame_header(const FrameHeader& header) noexcept;
/// Checks magic, checksum, type, flags, reserved bytes and that the payload's length suits the type.
[[nodiscard]] Result<FrameHeader, FrameError> decode_frame_header(ConstBytes bytes) noexcept;

/// The payload is data of blocks: it goes into a pool buffer.
[[nodiscard]] constexpr bool carries_block_data(FrameType type) noexcept {
  return type == FrameType::write || type == FrameType::resync_data || type == FrameType::read_data;
}

}  // namespace replblk::replication
