// A disk that stops answering: a file system of this test's own, on a loop device, is frozen and thawed again. Needs
// root and loop devices, else it is skipped. A program of its own, since it leaves the mount namespace of the others.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "disk_request.hpp"
#include "runtime/disk_file.hpp"
#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

using ports::DiskOpKind;
using ports::IoError;
using test::make_reactor;
using test::Request;
using test::turn_for;
using test::turn_until;

class HungDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/var/tmp/replblk-hung-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    mount_point_ = directory_ + "/mount";
    const std::string image = directory_ + "/image";
    std::filesystem::create_directory(mount_point_);
    std::ofstream(image).put('\0');
    std::filesystem::resize_file(image, 64 << 20);
    const bool is_made = ::geteuid() == 0 && ::unshare(CLONE_NEWNS) == 0 &&
                         ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                         std::system(("mkfs.ext4 -q -F " + image).c_str()) == 0 &&
                         std::system(("mount -o loop " + image + " " + mount_point_).c_str()) == 0;
    if (!is_made) GTEST_SKIP() << "needs root and loop devices";
    is_mounted_ = true;
    std::ofstream(mount_point_ + "/disk").put('\0');
    std::filesystem::resize_file(mount_point_ + "/disk", 8 << 20);
    auto opened = open_disk({.path = mount_point_ + "/disk", .timeout = milliseconds(300)}, *reactor);
    ASSERT_TRUE(opened.has_value()) << opened.error();
    disk = std::move(*opened);
  }
  void TearDown() override {
    thaw();
    disk.reset();
    if (is_mounted_) static_cast<void>(std::system(("umount " + mount_point_).c_str()));
    std::filesystem::remove_all(directory_);
  }
  void freeze() {
    ASSERT_EQ(std::system(("fsfreeze -f " + mount_point_).c_str()), 0);
    is_frozen_ = true;
  }
  void thaw() {
    if (std::exchange(is_frozen_, false)) static_cast<void>(std::system(("fsfreeze -u " + mount_point_).c_str()));
  }
  Request& write(std::uint64_t offset) {
    Request& request = requests.emplace_back(DiskOpKind::write, offset, 4096u);
    request.op.memory = memory.data() + offset;
    disk->submit(request.op);
    return request;
  }

  BufferPool pool{std::size_t{32} << 20};
  std::unique_ptr<Reactor> reactor = make_reactor({.ring = {}, .buffers = &pool});
  BufferRef memory = pool.acquire(1 << 20);
  std::deque<Request> requests;
  std::unique_ptr<DiskFile> disk;

 private:
  std::string directory_;
  std::string mount_point_;
  bool is_mounted_ = false;
  bool is_frozen_ = false;
};

// Initiators would wait until the device comes back, which is never.
TEST_F(HungDiskTest, What_does_not_come_back_is_given_up_and_its_late_end_is_nobodys) {
  Request& before = write(0);
  ASSERT_TRUE(turn_until(*reactor, [&] { return before.result.has_value(); }));
  ASSERT_TRUE(before.result->has_value());
  freeze();
  const Instant began = reactor->now();
  Request& first = write(8192);
  Request& second = write(16384);
  ASSERT_TRUE(turn_until(*reactor, [&] { return first.result.has_value() && second.result.has_value(); }));
  for (const Request* request : {&first, &second}) {
    ASSERT_FALSE(request->result->has_value());
    EXPECT_EQ(request->result->error(), IoError::timed_out);
  }
  EXPECT_GE(reactor->now() - began, milliseconds(300));
  EXPECT_LT(reactor->now() - began, seconds(2));
  EXPECT_EQ(disk->unreturned_count(), 2u);
  // What comes now would only wait behind them.
  const Instant asked = reactor->now();
  Request& meanwhile = write(24576);
  Request flush(DiskOpKind::flush);
  disk->submit(flush.op);
  ASSERT_TRUE(turn_until(*reactor, [&] { return meanwhile.result.has_value() && flush.result.has_value(); }));
  for (const Request* request : {&meanwhile, &flush}) {
    ASSERT_FALSE(request->result->has_value());
    EXPECT_EQ(request->result->error(), IoError::timed_out);
  }
  EXPECT_LT(reactor->now() - asked, milliseconds(200));
  thaw();
  // The late ends are not reported a second time (Request asserts it), and the disk goes on.
  ASSERT_TRUE(turn_until(*reactor, [&] { return disk->unreturned_count() == 0; }));
  Request& after = write(32768);
  ASSERT_TRUE(turn_until(*reactor, [&] { return after.result.has_value(); }));
  EXPECT_TRUE(after.result->has_value());
}

// Broken if a daemon that was stopped, or whose machine was paused, gave up a disk that is well: the kernel's threads
// that work for the process had stood still with it.
TEST_F(HungDiskTest, Time_in_which_the_process_stood_still_does_not_count) {
  freeze();
  Request& request = write(0);
  turn_for(*reactor, milliseconds(50));
  std::this_thread::sleep_for(milliseconds(600));
  turn_for(*reactor, milliseconds(100));
  EXPECT_FALSE(request.result.has_value());
  thaw();
  ASSERT_TRUE(turn_until(*reactor, [&] { return request.result.has_value(); }));
  EXPECT_TRUE(request.result->has_value());
}

}  // namespace
}  // namespace replblk::runtime
