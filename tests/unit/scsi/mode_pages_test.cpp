#include "scsi_fixture.hpp"

namespace replblk::scsi::test {

class ModePages : public ScsiTest {
 protected:
  Bytes sense_6(std::uint8_t page, std::uint8_t byte_1 = 0) {
    const auto command = run({0x1a, byte_1, page, 0, 255, 0});
    expect_good(*command);
    return command->data_in();
  }
  std::unique_ptr<Command> select_6(const Bytes& list, NexusId from = {}) {
    return run({0x15, 0x10, 0, 0, static_cast<std::uint8_t>(list.size()), 0}, list, from);
  }
  /// MODE SELECT(6) list with the control page that MODE SENSE shows, changed.
  Bytes control_list(std::uint8_t byte_2, std::uint8_t byte_4, std::uint8_t byte_5) {
    Bytes list = {0, 0, 0, 0};
    const Bytes page = sense_6(0x0a, 0x08);
    list.insert(list.end(), page.begin() + 4, page.end());
    list[4 + 2] = byte_2;
    list[4 + 4] = byte_4;
    list[4 + 5] = byte_5;
    return list;
  }
};

// Initiators learn write cache, FUA and sense format here.
TEST_F(ModePages, Pages_are_those_of_the_disk) {
  const Bytes caching = sense_6(0x08, 0x08);
  EXPECT_EQ(caching, (Bytes{23, 0, 0x10, 0, 0x08, 18, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(sense_6(0x0a, 0x08), (Bytes{15, 0, 0x10, 0, 0x0a, 10, 0, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0}));
  EXPECT_EQ(sense_6(0x01, 0x08), (Bytes{15, 0, 0x10, 0, 0x01, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(sense_6(0x1c, 0x08), (Bytes{15, 0, 0x10, 0, 0x1c, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  disk.change_geometry().has_write_cache = false;
  EXPECT_EQ(sense_6(0x08, 0x08)[4 + 2], 0x00);
}

TEST_F(ModePages, All_pages_come_in_order_with_the_block_descriptor) {
  const Bytes all = sense_6(0x3f);
  ASSERT_EQ(all.size(), 4u + 8 + 12 + 20 + 12 + 12);
  EXPECT_EQ(all[0], all.size() - 1);
  EXPECT_EQ(Bytes(all.begin() + 3, all.begin() + 12), (Bytes{8, 0, 0, 0x10, 0, 0, 0, 2, 0}));
  std::vector<int> codes;
  for (std::size_t at = 12; at < all.size(); at += 2u + all[at + 1]) codes.push_back(all[at]);
  EXPECT_EQ(codes, (std::vector<int>{0x01, 0x08, 0x0a, 0x1c}));
}

TEST_F(ModePages, Ten_byte_form_has_its_own_header_and_long_descriptor) {
  const auto plain = run({0x5a, 0, 0x0a, 0, 0, 0, 0, 0, 255, 0})->data_in();
  EXPECT_EQ(Bytes(plain.begin(), plain.begin() + 8), (Bytes{0, 26, 0, 0x10, 0, 0, 0, 8}));
  const auto extended = run({0x5a, 0x10, 0x0a, 0, 0, 0, 0, 0, 255, 0})->data_in();
  EXPECT_EQ(Bytes(extended.begin(), extended.begin() + 24),
            (Bytes{0, 34, 0, 0x10, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 2, 0}));
  EXPECT_EQ(run({0x5a, 0x08, 0x3f, 0xff, 0, 0, 0, 0, 7, 0})->data_in().size(), 7u);
}

TEST_F(ModePages, What_is_not_there_is_refused) {
  expect_sense(*run({0x1a, 0, 0x02, 0, 255, 0}), kInvalidFieldInCdb);
  expect_sense(*run({0x1a, 0, 0x0a, 0x01, 255, 0}), kInvalidFieldInCdb);
  expect_sense(*run({0x1a, 0, 0xc0 | 0x0a, 0, 255, 0}), kSavingParametersNotSupported);
}

// Only what can be changed may be announced as changeable.
TEST_F(ModePages, Changeable_values_are_three_bits_of_the_control_page) {
  const Bytes all = sense_6(0x40 | 0x3f, 0x08);
  for (std::size_t at = 4; at < all.size(); at += 2u + all[at + 1]) {
    for (std::size_t index = 2; index < 2u + all[at + 1]; ++index) {
      const bool is_control = all[at] == 0x0a;
      const int expected = is_control && index == 2   ? 0x04
                           : is_control && index == 4 ? 0x08
                           : is_control && index == 5 ? 0x40
                                                      : 0;
      EXPECT_EQ(all[at + index], expected) << int(all[at]) << "/" << index;
    }
  }
}

// A changed mode must be seen by the other initiators, and only by them.
TEST_F(ModePages, Descriptor_sense_is_used_and_others_are_told) {
  expect_good(*select_6(control_list(0x04, 0, 0)));
  const auto failed = run(cdb_10(0x28, kBlocks, 1));
  EXPECT_EQ(std::to_integer<int>(failed->task.sense[0]), 0x72);
  EXPECT_EQ(failed->sense_code(), kLbaOutOfRange);
  expect_sense(*run({0x00, 0, 0, 0, 0, 0}, {}, other), {SenseKey::unit_attention, 0x2a, 0x01});
  expect_good(*run({0x00, 0, 0, 0, 0, 0}, {}, other));
  EXPECT_EQ(sense_6(0x0a, 0x08)[4 + 2], 0x04);
  EXPECT_EQ(sense_6(0x80 | 0x0a, 0x08)[4 + 2], 0x00) << "defaults stay";
  expect_good(*select_6(control_list(0x04, 0, 0)));
  expect_good(*run({0x00, 0, 0, 0, 0, 0}, {}, other));
  // The second unit is another disk.
  EXPECT_EQ(std::to_integer<int>(run(cdb_10(0x28, kBlocks, 1), {}, {}, 1)->task.sense[0]), 0xf0);
}

// SWP must stop every command that changes the medium and none that does not.
TEST_F(ModePages, Software_write_protection) {
  expect_good(*select_6(control_list(0, 0x08, 0)));
  EXPECT_EQ(sense_6(0x0a)[2], 0x90);
  Bytes compare = cdb_16(0x89, 0, 0);
  compare[13] = 1;
  for (const Bytes& cdb :
       {Bytes{0x0a, 0, 0, 0, 1, 0}, cdb_10(0x2a, 0, 1), cdb_12(0xaa, 0, 1), cdb_16(0x8a, 0, 1), cdb_10(0x2e, 0, 1),
        cdb_12(0xae, 0, 1), cdb_16(0x8e, 0, 1), cdb_10(0x41, 0, 1), cdb_16(0x93, 0, 1), cdb_10(0x42, 0, 24), compare}) {
    expect_sense(*run(cdb, Bytes(512)), kSoftwareWriteProtected);
  }
  EXPECT_TRUE(disk.seen.empty());
  for (const Bytes& cdb : {cdb_10(0x28, 0, 1), cdb_10(0x2f, 0, 1), cdb_10(0x35, 0, 1)}) expect_good(*run(cdb));
  expect_good(*select_6(control_list(0, 0, 0)));
  expect_good(*run(cdb_10(0x2a, 0, 1), Bytes(512)));
}

// A select that is half applied leaves a disk that nobody described.
TEST_F(ModePages, Wrong_lists_change_nothing) {
  struct Case {
    Bytes list;
    SenseCode sense;
    int field;
  };
  Bytes cache_off = {0, 0, 0, 0, 0x08, 18};
  cache_off.resize(24);
  Bytes two_pages = control_list(0x04, 0, 0);
  two_pages.insert(two_pages.end(), {0x02, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  Bytes long_page = control_list(0x04, 0, 0);
  long_page[5] = 11;
  Bytes cut = control_list(0x04, 0, 0);
  cut.pop_back();
  const std::vector<Case> cases = {
      {cache_off, kInvalidFieldInParameterList, 4 + 2},
      {control_list(0x04, 0, 0x80), kInvalidFieldInParameterList, 4 + 5},
      {two_pages, kInvalidFieldInParameterList, 4 + 12},
      {long_page, kInvalidFieldInParameterList, 5},
      {cut, kParameterListLengthError, -1},
      {{0, 0, 0}, kParameterListLengthError, -1},
      {{0, 0, 0, 8, 0, 0, 0, 0}, kParameterListLengthError, -1},
      {{0, 0, 0, 7, 0, 0, 0, 0}, kInvalidFieldInParameterList, 3},
      {{0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 2, 0}, kInvalidFieldInParameterList, 4},
      {{0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 4, 0}, kInvalidFieldInParameterList, 9},
  };
  for (const Case& each : cases) {
    const auto command = select_6(each.list);
    expect_sense(*command, each.sense);
    EXPECT_EQ(command->parameter_field(), each.field);
  }
  EXPECT_EQ(sense_6(0x0a, 0x08)[4 + 2], 0x00);
  expect_good(*select_6({}));
  expect_good(*select_6({0, 0, 0, 8, 0, 0, 0x10, 0, 0, 0, 2, 0}));
  expect_sense(*run({0x15, 0x11, 0, 0, 4, 0}, {0, 0, 0, 0}), kInvalidFieldInCdb);  // SP
}

TEST_F(ModePages, Ten_byte_select) {
  Bytes list = {0, 0, 0, 0, 0, 0, 0, 0};
  const Bytes page = sense_6(0x0a, 0x08);
  list.insert(list.end(), page.begin() + 4, page.end());
  list[8 + 2] = 0x04;
  expect_good(*run({0x55, 0x10, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(list.size()), 0}, list));
  EXPECT_EQ(sense_6(0x0a, 0x08)[4 + 2], 0x04);
}

}  // namespace replblk::scsi::test
