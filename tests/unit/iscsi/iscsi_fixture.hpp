// What the conversation tests share: a portal, a target, a real SCSI device on a held or answering memory volume, and
// a scripted initiator that speaks through the project's own encoders.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/crc32c.hpp"
#include "fake_loop.hpp"
#include "fake_stream.hpp"
#include "iscsi/pdu_reader.hpp"
#include "iscsi/portal.hpp"
#include "iscsi/session.hpp"
#include "iscsi/target.hpp"
#include "memory_backend.hpp"
#include "ports/world.hpp"

namespace replblk::iscsi::test {

using replblk::test::FakeLoop;
using replblk::test::FakeStream;
using replblk::test::MemoryBackend;
using replblk::test::Wire;

inline constexpr std::string_view kTargetName = "iqn.2026-11.org.example:disk";
inline constexpr std::string_view kInitiatorName = "iqn.2026-11.org.example:host";

struct Answer {
  Bhs bhs{};
  std::vector<std::byte> data;
  [[nodiscard]] Opcode opcode() const { return opcode_of(bhs); }
  [[nodiscard]] std::string text() const { return std::string(as_text(data)); }
};

inline std::vector<std::byte> pattern(std::size_t length, unsigned seed) {
  std::vector<std::byte> bytes(length);
  for (std::size_t at = 0; at < length; ++at) bytes[at] = static_cast<std::byte>((at * 7 + at / 256 + seed) & 0xff);
  return bytes;
}

inline std::string keys(std::initializer_list<std::string_view> pairs) {
  std::string text;
  for (const std::string_view pair : pairs) (text += pair).push_back('\0');
  return text;
}

/// One connection of a scripted initiator.
class Initiator {
 public:
  Wire wire;
  std::uint32_t cmd_sn = 100;
  std::uint32_t next_tag = 1;
  bool has_header_digest = false;
  bool has_data_digest = false;

  void send(Bhs bhs, ConstBytes data = {}) { wire.deliver(pack(bhs, data)); }

  [[nodiscard]] std::vector<std::byte> pack(Bhs bhs, ConstBytes data) const {
    store_be24(bhs.data() + 5, static_cast<std::uint32_t>(data.size()));
    std::vector<std::byte> bytes(bhs.begin(), bhs.end());
    const auto append_crc = [&](std::uint32_t crc) {
      std::byte digest[4];
      store_le(digest, crc);
      bytes.insert(bytes.end(), digest, digest + 4);
    };
    if (has_header_digest) append_crc(crc32c(bhs));
    std::vector<std::byte> padded(data.begin(), data.end());
    for (std::size_t missing = padding_bytes(data.size()); missing > 0; --missing) padded.push_back(std::byte{0});
    bytes.insert(bytes.end(), padded.begin(), padded.end());
    if (has_data_digest && !padded.empty()) append_crc(crc32c(padded));
    return bytes;
  }

  /// Everything that the target has said since the last call.
  [[nodiscard]] std::vector<Answer> take_answers() {
    std::vector<Answer> answers;
    std::vector<std::byte> bytes;
    bytes.swap(wire.sent);
    ConstBytes input = bytes;
    reader_.set_digests(has_header_digest, has_data_digest);
    reader_.set_data_bytes_max(1u << 24);
    for (;;) {
      const PduReader::Event event = reader_.advance(input);
      if (event == PduReader::Event::need_more) break;
      EXPECT_NE(event, PduReader::Event::error) << to_string(reader_.error());
      if (event == PduReader::Event::error) break;
      if (event == PduReader::Event::header) {
        data_.assign(reader_.data_bytes(), std::byte{0});
        reader_.place(data_);
      } else {
        answers.push_back({reader_.bhs(), data_});
      }
    }
    return answers;
  }
  /// The one thing that it has said.
  [[nodiscard]] Answer take_answer() {
    std::vector<Answer> answers = take_answers();
    EXPECT_EQ(answers.size(), 1u);
    return answers.empty() ? Answer{} : std::move(answers.front());
  }

