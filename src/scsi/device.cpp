#include "scsi/device.hpp"

#include <array>

#include "base/log.hpp"
#include "scsi/logical_unit.hpp"
#include "scsi/reservation_table.hpp"

namespace replblk::scsi {

namespace {

constexpr std::size_t kUnitsMax = 256;

/// SAM-5 4.7.7: single level, peripheral device (00b) or flat space (01b) addressing; nothing else names a unit of
/// ours.
std::size_t decode_lun(std::uint64_t field) noexcept {
  constexpr std::uint64_t kSecondLevels = 0x0000ffffffffffffu;
  if ((field & kSecondLevels) != 0) return kUnitsMax;
  const auto method = static_cast<unsigned>(field >> 62);
  const auto number = static_cast<std::size_t>((field >> 48) & 0x3fff);
  return method <= 1 && number < kUnitsMax ? number : kUnitsMax;
}

}  // namespace

class Device::Impl {
 public:
  Impl(DeviceConfig config, ports::Loop& loop, BufferPool& buffers)
      : config_(std::move(config)),
        completions_(loop, Callback<void(Task&)>::to<&Impl::deliver>(*this)),
        changes_(config_.reservation_keeper) {
    absent_ = std::make_unique<LogicalUnit>(absent_config_, config_, buffers, completions_, changes_);
    units_.reserve(config_.units.size());
    for (const UnitConfig& unit : config_.units) {
      RB_ASSERT(unit.lun < kUnitsMax && unit.backend != nullptr && by_lun_[unit.lun] == nullptr);
      units_.push_back(std::make_unique<LogicalUnit>(unit, config_, buffers, completions_, changes_));
      by_lun_[unit.lun] = units_.back().get();
      changes_.add_unit(*units_.back());
    }
  }

  NexusId attach(const NexusInfo& info) {
    std::size_t slot = 0;
    // A slot whose aborted tasks are still out keeps its count until they are back.
    while (slot < nexuses_.size() && (nexuses_[slot].is_attached || nexuses_[slot].executing_count > 0)) ++slot;
    if (slot == nexuses_.size()) nexuses_.push_back({});
    Nexus& nexus = nexuses_[slot];
    RB_ASSERT(slot <= 0xffff);
    ++nexus.generation;
    nexus.is_attached = true;
    const NexusId id{static_cast<std::uint32_t>(nexus.generation) << 16 | static_cast<std::uint32_t>(slot)};
    absent_->attach(id, info);
    for (const auto& unit : units_) unit->attach(id, info);
    return id;
  }

  void detach(NexusId nexus) {
    Nexus& entry = find(nexus);
    entry.is_attached = false;
    absent_->detach(nexus);
    for (const auto& unit : units_) unit->detach(nexus);
  }

  void prepare(Task& task) {
    RB_ASSERT(find(task.nexus).is_attached);
    LogicalUnit* unit = find_unit(task.lun_field);
    (unit != nullptr ? *unit : *absent_).prepare(task);
  }

  void execute(Task& task) {
    ++find(task.nexus).executing_count;
    task.work.is_executing = true;
    static_cast<LogicalUnit*>(task.unit)->execute(task);
  }

  TaskFunctionResult manage(TaskFunction function, NexusId nexus, std::uint64_t lun_field) {
    switch (function) {
      case TaskFunction::target_warm_reset:
      case TaskFunction::target_cold_reset:
        for (const auto& unit : units_) {
          unit->reset(
              function == TaskFunction::target_warm_reset ? UnitAttention::target_reset : UnitAttention::power_on,
              nexus);
        }
        return TaskFunctionResult::complete;
      case TaskFunction::clear_aca:  // NORMACA = 0: there is never an ACA to clear.
      case TaskFunction::abort_task:
        return TaskFunctionResult::not_supported;
      case TaskFunction::abort_task_set:
      case TaskFunction::clear_task_set:
      case TaskFunction::logical_unit_reset:
        break;
    }
    LogicalUnit* unit = find_unit(lun_field);
    if (unit == nullptr) return TaskFunctionResult::lun_not_found;
    if (function == TaskFunction::abort_task_set) {
      unit->abort_task_set(nexus);
    } else if (function == TaskFunction::clear_task_set) {
      unit->clear_task_set(nexus);
    } else {
      unit->reset(UnitAttention::unit_reset, nexus);
    }
    return TaskFunctionResult::complete;
  }

