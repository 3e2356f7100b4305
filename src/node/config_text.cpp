#include "node/config_text.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <deque>
#include <utility>
#include <vector>

#include "base/assert.hpp"
#include "config.pb.h"

namespace replblk::node {

namespace pb = google::protobuf;
using Tree = pb::TextFormat::ParseInfoTree;

struct ConfigMessage {
  const pb::Message& message;
  const Tree* tree;
  std::deque<ConfigMessage>& all;  ///< where children are kept

  [[nodiscard]] const pb::FieldDescriptor* find(const char* name) const {
    const pb::FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
    RB_ASSERT(field != nullptr);
    return field;
  }
  [[nodiscard]] const pb::Reflection& reflection() const { return *message.GetReflection(); }
};

namespace {

/// Turns the parser's words into ours. It stops at the first error of syntax; unknown keys it reports as warnings and
/// goes on, so that all of them are named.
class ParserMessages final : public pb::io::ErrorCollector {
 public:
  ParserMessages(ConfigReport& report, std::string_view text) : report_(report), text_(text) {}

  void AddError(int line, pb::io::ColumnNumber column, const std::string& message) override {
    TextPlace place{line < 0 ? 1 : line + 1, column + 1};
    std::string key = key_before(text_, place);
    // Unknown enumeration value of "odirect" for field "io_mode". Some of these come after the value.
    const std::vector<std::string> names = quoted_parts(message);
    if (const std::size_t at = message.find("field \""); at != message.npos && !names.empty()) {
      key = message.compare(at + 7, names.front().size(), names.front()) == 0 ? names.front() : names.back();
      place = place_of_word_before(text_, place, key);
    }
    std::string sentence = key.empty() ? message : fmt::format("{}: {}", key, message);
    if (sentence.ends_with('.')) sentence.pop_back();
    report_.add(place, sentence + rule_of(key));
  }
  void AddWarning(int line, pb::io::ColumnNumber column, const std::string& message) override {
    // Message type "replblk.config.Volume" has no field named "lunn".
    const std::vector<std::string> names = quoted_parts(message);
    const pb::Descriptor* type =
        names.empty() ? nullptr : pb::DescriptorPool::generated_pool()->FindMessageTypeByName(names[0]);
    if (type == nullptr || names.size() < 2) return AddError(line, column, message);
    std::vector<std::string> known;
    for (int index = 0; index < type->field_count(); ++index) known.push_back(type->field(index)->name());
    const TextPlace place = place_of_word_before(text_, {line + 1, column + 1}, names[1]);
    report_.add(place, fmt::format("{}: unknown key; known here are {}", names[1], fmt::join(known, ", ")));
  }

 private:
  /// What the value of `key` looks like. A key has one type wherever it stands.
  static std::string rule_of(std::string_view key) {
    const pb::FileDescriptor& schema = *config::NodeConf::descriptor()->file();
    const pb::FieldDescriptor* field = nullptr;
    for (int index = 0; index < schema.message_type_count() && field == nullptr; ++index) {
      field = schema.message_type(index)->FindFieldByName(std::string(key));
    }
    if (field == nullptr) return {};
    if (field->type() == pb::FieldDescriptor::TYPE_STRING) return "; a text in quotes";
    if (field->type() == pb::FieldDescriptor::TYPE_UINT32) return "; a number, 0 or more";
    if (field->type() == pb::FieldDescriptor::TYPE_DOUBLE) return "; a number, as in 0.2";
    if (field->type() == pb::FieldDescriptor::TYPE_BOOL) return "; true or false";
    if (field->type() != pb::FieldDescriptor::TYPE_ENUM) return {};
    std::vector<std::string> values;
    for (int index = 0; index < field->enum_type()->value_count(); ++index) {
      values.push_back(field->enum_type()->value(index)->name());
    }
    return fmt::format("; one of {}", fmt::join(values, ", "));
  }
  static std::vector<std::string> quoted_parts(std::string_view message) {
    std::vector<std::string> parts;
    while (true) {
      const std::size_t open = message.find('"');
      const std::size_t close = open == message.npos ? message.npos : message.find('"', open + 1);
      if (close == message.npos) return parts;
      parts.emplace_back(message.substr(open + 1, close - open - 1));
      message.remove_prefix(close + 1);
    }
  }

