// Order of tasks, unit attentions, reservations, task management.
#include "scsi_fixture.hpp"

namespace replblk::scsi::test {

using blockdev::BlockOp;

const Bytes kTestUnitReady = {0x00, 0, 0, 0, 0, 0};
constexpr SenseCode kPowerOn{SenseKey::unit_attention, 0x29, 0x00};
constexpr SenseCode kUnitReset{SenseKey::unit_attention, 0x29, 0x03};
constexpr SenseCode kTargetReset{SenseKey::unit_attention, 0x29, 0x02};
constexpr SenseCode kCommandsCleared{SenseKey::unit_attention, 0x2f, 0x00};

class Tasks : public ScsiTest {
 protected:
  Tasks() { disk.is_held = true; }
  std::unique_ptr<Command> read(TaskAttribute attribute = TaskAttribute::simple, NexusId from = {}) {
    return start(cdb_10(0x28, 0, 1), {}, from, 0, attribute);
  }
  void settle() {
    do {
      disk.complete_all();
      loop.run();
    } while (disk.pending_count() > 0);
  }
  std::unique_ptr<Command> ready(NexusId from) { return run(kTestUnitReady, {}, from); }
};

// SIMPLE tasks must not wait for each other: queue depth would be one.
TEST_F(Tasks, Simple_tasks_run_side_by_side) {
  std::vector<std::unique_ptr<Command>> commands;
  for (int index = 0; index < 32; ++index) commands.push_back(read());
  EXPECT_EQ(disk.pending_count(), 32u);
  EXPECT_EQ(device->executing_count(nexus), 32u);
  settle();
  EXPECT_EQ(device->executing_count(nexus), 0u);
  for (const auto& command : commands) EXPECT_EQ(command->completions, 1);
}

// An ORDERED task is a barrier; file systems that use it lose their order when it is not.
TEST_F(Tasks, Ordered_task_waits_for_earlier_and_holds_back_later_ones) {
  const auto before = read();
  const auto ordered = start(cdb_10(0x2a, 8, 1), Bytes(512), {}, 0, TaskAttribute::ordered);
  const auto after = read();
  const auto second = start(cdb_10(0x2a, 9, 1), Bytes(512), {}, 0, TaskAttribute::ordered);
  EXPECT_EQ(disk.pending_count(), 1u);
  disk.complete_one();
  EXPECT_EQ(disk.pending_count(), 1u);
  EXPECT_EQ(disk.seen.back().op, BlockOp::write);
  disk.complete_one();
  EXPECT_EQ(disk.pending_count(), 1u);
  EXPECT_EQ(disk.seen.back().op, BlockOp::read);
  disk.complete_one();
  EXPECT_EQ(disk.seen.back().offset_bytes, 9u * 512);
  settle();
  for (const auto* command : {&before, &ordered, &after, &second}) EXPECT_EQ((*command)->completions, 1);
}

// The order is that of arrival (prepare), not that in which the data happens to come.
TEST_F(Tasks, Ordered_task_waits_for_an_earlier_one_that_still_collects_data) {
  const auto collecting = prepare(cdb_10(0x2a, 1, 1), Bytes(512));
  const auto ordered = read(TaskAttribute::ordered);
  EXPECT_EQ(disk.pending_count(), 0u);
  execute(*collecting);
  EXPECT_EQ(disk.pending_count(), 1u);
  settle();
  EXPECT_TRUE(ordered->is_complete());
}

TEST_F(Tasks, Head_of_queue_overtakes_what_has_not_begun) {
  const auto running = read();
  const auto ordered = read(TaskAttribute::ordered);
  const auto head = start(cdb_10(0x28, 100, 1), {}, {}, 0, TaskAttribute::head_of_queue);
  EXPECT_EQ(disk.pending_count(), 2u);
  EXPECT_EQ(disk.seen.back().offset_bytes, 51200u);
  disk.complete_one();
  EXPECT_EQ(disk.pending_count(), 1u) << "ordered waits for the head of queue task too";
  settle();
  EXPECT_TRUE(running->is_complete() && ordered->is_complete() && head->is_complete());
}

// Commands that are complete at once are told from the loop, in a chain of ordered ones too.
TEST_F(Tasks, Chain_of_ordered_tasks_without_io_runs_through) {
  const auto gate = read();
  std::vector<std::unique_ptr<Command>> chain;
  for (int index = 0; index < 10; ++index) chain.push_back(start(kTestUnitReady, {}, {}, 0, TaskAttribute::ordered));
  settle();
  for (const auto& command : chain) EXPECT_EQ(command->completions, 1);
  EXPECT_TRUE(gate->is_complete());
}

// The initiator that asks for an abort must not wait for a stuck disk, and must not get the answer afterwards.
TEST_F(Tasks, Aborted_write_is_complete_only_when_the_disk_returns) {
  const auto command = start(cdb_10(0x2a, 0, 1), Bytes(512));
  device->abort(command->task);
  loop.run();
  EXPECT_FALSE(command->is_complete()) << "the buffer belongs to the disk";
  EXPECT_TRUE(command->task.is_aborted);
  EXPECT_EQ(device->executing_count(nexus), 1u);
  settle();
  EXPECT_EQ(command->completions, 1);
  EXPECT_EQ(device->executing_count(nexus), 0u);
}

// What was not submitted when it was aborted must never reach the disk.
TEST_F(Tasks, Aborted_before_submission_never_takes_effect) {
  const auto gate = read();
  const auto blocked = start(cdb_10(0x2a, 0, 1), Bytes(512), {}, 0, TaskAttribute::ordered);
  const auto collecting = prepare(cdb_10(0x2a, 1, 1), Bytes(512));
  device->abort(blocked->task);
  device->abort(collecting->task);
  device->abort(collecting->task);
  EXPECT_FALSE(collecting->is_complete());
  loop.run();
  EXPECT_EQ(blocked->completions, 1);
  EXPECT_EQ(collecting->completions, 1);
  settle();
  EXPECT_EQ(disk.seen.size(), 1u);
  EXPECT_TRUE(gate->is_complete());
}

// Aborting the barrier lets go what it held back.
TEST_F(Tasks, Aborted_ordered_task_releases_the_later_ones) {
  const auto gate = read();
  const auto ordered = read(TaskAttribute::ordered);
  const auto after = read();
  EXPECT_EQ(disk.pending_count(), 1u);
  device->abort(ordered->task);
  EXPECT_EQ(disk.pending_count(), 2u);
  settle();
  EXPECT_TRUE(after->is_complete());
}

// An abort that comes when the result is already on its way suppresses the answer and does nothing else.
TEST_F(Tasks, Abort_of_a_finished_task_is_harmless) {
  const auto command = read();
  disk.complete_all();
  device->abort(command->task);
  loop.run();
  EXPECT_EQ(command->completions, 1);
  EXPECT_TRUE(command->task.is_aborted);
  device->abort(command->task);
}

// A task is used again and again by the transport: nothing of the last use may stay.
TEST_F(Tasks, Task_can_be_used_again_after_an_abort) {
  const auto command = start(cdb_10(0x28, 0, 1));
  device->abort(command->task);
  settle();
  device->prepare(command->task);
  EXPECT_FALSE(command->task.is_aborted);
  device->execute(command->task);
  settle();
  EXPECT_EQ(command->completions, 2);
  EXPECT_EQ(command->task.data_in_length_bytes, 512u);
}

TEST_F(Tasks, Abort_task_set_hits_the_own_tasks_only) {
  const auto mine = read();
  const auto waiting = start(cdb_10(0x2a, 0, 1), Bytes(512), {}, 0, TaskAttribute::ordered);
  const auto theirs = read(TaskAttribute::simple, other);
  EXPECT_EQ(device->manage(TaskFunction::abort_task_set, nexus, 0), TaskFunctionResult::complete);
  settle();
  EXPECT_TRUE(mine->task.is_aborted && waiting->task.is_aborted);
  EXPECT_FALSE(theirs->task.is_aborted);
  expect_good(*theirs);
  for (const auto& seen : disk.seen) EXPECT_EQ(seen.op, BlockOp::read);
  expect_good(*ready(other));
  loop.run();
}

// TAS = 0: others get no answer but a unit attention; TAS = 1: TASK ABORTED and no unit attention (SAM-5 5.6).
TEST_F(Tasks, Clear_task_set_tells_the_others_by_unit_attention) {
  const auto mine = read();
  const auto theirs = read(TaskAttribute::simple, other);
  EXPECT_EQ(device->manage(TaskFunction::clear_task_set, nexus, 0), TaskFunctionResult::complete);
  settle();
  EXPECT_TRUE(mine->task.is_aborted && theirs->task.is_aborted);
  expect_sense(*ready(other), kCommandsCleared);
  expect_good(*ready(nexus));
  loop.run();
}

TEST_F(Tasks, Clear_task_set_with_tas_answers_the_others) {
  disk.is_held = false;
  Bytes list = run({0x1a, 0x08, 0x0a, 0, 255, 0})->data_in();
  list[0] = 0;
  list[2] = 0;
  list[4 + 5] = 0x40;
  expect_good(*run({0x15, 0x10, 0, 0, static_cast<std::uint8_t>(list.size()), 0}, list));
  clear_attentions();
  disk.is_held = true;
  const auto mine = read();
  const auto theirs = read(TaskAttribute::simple, other);
  const auto collecting = prepare(cdb_10(0x2a, 0, 1), Bytes(512), other);
  (void)device->manage(TaskFunction::clear_task_set, nexus, 0);
  settle();
  EXPECT_TRUE(mine->task.is_aborted);
  for (const auto* command : {&theirs, &collecting}) {
    EXPECT_FALSE((*command)->task.is_aborted);
    EXPECT_EQ((*command)->task.status, Status::task_aborted);
    EXPECT_EQ((*command)->task.data_in_length_bytes, 0u);
    EXPECT_EQ((*command)->completions, 1);
  }
  expect_good(*ready(other));
  loop.run();
}

// A reset ends everything on the unit and nothing elsewhere; everyone is told once.
TEST_F(Tasks, Logical_unit_reset) {
  const auto mine = read();
  const auto theirs = read(TaskAttribute::ordered, other);
  const auto elsewhere = prepare(cdb_10(0x28, 0, 1), {}, {}, 1);
  EXPECT_EQ(device->manage(TaskFunction::logical_unit_reset, nexus, 0), TaskFunctionResult::complete);
  settle();
  execute(*elsewhere);
  settle();
  EXPECT_TRUE(mine->task.is_aborted && theirs->task.is_aborted);
  EXPECT_FALSE(elsewhere->task.is_aborted);
  for (const NexusId each : {nexus, other}) {
    expect_sense(*ready(each), kUnitReset);
    const auto good = ready(each);
    loop.run();
    expect_good(*good);
  }
  expect_good(*run(kTestUnitReady, {}, {}, 1));
}

TEST_F(Tasks, Target_resets_reach_every_unit) {
  for (const auto& [function, sense] : {std::pair{TaskFunction::target_warm_reset, kTargetReset},
                                        std::pair{TaskFunction::target_cold_reset, kPowerOn}}) {
    EXPECT_EQ(device->manage(function, nexus, 77ull << 48), TaskFunctionResult::complete);
    for (const std::uint64_t lun : {0u, 1u}) {
      expect_sense(*run(kTestUnitReady, {}, nexus, lun), sense);
      expect_sense(*run(kTestUnitReady, {}, other, lun), sense);
    }
  }
}

TEST_F(Tasks, What_is_not_there_is_said) {
  EXPECT_EQ(device->manage(TaskFunction::logical_unit_reset, nexus, 5ull << 48), TaskFunctionResult::lun_not_found);
  EXPECT_EQ(device->manage(TaskFunction::clear_aca, nexus, 0), TaskFunctionResult::not_supported);
}

class Attentions : public ScsiTest {};

// A new initiator must learn once, per unit, that what it remembers of the disk may be old.
TEST_F(Attentions, New_nexus_gets_power_on_once_per_unit) {
  const NexusId third = device->attach({"iqn.2026-11.org.example:three", 3});
  for (const std::uint64_t lun : {0u, 1u}) {
    expect_good(*run({0x12, 0, 0, 0, 36, 0}, {}, third, lun));
    expect_good(*run({0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0}, {}, third, lun));
    expect_sense(*run(kTestUnitReady, {}, third, lun), kPowerOn);
    expect_good(*run(kTestUnitReady, {}, third, lun));
  }
  expect_good(*run(kTestUnitReady));
  device->detach(third);
}

// REQUEST SENSE takes the attention away and is itself no error.
TEST_F(Attentions, Request_sense_reports_and_clears) {
  device->capacity_changed(0);
  const Bytes fixed = run({0x03, 0, 0, 0, 252, 0})->data_in();
  ASSERT_EQ(fixed.size(), 18u);
  EXPECT_EQ(fixed[0], 0x70);
  EXPECT_EQ(fixed[2], 0x06);
  EXPECT_EQ(fixed[12], 0x2a);
  EXPECT_EQ(fixed[13], 0x09);
  expect_good(*run(kTestUnitReady));
  const Bytes descriptor = run({0x03, 0x01, 0, 0, 252, 0}, {}, other)->data_in();
  EXPECT_EQ(descriptor, (Bytes{0x72, 0x06, 0x2a, 0x09, 0, 0, 0, 0}));
  EXPECT_EQ(run({0x03, 0, 0, 0, 252, 0})->data_in()[2], 0x00);
  EXPECT_EQ(run({0x03, 0, 0, 0, 4, 0})->data_in().size(), 4u);
}

// Several at once: the reset first, and it stands for what came before it.
TEST_F(Attentions, Reset_replaces_what_was_pending) {
  device->capacity_changed(0);
  (void)device->manage(TaskFunction::logical_unit_reset, other, 0);
  device->capacity_changed(0);
  expect_sense(*run(kTestUnitReady), kUnitReset);
  expect_sense(*run(kTestUnitReady), {SenseKey::unit_attention, 0x2a, 0x09});
  expect_good(*run(kTestUnitReady));
}

// The attention comes before any complaint about the command, and the command is not carried out.
TEST_F(Attentions, Pending_attention_keeps_the_command_from_running) {
  device->capacity_changed(0);
  expect_sense(*run(cdb_10(0x2a, kBlocks, 1), Bytes(512)), {SenseKey::unit_attention, 0x2a, 0x09});
  device->capacity_changed(0);
  expect_sense(*run({0xff, 0, 0, 0, 0, 0}), {SenseKey::unit_attention, 0x2a, 0x09});
  EXPECT_TRUE(disk.seen.empty());
}

class Reservations : public ScsiTest {
 protected:
  const Bytes reserve = {0x16, 0, 0, 0, 0, 0};
  const Bytes release = {0x17, 0, 0, 0, 0, 0};
  Status status_of(const Bytes& cdb, NexusId from, const Bytes& data = {}) { return run(cdb, data, from)->task.status; }
};

// Two initiators that both believe to hold the disk destroy its file system.
TEST_F(Reservations, Holder_excludes_the_other) {
  expect_good(*run(reserve));
  expect_good(*run(reserve));
  for (const Bytes& cdb :
       {kTestUnitReady, reserve, cdb_10(0x28, 0, 1), cdb_10(0x2a, 0, 1), cdb_10(0x56, 0, 0), cdb_10(0x35, 0, 0)}) {
    EXPECT_EQ(status_of(cdb, other, Bytes(512)), Status::reservation_conflict);
  }
  for (const Bytes& cdb : {Bytes{0x12, 0, 0, 0, 36, 0}, Bytes{0x03, 0, 0, 0, 18, 0}, release}) {
    EXPECT_EQ(status_of(cdb, other), Status::good);
  }
  EXPECT_EQ(status_of(kTestUnitReady, other), Status::reservation_conflict) << "released by another than the holder";
  expect_good(*run(cdb_10(0x2a, 0, 1), Bytes(512)));
  EXPECT_EQ(run(kTestUnitReady, {}, other, 1)->task.status, Status::good);
  expect_good(*run(cdb_10(0x57, 0, 0)));
  EXPECT_EQ(status_of(kTestUnitReady, other), Status::good);
}

TEST_F(Reservations, Resets_and_nexus_loss_release) {
  expect_good(*run(reserve));
  (void)device->manage(TaskFunction::logical_unit_reset, other, 0);
  clear_attentions();
  EXPECT_EQ(status_of(kTestUnitReady, other), Status::good);
  expect_good(*run(reserve));
  (void)device->manage(TaskFunction::target_warm_reset, other, 0);
  clear_attentions();
  EXPECT_EQ(status_of(reserve, other), Status::good);
  device->detach(other);
  expect_good(*run(kTestUnitReady));
  other = device->attach({"iqn.2026-11.org.example:two", 2});
}

// Both admitted before either ran: only one may win.
TEST_F(Reservations, Of_two_that_arrive_together_one_wins) {
  const auto first = prepare(reserve);
  const auto second = prepare(reserve, {}, other);
  execute(*second);
  execute(*first);
  loop.run();
  EXPECT_EQ(second->task.status, Status::good);
  EXPECT_EQ(first->task.status, Status::reservation_conflict);
}

}  // namespace replblk::scsi::test
