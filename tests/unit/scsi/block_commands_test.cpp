#include "scsi_fixture.hpp"

namespace replblk::scsi::test {

using blockdev::BlockOp;
using blockdev::BlockStatus;

class BlockCommands : public ScsiTest {};

struct ReadWriteForm {
  const char* name;
  Bytes (*cdb)(std::uint64_t lba, std::uint32_t count, bool is_write);
};
const ReadWriteForm kForms[] = {
    {"6",
     [](std::uint64_t lba, std::uint32_t count, bool is_write) -> Bytes {
       return {static_cast<std::uint8_t>(is_write ? 0x0a : 0x08),
               static_cast<std::uint8_t>(lba >> 16 & 0x1f),
               static_cast<std::uint8_t>(lba >> 8),
               static_cast<std::uint8_t>(lba),
               static_cast<std::uint8_t>(count),
               0};
     }},
    {"10",
     [](std::uint64_t lba, std::uint32_t count, bool is_write) {
       return cdb_10(is_write ? 0x2a : 0x28, static_cast<std::uint32_t>(lba), static_cast<std::uint16_t>(count));
     }},
    {"12", [](std::uint64_t lba, std::uint32_t count,
              bool is_write) { return cdb_12(is_write ? 0xaa : 0xa8, static_cast<std::uint32_t>(lba), count); }},
    {"16",
     [](std::uint64_t lba, std::uint32_t count, bool is_write) { return cdb_16(is_write ? 0x8a : 0x88, lba, count); }},
};

// A wrong LBA or count field of one form would put data in the wrong place.
TEST_F(BlockCommands, Every_form_of_write_is_read_back_by_every_form_of_read) {
  std::uint8_t seed = 0;
  for (const ReadWriteForm& write : kForms) {
    for (const ReadWriteForm& read : kForms) {
      const Bytes data = numbered(3 * 512, ++seed);
      expect_good(*run(write.cdb(0x123, 3, true), data));
      const auto command = run(read.cdb(0x123, 3, false), Bytes(3 * 512));
      expect_good(*command);
      EXPECT_EQ(command->data_in(), data) << write.name << " " << read.name;
      EXPECT_EQ(Bytes(disk.data.begin() + 0x123 * 512, disk.data.begin() + 0x126 * 512), data);
    }
  }
}

// Zero in a six byte CDB is 256 blocks, in all others none.
TEST_F(BlockCommands, Transfer_length_zero_means_256_in_six_bytes_and_nothing_elsewhere) {
  const auto six = run({0x08, 0, 0, 0, 0, 0});
  EXPECT_EQ(six->task.data_in_length_bytes, 256u * 512);
  disk.seen.clear();
  for (const Bytes& cdb : {cdb_10(0x28, kBlocks, 0), cdb_12(0xa8, 0, 0), cdb_16(0x88, 0, 0), cdb_10(0x2a, 0, 0),
                           cdb_16(0x89, 0, 0), cdb_10(0x2f, 0, 0), cdb_10(0x2e, 0, 0)}) {
    const auto command = run(cdb);
    expect_good(*command);
    EXPECT_EQ(command->task.data_in_length_bytes, 0u);
  }
  EXPECT_TRUE(disk.seen.empty());
}

// Beyond the end nothing may reach the disk, and the sense says which block is the first that is not there.
TEST_F(BlockCommands, Range_beyond_the_end_is_refused_before_any_transfer) {
  const std::uint32_t end = kBlocks;
  std::vector<Bytes> cdbs = {{0x08, 0x1f, 0xff, 0xff, 1, 0}, {0x0a, 0x1f, 0xff, 0xff, 1, 0}, cdb_10(0x2b, end, 0)};
  for (const unsigned code : {0x28u, 0x2au, 0x2eu, 0x2fu, 0x34u, 0x35u, 0x41u}) {
    cdbs.push_back(cdb_10(code, end, 1));
    cdbs.push_back(cdb_10(code, end - 1, 2));
    if (code != 0x41) cdbs.push_back(cdb_10(code, end + 1, 0));
    cdbs.push_back(cdb_10(code, 0xffffffff, 1));
  }
  for (const unsigned code : {0xa8u, 0xaau, 0xaeu, 0xafu}) {
    cdbs.push_back(cdb_12(code, end - 1, 2));
    cdbs.push_back(cdb_12(code, 0xffffffff, 0xffffffff));
  }
  for (const unsigned code : {0x88u, 0x8au, 0x8eu, 0x8fu, 0x90u, 0x91u, 0x93u}) {
    cdbs.push_back(cdb_16(code, end - 1, 2));
    cdbs.push_back(cdb_16(code, 0xffffffffffffffff, 1));
    cdbs.push_back(cdb_16(code, 0x8000000000000000, 2));
  }
  Bytes compare = cdb_16(0x89, end, 0);
  compare[13] = 1;
  cdbs.push_back(compare);
  for (const Bytes& cdb : cdbs) {
    const auto command = run(cdb, Bytes(1024));
    EXPECT_TRUE(command->task.is_decided) << std::hex << int(cdb[0]);
    expect_sense(*command, kLbaOutOfRange);
    EXPECT_EQ(command->task.transfer_length_bytes, 0u);
  }
  EXPECT_EQ(run(cdb_10(0x28, end - 1, 2))->information(), end);
  EXPECT_EQ(run(cdb_10(0x28, end + 5, 1))->information(), end + 5);
  EXPECT_FALSE(run(cdb_16(0x88, std::uint64_t{1} << 40, 1))->has_information())
      << "VALID with a number that does not fit";
  EXPECT_TRUE(disk.seen.empty());
}

// A command that one buffer cannot hold must be refused, not cut.
TEST_F(BlockCommands, Transfer_larger_than_announced_is_refused) {
  disk.change_geometry().size_bytes = std::uint64_t{1} << 40;
  disk.keeps_data = false;
  const std::uint32_t most = BufferPool::kBufferBytesMax / 512;
  expect_good(*run(cdb_16(0x88, 7, most)));
  for (const unsigned code : {0x88u, 0x8au, 0x8eu}) {
    const auto command = run(cdb_16(code, 7, most + 1));
    expect_sense(*command, kInvalidFieldInCdb);
    EXPECT_EQ(command->cdb_field(), 10 * 8 + 7);
  }
}

// FUA on a write must reach the backend; on a read what is cached goes to the medium first.
TEST_F(BlockCommands, Fua_is_passed_on) {
  (void)run(cdb_10(0x2a, 1, 1, 0x08), filled(512, 1));
  (void)run(cdb_16(0x8a, 1, 1, 0x18), filled(512, 1));
  (void)run(cdb_12(0xaa, 1, 1, 0x10), filled(512, 1));
  EXPECT_EQ(disk.seen, (std::vector<MemoryBackend::Seen>{{BlockOp::write, 512, 512, true},
                                                         {BlockOp::write, 512, 512, true},
                                                         {BlockOp::write, 512, 512, false}}));
  disk.seen.clear();
  const auto read = run(cdb_10(0x28, 1, 1, 0x08));
  expect_good(*read);
  EXPECT_EQ(read->data_in(), filled(512, 1));
  EXPECT_EQ(disk.seen,
            (std::vector<MemoryBackend::Seen>{{BlockOp::flush, 0, 0, false}, {BlockOp::read, 512, 512, false}}));
  disk.change_geometry().has_write_cache = false;
  disk.seen.clear();
  (void)run(cdb_10(0x28, 1, 1, 0x08));
  EXPECT_EQ(disk.seen, (std::vector<MemoryBackend::Seen>{{BlockOp::read, 512, 512, false}}));
}

// In a six byte CDB the bit that is FUA elsewhere is part of the LBA.
TEST_F(BlockCommands, Six_byte_write_has_no_fua) {
  disk.change_geometry().size_bytes = std::uint64_t{1} << 30;
  disk.keeps_data = false;
  expect_good(*run({0x0a, 0x08, 0, 1, 1, 0}, filled(512, 1)));
  EXPECT_EQ(disk.seen, (std::vector<MemoryBackend::Seen>{{BlockOp::write, 0x80001u * 512, 512, false}}));
}

// The initiator may announce less data than the CDB: whole blocks are written, a torn block never.
TEST_F(BlockCommands, Short_data_out_writes_whole_blocks_or_is_refused) {
  expect_good(*run(cdb_10(0x2a, 0, 2), filled(512, 'b')));
  EXPECT_EQ(disk.data[511], 'b');
  EXPECT_EQ(disk.data[512], 0);
  expect_sense(*run(cdb_10(0x2a, 0, 1), filled(200, 'c')), kInvalidFieldInInformationUnit);
  EXPECT_EQ(disk.data[0], 'b');
  expect_good(*run(cdb_10(0x2a, 0, 1)));
  EXPECT_EQ(disk.data[0], 'b');
}

// More data than the CDB says must not be written.
TEST_F(BlockCommands, Surplus_data_out_is_left_alone) {
  expect_good(*run(cdb_10(0x2a, 0, 1), filled(1024, 'b')));
  EXPECT_EQ(disk.data[511], 'b');
  EXPECT_EQ(disk.data[512], 0);
}

struct ErrorCase {
  BlockStatus status;
  Bytes cdb;
  Bytes data;
  SenseCode sense;
};

// Each backend failure has its own sense: an initiator decides by it whether data is lost, space is short or a retry
// helps.
TEST_F(BlockCommands, Backend_errors_become_sense) {
  const std::vector<ErrorCase> cases = {
      {BlockStatus::io_error, cdb_10(0x28, 0, 1), {}, {SenseKey::medium_error, 0x11, 0x00}},
      {BlockStatus::io_error, cdb_10(0x2f, 0, 1), {}, {SenseKey::medium_error, 0x11, 0x00}},
      {BlockStatus::io_error, cdb_10(0x2a, 0, 1), Bytes(512), {SenseKey::medium_error, 0x0c, 0x00}},
      {BlockStatus::io_error, cdb_10(0x35, 0, 0), {}, {SenseKey::medium_error, 0x0c, 0x00}},
      {BlockStatus::no_space, cdb_10(0x2a, 0, 1), Bytes(512), {SenseKey::data_protect, 0x27, 0x07}},
      {BlockStatus::not_supported, cdb_10(0x41, 0, 1, 0x08), Bytes(512), {SenseKey::illegal_request, 0x20, 0x00}},
  };
  for (const ErrorCase& each : cases) {
    disk.next_status = each.status;
    const auto command = run(each.cdb, each.data);
    expect_sense(*command, each.sense);
    EXPECT_EQ(command->task.data_in_length_bytes, 0u);
  }
}

// After the role is lost an answer would be a lie: the transport must be told to send none.
TEST_F(BlockCommands, Lost_role_drops_the_command) {
  for (const Bytes& cdb : {cdb_10(0x28, 0, 1), cdb_10(0x2a, 0, 1), cdb_10(0x35, 0, 0)}) {
    disk.next_status = BlockStatus::not_serving;
    const auto command = run(cdb, Bytes(512));
    EXPECT_TRUE(command->task.is_dropped);
    EXPECT_EQ(command->completions, 1);
  }
  EXPECT_FALSE(run(cdb_10(0x28, 0, 1))->task.is_dropped);
}

Bytes compare_cdb(std::uint64_t lba, std::uint8_t count, std::uint8_t flags = 0) {
  Bytes cdb = cdb_16(0x89, lba, 0, flags);
  cdb[13] = count;
  return cdb;
}

// Cluster file systems lock with this: equal must write, different must not and must say where.
TEST_F(BlockCommands, Compare_and_write_writes_only_what_compares) {
  for (const std::uint8_t count : {std::uint8_t{1}, std::uint8_t{2}, std::uint8_t{255}}) {
    const std::size_t half = std::size_t{count} * 512;
    Bytes data = filled(half, 'A');
    std::fill(disk.data.begin(), disk.data.begin() + static_cast<long>(half), 'A');
    data.resize(2 * half, 'B');
    const auto equal = run(compare_cdb(0, count, 0x08), data);
    expect_good(*equal);
    EXPECT_TRUE(disk.seen.back().is_fua);
    EXPECT_EQ(disk.data[half - 1], 'B');
    const auto different = run(compare_cdb(0, count), data);
    expect_sense(*different, kMiscompareDuringVerify);
    EXPECT_TRUE(different->has_information());
    EXPECT_EQ(different->information(), 0u);
    Bytes late = filled(half, 'B');
    late[half - 27] = 'C';
    late.resize(2 * half, 'D');
    EXPECT_EQ(run(compare_cdb(0, count), late)->information(), half - 27);
    EXPECT_EQ(disk.data[0], 'B');
  }
}

// Half of the data would compare the wrong halves.
TEST_F(BlockCommands, Compare_and_write_refuses_any_other_amount_of_data) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{512}, std::size_t{1023}, std::size_t{2048}}) {
    const auto command = run(compare_cdb(0, 1), filled(size, 0));
    expect_sense(*command, kInvalidFieldInCdb);
    EXPECT_EQ(command->cdb_field(), 13 * 8 + 7);
  }
  EXPECT_TRUE(disk.seen.empty());
}

