#include "node/config_file.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "base/assert.hpp"
#include "config.pb.h"
#include "node/config_report.hpp"
#include "node/config_rules.hpp"

namespace replblk::node {

namespace {

namespace pb = google::protobuf;
using Tree = pb::TextFormat::ParseInfoTree;

constexpr std::size_t kFileBytesMax = std::size_t{1} << 20;
constexpr int kResourcesMax = 64;
constexpr int kVolumesMax = 256;
constexpr std::size_t kHandlerBytesMax = 4096;
constexpr std::size_t kSecretBytesMin = 16;  // 128 bits
constexpr std::size_t kSecretBytesMax = 4096;
constexpr std::size_t kSocketPathBytesMax = 107;  // sockaddr_un::sun_path without its NUL
constexpr std::size_t kAliasBytesMax = 255;

/// One message of the file: its values, the places they stand at, and the key that leads there.
class Section {
 public:
  Section(ConfigReport& report, const pb::Message& message, const Tree* tree, std::string key, TextPlace place)
      : report_(report), message_(message), tree_(tree), key_(std::move(key)), place_(place) {}

  /// The message under `name`, which is present. `index` only for repeated ones.
  [[nodiscard]] Section child(const char* name, int index = -1) const {
    const pb::FieldDescriptor* field = find(name);
    const pb::Reflection& reflection = *message_.GetReflection();
    const pb::Message& nested =
        index < 0 ? reflection.GetMessage(message_, field) : reflection.GetRepeatedMessage(message_, field, index);
    return {report_, nested, tree_ == nullptr ? nullptr : tree_->GetTreeForNested(field, index), key(name, index),
            place(name, index)};
  }
  [[nodiscard]] std::string key(const char* name, int index = -1) const {
    std::string whole = key_.empty() ? name : fmt::format("{}.{}", key_, name);
    if (index >= 0) whole += fmt::format("[{}]", index);
    return whole;
  }
  /// Where the key stands; the section itself for one that is not there.
  [[nodiscard]] TextPlace place(const char* name, int index = -1) const {
    if (tree_ == nullptr) return place_;
    const pb::TextFormat::ParseLocation location = tree_->GetLocation(find(name), index);
    return location.line < 0 ? place_ : TextPlace{location.line + 1, location.column + 1};
  }

  /// "KEY: <verdict>; <rule>"
  void complain(const char* name, int index, std::string_view verdict, std::string_view rule) const {
    report_.add(place(name, index), fmt::format("{}: {}; {}", key(name, index), verdict, rule));
  }
  void complain(const char* name, std::string_view verdict, std::string_view rule) const {
    complain(name, -1, verdict, rule);
  }
  void missing(const char* name, std::string_view rule) const {
    report_.add(place_, fmt::format("{}: is missing; {}", key(name), rule));
  }

  /// The number under `name` when it is in range; complains otherwise.
  [[nodiscard]] std::uint32_t number(const char* name, std::uint32_t minimum, std::uint32_t maximum) const {
    const std::uint32_t value = message_.GetReflection()->GetUInt32(message_, find(name));
    if (value < minimum || value > maximum) {
      complain(name, fmt::format("{} is out of range", value), fmt::format("{} to {}", minimum, maximum));
    }
    return value;
  }
  /// Likewise a number with a fraction.
  [[nodiscard]] double fraction(const char* name, double minimum, double maximum) const {
    const double value = message_.GetReflection()->GetDouble(message_, find(name));
    if (!(value >= minimum && value <= maximum)) {
      complain(name, fmt::format("{} is out of range", value), fmt::format("{} to {}", minimum, maximum));
    }
    return value;
  }
  [[nodiscard]] Duration milliseconds_of(const char* name, std::uint32_t minimum, std::uint32_t maximum) const {
    return milliseconds(number(name, minimum, maximum));
  }
  [[nodiscard]] std::string text(const char* name) const {
    return message_.GetReflection()->GetString(message_, find(name));
  }
  [[nodiscard]] bool has(const char* name) const { return message_.GetReflection()->HasField(message_, find(name)); }

