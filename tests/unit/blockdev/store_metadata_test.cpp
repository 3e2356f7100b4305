#include <gtest/gtest.h>

#include "blockdev/layout.hpp"
#include "store_fixture.hpp"

namespace replblk::blockdev::test {
namespace {

using Op = ports::DiskOpKind;
constexpr std::uint64_t kDiskBytes = 2 * kMiB;
constexpr std::uint64_t kSlotA = kDiskBytes - 131072;
constexpr std::uint64_t kSlotB = kDiskBytes - 65536;

/// A disk on which create-md and some saves were done; the last record is sample_record(`term`).
std::vector<std::byte> prepared_image(std::uint64_t term) {
  StoreBench bench(disk_geometry(kDiskBytes));
  EXPECT_TRUE(bench.create(create_options(sample_record(term - 1))).has_value());
  EXPECT_TRUE(bench.open().has_value());
  EXPECT_TRUE(bench.save(sample_record(term)).has_value());
  return bench.data.durable_bytes();
}

// The first promise of all: what was saved is there.
TEST(StoreMetadata, What_was_created_and_saved_is_found_again) {
  StoreBench bench(disk_geometry(kDiskBytes + 1000));
  const auto usable = bench.create(create_options(sample_record(4)));
  ASSERT_TRUE(usable.has_value());
  EXPECT_EQ(*usable, kDiskBytes - 131072 - 1048576 - 4096);
  ASSERT_TRUE(bench.open().has_value());
  EXPECT_EQ(bench.store->record(), sample_record(4));
  EXPECT_EQ(bench.store->geometry().size_bytes, *usable);
  EXPECT_EQ(bench.store->volume_uuid(), create_options({}).volume_uuid);
  for (std::uint64_t term = 5; term < 50; ++term) ASSERT_TRUE(bench.save(sample_record(term)).has_value());
  EXPECT_EQ(bench.store->record(), sample_record(49));
  bench.data.power_cut(1);
  bench.restart();
  ASSERT_TRUE(bench.open().has_value());
  EXPECT_EQ(bench.store->record(), sample_record(49));
}

TEST(StoreMetadata, External_metadata_leaves_the_data_device_alone) {
  StoreBench bench(disk_geometry(kDiskBytes), 2 * kMiB);
  const auto usable = bench.create(create_options(sample_record(4)));
  ASSERT_TRUE(usable.has_value());
  EXPECT_EQ(*usable, kDiskBytes);
  ASSERT_TRUE(bench.open().has_value());
  ASSERT_TRUE(bench.save(sample_record(5)).has_value());
  EXPECT_TRUE(bench.data.log.empty());
  bench.restart();
  ASSERT_TRUE(bench.open().has_value());
  EXPECT_EQ(bench.store->record(), sample_record(5));
}

// The second copy touched before the first is durable is both copies torn by one power cut.
TEST(StoreMetadata, Save_writes_and_flushes_one_copy_after_the_other) {
  StoreBench bench(disk_geometry(kDiskBytes), prepared_image(7));
  ASSERT_TRUE(bench.open().has_value());
  bench.data.log.clear();
  ASSERT_TRUE(bench.save(sample_record(8)).has_value());
  EXPECT_EQ(bench.data.log, (std::vector<FakeDisk::Logged>{{Op::write, kSlotA, 4096, false},
                                                           {Op::flush, 0, 0, false},
                                                           {Op::write, kSlotB, 4096, false},
                                                           {Op::flush, 0, 0, false}}));
}

// Old or new, whole, after a power cut at every step, and never "one superblock": a torn copy is no reason to be out of
// service.
TEST(StoreMetadata, Power_cut_at_each_step_of_a_save_leaves_old_or_new) {
  const std::vector<std::byte> image = prepared_image(20);
  std::size_t old_count = 0, new_count = 0;
  for (std::size_t step = 0; step <= 4; ++step) {
    for (std::uint64_t seed = 0; seed < 30; ++seed) {
      StoreBench before(disk_geometry(kDiskBytes), image);
      ASSERT_TRUE(before.open().has_value());
      before.begin_save(sample_record(21 + 10 * (seed % 2)));
      for (std::size_t n = 0; n < step; ++n) before.data.complete_next();
      StoreBench after(disk_geometry(kDiskBytes), before.data.image_after_power_cut(seed));
      const auto opened = after.open();
      ASSERT_TRUE(opened.has_value()) << "step " << step << " seed " << seed << ": " << opened.error().sentence;
      const bool is_new = after.store->record() == sample_record(21 + 10 * (seed % 2));
      ASSERT_TRUE(is_new || after.store->record() == sample_record(20));
      if (step == 4) {
        ASSERT_TRUE(is_new) << "done was reported";
      }
      ++(is_new ? new_count : old_count);
      // And once more, in the middle of what the second life does: opening (repair) and saving.
      for (std::size_t more = 0; more < 3; ++more) {
        StoreBench second(disk_geometry(kDiskBytes), before.data.image_after_power_cut(seed));
        second.store->open(Callback<void(Result<void, StoreError>)>::to<&StoreBench::on_opened>(second));
        for (std::size_t n = 0; n < 2 + more; ++n) second.data.complete_next();
        StoreBench third(disk_geometry(kDiskBytes), second.data.image_after_power_cut(seed + 1000));
        ASSERT_TRUE(third.open().has_value());
        ASSERT_EQ(third.store->record(), after.store->record());
        ASSERT_TRUE(third.save(sample_record(30)).has_value());
      }
      ASSERT_TRUE(after.save(sample_record(40)).has_value());
    }
  }
  EXPECT_GT(old_count, 20u);
  EXPECT_GT(new_count, 20u);
}

// A daemon killed between the write and the flush of copy A leaves it in the device's cache. Written at once, copy B
// would be volatile beside it, and one power cut would tear both.
TEST(StoreMetadata, Opening_flushes_the_copy_that_holds_before_it_mends_the_other) {
  StoreBench killed(disk_geometry(kDiskBytes), prepared_image(7));
  ASSERT_TRUE(killed.open().has_value());
  killed.begin_save(sample_record(8));
  killed.data.complete_next();
  StoreBench bench(disk_geometry(kDiskBytes), killed.data.bytes());
  ASSERT_TRUE(bench.open().has_value());
  EXPECT_EQ(bench.store->record(), sample_record(8));
  std::vector<FakeDisk::Logged> changes;
  for (const FakeDisk::Logged& one : bench.data.log) {
    if (one.kind != Op::read) changes.push_back(one);
  }
  EXPECT_EQ(changes, (std::vector<FakeDisk::Logged>{
                         {Op::flush, 0, 0, false}, {Op::write, kSlotB, 4096, false}, {Op::flush, 0, 0, false}}));
}

// The same one step later: copy A is durable, copy B is not. The next save begins with copy A, and one power cut would
// tear both.
TEST(StoreMetadata, Opening_flushes_what_a_killed_daemon_may_have_left_in_the_cache) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    StoreBench killed(disk_geometry(kDiskBytes), prepared_image(7));
    ASSERT_TRUE(killed.open().has_value());
    killed.begin_save(sample_record(8));
    for (int step = 0; step < 3; ++step) killed.data.complete_next();
    StoreBench bench(killed.data);
    ASSERT_TRUE(bench.open().has_value());
    bench.begin_save(sample_record(9));
    StoreBench after(disk_geometry(kDiskBytes), bench.data.image_after_power_cut(seed));
    const auto opened = after.open();
    ASSERT_TRUE(opened.has_value()) << opened.error().sentence;
  }
}

