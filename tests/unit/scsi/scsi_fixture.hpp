// What the SCSI unit tests share: a disk in memory that answers when told to, a device of two units on a hand-driven
// loop, and a command that plays the transport. Invariant: at the end of each test every buffer is back in the pool.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "fake_loop.hpp"
#include "scsi/device.hpp"
#include "scsi/sense.hpp"

namespace replblk::scsi::test {

using Bytes = std::vector<std::uint8_t>;

/// A disk in memory. Completes from the loop, or when told to while is_held.
class MemoryBackend final : public blockdev::BlockBackend {
 public:
  struct Seen {
    blockdev::BlockOp op;
    std::uint64_t offset_bytes;
    std::uint64_t length_bytes;
    bool is_fua;
    friend bool operator==(const Seen&, const Seen&) = default;
  };

  MemoryBackend(ports::Loop& loop, std::uint64_t size_bytes) : data(size_bytes), loop_(loop) {
    geometry_.size_bytes = size_bytes;
    geometry_.supports_discard = true;
  }
  ~MemoryBackend() override { EXPECT_TRUE(pending_.empty()); }

  [[nodiscard]] const blockdev::VolumeGeometry& geometry() const noexcept override { return geometry_; }
  [[nodiscard]] blockdev::VolumeGeometry& change_geometry() noexcept { return geometry_; }

  void submit(blockdev::BlockRequest& request) noexcept override {
    seen.push_back({request.op, request.offset_bytes, request.length_bytes, request.is_fua});
    if (request.op != blockdev::BlockOp::flush) {
      EXPECT_EQ(request.offset_bytes % geometry_.logical_block_bytes, 0u);
      EXPECT_EQ(request.length_bytes % geometry_.logical_block_bytes, 0u);
      EXPECT_GT(request.length_bytes, 0u);
      EXPECT_LE(request.end_bytes(), geometry_.size_bytes);
    }
    pending_.push_back(&request);
    if (!is_held) loop_.defer(deferred_);
  }

  [[nodiscard]] std::size_t pending_count() const { return pending_.size(); }
  void complete_one() {
    blockdev::BlockRequest* request = pending_.front();
    pending_.pop_front();
    request->status = next_status;
    next_status = blockdev::BlockStatus::good;
    if (request->status == blockdev::BlockStatus::good && keeps_data) apply(*request);
    request->on_complete(*request);
  }
  void complete_all() {
    while (!pending_.empty()) complete_one();
  }

  std::vector<std::uint8_t> data;
  std::vector<Seen> seen;
  bool is_held = false;
  bool keeps_data = true;  ///< false: a volume larger than `data`
  blockdev::BlockStatus next_status = blockdev::BlockStatus::good;

 private:
  void apply(blockdev::BlockRequest& request) {
    using blockdev::BlockOp;
    std::uint8_t* const place = data.data() + request.offset_bytes;
    const std::size_t length = request.length_bytes;
    switch (request.op) {
      case BlockOp::read:
        std::memcpy(request.data(), place, length);
        return;
      case BlockOp::write:
        std::memcpy(place, request.data(), length);
        return;
      case BlockOp::flush:
        return;
      case BlockOp::discard:
      case BlockOp::write_zeroes:
        std::memset(place, 0, length);
        return;
      case BlockOp::compare_and_write: {
        for (std::size_t at = 0; at < length; ++at) {
          if (std::to_integer<std::uint8_t>(request.data()[at]) != place[at]) {
            request.status = blockdev::BlockStatus::miscompare;
            request.miscompare_offset_bytes = static_cast<std::uint32_t>(at);
            return;
          }
        }
        std::memcpy(place, request.data() + length, length);
        return;
      }
    }
  }

  ports::Loop& loop_;
  blockdev::VolumeGeometry geometry_;
  std::deque<blockdev::BlockRequest*> pending_;
  ports::DeferredTask deferred_{Callback<void()>::to<&MemoryBackend::complete_all>(*this)};
};

/// One command, and the part of the transport that carries it.
class Command {
 public:
  Command(NexusId nexus, const Bytes& cdb) {
    task.nexus = nexus;
    for (std::size_t index = 0; index < cdb.size(); ++index) task.cdb[index] = static_cast<std::byte>(cdb[index]);
    task.on_complete = Callback<void(Task&)>::with(this, [](void* self, Task& finished) {
      auto* command = static_cast<Command*>(self);
      EXPECT_EQ(&finished, &command->task);
      EXPECT_FALSE(command->is_inside) << "completed from inside a call";
      ++command->completions;
    });
  }

