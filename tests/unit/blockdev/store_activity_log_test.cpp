// The activity log as part of a store: what a start finds after a stop at any moment.
#include <gtest/gtest.h>

#include <deque>

#include "blockdev/layout.hpp"
#include "store_fixture.hpp"

namespace replblk::blockdev::test {
namespace {

using Op = ports::DiskOpKind;
constexpr std::uint64_t kDiskBytes = 4 * kMiB;
constexpr std::uint64_t kExtent = 65536;
constexpr std::uint64_t kRingAt = kDiskBytes - 131072 - kActivityLogBytes;

StoreOptions log_options(std::uint32_t slots_count = 4) {
  StoreOptions options = store_options();
  options.activity_log = {16, slots_count};
  return options;
}

std::vector<std::byte> fresh_image() {
  StoreBench bench(disk_geometry(kDiskBytes));
  EXPECT_TRUE(bench.create(create_options(sample_record(4))).has_value());
  return bench.data.durable_bytes();
}

/// A store that is open, with a log of few slots, and a writer that claims, writes and releases.
struct LogBench : StoreBench {
  explicit LogBench(std::vector<std::byte> image, StoreOptions options = log_options())
      : StoreBench(disk_geometry(kDiskBytes), std::move(image)) {
    restart(std::move(options));
  }
  /// Claims `extent` for as long as the store lives; what was granted is counted.
  void claim(std::uint64_t extent) {
    ActivityLogWriter::Claim& one = claims.emplace_back();
    one.on_active = Callback<void(bool)>::to<&LogBench::on_active>(*this);
    if (store->activity_log().acquire(one, extent * kExtent, 4096)) ++granted_count;
  }
  void on_active(bool is_active) { is_active ? ++granted_count : ++refused_count; }
  void release_all(bool is_durable) {
    for (ActivityLogWriter::Claim& one : claims) store->activity_log().release(one, is_durable);
    claims.clear();
  }
  void flush() {
    store->activity_log().flush_begins();
    store->activity_log().flush_done(true);
  }
  void settle() { store->settle(Callback<void(Result<void, ports::IoError>)>::to<&StoreBench::on_saved>(*this)); }
  std::deque<ActivityLogWriter::Claim> claims;
  std::size_t granted_count = 0;
  std::size_t refused_count = 0;
};

/// What a start on this image holds for different.
bool is_dirty_after(std::vector<std::byte> image, std::uint64_t extent, StoreOptions options = log_options()) {
  LogBench after(std::move(image), std::move(options));
  EXPECT_TRUE(after.open().has_value());
  return after.store->dirty().is_dirty(extent * kExtent, kExtent);
}

// protocol.md 5.2: durable before the first write. Cut at each step, with every choice of the sectors that survive.
TEST(StoreActivityLog, A_granted_extent_is_found_after_a_power_cut_at_any_moment) {
  const std::vector<std::byte> image = fresh_image();
  std::size_t found_count = 0;
  for (std::size_t step = 0; step <= 3; ++step) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      LogBench bench(image);
      ASSERT_TRUE(bench.open().has_value());
      for (const std::uint64_t extent : {3u, 9u, 10u}) {
        bench.claim(extent);
        bench.loop.run();
      }
      EXPECT_EQ(bench.granted_count, 0u);
      for (std::size_t n = 0; n < step; ++n) {
        bench.data.complete_next();
        bench.loop.run();
      }
      const std::vector<std::byte> left = bench.data.image_after_power_cut(seed);
      const bool is_found = is_dirty_after(left, 3);
      ASSERT_TRUE(is_found || bench.granted_count == 0);
      ASSERT_TRUE(is_dirty_after(left, 9) || bench.granted_count < 2);
      ASSERT_FALSE(is_dirty_after(left, 4)) << "others are not dirty";
      found_count += is_found ? 1 : 0;
      bench.run();
      EXPECT_EQ(bench.granted_count, 3u);
      bench.release_all(false);
    }
  }
  EXPECT_GT(found_count, 60u);
}

