#include "iscsi/session.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "scsi/sense.hpp"

namespace replblk::iscsi {

namespace {

/// Target Transfer Tag: slot (8 bits), its generation (10), R2TSN (14). RFC 7143 11.8.4 leaves the value to the target.
constexpr std::uint32_t kGenerationMask = 0x3ff;
constexpr std::uint32_t kR2tSnMask = 0x3fff;

/// RFC 7143 11.6.1.
enum class FunctionResponse : std::uint8_t {
  complete = 0,
  task_does_not_exist = 1,
  lun_does_not_exist = 2,
  reassignment_not_supported = 4,
  not_supported = 5,
};

/// SPC-4 annex D: ABORTED COMMAND, 47/05.
constexpr scsi::SenseCode kProtocolServiceCrcError{scsi::SenseKey::aborted_command, 0x47, 0x05};

constexpr std::uint8_t kAbortTask = 1;
constexpr std::uint8_t kTargetColdReset = 7;
constexpr std::uint8_t kTaskReassign = 8;

}  // namespace

Session::Session(SessionIdentity identity, std::uint32_t depth, ports::World& world, scsi::Device& device,
                 SessionOwner& owner)
    : identity_(std::move(identity)),
      world_(world),
      device_(device),
      owner_(owner),
      nexus_(device.attach({identity_.initiator_name, identity_.isid})),
      commands_(depth + kImmediateCommandsMax),
      tags_(depth + kImmediateCommandsMax, kReservedTag),
      slots_(depth + kImmediateCommandsMax, nullptr),
      continue_task_(Callback<void()>::to<&Session::continue_granted>(*this)),
      drained_task_(Callback<void()>::to<&Session::report_drained>(*this)) {
  RB_ASSERT(depth + kImmediateCommandsMax <= kDepthMax);
  granted_.reserve(commands_.capacity());
  receive_waiter_.on_buffer = Callback<void(BufferRef)>::to<&Session::receive_buffer_granted>(*this);
}

Session::~Session() { RB_ASSERT(is_drained()); }

void Session::adopt(std::unique_ptr<Connection> connection) { connection_ = std::move(connection); }

// ---- commands in

Placement Session::begin_command(const ScsiCommand& pdu) {
  receiving_ = {};
  if (pending_logout_) {
    connection_->send_reject(RejectReason::waiting_for_logout);
    return {};
  }
  if (pdu.reads && pdu.writes) {
    // Bidirectional commands need an AHS that we do not offer; no command of ours is one.
    connection_->send_reject(RejectReason::command_not_supported);
    return {};
  }
  if (pdu.initiator_task_tag == kReservedTag || find_by_tag(pdu.initiator_task_tag) != nullptr) {
    // 11.2.1.8: a tag names one task at a time.
    connection_->send_reject(RejectReason::invalid_pdu_field);
    return Placement::failed();
  }
  if (pdu.immediate && immediate_count_ == kImmediateCommandsMax) {
    connection_->send_reject(RejectReason::too_many_immediate_commands);
    return {};
  }
  const bool data_comes_unasked =
      pdu.writes && (pdu.data_segment_bytes > 0 || !pdu.is_final) && pdu.expected_length_bytes > 0;
  if (!data_comes_unasked) return start_command(pdu, {}, false);
  // Its data is on the way, so the memory is needed now; how much the CDB takes of it is not known yet.
  receive_waiter_.length_bytes = std::min<std::size_t>(pdu.expected_length_bytes, BufferPool::kBufferBytesMax);
  BufferRef buffer = world_.buffers.acquire(receive_waiter_.length_bytes);
  if (buffer) return start_command(pdu, std::move(buffer), false);
  // The connection may stand still only while none of its own commands holds, or waits for, memory that only more data
  // of this connection sets free; otherwise everybody could wait for everybody. SAM-5 5.3.1: TASK SET FULL says
  // "later".
  if (collecting_count_ > 0) return start_command(pdu, {}, true);
  buffer = world_.buffers.acquire_or_wait(receive_waiter_);
  if (buffer) return start_command(pdu, std::move(buffer), false);
  waiting_command_ = pdu;
  return Placement::waiting();
}

Placement Session::start_command(const ScsiCommand& pdu, BufferRef buffer, bool is_refused) {
  Command* command = commands_.acquire();
  RB_ASSERT(command != nullptr);  // The window and the count of immediate ones are no larger than the pool.
  const std::uint32_t slot = commands_.handle(*command).index;
  tags_[slot] = pdu.initiator_task_tag;
  slots_[slot] = command;
  live_.push_back(*command);
  receiving_ = commands_.handle(*command);
  ++collecting_count_;

  command->session = this;
  command->state = Command::State::collecting;
  command->tag = pdu.initiator_task_tag;
  command->expected_bytes = pdu.expected_length_bytes;
  command->reads = pdu.reads;
  command->writes = pdu.writes;
  command->is_immediate = pdu.immediate;
  command->holds_window = !pdu.immediate;
  if (command->holds_window) {
    connection_->window().occupy();
  } else {
    ++immediate_count_;
  }

  scsi::Task& task = command->task;
  task.nexus = nexus_;
  task.lun_field = pdu.lun;
  task.cdb = pdu.cdb;
  task.attribute = static_cast<scsi::TaskAttribute>(std::min<std::uint8_t>(pdu.attribute, 4));
  task.tag = pdu.initiator_task_tag;
  task.expected_length_bytes = pdu.expected_length_bytes;
  task.on_complete = Callback<void(scsi::Task&)>::to<&Command::task_completed>(*command);
  task.data_out_length_bytes = 0;

  std::uint32_t wanted = 0;
  if (is_refused) {
    command->is_prepared = false;
    task.is_decided = true;
    task.is_aborted = false;
    task.direction = scsi::DataDirection::none;
    task.transfer_length_bytes = 0;
    task.data_in_length_bytes = 0;
    task.sense_length_bytes = 0;
    task.status = scsi::Status::task_set_full;
  } else {
    device_.prepare(task);
    command->is_prepared = !task.is_decided;
    if (!task.is_decided && task.direction == scsi::DataDirection::out && pdu.writes) {
      wanted = std::min(pdu.expected_length_bytes, task.transfer_length_bytes);
    }
  }
  const DataOutTransfer::Start start{.expected_bytes = pdu.writes ? pdu.expected_length_bytes : 0,
                                     .wanted_bytes = wanted,
                                     .immediate_bytes = pdu.data_segment_bytes,
                                     .unsolicited_follows = pdu.writes && !pdu.is_final};
  if (!command->transfer.start(start, connection_->parameters())) return Placement::failed();
  if (wanted > 0) {
    if (!buffer) {
      command->waiter.length_bytes = wanted;
      command->waiter.on_buffer = Callback<void(BufferRef)>::to<&Command::buffer_granted>(*command);
      buffer = world_.buffers.acquire_or_wait(command->waiter);
    }
    task.data_out = std::move(buffer);
  }
  return place_in(*command, 0, pdu.data_segment_bytes);
}

Placement Session::place_in(const Command& command, std::uint32_t offset_bytes, std::uint32_t length_bytes) {
  // What the command does not want (an underflow) is received and dropped.
  const std::uint32_t wanted = command.transfer.wanted_bytes();
  if (offset_bytes >= wanted || length_bytes == 0 || !command.task.data_out) return {};
  return {.kind = Placement::Kind::here,
          .buffer = command.task.data_out.share(),
          .offset_bytes = offset_bytes,
          .length_bytes = std::min(length_bytes, wanted - offset_bytes)};
}

void Session::end_command() {
  Command* command = commands_.find(receiving_);
  if (command != nullptr && command->state == Command::State::collecting) advance(*command);
}

Placement Session::begin_data_out(const DataOut& pdu) {
  receiving_ = {};
  std::uint32_t r2t_sn = 0;
  const bool is_unsolicited = pdu.target_transfer_tag == kReservedTag;
  Command* command = is_unsolicited ? find_by_tag(pdu.initiator_task_tag) : find_by_transfer_tag(pdu, r2t_sn);
  // Data of a command that was aborted or answered meanwhile is dropped silently (RFC 7143 4.2.3.2).
  if (command == nullptr || command->state != Command::State::collecting) return {};
  const bool is_allowed =
      is_unsolicited ? command->transfer.receive_unsolicited(pdu) : command->transfer.receive_solicited(pdu, r2t_sn);
  if (!is_allowed) return Placement::failed();
  receiving_ = commands_.handle(*command);
  return place_in(*command, pdu.offset_bytes, pdu.data_segment_bytes);
}

void Session::end_data_out() { end_command(); }

void Session::advance(Command& command) {
  if (!command.transfer.is_complete()) {
    ask_for_data(command);
    return;
  }
  --collecting_count_;
  command.state = Command::State::executing;
  scsi::Task& task = command.task;
  if (task.is_decided) {
    answer(command);
    return;
  }
  if (command.transfer.is_spoiled()) {
    device_.abort(task);  // complete() follows and tells the initiator why.
    return;
  }
  task.data_out_length_bytes = command.transfer.wanted_bytes();
  device_.execute(task);
}

void Session::ask_for_data(Command& command) {
  // 11.8: an R2T is a promise that there is room; without the buffer it waits.
  if (!command.task.data_out) return;
  while (const std::optional<R2tGrant> grant = command.transfer.next_r2t()) {
    R2t pdu;
    pdu.lun = command.task.lun_field;
    pdu.initiator_task_tag = command.tag;
    pdu.target_transfer_tag = transfer_tag_of(command, grant->r2t_sn);
    pdu.numbers = connection_->current_numbers();
    pdu.r2t_sn = grant->r2t_sn;
    pdu.offset_bytes = grant->offset_bytes;
    pdu.length_bytes = grant->length_bytes;
    connection_->writer().send(encode(pdu));
  }
}

// ---- memory

void Session::Command::buffer_granted(BufferRef buffer) {
  // Called from whoever gave memory back, perhaps from inside a send: go on from the loop.
  task.data_out = std::move(buffer);
  session->granted_.push_back(this);
  session->world_.loop.defer(session->continue_task_);
}

void Session::receive_buffer_granted(BufferRef buffer) {
  receive_buffer_ = std::move(buffer);
  world_.loop.defer(continue_task_);
}

void Session::continue_granted() {
  while (!granted_.empty()) {
    Command* command = granted_.back();
    granted_.pop_back();
    if (command->state == Command::State::collecting) ask_for_data(*command);
  }
  if (receive_buffer_ && waiting_command_) {
    const ScsiCommand pdu = *waiting_command_;
    waiting_command_.reset();
    connection_->place_waiting(start_command(pdu, std::move(receive_buffer_), false));
  }
}

// ---- answers

void Session::Command::task_completed(scsi::Task& completed) {
  RB_ASSERT(&completed == &task);
  session->complete(*this);
}

void Session::complete(Command& command) {
  if (command.state == Command::State::collecting) {
    --collecting_count_;  // Aborted from elsewhere (a reset by another nexus) before its data was here.
    command.waiter.unlink();
    std::erase(granted_, &command);
  }
  const bool is_dropped = command.task.is_dropped;
  if (command.state == Command::State::executing && command.transfer.is_spoiled()) {
    // 7.9: terminated with PROTOCOL SERVICE CRC ERROR, as 11.4.7.2 maps a lost Data-Out PDU.
    command.task.status = scsi::Status::check_condition;
    command.task.sense_length_bytes =
        scsi::encode(scsi::plain_sense(kProtocolServiceCrcError), scsi::SenseFormat::fixed, command.task.sense);
    command.task.is_aborted = false;
  }
  if (connection_ != nullptr && !is_dropped && !command.task.is_aborted && command.state != Command::State::aborted) {
    answer(command);
    return;
  }
  const bool was_closed = connection_ != nullptr && connection_->window().is_closed();
  release(command);
  if (is_dropped) {
    owner_.role_lost();
  } else if (was_closed && connection_ != nullptr) {
    // No answer carries the news that there is room again.
    connection_->announce_window();
  }
  after_release();
}

void Session::answer(Command& command) {
  scsi::Task& task = command.task;
  if (command.holds_window) {
    // Before the answer, whose MaxCmdSN then offers this command's place.
    command.holds_window = false;
    connection_->window().release();
  }
  const bool is_good = task.status == scsi::Status::good || task.status == scsi::Status::condition_met;
  const bool is_data_in = task.direction == scsi::DataDirection::in && is_good;
  // A transfer in the direction that the initiator did not announce cannot happen at all.
  const bool is_impossible = (task.direction == scsi::DataDirection::in && !command.reads) ||
                             (task.direction == scsi::DataDirection::out && !command.writes);
  const std::uint32_t usable = is_impossible ? 0 : command.expected_bytes;
  std::uint32_t intended = task.direction == scsi::DataDirection::in ? 0 : task.transfer_length_bytes;
  std::uint32_t sent_bytes = 0;
  if (is_data_in) {
    sent_bytes = std::min(task.data_in_length_bytes, usable);
    intended = task.data_in_length_bytes;
  }
  const Residual residual = residual_of(usable, intended);
  std::uint32_t pdu_count = command.transfer.r2t_count();
  const bool with_status = task.status == scsi::Status::good;
  if (sent_bytes > 0) {
    pdu_count += send_data_in(command, sent_bytes, residual, with_status);
    if (with_status) {
      release(command);
      after_release();
      return;
    }
  }
  ScsiResponse response;
  response.residual = residual;
  response.status = static_cast<std::uint8_t>(task.status);
  response.initiator_task_tag = command.tag;
  response.numbers = connection_->next_numbers();
  response.exp_data_sn = pdu_count;
  if (task.sense_length_bytes == 0) {
    connection_->writer().send(encode(response));
  } else {
    // 11.4.7: SenseLength stands before the sense data.
    std::array<std::byte, 2 + scsi::Task::kSenseBytesMax> segment;
    store_be<std::uint16_t>(segment.data(), task.sense_length_bytes);
    std::memcpy(segment.data() + 2, task.sense.data(), task.sense_length_bytes);
    connection_->writer().send(encode(response), ConstBytes(segment).first(2u + task.sense_length_bytes));
  }
  release(command);
  after_release();
}

std::uint32_t Session::send_data_in(Command& command, std::uint32_t length_bytes, const Residual& residual,
                                    bool with_status) {
  scsi::Task& task = command.task;
  DataInCutter cutter(length_bytes, connection_->parameters());
  std::uint32_t data_sn = 0;
  while (!cutter.is_done()) {
    const DataInSegment segment = cutter.next();
    DataIn pdu;
    pdu.is_final = segment.ends_sequence;
    pdu.lun = task.lun_field;
    pdu.initiator_task_tag = command.tag;
    pdu.data_sn = data_sn++;
    pdu.offset_bytes = segment.offset_bytes;
    if (segment.is_last && with_status) {
      // 11.7.3: status without sense travels with the last data.
      pdu.has_status = true;
      pdu.residual = residual;
      pdu.status = static_cast<std::uint8_t>(task.status);
      pdu.numbers = connection_->next_numbers();
    } else {
      pdu.numbers = connection_->current_numbers();
      pdu.numbers.stat_sn = 0;  // 11.7: reserved without status.
    }
    if (task.data_in) {
      connection_->writer().send(encode(pdu), task.data_in.share(), segment.offset_bytes, segment.length_bytes);
    } else {
      connection_->writer().send(encode(pdu),
                                 ConstBytes(task.small_data_in).subspan(segment.offset_bytes, segment.length_bytes));
    }
  }
  return data_sn;
}

void Session::release(Command& command) {
  if (command.holds_window && connection_ != nullptr) connection_->window().release();
  command.holds_window = false;
  if (command.is_immediate) --immediate_count_;
  const std::uint32_t slot = commands_.handle(command).index;
  tags_[slot] = kReservedTag;
  slots_[slot] = nullptr;
  command.unlink();
  command.task.data_out.reset();
  command.task.data_in.reset();
  commands_.release(command);
}

void Session::after_release() {
  if (commands_.in_use_count() > 0) return;
  if (is_ended_) {
    world_.loop.defer(drained_task_);
  } else if (pending_logout_) {
    const LogoutRequest pdu = *pending_logout_;
    pending_logout_.reset();
    connection_->complete_logout(pdu);
  }
}

// ---- tags

Session::Command* Session::find_by_tag(std::uint32_t initiator_task_tag) noexcept {
  if (initiator_task_tag == kReservedTag) return nullptr;
  for (std::size_t slot = 0; slot < tags_.size(); ++slot) {
    if (tags_[slot] != initiator_task_tag) continue;
    // A task that a reset has aborted is gone for the initiator, which may use its tag again.
    Command* command = slots_[slot];
    if (command->is_prepared && command->task.is_aborted) continue;
    return command;
  }
  return nullptr;
}

std::uint32_t Session::transfer_tag_of(const Command& command, std::uint32_t r2t_sn) const noexcept {
  const SlotHandle handle = commands_.handle(command);
  return handle.index | ((handle.generation & kGenerationMask) << 8) | ((r2t_sn & kR2tSnMask) << 18);
}

Session::Command* Session::find_by_transfer_tag(const DataOut& pdu, std::uint32_t& r2t_sn) noexcept {
  const std::uint32_t slot = pdu.target_transfer_tag & 0xff;
  if (slot >= slots_.size() || slots_[slot] == nullptr || tags_[slot] != pdu.initiator_task_tag) return nullptr;
  Command* command = slots_[slot];
  if (command->is_prepared && command->task.is_aborted) return nullptr;
  if (((pdu.target_transfer_tag >> 8) & kGenerationMask) != (commands_.handle(*command).generation & kGenerationMask)) {
    return nullptr;
  }
  r2t_sn = pdu.target_transfer_tag >> 18;
  return command;
}

// ---- task management and the end

void Session::manage(const TaskManagementRequest& pdu) {
  TaskManagementResponse response;
  response.response = run_task_function(pdu);
  response.initiator_task_tag = pdu.initiator_task_tag;
  if (connection_ == nullptr) return;
  response.numbers = connection_->next_numbers();
  connection_->writer().send(encode(response));
  if (pdu.function == kTargetColdReset && response.response == static_cast<std::uint8_t>(FunctionResponse::complete)) {
    owner_.cold_reset(*this);
  }
}

std::uint8_t Session::run_task_function(const TaskManagementRequest& pdu) {
  if (pdu.function == kAbortTask) return abort_task(pdu);
  if (pdu.function == kTaskReassign) return static_cast<std::uint8_t>(FunctionResponse::reassignment_not_supported);
  if (pdu.function == 0 || pdu.function > kTargetColdReset) {
    return static_cast<std::uint8_t>(FunctionResponse::not_supported);
  }
  // One connection: every command before this request has been received, so there is none to wait for (RFC
  // 7143 4.2.3.3).
  switch (device_.manage(static_cast<scsi::TaskFunction>(pdu.function), nexus_, pdu.lun)) {
    case scsi::TaskFunctionResult::complete:
      return static_cast<std::uint8_t>(FunctionResponse::complete);
    case scsi::TaskFunctionResult::task_not_found:
      return static_cast<std::uint8_t>(FunctionResponse::task_does_not_exist);
    case scsi::TaskFunctionResult::lun_not_found:
      return static_cast<std::uint8_t>(FunctionResponse::lun_does_not_exist);
    case scsi::TaskFunctionResult::not_supported:
      return static_cast<std::uint8_t>(FunctionResponse::not_supported);
  }
  RB_UNREACHABLE();
}

std::uint8_t Session::abort_task(const TaskManagementRequest& pdu) {
  Command* command = find_by_tag(pdu.referenced_task_tag);
  if (command != nullptr) {
    abort(*command);
    return static_cast<std::uint8_t>(FunctionResponse::complete);
  }
  // 11.6.1: a command that was sent before this request and has not come is taken as received, and aborted.
  const bool is_awaited = is_before(pdu.ref_cmd_sn, pdu.cmd_sn) && connection_->window().mark_received(pdu.ref_cmd_sn);
  return static_cast<std::uint8_t>(is_awaited ? FunctionResponse::complete : FunctionResponse::task_does_not_exist);
}

void Session::abort(Command& command) {
  if (command.state == Command::State::aborted) return;
  if (command.state == Command::State::collecting) --collecting_count_;
  command.state = Command::State::aborted;
  command.waiter.unlink();
  std::erase(granted_, &command);
  tags_[commands_.handle(command).index] = kReservedTag;
  if (command.is_prepared) {
    // Its on_complete frees the slot: later in this turn, or when the disk answers. A task that somebody else has
    // aborted is on its way already.
    if (!command.task.is_aborted) device_.abort(command.task);
  } else {
    release(command);
  }
}

void Session::abort_all() {
  for (Command* command = live_.front(); command != nullptr;) {
    Command* next = live_.next(*command);
    abort(*command);
    command = next;
  }
}

bool Session::logout(const LogoutRequest& pdu) {
  abort_all();
  if (commands_.in_use_count() == 0) return true;
  pending_logout_ = pdu;
  return false;
}

void Session::terminate(std::string_view reason) {
  if (connection_ != nullptr) connection_->fail(reason);
}

void Session::drop(std::string_view reason, Duration wait) {
  if (connection_ != nullptr) connection_->drop(reason, wait);
}

void Session::connection_ended(Connection& connection, std::string_view reason) {
  RB_ASSERT(&connection == connection_.get());
  log_info("session of {} from {} ended: {}; {} commands in flight", identity_.initiator_name,
           to_string(identity_.address), reason, commands_.in_use_count());
  owner_.bury(std::move(connection_));
  is_ended_ = true;
  pending_logout_.reset();
  waiting_command_.reset();
  receive_waiter_.unlink();
  receive_buffer_.reset();
  abort_all();
  after_release();
}

void Session::report_drained() {
  RB_ASSERT(is_drained() && device_.executing_count(nexus_) == 0);
  device_.detach(nexus_);
  owner_.session_drained(*this);
}

}  // namespace replblk::iscsi
