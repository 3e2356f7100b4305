// The changes of a device's persistent reservations, one after the other. What a PERSISTENT RESERVE OUT asks for is
// worked out on a copy of its unit's reservation; the table with it is kept (ReservationKeeper); only then it takes
// effect, and the command is answered.
//
// Until then every other command sees the state before the change. So nobody is ever told of a state that a failover
// can undo: the node that takes over in between has the table before or this one, and the initiator without an answer
// cannot know when its change took effect. (In effect at once, a READ KEYS could show a registration that the next
// primary has never heard of.) A change that the keeper has cannot be taken back: its task, aborted or hit by a reset,
// stays until the keeper is done, and the change takes effect if it was kept, so that what holds here is what is kept.
// Not kept: the role is lost; the commands are dropped with their connections, and load_reservations() says what holds.
//
// Not responsible for what a change is (persistent_reserve_commands, PersistentReservation). Called by the logical
// units. Invariant: the keeper has at most one table outstanding, and it differs from what holds by one command.
#pragma once

#include <optional>
#include <vector>

#include "base/intrusive_list.hpp"
#include "scsi/device.hpp"
#include "scsi/persistent_reservation.hpp"
#include "scsi/task.hpp"

namespace replblk::scsi {

class LogicalUnit;

class ReservationChanges {
 public:
  explicit ReservationChanges(ReservationKeeper* keeper) noexcept : keeper_(keeper) {}
  ReservationChanges(const ReservationChanges&) = delete;
  ReservationChanges& operator=(const ReservationChanges&) = delete;

  /// At the beginning, once for each unit.
  void add_unit(LogicalUnit& unit) { units_.push_back(&unit); }
  /// A PERSISTENT RESERVE OUT that is running and whose parameters are good; it finishes when its change is kept. While
  /// it waits for others before it, it is linked by ReservationLink and may be unlinked.
  void submit(Task& task);
  /// A change is with the keeper that leaves registrations on `unit`.
  [[nodiscard]] bool will_register(const LogicalUnit& unit) const noexcept;
  [[nodiscard]] bool is_idle() const noexcept { return !change_.has_value() && waiting_.empty(); }

 private:
  struct Change {
    Task* task = nullptr;
    PersistentReservation reservation;
    PersistentReservation::Answer answer;
  };

  void run();
  void begin(Task& task);
  void kept(bool is_kept);
  void take_effect(Change change);

  ReservationKeeper* keeper_;
  std::vector<LogicalUnit*> units_;
  std::optional<Change> change_;  ///< with the keeper
  IntrusiveList<TaskWork, ReservationLink> waiting_;
  bool is_running_ = false;
};

}  // namespace replblk::scsi