// protocol.md 5.3: its page is on disk before an extent leaves, whatever is cut off.
TEST(StoreActivityLog, Bits_of_an_extent_that_leaves_the_log_are_on_disk_first) {
  for (std::size_t step = 0; step <= 8; ++step) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      LogBench bench(fresh_image(), log_options(1));
      ASSERT_TRUE(bench.open().has_value());
      bench.claim(3);
      bench.run();
      bench.store->dirty().set(3 * kExtent, 4096);
      bench.release_all(false);
      bench.flush();
      bench.claim(20);
      bench.loop.run();
      for (std::size_t n = 0; n < step && bench.data.complete_next(); ++n) bench.loop.run();
      const bool is_granted = bench.granted_count == 2;
      LogBench after(bench.data.image_after_power_cut(seed), log_options(1));
      ASSERT_TRUE(after.open().has_value());
      ASSERT_TRUE(after.store->dirty().is_dirty(3 * kExtent, 4096)) << "step " << step;
      ASSERT_TRUE(!is_granted || after.store->dirty().is_dirty(20 * kExtent, 4096));
      if (is_granted) {
        // Not the whole extent any more: its bits only.
        ASSERT_FALSE(after.store->dirty().is_dirty(3 * kExtent + 4096, 4096));
      }
      bench.run();
      EXPECT_EQ(bench.granted_count, 2u);
      EXPECT_EQ(bench.store->counters().bitmap_page_writes, 1u);
      bench.release_all(false);
    }
  }
}

// protocol.md 5.3: the device is flushed first (a killed process leaves its writes in the cache), then the bits are
// durable, then the log lets go. A second stop in the middle finds all of it again.
TEST(StoreActivityLog, Recovery_flushes_saves_the_bits_and_then_closes_the_log) {
  LogBench bench(fresh_image());
  ASSERT_TRUE(bench.open().has_value());
  bench.claim(3);
  bench.run();
  const std::vector<std::byte> left = bench.data.durable_bytes();
  bench.release_all(false);
  LogBench after(left);
  ASSERT_TRUE(after.open().has_value());
  std::vector<FakeDisk::Logged> writes;
  for (const FakeDisk::Logged& op : after.data.log) {
    if (op.kind != Op::read) writes.push_back(op);
  }
  const std::uint64_t bitmap_at = after.store->geometry().size_bytes;
  // The first flush is for the superblocks (StoreMetadata).
  EXPECT_EQ(writes, (std::vector<FakeDisk::Logged>{{Op::flush, 0, 0, false},
                                                   {Op::flush, 0, 0, false},
                                                   {Op::write, bitmap_at, 4096, false},
                                                   {Op::flush, 0, 0, false},
                                                   {Op::write, kRingAt + 2 * 4096, 4096, true}}));
  EXPECT_EQ(after.store->dirty().dirty_bytes(), kExtent);
  for (std::size_t step = 0; step < after.data.log.size(); ++step) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      LogBench again(left);
      again.store->open(Callback<void(Result<void, StoreError>)>::to<&StoreBench::on_opened>(again));
      for (std::size_t n = 0; n < step; ++n) again.data.complete_next();
      ASSERT_TRUE(is_dirty_after(again.data.image_after_power_cut(seed), 3)) << step;
    }
  }
}

TEST(StoreActivityLog, After_settling_nothing_is_active_and_the_bits_are_those_of_memory) {
  LogBench bench(fresh_image());
  ASSERT_TRUE(bench.open().has_value());
  for (const std::uint64_t extent : {3u, 4u, 5u}) bench.claim(extent);
  bench.run();
  bench.store->dirty().set(4 * kExtent, 4096);
  bench.settle();
  bench.run();
  EXPECT_TRUE(bench.save_results.empty()) << "not while something is being changed";
  bench.release_all(false);
  bench.flush();
  bench.run();
  ASSERT_EQ(bench.save_results.size(), 1u);
  EXPECT_TRUE(bench.save_results[0].has_value());
  LogBench after(bench.data.image_after_power_cut(1));
  ASSERT_TRUE(after.open().has_value());
  EXPECT_EQ(after.store->dirty().dirty_blocks_count(), 1u);
  // And it goes on after that.
  bench.claim(7);
  bench.run();
  EXPECT_EQ(bench.granted_count, 4u);
  EXPECT_TRUE(is_dirty_after(bench.data.image_after_power_cut(2), 7));
  EXPECT_FALSE(is_dirty_after(bench.data.image_after_power_cut(2), 3));
  bench.release_all(false);
}

// A17: a demotion that was not clean on both sides.
TEST(StoreActivityLog, Settling_turns_what_was_not_flushed_into_bits) {
  LogBench bench(fresh_image());
  ASSERT_TRUE(bench.open().has_value());
  bench.claim(3);
  bench.run();
  bench.release_all(false);
  bench.flush();
  bench.claim(5);
  bench.run();
  bench.release_all(false);
  bench.settle();
  bench.run();
  EXPECT_FALSE(is_dirty_after(bench.data.image_after_power_cut(1), 3));
  EXPECT_TRUE(is_dirty_after(bench.data.image_after_power_cut(1), 5));
  EXPECT_TRUE(bench.store->dirty().is_dirty(5 * kExtent, kExtent)) << "the resync reads memory";
}

