#include "iscsi/text_keys.hpp"

#include <gtest/gtest.h>

namespace replblk::iscsi {
namespace {

using namespace std::string_literals;

// If it failed, keys of real initiators would be lost.
TEST(TextKeys, Pairs_are_taken_apart_at_nul_and_the_first_equals) {
  const std::string text = "A=1\0B=x=y\0\0C=\0"s;
  const auto pairs = parse_text(text);
  ASSERT_TRUE(pairs);
  EXPECT_EQ(*pairs, (std::vector<TextPair>{{"A", "1"}, {"B", "x=y"}, {"C", ""}}));
}

// If it failed, garbage would reach the negotiation, or a peer would decide how much memory an answer takes.
TEST(TextKeys, Malformed_and_excessive_texts_are_refused) {
  EXPECT_EQ(parse_text("A=1").error(), TextError::unterminated);
  EXPECT_EQ(parse_text("A\0"s).error(), TextError::missing_equals);
  EXPECT_EQ(parse_text("=1\0"s).error(), TextError::bad_key_name);
  EXPECT_EQ(parse_text("a b=1\0"s).error(), TextError::bad_key_name);
  EXPECT_EQ(parse_text(std::string(64, 'k') + "=1\0"s).error(), TextError::bad_key_name);
  EXPECT_EQ(parse_text(std::string(kTextBytesMax + 1, 'k')).error(), TextError::too_long);
  std::string many;
  for (std::size_t count = 0; count <= kTextPairsMax; ++count) many += "a=1\0"s;
  EXPECT_EQ(parse_text(many).error(), TextError::too_many_pairs);
}

// If it failed, a text in endless pieces (C bit) would fill the memory.
TEST(TextKeys, A_collected_text_has_a_limit) {
  TextCollector collector;
  const std::vector<std::byte> piece(8192);
  EXPECT_TRUE(collector.append(piece));
  EXPECT_TRUE(collector.append(piece));
  EXPECT_FALSE(collector.append(ConstBytes(piece).first(1)));
}

// If it failed, "12x" or an overflow would be taken as a length.
TEST(TextKeys, Numbers_are_decimal_or_hexadecimal_and_nothing_else) {
  EXPECT_EQ(parse_number("262144"), 262144u);
  EXPECT_EQ(parse_number("0x40000"), 262144u);
  EXPECT_EQ(parse_number("4294967295"), 4294967295u);
  for (const char* bad : {"", "-1", "+1", " 1", "1 ", "12x", "0x", "4294967296", "1~2"})
    EXPECT_FALSE(parse_number(bad)) << bad;
}

}  // namespace
}  // namespace replblk::iscsi
