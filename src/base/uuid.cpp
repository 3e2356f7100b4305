#include "base/uuid.hpp"

namespace replblk {

namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

bool is_dash_before(std::size_t byte_index) {
  return byte_index == 4 || byte_index == 6 || byte_index == 8 || byte_index == 10;
}

}  // namespace

std::string to_string(const Uuid& uuid) {
  std::string text;
  for (std::size_t index = 0; index < uuid.bytes.size(); ++index) {
    if (is_dash_before(index)) text += '-';
    const auto value = std::to_integer<unsigned>(uuid.bytes[index]);
    text += kDigits[value >> 4];
    text += kDigits[value & 15];
  }
  return text;
}

std::optional<Uuid> parse_uuid(std::string_view text) {
  Uuid uuid;
  if (text.size() != 36) return std::nullopt;
  std::size_t position = 0;
  for (std::size_t index = 0; index < uuid.bytes.size(); ++index) {
    if (is_dash_before(index) && text[position++] != '-') return std::nullopt;
    unsigned value = 0;
    for (int digit = 0; digit < 2; ++digit) {
      char letter = text[position++];
      if (letter >= 'A' && letter <= 'F') letter = static_cast<char>(letter - 'A' + 'a');
      const std::size_t found = kDigits.find(letter);
      if (found == std::string_view::npos) return std::nullopt;
      value = value << 4 | static_cast<unsigned>(found);
    }
    uuid.bytes[index] = static_cast<std::byte>(value);
  }
  return uuid;
}

}  // namespace replblk
