// Persistent reservations that are kept before they are answered, and what holds in between.
#include <deque>

#include "scsi_fixture.hpp"

namespace replblk::scsi::test {

namespace {

constexpr std::uint64_t kOne = 0x1111111111111111;
constexpr std::uint64_t kTwo = 0x2222222222222222;
constexpr std::uint8_t kRegister = 0, kReserve = 1, kRelease = 2, kPreempt = 4, kPreemptAndAbort = 5;
constexpr std::uint8_t kWriteExclusive = 1, kAllRegistrants = 7;

/// Keeps when told to.
class Keeper final : public ReservationKeeper {
 public:
  void keep(std::string table, Callback<void(bool is_kept)> done) override {
    asked.push_back({std::move(table), done});
  }
  void answer(bool is_kept) {
    const Asked first = std::move(asked.front());
    asked.pop_front();
    if (is_kept) kept = first.table;
    first.done(is_kept);
  }
  struct Asked {
    std::string table;
    Callback<void(bool is_kept)> done;
  };
  std::deque<Asked> asked;
  std::string kept;
};

}  // namespace

class Kept : public ScsiTest {
 protected:
  Kept() : ScsiTest(std::size_t{32} << 20, &keeper) {}
  ~Kept() override {
    disk.complete_all();
    loop.run();
    while (!keeper.asked.empty()) keeper.answer(false);
    loop.run();
  }
  std::unique_ptr<Command> start_out(std::uint8_t action, NexusId from, std::uint64_t key, std::uint64_t action_key = 0,
                                     std::uint8_t type = 0, std::uint8_t flags = 0, std::uint64_t lun = 0) {
    Bytes list(24);
    store_be(reinterpret_cast<std::byte*>(&list[0]), key);
    store_be(reinterpret_cast<std::byte*>(&list[8]), action_key);
    list[20] = flags;
    auto command = start({0x5f, action, type, 0, 0, 0, 0, 0, 24, 0}, list, from, lun);
    loop.run();
    return command;
  }
  /// Kept at once, and answered GOOD.
  void out(std::uint8_t action, NexusId from, std::uint64_t key, std::uint64_t action_key = 0, std::uint8_t type = 0) {
    const auto command = start_out(action, from, key, action_key, type);
    ASSERT_EQ(keeper.asked.size(), 1u);
    EXPECT_FALSE(command->is_complete()) << "answered before it was kept";
    keeper.answer(true);
    loop.run();
    expect_good(*command);
  }
  std::size_t keys() { return (run({0x5e, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0})->data_in().size() - 8) / 8; }
  std::unique_ptr<Command> start_write(NexusId from) {
    auto command = start(cdb_10(0x2a, 0, 1), Bytes(512), from);
    loop.run();
    return command;
  }
  /// The node takes over whose record says `table`.
  void fail_over(const std::string& table) {
    DeviceConfig config;
    config.units.push_back({0, {}, "replblk", &disk});
    config.units.push_back({1, {}, "replblk", &second_disk});
    config.reservation_keeper = &keeper;
    device = std::make_unique<Device>(std::move(config), loop, buffers);
    device->load_reservations(table);
    nexus = device->attach({"iqn.2026-11.org.example:one", 1});
    other = device->attach({"iqn.2026-11.org.example:two", 2});
    clear_attentions();
  }

