#include "iscsi/portal.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "iscsi/target.hpp"

namespace replblk::iscsi {

Portal::Portal(PortalConfig config, ports::World& world)
    : config_(config), world_(world), sweep_task_(Callback<void()>::to<&Portal::sweep>(*this)) {}

Portal::~Portal() {
  drop_all("the portal is closed");
  for (Target* target : targets_) target->release_connection = {};
}

void Portal::add_target(Target& target) {
  RB_ASSERT(find(target.config().name) == nullptr);
  targets_.push_back(&target);
  target.release_connection = Callback<std::unique_ptr<Connection>(Connection&)>::to<&Portal::release>(*this);
}

void Portal::remove_target(Target& target) {
  std::erase(targets_, &target);
  target.release_connection = {};
}

void Portal::drop_all(std::string_view reason) {
  while (!connections_.empty()) connections_.back()->fail(reason);
}

void Portal::on_accept(std::unique_ptr<ports::Stream> stream) {
  if (connections_.size() >= config_.connections_max) {
    log_warning("connection from {} refused: {} connections have not logged in", to_string(stream->remote()),
                connections_.size());
    return;
  }
  connections_.push_back(
      std::make_unique<Connection>(std::move(stream), world_, *this, *this, config_.timers, config_.limits));
}

Target* Portal::find(std::string_view target_name) const noexcept {
  const auto at =
      std::ranges::find_if(targets_, [&](const Target* target) { return target->config().name == target_name; });
  return at == targets_.end() ? nullptr : *at;
}

TargetVerdict Portal::look_up(std::string_view target_name) const {
  const Target* target = find(target_name);
  return target == nullptr ? TargetVerdict{} : target->verdict();
}

void Portal::login_ready(Connection& connection) {
  Target* target = find(connection.login().target_name());
  if (target == nullptr) {
    connection.refuse({.status = LoginStatus::target_removed, .alias = {}, .redirect_address = {}});
    return;
  }
  target->admit(connection);
}

void Portal::answer_send_targets(const Connection& connection, std::string_view value, TextBuilder& answer) {
  // RFC 7143 appendix C: All only in discovery sessions; a name, or nothing for the session's own target, in any.
  const bool is_discovery = connection.login().session_type() == SessionType::discovery;
  const bool is_all = value == "All";
  if (is_all && !is_discovery) {
    answer.add("SendTargets", "Reject");
    return;
  }
  const std::string_view name = value.empty() ? std::string_view(connection.login().target_name()) : value;
  for (const Target* target : targets_) {
    const TargetConfig& config = target->config();
    if (!is_all && config.name != name) continue;
    answer.add("TargetName", config.name);
    const auto add_address = [&](const ports::Endpoint& portal) {
      answer.add("TargetAddress", to_string(portal) + "," + std::to_string(config.portal_group_tag));
    };
    if (config.portals.empty()) add_address(connection.local());
    for (const ports::Endpoint& portal : config.portals) add_address(portal);
    if (config.portals.empty() && connection.local().address != config.node_address) continue;
    for (const ports::Endpoint& portal : config.peer_portals) add_address(portal);
  }
}

void Portal::connection_ended(Connection& connection, std::string_view reason) {
  log_debug("connection from {} ended before a session began: {}", to_string(connection.remote()), reason);
  for (Target* target : targets_) target->forget(connection);
  graveyard_.push_back(release(connection));
  world_.loop.defer(sweep_task_);
}

std::unique_ptr<Connection> Portal::release(Connection& connection) {
  const auto at = std::ranges::find_if(connections_, [&](const auto& owned) { return owned.get() == &connection; });
  RB_ASSERT(at != connections_.end());
  std::unique_ptr<Connection> released = std::move(*at);
  connections_.erase(at);
  return released;
}

void Portal::sweep() { graveyard_.clear(); }

}  // namespace replblk::iscsi
