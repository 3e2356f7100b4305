// PERSISTENT RESERVE IN and OUT through the device, as initiators use them.
#include "scsi/persistent_reservation.hpp"

#include "scsi_fixture.hpp"

namespace replblk::scsi::test {

namespace {

constexpr std::uint64_t kOne = 0x1111111111111111;
constexpr std::uint64_t kTwo = 0x2222222222222222;
constexpr std::uint8_t kRegister = 0, kReserve = 1, kRelease = 2, kClear = 3, kPreempt = 4, kRegisterAnyway = 6;

Bytes key_list(std::uint64_t key, std::uint64_t action_key, std::uint8_t flags = 0) {
  Bytes list(24);
  store_be(reinterpret_cast<std::byte*>(&list[0]), key);
  store_be(reinterpret_cast<std::byte*>(&list[8]), action_key);
  list[20] = flags;
  return list;
}

constexpr SenseCode attention(std::uint8_t ascq) { return {SenseKey::unit_attention, 0x2a, ascq}; }

}  // namespace

class Persistent : public ScsiTest {
 protected:
  std::unique_ptr<Command> out(std::uint8_t action, NexusId from, std::uint64_t key, std::uint64_t action_key = 0,
                               std::uint8_t type = 0) {
    return run({0x5f, action, type, 0, 0, 0, 0, 0, 24, 0}, key_list(key, action_key), from);
  }
  Status status(std::uint8_t action, NexusId from, std::uint64_t key, std::uint64_t action_key = 0,
                std::uint8_t type = 0) {
    return out(action, from, key, action_key, type)->task.status;
  }
  Bytes in(std::uint8_t action, NexusId from = {}) {
    return run({0x5e, action, 0, 0, 0, 0, 0, 0xff, 0xff, 0}, {}, from)->data_in();
  }
  static std::uint64_t number(const Bytes& data, std::size_t at) {
    return load_be<std::uint64_t>(reinterpret_cast<const std::byte*>(&data.at(at)));
  }
  static std::uint32_t generation(const Bytes& data) {
    return load_be<std::uint32_t>(reinterpret_cast<const std::byte*>(&data.at(0)));
  }
  void register_both() {
    EXPECT_EQ(status(kRegister, nexus, 0, kOne), Status::good);
    EXPECT_EQ(status(kRegister, other, 0, kTwo), Status::good);
  }
  Status read(NexusId from) { return run(cdb_10(0x28, 0, 1), {}, from)->task.status; }
  Status write(NexusId from) { return run(cdb_10(0x2a, 0, 1), Bytes(512), from)->task.status; }
};

// The whole point: who may read and write while somebody holds a reservation (SPC-4 table 51).
TEST_F(Persistent, Each_type_lets_pass_exactly_those_that_it_should) {
  struct Case {
    std::uint8_t type;
    bool registered_reads, registered_writes, stranger_reads;
  };
  for (const Case& each : {Case{1, true, false, true}, Case{3, false, false, false}, Case{5, true, true, true},
                           Case{6, true, true, false}, Case{7, true, true, true}, Case{8, true, true, false}}) {
    const auto status_if = [](bool may) { return may ? Status::good : Status::reservation_conflict; };
    register_both();
    ASSERT_EQ(status(kReserve, nexus, kOne, 0, each.type), Status::good);
    EXPECT_EQ(read(nexus), Status::good);
    EXPECT_EQ(write(nexus), Status::good);
    EXPECT_EQ(read(other), status_if(each.registered_reads)) << int(each.type);
    EXPECT_EQ(write(other), status_if(each.registered_writes)) << int(each.type);
    EXPECT_EQ(status(kRegister, other, kTwo, 0), Status::good);
    EXPECT_EQ(read(other), status_if(each.stranger_reads)) << int(each.type);
    EXPECT_EQ(write(other), Status::reservation_conflict) << int(each.type);
    for (const Bytes& always : {Bytes{0, 0, 0, 0, 0, 0}, Bytes{0x12, 0, 0, 0, 36, 0}, cdb_10(0x25, 0, 0)}) {
      EXPECT_EQ(run(always, {}, other)->task.status, Status::good);
    }
    EXPECT_EQ(run(cdb_10(0x35, 0, 0), {}, other)->task.status, Status::reservation_conflict);
    EXPECT_EQ(status(kRelease, nexus, kOne, 0, each.type), Status::good);
    EXPECT_EQ(write(other), Status::good);
    EXPECT_EQ(status(kRegister, nexus, kOne, 0), Status::good);
  }
}

// A wrong key that is taken lets anybody undo another's fencing.
TEST_F(Persistent, Keys_are_checked) {
  EXPECT_EQ(status(kRegister, nexus, 5, kOne), Status::reservation_conflict) << "a key of one that is not registered";
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 1), Status::reservation_conflict) << "not registered";
  register_both();
  EXPECT_EQ(status(kRegister, nexus, kTwo, 7), Status::reservation_conflict);
  EXPECT_EQ(status(kReserve, nexus, kTwo, 0, 1), Status::reservation_conflict);
  EXPECT_EQ(status(kClear, nexus, kTwo), Status::reservation_conflict);
  EXPECT_EQ(status(kPreempt, nexus, kTwo, kOne, 1), Status::reservation_conflict);
  EXPECT_EQ(status(kPreempt, nexus, kOne, 0x99, 1), Status::reservation_conflict) << "nobody has that key";
  expect_sense(*out(kPreempt, nexus, kOne, 0, 1), kInvalidFieldInParameterList);
  EXPECT_EQ(status(kRegisterAnyway, nexus, 0x99, 0x33), Status::good);
  EXPECT_EQ(in(0).size(), 8u + 16);
  EXPECT_EQ(number(in(0), 8), 0x33u);
}

