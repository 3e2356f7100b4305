// One iSCSI target: a name, a SCSI device, its sessions, and whether logins are served now.
// Decides which session may begin (reinstatement, limits) and ends all of them at once when the role is lost.
// Not responsible for sockets before a login (portal) nor for roles: node says set_serving() and drop_all().
// Invariant (no ghosts): a login that reinstates a session is answered only after every command of the old session has
// come back; there is at most one session, and at most one waiting login, of an initiator port (name, ISID).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/intrusive_list.hpp"
#include "iscsi/connection.hpp"
#include "iscsi/login.hpp"
#include "iscsi/session.hpp"
#include "ports/loop.hpp"
#include "ports/world.hpp"
#include "scsi/device.hpp"

namespace replblk::iscsi {

struct TargetConfig {
  std::string name;   ///< IQN
  std::string alias;  ///< TargetAlias; empty: none
  std::uint16_t portal_group_tag = 1;
  /// What SendTargets names; empty: the address that the asking connection came to.
  std::vector<ports::Endpoint> portals;
  /// Of the other node, which SendTargets names too; logins that come while it is Primary are sent to the first.
  std::vector<ports::Endpoint> peer_portals;
  /// With no `portals`: who asks at another address than this one (a virtual IP, another network) is told of no
  /// peer_portals.
  std::string node_address;
  /// Addresses that move with the role (virtual IPs): who is connected to one is reset when it can be at the other
  /// node.
  std::vector<std::string> moving_addresses;
  std::uint32_t sessions_max = 128;
  std::uint32_t commands_per_session = 128;  ///< the depth of the CmdSN window
};

/// For status.
struct SessionInfo {
  std::string initiator_name;
  std::uint64_t isid = 0;
  ports::Endpoint address;
  Instant since{};
  bool header_digest = false;
  bool data_digest = false;
  std::size_t commands_in_flight = 0;
  bool is_ending = false;  ///< its connection is gone; commands of it have not come back from the disks
};

class Target final : public SessionOwner {
 public:
  /// Until the new Primary has the virtual IP, should it not say so: where it was not given the address, it asks the
  /// network for 200 ms whether somebody else has it.
  static constexpr Duration kMoveTime = milliseconds(500);
  /// For the role that is on its way here. open-iscsi waits 2 s after a login that was refused.
  static constexpr Duration kRoleWait = seconds(1);

  Target(TargetConfig config, ports::World& world, scsi::Device& device);
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  /// All sessions must have drained: drop_all() first, then wait for is_idle().
  ~Target();

  [[nodiscard]] const TargetConfig& config() const noexcept { return config_; }

  /// Not serving: logins wait for the role while it is expected, at most kRoleWait from then on; else they are refused
  /// with 0x0301, or sent to the first of peer_portals with 0x0101 while the peer is Primary. Sessions that exist are
  /// not touched; see drop_all().
  void set_serving(bool is_serving);
  void set_role_expected(bool is_expected);
  void set_peer_serving(bool is_serving) noexcept { is_peer_serving_ = is_serving; }
  [[nodiscard]] bool is_serving() const noexcept { return is_serving_; }
  /// What a login to this target is told now.
  [[nodiscard]] TargetVerdict verdict() const noexcept;

  /// The role is lost: a message with Time2Wait 0 where nothing is queued before it, and RST, to every connection; at
  /// once, or within `move_time` to those of moving_addresses. Commands in flight are dropped without an answer.
  void drop_all(std::string_view reason, Duration move_time = kMoveTime);
  /// The other node has moving_addresses: no connection waits any longer for its RST.
  void finish_move();
  /// Called after a command came back dropped, which is how this folder learns that the role is lost.
  Callback<void()> on_role_lost;

  [[nodiscard]] std::vector<SessionInfo> sessions() const;
  [[nodiscard]] std::size_t session_count() const noexcept { return sessions_.size(); }
  /// No session, and none that drains.
  [[nodiscard]] bool is_idle() const noexcept {
    return sessions_.empty() && ended_sessions_.empty() && graveyard_.empty();
  }

  /// From the portal: the login of `connection` is through its stages.
  void admit(Connection& connection);
  /// From the portal: a connection that may be waiting is over.
  void forget(Connection& connection);
  /// Set by the portal: gives up the ownership of a connection whose login was accepted.
  Callback<std::unique_ptr<Connection>(Connection&)> release_connection;

  // SessionOwner
  void bury(std::unique_ptr<Connection> connection) override;
  void session_drained(Session& session) override;
  void cold_reset(Session& requester) override;
  void role_lost() override;

 private:
  [[nodiscard]] Session* find(const Connection& connection);
  void displace_waiting(const Connection& connection);
  static void refuse(Connection& connection, LoginStatus status);
  void admit_now(Connection& connection);
  void admit_waiting();
  [[nodiscard]] bool may_wait_for_role() const noexcept { return is_role_expected_ && role_timer_.is_armed(); }
  void on_role_late();
  void sweep();
  [[nodiscard]] std::uint16_t next_tsih();

  TargetConfig config_;
  ports::World& world_;
  scsi::Device& device_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<std::unique_ptr<Session>> ended_sessions_;  ///< drained, to be destroyed by sweep()
  std::vector<std::unique_ptr<Connection>> graveyard_;
  IntrusiveList<Connection, Connection> waiting_;  ///< logins that wait for an old session to drain, or for the role
  ports::DeferredTask sweep_task_;
  std::string redirect_address_;  ///< text of the first of peer_portals; empty: none
  std::uint16_t last_tsih_ = 0;
  ports::Timer role_timer_;
  bool is_serving_ = false;
  bool is_role_expected_ = false;
  bool is_peer_serving_ = false;
};

}  // namespace replblk::iscsi
