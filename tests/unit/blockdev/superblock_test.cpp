#include "blockdev/superblock.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/crc32c.hpp"
#include "blockdev/record_codec.hpp"

namespace replblk::blockdev {
namespace {

using Slot = std::vector<std::byte>;
using Kind = SuperblockVerdict::Kind;

Superblock sample(std::uint64_t sequence, std::size_t record_bytes) {
  Superblock superblock;
  superblock.sequence = sequence;
  superblock.volume_uuid.bytes.fill(std::byte{0x11});
  superblock.volume = 2;
  superblock.logical_block_bytes = 512;
  superblock.layout = *plan_layout({Placement::internal, std::uint64_t{1} << 30, 0, 0});
  std::mt19937_64 random(sequence);
  for (std::size_t n = 0; n < record_bytes; ++n) superblock.record.push_back(static_cast<std::byte>(random()));
  return superblock;
}

Slot encoded(const Superblock& superblock, std::uint8_t copy, std::size_t* used_bytes = nullptr) {
  Slot slot(kSuperblockSlotBytes);
  const std::size_t used = encode_superblock(superblock, copy, slot);
  if (used_bytes != nullptr) *used_bytes = used;
  return slot;
}

// What is saved must be what is read, with records of every shape up to the largest.
TEST(Superblock, Comes_back_as_it_was_written) {
  for (const std::size_t record_bytes : {std::size_t{0}, std::size_t{1}, std::size_t{496}, std::size_t{497},
                                         std::size_t{3472}, std::size_t{3473}, std::size_t{20'000}, kRecordBytesMax}) {
    const Superblock superblock = sample(77, record_bytes);
    std::size_t used_bytes = 0;
    Slot slot = encoded(superblock, 1, &used_bytes);
    EXPECT_EQ(used_bytes % 4096, 0u);
    // Only what is written is there; the rest of the slot holds anything.
    std::fill(slot.begin() + static_cast<std::ptrdiff_t>(used_bytes), slot.end(), std::byte{0xee});
    const SuperblockCopy copy = decode_superblock(slot, 1);
    ASSERT_EQ(copy.state, CopyState::whole) << record_bytes;
    EXPECT_EQ(copy.superblock, superblock);
    EXPECT_EQ(decode_superblock(slot, 0).state, CopyState::damaged) << "copy B found in slot A";
  }
}

// A wrong term or a lost Outdated flag, believed, is two primaries.
TEST(Superblock, Any_single_flipped_bit_is_detected) {
  for (const std::size_t record_bytes : {std::size_t{700}, std::size_t{4000}}) {
    std::size_t used_bytes = 0;
    Slot slot = encoded(sample(5, record_bytes), 0, &used_bytes);
    for (std::size_t at = 0; at < used_bytes; ++at) {
      for (unsigned bit = 0; bit < 8; ++bit) {
        slot[at] ^= static_cast<std::byte>(1u << bit);
        const CopyState state = decode_superblock(slot, 0).state;
        slot[at] ^= static_cast<std::byte>(1u << bit);
        // Without its magic a sector that is not valid may as well be somebody else's.
        ASSERT_EQ(state, at < 8 ? CopyState::absent : CopyState::damaged) << "byte " << at << " bit " << bit;
      }
    }
  }
}

// A power cut in mid-write must look like one, whichever sectors got through: else the node would claim nothing after
// it.
TEST(Superblock, Any_mixture_of_two_saves_is_torn_or_one_of_them) {
  std::mt19937_64 random(3);
  for (const auto& [old_bytes, new_bytes] :
       {std::pair<std::size_t, std::size_t>{700, 900}, {3000, 5000}, {9000, 100}, {100, 30'000}}) {
    const Superblock older = sample(10, old_bytes), newer = sample(11, new_bytes);
    std::size_t written_bytes = 0;
    const Slot before = encoded(older, 0), after = encoded(newer, 0, &written_bytes);
    const std::size_t sectors = written_bytes / kSectorBytes;
    for (int round = 0; round < 400; ++round) {
      Slot slot = before;
      for (std::size_t sector = 0; sector < sectors; ++sector) {
        // First every prefix and every suffix, then any subset.
        const std::size_t cut = static_cast<std::size_t>(round) / 2;
        const bool is_new = cut <= sectors ? (round % 2 == 0 ? sector < cut : sector >= cut) : random() % 2 == 0;
        if (!is_new) continue;
        const auto at = static_cast<std::ptrdiff_t>(sector * kSectorBytes);
        std::copy_n(after.begin() + at, kSectorBytes, slot.begin() + at);
      }
      const SuperblockCopy copy = decode_superblock(slot, 0);
      if (copy.state == CopyState::whole) {
        ASSERT_TRUE(copy.superblock == older || copy.superblock == newer);
      } else {
        ASSERT_EQ(copy.state, CopyState::torn);
        ASSERT_LE(copy.sequence_max, 11u);
      }
    }
  }
}

void reseal_first_sector(Slot& slot) {
  store_le<std::uint32_t>(slot.data() + 508, crc32c(ConstBytes(slot).first(508)));
}

// A newer replblk may mean something by bits that this one would overwrite.
TEST(Superblock, Newer_version_and_unknown_incompatible_features_are_told_from_damage) {
  Slot slot = encoded(sample(5, 100), 0);
  store_le<std::uint32_t>(slot.data() + 8, 2);
  EXPECT_EQ(decode_superblock(slot, 0).state, CopyState::damaged);
  reseal_first_sector(slot);
  EXPECT_EQ(decode_superblock(slot, 0).state, CopyState::from_the_future);
  EXPECT_EQ(decode_superblock(slot, 0).version, 2u);
  slot = encoded(sample(5, 100), 0);
  store_le<std::uint32_t>(slot.data() + 12, 0x10);
  reseal_first_sector(slot);
  EXPECT_EQ(decode_superblock(slot, 0).state, CopyState::from_the_future);
  slot = encoded(sample(5, 100), 0);
  store_le<std::uint32_t>(slot.data() + 16, 0x10);
  reseal_first_sector(slot);
  EXPECT_EQ(decode_superblock(slot, 0).state, CopyState::whole) << "compatible features are ignored";
}

// Sealed nonsense (a bug of a writer, or an attacker with the disk) must not lead outside the device.
TEST(Superblock, Valid_checksums_around_impossible_fields_are_damage) {
  for (const int field_at : {44, 48, 56, 64, 72, 80, 88, 96, 104, 120}) {
    Slot slot = encoded(sample(5, 100), 0);
    store_le<std::uint32_t>(slot.data() + field_at, 0xffff'fff1u);
    reseal_first_sector(slot);
    EXPECT_EQ(decode_superblock(slot, 0).state, CopyState::damaged) << field_at;
  }
}

TEST(Superblock, Foreign_bytes_are_no_superblock) {
  EXPECT_EQ(decode_superblock(Slot(kSuperblockSlotBytes), 0).state, CopyState::absent);
  std::mt19937_64 random(1);
  for (int round = 0; round < 50; ++round) {
    Slot slot(kSuperblockSlotBytes);
    for (std::byte& byte : slot) byte = static_cast<std::byte>(random());
    EXPECT_EQ(decode_superblock(slot, 0).state, CopyState::absent);
  }
}

SuperblockCopy copy_of(CopyState state, std::uint64_t sequence) {
  SuperblockCopy copy;
  copy.state = state;
  copy.sequence_max = sequence;
  if (state == CopyState::whole) copy.superblock = sample(sequence, 0);
  return copy;
}

// The table of docs/ondisk_format.md 2.4, against its rule, for all pairs of states and near sequences.
TEST(Superblock, Verdict_on_two_copies_is_the_documented_one) {
  constexpr std::array kStates{CopyState::unreadable,      CopyState::absent, CopyState::damaged,
                               CopyState::from_the_future, CopyState::torn,   CopyState::whole};
  for (const CopyState a : kStates) {
    for (const CopyState b : kStates) {
      for (std::uint64_t a_sequence = 8; a_sequence <= 12; ++a_sequence) {
        const SuperblockVerdict verdict = judge_superblocks({copy_of(a, a_sequence), copy_of(b, 10)});
        const bool is_a_whole = a == CopyState::whole, is_b_whole = b == CopyState::whole;
        Kind expected = Kind::damaged;
        if (a == CopyState::from_the_future || b == CopyState::from_the_future) {
          expected = Kind::from_the_future;
        } else if (is_a_whole && is_b_whole) {
          expected = a_sequence == 10 || a_sequence == 11 ? Kind::good : Kind::one_only;
          EXPECT_EQ(verdict.chosen, a_sequence >= 10 ? 0 : 1);
        } else if (is_a_whole) {
          expected = 10 <= a_sequence ? Kind::good : Kind::one_only;
          EXPECT_EQ(verdict.chosen, 0);
        } else if (is_b_whole) {
          expected = a_sequence <= 11 ? Kind::good : Kind::one_only;
          EXPECT_EQ(verdict.chosen, 1);
        } else if (a == CopyState::absent && b == CopyState::absent) {
          expected = Kind::none;
        } else if (a == CopyState::unreadable || b == CopyState::unreadable) {
          expected = Kind::unreadable;
        }
        ASSERT_EQ(verdict.kind, expected) << static_cast<int>(a) << ' ' << static_cast<int>(b) << ' ' << a_sequence;
      }
    }
  }
}

// Halves of two volumes glued together are no volume.
TEST(Superblock, Copies_of_different_volumes_are_refused) {
  SuperblockCopy a = copy_of(CopyState::whole, 5), b = copy_of(CopyState::whole, 5);
  b.superblock.volume_uuid.bytes[3] = std::byte{0xff};
  EXPECT_EQ(judge_superblocks({a, b}).kind, Kind::different);
  b = copy_of(CopyState::whole, 5);
  b.superblock.record.push_back(std::byte{1});
  EXPECT_EQ(judge_superblocks({a, b}).kind, Kind::different);
}

// A volume that grew, and a power cut between its two superblocks.
TEST(Superblock, Copies_of_one_volume_may_differ_in_their_layout_when_the_first_is_the_newer) {
  SuperblockCopy a = copy_of(CopyState::whole, 6), b = copy_of(CopyState::whole, 5);
  a.superblock.layout.usable_bytes -= 4096;
  const SuperblockVerdict verdict = judge_superblocks({a, b});
  EXPECT_EQ(verdict.kind, Kind::good);
  EXPECT_EQ(verdict.chosen, 0);
  EXPECT_TRUE(verdict.is_repair_needed);
  a.superblock.sequence = 5;
  EXPECT_EQ(judge_superblocks({a, b}).kind, Kind::different);
  a.superblock.sequence = 9;
  EXPECT_EQ(judge_superblocks({a, b}).kind, Kind::different);
}

// A record that comes back changed is a node that acts upon what it never agreed to.
TEST(RecordCodec, Every_field_comes_back) {
  ResourceRecord record;
  record.configuration = {UINT64_MAX, 2, 1};
  record.seen = 5;
  record.pair_id.bytes.fill(std::byte{0xfe});
  record.generations.current = {4, UINT64_MAX};
  record.generations.base = {3, 1};
  for (std::uint64_t n = 0; n < GenerationSet::kHistoryCountMax; ++n)
    record.generations.history.push_back({UINT64_MAX - n, n});
  record.boot_id.bytes.fill(std::byte{1});
  record.lease_ms_max = UINT32_MAX;
  record.alone_since_ms = UINT64_MAX - 7;
  record.merged_term = UINT64_MAX - 9;
  record.was_primary_at_parting = record.is_standby = record.is_maintenance = true;
  record.reservations.assign(ResourceRecord::kReservationsBytesMax, '\xff');
  record.reservations[1] = '\0';
  for (int flag = 0; flag < 6; ++flag) {
    record.is_inconsistent = flag == 0;
    record.is_outdated = flag == 1;
    record.is_primary_open = flag == 2;
    record.is_clean_stop = flag == 3;
    record.may_be_older = flag == 4;
    const std::vector<std::byte> bytes = encode_record("name", record);
    EXPECT_LE(bytes.size(), kRecordBytesMax);
    const auto back = decode_record(bytes);
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(back->record, record);
    EXPECT_EQ(back->resource_name, "name");
  }
  const auto empty = decode_record(encode_record("", ResourceRecord{}));
  ASSERT_TRUE(empty.has_value());
  EXPECT_EQ(empty->record, ResourceRecord{});
}

// Taken, it would not fit the slot again together with what the next save adds.
TEST(RecordCodec, Reservations_that_are_too_long_are_refused) {
  ResourceRecord record;
  record.reservations.assign(ResourceRecord::kReservationsBytesMax, 'r');
  std::vector<std::byte> bytes = encode_record("", record);
  ASSERT_TRUE(decode_record(bytes).has_value());
  // Field 17, length 40960 as a varint of three bytes, the content.
  const std::size_t length_at = bytes.size() - record.reservations.size() - 3;
  ASSERT_EQ(bytes[length_at], std::byte{0x80});
  bytes[length_at] = std::byte{0x81};
  bytes.push_back(std::byte{'r'});
  EXPECT_FALSE(decode_record(bytes).has_value());
}

TEST(RecordCodec, Foreign_bytes_are_refused_or_harmless) {
  std::mt19937_64 random(1);
  const std::vector<std::byte> good = encode_record("name", ResourceRecord{});
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::byte> bytes(random() % 60);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    if (const auto named = decode_record(bytes)) {
      EXPECT_LE(named->record.configuration.members, 3);
    }
  }
}

}  // namespace
}  // namespace replblk::blockdev
