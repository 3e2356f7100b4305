// One TCP connection: bytes to PDUs, the login phase, and in the full feature phase everything that is not a SCSI
// command: text, NOP, logout, rejects, time-outs. Commands go to its session. It numbers what it sends (StatSN) and
// holds the CmdSN window, since a session has exactly one connection (MaxConnections 1).
// Owned by the portal until a login is accepted, then by its session; a discovery session stays with the portal.
// Invariant: after fail() or finish() it calls nobody and sends nothing; its owner has been told, once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/intrusive_list.hpp"
#include "iscsi/command_window.hpp"
#include "iscsi/login.hpp"
#include "iscsi/pdu.hpp"
#include "iscsi/pdu_reader.hpp"
#include "iscsi/pdu_writer.hpp"
#include "iscsi/text_keys.hpp"
#include "ports/loop.hpp"
#include "ports/stream.hpp"
#include "ports/world.hpp"

namespace replblk::iscsi {

class Connection;
class Session;

/// The defaults mirror the initiators': open-iscsi pings each 5 s, waits 5 s for the answer, and 15 s for a login.
struct ConnectionTimers {
  Duration login_timeout = seconds(15);
  Duration nop_interval = seconds(5);
  Duration nop_timeout = seconds(5);
  Duration discovery_idle_timeout = seconds(30);
};

class ConnectionOwner {
 public:
  /// The connection is over; the owner must not destroy it before the caller has returned.
  virtual void connection_ended(Connection& connection, std::string_view reason) = 0;

 protected:
  ~ConnectionOwner() = default;
};

/// What the connection asks of the portal.
class LoginHost : public TargetDirectory {
 public:
  /// A normal login is through its stages: sooner or later Connection::accept() or refuse() follows.
  virtual void login_ready(Connection& connection) = 0;
  /// The pairs that answer SendTargets=`value` (RFC 7143 appendix C) to this connection.
  virtual void answer_send_targets(const Connection& connection, std::string_view value, TextBuilder& answer) = 0;

 protected:
  ~LoginHost() = default;
};

/// Where the data segment of the PDU being received goes.
struct Placement {
  enum class Kind : std::uint8_t {
    here,  ///< `length_bytes` at `offset_bytes` of `buffer`; the rest is dropped (all of it without a buffer)
    wait,  ///< memory is awaited; Connection::place_waiting() follows
    fail,  ///< the connection has been failed, or is to be dropped for a protocol error
  };
  Kind kind = Kind::here;
  BufferRef buffer;
  std::size_t offset_bytes = 0;
  std::size_t length_bytes = 0;

  [[nodiscard]] static Placement waiting() { return {Kind::wait, {}, 0, 0}; }
  [[nodiscard]] static Placement failed() { return {Kind::fail, {}, 0, 0}; }
};

class Connection final : public ports::StreamSink, public IntrusiveNode<Connection> {
 public:
  enum class Phase : std::uint8_t { login, waiting_for_admission, full_feature, over };

  Connection(std::unique_ptr<ports::Stream> stream, ports::World& world, LoginHost& host, ConnectionOwner& owner,
             const ConnectionTimers& timers, const NegotiationLimits& limits);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  [[nodiscard]] Phase phase() const noexcept { return phase_; }
  [[nodiscard]] const Login& login() const noexcept { return login_; }
  [[nodiscard]] const ports::Endpoint& local() const noexcept { return stream_->local(); }
  [[nodiscard]] const ports::Endpoint& remote() const noexcept { return stream_->remote(); }
  [[nodiscard]] const SessionParameters& parameters() const noexcept { return parameters_; }

  /// The end of the wait that login_ready() began: the session takes over.
  void accept(Session& session, ConnectionOwner& owner, std::uint16_t tsih, std::uint32_t depth);
  void refuse(const TargetVerdict& verdict);

  /// Ends it with RST; the owner hears why.
  void fail(std::string_view reason);
  /// As fail(), but the initiator is told first, if nothing is queued for it, that it need not wait before it logs in
  /// again (RFC 7143 11.9: Time2Wait 0). The RST comes `wait` later then.
  void drop(std::string_view reason, Duration wait);
  /// Ends it with FIN after what is queued.
  void finish(std::string_view reason);

  // For the session.
  [[nodiscard]] PduWriter& writer() noexcept { return writer_; }
  [[nodiscard]] CommandWindow& window() noexcept { return *window_; }
  /// For a PDU that carries a status: StatSN is used up.
  [[nodiscard]] SequenceNumbers next_numbers() noexcept;
  /// For one that does not.
  [[nodiscard]] SequenceNumbers current_numbers() const noexcept;
  void send_reject(RejectReason reason);
  /// Tells of MaxCmdSN when no answer is there to carry it.
  void announce_window();
  /// The session has memory for the PDU that waits.
  void place_waiting(Placement placement);
  /// Answers a logout and closes.
  void complete_logout(const LogoutRequest& pdu);

  // ports::StreamSink
  void on_receive(ConstBytes bytes) override;
  [[nodiscard]] ports::DirectTarget direct_target() override;
  void on_direct(std::size_t count) override;
  void on_send_room() override;
  void on_closed(ports::StreamError error) override;

 private:
  void process(ConstBytes& input);
  void keep_rest(ConstBytes rest);
  void continue_receiving();
  [[nodiscard]] bool is_blocked() const noexcept { return waits_for_memory_ || waits_for_room_; }

  void begin_pdu();
  void begin_full_feature_pdu();
  void take_placement(Placement placement);
  void place_scratch(std::size_t bytes_max);
  void end_pdu();
  void end_login_request();
  void end_text_request();
  void end_nop_out();
  void end_logout();
  void send_text_chunk(const TextRequest& pdu);
  void send_login_answer(LoginAnswer& answer);
  void enter_full_feature(std::uint32_t depth);
  /// Checks the CmdSN of a request; false: it is not to be looked at any further.
  [[nodiscard]] bool admit_request(bool immediate, std::uint32_t cmd_sn);

  void timer_expired();
  void arm_keepalive();
  void end(std::string_view reason);

  ports::World& world_;
  LoginHost& host_;
  ConnectionOwner* owner_;
  Session* session_ = nullptr;
  std::unique_ptr<ports::Stream> stream_;
  ConnectionTimers timers_;
  std::uint32_t recv_bytes_max_;
  Phase phase_ = Phase::login;

  PduReader reader_;
  PduWriter writer_;
  Login login_;
  SessionParameters parameters_;
  std::optional<CommandWindow> window_;
  std::uint32_t stat_sn_ = 0;

  bool is_pdu_ignored_ = false;     ///< the PDU being received is outside the window, or was refused
  BufferRef receive_buffer_;        ///< holds the place of the data segment, also when its command is aborted meanwhile
  std::vector<std::byte> scratch_;  ///< data segments of PDUs other than commands, bounded by place_scratch()
  std::vector<std::byte> stash_;    ///< received while blocked: at most what one receive brings

  TextCollector text_in_;
  std::string text_out_;
  std::size_t text_out_sent_ = 0;

  ports::Timer timer_;
  ports::DeferredTask continue_task_;
  Instant last_heard_{};
  Instant ping_sent_at_{};
  std::size_t queued_at_ping_ = 0;
  bool is_ping_out_ = false;
  bool is_receiving_paused_ = false;
  bool waits_for_memory_ = false;
  bool waits_for_room_ = false;
};

}  // namespace replblk::iscsi
