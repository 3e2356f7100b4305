// The commands: plan, run and resume functions that the opcode table names. Each file of commands implements one group.
// Not responsible for reservations, unit attentions, order or abort: the logical unit has done that.
// Called by the logical unit through the table only. Invariant: a run or resume ends in exactly one of finish(),
// fail(), submit(), or waiting for a buffer.
#pragma once

#include "scsi/persistent_reservation.hpp"
#include "scsi/task.hpp"

namespace replblk::scsi {

class LogicalUnit;

namespace commands {

using Step = void(LogicalUnit&, Task&);

/// Plans for commands whose allocation length stands in byte 4, bytes 3-4, bytes 6-9, bytes 7-8 or bytes 10-13.
Step plan_allocation_4, plan_allocation_3, plan_allocation_6, plan_allocation_7, plan_allocation_10;
Step plan_nothing, run_good;

// inquiry.cpp, vpd.cpp, capacity.cpp
Step plan_inquiry, run_inquiry;
Step run_request_sense;
Step plan_read_capacity_10, run_read_capacity_10, plan_read_capacity_16, run_read_capacity_16;
Step plan_get_lba_status, run_get_lba_status;
Step plan_report_luns, run_report_luns;

// mode_pages.cpp
Step plan_mode_sense_6, run_mode_sense_6, plan_mode_sense_10, run_mode_sense_10;
Step plan_mode_select_6, run_mode_select_6, plan_mode_select_10, run_mode_select_10;

// opcode_report.cpp
Step plan_report_opcodes, run_report_opcodes, plan_report_task_functions, run_report_task_functions;

// block_commands.cpp
Step plan_read, run_read, resume_read;
Step plan_write, run_write;
Step plan_synchronize_cache, run_flush;
Step plan_prefetch, run_prefetch;
Step plan_seek, plan_start_stop, run_start_stop;
Step plan_compare_and_write, run_compare_and_write;

// verify_commands.cpp
Step plan_verify, run_verify, resume_verify;
Step plan_write_and_verify, run_write_and_verify, resume_write_and_verify;

// write_same.cpp, unmap.cpp
Step plan_write_same, run_write_same, resume_write_same;
Step plan_unmap, run_unmap, resume_unmap;

// reservation.cpp, persistent_reserve_commands.cpp
Step run_reserve, run_release;
Step run_persistent_reserve_in, plan_persistent_reserve_out, run_persistent_reserve_out;
/// What a PERSISTENT RESERVE OUT makes of `reservation`; its parameters have been checked. For ReservationChanges.
[[nodiscard]] PersistentReservation::Answer change_reservation(const LogicalUnit& unit, const Task& task,
                                                               PersistentReservation& reservation);
void answer_reservation(LogicalUnit& unit, Task& task, ReservationOutcome outcome);

}  // namespace commands
}  // namespace replblk::scsi