// An answer to SYNCHRONIZE CACHE before the flush is the promise that loses data.
TEST_F(BlockCommands, Synchronize_cache_is_answered_when_the_flush_is_done) {
  disk.is_held = true;
  for (const Bytes& cdb : {cdb_10(0x35, 0, 0), cdb_10(0x35, 0, 0, 0x02), cdb_16(0x91, 5, 7)}) {
    const auto command = start(cdb);
    loop.run();
    EXPECT_FALSE(command->is_complete());
    disk.complete_all();
    loop.run();
    EXPECT_TRUE(command->is_complete());
    expect_good(*command);
  }
  EXPECT_EQ(disk.seen.size(), 3u);
  for (const auto& seen : disk.seen) EXPECT_EQ(seen.op, BlockOp::flush);
}

// STOP from one initiator must not take the disk from the others.
TEST_F(BlockCommands, Stop_only_flushes) {
  expect_good(*run({0x1b, 0, 0, 0, 0, 0}));
  EXPECT_EQ(disk.seen.size(), 1u);
  expect_good(*run({0x1b, 1, 0, 0, 0x01, 0}));
  expect_good(*run({0x1b, 0, 0, 0, 0x04, 0}));
  EXPECT_EQ(disk.seen.size(), 1u);
  expect_good(*run({0x00, 0, 0, 0, 0, 0}));
  expect_sense(*run({0x1b, 0, 0, 0, 0x02, 0}), kInvalidFieldInCdb);  // LOEJ
  expect_sense(*run({0x1b, 0, 0, 0, 0x11, 0}), kInvalidFieldInCdb);  // power condition
}