// Bytes of both copies, all bits in turn (Superblock's own test has every bit of every byte). Every save is in both, so
// the one that is left holds the last: a copy that waits for a person because of one bit is an outage for nothing.
TEST(StoreMetadata, A_flipped_bit_in_either_superblock_is_mended_from_the_other_and_said) {
  const std::vector<std::byte> image = prepared_image(7);
  StoreBench bench(disk_geometry(kDiskBytes), image);
  for (const std::uint64_t slot : {kSlotA, kSlotB}) {
    for (std::uint64_t at = 0; at < 4096; at += 7) {
      bench.data.flip_bit(slot + at, static_cast<unsigned>(at % 8));
      bench.restart();
      ASSERT_TRUE(bench.open().has_value());
      ASSERT_EQ(bench.store->record(), sample_record(7));
      ASSERT_NE(bench.store->notice().find(slot == kSlotA ? "superblock A" : "superblock B"), std::string::npos);
    }
  }
  bench.restart();
  EXPECT_TRUE(bench.open().has_value());
  EXPECT_EQ(bench.store->notice(), "");
  EXPECT_TRUE(std::ranges::equal(bench.data.bytes(), image));
}

/// The record of term 9, but in the slot, which has lost what was written to it: there is that of term 7.
std::vector<std::byte> image_with_lost_writes(std::uint64_t slot) {
  const std::vector<std::byte> before = prepared_image(7);
  StoreBench bench(disk_geometry(kDiskBytes), before);
  EXPECT_TRUE(bench.open().has_value());
  for (const std::uint64_t term : {8u, 9u}) EXPECT_TRUE(bench.save(sample_record(term)).has_value());
  std::vector<std::byte> image(bench.data.bytes().begin(), bench.data.bytes().end());
  std::copy_n(before.begin() + static_cast<std::ptrdiff_t>(slot), kSuperblockSlotBytes,
              image.begin() + static_cast<std::ptrdiff_t>(slot));
  return image;
}

