#include "scsi/logical_unit.hpp"

#include <algorithm>
#include <cstring>

#include "scsi/opcode_table.hpp"

namespace replblk::scsi {

LogicalUnit::LogicalUnit(const UnitConfig& config, const DeviceConfig& device, BufferPool& buffers,
                         CompletionQueue& completions, ReservationChanges& changes)
    : config_(config), device_(device), buffers_(buffers), completions_(completions), changes_(changes) {}

LogicalUnit::~LogicalUnit() = default;

void LogicalUnit::attach(NexusId nexus, const NexusInfo& port) {
  const std::size_t slot = slot_of(nexus);
  if (slot >= nexuses_.size()) nexuses_.resize(slot + 1);
  nexuses_[slot] = {nexus, true, {}, port};
  if (is_present()) nexuses_[slot].attentions.establish(UnitAttention::power_on);
}

void LogicalUnit::detach(NexusId nexus) {
  // SPC-2 5.5.1: I_T nexus loss releases the reservation.
  release_reservation(nexus);
  nexuses_[slot_of(nexus)].is_attached = false;
}

UnitAttentions& LogicalUnit::attentions(NexusId nexus) {
  Nexus& entry = nexuses_[slot_of(nexus)];
  RB_ASSERT(entry.is_attached && entry.id == nexus);
  return entry.attentions;
}

void LogicalUnit::establish_for_all(UnitAttention condition, const NexusId* but) {
  for (Nexus& nexus : nexuses_) {
    if (nexus.is_attached && (but == nullptr || nexus.id != *but)) nexus.attentions.establish(condition);
  }
}

void LogicalUnit::establish_for(const NexusInfo& port, UnitAttention condition) {
  for (Nexus& nexus : nexuses_) {
    if (nexus.is_attached && nexus.port == port) nexus.attentions.establish(condition);
  }
}

const NexusInfo& LogicalUnit::port_of(NexusId nexus) const {
  const Nexus& entry = nexuses_[slot_of(nexus)];
  RB_ASSERT(entry.is_attached && entry.id == nexus);
  return entry.port;
}

bool LogicalUnit::is_excluded(const Task& task, const Opcode& opcode) const {
  return persistent_.is_reserved() && !persistent_.permits(port_of(task.nexus), opcode.reservation_class);
}

bool LogicalUnit::reserve(NexusId nexus) noexcept {
  if (is_reserved_) return reservation_holder_ == nexus;
  is_reserved_ = true;
  reservation_holder_ = nexus;
  return true;
}

void LogicalUnit::release_reservation(NexusId nexus) noexcept {
  if (is_reserved_ && reservation_holder_ == nexus) is_reserved_ = false;
}

// Admission.

void LogicalUnit::prepare(Task& task) {
  TaskWork& work = task.work;
  RB_ASSERT(work.state == TaskState::idle);
  task.is_decided = false;
  task.is_aborted = false;
  task.is_dropped = false;
  task.direction = DataDirection::none;
  task.transfer_length_bytes = 0;
  task.data_out_length_bytes = 0;
  task.status = Status::good;
  task.sense_length_bytes = 0;
  task.data_in.reset();
  task.data_in_length_bytes = 0;
  task.unit = this;
  task.step = 0;
  task.progress_bytes = 0;
  work.is_cancelled = false;
  work.is_task_aborted_told = false;
  work.lba = 0;
  work.block_count = 0;
  work.preemption = 0;
  if (!is_admitted(task)) return;
  work.state = TaskState::collecting;
  tasks_.add(task);
}

bool LogicalUnit::is_admitted(Task& task) {
  const auto code = std::to_integer<std::uint8_t>(task.cdb[0]);
  const OpcodeLookup lookup = find_opcode(code, std::to_integer<std::uint8_t>(task.cdb[1]) & 0x1f);
  if (!is_present() && (lookup.opcode == nullptr || !lookup.opcode->passes_absent_unit)) {
    reject(task, plain_sense(kUnitNotSupported));
    return false;
  }
  // SPC-4 5.14: a unit attention comes before anything that is wrong with the command.
  if (lookup.opcode == nullptr || !lookup.opcode->passes_unit_attention) {
    if (const auto attention = attentions(task.nexus).take()) {
      reject(task, plain_sense(*attention));
      return false;
    }
  }
  if (lookup.opcode == nullptr) {
    reject(task, lookup.refusal == kInvalidFieldInCdb ? invalid_cdb_field(1, 4) : plain_sense(lookup.refusal));
    return false;
  }
  const Opcode& opcode = *lookup.opcode;
  if ((is_reserved_ && reservation_holder_ != task.nexus && !opcode.passes_reservation) || is_excluded(task, opcode)) {
    task.status = Status::reservation_conflict;
    task.is_decided = true;
    return false;
  }
  if (const auto reserved = find_reserved_bit(opcode, task.cdb)) {
    reject(task, invalid_cdb_field(reserved->byte, reserved->bit));
    return false;
  }
  // We have no ACA, so nothing can be an ACA task (SAM-5 8.6.5).
  if (task.attribute == TaskAttribute::aca) {
    reject(task, plain_sense(kInvalidMessage));
    return false;
  }
  if (opcode.changes_medium && mode_.is_write_protected) {
    reject(task, plain_sense(kSoftwareWriteProtected));
    return false;
  }
  task.work.opcode = &opcode;
  task.direction = opcode.direction;
  opcode.plan(*this, task);
  return !task.is_decided;
}

void LogicalUnit::set_sense(Task& task, const Sense& sense) noexcept {
  task.status = Status::check_condition;
  task.sense_length_bytes = encode(sense, sense_format(), task.sense);
}

void LogicalUnit::reject(Task& task, const Sense& sense) {
  set_sense(task, sense);
  task.direction = DataDirection::none;
  task.transfer_length_bytes = 0;
  task.is_decided = true;
}

bool LogicalUnit::plan_range(Task& task) {
  const BlockRange range = decode_range(task.cdb);
  const std::uint64_t blocks = block_count();
  if (range.lba > blocks || range.count > blocks - range.lba) {
    reject(task, sense_with_information(kLbaOutOfRange, std::max(range.lba, blocks)));
    return false;
  }
  task.work.lba = range.lba;
  task.work.block_count = range.count;
  return true;
}

bool LogicalUnit::plan_transfer(Task& task, std::uint64_t blocks) {
  if (blocks > BufferPool::kBufferBytesMax / block_bytes()) {
    reject(task, invalid_cdb_field(count_byte(task.cdb), 7));
    return false;
  }
  task.transfer_length_bytes = static_cast<std::uint32_t>(blocks * block_bytes());
  return true;
}

// Running.

void LogicalUnit::execute(Task& task) {
  RB_ASSERT(task.work.state == TaskState::collecting && !task.work.is_cancelled);
  if (tasks_.may_run(task)) {
    start(task);
  } else {
    task.work.state = TaskState::blocked;
    tasks_.note_blocked();
  }
}

void LogicalUnit::start(Task& task) {
  task.work.state = TaskState::running;
  // Asked again: whoever was fenced while its data was collected, or while it waited, must not write any more.
  if (is_excluded(task, *task.work.opcode)) {
    finish(task, Status::reservation_conflict);
    return;
  }
  task.work.opcode->run(*this, task);
}

bool LogicalUnit::request_buffer(Task& task, std::size_t length_bytes) {
  if (task.data_in) return true;
  BufferWaiter& waiter = task.work.buffer_waiter;
  waiter.length_bytes = length_bytes;
  waiter.on_buffer = Callback<void(BufferRef)>::with(&task, &LogicalUnit::on_buffer);
  task.data_in = buffers_.acquire_or_wait(waiter);
  return static_cast<bool>(task.data_in);
}

void LogicalUnit::on_buffer(void* context, BufferRef buffer) {
  Task& task = *static_cast<Task*>(context);
  RB_ASSERT(task.work.state == TaskState::running);
  task.data_in = std::move(buffer);
  task.work.opcode->run(*static_cast<LogicalUnit*>(task.unit), task);
}

void LogicalUnit::submit(Task& task) {
  RB_ASSERT(task.work.state == TaskState::running && !task.work.is_cancelled);
  task.request.on_complete =
      Callback<void(blockdev::BlockRequest&)>::with(&task, [](void* context, blockdev::BlockRequest&) {
        Task& finished = *static_cast<Task*>(context);
        static_cast<LogicalUnit*>(finished.unit)->on_request_complete(finished);
      });
  config_.backend->submit(task.request);
}

void LogicalUnit::on_request_complete(Task& task) {
  using blockdev::BlockStatus;
  if (task.request.status == BlockStatus::not_serving) {
    task.is_dropped = true;
    finish(task);
  } else if (task.work.is_cancelled) {
    finish(task);
  } else if (task.request.status != BlockStatus::good) {
    fail(task, sense_of(task.request));
  } else if (task.work.opcode->resume != nullptr) {
    task.work.opcode->resume(*this, task);
  } else {
    finish(task);
  }
}

void LogicalUnit::answer(Task& task, std::size_t length_bytes) {
  RB_ASSERT(length_bytes <= kScratchBytes);
  const std::size_t length = std::min<std::size_t>(length_bytes, task.transfer_length_bytes);
  if (length <= Task::kSmallDataBytesMax) {
    std::memcpy(task.small_data_in.data(), scratch_.data(), length);
    task.data_in.reset();
  } else {
    if (!request_buffer(task, length)) return;
    std::memcpy(task.data_in.data(), scratch_.data(), length);
  }
  task.data_in_length_bytes = static_cast<std::uint32_t>(length);
  finish(task);
}

void LogicalUnit::fail(Task& task, const Sense& sense) {
  set_sense(task, sense);
  task.data_in_length_bytes = 0;
  finish(task, Status::check_condition);
}

void LogicalUnit::finish(Task& task, Status status) {
  RB_ASSERT(task.work.state != TaskState::idle && task.work.state != TaskState::finishing);
  task.status = status;
  if (task.work.is_cancelled) {
    task.sense_length_bytes = 0;
    task.data_in_length_bytes = 0;
    if (task.work.is_task_aborted_told) task.status = Status::task_aborted;
  }
  leave(task);
}

void LogicalUnit::leave(Task& task) {
  task.work.state = TaskState::finishing;
  tasks_.remove(task);
  completions_.push(task);
  // Buffers go back last: giving one back may run another task that waits for it.
  task.request.buffer.reset();
  task.request.buffer_offset_bytes = 0;
  task.data_out.reset();
  if (task.data_in_length_bytes == 0) task.data_in.reset();
  if (!preemptions_.empty()) finish_preemptions();
  if (tasks_.has_blocked()) release_blocked();
}

void LogicalUnit::release_blocked() {
  if (is_releasing_) return;  // A released task that is complete at once comes back here; the loop below goes on.
  is_releasing_ = true;
  while (Task* task = tasks_.find_released()) {
    tasks_.note_released();
    start(*task);
  }
  is_releasing_ = false;
}

ConstBytes LogicalUnit::data_out(const Task& task) noexcept {
  if (!task.data_out) return {};
  return task.data_out.bytes(0, std::min(task.data_out_length_bytes, task.transfer_length_bytes));
}

// Task management (SAM-5 7).

void LogicalUnit::abort(Task& task) {
  task.is_aborted = true;
  if (cancel(task)) finish(task);
}

bool LogicalUnit::cancel(Task& task) {
  TaskWork& work = task.work;
  if (work.state == TaskState::finishing || work.is_cancelled) return false;
  work.is_cancelled = true;
  switch (work.state) {
    case TaskState::collecting:
      break;
    case TaskState::blocked:
      tasks_.note_released();
      break;
    case TaskState::running: {
      // With a request out, or a table with the keeper, it finishes when that comes back; waiting for memory, or for
      // other changes of the reservation, it has none.
      auto& reservation_link = static_cast<IntrusiveNode<ReservationLink>&>(work);
      if (reservation_link.is_linked()) {
        reservation_link.unlink();
        break;
      }
      if (!work.buffer_waiter.is_linked()) return false;
      buffers_.cancel(work.buffer_waiter);
      break;
    }
    case TaskState::idle:
    case TaskState::finishing:
      RB_UNREACHABLE();
  }
  work.state = TaskState::running;
  return true;
}

void LogicalUnit::finish_all(IntrusiveList<TaskWork, ReadyLink>& cancelled) {
  while (TaskWork* work = cancelled.pop_front()) finish(work->task);
}

void LogicalUnit::abort_task_set(NexusId nexus) {
  // First all are cancelled, then finished: finishing one lets others run that are to be aborted too.
  IntrusiveList<TaskWork, ReadyLink> cancelled;
  for (Task* task = tasks_.first(); task != nullptr; task = tasks_.next(*task)) {
    if (task->nexus != nexus) continue;
    task->is_aborted = true;
    if (cancel(*task)) cancelled.push_back(task->work);
  }
  finish_all(cancelled);
}

void LogicalUnit::clear_task_set(NexusId nexus) {
  IntrusiveList<TaskWork, ReadyLink> cancelled;
  for (Task* task = tasks_.first(); task != nullptr; task = tasks_.next(*task)) {
    if (task->work.is_cancelled) continue;
    if (task->nexus == nexus) {
      task->is_aborted = true;
    } else if (mode_.is_abort_told) {
      task->work.is_task_aborted_told = true;
    } else {
      // SAM-5 5.6: with TAS = 0 the other initiators learn by a unit attention that their commands are gone.
      task->is_aborted = true;
      attentions(task->nexus).establish(UnitAttention::commands_cleared);
    }
    if (cancel(*task)) cancelled.push_back(task->work);
  }
  finish_all(cancelled);
}

void LogicalUnit::abort_preempted(Task& task, const std::vector<NexusInfo>& ports) {
  IntrusiveList<TaskWork, ReadyLink> cancelled;
  const std::uint64_t preemption = ++last_preemption_;
  for (Task* other = tasks_.first(); other != nullptr; other = tasks_.next(*other)) {
    TaskWork& work = other->work;
    if (other == &task || std::ranges::find(ports, port_of(other->nexus)) == ports.end()) continue;
    // One that was aborted before may still take effect: it is waited for as well, by this and any earlier preemption.
    if (work.preemption == 0) work.preemption = preemption;
    if (work.is_cancelled) continue;
    if (other->nexus != task.nexus && mode_.is_abort_told) {
      work.is_task_aborted_told = true;
    } else {
      other->is_aborted = true;
    }
    if (cancel(*other)) cancelled.push_back(work);
  }
  finish_all(cancelled);
  if (task.work.is_cancelled || is_over(preemption)) {
    finish(task);
    return;
  }
  task.work.preemption = preemption;
  preemptions_.push_back(task.work);
}

bool LogicalUnit::is_over(std::uint64_t preemption) noexcept {
  for (Task* task = tasks_.first(); task != nullptr; task = tasks_.next(*task)) {
    const TaskWork& work = task->work;
    if (work.is_cancelled && work.preemption != 0 && work.preemption <= preemption) return false;
  }
  return true;
}

void LogicalUnit::finish_preemptions() {
  // Finishing one comes back here.
  while (TaskWork* const work = preemptions_.front()) {
    if (!is_over(work->preemption)) return;
    preemptions_.pop_front();
    finish(work->task);
  }
}

void LogicalUnit::reset(UnitAttention condition, NexusId nexus) {
  // SAM-5 6.3.3: abort all, release reservations, mode pages go back to their defaults, unit attention for everyone.
  clear_task_set(nexus);
  is_reserved_ = false;
  mode_ = {};
  establish_for_all(condition);
}

}  // namespace replblk::scsi
