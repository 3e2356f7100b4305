// Integers in byte strings: unaligned big- and little-endian loads and stores, and a reader that checks its
// bounds. All untrusted input is read through ByteReader: it never reads past its end; the first failed read
// makes the reader bad and every later one return zero, so a parser checks ok() once at the end.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "base/assert.hpp"

namespace replblk {

using ConstBytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

template <std::unsigned_integral T>
[[nodiscard]] T load_le(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof(T));
  if constexpr (std::endian::native == std::endian::big) value = std::byteswap(value);
  return value;
}
template <std::unsigned_integral T>
[[nodiscard]] T load_be(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof(T));
  if constexpr (std::endian::native == std::endian::little) value = std::byteswap(value);
  return value;
}
template <std::unsigned_integral T>
void store_le(std::byte* to, T value) noexcept {
  if constexpr (std::endian::native == std::endian::big) value = std::byteswap(value);
  std::memcpy(to, &value, sizeof(T));
}
template <std::unsigned_integral T>
void store_be(std::byte* to, T value) noexcept {
  if constexpr (std::endian::native == std::endian::little) value = std::byteswap(value);
  std::memcpy(to, &value, sizeof(T));
}
/// 24-bit big-endian, as in DataSegmentLength (RFC 7143 11.2.1.6).
[[nodiscard]] inline std::uint32_t load_be24(const std::byte* from) noexcept {
  return (std::to_integer<std::uint32_t>(from[0]) << 16) | (std::to_integer<std::uint32_t>(from[1]) << 8) |
         std::to_integer<std::uint32_t>(from[2]);
}
inline void store_be24(std::byte* to, std::uint32_t value) noexcept {
  RB_ASSERT(value < (1u << 24));
  to[0] = static_cast<std::byte>(value >> 16);
  to[1] = static_cast<std::byte>(value >> 8);
  to[2] = static_cast<std::byte>(value);
}

/// Of no bytes too.
[[nodiscard]] inline bool is_all_zero(ConstBytes bytes) noexcept {
  return bytes.empty() ||
         (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

[[nodiscard]] inline ConstBytes as_bytes(std::string_view text) noexcept {
  return std::as_bytes(std::span(text.data(), text.size()));
}
[[nodiscard]] inline std::string_view as_text(ConstBytes bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class ByteReader {
 public:
  explicit ByteReader(ConstBytes bytes) noexcept : bytes_(bytes) {}

  [[nodiscard]] bool ok() const noexcept { return ok_; }
  [[nodiscard]] std::size_t remaining_bytes() const noexcept { return bytes_.size(); }

  template <std::unsigned_integral T>
  [[nodiscard]] T le() noexcept {
    const ConstBytes field = take(sizeof(T));
    return ok_ ? load_le<T>(field.data()) : T{0};
  }
  template <std::unsigned_integral T>
  [[nodiscard]] T be() noexcept {
    const ConstBytes field = take(sizeof(T));
    return ok_ ? load_be<T>(field.data()) : T{0};
  }
  /// The next `count` bytes, or an empty span and a bad reader.
  [[nodiscard]] ConstBytes take(std::size_t count) noexcept {
    if (!ok_ || count > bytes_.size()) {
      ok_ = false;
      return {};
    }
    const ConstBytes head = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return head;
  }

 private:
  ConstBytes bytes_;
  bool ok_ = true;
};

}  // namespace replblk