// The copy that is left is an old one: what was promised since is forgotten.
TEST(StoreMetadata, A_copy_that_lost_a_write_is_not_trusted_because_the_newer_one_is_damaged) {
  for (const std::uint64_t slot : {kSlotA, kSlotB}) {
    StoreBench bench(disk_geometry(kDiskBytes), image_with_lost_writes(slot));
    const std::uint64_t newer = slot == kSlotA ? kSlotB : kSlotA;
    for (const std::uint64_t at : {0u, 10u, 700u}) {
      bench.data.flip_bit(newer + at, 3);
      bench.restart();
      ASSERT_EQ(kind_of(bench.open()), StoreErrorKind::one_superblock);
      ASSERT_EQ(bench.store->record(), sample_record(7));
      bench.data.flip_bit(newer + at, 3);
    }
  }
}

// Saving onto a pair of which one has lost a write must not risk the other: the bad one goes first.
TEST(StoreMetadata, Save_after_a_lost_write_mends_that_copy_before_it_touches_the_other) {
  for (const std::uint64_t slot : {kSlotA, kSlotB}) {
    const std::vector<std::byte> image = image_with_lost_writes(slot);
    for (std::size_t step = 0; step <= 7; ++step) {
      for (std::uint64_t seed = 0; seed < 20; ++seed) {
        StoreBench bench(disk_geometry(kDiskBytes), image);
        ASSERT_EQ(kind_of(bench.open()), StoreErrorKind::one_superblock);
        bench.begin_save(sample_record(10));
        ASSERT_EQ(bench.data.queued(0).kind, Op::flush);
        for (std::size_t n = 0; n < step; ++n) {
          bench.data.complete_next();
          if (n == 0) {
            ASSERT_EQ(bench.data.queued(0).offset_bytes, slot);
          }
        }
        StoreBench after(disk_geometry(kDiskBytes), bench.data.image_after_power_cut(seed));
        const auto opened = after.open();
        if (step >= 3) {
          ASSERT_TRUE(opened.has_value()) << opened.error().sentence;
        }
        ASSERT_TRUE(after.store->is_open());
        ASSERT_TRUE(after.store->record() == sample_record(9) || after.store->record() == sample_record(10));
        if (step == 7) {
          ASSERT_EQ(after.store->record(), sample_record(10));
        }
      }
    }
  }
}

