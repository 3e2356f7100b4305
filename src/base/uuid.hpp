// 128-bit identity of a volume, written as 8-4-4-4-12 hex digits. All zero means "none".
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace replblk {

struct Uuid {
  std::array<std::byte, 16> bytes{};
  friend bool operator==(const Uuid&, const Uuid&) = default;
  [[nodiscard]] bool is_none() const noexcept { return *this == Uuid{}; }
};

[[nodiscard]] std::string to_string(const Uuid& uuid);
[[nodiscard]] std::optional<Uuid> parse_uuid(std::string_view text);

}  // namespace replblk
