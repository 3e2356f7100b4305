#include "node/config_checker.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>
#include <vector>

namespace replblk::node {

namespace {

constexpr int kResourcesMax = 64;

}  // namespace

ClusterConfig ConfigChecker::run() {
  if (root_.has("cluster")) {
    check_cluster(root_.child("cluster"));
  } else {
    root_.missing("cluster", "the file has one cluster");
  }
  const int resources = root_.count("resource");
  if (resources == 0) root_.missing("resource", "there is at least one resource");
  if (resources > kResourcesMax) {
    root_.complain("resource", kResourcesMax, "is one too many", fmt::format("at most {} resources", kResourcesMax));
  }
  for (int index = 0; index < resources; ++index) check_resource(root_.child("resource", index));
  config_.shared_fields = make_shared_fields(config_);
  return std::move(config_);
}

void ConfigChecker::check_name(const ConfigSection& section, const char* key) {
  if (!section.has(key)) return section.missing(key, kNameRule);
  const std::string name = section.text(key);
  if (!is_name(name)) section.complain(key, fmt::format("{} is not a name", in_quotes(name)), kNameRule);
}

std::optional<Address> ConfigChecker::check_address(const ConfigSection& section, const char* key) {
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

std::string ConfigChecker::check_path(const ConfigSection& section, const char* key) {
  const std::string path = section.text(key);
  if (const auto rule = path_violation(path)) {
    section.complain(key, fmt::format("{} cannot be used", in_quotes(path)), *rule);
    return {};
  }
  return normal_path(path);
}

std::string ConfigChecker::check_directory(const ConfigSection& section, const char* key) {
  std::string text = section.text(key);
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  if (const auto rule = path_violation(text))
    section.complain(key, fmt::format("{} cannot be used", in_quotes(section.text(key))), *rule);
  return normal_path(text);
}

std::optional<std::size_t> ConfigChecker::find_node(std::string_view name) const {
  for (std::size_t index = 0; index < config_.nodes.size(); ++index) {
    if (is_same_name(config_.nodes[index].name, name)) return index;
  }
  return std::nullopt;
}

std::string ConfigChecker::node_names() const {
  std::vector<std::string> names;
  for (const NodeConfig& node : config_.nodes) names.push_back(node.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::optional<std::size_t> ConfigChecker::check_on(const ConfigSection& section) {
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

}  // namespace replblk::node
