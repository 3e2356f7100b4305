// RESERVE and RELEASE (SPC-2 7.21, 7.17): the whole unit, for the I_T nexus that asks.
#include "scsi/commands.hpp"
#include "scsi/logical_unit.hpp"

namespace replblk::scsi::commands {

void run_reserve(LogicalUnit& unit, Task& task) {
  // SPC-4 5.13.3: not beside persistent reservations (CRH = 0).
  if (unit.has_registrations()) {
    unit.finish(task, Status::reservation_conflict);
    return;
  }
  unit.finish(task, unit.reserve(task.nexus) ? Status::good : Status::reservation_conflict);
}

/// A release by another than the holder does nothing and is GOOD.
void run_release(LogicalUnit& unit, Task& task) {
  if (unit.has_registrations()) {
    unit.finish(task, Status::reservation_conflict);
    return;
  }
  unit.release_reservation(task.nexus);
  unit.finish(task);
}

}  // namespace replblk::scsi::commands