TEST_F(Persistent, Reservation_is_one_of_one_type) {
  register_both();
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 5), Status::good);
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 5), Status::good) << "the same again";
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 1), Status::reservation_conflict) << "another type";
  EXPECT_EQ(status(kReserve, other, kTwo, 0, 5), Status::reservation_conflict);
  EXPECT_EQ(status(kRelease, other, kTwo, 0, 5), Status::good) << "of one that holds nothing";
  EXPECT_EQ(in(1).size(), 24u);
  expect_sense(*out(kRelease, nexus, kOne, 0, 1), kInvalidRelease);
  EXPECT_EQ(in(1).at(21), 5);
  EXPECT_EQ(status(kRelease, nexus, kOne, 0, 5), Status::good);
  EXPECT_EQ(in(1).size(), 8u);
  expect_sense(*run({0x00, 0, 0, 0, 0, 0}, {}, other), attention(0x04));
  EXPECT_EQ(run({0x00, 0, 0, 0, 0, 0})->task.status, Status::good) << "who released need not be told";
}

// The reservation goes with its holder; of all registrants, with the last.
TEST_F(Persistent, Unregistering_the_holder_ends_the_reservation) {
  for (const std::uint8_t type : Bytes{1, 3, 5, 6}) {
    register_both();
    EXPECT_EQ(status(kReserve, nexus, kOne, 0, type), Status::good);
    EXPECT_EQ(status(kRegister, nexus, kOne, 0), Status::good);
    EXPECT_EQ(in(1).size(), 8u) << int(type);
    if (type >= 5) expect_sense(*run({0x00, 0, 0, 0, 0, 0}, {}, other), attention(0x04));
    EXPECT_EQ(status(kRegister, other, kTwo, 0), Status::good);
  }
  register_both();
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 8), Status::good);
  EXPECT_EQ(status(kRegister, nexus, kOne, 0), Status::good);
  EXPECT_EQ(number(in(1), 8), 0u) << "no one holder";
  EXPECT_EQ(in(1).at(21), 8);
  EXPECT_EQ(read(nexus), Status::reservation_conflict);
  EXPECT_EQ(status(kRegister, other, kTwo, 0), Status::good);
  EXPECT_EQ(in(1).size(), 8u);
}