TEST(StoreMetadata, Both_copies_lost_is_damage_and_none_at_all_is_no_metadata) {
  StoreBench bench(disk_geometry(kDiskBytes), prepared_image(7));
  bench.data.flip_bit(kSlotA + 700, 1);
  bench.data.flip_bit(kSlotB + 900, 1);
  EXPECT_EQ(kind_of(bench.open()), StoreErrorKind::damaged);
  EXPECT_FALSE(bench.store->is_open());
  StoreBench empty(disk_geometry(kDiskBytes));
  EXPECT_EQ(kind_of(empty.open()), StoreErrorKind::no_metadata);
  StoreBench tiny(disk_geometry(65536));
  EXPECT_EQ(kind_of(tiny.open()), StoreErrorKind::no_metadata);
  EXPECT_FALSE(tiny.create(create_options({})).has_value());
}

TEST(StoreMetadata, An_unreadable_copy_is_mended_and_two_are_an_io_error) {
  StoreBench bench(disk_geometry(kDiskBytes), prepared_image(7));
  bench.data.fault = [](const ports::DiskOp& op) {
    return op.kind == Op::read && op.offset_bytes == kSlotA ? std::optional(ports::IoError::io) : std::nullopt;
  };
  EXPECT_TRUE(bench.open().has_value());
  EXPECT_EQ(bench.store->record(), sample_record(7));
  EXPECT_NE(bench.store->notice().find("superblock A at byte"), std::string::npos);
  EXPECT_NE(bench.store->notice().find("unreadable"), std::string::npos);
  bench.restart();
  bench.data.fault = [](const ports::DiskOp&) { return std::optional(ports::IoError::io); };
  EXPECT_EQ(kind_of(bench.open()), StoreErrorKind::io);
  bench.data.fault = nullptr;
}

// Serving another resource's disk, or somebody else's format, destroys it.
TEST(StoreMetadata, Another_resource_volume_or_placement_is_refused) {
  StoreBench bench(disk_geometry(kDiskBytes), prepared_image(7));
  StoreOptions options = store_options();
  options.resource_name = "other";
  bench.restart(options);
  const auto by_name = bench.open();
  EXPECT_EQ(kind_of(by_name), StoreErrorKind::wrong_volume);
  EXPECT_NE(by_name.error().sentence.find("volume 3 of resource \"iscsi_data\""), std::string::npos);
  options = store_options();
  options.volume = 4;
  bench.restart(options);
  EXPECT_EQ(kind_of(bench.open()), StoreErrorKind::wrong_volume);
}

// Blocks that are gone read as anything at all.
TEST(StoreMetadata, A_shrunk_device_is_noticed) {
  StoreBench internal(disk_geometry(kDiskBytes), prepared_image(7));
  internal.data.resize(kDiskBytes - 4096);
  EXPECT_EQ(kind_of(internal.open()), StoreErrorKind::no_metadata);
  // The superblocks copied to the new end do not help.
  const std::vector<std::byte> image = prepared_image(7);
  StoreBench moved(disk_geometry(kDiskBytes - 65536), std::vector<std::byte>(image.begin() + 65536, image.end()));
  EXPECT_EQ(kind_of(moved.open()), StoreErrorKind::shrunk);

  StoreBench external(disk_geometry(kDiskBytes), 2 * kMiB);
  ASSERT_TRUE(external.create(create_options(sample_record(4))).has_value());
  external.data.resize(kDiskBytes - 4096);
  EXPECT_EQ(kind_of(external.open()), StoreErrorKind::shrunk);
  external.data.resize(kDiskBytes + 8192);
  external.restart();
  EXPECT_TRUE(external.open().has_value());
  EXPECT_EQ(external.store->geometry().size_bytes, kDiskBytes);
  external.restart();
  external.metadata->resize(kMiB + 131072);
  EXPECT_EQ(kind_of(external.open()), StoreErrorKind::shrunk);
}

// Calls overtaking each other would make an older record the last one.
TEST(StoreMetadata, Saves_are_served_in_the_order_of_calling) {
  StoreBench bench(disk_geometry(kDiskBytes), prepared_image(7));
  ASSERT_TRUE(bench.open().has_value());
  for (std::uint64_t term = 8; term < 12; ++term) bench.begin_save(sample_record(term));
  bench.begin_save_bitmap();
  EXPECT_EQ(bench.data.queued_count(), 1u) << "one after the other";
  EXPECT_EQ(bench.store->in_flight_count(), 5u);
  for (int n = 0; n < 4; ++n) bench.data.complete_next();
  EXPECT_EQ(bench.store->record(), sample_record(8));
  bench.run();
  EXPECT_EQ(bench.save_results.size(), 5u);
  EXPECT_EQ(bench.store->record(), sample_record(11));
}