 private:
  [[nodiscard]] const pb::FieldDescriptor* find(const char* name) const {
    const pb::FieldDescriptor* field = message_.GetDescriptor()->FindFieldByName(name);
    RB_ASSERT(field != nullptr);
    return field;
  }

  ConfigReport& report_;
  const pb::Message& message_;
  const Tree* tree_;
  std::string key_;
  TextPlace place_;
};

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

/// Checks a parsed file and fills a ClusterConfig from it. What it fills is meaningless once anything was complained
/// of.
class Checker {
 public:
  Checker(const LoadOptions& options, const config::NodeConf& file, const Section& root)
      : options_(options), file_(file), root_(root) {}

  ClusterConfig run() {
    if (file_.has_cluster()) {
      check_cluster(root_.child("cluster"), file_.cluster());
    } else {
      root_.missing("cluster", "the file has one cluster");
    }
    if (file_.resource_size() == 0) root_.missing("resource", "there is at least one resource");
    if (file_.resource_size() > kResourcesMax) {
      root_.complain("resource", kResourcesMax, "is one too many", fmt::format("at most {} resources", kResourcesMax));
    }
    for (int index = 0; index < file_.resource_size(); ++index) {
      check_resource(root_.child("resource", index), file_.resource(index));
    }
    config_.shared_fields = make_shared_fields(config_);
    return std::move(config_);
  }

 private:
  struct DiskUse {
    std::size_t node;
    std::string path;
    friend auto operator<=>(const DiskUse&, const DiskUse&) = default;
  };

  void check_name(const Section& section, const char* key) {
    if (!section.has(key)) return section.missing(key, kNameRule);
    const std::string name = section.text(key);
    if (!is_name(name)) section.complain(key, fmt::format("{} is not a name", in_quotes(name)), kNameRule);
  }
  /// The address when it is one; complains otherwise.
  std::optional<Address> check_address(const Section& section, const char* key) {
    constexpr std::string_view kRule = "a numeric IPv4 or IPv6 address, without brackets, zone or prefix length";
    if (!section.has(key)) {
      section.missing(key, kRule);
      return std::nullopt;
    }
    const std::string text = section.text(key);
    const std::optional<Address> address = parse_address(text);
    if (!address) section.complain(key, fmt::format("{} is not an address", in_quotes(text)), kRule);
    if (address && address->is_multicast)
      section.complain(key, fmt::format("{} is multicast", in_quotes(text)), "an address of one host");
    return address;
  }
  /// The path in its normal spelling; empty after a complaint.
  std::string check_path(const Section& section, const char* key) {
    const std::string path = section.text(key);
    if (const auto rule = path_violation(path)) {
      section.complain(key, fmt::format("{} cannot be used", in_quotes(path)), *rule);
      return {};
    }
    return normal_path(path);
  }
  [[nodiscard]] std::optional<std::size_t> find_node(std::string_view name) const {
    for (std::size_t index = 0; index < config_.nodes.size(); ++index) {
      if (is_same_name(config_.nodes[index].name, name)) return index;
    }
    return std::nullopt;
  }
  [[nodiscard]] std::string node_names() const {
    std::vector<std::string> names;
    for (const NodeConfig& node : config_.nodes) names.push_back(node.name);
    return fmt::format("{}", fmt::join(names, ", "));
  }
  /// The node that `on` names; complains otherwise.
  std::optional<std::size_t> check_on(const Section& section) {
    if (!section.has("on")) {
      section.missing("on", fmt::format("the name of a node: {}", node_names()));
      return std::nullopt;
    }
    const std::optional<std::size_t> node = find_node(section.text("on"));
    if (!node) {
      section.complain("on", fmt::format("there is no node {}", in_quotes(section.text("on"))),
                       fmt::format("the name of a node: {}", node_names()));
    }
    return node;
  }