// Fencing: the survivor takes the disk, the other writes no more.
TEST_F(Persistent, Preempting_the_holder_takes_over) {
  register_both();
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 1), Status::good);
  const std::uint32_t before = generation(in(0));
  EXPECT_EQ(status(kPreempt, other, kTwo, kOne, 1), Status::good);
  EXPECT_EQ(generation(in(0, other)), before + 1);
  EXPECT_EQ(in(0, other).size(), 16u);
  EXPECT_EQ(number(in(1, other), 8), kTwo);
  expect_sense(*run(cdb_10(0x2a, 0, 1), Bytes(512)), attention(0x05));
  EXPECT_EQ(write(nexus), Status::reservation_conflict);
  EXPECT_EQ(write(other), Status::good);
}

TEST_F(Persistent, Preempting_a_registrant_only_removes_it) {
  register_both();
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 5), Status::good);
  EXPECT_EQ(status(kPreempt, nexus, kOne, kTwo, 5), Status::good);
  EXPECT_EQ(number(in(1), 8), kOne);
  expect_sense(*run({0x00, 0, 0, 0, 0, 0}, {}, other), attention(0x05));
  EXPECT_EQ(write(other), Status::reservation_conflict);
  EXPECT_EQ(read(other), Status::good);
}

TEST_F(Persistent, Preempting_all_registrants_leaves_the_one_that_did_it) {
  register_both();
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 7), Status::good);
  EXPECT_EQ(status(kPreempt, other, kTwo, 0, 3), Status::good);
  EXPECT_EQ(in(0, other).size(), 16u);
  EXPECT_EQ(number(in(1, other), 8), kTwo);
  EXPECT_EQ(in(1, other).at(21), 3);
}

// A write of the fenced one whose data was still coming in must not land after the fence.
TEST_F(Persistent, Command_admitted_before_the_fence_is_not_carried_out_after_it) {
  register_both();
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 5), Status::good);
  const auto late = prepare(cdb_10(0x2a, 0, 1), Bytes(512), other);
  ASSERT_FALSE(late->task.is_decided);
  EXPECT_EQ(status(kPreempt, nexus, kOne, kTwo, 5), Status::good);
  const std::size_t requests = disk.seen.size();
  execute(*late);
  loop.run();
  EXPECT_EQ(late->task.status, Status::reservation_conflict);
  EXPECT_EQ(disk.seen.size(), requests);
}

TEST_F(Persistent, Clear_removes_everything_and_tells_the_others) {
  register_both();
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 3), Status::good);
  EXPECT_EQ(status(kClear, other, kTwo), Status::good);
  EXPECT_EQ(in(0, other), (Bytes{0, 0, 0, 3, 0, 0, 0, 0}));
  expect_sense(*run({0x00, 0, 0, 0, 0, 0}), attention(0x03));
  EXPECT_EQ(write(nexus), Status::good);
  EXPECT_EQ(write(other), Status::good);
}

// Unlike RESERVE: a fenced node that logs in anew is still fenced. Only what a node does not find kept is over.
TEST_F(Persistent, Survives_sessions_and_resets_and_not_the_change_of_the_node) {
  register_both();
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 3), Status::good);
  (void)device->manage(TaskFunction::logical_unit_reset, other, 0);
  device->detach(nexus);
  device->detach(other);
  other = device->attach({"iqn.2026-11.org.example:two", 3});
  nexus = device->attach({"iqn.2026-11.org.example:one", 1});
  clear_attentions();
  EXPECT_EQ(write(other), Status::reservation_conflict) << "another ISID is another port";
  EXPECT_EQ(write(nexus), Status::good);
  EXPECT_EQ(status(kRelease, nexus, kOne, 0, 3), Status::good);
  EXPECT_EQ(in(0).size(), 8u + 16);
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 3), Status::good);
  device->load_reservations({});
  EXPECT_EQ(write(other), Status::good);
  EXPECT_EQ(in(0), Bytes(8));
}

