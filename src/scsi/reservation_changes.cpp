#include "scsi/reservation_changes.hpp"

#include <string>
#include <utility>

#include "scsi/commands.hpp"
#include "scsi/logical_unit.hpp"
#include "scsi/reservation_table.hpp"

namespace replblk::scsi {

namespace {

LogicalUnit& unit_of(const Task& task) noexcept { return *static_cast<LogicalUnit*>(task.unit); }

void drop(Task& task) {
  task.is_dropped = true;
  unit_of(task).finish(task);
}

}  // namespace

bool ReservationChanges::will_register(const LogicalUnit& unit) const noexcept {
  return change_.has_value() && change_->task->unit == &unit && !change_->reservation.registrations().empty();
}

void ReservationChanges::submit(Task& task) {
  waiting_.push_back(task.work);
  run();
}

void ReservationChanges::run() {
  if (is_running_) return;  // A command that finishes may let the next one run, which comes back here.
  is_running_ = true;
  while (!change_.has_value()) {
    TaskWork* const work = waiting_.pop_front();
    if (work == nullptr) break;
    begin(work->task);
  }
  is_running_ = false;
}

void ReservationChanges::begin(Task& task) {
  LogicalUnit& unit = unit_of(task);
  Change change{&task, unit.persistent_reservation(), {}};
  change.answer = commands::change_reservation(unit, task, change.reservation);
  const bool is_change = change.reservation != unit.persistent_reservation();
  if (change.answer.outcome != ReservationOutcome::good || !is_change) {
    commands::answer_reservation(unit, task, change.answer.outcome);
    return;
  }
  if (keeper_ == nullptr) {
    take_effect(std::move(change));
    return;
  }
  std::vector<UnitReservation> all;
  for (LogicalUnit* each : units_)
    all.push_back({each->config().lun, each == &unit ? change.reservation : each->persistent_reservation()});
  std::string table = encode_reservations(all);
  if (table.size() > Device::kReservationTableBytesMax) {
    commands::answer_reservation(unit, task, ReservationOutcome::no_room);
    return;
  }
  change_ = std::move(change);
  keeper_->keep(std::move(table), Callback<void(bool)>::to<&ReservationChanges::kept>(*this));
}

void ReservationChanges::kept(bool is_kept) {
  RB_ASSERT(change_.has_value());
  Change change = std::move(*change_);
  change_.reset();
  if (is_kept) {
    take_effect(std::move(change));
  } else {
    drop(*change.task);
    while (TaskWork* const work = waiting_.pop_front()) drop(work->task);
  }
  run();
}

void ReservationChanges::take_effect(Change change) {
  Task& task = *change.task;
  LogicalUnit& unit = unit_of(task);
  unit.persistent_reservation() = std::move(change.reservation);
  for (const ReservationNotice& notice : change.answer.notices) unit.establish_for(notice.port, notice.condition);
  if (change.answer.aborted.empty()) {
    commands::answer_reservation(unit, task, ReservationOutcome::good);
  } else {
    unit.abort_preempted(task, change.answer.aborted);
  }
}

}  // namespace replblk::scsi
