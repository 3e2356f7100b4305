// Files that node.conf names and that hold a secret: read whole, and refused when others may read them too. Used by
// ConfigChecker only.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace replblk::node {

struct SecretFileRule {
  std::string_view content;  ///< "a secret": what is in it, for the sentences
  std::string how_to_make;
  std::size_t bytes_min = 1;
  std::size_t bytes_max = 4096;
};

/// "<path> <verdict>; <rule>"
struct FileRefusal {
  std::string verdict;
  std::string rule;
};

/// What is in the file, without white space at its end.
[[nodiscard]] Result<std::string, FileRefusal> read_secret_file(const std::string& path, const SecretFileRule& rule);

/// Whether the file is there and can be read by this process.
[[nodiscard]] Result<void, FileRefusal> check_readable_file(const std::string& path, std::string_view content);

}  // namespace replblk::node
