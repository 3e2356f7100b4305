#include <gtest/gtest.h>

#include <list>

#include "blockdev/error_map.hpp"
#include "store_fixture.hpp"

namespace replblk::blockdev::test {
namespace {

using Op = ports::DiskOpKind;
constexpr std::uint64_t kDiskBytes = 4 * kMiB;

/// A request and whether it was answered.
struct Probe {
  BlockRequest request;
  int answers_count = 0;
  void on_complete(BlockRequest&) { ++answers_count; }
  Probe(BlockOp op, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    request.op = op;
    request.offset_bytes = offset_bytes;
    request.length_bytes = length_bytes;
    request.on_complete = Callback<void(BlockRequest&)>::to<&Probe::on_complete>(*this);
  }
};

struct IoBench : StoreBench {
  explicit IoBench(ports::Disk::Geometry geometry, StoreOptions options = store_options()) : StoreBench(geometry) {
    EXPECT_TRUE(create(create_options({})).has_value());
    restart(std::move(options));
    EXPECT_TRUE(open().has_value());
    data.log.clear();
  }
  /// A pool buffer with a repeated byte, at an offset within the buffer.
  BufferRef buffer(std::uint64_t length_bytes, std::byte value) {
    BufferRef ref = buffers.acquire(length_bytes);
    EXPECT_TRUE(static_cast<bool>(ref));
    std::fill_n(ref.data(), length_bytes, value);
    return ref;
  }
  BlockStatus finish(Probe& probe) {
    store->submit(probe.request);
    EXPECT_EQ(probe.answers_count, 0) << "never from inside submit()";
    run();
    EXPECT_EQ(probe.answers_count, 1);
    return probe.request.status;
  }
  BlockStatus write(std::uint64_t offset_bytes, std::uint64_t length_bytes, std::byte value, bool is_fua = false) {
    Probe probe(BlockOp::write, offset_bytes, length_bytes);
    probe.request.buffer = buffer(length_bytes, value);
    probe.request.is_fua = is_fua;
    return finish(probe);
  }
  std::vector<std::byte> read(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    Probe probe(BlockOp::read, offset_bytes, length_bytes);
    probe.request.buffer = buffer(length_bytes, std::byte{0xcc});
    EXPECT_EQ(finish(probe), BlockStatus::good);
    return {probe.request.data(), probe.request.data() + length_bytes};
  }
};

// The hot path: one operation, the request's own memory, nothing copied.
TEST(StoreIo, An_aligned_request_is_one_disk_operation_on_its_own_memory) {
  IoBench bench(disk_geometry(kDiskBytes));
  Probe probe(BlockOp::write, 8192, 4096);
  probe.request.buffer = bench.buffer(8192, std::byte{1});
  probe.request.buffer_offset_bytes = 512;
  bench.store->submit(probe.request);
  ASSERT_EQ(bench.data.queued_count(), 1u);
  EXPECT_EQ(bench.data.queued(0).memory, probe.request.data());
  bench.run();
  EXPECT_EQ(probe.request.status, BlockStatus::good);
  EXPECT_EQ(bench.data.log, (std::vector<FakeDisk::Logged>{{Op::write, 8192, 4096, false}}));
  EXPECT_EQ(bench.store->counters().bounces, 0u);
  EXPECT_EQ(bench.store->counters().written_bytes, 4096u);
}

/// Random operations with random alignment against a plain array; the whole volume is compared at the end.
void compare_with_model(IoBench& bench, std::uint64_t seed) {
  const std::uint64_t size = bench.store->geometry().size_bytes;
  std::vector<std::byte> model(bench.data.bytes().begin(),
                               bench.data.bytes().begin() + static_cast<std::ptrdiff_t>(size));
  const std::vector<std::byte> metadata(bench.data.bytes().begin() + static_cast<std::ptrdiff_t>(size),
                                        bench.data.bytes().end());
  std::mt19937_64 random(seed);
  for (int step = 0; step < 600; ++step) {
    const std::uint64_t blocks_max = random() % 10 == 0 ? 800 : 20;
    const std::uint64_t offset = random() % 8 == 0 ? size - 512 * (1 + random() % 12) : random() % (size / 512) * 512;
    const std::uint64_t length = std::min(size - offset, (1 + random() % blocks_max) * 512);
    const std::uint32_t buffer_offset = static_cast<std::uint32_t>(random() % 3 * 512);
    Probe probe(BlockOp::read, offset, length);
    const auto at = model.begin() + static_cast<std::ptrdiff_t>(offset);
    const auto kind = random() % 8;
    if (kind < 6) {
      probe.request.op = kind < 3 ? BlockOp::write : BlockOp::read;
      probe.request.buffer = bench.buffer(length + buffer_offset, static_cast<std::byte>(step));
      probe.request.buffer_offset_bytes = buffer_offset;
      for (std::uint64_t n = 0; n < length; n += 512) store_le<std::uint64_t>(probe.request.data() + n, random());
      if (kind < 3) std::copy_n(probe.request.data(), length, at);
    } else {
      probe.request.op = kind == 6 ? BlockOp::discard : BlockOp::write_zeroes;
      std::fill_n(at, length, std::byte{0});
    }
    ASSERT_EQ(bench.finish(probe), BlockStatus::good);
    if (probe.request.op == BlockOp::read) {
      ASSERT_TRUE(std::equal(probe.request.data(), probe.request.data() + length, at)) << "step " << step;
    }
  }
  ASSERT_TRUE(std::equal(model.begin(), model.end(), bench.data.bytes().begin()));
  ASSERT_TRUE(
      std::equal(metadata.begin(), metadata.end(), bench.data.bytes().begin() + static_cast<std::ptrdiff_t>(size)))
      << "metadata was overwritten by data";
}

// A bounce that is wrong by one byte corrupts a neighbour's block.
TEST(StoreIo, Every_alignment_and_every_offer_of_the_disk_gives_what_a_plain_array_gives) {
  std::uint64_t seed = 1;
  for (const std::uint32_t alignment : {1u, 512u, 4096u}) {
    for (int offers = 0; offers < 4; ++offers) {
      ports::Disk::Geometry geometry = disk_geometry(kDiskBytes, alignment);
      geometry.supports_discard = (offers & 1) != 0;
      geometry.supports_write_zeroes = (offers & 2) != 0;
      IoBench bench(geometry);
      compare_with_model(bench, seed++);
      EXPECT_EQ(bench.store->counters().bounces > 0, alignment == 4096 || alignment == 512 ? alignment == 4096 : false);
    }
  }
}

// What the disk offers at its opening and refuses later must still become zeroes.
TEST(StoreIo, Discard_and_zeroing_that_the_disk_refuses_fall_back_to_writing_zeroes) {
  ports::Disk::Geometry geometry = disk_geometry(kDiskBytes);
  geometry.supports_discard = true;
  geometry.supports_write_zeroes = true;
  IoBench bench(geometry);
  ASSERT_EQ(bench.write(0, kMiB, std::byte{0xff}), BlockStatus::good);
  bench.data.fault = [](const ports::DiskOp& op) {
    const bool refuses = op.kind == Op::discard || op.kind == Op::write_zeroes;
    return refuses ? std::optional(ports::IoError::not_supported) : std::nullopt;
  };
  Probe discard(BlockOp::discard, 4096, kMiB - 8192);
  EXPECT_EQ(bench.finish(discard), BlockStatus::good);
  EXPECT_EQ(bench.data.bytes()[4095], std::byte{0xff});
  for (std::uint64_t at = 4096; at < kMiB - 4096; ++at) ASSERT_EQ(bench.data.bytes()[at], std::byte{0});
  EXPECT_EQ(bench.data.bytes()[kMiB - 4096], std::byte{0xff});
  const std::uint64_t submitted = bench.data.submitted_count;
  Probe again(BlockOp::discard, 0, 4096);
  EXPECT_EQ(bench.finish(again), BlockStatus::good);
  EXPECT_EQ(bench.data.submitted_count, submitted + 1) << "a disk that refused is not asked each time";
  bench.data.fault = nullptr;
}

// P2: a FUA answered GOOD survives the loss of power; a plain write may not, which shows that the test can fail.
TEST(StoreIo, Fua_and_write_through_are_durable_at_the_answer_however_they_are_carried) {
  for (const std::uint32_t alignment : {512u, 4096u}) {
    for (const bool is_write_through : {false, true}) {
      for (const BlockOp op : {BlockOp::write, BlockOp::write_zeroes, BlockOp::discard}) {
        for (int offers = 0; offers < 2; ++offers) {
          ports::Disk::Geometry geometry = disk_geometry(kDiskBytes, alignment);
          geometry.supports_discard = geometry.supports_write_zeroes = offers == 1;
          StoreOptions options = store_options();
          options.has_write_cache = !is_write_through;
          IoBench bench(geometry, options);
          ASSERT_EQ(bench.write(0, 65536, std::byte{0xee}), BlockStatus::good);
          Probe flush(BlockOp::flush, 0, 0);
          ASSERT_EQ(bench.finish(flush), BlockStatus::good);
          Probe probe(op, 512, 20 * 512);
          if (op == BlockOp::write) probe.request.buffer = bench.buffer(20 * 512, std::byte{0x33});
          probe.request.is_fua = !is_write_through;
          ASSERT_EQ(bench.finish(probe), BlockStatus::good);
          const std::byte expected = op == BlockOp::write ? std::byte{0x33} : std::byte{0};
          for (std::uint64_t at = 0; at < 65536; ++at) {
            const bool is_inside = at >= 512 && at < 21 * 512;
            ASSERT_EQ(bench.data.durable_bytes()[at], is_inside ? expected : std::byte{0xee}) << at;
          }
        }
      }
    }
  }
  IoBench bench(disk_geometry(kDiskBytes));
  ASSERT_EQ(bench.write(0, 4096, std::byte{0xee}), BlockStatus::good);
  EXPECT_EQ(bench.data.durable_bytes()[0], std::byte{0});
  Probe flush(BlockOp::flush, 0, 0);
  ASSERT_EQ(bench.finish(flush), BlockStatus::good);
  EXPECT_EQ(bench.data.durable_bytes()[0], std::byte{0xee});
}

// More than the disk may hold at once: nothing is lost, nothing overtakes.
TEST(StoreIo, Requests_above_the_limit_wait_in_order) {
  IoBench bench(disk_geometry(kDiskBytes));  // requests_max: 8
  std::list<Probe> probes;
  for (std::uint64_t n = 0; n < 40; ++n) {
    probes.emplace_back(BlockOp::write, n * 4096, 4096);
    probes.back().request.buffer = bench.buffer(4096, static_cast<std::byte>(n));
    bench.store->submit(probes.back().request);
  }
  EXPECT_EQ(bench.data.queued_count(), 8u);
  EXPECT_EQ(bench.store->in_flight_count(), 40u);
  bench.run();
  EXPECT_EQ(bench.store->in_flight_count(), 0u);
  ASSERT_EQ(bench.data.log.size(), 40u);
  for (std::uint64_t n = 0; n < 40; ++n) EXPECT_EQ(bench.data.log[n].offset_bytes, n * 4096);
  for (const Probe& probe : probes) EXPECT_EQ(probe.answers_count, 1);
}

// Every buffer of the pool held by requests that each need one more: without a reserve nothing would ever move again.
TEST(StoreIo, Bounces_go_on_when_the_pool_is_exhausted) {
  IoBench bench(disk_geometry(kDiskBytes, 4096));
  std::list<Probe> probes;
  for (std::uint64_t n = 0; n < 8; ++n) {
    probes.emplace_back(BlockOp::write, 512 + n * 300 * 1024, 150 * 1024);
    probes.back().request.buffer = bench.buffer(150 * 1024, static_cast<std::byte>(n + 1));
  }
  std::vector<BufferRef> rest;
  while (BufferRef one = bench.buffers.acquire(4096)) rest.push_back(std::move(one));
  for (Probe& probe : probes) bench.store->submit(probe.request);
  EXPECT_EQ(bench.data.queued_count(), 1u) << "all but one wait for the reserve";
  bench.run();
  std::byte value{1};
  for (const Probe& probe : probes) {
    EXPECT_EQ(probe.answers_count, 1);
    const std::uint64_t offset = probe.request.offset_bytes;
    EXPECT_EQ(bench.data.bytes()[offset - 1], std::byte{0});
    EXPECT_EQ(bench.data.bytes()[offset], value);
    EXPECT_EQ(bench.data.bytes()[offset + 150 * 1024 - 1], value);
    EXPECT_EQ(bench.data.bytes()[offset + 150 * 1024], std::byte{0});
    value = static_cast<std::byte>(std::to_integer<int>(value) + 1);
  }
}

// A wrong answer here is data that the initiator thinks it has.
TEST(StoreIo, Each_disk_error_has_its_answer_on_every_way) {
  EXPECT_EQ(to_block_status(ports::IoError::io), BlockStatus::io_error);
  EXPECT_EQ(to_block_status(ports::IoError::no_space), BlockStatus::no_space);
  EXPECT_EQ(to_block_status(ports::IoError::not_supported), BlockStatus::not_supported);
  EXPECT_EQ(to_block_status(ports::IoError::access), BlockStatus::io_error);
  EXPECT_EQ(to_block_status(ports::IoError::timed_out), BlockStatus::timed_out);
  for (const std::uint32_t alignment : {512u, 4096u}) {
    for (const BlockOp op : {BlockOp::read, BlockOp::write, BlockOp::discard, BlockOp::write_zeroes, BlockOp::flush}) {
      for (std::size_t failing = 0; failing < 4; ++failing) {
        IoBench bench(disk_geometry(kDiskBytes, alignment));
        std::size_t seen = 0;
        bench.data.fault = [&](const ports::DiskOp&) {
          return seen++ == failing ? std::optional(ports::IoError::no_space) : std::nullopt;
        };
        Probe probe(op, 512, 200 * 1024);
        if (op == BlockOp::flush) probe.request.offset_bytes = probe.request.length_bytes = 0;
        if (op == BlockOp::read || op == BlockOp::write) probe.request.buffer = bench.buffer(200 * 1024, std::byte{1});
        const BlockStatus status = bench.finish(probe);
        EXPECT_EQ(status, seen > failing ? BlockStatus::no_space : BlockStatus::good);
        EXPECT_EQ(bench.store->counters().io_errors, seen > failing ? 1u : 0u);
        EXPECT_EQ(seen > failing ? seen : 0, seen > failing ? failing + 1 : 0) << "nothing more after an error";
        bench.data.fault = nullptr;
      }
    }
  }
}

// disk_timeout: the kernel still has the buffer; giving it to the next request would let the old write carry new data.
TEST(StoreIo, Memory_of_a_timed_out_operation_is_given_to_nobody_before_the_device_gives_it_back) {
  for (const std::uint32_t alignment : {512u, 4096u}) {
    IoBench bench(disk_geometry(kDiskBytes, alignment));
    const std::size_t free_before = bench.buffers.free_bytes();
    const auto read = [&bench] {
      Probe probe(BlockOp::read, 0, 4096);
      probe.request.buffer = bench.buffer(4096, std::byte{0});
      EXPECT_EQ(bench.finish(probe), BlockStatus::good);
    };
    const auto time_out = [&bench] {
      Probe probe(BlockOp::write, 512, 512);
      probe.request.buffer = bench.buffer(512, std::byte{1});
      bench.data.fault = [](const ports::DiskOp&) { return std::optional(ports::IoError::timed_out); };
      EXPECT_EQ(bench.finish(probe), BlockStatus::timed_out);
      bench.data.fault = nullptr;
      bench.data.unreturned = 1;
    };
    time_out();
    EXPECT_EQ(bench.buffers.free_bytes(), free_before - 4096);
    read();
    EXPECT_EQ(bench.buffers.free_bytes(), free_before - 4096);
    bench.data.unreturned = 0;
    read();
    EXPECT_EQ(bench.buffers.free_bytes(), free_before);
    time_out();
    bench.data.unreturned = 0;
    bench.restart();
    EXPECT_EQ(bench.buffers.free_bytes(), free_before);
  }
}

/// Submits the next request from inside the completion of the one before.
struct Chain {
  IoBench& bench;
  BlockRequest request;
  int left = 100;
  void on_complete(BlockRequest&) {
    if (--left > 0) bench.store->submit(request);
  }
};

TEST(StoreIo, A_completion_may_submit_again) {
  IoBench bench(disk_geometry(kDiskBytes));
  Chain chain{bench, {}, 100};
  chain.request.op = BlockOp::read;
  chain.request.length_bytes = 4096;
  chain.request.buffer = bench.buffer(4096, std::byte{0});
  chain.request.on_complete = Callback<void(BlockRequest&)>::to<&Chain::on_complete>(chain);
  bench.store->submit(chain.request);
  bench.run();
  EXPECT_EQ(chain.left, 0);
}

// Validated at the edge, asserted here: an access beyond the volume would land in the metadata.
TEST(StoreIoDeathTest, An_access_beyond_the_volume_ends_the_process) {
  IoBench bench(disk_geometry(kDiskBytes));
  Probe probe(BlockOp::discard, bench.store->geometry().size_bytes - 512, 1024);
  EXPECT_DEATH(bench.store->submit(probe.request), "assertion|offset|length");
}

}  // namespace
}  // namespace replblk::blockdev::test
