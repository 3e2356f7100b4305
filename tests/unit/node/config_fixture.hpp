// A temporary directory, a node.conf of a pair that is accepted, and what is said of one that is not.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "node/config_file.hpp"

namespace replblk::node {

/// A pair with everything that must be given. Each line is a line of the messages below.
inline constexpr std::string_view kPair = R"(cluster {
  name: "store1"
  node { name: "alpha" address: "192.0.2.1" }
  node { name: "beta" address: "192.0.2.2" }
  secret_file: "SECRET"
  arbiter { none {} }
}
resource {
  name: "data"
  target { iqn: "iqn.2026-11.org.example:data" }
  volume {
    lun: 0
    disk { on: "alpha" path: "/dev/vdb" }
    disk { on: "beta" path: "/dev/vdb" }
  }
}
)";

class ConfigFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "replblk-config-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    write("secret", "0123456789abcdef0123456789abcdef\n");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string write(std::string_view name, std::string_view content, mode_t mode = 0600) const {
    const std::string path = directory_ / name;
    std::ofstream(path, std::ios::binary) << content;
    ::chmod(path.c_str(), mode);
    return path;
  }
  /// kPair after `from` became `to` (every occurrence), with the real secret's path.
  [[nodiscard]] std::string pair_with(std::string_view from = "", std::string_view to = "") const {
    std::string text(kPair);
    replace(text, from, to);
    if (text.find("SECRET") != text.npos) replace(text, "SECRET", (directory_ / "secret").string());
    return text;
  }
  static void replace(std::string& text, std::string_view from, std::string_view to) {
    if (from.empty()) return;
    std::size_t at = text.find(from);
    EXPECT_NE(at, text.npos) << from;
    while (at != text.npos) {
      text.replace(at, from.size(), to);
      at = text.find(from, at + to.size());
    }
  }
  [[nodiscard]] Result<ClusterConfig, std::vector<std::string>> parse(const std::string& text,
                                                                      std::string_view node = "alpha",
                                                                      std::string_view host = "") const {
    return parse_config(text, {.path = "node.conf", .node_name = std::string(node), .host_name = std::string(host)});
  }
  /// All complaints, one a line; the temporary directory is called DIR.
  [[nodiscard]] std::string complaints(const std::string& text, std::string_view node = "alpha",
                                       std::string_view host = "") const {
    const auto result = parse(text, node, host);
    if (result) return "accepted";
    std::string all;
    for (const std::string& sentence : result.error()) all += (all.empty() ? "" : "\n") + sentence;
    if (all.find(directory_.string()) != all.npos) replace(all, directory_.string(), "DIR");
    return all;
  }

  std::filesystem::path directory_;
};

}  // namespace replblk::node
