#include "iscsi/text_keys.hpp"

#include <algorithm>
#include <charconv>

#include "base/assert.hpp"

namespace replblk::iscsi {

namespace {

/// RFC 7143 6.1: letters, digits, '.', '-', '+', '@', '_'; the first one a letter.
bool is_key_name(std::string_view key) noexcept {
  if (key.empty() || key.size() > kKeyNameBytesMax) return false;
  const auto is_letter = [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); };
  if (!is_letter(key.front())) return false;
  return std::all_of(key.begin(), key.end(), [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '+' || c == '@' || c == '_' ||
           c == '#';
  });
}

}  // namespace

std::string_view to_string(TextError error) noexcept {
  switch (error) {
    case TextError::too_long:
      return "the text is too long";
    case TextError::too_many_pairs:
      return "the text has too many keys";
    case TextError::missing_equals:
      return "a key has no value";
    case TextError::bad_key_name:
      return "a key name is malformed";
    case TextError::unterminated:
      return "the last value is not terminated";
  }
  RB_UNREACHABLE();
}

Result<std::vector<TextPair>, TextError> parse_text(std::string_view text) {
  if (text.size() > kTextBytesMax) return fail(TextError::too_long);
  std::vector<TextPair> pairs;
  while (!text.empty()) {
    const std::size_t end = text.find('\0');
    if (end == std::string_view::npos) return fail(TextError::unterminated);
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(end + 1);
    // Some initiators count the segment's padding into its length; a run of NULs says nothing.
    if (pair.empty()) continue;
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos) return fail(TextError::missing_equals);
    if (!is_key_name(pair.substr(0, equals))) return fail(TextError::bad_key_name);
    if (pairs.size() == kTextPairsMax) return fail(TextError::too_many_pairs);
    pairs.push_back({pair.substr(0, equals), pair.substr(equals + 1)});
  }
  return pairs;
}

Result<void, TextError> TextCollector::append(ConstBytes segment) {
  if (segment.size() > kTextBytesMax - text_.size()) return fail(TextError::too_long);
  text_.append(as_text(segment));
  return {};
}

void TextBuilder::add(std::string_view key, std::string_view value) {
  text_.append(key);
  text_.push_back('=');
  text_.append(value);
  text_.push_back('\0');
}

void TextBuilder::add(std::string_view key, std::uint64_t value) { add(key, std::to_string(value)); }

std::optional<std::uint32_t> parse_number(std::string_view text) noexcept {
  int base = 10;
  if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
    base = 16;
    text.remove_prefix(2);
  }
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace replblk::iscsi
