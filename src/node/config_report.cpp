#include "node/config_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace replblk::node {

namespace {

bool is_key_character(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

constexpr int kTabColumns = 8;  // protobuf's tokenizer counts so

int column_after(int column, char character) noexcept {
  return character == '\t' ? ((column - 1) / kTabColumns + 1) * kTabColumns + 1 : column + 1;
}

/// Where in `text` the place is.
std::size_t offset_of(std::string_view text, TextPlace place) noexcept {
  std::size_t offset = 0;
  for (int line = 1; line < place.line; ++line) {
    const std::size_t end = text.find('\n', offset);
    if (end == std::string_view::npos) return text.size();
    offset = end + 1;
  }
  for (int column = 1; column < place.column && offset < text.size(); ++offset) {
    column = column_after(column, text[offset]);
  }
  return offset;
}

}  // namespace

void ConfigReport::add(TextPlace place, std::string_view sentence) {
  entries_.push_back({place, fmt::format("{}:{}:{}: {}", file_, place.line, place.column, sentence)});
}

std::vector<std::string> ConfigReport::sentences() const {
  std::vector<Entry> sorted = entries_;
  std::ranges::stable_sort(sorted, {},
                           [](const Entry& entry) { return std::tuple(entry.place.line, entry.place.column); });
  std::vector<std::string> sentences;
  sentences.reserve(sorted.size());
  for (Entry& entry : sorted) sentences.push_back(std::move(entry.sentence));
  return sentences;
}

std::string key_before(std::string_view text, TextPlace place) {
  std::string_view before = text.substr(0, offset_of(text, place));
  const auto drop_blanks = [&before] {
    while (!before.empty() && (before.back() == ' ' || before.back() == '\t' || before.back() == '\n')) {
      before.remove_suffix(1);
    }
  };
  drop_blanks();
  if (before.empty() || before.back() != ':') return {};
  before.remove_suffix(1);
  drop_blanks();
  std::size_t begin = before.size();
  while (begin > 0 && is_key_character(before[begin - 1])) --begin;
  return std::string(before.substr(begin));
}

TextPlace place_of_word_before(std::string_view text, TextPlace place, std::string_view word) {
  const std::size_t begin = text.substr(0, offset_of(text, place)).rfind(word);
  if (begin == std::string_view::npos) return place;
  TextPlace found;
  for (const char c : text.substr(0, begin)) {
    found.column = c == '\n' ? 1 : column_after(found.column, c);
    found.line += c == '\n' ? 1 : 0;
  }
  return found;
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kShownBytesMax = 120;
  std::string shown = "\"";
  for (const char c : text.substr(0, kShownBytesMax)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      shown += fmt::format("\\x{:02x}", byte);
    } else if (c == '"' || c == '\\') {
      shown += '\\';
      shown += c;
    } else {
      shown += c;
    }
  }
  if (text.size() > kShownBytesMax) shown += "...";
  return shown + '"';
}

}  // namespace replblk::node