TEST(StoreActivityLog, Settling_without_a_flush_keeps_the_log) {
  LogBench bench(fresh_image());
  ASSERT_TRUE(bench.open().has_value());
  bench.claim(3);
  bench.run();
  bench.release_all(false);
  bench.flush();
  std::size_t flushes = 0;
  bench.data.fault = [&](const ports::DiskOp& op) {
    return op.kind == Op::flush && flushes++ == 0 ? std::optional(ports::IoError::io) : std::nullopt;
  };
  bench.settle();
  bench.run();
  ASSERT_EQ(bench.save_results.size(), 1u);
  EXPECT_TRUE(bench.save_results[0].has_value());
  bench.data.fault = nullptr;
  EXPECT_TRUE(is_dirty_after(bench.data.image_after_power_cut(1), 3));
}

TEST(StoreActivityLog, A_damaged_or_unreadable_ring_makes_every_block_dirty_and_is_made_anew) {
  for (const bool is_unreadable : {false, true}) {
    LogBench bench(fresh_image());
    if (is_unreadable) {
      bench.data.fault = [](const ports::DiskOp& op) {
        const bool hits = op.kind == Op::read && op.offset_bytes <= kRingAt + 300000 &&
                          op.offset_bytes + op.length_bytes > kRingAt + 300000;
        return hits ? std::optional(ports::IoError::io) : std::nullopt;
      };
    } else {
      bench.data.flip_bit(kRingAt + 77777, 3);
    }
    ASSERT_TRUE(bench.open().has_value());
    EXPECT_EQ(bench.store->dirty().dirty_blocks_count(), bench.store->dirty().blocks_count());
    EXPECT_NE(bench.store->notice().find("the activity log was damaged"), std::string::npos);
    bench.data.fault = nullptr;
    bench.store->dirty().clear_all();
    ASSERT_TRUE(bench.save_bitmap().has_value());
    bench.claim(3);
    bench.run();
    EXPECT_EQ(bench.granted_count, 1u);
    bench.release_all(false);
    LogBench after(bench.data.image_after_power_cut(1));
    ASSERT_TRUE(after.open().has_value());
    EXPECT_EQ(after.store->dirty().dirty_bytes(), kExtent);
  }
}

// `updates: false`: one extent that is the volume.
TEST(StoreActivityLog, Without_updates_every_block_is_dirty_after_a_crash_and_none_after_settling) {
  LogBench bench(fresh_image(), store_options());
  ASSERT_TRUE(bench.open().has_value());
  bench.claim(3);
  bench.claim(40);
  bench.run();
  EXPECT_EQ(bench.granted_count, 2u);
  EXPECT_EQ(bench.store->counters().activity_log.transactions, 1u);
  {
    LogBench after(bench.data.image_after_power_cut(1));
    ASSERT_TRUE(after.open().has_value());
    EXPECT_EQ(after.store->dirty().dirty_blocks_count(), after.store->dirty().blocks_count());
  }
  bench.release_all(false);
  bench.flush();
  bench.settle();
  bench.run();
  EXPECT_FALSE(is_dirty_after(bench.data.image_after_power_cut(1), 3));
}

// A node that cannot remember must not write.
TEST(StoreActivityLog, A_failed_transaction_grants_nothing_and_fails_the_metadata) {
  LogBench bench(fresh_image());
  ASSERT_TRUE(bench.open().has_value());
  std::optional<ports::IoError> told;
  bench.store->set_failure_listener(Callback<void(ports::IoError)>::with(
      &told, [](void* into, ports::IoError error) { *static_cast<std::optional<ports::IoError>*>(into) = error; }));
  bench.data.fault = [](const ports::DiskOp& op) {
    return op.kind == Op::write ? std::optional(ports::IoError::io) : std::nullopt;
  };
  bench.claim(3);
  bench.claim(4);
  bench.run();
  EXPECT_EQ(told, ports::IoError::io);
  bench.data.fault = nullptr;
  bench.claim(5);
  bench.settle();
  bench.begin_save(sample_record(9));
  bench.run();
  EXPECT_EQ(bench.granted_count, 0u);
  EXPECT_EQ(bench.refused_count, 3u);
  ASSERT_EQ(bench.save_results.size(), 2u);
  for (const auto& result : bench.save_results) EXPECT_FALSE(result.has_value());
}

}  // namespace
}  // namespace replblk::blockdev::test
