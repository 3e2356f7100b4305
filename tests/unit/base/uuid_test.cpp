#include "base/uuid.hpp"

#include <gtest/gtest.h>

namespace replblk {
namespace {

TEST(Uuid, Text_form_round_trips_and_bad_text_is_refused) {
  const auto uuid = parse_uuid("0123abcd-4567-89ef-0123-456789ABCDEF");
  ASSERT_TRUE(uuid.has_value());
  EXPECT_EQ(to_string(*uuid), "0123abcd-4567-89ef-0123-456789abcdef");
  EXPECT_FALSE(parse_uuid("0123abcd-4567-89ef-0123-456789abcdeg"));
  EXPECT_FALSE(parse_uuid("0123abcd4567-89ef-0123-456789abcdef0-"));
  EXPECT_FALSE(parse_uuid(""));
}

}  // namespace
}  // namespace replblk