// Whoever relies on persistence through power loss must hear that there is none.
TEST_F(Persistent, Parameters_that_are_not_offered_are_refused) {
  for (const std::uint8_t flag : Bytes{0x01, 0x04, 0x08}) {
    const auto command = run({0x5f, kRegister, 0, 0, 0, 0, 0, 0, 24, 0}, key_list(0, kOne, flag));
    expect_sense(*command, kInvalidFieldInParameterList);
    EXPECT_EQ(command->parameter_field(), 20);
  }
  EXPECT_EQ(in(0).size(), 8u);
  EXPECT_EQ(in(2), (Bytes{0, 8, 0, 0x80, 0xea, 0x01, 0, 0}));
  expect_sense(*run({0x5f, kRegister, 0, 0, 0, 0, 0, 0, 23, 0}, key_list(0, kOne)), kParameterListLengthError);
  expect_sense(*run({0x5f, kRegister, 0, 0, 0, 0, 0, 0, 24, 0}, Bytes(20)), kParameterListLengthError);
  EXPECT_EQ(status(kRegister, nexus, 0, kOne), Status::good);
  for (const std::uint8_t type : Bytes{0x00, 0x02, 0x04, 0x09, 0x11}) {
    expect_sense(*out(kReserve, nexus, kOne, 0, type), kInvalidFieldInCdb);
  }
}

TEST_F(Persistent, Excludes_reserve_and_is_excluded_by_it) {
  const Bytes reserve = {0x16, 0, 0, 0, 0, 0};
  EXPECT_EQ(run(reserve)->task.status, Status::good);
  EXPECT_EQ(status(kRegister, nexus, 0, kOne), Status::reservation_conflict);
  EXPECT_EQ(status(kRegister, other, 0, kTwo), Status::reservation_conflict);
  EXPECT_EQ(run({0x17, 0, 0, 0, 0, 0})->task.status, Status::good);
  EXPECT_EQ(status(kRegister, nexus, 0, kOne), Status::good);
  EXPECT_EQ(run(reserve)->task.status, Status::reservation_conflict);
}

// Cluster software finds out by this whom it has fenced.
TEST_F(Persistent, Full_status_names_the_ports) {
  register_both();
  EXPECT_EQ(status(kReserve, other, kTwo, 0, 3), Status::good);
  const Bytes data = in(3);
  const std::string name = "iqn.2026-11.org.example:two,i,0x000000000002";
  const std::size_t each = 24 + 4 + (name.size() + 4) / 4 * 4;
  ASSERT_EQ(data.size(), 8 + 2 * each);
  EXPECT_EQ(data[7], 2 * each);
  const std::size_t second = 8 + each;
  EXPECT_EQ(data[8 + 12], 0) << "the first holds nothing";
  EXPECT_EQ(number(data, second), kTwo);
  EXPECT_EQ(data[second + 12], 1);
  EXPECT_EQ(data[second + 13], 3);
  EXPECT_EQ(data[second + 23], each - 24);
  EXPECT_EQ(data[second + 24], 0x45);
  EXPECT_EQ(data[second + 27], each - 28);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(&data[second + 28])), name);
  EXPECT_EQ(run({0x5e, 3, 0, 0, 0, 0, 0, 0, 8, 0})->data_in(), Bytes(data.begin(), data.begin() + 8));
}

class Move : public Persistent {
 protected:
  static constexpr std::uint8_t kUnregister = 2;
  Bytes list(std::uint64_t key, std::uint64_t action_key, std::uint8_t flags, const std::string& port) {
    Bytes bytes = key_list(key, action_key);
    bytes[17] = flags;
    bytes[19] = 1;
    const std::size_t padded = (port.size() + 4) / 4 * 4;
    bytes[23] = static_cast<std::uint8_t>(4 + padded);
    for (const std::uint8_t head : Bytes{0x45, 0, 0, static_cast<std::uint8_t>(padded)}) bytes.push_back(head);
    bytes.insert(bytes.end(), port.begin(), port.end());
    bytes.resize(24 + 4 + padded);
    return bytes;
  }
  std::unique_ptr<Command> move(NexusId from, const Bytes& bytes) {
    return run({0x5f, 7, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(bytes.size()), 0}, bytes, from);
  }
  const std::string to_other = "iqn.2026-11.org.example:two,i,0x000000000002";
};

