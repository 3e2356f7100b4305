// The simulated world itself: a simulator whose disks or wires are kinder than it says proves nothing.
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <vector>

#include "sim_disk.hpp"
#include "sim_network.hpp"

namespace replblk::sim {
namespace {

constexpr ports::Disk::Geometry kGeometry{
    .size_bytes = 1 << 20, .alignment_bytes = 512, .supports_discard = true, .supports_write_zeroes = true};

struct Op : ports::DiskOp {
  explicit Op(ports::DiskOpKind what, std::uint64_t at = 0, std::uint8_t fill = 0) : data(8192, std::byte{fill}) {
    kind = what;
    offset_bytes = at;
    length_bytes = what == ports::DiskOpKind::flush ? 0 : 4096;
    memory = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(data.data()) + 511) / 512 * 512);
    on_done = Callback<void(DiskOp&, Result<void, ports::IoError>)>::with(
        this, [](void* self, DiskOp&, Result<void, ports::IoError> result) {
          static_cast<Op*>(self)->is_done = true;
          static_cast<Op*>(self)->is_good = result.has_value();
        });
  }
  std::vector<std::byte> data;
  bool is_done = false;
  bool is_good = false;
};

struct DiskWorld {
  explicit DiskWorld(std::uint64_t seed) : timeline(seed) {}
  void run() { timeline.run_until(timeline.now() + seconds(1)); }
  Timeline timeline;
  SimLoop loop{timeline, "host"};
  Medium medium{timeline, "disk", kGeometry};
  DiskModel model;
  SimDisk disk{medium, loop, model};
};

std::uint8_t byte_at(const Medium& medium, std::uint64_t at) {
  return std::to_integer<std::uint8_t>(medium.content()[at]);
}

// Broken if the volatile cache were not volatile, or the flush not a flush.
TEST(SimDisk, A_power_cut_can_lose_a_completed_write_unless_it_was_flushed) {
  bool was_lost = false;
  bool was_torn = false;
  for (std::uint64_t seed = 1; seed < 40; ++seed) {
    DiskWorld world(seed);
    Op flushed(ports::DiskOpKind::write, 0, 1);
    Op flush(ports::DiskOpKind::flush);
    Op loose(ports::DiskOpKind::write, 4096, 2);
    world.disk.submit(flushed);
    world.run();
    world.disk.submit(flush);
    world.run();
    world.disk.submit(loose);
    world.run();
    ASSERT_TRUE(flushed.is_good && flush.is_good && loose.is_good);
    EXPECT_EQ(byte_at(world.medium, 4096), 2);
    world.disk.leave(true);
    world.medium.cut_power();
    int kept = 0;
    for (std::uint64_t at = 0; at < 4096; at += 512) {
      EXPECT_EQ(byte_at(world.medium, at), 1);
      kept += byte_at(world.medium, 4096 + at) == 2;
    }
    was_lost = was_lost || kept == 0;
    was_torn = was_torn || (kept > 0 && kept < 8);
  }
  EXPECT_TRUE(was_lost && was_torn);
}

// Broken if FUA were only a word.
TEST(SimDisk, A_durable_write_survives_also_when_an_older_volatile_one_is_kept) {
  for (std::uint64_t seed = 1; seed < 40; ++seed) {
    DiskWorld world(seed);
    Op loose(ports::DiskOpKind::write, 0, 1);
    Op durable(ports::DiskOpKind::write, 0, 2);
    durable.is_durable = true;
    world.disk.submit(loose);
    world.run();
    world.disk.submit(durable);
    world.run();
    world.disk.leave(true);
    world.medium.cut_power();
    EXPECT_EQ(byte_at(world.medium, 0), 2);
  }
}

// Broken if a killed daemon's writes always or never reached the disk, or did so after quiet_at().
TEST(SimDisk, A_killed_process_leaves_writes_that_land_later_or_not) {
  bool did_land = false;
  bool was_dropped = false;
  for (std::uint64_t seed = 1; seed < 40; ++seed) {
    DiskWorld world(seed);
    Op write(ports::DiskOpKind::write, 0, 1);
    world.disk.submit(write);
    world.loop.kill();
    world.disk.leave(false);
    world.timeline.run_until(std::max(world.medium.quiet_at(), world.timeline.now()));
    const std::uint8_t settled = byte_at(world.medium, 0);
    world.run();
    EXPECT_EQ(byte_at(world.medium, 0), settled);
    EXPECT_FALSE(write.is_done);
    did_land = did_land || settled == 1;
    was_dropped = was_dropped || settled == 0;
  }
  EXPECT_TRUE(did_land && was_dropped);
}

