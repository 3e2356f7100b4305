// A whole target under a peer that sends what it likes: the input's first byte chooses digest-less login or none,
// and how the stream is cut; then come raw bytes. A second connection logs in as the same initiator half-way, so that
// reinstatement happens in any state. Everything must be given back at the end.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "fake_loop.hpp"
#include "fake_stream.hpp"
#include "iscsi/portal.hpp"
#include "iscsi/target.hpp"
#include "memory_backend.hpp"

using namespace replblk;
using namespace replblk::iscsi;

namespace {

constexpr std::string_view kName = "iqn.t";

std::vector<std::byte> login_bytes() {
  const std::string text("InitiatorName=iqn.i\0TargetName=iqn.t\0InitialR2T=No\0MaxBurstLength=4096\0", 72);
  LoginRequest pdu;
  pdu.transit = true;
  pdu.current_stage = 1;
  pdu.next_stage = 3;
  pdu.isid = 1;
  pdu.initiator_task_tag = 1;
  pdu.cmd_sn = 0;
  pdu.data_segment_bytes = static_cast<std::uint32_t>(text.size());
  const Bhs bhs = encode(pdu);
  std::vector<std::byte> bytes(bhs.begin(), bhs.end());
  const ConstBytes body = as_bytes(text);
  bytes.insert(bytes.end(), body.begin(), body.end());
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const unsigned mode = data[0];
  ConstBytes bytes = std::as_bytes(std::span(data + 1, size - 1));

  static BufferPool buffers(std::size_t{4} << 20);
  test::Wire wires[2];
  test::FakeLoop loop;
  test::NoRandom random;
  test::NoNetwork network;
  ports::World world{loop, random, network, buffers};
  test::MemoryBackend disk(loop, 1 << 16);  // Small: zeroing it is most of what an input costs.
  disk.is_held = (mode & 1) != 0;
  {
    scsi::DeviceConfig device_config;
    device_config.target_name = kName;
    device_config.units.push_back({0, Uuid{{std::byte{1}}}, "fuzz", &disk});
    scsi::Device device(std::move(device_config), loop, buffers);
    TargetConfig config;
    config.name = kName;
    config.commands_per_session = 8;
    Target target(std::move(config), world, device);
    target.set_serving(true);
    Portal portal({}, world);
    portal.add_target(target);

    portal.on_accept(std::make_unique<test::FakeStream>(wires[0]));
    if ((mode & 2) != 0) wires[0].deliver(login_bytes());
    const std::size_t step = (mode >> 4) == 0 ? bytes.size() : (mode >> 4) * std::size_t{13};
    const std::size_t half = bytes.size() / 2;
    bool has_second = false;
    while (!bytes.empty()) {
      const std::size_t count = std::min(step, bytes.size());
      wires[has_second && (mode & 8) != 0 ? 1 : 0].deliver(bytes.first(count));
      bytes = bytes.subspan(count);
      if ((mode & 4) != 0) loop.run();
      if (!has_second && bytes.size() <= half && (mode & 8) != 0) {
        has_second = true;
        portal.on_accept(std::make_unique<test::FakeStream>(wires[1]));
        wires[1].deliver(login_bytes());
      }
    }
    loop.run();
    loop.advance(seconds(6));
    for (int round = 0; round < 3; ++round) {
      disk.complete_all();
      loop.run();
      target.drop_all("end");
      portal.drop_all("end");
      loop.run();
    }
    if (!target.is_idle()) std::abort();
    portal.remove_target(target);
  }
  if (buffers.free_bytes() != buffers.region().size()) std::abort();
  return 0;
}
