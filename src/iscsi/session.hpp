// One normal session: the I_T nexus, its commands from arrival to answer, and task management (RFC
// 7143 4.2, 11.3-11.8). Not responsible for bytes, login, text or time-outs (connection), nor for which session may
// exist (target). Made by target when a login is accepted; it owns its connection from then on. Commands live in a pool
// of fixed size; a command is, in this order: collecting (prepared, data on its way) → executing → answered. Invariant
// (no ghosts, docs: "The mirrored write"): after end() nothing is executed any more, and the session exists until every
// command that was executing has come back; only then does the owner hear session_drained().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer_pool.hpp"
#include "base/intrusive_list.hpp"
#include "base/slot_pool.hpp"
#include "iscsi/connection.hpp"
#include "iscsi/negotiation.hpp"
#include "iscsi/pdu.hpp"
#include "iscsi/transfer.hpp"
#include "ports/loop.hpp"
#include "ports/world.hpp"
#include "scsi/device.hpp"
#include "scsi/task.hpp"

namespace replblk::iscsi {

class Session;

class SessionOwner {
 public:
  /// The session has lost its connection, which is to be destroyed later, not now.
  virtual void bury(std::unique_ptr<Connection> connection) = 0;
  /// Nothing of the ended session can take effect any more. It may be destroyed in a later turn of the loop or task.
  virtual void session_drained(Session& session) = 0;
  /// TARGET COLD RESET was answered (RFC 7143 11.5.1): all connections of the target are to end.
  virtual void cold_reset(Session& requester) = 0;
  /// A command came back dropped: this node may not answer any more (docs: "Who may serve").
  virtual void role_lost() = 0;

 protected:
  ~SessionOwner() = default;
};

struct SessionIdentity {
  std::string initiator_name;
  std::uint64_t isid = 0;
  std::uint16_t tsih = 0;
  ports::Endpoint address;
  Instant since{};
  SessionParameters parameters;
};

class Session final : public ConnectionOwner {
 public:
  /// Immediate SCSI commands stand outside the window; so many are taken besides it.
  static constexpr std::uint32_t kImmediateCommandsMax = 8;
  /// The slot index is one byte of the Target Transfer Tag, and 0xff is kept for the reserved tag.
  static constexpr std::uint32_t kDepthMax = 240;

  Session(SessionIdentity identity, std::uint32_t depth, ports::World& world, scsi::Device& device,
          SessionOwner& owner);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  void adopt(std::unique_ptr<Connection> connection);

  [[nodiscard]] const SessionIdentity& identity() const noexcept { return identity_; }
  [[nodiscard]] std::size_t command_count() const noexcept { return commands_.in_use_count(); }
  [[nodiscard]] bool is_ended() const noexcept { return is_ended_; }
  [[nodiscard]] bool is_drained() const noexcept { return is_ended_ && commands_.in_use_count() == 0; }
  [[nodiscard]] Connection* connection() noexcept { return connection_.get(); }

  /// Resets the connection and ends the session.
  void terminate(std::string_view reason);
  /// Likewise, but the initiator may learn that it can come back at once.
  void drop(std::string_view reason, Duration wait);

  // From the connection, for the PDU that is being received. A command's window was checked before.
  [[nodiscard]] Placement begin_command(const ScsiCommand& pdu);
  void end_command();
  [[nodiscard]] Placement begin_data_out(const DataOut& pdu);
  void end_data_out();
  void manage(const TaskManagementRequest& pdu);
  /// False: commands are still at the disks; Connection::complete_logout() follows when they are back.
  [[nodiscard]] bool logout(const LogoutRequest& pdu);

  // ConnectionOwner
  void connection_ended(Connection& connection, std::string_view reason) override;

 private:
  class Command : public IntrusiveNode<Command> {
   public:
    enum class State : std::uint8_t { collecting, executing, aborted };
    scsi::Task task;
    Session* session = nullptr;
    DataOutTransfer transfer;
    BufferWaiter waiter;
    std::uint32_t tag = kReservedTag;
    std::uint32_t expected_bytes = 0;
    bool reads = false;
    bool writes = false;
    bool is_immediate = false;
    bool holds_window = false;
    /// Known to the device, which completes it exactly once after execute() or abort().
    bool is_prepared = false;
    State state = State::collecting;

    void task_completed(scsi::Task& completed);
    void buffer_granted(BufferRef buffer);
  };

  [[nodiscard]] Command* find_by_tag(std::uint32_t initiator_task_tag) noexcept;
  [[nodiscard]] Command* find_by_transfer_tag(const DataOut& pdu, std::uint32_t& r2t_sn) noexcept;
  [[nodiscard]] std::uint32_t transfer_tag_of(const Command& command, std::uint32_t r2t_sn) const noexcept;

  [[nodiscard]] Placement start_command(const ScsiCommand& pdu, BufferRef buffer, bool is_refused);
  [[nodiscard]] static Placement place_in(const Command& command, std::uint32_t offset_bytes,
                                          std::uint32_t length_bytes);
  void advance(Command& command);
  void ask_for_data(Command& command);
  void complete(Command& command);
  void answer(Command& command);
  [[nodiscard]] std::uint32_t send_data_in(Command& command, std::uint32_t length_bytes, const Residual& residual,
                                           bool with_status);
  void release(Command& command);
  void abort(Command& command);
  void abort_all();
  void after_release();
  void report_drained();
  void receive_buffer_granted(BufferRef buffer);
  void continue_granted();
  [[nodiscard]] std::uint8_t run_task_function(const TaskManagementRequest& pdu);
  [[nodiscard]] std::uint8_t abort_task(const TaskManagementRequest& pdu);

  SessionIdentity identity_;
  ports::World& world_;
  scsi::Device& device_;
  SessionOwner& owner_;
  std::unique_ptr<Connection> connection_;
  scsi::NexusId nexus_;
  SlotPool<Command> commands_;
  std::vector<std::uint32_t> tags_;       ///< by slot: its initiator task tag, searched without touching the commands
  std::vector<Command*> slots_;           ///< by slot; null: free
  IntrusiveList<Command, Command> live_;  ///< collecting or executing
  std::uint32_t immediate_count_ = 0;
  std::uint32_t collecting_count_ = 0;

  SlotHandle receiving_;  ///< the command that the PDU being received belongs to
  /// A write whose first data comes with it, for which there is no buffer yet; the connection stands still.
  std::optional<ScsiCommand> waiting_command_;
  BufferWaiter receive_waiter_;
  BufferRef receive_buffer_;
  std::vector<Command*> granted_;  ///< got their buffer from inside release(); R2T goes out from the loop
  ports::DeferredTask continue_task_;
  ports::DeferredTask drained_task_;
  std::optional<LogoutRequest> pending_logout_;
  bool is_ended_ = false;
};

}  // namespace replblk::iscsi
