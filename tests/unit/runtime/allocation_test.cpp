// The data path allocates nothing per request: counted by replacing operator new in this program.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "disk_request.hpp"
#include "runtime/disk_file.hpp"
#include "runtime/tcp_network.hpp"
#include "test_loop.hpp"

namespace {
std::size_t allocation_count = 0;

void* allocate(std::size_t size, std::size_t alignment) {
  ++allocation_count;
  void* memory = nullptr;
  if (::posix_memalign(&memory, alignment, size == 0 ? 1 : size) != 0) std::abort();
  return memory;
}
}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) { return allocate(size, alignof(std::max_align_t)); }
[[gnu::noinline]] void* operator new[](std::size_t size) { return allocate(size, alignof(std::max_align_t)); }
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace replblk::runtime {
namespace {

struct Sink final : ports::StreamSink, ports::AcceptSink {
  void on_accept(std::unique_ptr<ports::Stream> accepted) override {
    accepted->set_sink(*this);
    stream = std::move(accepted);
  }
  void on_connected() override { is_connected = true; }
  void on_receive(ConstBytes bytes) override { received += bytes.size(); }
  void on_closed(ports::StreamError) override {}
  std::unique_ptr<ports::Stream> stream;
  std::size_t received = 0;
  bool is_connected = false;
};

// If it failed, a request would cost a malloc and the daemon could run out of memory under load.
TEST(DataPath, Sending_receiving_timers_and_disk_operations_allocate_nothing_in_steady_state) {
  BufferPool pool(std::size_t{16} << 20);
  auto reactor = test::make_reactor({.ring = {}, .buffers = &pool});
  std::string path = "/var/tmp/replblk-allocation-test-XXXXXX";
  const int fd = ::mkstemp(path.data());
  ASSERT_EQ(::ftruncate(fd, 1 << 20), 0);
  auto opened = open_disk({.path = path, .is_buffered = true}, *reactor);
  ASSERT_TRUE(opened.has_value()) << opened.error();
  TcpNetwork network(*reactor);
  Sink server;
  Sink client;
  auto listener = network.listen({.address = "127.0.0.1", .port = 0}, server);
  ASSERT_TRUE(listener.has_value());
  client.stream = network.connect((*listener)->local(), "", client);
  ASSERT_TRUE(test::turn_until(*reactor, [&] { return client.is_connected && server.stream != nullptr; }));

  ports::Timer timer;
  const std::byte header[48] = {};
  BufferRef payload = pool.acquire(4096);
  constexpr int kDepth = 64;
  std::vector<std::unique_ptr<test::Request>> requests;
  for (int index = 0; index < kDepth; ++index) {
    requests.push_back(
        std::make_unique<test::Request>(ports::DiskOpKind::write, 4096u * static_cast<unsigned>(index), 4096));
    requests.back()->op.memory = payload.data();
  }
  std::size_t sent = 0;
  const auto round = [&] {
    for (auto& request : requests) {
      request->result.reset();
      (*opened)->submit(request->op);
      client.stream->send(header);
      client.stream->send(payload.share(), 0, 4096);
      sent += sizeof header + 4096;
      reactor->arm(timer, reactor->now() + seconds(5));
    }
    while (server.received < sent ||
           !std::ranges::all_of(requests, [](const auto& one) { return one->result.has_value(); })) {
      reactor->run_turn(milliseconds(10));
    }
    reactor->cancel(timer);
  };
  for (int warm_up = 0; warm_up < 50; ++warm_up) round();
  const std::size_t before = allocation_count;
  for (int count = 0; count < 200; ++count) round();
  EXPECT_EQ(allocation_count, before);
  ::unlink(path.c_str());
  ::close(fd);
}

}  // namespace
}  // namespace replblk::runtime
