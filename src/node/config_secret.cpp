#include "node/config_secret.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <system_error>

namespace replblk::node {

namespace {

constexpr std::string_view kMustBeReadable = "the daemon must be able to read it";

}  // namespace

Result<std::string, FileRefusal> read_secret_file(const std::string& path, const SecretFileRule& rule) {
  const auto refuse = [](std::string verdict, std::string reason) {
    return fail(FileRefusal{std::move(verdict), std::move(reason)});
  };
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) return refuse("does not exist", rule.how_to_make);
  if (error) return refuse(fmt::format("cannot be examined: {}", error.message()), std::string(kMustBeReadable));
  if (status.type() != std::filesystem::file_type::regular)
    return refuse("is not a file", fmt::format("a file with {}", rule.content));
  if ((status.permissions() & std::filesystem::perms::others_all) != std::filesystem::perms::none)
    return refuse("can be accessed by everybody", fmt::format("chmod 600 {}", path));
  std::ifstream stream(path, std::ios::binary);
  std::string secret(rule.bytes_max + 3, '\0');  // room for a line end, and one byte more to notice a longer file
  stream.read(secret.data(), static_cast<std::streamsize>(secret.size()));
  if (!stream.eof() && !stream.good()) return refuse("cannot be read", std::string(kMustBeReadable));
  secret.resize(static_cast<std::size_t>(stream.gcount()));
  secret.erase(secret.find_last_not_of(" \t\r\n") + 1);
  if (secret.size() < rule.bytes_min || secret.size() > rule.bytes_max) {
    const bool is_long = secret.size() > rule.bytes_max;
    return refuse(
        fmt::format("holds {} {} bytes", is_long ? "more than" : "only", is_long ? rule.bytes_max : secret.size()),
        fmt::format("{} has {} to {} bytes", rule.content, rule.bytes_min, rule.bytes_max));
  }
  return secret;
}

Result<void, FileRefusal> check_readable_file(const std::string& path, std::string_view content) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    return fail(FileRefusal{error ? fmt::format("cannot be used: {}", error.message()) : "is not a file",
                            fmt::format("a file with {}", content)});
  if (!std::ifstream(path, std::ios::binary)) return fail(FileRefusal{"cannot be read", std::string(kMustBeReadable)});
  return {};
}

}  // namespace replblk::node