  [[nodiscard]] std::size_t executing_count(NexusId nexus) const {
    const std::size_t slot = slot_of(nexus);
    RB_ASSERT(slot < nexuses_.size());
    return nexuses_[slot].generation == nexus.value >> 16 ? nexuses_[slot].executing_count : 0;
  }

  void load_reservations(std::string_view table) {
    RB_ASSERT(changes_.is_idle());
    for (const auto& unit : units_) unit->persistent_reservation() = {};
    auto loaded = decode_reservations(table);
    if (!loaded.has_value()) {
      log_error("target {}: the table of persistent reservations ({} bytes) is malformed: begins without reservations",
                config_.target_name, table.size());
      return;
    }
    for (UnitReservation& unit : *loaded) {
      // A unit that is not configured any more has no initiators either.
      if (by_lun_[unit.lun] != nullptr) by_lun_[unit.lun]->persistent_reservation() = std::move(unit.reservation);
    }
  }

  void capacity_changed(std::uint16_t lun) {
    RB_ASSERT(lun < kUnitsMax && by_lun_[lun] != nullptr);
    by_lun_[lun]->establish_for_all(UnitAttention::capacity_changed);
  }

 private:
  struct Nexus {
    std::uint16_t generation = 0;
    bool is_attached = false;
    std::size_t executing_count = 0;
  };

  Nexus& find(NexusId nexus) {
    const std::size_t slot = slot_of(nexus);
    RB_ASSERT(slot < nexuses_.size() && nexuses_[slot].generation == nexus.value >> 16);
    return nexuses_[slot];
  }

  LogicalUnit* find_unit(std::uint64_t lun_field) noexcept {
    const std::size_t lun = decode_lun(lun_field);
    return lun < kUnitsMax ? by_lun_[lun] : nullptr;
  }

  void deliver(Task& task) {
    if (task.work.is_executing) {
      task.work.is_executing = false;
      --find(task.nexus).executing_count;
    }
    // From here on the transport may use the task again.
    task.work.state = TaskState::idle;
    task.on_complete(task);
  }

  const DeviceConfig config_;
  const UnitConfig absent_config_;
  CompletionQueue completions_;
  ReservationChanges changes_;
  std::unique_ptr<LogicalUnit> absent_;
  std::vector<std::unique_ptr<LogicalUnit>> units_;
  std::array<LogicalUnit*, kUnitsMax> by_lun_{};
  std::vector<Nexus> nexuses_;
};

Device::Device(DeviceConfig config, ports::Loop& loop, BufferPool& buffers)
    : impl_(std::make_unique<Impl>(std::move(config), loop, buffers)) {}
Device::~Device() = default;

NexusId Device::attach(const NexusInfo& info) { return impl_->attach(info); }
void Device::detach(NexusId nexus) { impl_->detach(nexus); }
void Device::prepare(Task& task) { impl_->prepare(task); }
void Device::execute(Task& task) { impl_->execute(task); }

void Device::abort(Task& task) {
  // Decided or complete: nothing is left to abort.
  if (task.work.state == TaskState::idle) return;
  static_cast<LogicalUnit*>(task.unit)->abort(task);
}

TaskFunctionResult Device::manage(TaskFunction function, NexusId nexus, std::uint64_t lun_field) {
  return impl_->manage(function, nexus, lun_field);
}
std::size_t Device::executing_count(NexusId nexus) const { return impl_->executing_count(nexus); }
void Device::load_reservations(std::string_view table) { impl_->load_reservations(table); }
void Device::capacity_changed(std::uint16_t lun) { impl_->capacity_changed(lun); }

}  // namespace replblk::scsi
