#include "node/config_file.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>
#include <variant>

#include "node/config_checker.hpp"
#include "node/config_report.hpp"
#include "node/config_text.hpp"

namespace replblk::node {

namespace {

constexpr std::size_t kFileBytesMax = std::size_t{1} << 20;

}  // namespace

Result<ClusterConfig, std::vector<std::string>> parse_config(std::string_view text, const LoadOptions& options) {
  ConfigReport report(options.path);
  const ConfigText parsed(text, report);
  if (!parsed.is_parsed()) return fail(report.sentences());
  const ConfigSection root = parsed.root();
  ClusterConfig config = ConfigChecker(options, root).run();
  if (!report.is_empty()) return fail(report.sentences());
  return config;
}

Result<ClusterConfig, std::vector<std::string>> load_config(const LoadOptions& options) {
  const auto refuse = [&](std::string_view sentence) {
    return fail(std::vector<std::string>{fmt::format("{}: {}", options.path, sentence)});
  };
  std::error_code error;
  if (std::filesystem::is_directory(options.path, error)) return refuse("is a directory, not a configuration file");
  if (!std::filesystem::exists(options.path, error)) {
    return refuse(
        error ? fmt::format("cannot be examined: {}", error.message())
              : "does not exist; write it (an example is in docs/node.conf.example) or name another with --config");
  }
  std::ifstream stream(options.path, std::ios::binary);
  if (!stream) return refuse("cannot be opened: permission denied?");
  std::string text(kFileBytesMax + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) return refuse("cannot be read");
  text.resize(static_cast<std::size_t>(stream.gcount()));
  if (text.size() > kFileBytesMax) return refuse("is larger than 1 MiB, which is no configuration");
  return parse_config(text, options);
}

}  // namespace replblk::node
