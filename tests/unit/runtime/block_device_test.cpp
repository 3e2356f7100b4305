// Block devices: a loop device over a sparse file, made and removed here. Skipped without the right to make one.
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "disk_request.hpp"
#include "runtime/disk_file.hpp"
#include "runtime/signature_probe.hpp"
#include "runtime/start_error.hpp"
#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

using ports::Disk;
using ports::DiskOpKind;
using ports::IoError;
using test::make_reactor;
using test::pattern;
using test::Request;
using test::turn_until;

class LoopDevice {
 public:
  explicit LoopDevice(std::uint32_t block_bytes) {
    const int file = ::mkstemp(file_.data());
    if (::ftruncate(file, 16 << 20) != 0) return;
    const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    // Somebody else may take the free one first.
    for (int attempt = 0; control >= 0 && attempt < 5 && fd_ < 0; ++attempt) {
      path_ = "/dev/loop" + std::to_string(::ioctl(control, LOOP_CTL_GET_FREE));
      const int device = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
      if (device < 0) continue;
      loop_config config{};
      config.fd = static_cast<std::uint32_t>(file);
      config.block_size = block_bytes;
      if (::ioctl(device, LOOP_CONFIGURE, &config) == 0) {
        fd_ = device;
      } else {
        ::close(device);
      }
    }
    if (control >= 0) ::close(control);
    ::close(file);
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  ~LoopDevice() {
    if (fd_ >= 0) {
      ::ioctl(fd_, LOOP_CLR_FD);
      ::close(fd_);
    }
    ::unlink(file_.c_str());
  }
  [[nodiscard]] bool is_made() const { return fd_ >= 0; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string file_ = "/var/tmp/replblk-loop-test-XXXXXX";
  std::string path_;
  int fd_ = -1;
};

class BlockDeviceTest : public testing::TestWithParam<std::uint32_t> {
 protected:
  void SetUp() override {
    if (!loop.is_made()) GTEST_SKIP() << "no loop device may be made here";
    auto opened = open_disk({.path = loop.path()}, *reactor);
    ASSERT_TRUE(opened.has_value()) << opened.error();
    disk = std::move(*opened);
  }
  Result<void, IoError> perform(Request& request) {
    disk->submit(request.op);
    EXPECT_TRUE(turn_until(*reactor, [&] { return request.result.has_value(); }));
    return *request.result;
  }

  LoopDevice loop{GetParam()};
  BufferPool pool{std::size_t{8} << 20};
  std::unique_ptr<Reactor> reactor = make_reactor({.ring = {}, .buffers = &pool});
  std::unique_ptr<DiskFile> disk;
};

INSTANTIATE_TEST_SUITE_P(Blocks, BlockDeviceTest, testing::Values(512u, 4096u),
                         [](const auto& information) { return "of_" + std::to_string(information.param); });

// If it failed, READ CAPACITY and the alignment of all I/O would be wrong on such a disk.
TEST_P(BlockDeviceTest, Geometry_is_the_devices_own) {
  const Disk::Geometry& geometry = disk->geometry();
  EXPECT_EQ(geometry.size_bytes, std::uint64_t{16} << 20);
  EXPECT_EQ(geometry.logical_block_bytes, GetParam());
  EXPECT_EQ(geometry.alignment_bytes, GetParam());
  EXPECT_GE(geometry.physical_block_bytes, GetParam());
}

// If it failed, two daemons, or a mount, could share the device with us.
TEST_P(BlockDeviceTest, A_claimed_device_is_said_to_be_in_use_but_may_be_probed) {
  const auto second = open_disk({.path = loop.path()}, *reactor);
  ASSERT_FALSE(second.has_value());
  EXPECT_TRUE(says_in_use(second.error())) << second.error();
  EXPECT_TRUE(probe_signatures(loop.path()).has_value());
  disk.reset();
  EXPECT_TRUE(open_disk({.path = loop.path()}, *reactor).has_value());
}

// If it failed, discard or zeroing would leave old data readable or hit its neighbours.
TEST_P(BlockDeviceTest, Writes_discards_and_zeroes_are_read_back) {
  constexpr std::size_t kBytes = 1 << 20;
  const std::vector<std::byte> bytes = pattern(kBytes, 3);
  BufferRef buffer = pool.acquire(kBytes);
  for (const DiskOpKind kind : {DiskOpKind::discard, DiskOpKind::write_zeroes}) {
    std::ranges::copy(bytes, buffer.data());
    Request write(DiskOpKind::write, 1 << 20, kBytes);
    write.op.memory = buffer.data();
    write.op.is_durable = true;
    ASSERT_TRUE(perform(write).has_value());
    Request zero(kind, (1 << 20) + 8192, kBytes / 2);
    zero.op.is_durable = true;
    const auto result = perform(zero);
    std::vector<std::byte> expected = bytes;
    if (result) {
      std::fill_n(expected.begin() + 8192, kBytes / 2, std::byte{});
    } else {
      EXPECT_EQ(result.error(), IoError::not_supported);
      EXPECT_EQ(kind, DiskOpKind::discard) << "the block layer writes zeroes itself if need be";
    }
    Request read(DiskOpKind::read, 1 << 20, kBytes);
    read.op.memory = buffer.data();
    ASSERT_TRUE(perform(read).has_value());
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), buffer.data()));
  }
  Request flush(DiskOpKind::flush);
  EXPECT_TRUE(perform(flush).has_value());
}

}  // namespace
}  // namespace replblk::runtime
