#include "scsi/data_writer.hpp"
#include "scsi/limits.hpp"
#include "scsi/vpd.hpp"
#include "scsi_fixture.hpp"

namespace replblk::scsi::test {

class Inquiry : public ScsiTest {
 protected:
  Bytes vpd(std::uint8_t page, std::uint8_t allocation = 255) {
    const auto command = run({0x12, 0x01, page, 0, allocation, 0});
    expect_good(*command);
    return command->data_in();
  }
};

std::string text(const Bytes& bytes, std::size_t at, std::size_t length) {
  return {bytes.begin() + static_cast<long>(at), bytes.begin() + static_cast<long>(at + length)};
}
std::uint64_t number(const Bytes& bytes, std::size_t at, std::size_t length) {
  std::uint64_t value = 0;
  for (std::size_t index = 0; index < length; ++index) value = value << 8 | bytes.at(at + index);
  return value;
}

// Initiators choose drivers, queueing and standards by these bytes.
TEST_F(Inquiry, Standard_data_describes_an_spc4_disk) {
  const Bytes data = run({0x12, 0, 0, 0, 255, 0})->data_in();
  ASSERT_EQ(data.size(), 96u);
  EXPECT_EQ(Bytes(data.begin(), data.begin() + 8), (Bytes{0x00, 0x00, 0x06, 0x12, 91, 0x00, 0x00, 0x02}));
  EXPECT_EQ(text(data, 8, 28), "REPLBLK replblk         0001");
  EXPECT_EQ(Bytes(data.begin() + 58, data.begin() + 66), (Bytes{0x00, 0xa0, 0x09, 0x60, 0x04, 0x60, 0x04, 0xc0}));
}

// Every page that is listed must exist and say its own length; what is not listed must not exist.
TEST_F(Inquiry, Listed_pages_are_exactly_those_that_exist) {
  const Bytes listed = vpd(0x00);
  EXPECT_EQ(Bytes(listed.begin() + 4, listed.end()), (Bytes{0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2}));
  for (unsigned page = 0; page < 256; ++page) {
    const bool is_listed = std::find(listed.begin() + 4, listed.end(), page) != listed.end();
    const auto command = run({0x12, 0x01, static_cast<std::uint8_t>(page), 0xff, 0xff, 0});
    if (is_listed) {
      const Bytes data = command->data_in();
      ASSERT_GE(data.size(), 4u);
      EXPECT_EQ(data[1], page);
      EXPECT_EQ(number(data, 2, 2), data.size() - 4);
    } else {
      expect_sense(*command, kInvalidFieldInCdb);
      EXPECT_EQ(command->cdb_field(), 2 * 8 + 7);
    }
  }
}

// The allocation length cuts the data and nothing else: lengths inside stay those of the whole.
TEST_F(Inquiry, Allocation_length_cuts_the_data_and_not_its_length_field) {
  const Bytes whole = run({0x12, 0, 0, 0, 255, 0})->data_in();
  for (unsigned length = 0; length < 256; ++length) {
    const auto command = run({0x12, 0, 0, 0, static_cast<std::uint8_t>(length), 0});
    expect_good(*command);
    EXPECT_EQ(command->data_in(), Bytes(whole.begin(), whole.begin() + std::min(length, 96u)));
  }
}

// A page code without EVPD asks for nothing that exists.
TEST_F(Inquiry, Page_code_without_evpd_is_refused) {
  const auto command = run({0x12, 0, 0x80, 0, 255, 0});
  expect_sense(*command, kInvalidFieldInCdb);
  EXPECT_EQ(command->cdb_field(), 2 * 8 + 7);
}

// Multipath and VMware take two disks for one, or one for two, when this is wrong.
TEST_F(Inquiry, Identification_comes_from_the_volume_uuid) {
  EXPECT_EQ(text(vpd(0x80), 4, 32), "123456789abc4def8123456789abcdef");
  const Bytes data = run({0x12, 0x01, 0x83, 0x0f, 0xff, 0})->data_in();
  // Designators in order: NAA, T10 vendor, relative port, port group, port name, device name.
  const std::uint8_t kinds[][2] = {{0x01, 0x03}, {0x02, 0x01}, {0x51, 0x94}, {0x51, 0x95}, {0x53, 0x98}, {0x53, 0xa8}};
  std::size_t at = 4;
  std::vector<Bytes> values;
  for (const auto& kind : kinds) {
    EXPECT_EQ(data.at(at), kind[0]);
    EXPECT_EQ(data.at(at + 1), kind[1]);
    values.emplace_back(data.begin() + static_cast<long>(at + 4),
                        data.begin() + static_cast<long>(at + 4 + data[at + 3]));
    at += 4u + data[at + 3];
  }
  EXPECT_EQ(at, data.size());
  EXPECT_EQ(values[0].size(), 16u);
  EXPECT_EQ(values[0][0] >> 4, 6);
  EXPECT_EQ(text(values[1], 0, values[1].size()), "REPLBLK replblk:123456789abc4def8123456789abcdef");
  EXPECT_EQ(values[2], (Bytes{0, 0, 0, 1}));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(values[4].data())), "iqn.2026-11.org.example:disk,t,0x0001");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(values[5].data())), "iqn.2026-11.org.example:disk");
  EXPECT_EQ(values[4].size() % 4, 0u);
}