  ConfigReport& report_;
  std::string_view text_;
};

}  // namespace

// ---- one section ----

ConfigSection ConfigSection::child(const char* name, int index) const {
  const pb::FieldDescriptor* field = message_->find(name);
  const pb::Reflection& reflection = message_->reflection();
  const pb::Message& nested = index < 0 ? reflection.GetMessage(message_->message, field)
                                        : reflection.GetRepeatedMessage(message_->message, field, index);
  const Tree* tree = message_->tree == nullptr ? nullptr : message_->tree->GetTreeForNested(field, index);
  return {*report_, message_->all.emplace_back(nested, tree, message_->all), key(name, index), place(name, index)};
}

std::string ConfigSection::key(const char* name, int index) const {
  std::string whole = key_.empty() ? name : fmt::format("{}.{}", key_, name);
  if (index >= 0) whole += fmt::format("[{}]", index);
  return whole;
}

TextPlace ConfigSection::place(const char* name, int index) const {
  if (message_->tree == nullptr) return place_;
  const pb::TextFormat::ParseLocation location = message_->tree->GetLocation(message_->find(name), index);
  return location.line < 0 ? place_ : TextPlace{location.line + 1, location.column + 1};
}

void ConfigSection::complain(const char* name, int index, std::string_view verdict, std::string_view rule) const {
  report_->add(place(name, index), fmt::format("{}: {}; {}", key(name, index), verdict, rule));
}

void ConfigSection::missing(const char* name, std::string_view rule) const {
  report_->add(place_, fmt::format("{}: is missing; {}", key(name), rule));
}

bool ConfigSection::has(const char* name) const {
  return message_->reflection().HasField(message_->message, message_->find(name));
}

int ConfigSection::count(const char* name) const {
  return message_->reflection().FieldSize(message_->message, message_->find(name));
}

bool ConfigSection::flag(const char* name) const {
  return message_->reflection().GetBool(message_->message, message_->find(name));
}

std::string ConfigSection::word(const char* name) const {
  return message_->reflection().GetEnum(message_->message, message_->find(name))->name();
}

std::string ConfigSection::text(const char* name) const {
  return message_->reflection().GetString(message_->message, message_->find(name));
}

std::string ConfigSection::text(const char* name, int index) const {
  return message_->reflection().GetRepeatedString(message_->message, message_->find(name), index);
}

std::uint32_t ConfigSection::number(const char* name) const {
  return message_->reflection().GetUInt32(message_->message, message_->find(name));
}

std::uint32_t ConfigSection::number(const char* name, std::uint32_t minimum, std::uint32_t maximum) const {
  const std::uint32_t value = number(name);
  if (value < minimum || value > maximum) {
    complain(name, fmt::format("{} is out of range", value), fmt::format("{} to {}", minimum, maximum));
  }
  return value;
}

double ConfigSection::fraction(const char* name, double minimum, double maximum) const {
  const double value = message_->reflection().GetDouble(message_->message, message_->find(name));
  if (!(value >= minimum && value <= maximum)) {
    complain(name, fmt::format("{} is out of range", value), fmt::format("{} to {}", minimum, maximum));
  }
  return value;
}

// ---- the whole text ----

struct ConfigText::Impl {
  explicit Impl(ConfigReport& report_of_file) : report(report_of_file) {}
  ConfigReport& report;
  config::NodeConf file;
  Tree tree;
  std::deque<ConfigMessage> messages;
  bool is_parsed = false;
};

ConfigText::ConfigText(std::string_view text, ConfigReport& report) : impl_(std::make_unique<Impl>(report)) {
  ParserMessages messages(report, text);
  pb::TextFormat::Parser parser;
  parser.RecordErrorsTo(&messages);
  parser.WriteLocationsTo(&impl_->tree);
  parser.AllowUnknownField(true);  // reported as warnings, which ParserMessages turns into errors
  parser.AllowPartialMessage(true);
  impl_->is_parsed = parser.ParseFromString(std::string(text), &impl_->file);
  if (!impl_->is_parsed && report.is_empty()) report.add({}, "is not protobuf text format");
}

ConfigText::~ConfigText() = default;

bool ConfigText::is_parsed() const noexcept { return impl_->is_parsed; }

ConfigSection ConfigText::root() const {
  return {impl_->report, impl_->messages.emplace_back(impl_->file, &impl_->tree, impl_->messages), {}, {}};
}

}  // namespace replblk::node
