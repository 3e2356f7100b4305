// The oracle against hand-made histories: it must call each illegal one illegal and no legal one.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "oracle.hpp"
#include "seeded.hpp"
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
  static_cast<void>(oracle.end_flush(oracle.begin_flush()));
  write(8);
  write(9);
  oracle.forget_volatile();
  EXPECT_FALSE(may_read(0));
  EXPECT_TRUE(may_read(8));
  EXPECT_FALSE(may_read(7));
  EXPECT_FALSE(may_read(9));
}

// Broken if an answer that was under way when the power went were taken for one that came after.
TEST_F(OracleTest, A_write_whose_answer_arrives_after_all_caches_were_lost_may_be_lost_with_them) {
  write(7, true);
  const auto volatile_write = oracle.begin_write({0, 1}, 8, false);
  oracle.forget_volatile();
  oracle.end_write(volatile_write);
  EXPECT_TRUE(may_read(7));
  EXPECT_FALSE(may_read(8));
  const auto durable_write = oracle.begin_write({0, 1}, 9, true);
  oracle.forget_volatile();
  oracle.end_write(durable_write);
  EXPECT_FALSE(may_read(7));
  EXPECT_TRUE(may_read(9));
}

// Likewise of a read: what it saw is no proof that it is still there.
TEST_F(OracleTest, A_read_whose_answer_arrives_after_all_caches_were_lost_decides_nothing) {
  write(7, true);
  write(8);
  const auto read = oracle.begin_read({0, 1});
  oracle.forget_volatile();
  EXPECT_TRUE(oracle.end_read(read, sector_of(8)).empty());
  EXPECT_TRUE(may_read(7));
  EXPECT_FALSE(may_read(8));

  const auto wrong = oracle.begin_read({0, 1});
  oracle.forget_volatile();
  EXPECT_FALSE(oracle.end_read(wrong, sector_of(99)).empty());
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
  EXPECT_EQ(oracle.end_flush(flush), (std::vector<std::uint64_t>{0}));
  oracle.forget_volatile();
  EXPECT_TRUE(may_read(7));
}

// Broken if a flush that was answered and not done went unnoticed until the power fails.
TEST_F(OracleTest, What_a_device_would_keep_must_be_as_new_as_what_was_flushed) {
  write(7);
  EXPECT_TRUE(oracle.check_durable(0, sector_of(0).data()).empty());
  EXPECT_TRUE(oracle.check_durable(0, sector_of(7).data()).empty());
  static_cast<void>(oracle.end_flush(oracle.begin_flush()));
  write(8);
  EXPECT_FALSE(oracle.check_durable(0, sector_of(0).data()).empty());
  EXPECT_TRUE(oracle.check_durable(0, sector_of(7).data()).empty());
  EXPECT_TRUE(oracle.check_durable(0, sector_of(8).data()).empty());
}

// Broken if torn or misplaced sectors passed.
TEST_F(OracleTest, A_sector_that_is_no_stamp_of_its_place_is_refused) {
  write(7);
  std::vector<std::byte> bytes(kSectorBytes);
  write_stamp(bytes.data(), 7, 1);
  const auto op = oracle.begin_read({0, 1});
  EXPECT_FALSE(oracle.end_read(op, bytes).empty());
}

// Broken if the clients of two initiators could disagree about which of two writes came last.
TEST_F(OracleTest, An_old_value_must_not_return_after_another_initiator_read_the_new_one) {
  write(7);
  static_cast<void>(oracle.begin_write({0, 1}, 8, false));
  EXPECT_TRUE(may_read(8));
  EXPECT_FALSE(may_read(7));
}

// Likewise, with both writes still under way when the first was read.
TEST_F(OracleTest, Two_values_must_not_be_there_by_turns) {
  static_cast<void>(oracle.begin_write({0, 1}, 7, false));
  static_cast<void>(oracle.begin_write({0, 1}, 8, false));
  EXPECT_TRUE(may_read(7));
  EXPECT_TRUE(may_read(8));
  EXPECT_FALSE(may_read(7));
}

// Broken if a slow read escaped: the order of both writes was decided before it began, and another read told it.
TEST_F(OracleTest, A_slow_read_is_held_to_the_order_that_a_quick_one_saw) {
  const auto one = oracle.begin_write({0, 1}, 7, false);
  const auto two = oracle.begin_write({0, 1}, 8, false);
  oracle.end_write(one);
  oracle.end_write(two);
  const auto slow = oracle.begin_read({0, 1});
  EXPECT_TRUE(may_read(8));
  EXPECT_FALSE(oracle.end_read(slow, sector_of(7)).empty());
}

