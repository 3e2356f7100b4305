// A volume whose devices grew: found, moved, zeroed, larger; and whatever stops it at any moment.
#include <gtest/gtest.h>

#include "blockdev/layout.hpp"
#include "store_fixture.hpp"

namespace replblk::blockdev::test {
namespace {

constexpr std::uint64_t kFirstBytes = 2 * kMiB;
constexpr std::uint64_t kMetadataBytes = 131072 + 1048576 + 4096;
constexpr std::uint64_t kFirstSize = kFirstBytes - kMetadataBytes;

struct GrowthBench : StoreBench {
  using StoreBench::StoreBench;
  std::optional<Result<std::uint64_t, std::string>> room;
  void on_room(Result<std::uint64_t, std::string> result) { room = std::move(result); }
  void begin_claim() {
    room.reset();
    store->claim_room(Callback<void(Result<std::uint64_t, std::string>)>::to<&GrowthBench::on_room>(*this));
    EXPECT_FALSE(room.has_value()) << "never from inside the call";
  }
  Result<std::uint64_t, std::string> claim() {
    begin_claim();
    run();
    return *room;
  }
  Result<void, ports::IoError> zero(std::uint64_t size_bytes) {
    store->zero_room(size_bytes, Callback<void(Result<void, ports::IoError>)>::to<&StoreBench::on_saved>(*this));
    run();
    return save_results.back();
  }
  void begin_grow(std::uint64_t size_bytes, bool is_equal) {
    store->grow(size_bytes, is_equal, Callback<void(Result<void, ports::IoError>)>::to<&StoreBench::on_saved>(*this));
  }
  Result<void, ports::IoError> grow(std::uint64_t size_bytes, bool is_equal) {
    begin_grow(size_bytes, is_equal);
    run();
    return save_results.back();
  }
};

/// With a record, and a dirty block at 64 KiB; open.
void prepare(GrowthBench& bench) {
  ASSERT_TRUE(bench.create(create_options(sample_record(6))).has_value());
  ASSERT_TRUE(bench.open().has_value());
  ASSERT_TRUE(bench.save(sample_record(7)).has_value());
  bench.store->dirty().set(65536, 4096);
  ASSERT_TRUE(bench.save_bitmap().has_value());
}

void fill_with_garbage(FakeDisk& disk, std::uint64_t from_bytes) {
  disk.poke(from_bytes, std::vector<std::byte>(disk.bytes().size() - from_bytes, std::byte{0xa5}));
}

// Otherwise a host that restarts after its disk was enlarged has lost its copy.
TEST(StoreGrowth, A_device_that_grew_while_nobody_had_it_open_is_served_at_its_recorded_size) {
  for (const std::uint64_t growth : {std::uint64_t{4096}, 131072 + 8192ul, 3 * kMiB, 100 * kMiB, 257 * kMiB}) {
    GrowthBench bench(disk_geometry(kFirstBytes));
    prepare(bench);
    bench.data.resize(kFirstBytes + growth);
    bench.restart();
    ASSERT_TRUE(bench.open().has_value()) << growth;
    EXPECT_EQ(bench.store->record(), sample_record(7));
    EXPECT_EQ(bench.store->geometry().size_bytes, kFirstSize);
    EXPECT_TRUE(bench.store->dirty().is_dirty(65536, 4096));
    // Saves go where the superblocks are.
    ASSERT_TRUE(bench.save(sample_record(8)).has_value());
    bench.restart();
    ASSERT_TRUE(bench.open().has_value());
    EXPECT_EQ(bench.store->record(), sample_record(8));
  }
}

// Superblocks of another volume, in the middle of this device, are data.
TEST(StoreGrowth, Superblocks_that_say_another_size_than_where_they_are_do_not_count) {
  GrowthBench inner(disk_geometry(kFirstBytes));
  prepare(inner);
  GrowthBench bench(disk_geometry(8 * kMiB));
  bench.data.poke(4096, inner.data.durable_bytes());
  EXPECT_EQ(kind_of(bench.open()), StoreErrorKind::no_metadata);
}

TEST(StoreGrowth, Metadata_moves_to_the_new_end_and_leaves_nothing_behind) {
  GrowthBench bench(disk_geometry(kFirstBytes));
  prepare(bench);
  bench.data.resize(6 * kMiB);
  fill_with_garbage(bench.data, kFirstBytes);
  const auto room = bench.claim();
  ASSERT_TRUE(room.has_value()) << room.error();
  EXPECT_EQ(*room, 6 * kMiB - kMetadataBytes);
  EXPECT_EQ(bench.store->room_bytes(), *room);
  EXPECT_EQ(bench.store->geometry().size_bytes, kFirstSize) << "nobody has said that the volume is larger";
  const auto& bytes = bench.data.durable_bytes();
  EXPECT_TRUE(std::all_of(bytes.begin() + kFirstBytes - 131072, bytes.begin() + kFirstBytes,
                          [](std::byte one) { return one == std::byte{0}; }));
  ASSERT_TRUE(bench.save(sample_record(8)).has_value());
  bench.data.power_cut(3);
  bench.restart();
  ASSERT_TRUE(bench.open().has_value());
  EXPECT_EQ(bench.store->record(), sample_record(8));
  EXPECT_EQ(bench.store->geometry().size_bytes, kFirstSize);
  EXPECT_EQ(bench.store->dirty().dirty_blocks_count(), 1u);
  // Once more changes nothing.
  bench.data.log.clear();
  EXPECT_EQ(bench.claim(), room);
  EXPECT_TRUE(bench.data.log.empty());
}

TEST(StoreGrowth, What_has_no_room_is_refused_with_a_sentence) {
  GrowthBench little(disk_geometry(kFirstBytes));
  prepare(little);
  little.data.resize(kFirstBytes + 126976);
  EXPECT_NE(little.claim().error().find("too few more"), std::string::npos);
  ASSERT_TRUE(little.save(sample_record(8)).has_value()) << "nothing has happened to the volume";

  GrowthBench external(disk_geometry(32 * kMiB), std::uint64_t{1179648 + 4096});
  ASSERT_TRUE(external.create(create_options(sample_record(6))).has_value());
  ASSERT_TRUE(external.open().has_value());
  external.data.resize(1024 * kMiB);
  EXPECT_NE(external.claim().error().find("of the metadata device"), std::string::npos);
  external.metadata->resize(2 * kMiB);
  EXPECT_EQ(external.claim(), (Result<std::uint64_t, std::string>{1024 * kMiB}));
}

TEST(StoreGrowth, New_part_is_zero_clean_and_there_after_a_power_cut) {
  for (const bool has_discard : {false, true}) {
    ports::Disk::Geometry geometry = disk_geometry(kFirstBytes);
    geometry.supports_discard = has_discard;
    GrowthBench bench(geometry);
    prepare(bench);
    bench.data.resize(40 * kMiB);
    fill_with_garbage(bench.data, kFirstSize + 1179648);
    const std::uint64_t size = *bench.claim();
    ASSERT_TRUE(bench.zero(size).has_value());
    ASSERT_TRUE(bench.grow(size, true).has_value());
    EXPECT_EQ(bench.store->geometry().size_bytes, size);
    bench.data.power_cut(5);
    bench.restart();
    ASSERT_TRUE(bench.open().has_value());
    EXPECT_EQ(bench.store->geometry().size_bytes, size);
    EXPECT_EQ(bench.store->dirty().dirty_blocks_count(), 1u);
    const auto& bytes = bench.data.durable_bytes();
    EXPECT_TRUE(std::all_of(bytes.begin() + kFirstSize, bytes.begin() + static_cast<std::ptrdiff_t>(size),
                            [](std::byte one) { return one == std::byte{0}; }));
  }
}

TEST(StoreGrowth, Zeroing_that_fails_or_is_stopped_says_so) {
  GrowthBench bench(disk_geometry(kFirstBytes));
  prepare(bench);
  bench.data.resize(80 * kMiB);
  const std::uint64_t size = *bench.claim();
  bench.data.fault = [](const ports::DiskOp& op) -> std::optional<ports::IoError> {
    if (op.kind == ports::DiskOpKind::write && op.offset_bytes > 20 * kMiB) return ports::IoError::no_space;
    return std::nullopt;
  };
  EXPECT_EQ(bench.zero(size).error(), ports::IoError::no_space);
  bench.data.fault = nullptr;
  bench.store->zero_room(size, Callback<void(Result<void, ports::IoError>)>::to<&StoreBench::on_saved>(bench));
  bench.store->stop_zeroing();
  const std::uint64_t before = bench.data.completed_count;
  bench.run();
  EXPECT_FALSE(bench.save_results.back().has_value());
  EXPECT_LE(bench.data.completed_count - before, 64u) << "one step, not all";
}

// I5: a part that is only on one copy must be in its resync set whenever its superblock names it.
TEST(StoreGrowth, Whatever_stops_the_moving_or_growing_the_volume_is_as_it_was_or_as_it_is_to_be) {
  // The new metadata lies clear of the old, over the old bitmap and log, and over nearly all of it.
  for (const std::uint64_t grown_bytes : {6 * kMiB, kFirstBytes + 1048576 + 4096, kFirstBytes + 131072}) {
    for (const bool is_external : {false, true}) {
      std::uint64_t ops_count = 0;
      bool is_over = false;
      for (std::uint64_t cut_at = 0; !is_over; ++cut_at) {
        auto bench = is_external ? std::make_unique<GrowthBench>(disk_geometry(kFirstBytes), 2 * kMiB)
                                 : std::make_unique<GrowthBench>(disk_geometry(kFirstBytes));
        prepare(*bench);
        const std::uint64_t first_size = is_external ? kFirstBytes : kFirstSize;
        bench->data.resize(grown_bytes);
        fill_with_garbage(bench->data, kFirstBytes);
        FakeDisk& disk = is_external ? *bench->metadata : bench->data;
        const std::uint64_t begin = disk.completed_count;
        bench->begin_claim();
        bool is_growing = false;
        while (disk.completed_count - begin < cut_at) {
          bench->loop.run();
          const bool has_moved = disk.complete_next() || bench->data.complete_next();
          if (has_moved) continue;
          if (is_growing) break;
          ASSERT_TRUE(bench->room.has_value());
          ASSERT_TRUE(bench->room->has_value()) << bench->room->error();
          is_growing = true;
          bench->begin_grow(**bench->room, false);
        }
        is_over = is_growing && disk.queued_count() == 0;
        ops_count = disk.completed_count - begin;
        // Power goes; the process with it.
        GrowthBench after(bench->data.geometry(), bench->data.image_after_power_cut(cut_at));
        if (is_external) {
          after.metadata = std::make_unique<FakeDisk>(disk_geometry(2 * kMiB), disk.image_after_power_cut(cut_at));
          after.restart();
        }
        const auto opened = after.open();
        ASSERT_TRUE(opened.has_value()) << grown_bytes << ' ' << is_external << " cut at " << cut_at << ": "
                                        << opened.error().sentence;
        ASSERT_TRUE(after.store->is_open());
        EXPECT_EQ(after.store->record(), sample_record(7));
        EXPECT_TRUE(after.store->dirty().is_dirty(65536, 4096)) << cut_at;
        const std::uint64_t size = after.store->geometry().size_bytes;
        if (size != first_size) {
          ASSERT_TRUE(is_growing);
          EXPECT_EQ(size, **bench->room);
          for (std::uint64_t at = first_size; at < size; at += 4096) {
            ASSERT_TRUE(after.store->dirty().is_dirty(at, 4096))
                << grown_bytes << " cut at " << cut_at << " byte " << at;
          }
        }
        // It can be finished from here.
        const auto room = after.claim();
        ASSERT_TRUE(room.has_value()) << room.error();
        ASSERT_TRUE(after.grow(*room, true).has_value());
        EXPECT_EQ(after.store->geometry().size_bytes, *room);
        if (is_over) {
          EXPECT_EQ(size, *room);
        }
        bench->run();
      }
      EXPECT_GT(ops_count, 8u);
    }
  }
}

// Bits of the new part that an older, larger life of the device left in the bitmap area mean nothing.
TEST(StoreGrowth, Stale_bits_beyond_the_end_do_not_come_back) {
  GrowthBench bench(disk_geometry(600 * kMiB, 512));
  CreateOptions options = create_options(sample_record(6));
  options.size_bytes = 64 * kMiB;
  const auto created = bench.create(options);
  ASSERT_TRUE(created.has_value());
  EXPECT_EQ(*created, 64 * kMiB);
  ASSERT_TRUE(bench.open().has_value());
  const std::uint64_t size = *bench.claim();
  ASSERT_GT(size, 598 * kMiB);
  const auto layout = plan_layout({Placement::internal, 600 * kMiB, 0, 4096});
  ASSERT_GT(layout->bitmap_pages_count(), 4u);
  bench.data.poke(layout->bitmap_page_offset_bytes(1), std::vector<std::byte>(8192, std::byte{0xff}));
  ASSERT_TRUE(bench.grow(size, true).has_value());
  bench.restart();
  ASSERT_TRUE(bench.open().has_value());
  EXPECT_TRUE(bench.store->dirty().is_clean());
}

}  // namespace
}  // namespace replblk::blockdev::test