// Broken if a process could reuse a buffer that the device still reads.
TEST(SimDiskDeathTest, Memory_that_changes_in_flight_ends_the_run) {
  EXPECT_DEATH(
      {
        DiskWorld world(1);
        Op write(ports::DiskOpKind::write, 0, 1);
        world.disk.submit(write);
        write.memory[7] = std::byte{9};
        world.run();
      },
      "crc");
}

struct Sink final : ports::StreamSink {
  void on_connected() override { is_connected = true; }
  void on_receive(ConstBytes bytes) override { received.insert(received.end(), bytes.begin(), bytes.end()); }
  ports::DirectTarget direct_target() override {
    if (!buffer) return {};
    return {buffer.share(), direct, 4096 - direct};
  }
  void on_direct(std::size_t count) override {
    direct += count;
    if (direct == 4096) {
      received.insert(received.end(), buffer.data(), buffer.data() + 4096);
      buffer.reset();
    }
  }
  void on_closed(ports::StreamError error) override {
    is_closed = true;
    reason = error;
  }
  BufferRef buffer;
  std::size_t direct = 0;
  std::vector<std::byte> received;
  bool is_connected = false;
  bool is_closed = false;
  ports::StreamError reason{};
};

struct Server final : ports::AcceptSink {
  void on_accept(std::unique_ptr<ports::Stream> stream) override {
    stream->set_sink(sink);
    accepted = std::move(stream);
  }
  Sink sink;
  std::unique_ptr<ports::Stream> accepted;
};

struct NetWorld {
  explicit NetWorld(std::uint64_t seed) : timeline(seed) {}
  void connect() {
    listener = std::move(*server_network->listen({"", 7}, server));
    stream = client_network.connect({"b", 7}, "", client);
    run(milliseconds(10));
  }
  void run(Duration duration) { timeline.run_until(timeline.now() + duration); }
  Timeline timeline;
  NetworkModel model;
  SimFabric fabric{timeline, model};
  SimLoop client_loop{timeline, "a"};
  SimLoop server_loop{timeline, "b"};
  SimNetwork client_network{fabric, client_loop, "a"};
  std::unique_ptr<SimNetwork> server_network = std::make_unique<SimNetwork>(fabric, server_loop, "b");
  Sink client;
  Server server;
  std::unique_ptr<ports::Listener> listener;
  std::unique_ptr<ports::Stream> stream;
};

std::vector<std::byte> pattern(std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t index = 0; index < count; ++index) bytes[index] = static_cast<std::byte>(mix64(index));
  return bytes;
}

// Broken if segmentation lost, repeated or reordered bytes, or direct receives missed the order.
TEST(SimNetwork, Bytes_arrive_once_and_in_order_directly_or_not) {
  for (std::uint64_t seed = 1; seed < 30; ++seed) {
    NetWorld world(seed);
    BufferPool pool(1 << 20);
    world.server.sink.buffer = seed % 2 == 0 ? pool.acquire(4096) : BufferRef();
    world.connect();
    ASSERT_TRUE(world.client.is_connected);
    const std::vector<std::byte> bytes = pattern(3'000'000);
    world.stream->send(bytes);
    EXPECT_EQ(world.stream->queued_bytes(), bytes.size());
    world.run(seconds(2));
    EXPECT_TRUE(world.server.sink.received == bytes);
    EXPECT_EQ(world.stream->queued_bytes(), 0u);
  }
}

// Broken if a cut that heals lost data, or one that does not went unnoticed by a sender.
TEST(SimNetwork, A_cut_that_heals_is_a_delay_and_one_that_does_not_times_out) {
  NetWorld world(3);
  world.connect();
  world.fabric.link("a", "b").is_cut = true;
  world.stream->send(pattern(1000));
  world.run(seconds(4));
  EXPECT_TRUE(world.server.sink.received.empty());
  world.fabric.heal_all();
  world.run(seconds(4));
  EXPECT_EQ(world.server.sink.received.size(), 1000u);
  world.fabric.link("b", "a").is_cut = true;  // One way: the data arrives, the acknowledgement does not.
  world.stream->send(pattern(1000));
  world.run(seconds(15));
  EXPECT_EQ(world.server.sink.received.size(), 2000u);
  EXPECT_TRUE(world.client.is_closed);
  EXPECT_EQ(world.client.reason, ports::StreamError::timed_out);
  EXPECT_FALSE(world.server.sink.is_closed);
}

