#include "blockdev/activity_log_codec.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>

#include "blockdev/sealed_sector.hpp"

namespace replblk::blockdev {
namespace {

Uuid volume() {
  Uuid uuid;
  uuid.bytes.fill(std::byte{0x5a});
  return uuid;
}

/// A ring as create-md leaves it, and who writes into it.
struct Ring {
  std::vector<std::byte> bytes = std::vector<std::byte>(kActivityLogBytes);
  std::uint64_t sequence = kLogPagesCount;
  std::vector<std::uint32_t> slots;
  std::uint32_t cursor = 0;
  bool is_open = false;

  explicit Ring(std::uint32_t slots_count) : slots(slots_count, kNoExtent) {
    for (std::uint64_t index = 1; index <= kLogPagesCount; ++index) {
      LogTransaction transaction = blank();
      transaction.sequence = index;
      transaction.is_reset = true;
      encode_transaction(transaction, volume(), page(index));
    }
  }
  [[nodiscard]] MutableBytes page(std::uint64_t number) {
    return MutableBytes(bytes).subspan(static_cast<std::size_t>(number % kLogPagesCount) * kPageBytes, kPageBytes);
  }
  [[nodiscard]] LogTransaction blank() const {
    LogTransaction transaction;
    transaction.extent_shift = 22;
    transaction.slots_count = static_cast<std::uint32_t>(slots.size());
    return transaction;
  }
  /// The next transaction as it would be written, not written yet.
  [[nodiscard]] LogTransaction next(const std::vector<LogUpdate>& updates) {
    LogTransaction transaction = blank();
    transaction.sequence = sequence + 1;
    transaction.is_reset = !is_open;
    for (const LogUpdate& update : updates) {
      transaction.add(update.slot, update.extent);
      slots[update.slot] = update.extent;
    }
    transaction.context_start = cursor;
    transaction.context_count = std::min<std::uint32_t>(kLogContextMax, transaction.slots_count);
    for (std::uint32_t n = 0; n < transaction.context_count; ++n) {
      transaction.context[n] = slots[(cursor + n) % slots.size()];
    }
    cursor = (cursor + transaction.context_count) % transaction.slots_count;
    return transaction;
  }
  void write(const std::vector<LogUpdate>& updates) {
    const LogTransaction transaction = next(updates);
    encode_transaction(transaction, volume(), page(++sequence));
    is_open = true;
  }
  [[nodiscard]] std::set<std::uint32_t> active() const {
    std::set<std::uint32_t> set(slots.begin(), slots.end());
    set.erase(kNoExtent);
    return set;
  }
};

std::set<std::uint32_t> recovered(const Ring& ring) {
  const LogRecovery recovery = recover_log(ring.bytes, volume());
  EXPECT_FALSE(recovery.is_damaged) << recovery.reason;
  EXPECT_EQ(recovery.sequence, ring.sequence);
  return {recovery.extents.begin(), recovery.extents.end()};
}

bool is_damaged(const Ring& ring) { return recover_log(ring.bytes, volume()).is_damaged; }

Ring busy_ring(std::uint32_t slots_count, std::size_t transactions, std::uint64_t seed) {
  Ring ring(slots_count);
  std::mt19937_64 random(seed);
  for (std::size_t n = 0; n < transactions; ++n) {
    std::vector<LogUpdate> updates;
    for (std::uint64_t count = 1 + random() % 40; count > 0; --count) {
      updates.push_back({static_cast<std::uint16_t>(random() % slots_count),
                         random() % 5 == 0 ? kNoExtent : static_cast<std::uint32_t>(random() % 100000)});
    }
    ring.write(updates);
  }
  return ring;
}

TEST(ActivityLogCodec, A_fresh_ring_has_no_active_extent) {
  EXPECT_TRUE(recovered(Ring(4096)).empty());
  EXPECT_TRUE(recovered(Ring(1)).empty());
}

// The newest transactions tell what every slot holds, however long ago it was changed.
TEST(ActivityLogCodec, Recovery_finds_what_every_slot_holds_after_any_number_of_transactions) {
  for (const std::uint32_t slots_count : {1u, 7u, 512u, 513u, 4096u, kLogSlotsMax}) {
    for (const std::size_t transactions : {1u, 2u, 7u, 9u, 130u, 255u, 256u, 257u, 1000u}) {
      const Ring ring = busy_ring(slots_count, transactions, slots_count + transactions);
      ASSERT_EQ(recovered(ring), ring.active()) << slots_count << " slots, " << transactions << " transactions";
    }
  }
}

// A transaction that lost a bit and is taken for torn would hide the extents that it activated.
TEST(ActivityLogCodec, Any_flipped_bit_anywhere_in_the_ring_is_damage) {
  Ring ring = busy_ring(4096, 300, 1);
  std::mt19937_64 random(2);
  for (int round = 0; round < 3000; ++round) {
    // Every bit of the newest and the next page by and by, the others by chance.
    const std::uint64_t number = round % 3 == 0 ? ring.sequence : round % 3 == 1 ? ring.sequence + 1 : random();
    const std::size_t at = random() % kPageBytes;
    const auto bit = std::byte{static_cast<unsigned char>(1u << random() % 8)};
    ring.page(number)[at] ^= bit;
    ASSERT_TRUE(is_damaged(ring)) << "page " << number % kLogPagesCount << " byte " << at;
    ring.page(number)[at] ^= bit;
  }
  EXPECT_EQ(recovered(ring), ring.active());
}

// A power cut while the newest transaction is written, at any sector: as if it had not been begun, or done.
TEST(ActivityLogCodec, A_torn_newest_transaction_counts_as_not_written) {
  for (unsigned mask = 0; mask < 256; ++mask) {
    Ring ring = busy_ring(1000, 290, 3);
    const std::set<std::uint32_t> before = ring.active();
    const LogTransaction next = ring.next({{5, 777'777}, {6, kNoExtent}});
    const std::set<std::uint32_t> after = ring.active();
    std::array<std::byte, kPageBytes> page;
    encode_transaction(next, volume(), page);
    const MutableBytes place = ring.page(next.sequence);
    for (std::size_t sector = 0; sector < 8; ++sector) {
      if ((mask >> sector & 1) != 0)
        std::memcpy(place.data() + sector * kSectorBytes, page.data() + sector * kSectorBytes, kSectorBytes);
    }
    if (mask == 255) ++ring.sequence;
    ASSERT_EQ(recovered(ring), mask == 255 ? after : before) << mask;
  }
}

// The same number is given out again after a power cut; two torn attempts may fill a page together.
TEST(ActivityLogCodec, Sectors_of_two_attempts_at_one_transaction_make_no_transaction) {
  Ring ring = busy_ring(1000, 290, 4);
  const std::set<std::uint32_t> before = ring.active();
  Ring other = ring;
  std::array<std::byte, kPageBytes> page;
  std::vector<LogUpdate> one, two;
  for (std::uint16_t slot = 0; slot < 150; ++slot) {
    one.push_back({slot, 777'000u + slot});
    two.push_back({slot, 888'000u + slot});
  }
  encode_transaction(ring.next(one), volume(), page);
  encode_transaction(other.next(two), volume(), ring.page(ring.sequence + 1));
  std::memcpy(ring.page(ring.sequence + 1).data(), page.data(), kSectorBytes);
  EXPECT_EQ(recovered(ring), before);
}

// What must be there and is not: extents would be forgotten.
TEST(ActivityLogCodec, A_torn_or_missing_transaction_that_is_not_the_next_one_is_damage) {
  const Ring good = busy_ring(1000, 290, 5);
  // The newest one itself may be torn; gone without a trace it cannot be told from not begun: no disk may lose what it
  // called durable.
  for (std::uint64_t age = 1; age < kLogPagesCount - 1; ++age) {
    Ring torn = good;
    seal_sector(torn.page(good.sequence - age), 3, SealKind::activity_log, good.sequence - age - kLogPagesCount);
    ASSERT_TRUE(is_damaged(torn)) << age;
    Ring stale = good;
    LogTransaction old = stale.blank();
    old.sequence = good.sequence - age - kLogPagesCount;
    encode_transaction(old, volume(), stale.page(old.sequence));
    ASSERT_TRUE(is_damaged(stale)) << age;
  }
  Ring empty = good;
  std::ranges::fill(empty.bytes, std::byte{0});
  EXPECT_TRUE(is_damaged(empty));
  Uuid another = volume();
  another.bytes[0] = std::byte{1};
  EXPECT_TRUE(recover_log(good.bytes, another).is_damaged) << "a ring of another volume";
}

}  // namespace
}  // namespace replblk::blockdev
