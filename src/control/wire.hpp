// The admin socket's messages (proto/control.proto) to and from the plain structs of node/admin.hpp.
// Called by AdminServer and AdminClient. Not responsible for sockets. Nothing that comes from the other side is
// trusted: decoding fails rather than guesses.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "node/admin.hpp"

namespace replblk::control {

/// A message is preceded by its length: four bytes, big-endian.
inline constexpr std::size_t kLengthBytes = 4;
inline constexpr std::size_t kRequestBytesMax = 4096;
inline constexpr std::size_t kReplyBytesMax = std::size_t{16} << 20;  // 64 resources with thousands of sessions

[[nodiscard]] std::array<unsigned char, kLengthBytes> encode_length(std::size_t length_bytes) noexcept;
[[nodiscard]] std::size_t decode_length(const std::array<unsigned char, kLengthBytes>& bytes) noexcept;

[[nodiscard]] std::string encode_request(const node::AdminRequest& request);
/// Nothing for bytes that are no request, or one with a verb that this version does not know.
[[nodiscard]] std::optional<node::AdminRequest> decode_request(std::string_view bytes);
[[nodiscard]] std::string encode_reply(const node::AdminReply& reply);
[[nodiscard]] std::optional<node::AdminReply> decode_reply(std::string_view bytes);

}  // namespace replblk::control