// SPC-4 5.13.8: the other port is registered, without a word of its own, and holds.
TEST_F(Move, Registers_the_other_port_and_gives_it_the_reservation) {
  EXPECT_EQ(status(kRegister, nexus, 0, kOne), Status::good);
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 1), Status::good);
  expect_good(*move(nexus, list(kOne, kTwo, 0, to_other)));
  EXPECT_EQ(generation(in(0)), 2u);
  EXPECT_EQ(number(in(1), 8), kTwo);
  EXPECT_EQ(write(other), Status::good);
  EXPECT_EQ(write(nexus), Status::reservation_conflict);
  expect_good(*move(other, list(kTwo, kOne + 1, kUnregister, "iqn.2026-11.org.example:one,i,0x1")));
  ASSERT_EQ(in(0).size(), 8u + 8) << "the holder that unregisters is gone";
  EXPECT_EQ(number(in(0), 8), kOne + 1) << "and the key of the other is the new one";
  EXPECT_EQ(write(nexus), Status::good);
}

TEST_F(Move, Only_the_holder_moves_and_only_what_can_be_moved) {
  EXPECT_EQ(move(nexus, list(kOne, kTwo, 0, to_other))->task.status, Status::reservation_conflict) << "unregistered";
  register_both();
  const auto without = move(nexus, list(kOne, kTwo, 0, to_other));
  expect_sense(*without, kInvalidFieldInCdb);
  EXPECT_EQ(without->cdb_field(), 1 * 8 + 4) << "no reservation";
  EXPECT_EQ(status(kReserve, other, kTwo, 0, 1), Status::good);
  EXPECT_EQ(move(nexus, list(kOne, kTwo, 0, to_other))->task.status, Status::reservation_conflict) << "no holder";
  EXPECT_EQ(status(kRelease, other, kTwo, 0, 1), Status::good);
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 7), Status::good);
  EXPECT_EQ(move(nexus, list(kOne, kTwo, 0, to_other))->task.status, Status::reservation_conflict) << "of all";
}

TEST_F(Move, Parameters_that_name_no_other_port_are_refused) {
  register_both();
  EXPECT_EQ(status(kReserve, nexus, kOne, 0, 1), Status::good);
  EXPECT_EQ(move(nexus, list(kOne, 0, 0, to_other))->parameter_field(), 8) << "no key";
  EXPECT_EQ(move(nexus, list(kOne, kTwo, 1, to_other))->parameter_field(), 17) << "APTPL, and nobody keeps it";
  Bytes wrong_target = list(kOne, kTwo, 0, to_other);
  wrong_target[19] = 2;
  EXPECT_EQ(move(nexus, wrong_target)->parameter_field(), 18);
  for (const std::string& port :
       {std::string("iqn.2026-11.org.example:one,i,0x000000000001"), std::string("iqn.x"), std::string(",i,0x1"),
        std::string("iqn.x,i,0x"), std::string("iqn.x,i,0x1234567890123"), std::string("iqn.x,i,0x12g")}) {
    EXPECT_EQ(move(nexus, list(kOne, kTwo, 0, port))->parameter_field(), 24) << port;
  }
  Bytes device_only = list(kOne, kTwo, 0, to_other);
  device_only[24] = 0x05;
  EXPECT_EQ(move(nexus, device_only)->parameter_field(), 24);
  Bytes unterminated = list(kOne, kTwo, 0, "iqn.x,i,0x1");
  unterminated.back() = '1';
  EXPECT_EQ(move(nexus, unterminated)->parameter_field(), 24);
  Bytes wrong_length = list(kOne, kTwo, 0, to_other);
  ++wrong_length[23];
  expect_sense(*move(nexus, wrong_length), kParameterListLengthError);
  expect_sense(*move(nexus, key_list(kOne, kTwo)), kParameterListLengthError);
  EXPECT_EQ(number(in(1), 8), kOne) << "nothing of all that took effect";
}

// The largest answer fits, and one registration more is refused rather than cut off.
TEST(PersistentReservationMachine, Number_of_registrations_is_limited) {
  PersistentReservation reservation;
  for (std::uint64_t isid = 0; isid < PersistentReservation::kRegistrationsMax; ++isid) {
    EXPECT_EQ(reservation.register_key({"iqn.x", isid}, 0, 1, false).outcome, ReservationOutcome::good);
  }
  EXPECT_EQ(reservation.register_key({"iqn.x", 999}, 0, 1, false).outcome, ReservationOutcome::no_room);
  EXPECT_EQ(reservation.register_key({"iqn.x", 7}, 1, 2, false).outcome, ReservationOutcome::good)
      << "a change of a key";
}

}  // namespace replblk::scsi::test