  void check_cluster(const Section& section, const config::Cluster& cluster) {
    check_name(section, "name");
    config_.name = cluster.name();
    if (cluster.node_size() == 0) section.missing("node", "a cluster has two nodes, or one without a mirror");
    if (cluster.node_size() > 2) {
      section.complain("node", 2, "is one too many", "a cluster has two nodes, or one without a mirror");
    }
    for (int index = 0; index < cluster.node_size(); ++index)
      check_node(section.child("node", index), cluster.node(index));
    config_.replication_port = static_cast<std::uint16_t>(section.number("replication_port", 1, 65535));
    config_.connect_interval = section.milliseconds_of("connect_interval_ms", 100, 120000);
    config_.ping_interval = section.milliseconds_of("ping_interval_ms", 100, 120000);
    config_.ping_timeout = section.milliseconds_of("ping_timeout_ms", 100, 30000);
    config_.peer_timeout = section.milliseconds_of("peer_timeout_ms", 100, 60000);
    config_.flush_interval = section.milliseconds_of("flush_interval_ms", 100, 60000);
    choose_self(section, cluster);
    if (cluster.has_secret_file()) {
      check_secret(section);
    } else if (cluster.node_size() > 1) {
      section.missing("secret_file", "the nodes of a pair prove to each other who they are with a shared secret");
    }
  }

  void check_node(const Section& section, const config::Node& node) {
    check_name(section, "name");
    if (node.has_name() && find_node(node.name())) {
      section.complain("name", fmt::format("{} is used twice", in_quotes(node.name())),
                       "each node has its own name (case does not count)");
    }
    const std::optional<Address> address = check_address(section, "address");
    if (address && address->is_unspecified) {
      section.complain("address", fmt::format("{} is no node's address", in_quotes(node.address())),
                       "the peer connects to it, so it names one host");
    } else if (address && !node_addresses_.insert(address->canonical).second) {
      section.complain("address", fmt::format("{} is used twice", in_quotes(node.address())),
                       "each node has its own address");
    }
    const std::string socket = check_path(section, "admin_socket");
    if (socket.size() > kSocketPathBytesMax) {
      section.complain("admin_socket", fmt::format("{} has {} bytes", in_quotes(socket), socket.size()),
                       fmt::format("the path of a Unix socket has at most {}", kSocketPathBytesMax));
    }
    static_cast<void>(section.number("buffer_memory_mib", 16, 65536));
    config_.nodes.push_back({node.name(), node.address()});
  }

  void choose_self(const Section& section, const config::Cluster& cluster) {
    if (config_.nodes.empty()) return;
    std::optional<std::size_t> self;
    if (!options_.node_name.empty()) {
      self = find_node(options_.node_name);
      if (!self) {
        section.complain("node", 0, fmt::format("there is no node {}, as --node says", in_quotes(options_.node_name)),
                         fmt::format("the nodes are {}", node_names()));
      }
    } else {
      self = find_node(options_.host_name);
      const std::string short_name = options_.host_name.substr(0, options_.host_name.find('.'));
      if (!self) self = find_node(short_name);
      if (!self) {
        section.complain("node", 0, fmt::format("none has the name of this host, {}", in_quotes(options_.host_name)),
                         fmt::format("choose one with --node: {}", node_names()));
      }
    }
    if (!self || *self > 1) return;
    config_.self = static_cast<NodeIndex>(*self);
    const config::Node& node = cluster.node(static_cast<int>(*self));
    config_.admin_socket = normal_path(node.admin_socket());
    config_.buffer_memory_mib = node.buffer_memory_mib();
  }

  void check_secret(const Section& section) {
    const std::string path = check_path(section, "secret_file");
    if (path.empty()) return;
    const auto refuse = [&](std::string_view verdict, std::string_view rule) {
      section.complain("secret_file", fmt::format("{} {}", in_quotes(path), verdict), rule);
    };
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    if (status.type() == std::filesystem::file_type::not_found) {
      return refuse(
          "does not exist",
          fmt::format("make it on one node (head -c 32 /dev/urandom | base64 > {}) and copy it to the other", path));
    }
    if (error)
      return refuse(fmt::format("cannot be examined: {}", error.message()), "the daemon must be able to read it");
    if (status.type() != std::filesystem::file_type::regular)
      return refuse("is not a file", "a file with the shared secret");
    if ((status.permissions() & std::filesystem::perms::others_all) != std::filesystem::perms::none) {
      return refuse("can be accessed by everybody", fmt::format("chmod 600 {}", path));
    }
    std::ifstream stream(path, std::ios::binary);
    std::string secret(kSecretBytesMax + 3, '\0');  // room for a line end, and one byte more to notice a longer file
    stream.read(secret.data(), static_cast<std::streamsize>(secret.size()));
    if (!stream.eof() && !stream.good()) return refuse("cannot be read", "the daemon must be able to read it");
    secret.resize(static_cast<std::size_t>(stream.gcount()));
    secret.erase(secret.find_last_not_of(" \t\r\n") + 1);
    if (secret.size() < kSecretBytesMin || secret.size() > kSecretBytesMax) {
      return refuse(fmt::format("holds {} {} bytes", secret.size() > kSecretBytesMax ? "more than" : "only",
                                secret.size() > kSecretBytesMax ? kSecretBytesMax : secret.size()),
                    fmt::format("a secret has {} to {} bytes", kSecretBytesMin, kSecretBytesMax));
    }
    config_.secret = std::move(secret);
  }

