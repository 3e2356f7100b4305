#include "blockdev/layout.hpp"

#include <gtest/gtest.h>

#include <random>

namespace replblk::blockdev {
namespace {

// The byte tables of docs/ondisk_format.md 1, in numbers.
TEST(Layout, Internal_and_external_lie_where_the_document_says) {
  const std::uint64_t size = (std::uint64_t{1} << 30) + 4095;  // an odd tail is not used
  const std::uint64_t end = std::uint64_t{1} << 30;
  const auto internal = plan_layout({Placement::internal, size, 0, 0});
  ASSERT_TRUE(internal.has_value());
  const std::uint64_t bitmap_bytes = 9 * 4096;  // 262144 blocks, 32256 a page
  EXPECT_EQ(internal->bitmap_block_bytes, 4096u);
  EXPECT_EQ(internal->bitmap_bytes, bitmap_bytes);
  EXPECT_EQ(internal->usable_bytes, end - 131072 - 1048576 - bitmap_bytes);
  EXPECT_EQ(internal->bitmap_offset_bytes, internal->usable_bytes);
  EXPECT_EQ(internal->activity_log_offset_bytes, end - 131072 - 1048576);
  EXPECT_EQ(superblock_offsets(Placement::internal, size), (std::array<std::uint64_t, 2>{end - 131072, end - 65536}));
  const auto external = plan_layout({Placement::external, size, 2u << 20, 0});
  ASSERT_TRUE(external.has_value());
  EXPECT_EQ(external->usable_bytes, end);
  EXPECT_EQ(external->activity_log_offset_bytes, 131072u);
  EXPECT_EQ(external->bitmap_offset_bytes, 1179648u);
  EXPECT_EQ(external->metadata_end_bytes, 1179648u + bitmap_bytes);
  EXPECT_EQ(superblock_offsets(Placement::external, 2u << 20), (std::array<std::uint64_t, 2>{0, 65536}));
}

// A bitmap larger than promised takes the memory of everything else.
TEST(Layout, Bitmap_of_any_size_stays_within_128_MiB) {
  for (const auto& [tib, block_bytes] : {std::pair{1, 4096u}, {4, 4096u}, {5, 8192u}, {8, 8192u}, {100, 131072u}}) {
    const auto layout = plan_layout({Placement::internal, static_cast<std::uint64_t>(tib) << 40, 0, 0});
    ASSERT_TRUE(layout.has_value());
    EXPECT_EQ(layout->bitmap_block_bytes, block_bytes) << tib;
    EXPECT_LE((layout->bitmap_pages_count() - 1) * kBitmapPageBlocks, kBitmapBytesMax * 8);
  }
}

// Data under metadata is data lost.
TEST(Layout, Every_plan_is_sound_and_too_small_devices_have_none) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20'000; ++round) {
    LayoutRequest request;
    request.placement = random() % 2 == 0 ? Placement::internal : Placement::external;
    request.data_device_bytes = random() >> (1 + random() % 60);
    request.metadata_device_bytes = random() >> (1 + random() % 60);
    request.bitmap_block_bytes = random() % 2 == 0 ? 0 : 1u << random() % 31;
    const auto layout = plan_layout(request);
    if (!layout) continue;
    ASSERT_TRUE(is_sound(*layout));
    const std::uint64_t metadata_device =
        layout->placement == Placement::internal ? request.data_device_bytes : request.metadata_device_bytes;
    ASSERT_LE(layout->metadata_end_bytes, metadata_device);
    ASSERT_LE(layout->usable_bytes, request.data_device_bytes);
    const auto offsets = superblock_offsets(layout->placement, metadata_device);
    ASSERT_TRUE(offsets.has_value());
    const std::uint64_t page_end = layout->bitmap_page_offset_bytes(layout->bitmap_pages_count());
    ASSERT_LE(page_end, layout->bitmap_offset_bytes + layout->bitmap_bytes);
    Layout moved = *layout;
    moved.bitmap_offset_bytes = moved.activity_log_offset_bytes;
    ASSERT_FALSE(is_sound(moved));
  }
  EXPECT_FALSE(plan_layout({Placement::internal, 0, 0, 0}).has_value());
  EXPECT_FALSE(plan_layout({Placement::internal, 131072 + 1048576 + 4096, 0, 0}).has_value());
  EXPECT_TRUE(plan_layout({Placement::internal, 131072 + 1048576 + 4096 + 4096, 0, 0}).has_value());
  EXPECT_FALSE(plan_layout({Placement::internal, 1 << 30, 0, 5000}).has_value());
  EXPECT_FALSE(superblock_offsets(Placement::internal, 131071).has_value());
}

// A grown volume keeps every byte and every block; its new superblocks are clear of the old ones.
TEST(Layout, A_grown_layout_is_sound_and_holds_what_the_old_one_did) {
  std::mt19937_64 random(2);
  int grown_count = 0;
  for (int round = 0; round < 20'000; ++round) {
    const Placement placement = random() % 2 == 0 ? Placement::internal : Placement::external;
    const std::uint64_t device_bytes = (std::uint64_t{4} << 20) + (random() >> (20 + random() % 30));
    const auto layout = plan_layout({placement, device_bytes, std::uint64_t{1} << 40, 0});
    if (!layout) continue;
    const std::uint64_t larger_bytes = device_bytes + (random() >> (20 + random() % 44));
    const auto grown = grow_layout(*layout, larger_bytes, std::uint64_t{1} << 40);
    if (!grown) continue;
    ++grown_count;
    ASSERT_TRUE(is_sound(*grown));
    ASSERT_EQ(grown->usable_bytes, layout->usable_bytes);
    ASSERT_EQ(grown->bitmap_block_bytes, layout->bitmap_block_bytes);
    ASSERT_GE(grown->room_bytes(), layout->room_bytes());
    Layout full = *grown;
    full.usable_bytes = full.room_bytes();
    ASSERT_TRUE(is_sound(full));
    if (placement == Placement::internal && *grown != *layout) {
      ASSERT_GE((*superblock_offsets(placement, larger_bytes))[0], layout->data_device_bytes);
    }
  }
  EXPECT_GT(grown_count, 5000);
  const auto layout = plan_layout({Placement::internal, 64 << 20, 0, 0});
  EXPECT_EQ(grow_layout(*layout, 64 << 20, 0), layout);
  EXPECT_FALSE(grow_layout(*layout, 32 << 20, 0).has_value());
  EXPECT_FALSE(grow_layout(*layout, std::uint64_t{100} << 40, 0).has_value()) << "bits of 4 KiB blocks";
}

// A size that is not looked at is a volume that is not found.
TEST(Layout, Former_sizes_are_looked_at_nearest_first_and_come_to_an_end) {
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  const std::uint64_t device_bytes = 3000 * kGiB + 12 * 4096;
  std::uint64_t end = device_bytes;
  std::uint64_t count = 0;
  bool has_page = false, has_mib = false, has_gib = false;
  while (const auto former = former_size(device_bytes, end)) {
    ASSERT_LT(*former, end);
    end = *former;
    ++count;
    has_page = has_page || end == device_bytes - 5 * 4096;
    has_mib = has_mib || end == 2999 * kGiB + (std::uint64_t{77} << 20);
    has_gib = has_gib || end == 100 * kGiB;
  }
  EXPECT_TRUE(has_page && has_mib && has_gib);
  EXPECT_LT(count, 100'000u);
}

}  // namespace
}  // namespace replblk::blockdev