  [[nodiscard]] bool is_complete() const { return completions > 0; }
  [[nodiscard]] Bytes data_in() const {
    Bytes bytes(task.data_in_length_bytes);
    const std::byte* from = task.data_in ? task.data_in.data() : task.small_data_in.data();
    if (!bytes.empty()) std::memcpy(bytes.data(), from, bytes.size());
    return bytes;
  }
  [[nodiscard]] SenseCode sense_code() const {
    const auto at = [&](std::size_t index) { return std::to_integer<std::uint8_t>(task.sense[index]); };
    if (task.sense_length_bytes == 0) return kNoSense;
    if (at(0) == 0x72) return {static_cast<SenseKey>(at(1) & 0xf), at(2), at(3)};
    return {static_cast<SenseKey>(at(2) & 0xf), at(12), at(13)};
  }
  /// Fixed format: {C/D, byte, bit} of the field pointer as one readable number, cdb byte * 8 + bit, or -1.
  [[nodiscard]] int cdb_field() const {
    const auto sks = std::to_integer<unsigned>(task.sense[15]);
    if ((sks & 0xc8) != 0xc8) return -1;
    return load_be<std::uint16_t>(&task.sense[16]) * 8 + static_cast<int>(sks & 7);
  }
  [[nodiscard]] int parameter_field() const {
    const auto sks = std::to_integer<unsigned>(task.sense[15]);
    if ((sks & 0xc0) != 0x80) return -1;
    return load_be<std::uint16_t>(&task.sense[16]);
  }
  [[nodiscard]] std::uint32_t information() const { return load_be<std::uint32_t>(&task.sense[3]); }
  [[nodiscard]] bool has_information() const { return (task.sense[0] & std::byte{0x80}) != std::byte{0}; }

  Task task;
  int completions = 0;
  bool is_inside = false;
};

class ScsiTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kBlocks = 4096;

  explicit ScsiTest(std::size_t pool_bytes = std::size_t{32} << 20, ReservationKeeper* keeper = nullptr)
      : buffers(pool_bytes), disk(loop, kBlocks * 512), second_disk(loop, kBlocks * 512) {
    DeviceConfig config;
    config.target_name = "iqn.2026-11.org.example:disk";
    config.reservation_keeper = keeper;
    config.units.push_back({0, *parse_uuid("12345678-9abc-4def-8123-456789abcdef"), "replblk", &disk});
    config.units.push_back({1, *parse_uuid("00000000-0000-4000-8000-000000000001"), "replblk", &second_disk});
    device = std::make_unique<Device>(std::move(config), loop, buffers);
    nexus = device->attach({"iqn.2026-11.org.example:one", 1});
    other = device->attach({"iqn.2026-11.org.example:two", 2});
    clear_attentions();
  }
  ~ScsiTest() override {
    loop.run();
    device.reset();
    EXPECT_EQ(buffers.free_bytes(), buffers.region().size()) << "a buffer was not given back";
  }

  void clear_attentions() {
    for (const NexusId each : {nexus, other}) {
      for (const std::uint64_t lun : {0u, 1u}) (void)run({0x03, 0, 0, 0, 252, 0}, {}, each, lun);
    }
  }

  /// prepare(); expected length is what the CDB says unless data is given.
  std::unique_ptr<Command> prepare(const Bytes& cdb, const Bytes& data = {}, NexusId from = {}, std::uint64_t lun = 0,
                                   TaskAttribute attribute = TaskAttribute::simple) {
    auto command = std::make_unique<Command>(from == NexusId{} ? nexus : from, cdb);
    Task& task = command->task;
    task.lun_field = lun << 48;
    task.attribute = attribute;
    task.expected_length_bytes = static_cast<std::uint32_t>(data.size());
    command->is_inside = true;
    device->prepare(task);
    command->is_inside = false;
    if (!task.is_decided && task.direction == DataDirection::out) give_data(*command, data);
    return command;
  }

