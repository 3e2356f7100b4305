// The administrator's programs that are told of events (DRBD's handlers), and what they are told.
#include <fmt/format.h>

#include <utility>

#include "base/log.hpp"
#include "base/probe.hpp"
#include "node/resource.hpp"

namespace replblk::node {

namespace {

const char* family_of(const std::string& address) { return address.find(':') == std::string::npos ? "ipv4" : "ipv6"; }

}  // namespace

std::vector<std::string> Resource::handler_environment() const {
  std::vector<std::string> environment{"DRBD_RESOURCE=" + config_.name, "DRBD_CSTATE=" + connection_state_};
  const auto add_node = [&](const char* which, const NodeConfig& node) {
    environment.push_back(fmt::format("DRBD_{}_ADDRESS={}", which, node.address));
    environment.push_back(fmt::format("DRBD_{}_AF={}", which, family_of(node.address)));
  };
  add_node("MY", cluster_.nodes[self()]);
  if (has_peer()) {
    add_node("PEER", cluster_.nodes[peer()]);
    environment.push_back("DRBD_PEER=" + cluster_.nodes[peer()].name);
  }
  std::string numbers;
  for (std::size_t index = 0; index < config_.volumes.size(); ++index) {
    const std::string& path = config_.volumes[index].disks[self()].path;
    numbers += fmt::format("{}{}", index > 0 ? " " : "", index);
    environment.push_back(config_.volumes.size() == 1 ? "DRBD_BACKING_DEV=" + path
                                                      : fmt::format("DRBD_BACKING_DEV_{}={}", index, path));
  }
  environment.push_back("DRBD_VOLUME=" + numbers);
  return environment;
}

/// Nobody waits for it.
void Resource::tell(HandlerEvent event) {
  const std::string& command = config_.handlers.commands[static_cast<std::size_t>(event)];
  if (command.empty() || world_.handlers == nullptr) return;
  const std::string name = fmt::format("{} of {}", to_string(event), config_.name);
  log_info("resource {}: handler {}: {}", config_.name, to_string(event), command);
  world_.handlers->run({name, command, handler_environment(), config_.handlers.timeout}, [name](int exit_code) {
    if (exit_code > 0) log_warning("handler {}: exit code {}", name, exit_code);
  });
}

/// Once each time.
void Resource::tell_of_lost_quorum(Instant now) {
  constexpr Duration kQuorumLostAfter = seconds(3);
  const bool is_lost = frozen_since_ && now - *frozen_since_ >= kQuorumLostAfter;
  if (is_lost && !is_lost_quorum_told_) tell(HandlerEvent::quorum_lost);
  is_lost_quorum_told_ = is_lost;
}

/// The resync that the peer has begun waits until the handler agrees to it. `then` is not called if it does not, or if
/// the connection has ended meanwhile.
void Resource::ask_before_resync(std::function<void()> then) {
  const std::string& command = config_.handlers.commands[static_cast<std::size_t>(HandlerEvent::before_resync_target)];
  if (command.empty() || world_.handlers == nullptr) return then();
  log_info("resource {}: handler before_resync_target is waited for: {}", config_.name, command);
  // The resource may have been replaced by then.
  const auto answered = [this, lives = std::weak_ptr<int>(lives_), number = channel_number_,
                         then = std::move(then)](int exit_code) {
    if (lives.expired() || number != channel_number_) {
      RB_PROBE("handler_answers_too_late");
      return;
    }
    if (exit_code == 0) return then();
    RB_PROBE("handler_forbids_the_resync");
    const std::string reason =
        exit_code < 0
            ? "the handler before_resync_target could not be run, or did not end in time: nothing is overwritten"
            : fmt::format("the handler before_resync_target answered {}: nothing is overwritten", exit_code);
    log_error("resource {}: {}", config_.name, reason);
    is_standalone_ = true;
    const replication::Refusal refusal{reason, false};
    end_channel("StandAlone", reason, &refusal);
  };
  world_.handlers->run(
      {"before_resync_target of " + config_.name, command, handler_environment(), config_.handlers.timeout}, answered);
}

}  // namespace replblk::node