// Commands that do nothing must still say so.
TEST_F(BlockCommands, Commands_without_effect_succeed) {
  for (const Bytes& cdb : {Bytes{0x00, 0, 0, 0, 0, 0}, Bytes{0x01, 0, 0, 0, 0, 0}, Bytes{0x0b, 0, 0, 1, 0, 0},
                           Bytes{0x1d, 0x04, 0, 0, 0, 0}, Bytes{0x1e, 0, 0, 0, 1, 0}, cdb_10(0x2b, 1, 0)}) {
    expect_good(*run(cdb));
  }
  expect_good(*run(cdb_10(0x34, 0, 8)));
  expect_good(*run(cdb_16(0x90, 0, 8, 0x02)));
}

// Reads wait for memory in the order in which they came, and go on by themselves.
class SmallPool : public ScsiTest {
 protected:
  SmallPool() : ScsiTest(BufferPool::kBufferBytesMax) {}
};

TEST_F(SmallPool, Reads_wait_for_buffers_in_order) {
  disk.is_held = true;
  const auto first = start(cdb_10(0x28, 0, 4096));   // 2 MiB
  const auto second = start(cdb_10(0x28, 0, 4096));  // 2 MiB
  const auto third = start(cdb_10(0x28, 0, 4096));
  const auto fourth = start(cdb_10(0x28, 0, 1));
  EXPECT_EQ(disk.pending_count(), 2u);
  disk.complete_all();
  loop.run();
  EXPECT_TRUE(first->is_complete() && second->is_complete());
  EXPECT_EQ(disk.pending_count(), 0u);
  first->task.data_in.reset();
  EXPECT_EQ(disk.pending_count(), 1u);
  second->task.data_in.reset();
  EXPECT_EQ(disk.pending_count(), 2u);
  disk.complete_all();
  loop.run();
  EXPECT_TRUE(third->is_complete() && fourth->is_complete());
}

// An aborted task that waits for memory must leave the queue, or it blocks it for ever.
TEST_F(SmallPool, Aborted_read_gives_up_its_place_in_the_queue_for_memory) {
  disk.is_held = true;
  const auto first = start(cdb_10(0x28, 0, 4096));
  const auto second = start(cdb_10(0x28, 0, 4096));
  const auto waiting = start(cdb_10(0x28, 0, 4096));
  const auto last = start(cdb_10(0x28, 0, 1));
  device->abort(waiting->task);
  EXPECT_FALSE(waiting->is_complete());
  loop.run();
  EXPECT_TRUE(waiting->is_complete());
  EXPECT_TRUE(waiting->task.is_aborted);
  disk.complete_all();
  loop.run();
  first->task.data_in.reset();
  EXPECT_EQ(disk.pending_count(), 1u);
  disk.complete_all();
  loop.run();
  EXPECT_TRUE(last->is_complete());
}

}  // namespace replblk::scsi::test
