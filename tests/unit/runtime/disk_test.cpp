#include "runtime/disk_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <fstream>
#include <optional>
#include <random>

#include "disk_request.hpp"
#include "runtime/start_error.hpp"
#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

using ports::Disk;
using ports::DiskOp;
using ports::DiskOpKind;
using ports::IoError;
using test::make_reactor;
using test::pattern;
using test::Request;
using test::turn_until;

constexpr std::size_t kFileBytes = std::size_t{16} << 20;

/// A sparse file in `directory`, removed at the end.
class TempFile {
 public:
  explicit TempFile(const std::string& directory, std::size_t size_bytes = kFileBytes)
      : path_(directory + "/replblk-disk-test-XXXXXX") {
    const int fd = ::mkstemp(path_.data());
    EXPECT_GE(fd, 0);
    EXPECT_EQ(::ftruncate(fd, static_cast<off_t>(size_bytes)), 0);
    ::close(fd);
  }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  ~TempFile() { ::unlink(path_.c_str()); }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] struct stat status() const {
    struct stat result{};
    EXPECT_EQ(::stat(path_.c_str(), &result), 0);
    return result;
  }

 private:
  std::string path_;
};

struct Place {
  std::string name;
  std::string directory;
  bool is_buffered = false;
};
void PrintTo(const Place& place, std::ostream* out) { *out << place.name; }

class DiskTest : public testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    auto opened = open_disk({.path = file.path(), .is_buffered = GetParam().is_buffered}, *reactor);
    if (!opened && !GetParam().is_buffered && opened.error().find("O_DIRECT") != std::string::npos) {
      GTEST_SKIP() << opened.error();  // tmpfs takes O_DIRECT since 6.6.
    }
    ASSERT_TRUE(opened.has_value()) << opened.error();
    disk = std::move(*opened);
  }
  Result<void, IoError> perform(Request& request) {
    disk->submit(request.op);
    EXPECT_FALSE(request.result.has_value()) << "called from inside submit()";
    EXPECT_TRUE(turn_until(*reactor, [&] { return request.result.has_value(); }));
    return *request.result;
  }
  void write(std::uint64_t offset, ConstBytes bytes, bool is_durable = false) {
    BufferRef buffer = pool.acquire(bytes.size());
    std::ranges::copy(bytes, buffer.data());
    Request request(DiskOpKind::write, offset, bytes.size());
    request.op.memory = buffer.data();
    request.op.is_durable = is_durable;
    EXPECT_TRUE(perform(request).has_value());
  }
  std::vector<std::byte> read(std::uint64_t offset, std::size_t length) {
    BufferRef buffer = pool.acquire(length);
    std::fill_n(buffer.data(), length, std::byte{0xee});
    Request request(DiskOpKind::read, offset, length);
    request.op.memory = buffer.data();
    EXPECT_TRUE(perform(request).has_value());
    return {buffer.data(), buffer.data() + length};
  }

  BufferPool pool{std::size_t{32} << 20};
  std::unique_ptr<Reactor> reactor = make_reactor({.ring = {}, .buffers = &pool});
  TempFile file{GetParam().directory};
  std::unique_ptr<DiskFile> disk;
};

INSTANTIATE_TEST_SUITE_P(Places, DiskTest,
                         testing::Values(Place{"disk_direct", "/var/tmp", false},
                                         Place{"disk_buffered", "/var/tmp", true},
                                         Place{"tmpfs_direct", "/dev/shm", false},
                                         Place{"tmpfs_buffered", "/dev/shm", true}),
                         [](const auto& information) { return information.param.name; });

// If it failed, nothing above could trust the disk.
TEST_P(DiskTest, Written_bytes_are_read_back_plain_durable_and_flushed) {
  const std::vector<std::byte> large = pattern(std::size_t{4} << 20, 1);
  const std::vector<std::byte> small = pattern(4096, 2);
  write(1 << 20, large);
  write(8 << 20, small, true);
  Request flush(DiskOpKind::flush);
  EXPECT_TRUE(perform(flush).has_value());
  EXPECT_TRUE(read(1 << 20, large.size()) == large);
  EXPECT_TRUE(read(8 << 20, small.size()) == small);
  EXPECT_TRUE(read(12 << 20, 8192) == std::vector<std::byte>(8192));
  std::ifstream plain(file.path(), std::ios::binary);
  plain.seekg(8 << 20);
  std::vector<char> seen(small.size());
  plain.read(seen.data(), static_cast<std::streamsize>(seen.size()));
  EXPECT_EQ(std::memcmp(seen.data(), small.data(), small.size()), 0);
}

