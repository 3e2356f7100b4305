// WRITE SAME, UNMAP, VERIFY, WRITE AND VERIFY.
#include "scsi/limits.hpp"
#include "scsi_fixture.hpp"

namespace replblk::scsi::test {

using blockdev::BlockOp;
using blockdev::BlockStatus;
using Seen = MemoryBackend::Seen;

constexpr std::uint8_t kUnmapBit = 0x08;
constexpr std::uint8_t kNdobBit = 0x01;

class WriteSame : public ScsiTest {};

// The pattern must be in every block of the range and in none beside it.
TEST_F(WriteSame, Pattern_fills_exactly_the_range) {
  const Bytes block = numbered(512);
  for (const std::uint16_t count : {std::uint16_t{1}, std::uint16_t{7}, std::uint16_t{3000}}) {
    std::fill(disk.data.begin(), disk.data.end(), 0xee);
    disk.seen.clear();
    expect_good(*run(cdb_10(0x41, 5, count), block));
    EXPECT_EQ(disk.seen.size(), (count * 512u + (1u << 20) - 1) >> 20);
    for (std::size_t index = 0; index < kBlocks; ++index) {
      const bool is_inside = index >= 5 && index < 5u + count;
      const Bytes found(disk.data.begin() + static_cast<long>(index * 512),
                        disk.data.begin() + static_cast<long>(index * 512 + 512));
      ASSERT_EQ(found, is_inside ? block : filled(512, 0xee)) << index;
    }
  }
}

// Zeroing by data takes hours on what zeroing by operation does at once; discard only when asked for.
TEST_F(WriteSame, Zeroes_become_operations) {
  std::fill(disk.data.begin(), disk.data.end(), 0xee);
  expect_good(*run(cdb_10(0x41, 8, 16), filled(512, 0)));
  expect_good(*run(cdb_16(0x93, 8, 16, kUnmapBit), filled(512, 0)));
  expect_good(*run(cdb_16(0x93, 8, 16, kNdobBit)));
  expect_good(*run(cdb_16(0x93, 8, 16, kNdobBit | kUnmapBit)));
  EXPECT_EQ(disk.seen, (std::vector<Seen>{{BlockOp::write_zeroes, 4096, 8192, false},
                                          {BlockOp::discard, 4096, 8192, false},
                                          {BlockOp::write_zeroes, 4096, 8192, false},
                                          {BlockOp::discard, 4096, 8192, false}}));
  EXPECT_EQ(disk.data[4095], 0xee);
  EXPECT_EQ(disk.data[4096], 0);
}

// UNMAP with other data than zeroes: what is read back must be the data (SBC-3 5.43.2).
TEST_F(WriteSame, Unmap_with_a_pattern_writes_the_pattern) {
  expect_good(*run(cdb_10(0x41, 0, 2, kUnmapBit), filled(512, 0x5a)));
  EXPECT_EQ(disk.seen, (std::vector<Seen>{{BlockOp::write, 0, 1024, false}}));
  EXPECT_EQ(disk.data[1023], 0x5a);
}

// A block that is zero but for its last byte is not zero.
TEST_F(WriteSame, Last_byte_counts) {
  Bytes block(512);
  block[511] = 1;
  expect_good(*run(cdb_10(0x41, 0, 1), block));
  EXPECT_EQ(disk.seen[0].op, BlockOp::write);
  EXPECT_EQ(disk.data[511], 1);
}

TEST_F(WriteSame, Refusals) {
  disk.change_geometry().size_bytes = std::uint64_t{1} << 44;
  disk.keeps_data = false;
  expect_sense(*run(cdb_10(0x41, 0, 0), Bytes(512)), kInvalidFieldInCdb);  // WSNZ
  expect_sense(*run(cdb_16(0x93, 0, 0), Bytes(512)), kInvalidFieldInCdb);
  expect_sense(*run(cdb_16(0x93, 0, kWriteSameBlocksMax + 1), Bytes(512)), kInvalidFieldInCdb);
  const auto anchor = run(cdb_16(0x93, 0, 1, 0x10 | kUnmapBit), Bytes(512));
  expect_sense(*anchor, kInvalidFieldInCdb);
  EXPECT_EQ(anchor->cdb_field(), 1 * 8 + 4);
  expect_sense(*run(cdb_10(0x41, 0, 1, kNdobBit), Bytes(512)), kInvalidFieldInCdb);  // not in ten bytes
  expect_sense(*run(cdb_10(0x41, 0, 1), Bytes(256)), kInvalidFieldInInformationUnit);
  expect_sense(*run(cdb_10(0x41, 0, 1), Bytes(1024)), kInvalidFieldInInformationUnit);
  disk.change_geometry().supports_discard = false;
  const auto unmap = run(cdb_16(0x93, 0, 1, kUnmapBit), Bytes(512));
  expect_sense(*unmap, kInvalidFieldInCdb);
  EXPECT_EQ(unmap->cdb_field(), 1 * 8 + 3);
  EXPECT_TRUE(disk.seen.empty());
}

// Long zeroing goes in pieces that join without gap; an abort ends it between two of them.
TEST_F(WriteSame, Long_range_goes_in_pieces_and_stops_when_aborted) {
  disk.change_geometry().size_bytes = std::uint64_t{1} << 36;
  disk.change_geometry().logical_block_bytes = 4096;
  disk.keeps_data = false;
  expect_good(*run(cdb_16(0x93, 3, 60000), Bytes(4096)));
  std::uint64_t next = 3 * 4096;
  for (const Seen& seen : disk.seen) {
    EXPECT_EQ(seen.offset_bytes, next);
    EXPECT_LE(seen.length_bytes, kZeroPieceBytes);
    next += seen.length_bytes;
  }
  EXPECT_EQ(next, 60003u * 4096);
  EXPECT_EQ(disk.seen.size(), 4u);

  disk.seen.clear();
  disk.is_held = true;
  const auto command = start(cdb_16(0x93, 0, 60000), Bytes(4096));
  device->abort(command->task);
  disk.complete_all();
  loop.run();
  EXPECT_TRUE(command->is_complete());
  EXPECT_TRUE(command->task.is_aborted);
  EXPECT_EQ(disk.seen.size(), 1u);
}

// An error in the middle ends the command; the rest is not touched.
TEST_F(WriteSame, Error_in_a_later_piece_ends_the_command) {
  disk.is_held = true;
  const auto command = start(cdb_10(0x41, 0, 4096), filled(512, 1));
  disk.complete_one();
  disk.next_status = BlockStatus::no_space;
  disk.complete_one();
  loop.run();
  expect_sense(*command, kSpaceAllocationFailed);
  EXPECT_EQ(disk.seen.size(), 2u);
}

class Unmap : public ScsiTest {
 protected:
  struct Range {
    std::uint64_t lba;
    std::uint32_t count;
  };
  static Bytes list(const std::vector<Range>& ranges) {
    Bytes bytes(8 + 16 * ranges.size());
    auto* raw = reinterpret_cast<std::byte*>(bytes.data());
    store_be(raw, static_cast<std::uint16_t>(bytes.size() - 2));
    store_be(raw + 2, static_cast<std::uint16_t>(bytes.size() - 8));
    for (std::size_t index = 0; index < ranges.size(); ++index) {
      store_be(raw + 8 + 16 * index, ranges[index].lba);
      store_be(raw + 16 + 16 * index, ranges[index].count);
    }
    return bytes;
  }
  static Bytes cdb(std::size_t length) { return cdb_10(0x42, 0, static_cast<std::uint16_t>(length)); }
  std::unique_ptr<Command> unmap(const std::vector<Range>& ranges) {
    const Bytes bytes = list(ranges);
    return run(cdb(bytes.size()), bytes);
  }
};

// Descriptors are independent, empty ones and overlaps are legal.
TEST_F(Unmap, Descriptors_become_discards) {
  std::fill(disk.data.begin(), disk.data.end(), 0xee);
  expect_good(*unmap({{8, 8}, {0, 0}, {kBlocks, 0}, {100, 1}, {100, 1}}));
  EXPECT_EQ(disk.seen, (std::vector<Seen>{{BlockOp::discard, 4096, 4096, false},
                                          {BlockOp::discard, 51200, 512, false},
                                          {BlockOp::discard, 51200, 512, false}}));
  EXPECT_EQ(disk.data[4095], 0xee);
  EXPECT_EQ(disk.data[4096], 0);
  EXPECT_EQ(disk.data[8192], 0xee);
}

TEST_F(Unmap, Empty_lists_do_nothing) {
  expect_good(*run(cdb(0)));
  expect_good(*unmap({}));
  expect_good(*unmap(std::vector<Range>(256, Range{5, 0})));
  EXPECT_TRUE(disk.seen.empty());
}

// One bad descriptor among good ones: nothing at all is unmapped.
TEST_F(Unmap, Everything_is_checked_before_anything_is_done) {
  const auto command = unmap({{0, 8}, {kBlocks - 1, 2}});
  expect_sense(*command, kLbaOutOfRange);
  EXPECT_EQ(command->information(), kBlocks);
  expect_sense(*unmap({{0, 8}, {std::uint64_t{1} << 63, 1}}), kLbaOutOfRange);
  expect_sense(*unmap({{0, 8}, {0xffffffffffffffff, 0xffffffff}}), kLbaOutOfRange);
  disk.change_geometry().size_bytes = std::uint64_t{1} << 44;
  const auto large = unmap({{0, kUnmapBlocksMax}, {0, 1}});
  expect_sense(*large, kInvalidFieldInParameterList);
  EXPECT_EQ(large->parameter_field(), 8 + 16 + 8);
  expect_sense(*unmap(std::vector<Range>(257, Range{5, 0})), kInvalidFieldInParameterList);
  EXPECT_TRUE(disk.seen.empty());
}

// Lists that lie about their length must not make us read what was not sent.
TEST_F(Unmap, Wrong_lengths_are_refused) {
  Bytes bytes = list({{0, 1}});
  for (const std::size_t length : {std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{23}}) {
    expect_sense(*run(cdb(length), Bytes(bytes.begin(), bytes.begin() + static_cast<long>(length))),
                 kParameterListLengthError);
  }
  expect_sense(*run(cdb(24), Bytes(bytes.begin(), bytes.begin() + 12)),
               kParameterListLengthError);  // fewer than announced
  bytes[3] = 15;                            // incomplete descriptor: ignored
  expect_good(*run(cdb(24), bytes));
  EXPECT_TRUE(disk.seen.empty());
}

TEST_F(Unmap, Without_discard_there_is_no_unmap) {
  disk.change_geometry().supports_discard = false;
  expect_sense(*unmap({{0, 1}}), kInvalidOperationCode);
}

class Verify : public ScsiTest {
 protected:
  Verify() {
    const Bytes pattern = numbered(disk.data.size());
    disk.data = pattern;
  }
  Bytes on_disk(std::size_t lba, std::size_t count) const {
    return {disk.data.begin() + static_cast<long>(lba * 512),
            disk.data.begin() + static_cast<long>((lba + count) * 512)};
  }
};

// BYTCHK = 0 reads; a medium error is found, no data is asked for.
TEST_F(Verify, Without_byte_check_the_blocks_are_read) {
  const auto command = run(cdb_10(0x2f, 0, 4096));
  expect_good(*command);
  EXPECT_EQ(command->task.direction, DataDirection::none);
  EXPECT_EQ(disk.seen,
            (std::vector<Seen>{{BlockOp::read, 0, 1u << 20, false}, {BlockOp::read, 1u << 20, 1u << 20, false}}));
  EXPECT_EQ(command->task.data_in_length_bytes, 0u);
}

// BYTCHK = 1 compares every byte and says where the first difference is.
TEST_F(Verify, Byte_check_compares_all_data) {
  for (const auto& [cdb, count] : {std::pair{cdb_10(0x2f, 3, 2500, 0x02), 2500u},
                                   std::pair{cdb_12(0xaf, 3, 2, 0x02), 2u}, std::pair{cdb_16(0x8f, 3, 9, 0x02), 9u}}) {
    Bytes data = on_disk(3, count);
    expect_good(*run(cdb, data));
    for (const std::size_t at : {std::size_t{0}, data.size() / 2, data.size() - 1}) {
      Bytes different = data;
      different[at] ^= 0x10;
      const auto command = run(cdb, different);
      expect_sense(*command, kMiscompareDuringVerify);
      EXPECT_EQ(command->information(), at);
    }
  }
}

// BYTCHK = 3: one block against all.
TEST_F(Verify, One_block_is_compared_with_each) {
  std::fill(disk.data.begin(), disk.data.begin() + 3000 * 512, 0x77);
  const Bytes cdb = cdb_16(0x8f, 0, 3000, 0x06);
  const auto command = run(cdb, filled(512, 0x77));
  expect_good(*command);
  EXPECT_EQ(command->task.transfer_length_bytes, 512u);
  disk.data[2999 * 512 + 5] = 0;
  const auto different = run(cdb, filled(512, 0x77));
  expect_sense(*different, kMiscompareDuringVerify);
  EXPECT_EQ(different->information(), 5u);
}

TEST_F(Verify, Reserved_byte_check_is_refused) {
  expect_sense(*run(cdb_10(0x2f, 0, 1, 0x04)), kInvalidFieldInCdb);
  for (const std::uint8_t bits : {std::uint8_t{0x04}, std::uint8_t{0x06}}) {
    expect_sense(*run(cdb_10(0x2e, 0, 1, bits), Bytes(512)), kInvalidFieldInCdb);
  }
}

// WRITE AND VERIFY answers about the medium: durable first, then read back, compared when asked for.
TEST_F(Verify, Write_and_verify_writes_durably_and_reads_back) {
  for (const std::uint8_t bits : {std::uint8_t{0}, std::uint8_t{2}, std::uint8_t{0x12}}) {
    for (const Bytes& cdb : {cdb_10(0x2e, 9, 2, bits), cdb_12(0xae, 9, 2, bits), cdb_16(0x8e, 9, 2, bits)}) {
      disk.seen.clear();
      const Bytes data = numbered(1024, static_cast<std::uint8_t>(bits + cdb[0]));
      expect_good(*run(cdb, data));
      EXPECT_EQ(on_disk(9, 2), data);
      EXPECT_EQ(disk.seen,
                (std::vector<Seen>{{BlockOp::write, 9 * 512, 1024, true}, {BlockOp::read, 9 * 512, 1024, false}}));
    }
  }
}

TEST_F(Verify, Write_and_verify_notices_a_disk_that_kept_something_else) {
  disk.is_held = true;
  const auto command = start(cdb_10(0x2e, 0, 1, 0x02), filled(512, 0xaa));
  disk.complete_one();
  disk.data[17] = 0;
  disk.complete_one();
  loop.run();
  expect_sense(*command, kMiscompareDuringVerify);
  EXPECT_EQ(command->information(), 17u);
}

}  // namespace replblk::scsi::test
