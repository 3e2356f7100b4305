// A whole iSCSI target over memory, for trying real initiators by hand and for measuring this folder alone:
//   iscsi_memory_target PORT MEBIBYTES [CPU_SECONDS_REPORT]
// Not a test and not the daemon: no replication, no roles, data is lost at exit. Ends at SIGINT or SIGTERM.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>

#include "base/log.hpp"
#include "iscsi/portal.hpp"
#include "iscsi/target.hpp"
#include "runtime/reactor.hpp"
#include "runtime/system_random.hpp"
#include "runtime/tcp_network.hpp"

namespace {

using namespace replblk;

volatile std::sig_atomic_t is_stopping = 0;

class MemoryBackend final : public blockdev::BlockBackend {
 public:
  MemoryBackend(ports::Loop& loop, std::uint64_t size_bytes)
      : loop_(loop), data_(static_cast<std::byte*>(std::calloc(size_bytes, 1))) {
    geometry_.size_bytes = size_bytes;
    geometry_.supports_discard = true;
  }
  ~MemoryBackend() override { std::free(data_); }
  [[nodiscard]] const blockdev::VolumeGeometry& geometry() const noexcept override { return geometry_; }
  void submit(blockdev::BlockRequest& request) noexcept override {
    pending_.push_back(&request);
    loop_.defer(task_);
  }

 private:
  void run() {
    while (!pending_.empty()) {
      blockdev::BlockRequest* request = pending_.front();
      pending_.pop_front();
      request->status = blockdev::BlockStatus::good;
      apply(*request);
      request->on_complete(*request);
    }
  }
  void apply(blockdev::BlockRequest& request) {
    using blockdev::BlockOp;
    std::byte* place = data_ + request.offset_bytes;
    switch (request.op) {
      case BlockOp::read: std::memcpy(request.data(), place, request.length_bytes); return;
      case BlockOp::write: std::memcpy(place, request.data(), request.length_bytes); return;
      case BlockOp::flush: return;
      case BlockOp::discard:
      case BlockOp::write_zeroes: std::memset(place, 0, request.length_bytes); return;
      case BlockOp::compare_and_write:
        for (std::size_t at = 0; at < request.length_bytes; ++at) {
          if (request.data()[at] == place[at]) continue;
          request.status = blockdev::BlockStatus::miscompare;
          request.miscompare_offset_bytes = static_cast<std::uint32_t>(at);
          return;
        }
        std::memcpy(place, request.data() + request.length_bytes, request.length_bytes);
        return;
    }
  }

  ports::Loop& loop_;
  blockdev::VolumeGeometry geometry_;
  std::byte* data_;
  std::deque<blockdev::BlockRequest*> pending_;
  ports::DeferredTask task_{Callback<void()>::to<&MemoryBackend::run>(*this)};
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: iscsi_memory_target PORT MEBIBYTES\n");
    return 2;
  }
  set_log_sink([](LogLevel, std::string_view line) { std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data()); },
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
    MemoryBackend backend(reactor, std::strtoull(argv[2], nullptr, 10) << 20);
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
      std::fprintf(stderr, "%.*s\n", static_cast<int>(to_string(listener.error()).size()), to_string(listener.error()).data());
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
