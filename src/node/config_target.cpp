#include "node/config_checker.hpp"

#include <fmt/format.h>

namespace replblk::node {

namespace {

constexpr std::size_t kAliasBytesMax = 255;

}  // namespace

TargetConfig ConfigChecker::check_target(const ConfigSection& section) {
  TargetConfig made;
  made.iqn = section.text("iqn");
  made.alias = section.text("alias");
  made.port = static_cast<std::uint16_t>(section.number("port", 1, 65535));
  if (!section.has("iqn")) {
    section.missing("iqn", "an iSCSI name, as in iqn.2026-11.org.example:disk");
  } else if (const auto rule = iscsi_name_violation(section.text("iqn"))) {
    section.complain("iqn", fmt::format("{} is not an iSCSI name", in_quotes(section.text("iqn"))), *rule);
  } else if (!target_names_.insert(section.text("iqn")).second) {
    section.complain("iqn", fmt::format("{} is used twice", in_quotes(section.text("iqn"))),
                     "each target has its own name");
  }
  if (made.alias.size() > kAliasBytesMax ||
      made.alias.find_first_of(std::string_view("\0\n\r", 3)) != std::string::npos) {
    section.complain("alias", fmt::format("{} cannot be sent", in_quotes(made.alias)),
                     fmt::format("one line of at most {} bytes", kAliasBytesMax));
  }
  std::set<std::pair<std::size_t, std::string>> seen;
  for (int index = 0; index < section.count("portal"); ++index) {
    const ConfigSection portal = section.child("portal", index);
    const std::optional<Address> address = check_address(portal, "address");
    const std::optional<std::size_t> on = portal.has("on") ? check_on(portal) : std::nullopt;
    if (!address || (portal.has("on") && !on)) continue;
    for (std::size_t node = 0; node < config_.nodes.size(); ++node) {
      if (on && *on != node) continue;
      if (!seen.emplace(node, address->canonical).second) {
        portal.complain("address", fmt::format("{} is used twice", in_quotes(portal.text("address"))),
                        "a portal of a target is named once");
        break;
      }
      if (node == config_.self) made.portal_addresses.push_back(portal.text("address"));
      if (on && node != config_.self && section.flag("redirect") && !address->is_unspecified)
        made.peer_portal_addresses.push_back(portal.text("address"));
    }
  }
  if (section.count("portal") == 0 && section.flag("redirect") && config_.is_pair())
    made.peer_portal_addresses.push_back(config_.nodes[1 - config_.self].address);
  check_port_collision(section, made);
  return made;
}

void ConfigChecker::check_port_collision(const ConfigSection& section, const TargetConfig& made) {
  if (made.port != config_.replication_port || !root_.has("cluster")) return;
  bool is_met = section.count("portal") == 0;
  for (int index = 0; index < section.count("portal"); ++index) {
    const std::optional<Address> address = parse_address(section.child("portal", index).text("address"));
    is_met = is_met || (address && (address->is_unspecified || node_addresses_.contains(address->canonical)));
  }
  if (is_met) {
    section.complain("port", fmt::format("{} is the replication port, on the same address", made.port),
                     "initiators and the peer need different ports or addresses");
  }
}

}  // namespace replblk::node