// Broken if a dead process kept its connections, or a dead host said good-bye.
TEST(SimNetwork, A_killed_process_is_noticed_and_a_dead_host_is_silent_until_it_is_back) {
  for (const bool is_power_cut : {false, true}) {
    NetWorld world(5);
    world.connect();
    world.server_loop.kill();
    world.server_network->leave(is_power_cut);
    if (is_power_cut) world.fabric.set_powered("b", false);
    world.run(seconds(1));
    EXPECT_EQ(world.client.is_closed, !is_power_cut);
    if (!is_power_cut) continue;
    world.fabric.set_powered("b", true);
    world.stream->send(pattern(10));
    world.run(seconds(1));
    EXPECT_TRUE(world.client.is_closed);
    EXPECT_EQ(world.client.reason, ports::StreamError::reset);
  }
}

// Broken if connecting could hang, or nobody's port accepted.
TEST(SimNetwork, Connecting_is_refused_without_a_listener_and_times_out_without_a_path) {
  NetWorld world(7);
  world.stream = world.client_network.connect({"b", 9}, "", world.client);
  world.run(seconds(1));
  EXPECT_TRUE(world.client.is_closed);
  EXPECT_EQ(world.client.reason, ports::StreamError::refused);
  Sink second;
  world.fabric.link("b", "a").is_cut = true;
  auto stream = world.client_network.connect({"b", 7}, "", second);
  world.run(milliseconds(4900));
  EXPECT_FALSE(second.is_closed);
  world.run(seconds(2));
  EXPECT_TRUE(second.is_closed);
  EXPECT_EQ(second.reason, ports::StreamError::timed_out);
}

// Broken if a user could hear of a stream it has ended.
TEST(SimNetwork, After_abort_nothing_is_heard_and_the_other_side_hears_reset) {
  NetWorld world(9);
  world.connect();
  world.server.accepted->send(pattern(100));
  world.stream->abort();
  world.run(seconds(1));
  EXPECT_TRUE(world.client.received.empty());
  EXPECT_FALSE(world.client.is_closed);
  EXPECT_TRUE(world.server.sink.is_closed);
  EXPECT_EQ(world.server.sink.reason, ports::StreamError::reset);
}

// Broken if close() cut off what was queued.
TEST(SimNetwork, Close_sends_what_is_queued_before_the_end) {
  NetWorld world(11);
  world.connect();
  world.stream->send(pattern(700'000));
  world.stream->close();
  world.stream.reset();
  world.run(seconds(3));
  EXPECT_EQ(world.server.sink.received.size(), 700'000u);
  EXPECT_TRUE(world.server.sink.is_closed);
  EXPECT_EQ(world.server.sink.reason, ports::StreamError::closed_by_peer);
}

struct Recorder {
  explicit Recorder(SimLoop& where) : loop(where) {
    timer.expired = Callback<void()>::with(this, [](void* self) { static_cast<Recorder*>(self)->on_timer(); });
    deferred.run = Callback<void()>::with(this, [](void* self) { static_cast<Recorder*>(self)->order += 'd'; });
    ending.run = Callback<void()>::with(this, [](void* self) { static_cast<Recorder*>(self)->order += 'e'; });
  }
  ~Recorder() { loop.cancel(timer); }
  void on_timer() {
    order += 't';
    loop.defer_to_turn_end(ending);
    loop.defer(deferred);
    loop.defer(deferred);
  }
  SimLoop& loop;
  std::string order;
  ports::Timer timer;
  ports::DeferredTask deferred;
  ports::DeferredTask ending;
};

// Broken if the simulated turn were not the turn that ports/loop.hpp promises.
TEST(SimLoop, A_turn_runs_callbacks_then_deferred_tasks_then_its_end) {
  Timeline timeline(1);
  SimLoop loop(timeline, "host");
  Recorder recorder(loop);
  loop.arm(recorder.timer, timeline.now() + seconds(1));
  timeline.run_until(timeline.now() + milliseconds(999));
  EXPECT_EQ(recorder.order, "");
  timeline.run_until(timeline.now() + milliseconds(2));
  EXPECT_EQ(recorder.order, "tde");
}

// Broken if a dead process still acted.
TEST(SimLoop, After_a_kill_nothing_is_called) {
  Timeline timeline(1);
  SimLoop loop(timeline, "host");
  Recorder recorder(loop);
  loop.arm(recorder.timer, timeline.now() + seconds(1));
  loop.post([&] { recorder.order += 'p'; });
  loop.kill();
  timeline.run_until(timeline.now() + seconds(2));
  EXPECT_EQ(recorder.order, "");
}

}  // namespace
}  // namespace replblk::sim