  void check_resource(const Section& section, const config::Resource& resource) {
    ResourceConfig made;
    check_name(section, "name");
    made.name = resource.name();
    if (resource.name() == "all") section.complain("name", "\"all\" is taken", "replblkctl means every resource by it");
    if (resource.has_name() && !resource_names_.insert(resource.name()).second) {
      section.complain("name", fmt::format("{} is used twice", in_quotes(resource.name())),
                       "each resource has its own name");
    }
    if (resource.has_target()) {
      made.target = check_target(section.child("target"), resource.target());
    } else {
      section.missing("target", "a resource is served as one iSCSI target");
    }
    if (resource.volume_size() == 0) section.missing("volume", "a resource has at least one volume");
    if (resource.volume_size() > kVolumesMax) {
      section.complain("volume", kVolumesMax, "is one too many", fmt::format("at most {} volumes", kVolumesMax));
    }
    std::set<std::uint32_t> luns;
    for (int index = 0; index < resource.volume_size(); ++index) {
      const Section volume = section.child("volume", index);
      made.volumes.push_back(check_volume(volume, resource.volume(index)));
      if (resource.volume(index).has_lun() && !luns.insert(resource.volume(index).lun()).second) {
        volume.complain("lun", fmt::format("{} is used twice", resource.volume(index).lun()),
                        "each LUN of a resource must be unique");
      }
    }
    if (resource.has_resync()) made.resync = check_resync(section.child("resync"), resource.resync());
    if (resource.has_activity_log()) {
      made.activity_log.extents = section.child("activity_log").number("extents", 67, 65534);
      made.activity_log.updates = resource.activity_log().updates();
    }
    for (int index = 0; index < resource.virtual_ip_size(); ++index) {
      made.virtual_ips.push_back(check_virtual_ip(section.child("virtual_ip", index), resource.virtual_ip(index)));
    }
    if (resource.has_handlers()) made.handlers = check_handlers(section.child("handlers"));
    made.after_split_brain = check_split_policies(section, resource);
    if (section.has("undo_directory")) made.undo_directory = check_directory(section, "undo_directory");
    config_.resources.push_back(std::move(made));
  }

  static HandlersConfig check_handlers(const Section& section) {
    HandlersConfig made;
    for (std::size_t index = 0; index < kHandlerEventsCount; ++index) {
      const char* name = kHandlerNames[index];
      if (!section.has(name)) continue;
      made.commands[index] = section.text(name);
      const std::size_t length = made.commands[index].size();
      if (length == 0 || length > kHandlerBytesMax || made.commands[index].find('\0') != std::string::npos)
        section.complain(name, fmt::format("{} bytes", length),
                         fmt::format("a command for /bin/sh, 1 to {} bytes, without NUL", kHandlerBytesMax));
    }
    made.timeout = section.milliseconds_of("timeout_ms", 100, 25000);
    return made;
  }

