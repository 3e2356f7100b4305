#include "runtime/undo_files.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "disk_request.hpp"
#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

using ports::DiskOpKind;
using test::make_reactor;
using test::Request;
using test::turn_until;

class UndoFilesTest : public testing::Test {
 protected:
  UndoFilesTest() {
    std::string name = testing::TempDir() + "/replblk-undo-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    directory = name;
  }
  ~UndoFilesTest() override { std::filesystem::remove_all(directory); }
  void perform(ports::Disk& disk, Request& request) {
    disk.submit(request.op);
    ASSERT_TRUE(turn_until(*reactor, [&] { return request.result.has_value(); }));
    ASSERT_TRUE(request.result->has_value());
  }

  std::filesystem::path directory;
  std::unique_ptr<Reactor> reactor = make_reactor();
  SparseUndoFiles files{*reactor};
};

// The file is for a person who wants his data back: it must be there, whole, and nobody else's to read.
TEST_F(UndoFilesTest, Kept_file_is_sparse_private_and_under_its_name_only_when_it_is_kept) {
  const std::string path = directory / "data-0.img";
  auto file = files.create(path, 64 << 20);
  ASSERT_TRUE(file.has_value()) << file.error();
  EXPECT_EQ((*file)->disk().geometry().size_bytes, 64u << 20);
  std::vector<std::byte> bytes(8192, std::byte{0x7e});
  Request write(DiskOpKind::write, 40 << 20, bytes.size());
  write.op.memory = bytes.data();
  perform((*file)->disk(), write);
  Request flush(DiskOpKind::flush);
  perform((*file)->disk(), flush);
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE((*file)->keep().has_value());
  file->reset();
  struct stat status{};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(status.st_size, 64 << 20);
  EXPECT_LT(status.st_blocks * 512, 1 << 20);
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
  std::ifstream read(path, std::ios::binary);
  read.seekg(40 << 20);
  std::string found(8192, '\0');
  read.read(found.data(), 8192);
  EXPECT_EQ(found, std::string(8192, '\x7e'));
}

TEST_F(UndoFilesTest, What_is_not_kept_is_gone_and_what_a_killed_daemon_left_is_begun_anew) {
  const std::string path = directory / "data-0.img";
  std::ofstream(path + ".partial") << std::string(100'000, 'x');
  auto file = files.create(path, 1 << 20);
  ASSERT_TRUE(file.has_value()) << file.error();
  EXPECT_EQ(std::filesystem::file_size(path + ".partial"), 1u << 20);
  file->reset();
  EXPECT_TRUE(std::filesystem::is_empty(directory));
}

TEST_F(UndoFilesTest, What_cannot_be_made_says_why) {
  const auto file = files.create(directory / "missing" / "data-0.img", 1 << 20);
  ASSERT_FALSE(file.has_value());
  EXPECT_NE(file.error().find("missing/data-0.img.partial: No such file or directory"), std::string::npos)
      << file.error();
}

}  // namespace
}  // namespace replblk::runtime