// If it failed, memory outside the pool (metadata) could not be used, or the fixed-buffer test would be wrong.
TEST_P(DiskTest, Memory_outside_the_registered_region_works_too) {
  const std::vector<std::byte> bytes = pattern(8192, 4);
  auto* memory = static_cast<std::byte*>(::operator new(8192, std::align_val_t{4096}));
  std::ranges::copy(bytes, memory);
  Request out(DiskOpKind::write, 4096, 8192);
  out.op.memory = memory;
  EXPECT_TRUE(perform(out).has_value());
  std::fill_n(memory, 8192, std::byte{});
  Request in(DiskOpKind::read, 4096, 8192);
  in.op.memory = memory;
  EXPECT_TRUE(perform(in).has_value());
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), memory));
  ::operator delete(memory, std::align_val_t{4096});
}

// If it failed, UNMAP and WRITE SAME would lie, or take neighbours with them.
TEST_P(DiskTest, Discard_and_write_zeroes_read_as_zeroes_and_spare_their_neighbours) {
  const std::vector<std::byte> bytes = pattern(std::size_t{1} << 20, 6);
  for (const DiskOpKind kind : {DiskOpKind::discard, DiskOpKind::write_zeroes}) {
    write(0, bytes);
    Request request(kind, 8192, 512 * 1024);
    request.op.is_durable = true;
    const auto result = perform(request);
    const bool is_supported =
        kind == DiskOpKind::discard ? disk->geometry().supports_discard : disk->geometry().supports_write_zeroes;
    std::vector<std::byte> expected = bytes;
    if (is_supported) {
      ASSERT_TRUE(result.has_value());
      std::fill_n(expected.begin() + 8192, 512 * 1024, std::byte{});
    } else {
      ASSERT_FALSE(result.has_value());
      EXPECT_EQ(result.error(), IoError::not_supported);
    }
    EXPECT_TRUE(read(0, bytes.size()) == expected);
  }
}

// If it failed, opening a disk would change it, or the probes would leave blocks behind.
TEST_P(DiskTest, Opening_probes_without_changing_size_content_or_allocation) {
  const std::vector<std::byte> bytes = pattern(65536, 8);
  write(kFileBytes - 65536, bytes);
  Request flush(DiskOpKind::flush);
  ASSERT_TRUE(perform(flush).has_value());
  disk.reset();
  ::sync();
  const struct stat before = file.status();
  auto again = open_disk({.path = file.path(), .is_buffered = GetParam().is_buffered}, *reactor);
  ASSERT_TRUE(again.has_value()) << again.error();
  disk = std::move(*again);
  const struct stat after = file.status();
  EXPECT_EQ(before.st_size, after.st_size);
  EXPECT_EQ(before.st_blocks, after.st_blocks);
  EXPECT_TRUE(read(kFileBytes - 65536, 65536) == bytes);
  struct statfs system{};
  ASSERT_EQ(::statfs(file.path().c_str(), &system), 0);
  constexpr long kExt4 = 0xef53;
  EXPECT_TRUE(disk->geometry().supports_discard) << "ext4 and tmpfs punch holes";
  EXPECT_EQ(disk->geometry().supports_write_zeroes, system.f_type == kExt4);
}

// If it failed, a wrong address would make the file longer or report a half-filled buffer as read.
TEST_P(DiskTest, Beyond_the_end_is_an_io_error_and_never_extends_the_file) {
  BufferRef buffer = pool.acquire(8192);
  for (const DiskOpKind kind : {DiskOpKind::read, DiskOpKind::write, DiskOpKind::discard}) {
    Request request(kind, kFileBytes - 4096, 8192);
    request.op.memory = buffer.data();
    const auto result = perform(request);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error(), IoError::io);
  }
  Request overflow(DiskOpKind::read, ~std::uint64_t{0} - 4095, 8192);
  overflow.op.memory = buffer.data();
  EXPECT_FALSE(perform(overflow).has_value());
  EXPECT_EQ(file.status().st_size, static_cast<off_t>(kFileBytes));
  // The file is cut behind our back: the kernel's short transfer is an error too.
  ASSERT_EQ(::truncate(file.path().c_str(), 4096), 0);
  Request half(DiskOpKind::read, 0, 8192);
  half.op.memory = buffer.data();
  const auto result = perform(half);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error(), IoError::io);
}