/// One operation on one sector, for the judge below.
struct Operation {
  bool is_write = false;
  bool is_optional = false;  ///< a write that nobody answered: it may have happened or not
  std::uint64_t value = 0;
  std::uint64_t began = 0;
  std::uint64_t ended = UINT64_MAX;
};

/// Whether some order of the operations, by the definition of linearizability, explains every read: tries all.
bool is_linearizable(const std::vector<Operation>& operations, std::vector<bool>& is_done, std::uint64_t held) {
  bool is_complete = true;
  for (std::size_t index = 0; index < operations.size(); ++index)
    is_complete = is_complete && (is_done[index] || operations[index].is_optional);
  if (is_complete) return true;
  for (std::size_t index = 0; index < operations.size(); ++index) {
    const Operation& next = operations[index];
    if (is_done[index] || (!next.is_write && next.value != held)) continue;
    bool may_be_next = true;
    for (std::size_t other = 0; other < operations.size(); ++other) {
      const bool must_come_first =
          !is_done[other] && !operations[other].is_optional && operations[other].ended < next.began;
      const bool must_come_later = is_done[other] && next.ended < operations[other].began;
      may_be_next = may_be_next && !must_come_first && !must_come_later;
    }
    if (!may_be_next) continue;
    is_done[index] = true;
    if (is_linearizable(operations, is_done, next.is_write ? next.value : held)) return true;
    is_done[index] = false;
  }
  return false;
}

// Broken if the oracle called any history of a few operations legal that is not, or the other way round.
TEST(Oracle, Agrees_with_trying_all_orders_about_each_answer_of_random_histories) {
  std::uint64_t legal_count = 0;
  std::uint64_t illegal_count = 0;
  for (std::uint64_t seed = 1; seed <= 30'000; ++seed) {
    Seeded random(seed);
    Oracle oracle(1, false);
    std::uint64_t clock = 0;
    std::uint64_t next_value = 1;
    struct Client {
      bool is_busy = false;
      Oracle::OpId id = 0;
      Operation operation;
    };
    Client clients[3];
    std::vector<Operation> past;
    struct Lost {
      Oracle::OpId id = 0;
      std::size_t index = 0;
    };
    std::vector<Lost> lost;
    for (int step = 0; step < 16; ++step) {
      Client& client = clients[random.below(3)];
      if (!client.is_busy) {
        client.operation = {.is_write = random.chance(0.45), .began = ++clock};
        client.is_busy = true;
        if (client.operation.is_write) {
          client.operation.value = next_value++;
          client.id = oracle.begin_write({0, 1}, client.operation.value, false);
        } else {
          client.id = oracle.begin_read({0, 1});
        }
        continue;
      }
      client.is_busy = false;
      client.operation.ended = ++clock;
      if (client.operation.is_write) {
        const bool is_answered = random.chance(0.75);
        if (is_answered) {
          oracle.end_write(client.id);
        } else {
          oracle.lose_write(client.id);
          client.operation.ended = UINT64_MAX;
          client.operation.is_optional = true;
          lost.push_back({client.id, past.size()});
        }
        past.push_back(client.operation);
        if (!lost.empty() && random.chance(0.3)) {
          oracle.close_lost(lost.front().id);
          past[lost.front().index].ended = ++clock;
          lost.erase(lost.begin());
        }
        continue;
      }
      client.operation.value = random.below(next_value);
      std::vector<Operation> history = past;
      history.push_back(client.operation);
      for (const Client& other : clients) {
        if (!other.is_busy || !other.operation.is_write) continue;
        history.push_back(other.operation);
        history.back().is_optional = true;
      }
      std::vector<bool> is_done(history.size());
      const bool is_legal = is_linearizable(history, is_done, 0);
      const std::string sentence = oracle.end_read(client.id, sector_of(client.operation.value));
      ASSERT_EQ(sentence.empty(), is_legal) << "seed " << seed << ": " << sentence << oracle.describe(0);
      ++(is_legal ? legal_count : illegal_count);
      if (!is_legal) break;
      past.push_back(client.operation);
    }
  }
  EXPECT_GT(legal_count, 10'000u);
  EXPECT_GT(illegal_count, 10'000u);
}

}  // namespace
}  // namespace replblk::sim
