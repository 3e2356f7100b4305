// Accepts connections for all targets, owns them until their login is accepted, and answers discovery sessions.
// Not responsible for listening (node gives it to Network::listen as the AcceptSink) nor for sessions (target).
// Invariant: at most connections_max connections exist here; each has logged in within the login time-out or is gone.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "iscsi/connection.hpp"
#include "iscsi/login.hpp"
#include "ports/loop.hpp"
#include "ports/stream.hpp"
#include "ports/world.hpp"

namespace replblk::iscsi {

class Target;

struct PortalConfig {
  std::size_t connections_max = 64;  ///< before login, and discovery sessions
  ConnectionTimers timers;
  NegotiationLimits limits;
};

class Portal final : public ports::AcceptSink, public LoginHost, public ConnectionOwner {
 public:
  Portal(PortalConfig config, ports::World& world);
  Portal(const Portal&) = delete;
  Portal& operator=(const Portal&) = delete;
  ~Portal();

  /// The target must outlive its place here.
  void add_target(Target& target);
  void remove_target(Target& target);

  [[nodiscard]] std::size_t connection_count() const noexcept { return connections_.size(); }
  /// Resets everything that has not logged in, and discovery sessions.
  void drop_all(std::string_view reason);

  // ports::AcceptSink
  void on_accept(std::unique_ptr<ports::Stream> stream) override;
  // LoginHost
  [[nodiscard]] TargetVerdict look_up(std::string_view target_name) const override;
  void login_ready(Connection& connection) override;
  void answer_send_targets(const Connection& connection, std::string_view value, TextBuilder& answer) override;
  // ConnectionOwner
  void connection_ended(Connection& connection, std::string_view reason) override;

 private:
  [[nodiscard]] Target* find(std::string_view target_name) const noexcept;
  [[nodiscard]] std::unique_ptr<Connection> release(Connection& connection);
  void sweep();

  PortalConfig config_;
  ports::World& world_;
  std::vector<Target*> targets_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Connection>> graveyard_;
  ports::DeferredTask sweep_task_;
};

}  // namespace replblk::iscsi
