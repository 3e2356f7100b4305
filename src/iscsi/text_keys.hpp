// Text segments of Login and Text PDUs: "key=value" pairs, each ended by a NUL (RFC 7143 6.1).
// Collects a text that is spread over several PDUs (C bit), takes it apart and puts answers together, within stated
// limits. Not responsible for what a key means (negotiation). Invariant: a text larger than its limit is refused, never
// kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace replblk::iscsi {

/// What one negotiation step may say in all. Legitimate ones need less than 2 KiB; CHAP with large binary values 4 KiB.
inline constexpr std::size_t kTextBytesMax = 16384;
/// RFC 7143 6.1: a standard key name has at most 63 bytes.
inline constexpr std::size_t kKeyNameBytesMax = 63;
/// More pairs than all keys that exist, with room for private ones; bounds the NotUnderstood answers.
inline constexpr std::size_t kTextPairsMax = 96;

enum class TextError : std::uint8_t { too_long, too_many_pairs, missing_equals, bad_key_name, unterminated };
[[nodiscard]] std::string_view to_string(TextError error) noexcept;

struct TextPair {
  std::string_view key;
  std::string_view value;
  friend bool operator==(const TextPair&, const TextPair&) = default;
};

/// The pairs of a complete text; views into `text`. An empty text has no pairs.
[[nodiscard]] Result<std::vector<TextPair>, TextError> parse_text(std::string_view text);

/// Collects the data segments of a text that is sent in several PDUs.
class TextCollector {
 public:
  [[nodiscard]] Result<void, TextError> append(ConstBytes segment);
  [[nodiscard]] std::string_view text() const noexcept { return text_; }
  void clear() noexcept { text_.clear(); }

 private:
  std::string text_;
};

/// Puts an answer together.
class TextBuilder {
 public:
  void add(std::string_view key, std::string_view value);
  void add(std::string_view key, std::uint64_t value);
  [[nodiscard]] std::string_view text() const noexcept { return text_; }
  [[nodiscard]] bool empty() const noexcept { return text_.empty(); }
  [[nodiscard]] std::string take() noexcept { return std::move(text_); }

 private:
  std::string text_;
};

/// A decimal or 0x-hexadecimal numerical value (RFC 7143 6.1), nothing else around it; at most 32 bits.
[[nodiscard]] std::optional<std::uint32_t> parse_number(std::string_view text) noexcept;

}  // namespace replblk::iscsi