// A node that cannot remember agrees to nothing, also when the next write would have worked.
TEST(StoreMetadata, The_first_failed_save_fails_all_later_ones) {
  for (std::size_t failing = 0; failing < 4; ++failing) {
    StoreBench bench(disk_geometry(kDiskBytes), prepared_image(7));
    ASSERT_TRUE(bench.open().has_value());
    std::size_t seen = 0;
    bench.data.fault = [&](const ports::DiskOp&) {
      return seen++ == failing ? std::optional(ports::IoError::io) : std::nullopt;
    };
    bench.begin_save(sample_record(8));
    bench.begin_save(sample_record(9));
    bench.run();
    bench.begin_save(sample_record(10));
    bench.begin_save_bitmap();
    EXPECT_EQ(bench.save_results.size(), 2u) << "never from inside the call";
    bench.run();
    ASSERT_EQ(bench.save_results.size(), 4u);
    for (const auto& result : bench.save_results) EXPECT_EQ(result.error(), ports::IoError::io);
    EXPECT_EQ(bench.store->record(), sample_record(7));
    EXPECT_EQ(seen, failing + 1) << "nothing is written after the failure";
    bench.data.fault = nullptr;
    StoreBench after(disk_geometry(kDiskBytes), bench.data.image_after_power_cut(failing));
    ASSERT_TRUE(after.open().has_value());
  }
}

// create-md over an old volume, cut anywhere, must never leave a mixture that opens as the old or a half-made one.
TEST(StoreMetadata, Power_cut_at_each_step_of_create_never_leaves_a_mixture) {
  const std::vector<std::byte> image = prepared_image(7);
  for (std::size_t step = 0; step <= 20; ++step) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      StoreBench bench(disk_geometry(kDiskBytes), image);
      CreateOptions options = create_options(sample_record(1));
      options.volume_uuid.bytes.fill(std::byte{0x77});
      bench.store->create(options,
                          Callback<void(Result<std::uint64_t, StoreError>)>::to<&StoreBench::on_created>(bench));
      std::size_t done = 0;
      while (done < step && bench.data.complete_next()) ++done;
      const bool is_done = bench.create_result.has_value();
      StoreBench after(disk_geometry(kDiskBytes), bench.data.image_after_power_cut(seed));
      const auto opened = after.open();
      if (is_done) {
        ASSERT_TRUE(opened.has_value());
      }
      if (opened) {
        const bool is_old = after.store->volume_uuid() == create_options({}).volume_uuid;
        ASSERT_EQ(after.store->record(), sample_record(is_old ? 7 : 1));
        if (is_old) {
          ASSERT_LT(step, 2u) << "after the first flush the old volume is gone";
        }
      }
    }
  }
}

/// 813 pages of bitmap: more than one read or write carries.
constexpr std::uint64_t kLargeBytes = std::uint64_t{100} << 30;