  Keeper keeper;
};

// If it failed, a failover could undo what an initiator was told, or what another was shown.
TEST_F(Kept, A_change_shows_and_is_answered_only_when_it_is_kept) {
  const auto command = start_out(kRegister, nexus, 0, kOne);
  EXPECT_FALSE(command->is_complete());
  EXPECT_EQ(keys(), 0u);
  keeper.answer(true);
  EXPECT_FALSE(command->is_complete()) << "from inside the keeper's call";
  loop.run();
  EXPECT_EQ(command->completions, 1);
  expect_good(*command);
  EXPECT_EQ(keys(), 1u);
}

TEST_F(Kept, What_changes_nothing_is_answered_without_being_kept) {
  out(kRegister, nexus, 0, kOne);
  out(kReserve, nexus, kOne, 0, kWriteExclusive);
  EXPECT_TRUE(start_out(kReserve, nexus, kOne, 0, kWriteExclusive)->is_complete()) << "the same again";
  EXPECT_EQ(start_out(kReserve, other, kTwo, 0, 1)->task.status, Status::reservation_conflict);
  EXPECT_TRUE(start_out(kRegister, other, 0, 0)->is_complete()) << "nothing to unregister";
  EXPECT_TRUE(keeper.asked.empty());
}

// Each table replaces the one before, so a second change must see the first.
TEST_F(Kept, Changes_are_kept_one_after_the_other_also_of_different_units) {
  const auto first = start_out(kRegister, nexus, 0, kOne);
  const auto second = start_out(kRegister, other, 0, kTwo, 0, 0, 1);
  const auto third = start_out(kReserve, nexus, kOne, 0, kWriteExclusive);
  ASSERT_EQ(keeper.asked.size(), 1u);
  keeper.answer(true);
  loop.run();
  EXPECT_TRUE(first->is_complete());
  EXPECT_FALSE(second->is_complete());
  ASSERT_EQ(keeper.asked.size(), 1u);
  keeper.answer(true);
  keeper.answer(true);
  loop.run();
  expect_good(*second);
  expect_good(*third);
  fail_over(keeper.kept);
  EXPECT_EQ(keys(), 1u);
  EXPECT_EQ(start_write(other)->task.status, Status::reservation_conflict);
  expect_good(*start_write(nexus));
  EXPECT_EQ(run({0x5e, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0}, {}, nexus, 1)->data_in().size(), 8u + 8);
}

// The same port, {name, ISID}, still holds; the one that was fenced still is; and generations go on.
TEST_F(Kept, Registrations_and_the_reservation_survive_a_failover) {
  out(kRegister, nexus, 0, kOne);
  out(kRegister, other, 0, kTwo);
  out(kReserve, other, kTwo, 0, kWriteExclusive);
  const Bytes status = run({0x5e, 3, 0, 0, 0, 0, 0, 0xff, 0xff, 0})->data_in();
  fail_over(keeper.kept);
  EXPECT_EQ(run({0x5e, 3, 0, 0, 0, 0, 0, 0xff, 0xff, 0})->data_in(), status);
  EXPECT_EQ(start_write(nexus)->task.status, Status::reservation_conflict);
  expect_good(*start_write(other));
  out(kRelease, other, kTwo, 0, kWriteExclusive);
  expect_good(*start_write(nexus));
}

TEST_F(Kept, A_malformed_table_is_refused_whole) {
  out(kRegister, nexus, 0, kOne);
  out(kReserve, nexus, kOne, 0, kWriteExclusive);
  fail_over(keeper.kept + "x");
  EXPECT_EQ(keys(), 0u);
  expect_good(*start_write(other));
}

// Whose role is lost must answer neither this change nor those behind it, and shows none of them.
TEST_F(Kept, A_change_that_is_not_kept_drops_all_that_wait) {
  const auto first = start_out(kRegister, nexus, 0, kOne);
  const auto second = start_out(kRegister, other, 0, kTwo);
  keeper.answer(false);
  EXPECT_TRUE(keeper.asked.empty());
  loop.run();
  for (const auto* command : {first.get(), second.get()}) {
    EXPECT_EQ(command->completions, 1);
    EXPECT_TRUE(command->task.is_dropped);
  }
  EXPECT_EQ(keys(), 0u);
  device->load_reservations(keeper.kept);
  out(kRegister, nexus, 0, kOne);
}

// What holds here and what is kept must be one, whoever has lost interest meanwhile.
TEST_F(Kept, An_aborted_change_that_the_keeper_has_takes_effect_when_it_is_kept) {
  const auto command = start_out(kRegister, nexus, 0, kOne);
  device->abort(command->task);
  loop.run();
  EXPECT_FALSE(command->is_complete()) << "a session that is reinstated must wait for it";
  EXPECT_EQ(device->executing_count(nexus), 1u);
  keeper.answer(true);
  loop.run();
  EXPECT_EQ(command->completions, 1);
  EXPECT_TRUE(command->task.is_aborted);
  EXPECT_EQ(keys(), 1u);
}

TEST_F(Kept, A_waiting_change_that_is_aborted_never_takes_effect) {
  const auto first = start_out(kRegister, nexus, 0, kOne);
  const auto second = start_out(kRegister, other, 0, kTwo);
  const auto third = start_out(kReserve, nexus, kOne, 0, kAllRegistrants);
  device->abort(second->task);
  loop.run();
  EXPECT_EQ(second->completions, 1);
  keeper.answer(true);
  keeper.answer(true);
  loop.run();
  EXPECT_TRUE(keeper.asked.empty());
  expect_good(*third);
  EXPECT_EQ(keys(), 1u);
}

TEST_F(Kept, Resets_are_answered_at_once_and_leave_what_is_kept) {
  for (const TaskFunction function : {TaskFunction::logical_unit_reset, TaskFunction::target_warm_reset}) {
    const std::uint64_t key = function == TaskFunction::logical_unit_reset ? kOne : kTwo;
    const auto first = start_out(6, nexus, 0, key);
    const auto second = start_out(kRegister, other, 0, kTwo);
    EXPECT_EQ(device->manage(function, nexus, 0), TaskFunctionResult::complete);
    loop.run();
    EXPECT_FALSE(first->is_complete());
    EXPECT_TRUE(second->is_complete());
    keeper.answer(true);
    loop.run();
    EXPECT_EQ(first->completions, 1);
    EXPECT_TRUE(first->task.is_aborted);
    EXPECT_TRUE(keeper.asked.empty());
    clear_attentions();
    const Bytes read = run({0x5e, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0})->data_in();
    ASSERT_EQ(read.size(), 8u + 8);
    EXPECT_EQ(load_be<std::uint64_t>(reinterpret_cast<const std::byte*>(&read[8])), key);
  }
}

// Between the two kinds of reservation the first one wins, also while it is being kept.
TEST_F(Kept, Reserve_is_refused_while_a_registration_is_being_kept) {
  const auto command = start_out(kRegister, nexus, 0, kOne);
  EXPECT_EQ(run({0x16, 0, 0, 0, 0, 0}, {}, other)->task.status, Status::reservation_conflict);
  EXPECT_EQ(run({0x16, 0, 0, 0, 0, 0}, {}, other, 1)->task.status, Status::good) << "another unit";
  keeper.answer(true);
  loop.run();
  expect_good(*command);
}

// SPC-4 6.15.4: PTPL_C and PTPL_A; and what is announced is taken.
TEST_F(Kept, Persistence_through_power_loss_is_announced_and_accepted) {
  const Bytes capabilities = run({0x5e, 2, 0, 0, 0, 0, 0, 0, 8, 0})->data_in();
  EXPECT_EQ(capabilities, (Bytes{0, 8, 0x01, 0x81, 0xea, 0x01, 0, 0}));
  const auto command = start_out(kRegister, nexus, 0, kOne, 0, 1);
  keeper.answer(true);
  loop.run();
  expect_good(*command);
  for (const std::uint8_t flag : Bytes{0x04, 0x08})
    EXPECT_EQ(start_out(kRegister, nexus, kOne, kTwo, 0, flag)->parameter_field(), 20) << int(flag);
}

// A table that the record cannot hold must be refused where somebody can still be told.
TEST_F(Kept, A_registration_that_the_record_has_no_room_for_is_refused) {
  std::size_t answered = 0;
  bool is_refused = false;
  for (std::uint64_t lun = 0; lun < 2; ++lun) {
    for (std::uint64_t isid = 0; isid < 128 && !is_refused; ++isid) {
      const NexusId each = device->attach({std::string(223, 'n'), 100 + isid});
      (void)run({0x03, 0, 0, 0, 252, 0}, {}, each, lun);
      const auto command = start_out(kRegister, each, 0, kOne, 0, 0, lun);
      if (keeper.asked.empty()) {
        is_refused = true;
        expect_sense(*command, kInsufficientRegistrationResources);
      } else {
        ASSERT_LE(keeper.asked.front().table.size(), Device::kReservationTableBytesMax);
        keeper.answer(true);
        loop.run();
        expect_good(*command);
        ++answered;
      }
      device->detach(each);
    }
  }
  EXPECT_TRUE(is_refused);
  EXPECT_GT(answered, 128u);
}

// SPC-4 5.13.11.5: the fence is up only when nothing of the preempted one can reach the disk any more.
TEST_F(Kept, Preempt_and_abort_is_answered_when_the_aborted_commands_are_over) {
  out(kRegister, nexus, 0, kOne);
  out(kRegister, other, 0, kTwo);
  out(kReserve, other, kTwo, 0, kWriteExclusive);
  disk.is_held = true;
  const auto out_there = start_write(other);
  const auto collecting = prepare(cdb_10(0x2a, 0, 1), Bytes(512), other);
  const auto bystander = start(cdb_10(0x28, 0, 1), {}, nexus);
  const auto preempt = start_out(kPreemptAndAbort, nexus, kOne, kTwo, kWriteExclusive);
  EXPECT_EQ(collecting->completions, 0) << "nobody is preempted before it is kept";
  keeper.answer(true);
  loop.run();
  EXPECT_EQ(collecting->completions, 1);
  EXPECT_TRUE(collecting->task.is_aborted);
  EXPECT_FALSE(preempt->is_complete());
  disk.complete_one();
  loop.run();
  EXPECT_EQ(out_there->completions, 1);
  EXPECT_TRUE(out_there->task.is_aborted);
  EXPECT_EQ(preempt->completions, 1) << "the own read is not waited for";
  expect_good(*preempt);
  disk.complete_all();
  loop.run();
  expect_good(*bystander);
  expect_sense(*start_write(other), {SenseKey::unit_attention, 0x2a, 0x05});
  EXPECT_EQ(start_write(other)->task.status, Status::reservation_conflict);
}

// A task that was aborted before is as dangerous: its write may still be on its way.
TEST_F(Kept, Preempt_and_abort_waits_for_what_was_aborted_before_and_can_be_aborted_itself) {
  out(kRegister, nexus, 0, kOne);
  out(kRegister, other, 0, kTwo);
  disk.is_held = true;
  const auto ghost = start_write(other);
  device->abort(ghost->task);
  const auto first = start_out(kPreemptAndAbort, nexus, kOne, kTwo, kWriteExclusive);
  keeper.answer(true);
  loop.run();
  EXPECT_FALSE(first->is_complete());
  clear_attentions();
  out(kRegister, other, 0, kTwo);
  const auto second = start_out(kPreemptAndAbort, nexus, kOne, kTwo, kWriteExclusive);
  keeper.answer(true);
  loop.run();
  EXPECT_FALSE(second->is_complete());
  device->abort(first->task);
  loop.run();
  EXPECT_EQ(first->completions, 1);
  EXPECT_FALSE(second->is_complete());
  disk.complete_all();
  loop.run();
  EXPECT_EQ(ghost->completions, 1);
  expect_good(*second);
}

// Two that preempt each other: the first one wins, and neither waits for the other for ever.
TEST_F(Kept, Of_two_that_preempt_and_abort_each_other_one_is_left) {
  out(kRegister, nexus, 0, kOne);
  out(kRegister, other, 0, kTwo);
  disk.is_held = true;
  const auto write = start_write(other);
  const auto first = start_out(kPreemptAndAbort, nexus, kOne, kTwo, kWriteExclusive);
  const auto second = start_out(kPreemptAndAbort, other, kTwo, kOne, kWriteExclusive);
  keeper.answer(true);
  loop.run();
  EXPECT_TRUE(keeper.asked.empty());
  EXPECT_EQ(second->completions, 1);
  EXPECT_TRUE(second->task.is_aborted);
  disk.complete_all();
  loop.run();
  expect_good(*first);
  EXPECT_EQ(write->completions, 1);
  EXPECT_EQ(keys(), 1u);
}

// With TAS = 1 the preempted initiator hears of each command, and of the lost registration by unit attention as always.
TEST_F(Kept, Preempt_and_abort_with_tas_answers_the_preempted) {
  Bytes list = run({0x1a, 0x08, 0x0a, 0, 255, 0})->data_in();
  list[0] = 0;
  list[2] = 0;
  list[4 + 5] = 0x40;
  expect_good(*run({0x15, 0x10, 0, 0, static_cast<std::uint8_t>(list.size()), 0}, list));
  clear_attentions();
  out(kRegister, nexus, 0, kOne);
  out(kRegister, other, 0, kTwo);
  disk.is_held = true;
  const auto write = start_write(other);
  const auto collecting = prepare(cdb_10(0x2a, 0, 1), Bytes(512), other);
  const auto preempt = start_out(kPreemptAndAbort, nexus, kOne, kTwo, kWriteExclusive);
  keeper.answer(true);
  disk.complete_all();
  loop.run();
  expect_good(*preempt);
  for (const auto* command : {write.get(), collecting.get()}) {
    EXPECT_EQ(command->completions, 1);
    EXPECT_FALSE(command->task.is_aborted);
    EXPECT_EQ(command->task.status, Status::task_aborted);
  }
  expect_sense(*start_write(other), {SenseKey::unit_attention, 0x2a, 0x05});
}

// SPC-4 5.13.11.5: who preempts its own key aborts all of its commands but this one.
TEST_F(Kept, Preempt_and_abort_of_the_own_key_spares_only_itself) {
  out(kRegister, nexus, 0, kOne);
  disk.is_held = true;
  const auto write = start_write(nexus);
  const auto bystander = start_write(other);
  const auto preempt = start_out(kPreemptAndAbort, nexus, kOne, kOne, kWriteExclusive);
  keeper.answer(true);
  loop.run();
  EXPECT_TRUE(write->task.is_aborted);
  EXPECT_FALSE(preempt->is_complete());
  disk.complete_all();
  loop.run();
  expect_good(*preempt);
  expect_good(*bystander);
  EXPECT_EQ(keys(), 0u);
}

TEST_F(Kept, Preempt_aborts_nothing) {
  out(kRegister, nexus, 0, kOne);
  out(kRegister, other, 0, kTwo);
  disk.is_held = true;
  const auto write = start_write(other);
  out(kPreempt, nexus, kOne, kTwo, kWriteExclusive);
  disk.complete_all();
  loop.run();
  expect_good(*write);
}

}  // namespace replblk::scsi::test