// An identifier that loses bits of the UUID makes two volumes one.
TEST(Naa, Every_random_bit_of_the_uuid_changes_the_identifier) {
  const Uuid base = *parse_uuid("12345678-9abc-4def-8123-456789abcdef");
  const auto naa = naa_of(base);
  EXPECT_EQ(std::to_integer<int>(naa[0]), 0x60);
  EXPECT_EQ(std::to_integer<int>(naa[1]), 0x25);  // 02-52-42: locally administered
  for (std::size_t bit = 0; bit < 128; ++bit) {
    const bool is_fixed = bit / 4 == 12 || bit / 4 == 16;
    Uuid changed = base;
    changed.bytes[bit / 8] ^= static_cast<std::byte>(0x80 >> (bit % 8));
    EXPECT_EQ(naa_of(changed) != naa, !is_fixed) << bit;
  }
}

// What is announced is what is accepted; the initiator sizes its requests by it.
TEST_F(Inquiry, Block_limits_follow_the_geometry) {
  const Bytes data = vpd(0xb0);
  ASSERT_EQ(data.size(), 64u);
  EXPECT_EQ(data[4], 0x01);
  EXPECT_EQ(data[5], 255);
  EXPECT_EQ(number(data, 6, 2), 8u);
  EXPECT_EQ(number(data, 8, 4), 8192u);
  EXPECT_EQ(number(data, 20, 4), kUnmapBlocksMax);
  EXPECT_EQ(number(data, 24, 4), 256u);
  EXPECT_EQ(number(data, 28, 4), 8u);
  EXPECT_EQ(number(data, 32, 4), 0x80000000u);
  EXPECT_EQ(number(data, 36, 8), kWriteSameBlocksMax);
  disk.change_geometry().supports_discard = false;
  disk.change_geometry().logical_block_bytes = 4096;
  const Bytes without = vpd(0xb0);
  EXPECT_EQ(number(without, 6, 2), 1u);
  EXPECT_EQ(number(without, 8, 4), 1024u);
  EXPECT_EQ(number(without, 20, 16), 0u);
}

// Offering discard on a device that does not read back zeroes corrupts what mirrors compare.
TEST_F(Inquiry, Provisioning_and_capacity_offer_discard_only_when_both_sides_do) {
  EXPECT_EQ(vpd(0xb2), (Bytes{0x00, 0xb2, 0x00, 0x04, 0x00, 0xe4, 0x02, 0x00}));
  const Bytes cdb = [] {
    Bytes bytes = cdb_16(0x9e, 0, 32, 0x10);
    return bytes;
  }();
  Bytes capacity = run(cdb)->data_in();
  ASSERT_EQ(capacity.size(), 32u);
  EXPECT_EQ(number(capacity, 0, 8), kBlocks - 1);
  EXPECT_EQ(number(capacity, 8, 4), 512u);
  EXPECT_EQ(capacity[13], 3);
  EXPECT_EQ(number(capacity, 14, 2), 0xc000u);
  disk.change_geometry().supports_discard = false;
  EXPECT_EQ(vpd(0xb2), (Bytes{0x00, 0xb2, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00}));
  EXPECT_EQ(number(run(cdb)->data_in(), 14, 2), 0u);
  for (const std::uint32_t length : {0u, 8u, 12u, 31u}) {
    EXPECT_EQ(run(cdb_16(0x9e, 0, length, 0x10))->data_in().size(), length);
  }
}

TEST_F(Inquiry, Other_pages_follow_the_geometry) {
  EXPECT_EQ(vpd(0x86)[6], 0x01);  // V_SUP
  EXPECT_EQ(vpd(0x86)[5], 0x07);
  EXPECT_EQ(number(vpd(0xb1), 4, 2), 1u);
  disk.change_geometry().has_write_cache = false;
  disk.change_geometry().is_rotational = true;
  EXPECT_EQ(vpd(0x86)[6], 0x00);
  EXPECT_EQ(number(vpd(0xb1), 4, 2), 0u);
  EXPECT_EQ(vpd(0xb1).size(), 64u);
}