  void give_data(Command& command, const Bytes& data) {
    Task& task = command.task;
    const std::size_t length = std::min<std::size_t>(data.size(), task.transfer_length_bytes);
    if (length == 0) return;
    task.data_out = buffers.acquire(length);
    ASSERT_TRUE(task.data_out);
    std::memcpy(task.data_out.data(), data.data(), length);
    task.data_out_length_bytes = static_cast<std::uint32_t>(length);
  }

  void execute(Command& command) {
    command.is_inside = true;
    device->execute(command.task);
    command.is_inside = false;
  }

  std::unique_ptr<Command> start(const Bytes& cdb, const Bytes& data = {}, NexusId from = {}, std::uint64_t lun = 0,
                                 TaskAttribute attribute = TaskAttribute::simple) {
    auto command = prepare(cdb, data, from, lun, attribute);
    if (!command->task.is_decided) execute(*command);
    return command;
  }

  std::unique_ptr<Command> run(const Bytes& cdb, const Bytes& data = {}, NexusId from = {}, std::uint64_t lun = 0) {
    auto command = start(cdb, data, from, lun);
    loop.run();
    if (!command->task.is_decided) {
      EXPECT_EQ(command->completions, disk.is_held ? command->completions : 1);
    } else {
      EXPECT_EQ(command->completions, 0);
    }
    return command;
  }

  void expect_sense(const Command& command, SenseCode code) {
    EXPECT_EQ(command.task.status, Status::check_condition);
    EXPECT_EQ(command.sense_code(), code) << std::hex << "got " << int(command.sense_code().key) << '/'
                                          << int(command.sense_code().asc) << '/' << int(command.sense_code().ascq);
  }
  void expect_good(const Command& command) {
    EXPECT_EQ(command.task.status, Status::good)
        << std::hex << "sense " << int(command.sense_code().key) << '/' << int(command.sense_code().asc) << '/'
        << int(command.sense_code().ascq);
  }

  replblk::test::FakeLoop loop;
  BufferPool buffers;
  MemoryBackend disk;
  MemoryBackend second_disk;
  std::unique_ptr<Device> device;
  NexusId nexus;
  NexusId other;
};

inline Bytes filled(std::size_t size, std::uint8_t value) { return Bytes(size, value); }
inline Bytes numbered(std::size_t size, std::uint8_t seed = 1) {
  Bytes bytes(size);
  for (std::size_t index = 0; index < size; ++index)
    bytes[index] = static_cast<std::uint8_t>(index * 7 + index / 512 + seed);
  return bytes;
}

/// CDBs.
inline Bytes cdb_10(unsigned code, std::uint32_t lba, std::uint16_t count, std::uint8_t flags = 0) {
  return {static_cast<std::uint8_t>(code),
          flags,
          static_cast<std::uint8_t>(lba >> 24),
          static_cast<std::uint8_t>(lba >> 16),
          static_cast<std::uint8_t>(lba >> 8),
          static_cast<std::uint8_t>(lba),
          0,
          static_cast<std::uint8_t>(count >> 8),
          static_cast<std::uint8_t>(count),
          0};
}
inline Bytes cdb_12(unsigned code, std::uint32_t lba, std::uint32_t count, std::uint8_t flags = 0) {
  Bytes cdb(12);
  cdb[0] = static_cast<std::uint8_t>(code);
  cdb[1] = flags;
  store_be(reinterpret_cast<std::byte*>(&cdb[2]), lba);
  store_be(reinterpret_cast<std::byte*>(&cdb[6]), count);
  return cdb;
}
inline Bytes cdb_16(unsigned code, std::uint64_t lba, std::uint32_t count, std::uint8_t flags = 0) {
  Bytes cdb(16);
  cdb[0] = static_cast<std::uint8_t>(code);
  cdb[1] = flags;
  store_be(reinterpret_cast<std::byte*>(&cdb[2]), lba);
  store_be(reinterpret_cast<std::byte*>(&cdb[10]), count);
  return cdb;
}

}  // namespace replblk::scsi::test