// If it failed, bursts would be lost beyond the ring's size.
TEST_P(DiskTest, Ten_thousand_operations_at_once_complete_each_exactly_once) {
  const std::vector<std::byte> bytes = pattern(kFileBytes, 10);
  for (std::size_t offset = 0; offset < bytes.size(); offset += 1 << 20)
    write(offset, ConstBytes(bytes).subspan(offset, 1 << 20));
  constexpr std::size_t kBlock = 1024;
  const std::size_t length = std::max<std::size_t>(kBlock, disk->geometry().alignment_bytes);
  // Each its own memory: operations in flight have no order among them.
  std::vector<BufferRef> buffers;
  const std::size_t per_buffer = BufferPool::kBufferBytesMax / length;
  std::mt19937 random(5);
  std::deque<Request> requests;
  for (std::size_t count = 0; count < 10'000; ++count) {
    if (count % per_buffer == 0) buffers.push_back(pool.acquire(BufferPool::kBufferBytesMax));
    Request& request = requests.emplace_back(DiskOpKind::read, random() % (kFileBytes / length) * length, length);
    request.op.memory = buffers.back().data() + count % per_buffer * length;
    disk->submit(request.op);
  }
  Request flush(DiskOpKind::flush);
  disk->submit(flush.op);
  ASSERT_TRUE(turn_until(*reactor, [&] {
    return flush.result.has_value() &&
           std::ranges::all_of(requests, [](const Request& one) { return one.result.has_value(); });
  }));
  for (const Request& request : requests) {
    ASSERT_TRUE(request.result->has_value());
    ASSERT_TRUE(std::equal(request.op.memory, request.op.memory + length,
                           bytes.begin() + static_cast<std::ptrdiff_t>(request.op.offset_bytes)));
  }
}

// If it failed, the kernel would write into a buffer that was freed with the disk.
TEST_P(DiskTest, Destroying_the_disk_waits_for_what_is_in_flight_and_reports_nothing) {
  std::deque<Request> requests;
  auto* memory = static_cast<std::byte*>(::operator new(4096, std::align_val_t{4096}));
  for (int count = 0; count < 3000; ++count) {
    Request& request = requests.emplace_back(DiskOpKind::read, 0, 4096);
    request.op.memory = memory;
    disk->submit(request.op);
  }
  Request flush(DiskOpKind::flush), second(DiskOpKind::flush);
  disk->submit(flush.op);
  disk->submit(second.op);
  reactor->run_turn({});
  const auto done = std::ranges::count_if(requests, [](const Request& one) { return one.result.has_value(); });
  disk.reset();
  ::operator delete(memory, std::align_val_t{4096});
  reactor->run_turn({});
  EXPECT_EQ(std::ranges::count_if(requests, [](const Request& one) { return one.result.has_value(); }), done);
}

// If it failed, a flush could be answered by one that began before the write it must cover.
TEST_P(DiskTest, A_flush_submitted_while_another_runs_gets_a_later_one_of_its_own) {
  Request first(DiskOpKind::flush), second(DiskOpKind::flush), third(DiskOpKind::flush);
  disk->submit(first.op);
  reactor->run_turn({});
  if (first.result) GTEST_SKIP() << "the flush was too quick to overlap";
  disk->submit(second.op);
  disk->submit(third.op);
  ASSERT_TRUE(turn_until(*reactor, [&] { return first.result.has_value(); }));
  EXPECT_FALSE(second.result.has_value());
  EXPECT_FALSE(third.result.has_value());
  ASSERT_TRUE(turn_until(*reactor, [&] { return second.result && third.result; }));
}