  VirtualIpConfig check_virtual_ip(const Section& section, const config::VirtualIp& ip) {
    VirtualIpConfig made;
    constexpr std::string_view kRule = "a numeric address and the length of its prefix, as in 192.0.2.100/24";
    if (!section.has("address")) {
      section.missing("address", kRule);
    } else if (const auto parsed = parse_address_and_prefix(ip.address()); !parsed) {
      section.complain("address", fmt::format("{} cannot be used", in_quotes(ip.address())), kRule);
    } else if (node_addresses_.contains(parsed->address.canonical)) {
      section.complain("address", fmt::format("{} is the address of a node", in_quotes(ip.address())),
                       "an address that moves is no node's own");
    } else if (!virtual_addresses_.insert(parsed->address.canonical).second) {
      section.complain("address", fmt::format("{} is used twice", in_quotes(ip.address())),
                       "each is named once in the file");
    } else {
      made.address = parsed->address.canonical;
      made.prefix_bits = parsed->prefix_bits;
    }
    if (section.has("device") == (ip.interface_size() > 0)) {
      section.missing("device", "the name of a network interface, or an `interface` for each node, and not both");
      return made;
    }
    const auto check_device = [&](const Section& where) {
      const std::string device = where.text("device");
      if (!is_interface_name(device))
        where.complain("device", fmt::format("{} is no name of an interface", in_quotes(device)),
                       "1 to 15 letters without '/' and blanks");
      return device;
    };
    if (section.has("device")) made.device = check_device(section);
    std::set<std::size_t> named;
    for (int index = 0; index < ip.interface_size(); ++index) {
      const Section interface = section.child("interface", index);
      const std::optional<std::size_t> on = check_on(interface);
      const std::string device = check_device(interface);
      if (!on) continue;
      if (!named.insert(*on).second)
        interface.complain("on", fmt::format("{} is named twice", in_quotes(interface.text("on"))),
                           "one interface for each node");
      if (*on == config_.self) made.device = device;
    }
    if (ip.interface_size() > 0 && named.size() < config_.nodes.size())
      section.missing("interface", "one interface for each node");
    return made;
  }

  static ResyncConfig check_resync(const Section& section, const config::Resync& resync) {
    ResyncConfig made;
    const std::uint32_t maximum = section.number("rate_max_kib_per_second", 0, 4194304);
    const std::uint32_t minimum = section.number("rate_min_kib_per_second", 1, 4194304);
    // A maximum below the default minimum lowers that, too.
    const bool is_too_fast = maximum != 0 && minimum > maximum;
    if (is_too_fast && section.has("rate_min_kib_per_second")) {
      section.complain("rate_min_kib_per_second", fmt::format("{} is too much", minimum),
                       fmt::format("not above rate_max_kib_per_second, which is {}", maximum));
    }
    made.rate_max_bytes_per_second = std::uint64_t{maximum} * 1024;
    made.rate_min_bytes_per_second = std::uint64_t{is_too_fast ? maximum : minimum} * 1024;
    made.latency_budget = section.fraction("latency_budget", 0.01, 100);
    switch (resync.checksum()) {
      case config::Resync::automatic:
        made.checksum = ChecksumUse::automatic;
        break;
      case config::Resync::always:
        made.checksum = ChecksumUse::always;
        break;
      case config::Resync::never:
        made.checksum = ChecksumUse::never;
        break;
    }
    return made;
  }

  replication::SplitPolicies check_split_policies(const Section& section, const config::Resource& resource) {
    replication::SplitPolicies made;
    constexpr std::string_view kDiscardNode = "discard-node-";
    const auto refuse = [&](const char* key, const std::string& keyword, std::string_view known) {
      if (keyword == "call-pri-lost-after-sb") {
        section.complain(
            key, fmt::format("{} needs a handler that reboots the node", in_quotes(keyword)),
            "replblk runs none and needs none: violently-as0p makes a Primary that gives up Secondary first");
      } else {
        section.complain(key, fmt::format("{} is not a policy here", in_quotes(keyword)), known);
      }
    };
    if (const std::string& keyword = resource.after_sb_0pri(); keyword.starts_with(kDiscardNode)) {
      const std::optional<std::size_t> node = find_node(std::string_view(keyword).substr(kDiscardNode.size()));
      made.without_primary = replication::AfterSb0::discard_node;
      if (node) {
        made.discarded_node = static_cast<NodeIndex>(*node);
      } else {
        section.complain("after_sb_0pri", fmt::format("{} names no node", in_quotes(keyword)),
                         fmt::format("after discard-node- comes the name of a node: {}", node_names()));
      }
    } else if (const auto policy = replication::parse_after_sb_0pri(keyword)) {
      made.without_primary = *policy;
    } else {
      refuse("after_sb_0pri", keyword,
             "disconnect, discard-node-NAME, discard-younger-primary, discard-older-primary, discard-zero-changes or "
             "discard-least-changes");
    }
    if (const auto policy = replication::parse_after_sb_1pri(resource.after_sb_1pri())) {
      made.with_one_primary = *policy;
    } else {
      refuse("after_sb_1pri", resource.after_sb_1pri(), "disconnect, consensus, discard-secondary or violently-as0p");
    }
    if (const auto policy = replication::parse_after_sb_2pri(resource.after_sb_2pri())) {
      made.with_two_primaries = *policy;
    } else {
      refuse("after_sb_2pri", resource.after_sb_2pri(), "disconnect or violently-as0p");
    }
    return made;
  }