// A size that does not fit 32 bits must send the initiator to READ CAPACITY(16), not show it a small disk.
TEST_F(Inquiry, Read_capacity_10_points_to_16_when_the_disk_is_too_large) {
  EXPECT_EQ(run(cdb_10(0x25, 0, 0))->data_in(), (Bytes{0, 0, 0x0f, 0xff, 0, 0, 2, 0}));
  disk.change_geometry().size_bytes = (std::uint64_t{1} << 32) * 512;
  EXPECT_EQ(number(run(cdb_10(0x25, 0, 0))->data_in(), 0, 4), 0xffffffffu);
  disk.change_geometry().size_bytes += 512;
  EXPECT_EQ(number(run(cdb_10(0x25, 0, 0))->data_in(), 0, 4), 0xffffffffu);
  EXPECT_EQ(number(run(cdb_16(0x9e, 0, 32, 0x10))->data_in(), 0, 8), std::uint64_t{1} << 32);
  expect_sense(*run(cdb_10(0x25, 1, 0)), kInvalidFieldInCdb);
  expect_good(*run({0x25, 0, 0, 0, 0, 1, 0, 0, 1, 0}));
}

// What is called unmapped is not copied: everything is mapped, from the block that was asked about to the end.
TEST_F(Inquiry, Get_lba_status_calls_everything_mapped) {
  const auto status = [&](std::uint64_t lba) { return run(cdb_16(0x9e, lba, 24, 0x12)); };
  EXPECT_EQ(status(kBlocks - 3)->data_in(),
            (Bytes{0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0f, 0xfd, 0, 0, 0, 3, 0, 0, 0, 0}));
  EXPECT_EQ(run(cdb_16(0x9e, 0, 8, 0x12))->data_in(), (Bytes{0, 0, 0, 20, 0, 0, 0, 0}));
  expect_sense(*status(kBlocks), kLbaOutOfRange);
}

TEST_F(Inquiry, Report_luns_lists_the_units) {
  const auto luns = [&](std::uint8_t select, std::uint8_t length, std::uint64_t lun) {
    return run({0xa0, 0, select, 0, 0, 0, 0, 0, 0, length, 0, 0}, {}, {}, lun);
  };
  const Bytes all = {0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(luns(0, 255, 0)->data_in(), all);
  EXPECT_EQ(luns(2, 255, 77)->data_in(), all);  // any LUN
  EXPECT_EQ(luns(1, 255, 0)->data_in(), (Bytes{0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(luns(0, 4, 0)->data_in(), (Bytes{0, 0, 0, 16}));
  expect_sense(*luns(3, 255, 0), kInvalidFieldInCdb);
}

// A LUN that is not there must not look like a disk, nor like a broken target.
TEST_F(Inquiry, Absent_unit_answers_only_what_it_must) {
  const auto inquiry = run({0x12, 0, 0, 0, 255, 0}, {}, {}, 5);
  expect_good(*inquiry);
  EXPECT_EQ(inquiry->data_in()[0], 0x7f);
  expect_sense(*run({0x12, 1, 0x83, 0, 255, 0}, {}, {}, 5), kInvalidFieldInCdb);
  const Bytes sense = run({0x03, 0, 0, 0, 18, 0}, {}, {}, 5)->data_in();
  EXPECT_EQ(sense[2], 0x05);
  EXPECT_EQ(sense[12], 0x25);
  for (const Bytes& cdb :
       {Bytes{0x00, 0, 0, 0, 0, 0}, cdb_10(0x28, 0, 1), cdb_10(0x2a, 0, 1), Bytes{0xff, 0, 0, 0, 0, 0}}) {
    expect_sense(*run(cdb, Bytes(512), {}, 5), kUnitNotSupported);
  }
}

// LUN fields of other shapes name no unit of ours; flat addressing of a small number does (SAM-5 4.7.7).
TEST_F(Inquiry, Lun_addressing_methods) {
  const auto try_field = [&](std::uint64_t field) {
    Command command(nexus, {0x00, 0, 0, 0, 0, 0});
    command.task.lun_field = field;
    device->prepare(command.task);
    if (command.task.is_decided) return false;
    device->execute(command.task);
    loop.run();
    return command.is_complete();
  };
  EXPECT_TRUE(try_field(0x0001000000000000));
  EXPECT_TRUE(try_field(0x4001000000000000));
  EXPECT_FALSE(try_field(0x8001000000000000));
  EXPECT_FALSE(try_field(0xc101000000000000));  // REPORT LUNS well known unit
  EXPECT_FALSE(try_field(0x0001000100000000));
  EXPECT_FALSE(try_field(0x0101000000000000));  // bus 1
}

}  // namespace replblk::scsi::test
