// Collects what is wrong in a node.conf: one sentence per error with its place, and gives them in the file's order.
// Knows nothing of the rules. Used by ConfigText and ConfigChecker.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace replblk::node {

/// Counted from 1. A tab reaches to the next multiple of 8.
struct TextPlace {
  int line = 1;
  int column = 1;
};

class ConfigReport {
 public:
  explicit ConfigReport(std::string file) : file_(std::move(file)) {}

  /// "FILE:LINE:COLUMN: sentence"
  void add(TextPlace place, std::string_view sentence);
  [[nodiscard]] bool is_empty() const noexcept { return entries_.empty(); }
  [[nodiscard]] std::vector<std::string> sentences() const;

 private:
  struct Entry {
    TextPlace place;
    std::string sentence;
  };
  std::string file_;
  std::vector<Entry> entries_;
};

/// The key whose value stands at `place` ("lun" for the 7 of "lun: 7"); empty when none is found there.
[[nodiscard]] std::string key_before(std::string_view text, TextPlace place);

/// Where the last `word` before `place` begins; `place` when there is none. (The parser notices an unknown key behind
/// it.)
[[nodiscard]] TextPlace place_of_word_before(std::string_view text, TextPlace place, std::string_view word);

/// `text` in quotes for a message, shortened, with control characters made visible.
[[nodiscard]] std::string in_quotes(std::string_view text);

}  // namespace replblk::node