  TargetConfig check_target(const Section& section, const config::Target& target) {
    TargetConfig made;
    made.iqn = target.iqn();
    made.alias = target.alias();
    made.port = static_cast<std::uint16_t>(section.number("port", 1, 65535));
    if (!target.has_iqn()) {
      section.missing("iqn", "an iSCSI name, as in iqn.2026-11.org.example:disk");
    } else if (const auto rule = iscsi_name_violation(target.iqn())) {
      section.complain("iqn", fmt::format("{} is not an iSCSI name", in_quotes(target.iqn())), *rule);
    } else if (!target_names_.insert(target.iqn()).second) {
      section.complain("iqn", fmt::format("{} is used twice", in_quotes(target.iqn())), "each target has its own name");
    }
    if (target.alias().size() > kAliasBytesMax ||
        target.alias().find_first_of(std::string_view("\0\n\r", 3)) != std::string::npos) {
      section.complain("alias", fmt::format("{} cannot be sent", in_quotes(target.alias())),
                       fmt::format("one line of at most {} bytes", kAliasBytesMax));
    }
    std::set<std::pair<std::size_t, std::string>> seen;
    for (int index = 0; index < target.portal_size(); ++index) {
      const Section portal = section.child("portal", index);
      const std::optional<Address> address = check_address(portal, "address");
      const std::optional<std::size_t> on = portal.has("on") ? check_on(portal) : std::nullopt;
      if (!address || (portal.has("on") && !on)) continue;
      for (std::size_t node = 0; node < config_.nodes.size(); ++node) {
        if (on && *on != node) continue;
        if (!seen.emplace(node, address->canonical).second) {
          portal.complain("address", fmt::format("{} is used twice", in_quotes(target.portal(index).address())),
                          "a portal of a target is named once");
          break;
        }
        if (node == config_.self) made.portal_addresses.push_back(target.portal(index).address());
        if (on && node != config_.self && target.redirect() && !address->is_unspecified)
          made.peer_portal_addresses.push_back(target.portal(index).address());
      }
    }
    if (target.portal_size() == 0 && target.redirect() && config_.is_pair())
      made.peer_portal_addresses.push_back(config_.nodes[1 - config_.self].address);
    check_port_collision(section, target, made);
    return made;
  }

  void check_port_collision(const Section& section, const config::Target& target, const TargetConfig& made) {
    if (made.port != config_.replication_port || !file_.has_cluster()) return;
    bool is_met = target.portal_size() == 0;
    for (const config::Portal& portal : target.portal()) {
      const std::optional<Address> address = parse_address(portal.address());
      is_met = is_met || (address && (address->is_unspecified || node_addresses_.contains(address->canonical)));
    }
    if (is_met) {
      section.complain("port", fmt::format("{} is the replication port, on the same address", made.port),
                       "initiators and the peer need different ports or addresses");
    }
  }