// If it failed, lost write-back would be reported once and then denied: the kernel forgets it after the first fsync.
TEST_P(DiskTest, After_a_failed_flush_every_later_one_fails_until_the_disk_is_opened_anew) {
  disk.reset();
  while (reactor->ring().register_file(0) >= 0) {
  }
  // Without a slot in the ring's file table the plain descriptor is used, so it can be swapped here.
  auto opened = open_disk({.path = file.path(), .is_buffered = GetParam().is_buffered}, *reactor);
  ASSERT_TRUE(opened.has_value()) << opened.error();
  disk = std::move(*opened);
  const int kept = ::dup(disk->descriptor());
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ASSERT_GE(::dup2(ends[0], disk->descriptor()), 0);  // A pipe can't be synced.
  Request failing(DiskOpKind::flush), queued(DiskOpKind::flush);
  disk->submit(failing.op);
  disk->submit(queued.op);
  ASSERT_TRUE(turn_until(*reactor, [&] { return failing.result && queued.result; }));
  EXPECT_EQ(failing.result->error(), IoError::io);
  EXPECT_EQ(queued.result->error(), IoError::io);
  ASSERT_GE(::dup2(kept, disk->descriptor()), 0);
  write(0, pattern(4096, 1));
  Request later(DiskOpKind::flush);
  const auto result = perform(later);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error(), IoError::io);
  for (const int fd : {kept, ends[0], ends[1]}) ::close(fd);
  disk.reset();
  opened = open_disk({.path = file.path(), .is_buffered = GetParam().is_buffered}, *reactor);
  ASSERT_TRUE(opened.has_value()) << opened.error();
  disk = std::move(*opened);
  Request fresh(DiskOpKind::flush);
  EXPECT_TRUE(perform(fresh).has_value());
}

// If it failed, two daemons could write one disk.
TEST_P(DiskTest, A_second_opener_is_told_that_the_disk_is_in_use) {
  const auto second = open_disk({.path = file.path(), .is_buffered = GetParam().is_buffered}, *reactor);
  ASSERT_FALSE(second.has_value());
  EXPECT_TRUE(says_in_use(second.error())) << second.error();
  EXPECT_NE(second.error().find(file.path()), std::string::npos);
  disk.reset();
  EXPECT_TRUE(open_disk({.path = file.path(), .is_buffered = GetParam().is_buffered}, *reactor).has_value());
}

// If it failed, upper layers would send misaligned requests or needless bounce copies.
TEST_P(DiskTest, Geometry_is_sound) {
  const Disk::Geometry& geometry = disk->geometry();
  EXPECT_EQ(geometry.size_bytes, kFileBytes);
  EXPECT_TRUE(geometry.logical_block_bytes == 512 || geometry.logical_block_bytes == 4096);
  EXPECT_GE(geometry.physical_block_bytes, geometry.logical_block_bytes);
  if (GetParam().is_buffered) {
    EXPECT_EQ(geometry.alignment_bytes, 1u);
    const std::vector<std::byte> odd = pattern(777, 3);
    write(12345, odd);
    EXPECT_TRUE(read(12345, odd.size()) == odd);
  } else {
    EXPECT_GE(geometry.alignment_bytes, 512u);
    const std::vector<std::byte> block = pattern(geometry.alignment_bytes, 3);
    write(geometry.alignment_bytes * 3, block);
    EXPECT_TRUE(read(geometry.alignment_bytes * 3, block.size()) == block);
  }
}

// If it failed, the operator would not know which path is wrong or what to do.
TEST(OpenDisk, Failures_name_path_cause_and_remedy) {
  auto reactor = make_reactor();
  const auto sentence = [&](const std::string& path) {
    const auto opened = open_disk({.path = path}, *reactor);
    EXPECT_FALSE(opened.has_value());
    return opened ? std::string() : opened.error();
  };
  EXPECT_EQ(sentence("/nonexistent/disk"),
            "disk /nonexistent/disk: no such file or device; create it or correct the path in the configuration");
  EXPECT_EQ(sentence("/dev/null"),
            "disk /dev/null: is neither a regular file nor a block device; correct the path in the configuration");
  EXPECT_EQ(sentence("/proc"),
            "disk /proc: is neither a regular file nor a block device; correct the path in the configuration");
  const TempFile empty("/var/tmp", 0);
  EXPECT_EQ(sentence(empty.path()),
            "disk " + empty.path() + ": has no room for a single block; give it a size (truncate -s 10G)");
  // A file system without O_DIRECT.
  const std::string refused = describe_disk_failure({.path = "/x", .error_number = EINVAL, .is_direct = true});
  EXPECT_NE(refused.find("io_mode: buffered"), std::string::npos) << refused;
}

// If it failed, a size that is no multiple of a block would show a last block that can't be written.
TEST(OpenDisk, An_odd_size_is_rounded_down_to_whole_blocks) {
  auto reactor = make_reactor();
  const TempFile odd("/var/tmp", 1'000'000);
  auto opened = open_disk({.path = odd.path(), .is_buffered = true}, *reactor);
  ASSERT_TRUE(opened.has_value()) << opened.error();
  EXPECT_EQ((*opened)->geometry().size_bytes, 999'936u);
}

}  // namespace
}  // namespace replblk::runtime
