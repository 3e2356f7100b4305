#include "blockdev/activity_log.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <deque>
#include <map>
#include <random>
#include <set>

namespace replblk::blockdev {
namespace {

constexpr std::uint64_t kExtent = 65536;
constexpr std::uint8_t kShift = 16;

/// A log whose I/O is done by hand.
struct Bench {
  ActivityLog log;
  LogTransaction transaction;
  std::vector<std::uint32_t> to_save;
  explicit Bench(std::uint32_t slots_count) : log({kShift, slots_count}) {}

  bool acquire(ActivityLog::Claim& claim, std::uint64_t extent, std::uint64_t count = 1) {
    return log.acquire(claim, extent * kExtent, count * kExtent);
  }
  /// Everything that is granted after one transaction.
  std::vector<ActivityLog::Claim*> write() {
    if (log.plan(transaction)) log.transaction_done();
    std::vector<ActivityLog::Claim*> granted;
    while (ActivityLog::Claim* claim = log.pop_ready()) granted.push_back(claim);
    return granted;
  }
  void flush() {
    log.flush_begins();
    log.flush_done(true);
  }
  void clean(bool are_saved = true) {
    to_save.clear();
    log.pick_cleaning([&](std::uint32_t) { return are_saved; }, to_save);
  }
};

using Claims = std::vector<ActivityLog::Claim*>;

// Data that is written before its extent is in the log is not found after a crash.
TEST(ActivityLog, A_claim_is_granted_when_the_transaction_is_durable_and_at_once_when_active) {
  Bench bench(8);
  ActivityLog::Claim one, two, three;
  EXPECT_FALSE(bench.acquire(one, 3));
  EXPECT_EQ(bench.log.pop_ready(), nullptr);
  ASSERT_TRUE(bench.log.plan(bench.transaction));
  EXPECT_EQ(bench.log.pop_ready(), nullptr);
  EXPECT_FALSE(bench.acquire(two, 3)) << "still being written";
  bench.log.transaction_done();
  EXPECT_EQ(bench.log.pop_ready(), &one);
  EXPECT_TRUE(bench.acquire(three, 3));
  EXPECT_EQ(bench.write(), Claims{&two}) << "without a transaction of its own";
  EXPECT_EQ(bench.log.counters().transactions, 1u);
  for (auto* claim : {&one, &two, &three}) bench.log.release(*claim, false);
}

TEST(ActivityLog, Claims_that_wait_together_share_one_transaction) {
  Bench bench(64);
  std::deque<ActivityLog::Claim> claims(16);
  for (std::size_t n = 0; n < claims.size(); ++n) EXPECT_FALSE(bench.acquire(claims[n], 2 * n, 2));
  EXPECT_EQ(bench.write().size(), 16u);
  EXPECT_EQ(bench.transaction.updates_count, 32u);
  EXPECT_EQ(bench.log.counters().transactions, 1u);
  for (ActivityLog::Claim& claim : claims) bench.log.release(claim, false);
}

// The three conditions of an eviction (protocol.md 5.2, 5.3), one missing at a time.
TEST(ActivityLog, An_extent_leaves_only_when_nobody_writes_all_is_flushed_and_its_bits_are_on_disk) {
  Bench bench(4);
  std::deque<ActivityLog::Claim> claims(4);
  for (std::size_t n = 0; n < 4; ++n) EXPECT_FALSE(bench.acquire(claims[n], n));
  EXPECT_EQ(bench.write().size(), 4u);
  ActivityLog::Claim late;
  EXPECT_FALSE(bench.acquire(late, 9));
  bench.flush();
  bench.clean();
  EXPECT_TRUE(bench.write().empty()) << "all are being written";
  bench.log.flush_begins();
  bench.log.release(claims[0], false);
  bench.log.flush_done(true);
  bench.clean();
  EXPECT_TRUE(bench.write().empty()) << "the flush began before the write had ended";
  EXPECT_TRUE(bench.log.wants_flush());
  bench.log.flush_begins();
  bench.log.flush_done(false);
  bench.clean();
  EXPECT_TRUE(bench.write().empty()) << "the flush failed";
  bench.flush();
  EXPECT_TRUE(bench.write().empty()) << "its bits may not be on disk";
  EXPECT_TRUE(bench.log.wants_cleaning());
  bench.clean(false);
  EXPECT_EQ(bench.to_save, std::vector<std::uint32_t>{0});
  EXPECT_TRUE(bench.write().empty()) << "they are being written";
  bench.log.cleaning_done();
  EXPECT_EQ(bench.write(), Claims{&late});
  EXPECT_EQ(bench.log.counters().evictions, 1u);
  bench.log.release(late, false);
  for (std::size_t n = 1; n < 4; ++n) bench.log.release(claims[n], false);
}

// Its new bits are not in what was saved.
TEST(ActivityLog, An_extent_that_is_written_while_its_bits_are_saved_stays) {
  Bench bench(4);
  std::deque<ActivityLog::Claim> claims(4);
  for (std::size_t n = 0; n < 4; ++n) EXPECT_FALSE(bench.acquire(claims[n], n));
  bench.write();
  for (ActivityLog::Claim& claim : claims) bench.log.release(claim, true);
  bench.clean(false);
  EXPECT_EQ(bench.to_save.size(), 1u) << "a quarter at once";
  EXPECT_TRUE(bench.acquire(claims[0], 0));
  bench.log.cleaning_done();
  bench.log.release(claims[0], false);
  ActivityLog::Claim late;
  EXPECT_FALSE(bench.acquire(late, 9));
  EXPECT_TRUE(bench.write().empty());
  bench.clean();
  EXPECT_EQ(bench.write(), Claims{&late});
  EXPECT_TRUE(bench.acquire(claims[0], 0)) << "still there";
  bench.log.release(claims[0], false);
  bench.log.release(late, false);
}

TEST(ActivityLog, A_durable_write_needs_no_flush) {
  Bench bench(1);
  ActivityLog::Claim one, two;
  EXPECT_FALSE(bench.acquire(one, 0));
  bench.write();
  bench.log.release(one, true);
  bench.clean();
  EXPECT_FALSE(bench.acquire(two, 1));
  EXPECT_EQ(bench.write(), Claims{&two});
  bench.log.release(two, true);
}

// Writers that never leave their extents must not keep another one out for ever.
TEST(ActivityLog, A_claim_that_finds_no_slot_even_after_a_flush_is_overtaken_no_more) {
  Bench bench(4);
  std::deque<ActivityLog::Claim> hot(4), other(4);
  for (std::size_t n = 0; n < 4; ++n) EXPECT_FALSE(bench.acquire(hot[n], n));
  bench.write();
  ActivityLog::Claim late;
  EXPECT_FALSE(bench.acquire(late, 9));
  EXPECT_TRUE(bench.write().empty());
  for (std::size_t n = 0; n < 4; ++n) {
    EXPECT_TRUE(bench.acquire(other[n], n));
    bench.log.release(hot[n], false);
  }
  bench.flush();
  bench.clean();
  EXPECT_TRUE(bench.write().empty()) << "somebody is in each extent";
  for (std::size_t n = 0; n < 4; ++n) {
    EXPECT_FALSE(bench.acquire(hot[n], n)) << "from here in the order of asking";
    bench.log.release(other[n], false);
  }
  bench.flush();
  bench.clean();
  EXPECT_EQ(bench.write(), Claims{&late});
  bench.log.release(late, true);
  std::size_t served_count = 0;
  for (int round = 0; round < 8; ++round) {
    bench.flush();
    bench.clean();
    for (ActivityLog::Claim* claim : bench.write()) {
      EXPECT_EQ(claim, &hot[served_count++]);
      bench.log.release(*claim, true);
    }
  }
  EXPECT_EQ(served_count, 4u);
}

// A claim for more than there is would wait for ever, and with it everybody behind.
TEST(ActivityLog, Large_changes_go_in_pieces_that_a_quarter_of_the_slots_can_hold) {
  Bench bench(16);
  EXPECT_EQ(bench.log.piece_bytes(0, 100 * kExtent), 4 * kExtent);
  EXPECT_EQ(bench.log.piece_bytes(kExtent - 512, 100 * kExtent), 3 * kExtent + 512);
  EXPECT_EQ(bench.log.piece_bytes(5, 7), 7u);
  const ActivityLog whole({63, 1});
  EXPECT_EQ(whole.piece_bytes(std::uint64_t{1} << 50, std::uint64_t{1} << 40), std::uint64_t{1} << 40);
  Bench tiny(1);
  EXPECT_EQ(tiny.log.piece_bytes(3 * kExtent + 4096, kExtent), kExtent - 4096);
}

TEST(ActivityLog, A_working_set_that_fits_asks_for_no_flush) {
  Bench bench(8);
  std::deque<ActivityLog::Claim> claims(8);
  for (std::size_t n = 0; n < 8; ++n) EXPECT_FALSE(bench.acquire(claims[n], n));
  bench.write();
  for (ActivityLog::Claim& claim : claims) bench.log.release(claim, false);
  bench.flush();
  for (std::size_t n = 0; n < 8; ++n) {
    EXPECT_TRUE(bench.acquire(claims[n], n));
    bench.log.release(claims[n], false);
    EXPECT_FALSE(bench.log.wants_flush());
    EXPECT_FALSE(bench.log.wants_cleaning());
  }
}

// What every write pays, also when its extent is active.
TEST(ActivityLog, Cost_of_a_hit_is_printed) {
  constexpr std::uint32_t kSlots = 4096;
  ActivityLog log({22, kSlots});
  LogTransaction transaction;
  std::deque<ActivityLog::Claim> claims(kSlots);
  for (std::uint64_t n = 0; n < kSlots; ++n) EXPECT_FALSE(log.acquire(claims[n], (n * 77) << 22, 4096));
  while (log.plan(transaction)) log.transaction_done();
  while (ActivityLog::Claim* claim = log.pop_ready()) log.release(*claim, false);
  std::mt19937_64 random(1);
  constexpr int kCount = 1'000'000;
  const auto begin = std::chrono::steady_clock::now();
  for (int n = 0; n < kCount; ++n) {
    ActivityLog::Claim& claim = claims[static_cast<std::size_t>(n & 31)];
    ASSERT_TRUE(log.acquire(claim, (random() % kSlots * 77) << 22, 4096));
    log.release(claim, false);
  }
  std::printf("acquire+release of an active extent among 4096: %.1f ns\n",
              std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count() / kCount);
}

/// The whole against a model: whatever is done in whatever order, what the written transactions say covers every extent
/// that is being written, or was written and not flushed, or whose bits are not saved.
TEST(ActivityLog, At_every_moment_the_ring_covers_what_may_differ) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    std::mt19937_64 random(seed);
    const std::uint32_t slots_count = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 7 : 40;
    const std::uint64_t extents_count = slots_count * 3 + 2;
    Bench bench(slots_count);
    std::vector<std::byte> ring(kActivityLogBytes);
    const Uuid volume;
    for (std::uint64_t index = 1; index <= kLogPagesCount; ++index) {
      LogTransaction transaction;
      transaction.extent_shift = kShift;
      transaction.slots_count = slots_count;
      transaction.is_reset = true;
      transaction.sequence = index;
      encode_transaction(transaction, volume,
                         MutableBytes(ring).subspan(index % kLogPagesCount * kPageBytes, kPageBytes));
    }
    std::uint64_t sequence = kLogPagesCount;
    struct Extent {
      int writers = 0;
      std::uint64_t written = 0;  ///< moment of the last write's end
      std::uint64_t saved = 0;    ///< moment at which its bits were last taken to disk
    };
    std::map<std::uint32_t, Extent> model;
    std::uint64_t now = 1, flushed = 0, flushing = 0;
    bool is_flushing = false, is_transaction_out = false, is_cleaning = false;
    std::uint64_t cleaning_since = 0;
    std::vector<std::uint32_t> cleaning;
    struct Writer {
      ActivityLog::Claim claim;
      std::uint64_t first = 0, count = 0;
      bool is_used = false, is_held = false;
    };
    std::deque<Writer> writers(12);
    std::size_t granted_count = 0;
    const auto grant = [&](Writer& writer) {
      writer.is_held = true;
      ++granted_count;
      for (std::uint64_t n = 0; n < writer.count; ++n) ++model[static_cast<std::uint32_t>(writer.first + n)].writers;
    };
    for (int step = 0; step < 3000; ++step) {
      ++now;
      switch (random() % 6) {
        case 0:
        case 1: {
          Writer& writer = writers[random() % writers.size()];
          if (!writer.is_used) {
            writer.is_used = true;
            writer.first = random() % extents_count;
            const std::uint64_t piece = bench.log.piece_bytes(writer.first * kExtent, (1 + random() % 5) * kExtent);
            writer.count = std::min(piece / kExtent, extents_count - writer.first);
            if (bench.acquire(writer.claim, writer.first, writer.count)) grant(writer);
          } else if (writer.is_held) {
            bench.log.release(writer.claim, false);
            writer.is_used = writer.is_held = false;
            for (std::uint64_t n = 0; n < writer.count; ++n) {
              Extent& extent = model[static_cast<std::uint32_t>(writer.first + n)];
              --extent.writers;
              extent.written = now;
            }
          }
          break;
        }
        case 2:
          if (is_flushing) {
            bench.log.flush_done(true);
            flushed = flushing;
          } else {
            bench.log.flush_begins();
            flushing = now;
          }
          is_flushing = !is_flushing;
          break;
        case 3:
          if (is_cleaning) {
            bench.log.cleaning_done();
            for (const std::uint32_t extent : cleaning) model[extent].saved = cleaning_since;
          } else {
            cleaning.clear();
            bench.log.pick_cleaning([](std::uint32_t) { return false; }, cleaning);
            cleaning_since = now;
          }
          is_cleaning = !is_cleaning;
          break;
        default:
          if (is_transaction_out) {
            encode_transaction(bench.transaction, volume,
                               MutableBytes(ring).subspan(sequence % kLogPagesCount * kPageBytes, kPageBytes));
            bench.log.transaction_done();
            is_transaction_out = false;
          } else if (bench.log.plan(bench.transaction)) {
            is_transaction_out = true;
            bench.transaction.sequence = ++sequence;
            bench.transaction.is_reset = sequence == kLogPagesCount + 1;
          }
          while (ActivityLog::Claim* claim = bench.log.pop_ready()) {
            for (Writer& writer : writers) {
              if (&writer.claim == claim) grant(writer);
            }
          }
      }
      if (step % 5 != 0) continue;
      const LogRecovery recovery = recover_log(ring, volume);
      ASSERT_FALSE(recovery.is_damaged);
      const std::set<std::uint32_t> active(recovery.extents.begin(), recovery.extents.end());
      for (const auto& [number, extent] : model) {
        const bool is_needed = extent.writers > 0 || extent.written > flushed || extent.written > extent.saved;
        if (is_needed && extent.written + static_cast<std::uint64_t>(extent.writers) > 0) {
          ASSERT_TRUE(active.contains(number)) << "seed " << seed << " step " << step << " extent " << number;
        }
      }
    }
    EXPECT_GT(granted_count, 20u);
    // Everything that waits is served in the end.
    for (int round = 0; round < 200; ++round) {
      for (Writer& writer : writers) {
        if (writer.is_held) bench.log.release(writer.claim, false);
        if (writer.is_held) writer.is_used = writer.is_held = false;
      }
      if (is_flushing) bench.log.flush_done(true);
      is_flushing = false;
      bench.flush();
      if (is_cleaning) bench.log.cleaning_done();
      is_cleaning = false;
      bench.clean();
      if (is_transaction_out) bench.log.transaction_done();
      is_transaction_out = false;
      if (bench.log.plan(bench.transaction)) bench.log.transaction_done();
      while (ActivityLog::Claim* claim = bench.log.pop_ready()) {
        for (Writer& writer : writers) {
          if (&writer.claim == claim) grant(writer);
        }
      }
    }
    for (const Writer& writer : writers) ASSERT_FALSE(writer.is_used) << "seed " << seed;
  }
}

}  // namespace
}  // namespace replblk::blockdev