  VolumeConfig check_volume(const Section& section, const config::Volume& volume) {
    VolumeConfig made;
    if (volume.has_lun()) {
      made.lun = static_cast<std::uint16_t>(section.number("lun", 0, 255));
    } else {
      section.missing("lun", "the logical unit number, 0 to 255");
    }
    made.write_cache = volume.write_cache();
    made.logical_block_bytes = volume.logical_block_size();
    if (made.logical_block_bytes != 512 && made.logical_block_bytes != 4096) {
      section.complain("logical_block_size", fmt::format("{} is not possible", made.logical_block_bytes),
                       "512 or 4096");
    }
    std::set<std::size_t> covered;
    for (int index = 0; index < volume.disk_size(); ++index) {
      const Section disk = section.child("disk", index);
      const std::optional<std::size_t> node = check_on(disk);
      if (node && !covered.insert(*node).second) {
        disk.complain("on", fmt::format("{} is used twice", in_quotes(volume.disk(index).on())),
                      "each node has one copy of a volume");
      }
      const DiskConfig checked = check_disk(disk, volume.disk(index), node);
      if (node && *node < made.disks.size()) made.disks[*node] = checked;
    }
    for (std::size_t node = 0; node < config_.nodes.size(); ++node) {
      if (!covered.contains(node)) {
        section.missing("disk", fmt::format("node {} has no copy of this volume; each node has one",
                                            in_quotes(config_.nodes[node].name)));
      }
    }
    return made;
  }

  DiskConfig check_disk(const Section& section, const config::Disk& disk, std::optional<std::size_t> node) {
    DiskConfig made;
    made.io_mode = disk.io_mode() == config::Disk::buffered ? IoMode::buffered : IoMode::direct;
    if (disk.timeout_ms() == 0) {
      made.timeout = {};
    } else {
      made.timeout = milliseconds(section.number("timeout_ms", 1000, 600000));
    }
    made.stall_timeout =
        disk.stall_timeout_ms() == 0 ? Duration{} : section.milliseconds_of("stall_timeout_ms", 500, 60000);
    if (disk.has_path()) {
      made.path = check_path(section, "path");
      claim_path(section, "path", made.path, node);
    } else {
      section.missing("path", "the absolute path of the backing device or file");
    }
    if (disk.has_metadata_path()) {
      made.metadata_path = check_path(section, "metadata_path");
      claim_path(section, "metadata_path", made.metadata_path, node);
    }
    return made;
  }

  static std::string check_directory(const Section& section, const char* key) {
    std::string text = section.text(key);
    while (text.size() > 1 && text.ends_with('/')) text.pop_back();
    if (const auto rule = path_violation(text)) {
      section.complain(key, fmt::format("{} cannot be used", in_quotes(section.text(key))), *rule);
    }
    return normal_path(text);
  }

  void claim_path(const Section& section, const char* key, const std::string& path, std::optional<std::size_t> node) {
    if (path.empty() || !node) return;
    const auto [place, is_new] = disk_uses_.try_emplace({*node, path}, section.key(key));
    if (!is_new) {
      section.complain(key,
                       fmt::format("{} is used twice on node {} (also by {})", in_quotes(path),
                                   in_quotes(config_.nodes[*node].name), place->second),
                       "a device or file holds one thing");
    }
  }

  const LoadOptions& options_;
  const config::NodeConf& file_;
  const Section& root_;
  ClusterConfig config_;
  std::set<std::string> node_addresses_;
  std::set<std::string> virtual_addresses_;
  std::set<std::string> resource_names_;
  std::set<std::string> target_names_;
  std::map<DiskUse, std::string> disk_uses_;
};

}  // namespace

Result<ClusterConfig, std::vector<std::string>> parse_config(std::string_view text, const LoadOptions& options) {
  ConfigReport report(options.path);
  ParserMessages messages(report, text);
  config::NodeConf file;
  Tree tree;
  pb::TextFormat::Parser parser;
  parser.RecordErrorsTo(&messages);
  parser.WriteLocationsTo(&tree);
  parser.AllowUnknownField(true);  // reported as warnings, which ParserMessages turns into errors
  parser.AllowPartialMessage(true);
  const bool is_parsed = parser.ParseFromString(std::string(text), &file);
  if (!is_parsed && report.is_empty()) report.add({}, "is not protobuf text format");
  if (!is_parsed) return fail(report.sentences());
  const Section root(report, file, &tree, {}, {});
  ClusterConfig config = Checker(options, file, root).run();
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
