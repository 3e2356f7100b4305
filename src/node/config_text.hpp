// node.conf as parsed text: its sections with the places they stand at, whatever the keys mean. The only unit that
// knows protobuf: the checks see keys and values. Used by config_file and ConfigChecker. A key that the schema does not
// have is a bug of the caller (asserted); one that the file does not have is absent, or has the schema's default.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/time.hpp"
#include "node/config_report.hpp"

namespace replblk::node {

class ConfigText;
/// A parsed message with its places (config_text.cpp).
struct ConfigMessage;

/// One message of the file: its values, the places they stand at, and the key that leads there. Lives in a ConfigText.
class ConfigSection {
 public:
  /// The message under `name`, which is present. `index` only for repeated ones.
  [[nodiscard]] ConfigSection child(const char* name, int index = -1) const;
  [[nodiscard]] std::string key(const char* name, int index = -1) const;

  /// Adds "KEY: <verdict>; <rule>" to the report.
  void complain(const char* name, int index, std::string_view verdict, std::string_view rule) const;
  void complain(const char* name, std::string_view verdict, std::string_view rule) const {
    complain(name, -1, verdict, rule);
  }
  void missing(const char* name, std::string_view rule) const;

  [[nodiscard]] bool has(const char* name) const;
  [[nodiscard]] int count(const char* name) const;  ///< of a repeated one
  [[nodiscard]] bool flag(const char* name) const;
  [[nodiscard]] std::string word(const char* name) const;  ///< one of a list
  [[nodiscard]] std::string text(const char* name) const;
  [[nodiscard]] std::string text(const char* name, int index) const;
  [[nodiscard]] std::uint32_t number(const char* name) const;
  /// The number under `name` when it is in range; complains otherwise.
  [[nodiscard]] std::uint32_t number(const char* name, std::uint32_t minimum, std::uint32_t maximum) const;
  /// Likewise a number with a fraction.
  [[nodiscard]] double fraction(const char* name, double minimum, double maximum) const;
  [[nodiscard]] Duration milliseconds_of(const char* name, std::uint32_t minimum, std::uint32_t maximum) const {
    return milliseconds(number(name, minimum, maximum));
  }

 private:
  friend class ConfigText;
  ConfigSection(ConfigReport& report, const ConfigMessage& message, std::string key, TextPlace place)
      : report_(&report), message_(&message), key_(std::move(key)), place_(place) {}
  /// Where the key stands; the section itself for one that is not there.
  [[nodiscard]] TextPlace place(const char* name, int index) const;

  ConfigReport* report_;
  const ConfigMessage* message_;
  std::string key_;
  TextPlace place_;
};

class ConfigText {
 public:
  /// What is no text format, or not of the schema, is added to `report`, which outlives this.
  ConfigText(std::string_view text, ConfigReport& report);
  ~ConfigText();
  /// False: the text cannot be read any further. Unknown keys alone leave it true.
  [[nodiscard]] bool is_parsed() const noexcept;
  [[nodiscard]] ConfigSection root() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace replblk::node
