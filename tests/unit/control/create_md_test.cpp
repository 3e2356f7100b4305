#include "control/create_md.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "control/volume_identity.hpp"

namespace replblk::control {
namespace {

constexpr std::uintmax_t kFileBytes = 8 << 20;

class CreateMd : public ::testing::Test {
 protected:
  void SetUp() override {
    // Not in memory: O_DIRECT.
    std::string pattern = std::filesystem::current_path() / "replblk-create-md-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string make_file(const std::string& name, std::uintmax_t size_bytes = kFileBytes) const {
    const std::string path = directory_ / name;
    std::ofstream{path};
    std::filesystem::resize_file(path, size_bytes);
    return path;
  }
  /// A pair; this is the first node, whose disks are `paths`.
  static node::ClusterConfig pair(const std::vector<std::string>& paths) {
    node::ClusterConfig config;
    config.name = "store1";
    config.nodes = {{"alpha", "127.0.0.1"}, {"beta", "127.0.0.2"}};
    config.secret = "0123456789abcdef";
    config.resources.resize(1);
    config.resources[0].name = "data";
    config.resources[0].target.iqn = "iqn.2026-11.org.example:data";
    for (const std::string& path : paths) {
      node::VolumeConfig volume;
      volume.lun = static_cast<std::uint16_t>(config.resources[0].volumes.size() + 10);
      volume.disks[0].path = path;
      volume.disks[0].io_mode = node::IoMode::buffered;
      config.resources[0].volumes.push_back(volume);
    }
    return config;
  }
  static std::string read(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  std::filesystem::path directory_;
};

TEST_F(CreateMd, Blank_file_becomes_a_volume_and_its_size_and_identity_are_told) {
  const node::ClusterConfig config = pair({make_file("a")});
  const CreateMdReport report = create_metadata(config, {});
  ASSERT_EQ(report.outcome, CreateMdOutcome::done) << (report.problems.empty() ? "" : report.problems[0]);
  ASSERT_EQ(report.made.size(), 1u);
  EXPECT_TRUE(report.made[0].starts_with("data volume 0 on " + (directory_ / "a").string() + ": ")) << report.made[0];
  EXPECT_NE(report.made[0].find(to_string(derive_volume_uuid(config, config.resources[0], 10))), std::string::npos)
      << report.made[0];
  EXPECT_NE(report.made[0].find(" of 8388608 bytes ("), std::string::npos) << report.made[0];
}

// Only where the set of extents in work would change all the time.
TEST_F(CreateMd, Large_sparse_file_with_its_metadata_inside_is_advised_of_what_that_costs) {
  node::ClusterConfig config = pair({make_file("large", std::uintmax_t{20} << 30)});
  const auto advice = [&] {
    const CreateMdReport report =
        create_metadata(config, {.resource = "", .is_forced = true, .volume_uuid = {}, .size_bytes = 0});
    EXPECT_EQ(report.outcome, CreateMdOutcome::done);
    return report.made.size() == 2 ? report.made[1] : std::string();
  };
  // Superblocks 128 KiB, log 1 MiB, 163 pages of bits for 20 GiB.
  EXPECT_NE(advice().find("metadata_path (a file of its own, 1847296 bytes or more)"), std::string::npos) << advice();
  config.resources[0].activity_log.extents = 6000;
  EXPECT_EQ(advice(), "");
  config.resources[0].activity_log = {.extents = 4096, .updates = false};
  EXPECT_EQ(advice(), "");
  config.resources[0].activity_log = {};
  config.resources[0].volumes[0].disks[0].metadata_path = make_file("metadata");
  EXPECT_EQ(advice(), "");
}

// So that a larger disk can take the place of the one that failed.
TEST_F(CreateMd, Given_size_is_what_initiators_get) {
  const CreateMdReport report = create_metadata(
      pair({make_file("a")}), {.resource = "", .is_forced = false, .volume_uuid = {}, .size_bytes = 1u << 20});
  ASSERT_EQ(report.outcome, CreateMdOutcome::done) << (report.problems.empty() ? "" : report.problems[0]);
  EXPECT_NE(report.made[0].find(": 1048576 of 8388608 bytes ("), std::string::npos) << report.made[0];
  const auto refused = [&](std::uint64_t size_bytes, const char* word, std::vector<std::string> files) {
    const CreateMdReport bad = create_metadata(
        pair(std::move(files)), {.resource = "", .is_forced = false, .volume_uuid = {}, .size_bytes = size_bytes});
    EXPECT_NE(bad.outcome, CreateMdOutcome::done);
    ASSERT_FALSE(bad.problems.empty());
    EXPECT_NE(bad.problems[0].find(word), std::string::npos) << bad.problems[0];
  };
  refused(1000, "not a multiple of 4096", {make_file("b")});
  refused(8u << 20, "too few for data and metadata for a volume of 8388608 bytes", {make_file("c")});
  refused(1u << 20, "--size is of one volume", {make_file("d"), make_file("e")});
}

// The most expensive mistake there is: the wrong device name.
TEST_F(CreateMd, File_system_is_named_and_left_alone_until_forced) {
  const std::string path = make_file("ext4");
  ASSERT_EQ(std::system(("PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q " + path).c_str()), 0);
  const std::string other = make_file("other");
  const std::string before = read(path);
  const node::ClusterConfig config = pair({other, path});
  const CreateMdReport refused = create_metadata(config, {});
  EXPECT_EQ(refused.outcome, CreateMdOutcome::refused);
  ASSERT_EQ(refused.problems.size(), 1u);
  EXPECT_EQ(
      refused.problems[0],
      path + " holds something else: ext4 at byte 1080; nothing was written; --force makes metadata all the same");
  EXPECT_TRUE(refused.made.empty());
  EXPECT_EQ(read(path), before);
  EXPECT_EQ(read(other), std::string(kFileBytes, '\0'));

  const CreateMdReport forced = create_metadata(config, {.resource = "data", .is_forced = true, .volume_uuid = {}});
  EXPECT_EQ(forced.outcome, CreateMdOutcome::done);
  EXPECT_EQ(forced.made.size(), 2u);
}

// Its data would silently count as empty and be overwritten by the peer's.
TEST_F(CreateMd, Volume_of_ours_is_left_alone_until_forced) {
  const std::string path = make_file("a");
  const node::ClusterConfig config = pair({path});
  ASSERT_EQ(create_metadata(config, {}).outcome, CreateMdOutcome::done);
  const std::string before = read(path);
  const CreateMdReport refused = create_metadata(config, {});
  EXPECT_EQ(refused.outcome, CreateMdOutcome::refused);
  ASSERT_EQ(refused.problems.size(), 1u);
  EXPECT_EQ(refused.problems[0], "data volume 0 on " + path + " holds a replblk volume already, " +
                                     to_string(derive_volume_uuid(config, config.resources[0], 10)) +
                                     "; nothing was written; --force makes metadata all the same");
  EXPECT_EQ(read(path), before);
  // Also when it belongs to another resource.
  node::ClusterConfig renamed = config;
  renamed.resources[0].name = "other";
  EXPECT_EQ(create_metadata(renamed, {}).outcome, CreateMdOutcome::refused);
  EXPECT_EQ(create_metadata(config, {.resource = "", .is_forced = true, .volume_uuid = {}}).outcome,
            CreateMdOutcome::done);
}

TEST_F(CreateMd, External_metadata_leaves_the_whole_device_to_the_data) {
  node::ClusterConfig config = pair({make_file("a")});
  config.resources[0].volumes[0].disks[0].metadata_path = make_file("m");
  const CreateMdReport report = create_metadata(config, {});
  ASSERT_EQ(report.outcome, CreateMdOutcome::done) << (report.problems.empty() ? "" : report.problems[0]);
  EXPECT_NE(report.made[0].find(": 8388608 of 8388608 bytes (8.0 MiB) for initiators, metadata on " +
                                (directory_ / "m").string()),
            std::string::npos)
      << report.made[0];
  EXPECT_EQ(create_metadata(config, {}).outcome, CreateMdOutcome::refused);
}

TEST_F(CreateMd, What_cannot_be_opened_or_is_too_small_fails_with_a_sentence) {
  const CreateMdReport missing = create_metadata(pair({directory_ / "none"}), {});
  EXPECT_EQ(missing.outcome, CreateMdOutcome::failed);
  ASSERT_EQ(missing.problems.size(), 1u);
  EXPECT_NE(missing.problems[0].find((directory_ / "none").string()), std::string::npos);
  const CreateMdReport small = create_metadata(pair({make_file("small", 4096)}), {});
  EXPECT_EQ(small.outcome, CreateMdOutcome::failed);
  EXPECT_EQ(small.problems.size(), 1u);
  EXPECT_TRUE(small.made.empty());
}

TEST_F(CreateMd, Given_identity_is_for_one_volume) {
  const Uuid uuid = *parse_uuid("01234567-89ab-cdef-0123-456789abcdef");
  const CreateMdReport one =
      create_metadata(pair({make_file("a")}), {.resource = "", .is_forced = false, .volume_uuid = uuid});
  ASSERT_EQ(one.made.size(), 1u);
  EXPECT_TRUE(one.made[0].ends_with("identity 01234567-89ab-cdef-0123-456789abcdef"));
  const CreateMdReport two =
      create_metadata(pair({make_file("b"), make_file("c")}), {.resource = "", .is_forced = true, .volume_uuid = uuid});
  EXPECT_EQ(two.outcome, CreateMdOutcome::refused);
}

// Initiators see one disk only when both nodes choose one identity, and two disks only when everything else gets
// another.
TEST(VolumeIdentity, Both_nodes_derive_the_same_and_every_part_counts) {
  node::ClusterConfig config;
  config.name = "store1";
  config.secret = "0123456789abcdef";
  config.resources.resize(1);
  node::ResourceConfig& resource = config.resources[0];
  resource.name = "data";
  resource.target.iqn = "iqn.2026-11.org.example:data";
  const Uuid first = derive_volume_uuid(config, resource, 0);
  config.self = 1;
  EXPECT_EQ(derive_volume_uuid(config, resource, 0), first);
  // Fixed for ever: another rule would give existing initiators another disk after a new create-md on one node.
  EXPECT_EQ(to_string(first), "cfcd01d5-ca4a-8d2d-87ce-af00eb796551");
  EXPECT_NE(derive_volume_uuid(config, resource, 1), first);
  for (std::string* part : {&config.name, &config.secret, &resource.name, &resource.target.iqn}) {
    const std::string former = *part;
    *part += "x";
    EXPECT_NE(derive_volume_uuid(config, resource, 0), first);
    *part = former;
  }
  EXPECT_NE(random_volume_uuid(), random_volume_uuid());
}

}  // namespace
}  // namespace replblk::control
