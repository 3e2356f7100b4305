// The oracle against hand-made histories: it must call each illegal one illegal and no legal one.
#include <gtest/gtest.h>

#include <vector>

#include "oracle.hpp"
#include "stamp.hpp"

namespace replblk::sim {
namespace {

std::vector<std::byte> sector_of(std::uint64_t value) {
  std::vector<std::byte> bytes(kSectorBytes);
  if (value != 0) write_stamp(bytes.data(), value, 0);
  return bytes;
}

class OracleTest : public testing::Test {
 protected:
  bool may_read(std::uint64_t value) {
    const auto op = oracle.begin_read({0, 1});
    const bool is_legal = oracle.end_read(op, sector_of(value)).empty();
    if (!is_legal) oracle.drop_read(op);
    return is_legal;
  }
  void write(std::uint64_t value, bool is_fua = false) { oracle.end_write(oracle.begin_write({0, 1}, value, is_fua)); }
  Oracle oracle{1, true};
};

// Broken if lost acknowledged writes went unnoticed.
TEST_F(OracleTest, An_answered_write_hides_what_was_before) {
  write(7);
  EXPECT_FALSE(may_read(0));
  EXPECT_TRUE(may_read(7));
}

// Broken if the simulator cried wolf on reads that overlap a write.
TEST_F(OracleTest, A_read_that_overlaps_a_write_may_return_either) {
  write(7);
  const auto op = oracle.begin_write({0, 1}, 8, false);
  const auto early = oracle.begin_read({0, 1});
  oracle.end_write(op);
  EXPECT_TRUE(oracle.end_read(early, sector_of(7)).empty());
  EXPECT_FALSE(may_read(7));
  EXPECT_TRUE(may_read(8));
}

// Broken if a value could flicker: seen, gone, seen again.
TEST_F(OracleTest, A_maybe_that_was_read_once_is_decided) {
  write(7);
  const auto op = oracle.begin_write({0, 1}, 8, false);
  oracle.lose_write(op);
  EXPECT_TRUE(may_read(7));
  EXPECT_TRUE(may_read(8));
  EXPECT_FALSE(may_read(7));
}

// Broken if ghosts of an old session went unnoticed.
TEST_F(OracleTest, A_lost_write_must_not_appear_after_the_new_login_once_another_value_was_read) {
  write(7);
  const auto op = oracle.begin_write({0, 1}, 8, false);
  oracle.lose_write(op);
  oracle.close_lost(op);
  EXPECT_TRUE(may_read(7));
  EXPECT_FALSE(may_read(8));
}

// Likewise, over a write of the new session.
TEST_F(OracleTest, A_lost_write_must_not_overwrite_a_write_of_the_new_session) {
  const auto op = oracle.begin_write({0, 1}, 8, false);
  oracle.lose_write(op);
  oracle.close_lost(op);
  write(9);
  EXPECT_FALSE(may_read(8));
  EXPECT_TRUE(may_read(9));
}

// Broken if the loss of both caches excused the loss of flushed data.
TEST_F(OracleTest, When_all_caches_are_lost_flushed_data_must_be_there_and_later_data_may) {
  write(7);
  oracle.end_flush(oracle.begin_flush());
  write(8);
  write(9);
  oracle.forget_volatile();
  EXPECT_FALSE(may_read(0));
  EXPECT_TRUE(may_read(8));
  EXPECT_FALSE(may_read(7));
  EXPECT_FALSE(may_read(9));
}

// Broken if FUA meant nothing.
TEST_F(OracleTest, A_durable_write_survives_the_loss_of_all_caches) {
  write(7);
  write(8, true);
  oracle.forget_volatile();
  EXPECT_FALSE(may_read(7));
  EXPECT_TRUE(may_read(8));
}

// Broken if a flush were taken to cover what was answered after it began.
TEST_F(OracleTest, A_flush_covers_only_what_was_answered_before_it_began) {
  write(7);
  const auto flush = oracle.begin_flush();
  write(8);
  oracle.end_flush(flush);
  oracle.forget_volatile();
  EXPECT_TRUE(may_read(7));
}

// Broken if torn or misplaced sectors passed.
TEST_F(OracleTest, A_sector_that_is_no_stamp_of_its_place_is_refused) {
  write(7);
  std::vector<std::byte> bytes(kSectorBytes);
  write_stamp(bytes.data(), 7, 1);
  const auto op = oracle.begin_read({0, 1});
  EXPECT_FALSE(oracle.end_read(op, bytes).empty());
}

}  // namespace
}  // namespace replblk::sim