  // Builders.
  [[nodiscard]] LoginRequest login_request(std::uint8_t current, std::uint8_t next, std::uint64_t isid) const {
    LoginRequest pdu;
    pdu.transit = true;
    pdu.current_stage = current;
    pdu.next_stage = next;
    pdu.isid = isid;
    pdu.initiator_task_tag = 0x11;
    pdu.cid = 1;
    pdu.cmd_sn = cmd_sn;
    pdu.exp_stat_sn = 50;
    return pdu;
  }
  [[nodiscard]] ScsiCommand command(std::initializer_list<unsigned> cdb, std::uint32_t expected) {
    ScsiCommand pdu;
    std::size_t at = 0;
    for (const unsigned byte : cdb) pdu.cdb[at++] = static_cast<std::byte>(byte);
    pdu.expected_length_bytes = expected;
    pdu.initiator_task_tag = next_tag++;
    pdu.cmd_sn = cmd_sn++;
    return pdu;
  }
  [[nodiscard]] ScsiCommand read10(unsigned lba, unsigned blocks) {
    ScsiCommand pdu = command({0x28, 0, 0, 0, lba >> 8, lba & 0xff, 0, blocks >> 8, blocks & 0xff}, blocks * 512);
    pdu.reads = true;
    return pdu;
  }
  [[nodiscard]] ScsiCommand write10(unsigned lba, unsigned blocks) {
    ScsiCommand pdu = command({0x2a, 0, 0, 0, lba >> 8, lba & 0xff, 0, blocks >> 8, blocks & 0xff}, blocks * 512);
    pdu.writes = true;
    return pdu;
  }
  [[nodiscard]] ScsiCommand test_unit_ready() { return command({0x00}, 0); }
  [[nodiscard]] TaskManagementRequest function(std::uint8_t code, std::uint32_t referenced_tag = kReservedTag,
                                               std::uint32_t ref_cmd_sn = 0) {
    TaskManagementRequest pdu;
    pdu.immediate = true;
    pdu.function = code;
    pdu.initiator_task_tag = next_tag++;
    pdu.referenced_task_tag = referenced_tag;
    pdu.cmd_sn = cmd_sn;
    pdu.ref_cmd_sn = ref_cmd_sn;
    return pdu;
  }

 private:
  PduReader reader_;
  std::vector<std::byte> data_;
};

class IscsiTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kVolumeBytes = std::size_t{8} << 20;

  explicit IscsiTest(TargetConfig target_config = {}, PortalConfig portal_config = {},
                     std::size_t pool_bytes = std::size_t{32} << 20)
      : buffers(pool_bytes), disk(loop, kVolumeBytes) {
    scsi::DeviceConfig device_config;
    device_config.target_name = kTargetName;
    device_config.units.push_back({0, *parse_uuid("12345678-9abc-4def-8123-456789abcdef"), "test", &disk});
    device = std::make_unique<scsi::Device>(std::move(device_config), loop, buffers);
    target_config.name = kTargetName;
    target = std::make_unique<Target>(std::move(target_config), world, *device);
    target->set_serving(true);
    portal = std::make_unique<Portal>(portal_config, world);
    portal->add_target(*target);
  }
  ~IscsiTest() override {
    for (int round = 0; round < 3; ++round) {
      target->drop_all("the test is over");
      portal->drop_all("the test is over");
      disk.complete_all();
      loop.run();
    }
    EXPECT_TRUE(target->is_idle());
    EXPECT_TRUE(loop.is_idle()) << "a timer is still armed";
    portal.reset();
    target.reset();
    device.reset();
    EXPECT_EQ(buffers.free_bytes(), buffers.region().size()) << "a buffer was not given back";
  }

  void connect(Initiator& initiator) {
    portal->on_accept(std::make_unique<FakeStream>(initiator.wire));
    loop.run();
  }
  /// The usual login in one request, with `more` keys; returns the answer's text.
  std::string log_in(Initiator& initiator, std::uint64_t isid = 1, const std::string& more = {}) {
    if (initiator.wire.stream == nullptr) connect(initiator);
    const std::string text = keys({"InitiatorName=iqn.2026-11.org.example:host", "SessionType=Normal",
                                   "TargetName=iqn.2026-11.org.example:disk"}) +
                             more;
    initiator.send(encode(initiator.login_request(1, 3, isid)), as_bytes(text));
    loop.run();
    const Answer answer = initiator.take_answer();
    EXPECT_EQ(answer.opcode(), Opcode::login_response);
    EXPECT_EQ(decode_login_response(answer.bhs).status_class, 0);
    return answer.text();
  }
  /// A login after which every unit attention has been taken.
  void log_in_ready(Initiator& initiator, std::uint64_t isid = 1, const std::string& more = {}) {
    log_in(initiator, isid, more);
    if (more.find("HeaderDigest=CRC32C") != std::string::npos) initiator.has_header_digest = true;
    if (more.find("DataDigest=CRC32C") != std::string::npos) initiator.has_data_digest = true;
    initiator.send(encode(initiator.test_unit_ready()));
    loop.run();
    EXPECT_EQ(initiator.take_answers().size(), 1u);
  }
  /// Puts a command through and returns all that came back.
  std::vector<Answer> exchange(Initiator& initiator, const ScsiCommand& pdu, ConstBytes data = {}) {
    initiator.send(encode(pdu), data);
    loop.run();
    return initiator.take_answers();
  }

  /// Lives as long as the fixture, since the streams of its connections do.
  Initiator& make_initiator() { return initiators.emplace_back(); }

  std::deque<Initiator> initiators;
  FakeLoop loop;
  BufferPool buffers;
  replblk::test::NoRandom random;
  replblk::test::NoNetwork network;
  ports::World world{loop, random, network, buffers};
  MemoryBackend disk;
  std::unique_ptr<scsi::Device> device;
  std::unique_ptr<Target> target;
  std::unique_ptr<Portal> portal;
};

}  // namespace replblk::iscsi::test
