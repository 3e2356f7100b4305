#include "iscsi/target.hpp"

#include <algorithm>

#include "base/log.hpp"

namespace replblk::iscsi {

Target::Target(TargetConfig config, ports::World& world, scsi::Device& device)
    : config_(std::move(config)),
      world_(world),
      device_(device),
      sweep_task_(Callback<void()>::to<&Target::sweep>(*this)),
      redirect_address_(config_.peer_portals.empty() ? "" : to_string(config_.peer_portals.front())),
      role_timer_(Callback<void()>::to<&Target::on_role_late>(*this)) {
  RB_ASSERT(config_.commands_per_session >= 1 &&
            config_.commands_per_session + Session::kImmediateCommandsMax <= Session::kDepthMax);
}

Target::~Target() {
  RB_ASSERT(waiting_.empty());
  for (const auto& session : sessions_) RB_ASSERT(session->is_drained());
  world_.loop.cancel(role_timer_);
}

void Target::set_serving(bool is_serving) {
  is_serving_ = is_serving;
  if (is_serving && !waiting_.empty()) world_.loop.defer(sweep_task_);
}

void Target::set_role_expected(bool is_expected) {
  if (is_expected == is_role_expected_) return;
  is_role_expected_ = is_expected;
  if (is_expected) {
    world_.loop.arm(role_timer_, world_.loop.now() + kRoleWait);
  } else {
    world_.loop.cancel(role_timer_);
    on_role_late();
  }
}

void Target::on_role_late() {
  if (!waiting_.empty()) world_.loop.defer(sweep_task_);
}

TargetVerdict Target::verdict() const noexcept {
  TargetVerdict verdict;
  verdict.alias = config_.alias;
  verdict.portal_group_tag = config_.portal_group_tag;
  if (is_serving_ || may_wait_for_role()) {
    verdict.status = LoginStatus::success;
  } else if (is_peer_serving_ && !redirect_address_.empty()) {
    verdict.status = LoginStatus::target_moved_temporarily;
    verdict.redirect_address = redirect_address_;
  } else {
    verdict.status = LoginStatus::service_unavailable;
  }
  return verdict;
}

void Target::drop_all(std::string_view reason, Duration move_time) {
  while (Connection* connection = may_wait_for_role() ? nullptr : waiting_.pop_front()) connection->fail(reason);
  // A session that ends may drain, and leave the vector, only from a deferred task.
  for (const auto& session : sessions_) {
    const Connection* connection = session->connection();
    const auto& moving = config_.moving_addresses;
    const bool moves = connection != nullptr && std::ranges::find(moving, connection->local().address) != moving.end();
    session->drop(reason, moves ? move_time : Duration(0));
  }
}

void Target::finish_move() {
  for (const std::string& address : config_.moving_addresses) world_.network.reset_parting(address);
}

std::vector<SessionInfo> Target::sessions() const {
  std::vector<SessionInfo> infos;
  for (const auto& session : sessions_) {
    const SessionIdentity& identity = session->identity();
    infos.push_back({identity.initiator_name, identity.isid, identity.address, identity.since,
                     identity.parameters.header_digest, identity.parameters.data_digest, session->command_count(),
                     session->is_ended()});
  }
  return infos;
}

Session* Target::find(const Connection& connection) {
  for (const auto& session : sessions_) {
    // RFC 7143 4.4.3: the I_T nexus is named by InitiatorName + ISID (and our portal group tag).
    if (session->identity().isid == connection.login().isid() &&
        session->identity().initiator_name == connection.login().initiator_name()) {
      return session.get();
    }
  }
  return nullptr;
}

void Target::admit(Connection& connection) {
  const Login& login = connection.login();
  if (!is_serving_) {
    if (may_wait_for_role()) {
      displace_waiting(connection);
      return waiting_.push_back(connection);
    }
    connection.refuse(verdict());
    return;
  }
  Session* old = find(connection);
  if (login.tsih() != 0) {
    // 6.3.1: a TSIH that is not zero asks for one more connection of a session that exists, and there is never a
    // second.
    const bool exists = old != nullptr && !old->is_ended() && old->identity().tsih == login.tsih();
    refuse(connection, exists ? LoginStatus::too_many_connections : LoginStatus::session_does_not_exist);
    return;
  }
  displace_waiting(connection);
  if (old == nullptr) {
    admit_now(connection);
    return;
  }
  // 6.3.5: the same name and ISID reinstate the session.
  waiting_.push_back(connection);
  old->terminate("reinstated by a new login");
}

/// The last login counts: an earlier one that still waits is over.
void Target::displace_waiting(const Connection& connection) {
  const Login& login = connection.login();
  for (Connection* other = waiting_.front(); other != nullptr;) {
    Connection* next = waiting_.next(*other);
    if (other->login().isid() == login.isid() && other->login().initiator_name() == login.initiator_name()) {
      other->unlink();
      other->fail("the initiator logs in once more");
    }
    other = next;
  }
}

void Target::refuse(Connection& connection, LoginStatus status) {
  connection.refuse({.status = status, .alias = {}, .redirect_address = {}});
}

void Target::admit_now(Connection& connection) {
  if (sessions_.size() >= config_.sessions_max) {
    log_warning("target {}: login of {} refused: {} sessions exist", config_.name, connection.login().initiator_name(),
                sessions_.size());
    refuse(connection, LoginStatus::out_of_resources);
    return;
  }
  SessionIdentity identity;
  identity.initiator_name = connection.login().initiator_name();
  identity.isid = connection.login().isid();
  identity.tsih = next_tsih();
  identity.address = connection.remote();
  identity.since = world_.loop.now();
  identity.parameters = connection.login().parameters();
  RB_ASSERT(release_connection);
  sessions_.push_back(
      std::make_unique<Session>(std::move(identity), config_.commands_per_session, world_, device_, *this));
  Session& session = *sessions_.back();
  session.adopt(release_connection(connection));
  log_info("target {}: session of {} from {}, ISID {:012x}, digests {}/{}", config_.name,
           session.identity().initiator_name, to_string(session.identity().address), session.identity().isid,
           session.identity().parameters.header_digest ? "CRC32C" : "None",
           session.identity().parameters.data_digest ? "CRC32C" : "None");
  connection.accept(session, session, session.identity().tsih, config_.commands_per_session);
}

void Target::forget(Connection& connection) {
  for (Connection* waiting = waiting_.front(); waiting != nullptr; waiting = waiting_.next(*waiting)) {
    if (waiting == &connection) {
      connection.unlink();
      return;
    }
  }
}

std::uint16_t Target::next_tsih() {
  // 4.4.3: zero is reserved, and two sessions never share one.
  for (;;) {
    ++last_tsih_;
    const bool is_taken =
        std::ranges::any_of(sessions_, [&](const auto& session) { return session->identity().tsih == last_tsih_; });
    if (last_tsih_ != 0 && !is_taken) return last_tsih_;
  }
}

void Target::bury(std::unique_ptr<Connection> connection) {
  graveyard_.push_back(std::move(connection));
  world_.loop.defer(sweep_task_);
}

void Target::session_drained(Session& session) {
  const auto at = std::ranges::find_if(sessions_, [&](const auto& owned) { return owned.get() == &session; });
  RB_ASSERT(at != sessions_.end());
  ended_sessions_.push_back(std::move(*at));
  sessions_.erase(at);
  world_.loop.defer(sweep_task_);
}

void Target::cold_reset(Session& requester) {
  for (const auto& session : sessions_) {
    if (session.get() != &requester) session->terminate("target cold reset");
  }
  if (requester.connection() != nullptr) requester.connection()->finish("target cold reset");
}

void Target::role_lost() {
  set_serving(false);
  drop_all("this node may not serve any more");
  if (on_role_lost) on_role_lost();
}

void Target::sweep() {
  graveyard_.clear();
  ended_sessions_.clear();
  admit_waiting();
}

void Target::admit_waiting() {
  for (Connection* connection = waiting_.front(); connection != nullptr;) {
    Connection* next = waiting_.next(*connection);
    if (is_serving_ ? find(*connection) == nullptr : !may_wait_for_role()) {
      connection->unlink();
      admit(*connection);
    }
    connection = next;
  }
}

}  // namespace replblk::iscsi