// A dirty bit that a clean stop loses is a block that differs for ever.
TEST(StoreMetadata, Stored_bitmap_comes_back_and_damage_comes_back_as_dirty) {
  StoreBench bench(disk_geometry(kLargeBytes), 8 * kMiB);
  FakeDisk& metadata = *bench.metadata;
  ASSERT_TRUE(bench.create(create_options(sample_record(4))).has_value());
  ASSERT_TRUE(bench.open().has_value());
  DirtyBitmap& dirty = bench.store->dirty();
  constexpr std::uint64_t kSectorBlocks = 4032, kPageBlocks = 8 * kSectorBlocks, kBlock = 4096;
  dirty.set(5 * kBlock, 3 * kBlock);
  dirty.set((kPageBlocks + 77) * kBlock, kBlock);
  dirty.set((2 * kPageBlocks - 1) * kBlock, 2 * kBlock);
  dirty.set(300 * kPageBlocks * kBlock, 200 * kPageBlocks * kBlock);  // more pages than one operation carries
  dirty.set(600 * kPageBlocks * kBlock, kBlock);
  dirty.set(kLargeBytes - kBlock, kBlock);
  const std::uint64_t dirty_count = dirty.dirty_blocks_count();
  ASSERT_TRUE(bench.save_bitmap().has_value());
  metadata.log.clear();
  dirty.set(601 * kPageBlocks * kBlock, kBlock);
  dirty.clear(601 * kPageBlocks * kBlock, kBlock);
  ASSERT_TRUE(bench.save_bitmap().has_value());
  EXPECT_EQ(metadata.log.size(), 2u) << "the changed page and a flush";

  const auto reopen = [&bench] {
    bench.restart();
    EXPECT_TRUE(bench.open().has_value());
    return bench.store->dirty().dirty_blocks_count();
  };
  EXPECT_EQ(reopen(), dirty_count);
  EXPECT_TRUE(bench.store->dirty().is_dirty(2 * kPageBlocks * kBlock, kBlock));
  EXPECT_TRUE(bench.store->dirty().is_dirty(600 * kPageBlocks * kBlock, kBlock));
  EXPECT_FALSE(bench.store->dirty().is_dirty(8 * kBlock, kBlock));

  // One bit of a sector of page 1: its 4032 blocks are dirty, the others as they were.
  constexpr std::uint64_t bitmap_at = 1179648, page_1_at = bitmap_at + 4096;
  metadata.flip_bit(page_1_at + 100, 3);
  EXPECT_EQ(reopen(), dirty_count - 1 + kSectorBlocks);
  EXPECT_NE(bench.store->notice().find("1 sectors of the stored bitmap were damaged"), std::string::npos);
  metadata.flip_bit(page_1_at + 100, 3);
  // A page that stands in another's place is not believed.
  const auto page = [&](std::uint64_t number) {
    const auto begin = metadata.bytes().begin() + static_cast<std::ptrdiff_t>(bitmap_at + number * 4096);
    return std::vector<std::byte>(begin, begin + 4096);
  };
  const std::vector<std::byte> page_600 = page(600), page_2 = page(2);
  metadata.poke(bitmap_at + 2 * 4096, page_600);
  EXPECT_EQ(reopen(), dirty_count - 1 + kPageBlocks);
  metadata.poke(bitmap_at + 2 * 4096, page_2);
  // Unreadable: likewise, and its neighbours are read on their own.
  metadata.fault = [&](const ports::DiskOp& op) {
    const bool hits =
        op.kind == Op::read && op.offset_bytes <= page_1_at && op.offset_bytes + op.length_bytes > page_1_at;
    return hits ? std::optional(ports::IoError::io) : std::nullopt;
  };
  EXPECT_EQ(reopen(), dirty_count - 2 + kPageBlocks);
  metadata.fault = nullptr;
}

// The area is changed in place: what a power cut leaves of a save is old or new, sector by sector, and never damage.
TEST(StoreMetadata, Power_cut_at_each_step_of_saving_the_bitmap_leaves_old_or_new_bits) {
  for (std::size_t step = 0; step <= 2; ++step) {
    for (std::uint64_t seed = 0; seed < 30; ++seed) {
      StoreBench bench(disk_geometry(kDiskBytes), prepared_image(7));
      ASSERT_TRUE(bench.open().has_value());
      bench.store->dirty().set(0, 4096);
      ASSERT_TRUE(bench.save_bitmap().has_value());
      bench.store->dirty().set(8192, 4096);
      bench.begin_save_bitmap();
      for (std::size_t n = 0; n < step; ++n) bench.data.complete_next();
      StoreBench after(disk_geometry(kDiskBytes), bench.data.image_after_power_cut(seed));
      ASSERT_TRUE(after.open().has_value());
      ASSERT_TRUE(after.store->dirty().is_dirty(0, 4096));
      ASSERT_LE(after.store->dirty().dirty_blocks_count(), 2u);
      if (step == 2) {
        ASSERT_EQ(after.store->dirty().dirty_blocks_count(), 2u);
      }
    }
  }
}

}  // namespace
}  // namespace replblk::blockdev::test
