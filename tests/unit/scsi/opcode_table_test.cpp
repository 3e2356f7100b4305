#include "scsi/opcode_table.hpp"

#include "scsi_fixture.hpp"

namespace replblk::scsi::test {

class OpcodeTable : public ScsiTest {
 protected:
  std::unique_ptr<Command> report(std::uint8_t options, std::uint8_t code, std::uint16_t action,
                                  std::uint16_t length = 65535) {
    return run({0xa3, 0x0c, options, code, static_cast<std::uint8_t>(action >> 8), static_cast<std::uint8_t>(action), 0,
                0, static_cast<std::uint8_t>(length >> 8), static_cast<std::uint8_t>(length), 0, 0});
  }
  /// A CDB of the row with nothing but its code in it.
  static Bytes bare(const Opcode& opcode) {
    Bytes cdb(opcode.cdb_length_bytes);
    cdb[0] = opcode.code;
    if (opcode.has_service_action) cdb[1] = opcode.service_action;
    return cdb;
  }
};

std::size_t length_by_group(std::uint8_t code) {
  const std::size_t lengths[] = {6, 10, 10, 0, 16, 12, 0, 0};
  return lengths[code >> 5];
}

// Lookup, CDB length and usage data of the table hang together; a wrong row would be found by no other test.
TEST_F(OpcodeTable, Rows_are_consistent) {
  const Opcode* previous = nullptr;
  for (const Opcode& opcode : opcode_table()) {
    EXPECT_EQ(opcode.cdb_length_bytes, length_by_group(opcode.code)) << opcode.name;
    EXPECT_EQ(opcode.usage[0], opcode.code) << opcode.name;
    EXPECT_EQ(opcode.usage[opcode.cdb_length_bytes - 1u], 0) << opcode.name << ": NACA and LINK are not ours";
    for (std::size_t byte = opcode.cdb_length_bytes; byte < 16; ++byte)
      EXPECT_EQ(opcode.usage[byte], 0xff) << opcode.name;
    if (opcode.has_service_action) {
      EXPECT_EQ(opcode.usage[1] & 0x1f, opcode.service_action) << opcode.name;
    }
    EXPECT_TRUE(opcode.plan != nullptr && opcode.run != nullptr) << opcode.name;
    EXPECT_EQ(find_opcode(opcode.code, opcode.service_action).opcode, &opcode) << opcode.name;
    if (previous != nullptr) {
      const unsigned before = static_cast<unsigned>(previous->code) << 8 | previous->service_action;
      EXPECT_LT(before, static_cast<unsigned>(opcode.code) << 8 | opcode.service_action) << opcode.name;
    }
    previous = &opcode;
  }
}

// A reserved bit that is ignored is a command that does something else than was asked for.
TEST_F(OpcodeTable, Every_reserved_bit_of_every_command_is_refused_and_pointed_at) {
  std::size_t bits = 0;
  for (const Opcode& opcode : opcode_table()) {
    for (std::size_t byte = 1; byte < opcode.cdb_length_bytes; ++byte) {
      for (unsigned bit = 0; bit < 8; ++bit) {
        if ((opcode.usage[byte] & (1u << bit)) != 0 || (opcode.has_service_action && byte == 1 && bit < 5)) continue;
        Bytes cdb = bare(opcode);
        cdb[byte] = static_cast<std::uint8_t>(cdb[byte] | 1u << bit);
        const auto command = run(cdb);
        expect_sense(*command, kInvalidFieldInCdb);
        EXPECT_EQ(command->cdb_field(), static_cast<int>(byte * 8 + bit)) << opcode.name;
        ++bits;
      }
    }
  }
  EXPECT_GT(bits, 500u);
  EXPECT_TRUE(disk.seen.empty());
}

// What is not in the table is answered with the code that makes initiators fall back.
TEST_F(OpcodeTable, Unknown_codes_and_service_actions_are_told_apart) {
  for (unsigned code = 0; code < 256; ++code) {
    const auto byte = static_cast<std::uint8_t>(code);
    const OpcodeLookup lookup = find_opcode(byte, 0x1f);
    if (lookup.opcode != nullptr) continue;
    const auto command = run({byte, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    const bool has_actions = code == 0x5e || code == 0x5f || code == 0x9e || code == 0xa3;
    expect_sense(*command, has_actions ? kInvalidFieldInCdb : kInvalidOperationCode);
    if (has_actions) {
      EXPECT_EQ(command->cdb_field(), 1 * 8 + 4);
    }
  }
  // Copy is not there yet: its absence must be plain.
  for (const std::uint8_t code : {std::uint8_t{0x83}, std::uint8_t{0x84}}) {
    expect_sense(*run({code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), kInvalidOperationCode);
  }
}

// Linux asks this before it uses WRITE SAME and others: a wrong length or list turns features off.
TEST_F(OpcodeTable, Report_of_all_lists_every_row) {
  const auto command = report(0, 0, 0);
  expect_good(*command);
  const Bytes data = command->data_in();
  ASSERT_EQ(data.size(), 4 + 8 * opcode_table().size());
  EXPECT_GT(data.size(), Task::kSmallDataBytesMax - 200)
      << "large enough to be worth the test of the other answer below";
  std::size_t at = 4;
  for (const Opcode& opcode : opcode_table()) {
    EXPECT_EQ(data[at], opcode.code);
    EXPECT_EQ(data[at + 3], opcode.service_action);
    EXPECT_EQ(data[at + 5], opcode.has_service_action ? 1 : 0);
    EXPECT_EQ(data[at + 7], opcode.cdb_length_bytes);
    at += 8;
  }
  const auto timeouts = report(0x80, 0, 0);
  EXPECT_EQ(timeouts->data_in().size(), 4 + 20 * opcode_table().size());
  EXPECT_TRUE(timeouts->task.data_in) << "more than fits the task comes in a buffer";
  EXPECT_EQ(timeouts->data_in()[4 + 5], 0x02);
  EXPECT_EQ(report(0x80, 0, 0, 100)->data_in().size(), 100u);
}

TEST_F(OpcodeTable, Report_of_one_follows_its_option) {
  for (const Opcode& opcode : opcode_table()) {
    const auto by_code = report(1, opcode.code, 0);
    const auto by_action = report(2, opcode.code, opcode.service_action);
    const auto either = report(3, opcode.code, opcode.service_action);
    if (opcode.has_service_action) {
      expect_sense(*by_code, kInvalidFieldInCdb);
      expect_good(*by_action);
    } else {
      expect_good(*by_code);
      expect_sense(*by_action, kInvalidFieldInCdb);
    }
    const Bytes data = either->data_in();
    ASSERT_EQ(data.size(), 4u + opcode.cdb_length_bytes);
    EXPECT_EQ(data[1], 3);
    EXPECT_EQ(data[3], opcode.cdb_length_bytes);
    for (std::size_t byte = 0; byte < opcode.cdb_length_bytes; ++byte) EXPECT_EQ(data[4 + byte], opcode.usage[byte]);
  }
  EXPECT_EQ(report(1, 0xff, 0)->data_in(), (Bytes{0, 1, 0, 0}));
  EXPECT_EQ(report(2, 0x9e, 0x1e)->data_in(), (Bytes{0, 1, 0, 0}));
  EXPECT_EQ(report(0x83, 0x28, 0)->data_in().size(), 4u + 10 + 12);
  expect_sense(*report(4, 0x28, 0), kInvalidFieldInCdb);
}

TEST_F(OpcodeTable, Report_of_task_management_functions) {
  EXPECT_EQ(run({0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0})->data_in(), (Bytes{0xda, 0, 0, 0}));
  EXPECT_EQ(run({0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 64, 0, 0})->data_in().size(), 16u);
  expect_sense(*run({0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0}), kInvalidFieldInCdb);
}

// We have no ACA: an ACA task would never end.
TEST_F(OpcodeTable, Aca_task_attribute_is_refused) {
  const auto command = start({0x00, 0, 0, 0, 0, 0}, {}, {}, 0, TaskAttribute::aca);
  expect_sense(*command, {SenseKey::illegal_request, 0x49, 0x00});
}

// Sense of both formats carries the same; an initiator reads the one that D_SENSE says.
TEST(SenseFormats, Descriptor_and_fixed_format_agree) {
  std::array<std::byte, Task::kSenseBytesMax> bytes{};
  Sense sense = sense_with_information(kMiscompareDuringVerify, 0x12345678);
  EXPECT_EQ(encode(sense, SenseFormat::fixed, bytes), 18);
  EXPECT_EQ(std::to_integer<int>(bytes[0]), 0xf0);
  EXPECT_EQ(std::to_integer<int>(bytes[2]), 0x0e);
  EXPECT_EQ(load_be<std::uint32_t>(&bytes[3]), 0x12345678u);
  EXPECT_EQ(std::to_integer<int>(bytes[7]), 10);
  EXPECT_EQ(encode(sense, SenseFormat::descriptor, bytes), 20);
  EXPECT_EQ(std::to_integer<int>(bytes[0]), 0x72);
  EXPECT_EQ(std::to_integer<int>(bytes[1]), 0x0e);
  EXPECT_EQ(std::to_integer<int>(bytes[2]), 0x1d);
  EXPECT_EQ(std::to_integer<int>(bytes[7]), 12);
  EXPECT_EQ(std::to_integer<int>(bytes[8]), 0x00);
  EXPECT_EQ(std::to_integer<int>(bytes[10]), 0x80);
  EXPECT_EQ(load_be<std::uint64_t>(&bytes[12]), 0x12345678u);
  sense = invalid_cdb_field(13, 5);
  EXPECT_EQ(encode(sense, SenseFormat::descriptor, bytes), 16);
  EXPECT_EQ(std::to_integer<int>(bytes[8]), 0x02);
  EXPECT_EQ(std::to_integer<int>(bytes[9]), 0x06);
  EXPECT_EQ(std::to_integer<int>(bytes[12]), 0xcd);
  EXPECT_EQ(load_be<std::uint16_t>(&bytes[13]), 13);
}

}  // namespace replblk::scsi::test
