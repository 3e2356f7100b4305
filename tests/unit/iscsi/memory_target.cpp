// A whole iSCSI target over memory, for trying real initiators by hand and for measuring this folder alone:
//   iscsi_memory_target PORT MEBIBYTES
// Not a test and not the daemon: no replication, no roles, data is lost at exit. Ends at SIGINT or SIGTERM.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "base/log.hpp"
#include "iscsi/portal.hpp"
#include "iscsi/target.hpp"
#include "memory_backend.hpp"
#include "runtime/reactor.hpp"
#include "runtime/system_random.hpp"
#include "runtime/tcp_network.hpp"

namespace {

using namespace replblk;

volatile std::sig_atomic_t is_stopping = 0;

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: iscsi_memory_target PORT MEBIBYTES\n");
    return 2;
  }
  set_log_sink(
      [](LogLevel, std::string_view line) {
        std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
      },
      LogLevel::debug);
  std::signal(SIGINT, [](int) { is_stopping = 1; });
  std::signal(SIGTERM, [](int) { is_stopping = 1; });
  BufferPool buffers(std::size_t{128} << 20);
  auto made = runtime::Reactor::create({.ring = {}, .buffers = &buffers});
  if (!made) {
    std::fprintf(stderr, "%s\n", made.error().c_str());
    return 1;
  }
  runtime::Reactor& reactor = **made;
  {
    runtime::TcpNetwork network(reactor);
    runtime::SystemRandom random;
    ports::World world{reactor, random, network, buffers};
    test::MemoryBackend backend(reactor, std::strtoull(argv[2], nullptr, 10) << 20);
    scsi::DeviceConfig device_config;
    device_config.target_name = "iqn.2026-11.org.example:memory";
    device_config.units.push_back({0, *parse_uuid("12345678-9abc-4def-8123-456789abcdef"), "memory", &backend});
    scsi::Device device(std::move(device_config), reactor, buffers);
    iscsi::TargetConfig target_config;
    target_config.name = "iqn.2026-11.org.example:memory";
    target_config.alias = "memory";
    iscsi::Target target(std::move(target_config), world, device);
    target.set_serving(true);
    iscsi::Portal portal({}, world);
    portal.add_target(target);
    auto listener = network.listen({"127.0.0.1", static_cast<std::uint16_t>(std::atoi(argv[1]))}, portal);
    if (!listener) {
      std::fprintf(stderr, "%.*s\n", static_cast<int>(to_string(listener.error()).size()),
                   to_string(listener.error()).data());
      return 1;
    }
    std::fprintf(stderr, "listening on %s\n", to_string((*listener)->local()).c_str());
    while (is_stopping == 0) reactor.run_turn(milliseconds(200));
    target.drop_all("the target is stopped");
    portal.drop_all("the target is stopped");
    while (!target.is_idle()) reactor.run_turn(milliseconds(10));
    portal.remove_target(target);
  }
  return 0;
}
