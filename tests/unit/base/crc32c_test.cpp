#include "base/crc32c.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace replblk {
namespace {

// Independent statement: bit by bit, reflected polynomial 0x82f63b78.
std::uint32_t bitwise(ConstBytes bytes) {
  std::uint32_t state = ~0u;
  for (const std::byte byte : bytes) {
    state ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1u) != 0 ? 0x82f63b78u : 0u);
  }
  return ~state;
}

// A wrong polynomial or byte order makes every digest of every initiator mismatch.
TEST(Crc32c, Matches_the_check_value_and_the_bitwise_definition) {
  EXPECT_EQ(crc32c(as_bytes("123456789")), 0xe3069283u);
  std::vector<std::byte> data;
  for (unsigned index = 0; index < 5000; ++index) {
    data.push_back(static_cast<std::byte>(index * 31 + index / 7));
    if (index % 97 == 0) {
      EXPECT_EQ(crc32c(data), bitwise(data)) << index;
    }
  }
}

TEST(Crc32c, Chains_over_pieces) {
  EXPECT_EQ(crc32c(as_bytes("56789"), crc32c(as_bytes("1234"))), crc32c(as_bytes("123456789")));
}

}  // namespace
}  // namespace replblk
