// The simulated datagrams themselves: what they claim to lose, double and delay they must.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "sim_datagrams.hpp"

namespace replblk::sim {
namespace {

struct Sink final : ports::DatagramSink {
  explicit Sink(SimLoop& of) : loop(of) {}
  void on_datagram(ConstBytes bytes) override {
    received.push_back(std::to_integer<unsigned>(bytes.front()) | std::to_integer<unsigned>(bytes[1]) << 8);
    if (ends_at_first) socket.reset();
  }
  SimLoop& loop;
  std::unique_ptr<ports::DatagramSocket> socket;
  std::vector<unsigned> received;
  bool ends_at_first = false;
};

struct World {
  explicit World(const NetworkModel& wanted = {}) : model(wanted) {
    left.socket = std::move(*left_datagrams.open({{"a", 7789}, {"b", 7789}}, left));
    right.socket = std::move(*right_datagrams.open({{"b", 7789}, {"a", 7789}}, right));
  }
  /// Numbered from `first` on, one each millisecond.
  void send(unsigned first, unsigned count) {
    for (unsigned number = first; number < first + count; ++number) {
      const std::array bytes{static_cast<std::byte>(number), static_cast<std::byte>(number >> 8)};
      left.socket->send(bytes);
      run(milliseconds(1));
    }
  }
  void run(Duration duration) { timeline.run_until(timeline.now() + duration); }
  Timeline timeline{1};
  NetworkModel model;
  SimFabric fabric{timeline, model};
  SimLoop left_loop{timeline, "a"};
  SimLoop right_loop{timeline, "b"};
  SimDatagrams left_datagrams{fabric, left_loop};
  SimDatagrams right_datagrams{fabric, right_loop};
  Sink left{left_loop};
  Sink right{right_loop};
};

std::vector<unsigned> numbers(unsigned first, unsigned count) {
  std::vector<unsigned> list;
  for (unsigned number = first; number < first + count; ++number) list.push_back(number);
  return list;
}

// Broken if the fault-free network lost anything: no run could then demand that a lease holds.
TEST(SimDatagrams, Without_faults_each_arrives_once_and_in_order) {
  World world;
  world.send(0, 100);
  world.run(milliseconds(10));
  EXPECT_EQ(world.right.received, numbers(0, 100));
  EXPECT_EQ(world.right.socket->counts(), (ports::DatagramCounts{.received = 100}));
  EXPECT_EQ(world.left.socket->counts(), (ports::DatagramCounts{.sent = 100}));
}

// Broken if the network were kinder than the model says, or went on being unkind after it was healed.
TEST(SimDatagrams, They_are_lost_doubled_and_late_until_everything_is_healed) {
  World world({.datagram_loss_probability = 0.2,
               .datagram_double_probability = 0.2,
               .datagram_late_probability = 0.2,
               .datagram_late_max = milliseconds(50)});
  world.send(0, 1000);
  world.run(seconds(1));
  std::vector<int> times(1000, 0);
  bool is_overtaken = false;
  for (std::size_t index = 0; index < world.right.received.size(); ++index) {
    ++times[world.right.received[index]];
    if (index > 0 && world.right.received[index] < world.right.received[index - 1]) is_overtaken = true;
  }
  EXPECT_TRUE(is_overtaken);
  const auto lost = std::ranges::count(times, 0);
  EXPECT_GT(lost, 100);
  EXPECT_LT(lost, 300);
  EXPECT_GT(std::ranges::count(times, 2), 50);
  world.right.received.clear();
  world.fabric.heal_all();
  world.send(0, 200);
  world.run(milliseconds(10));
  EXPECT_EQ(world.right.received, numbers(0, 200));
}

// Broken if a partition let heartbeats through, or one direction stopped the other, or one path the other path.
TEST(SimDatagrams, A_cut_direction_loses_what_is_sent_and_what_is_under_way) {
  World world;
  world.fabric.link("a", "b").extra_latency = milliseconds(20);
  world.send(0, 1);
  world.fabric.link("a", "b").is_cut = true;
  world.send(1, 1);
  world.right.socket->send(std::array{std::byte{9}, std::byte{0}});
  Sink other_left(world.left_loop), other_right(world.right_loop);
  other_left.socket = std::move(*world.left_datagrams.open({{"a2", 7789}, {"b2", 7789}}, other_left));
  other_right.socket = std::move(*world.right_datagrams.open({{"b2", 7789}, {"a2", 7789}}, other_right));
  other_left.socket->send(std::array{std::byte{8}, std::byte{0}});
  world.run(milliseconds(100));
  EXPECT_TRUE(world.right.received.empty());
  EXPECT_EQ(world.left.received, numbers(9, 1));
  EXPECT_EQ(other_right.received, numbers(8, 1));
  world.fabric.heal_all();
  world.send(2, 1);
  world.run(milliseconds(100));
  EXPECT_EQ(world.right.received, numbers(2, 1));
}

// Broken if a dead process heard something, its successor could not listen, or one that hangs had endless memory.
TEST(SimDatagrams, They_end_with_the_process_and_wait_for_one_that_hangs) {
  World world;
  world.right_loop.hang(seconds(2));
  world.send(0, 300);
  world.run(seconds(3));
  EXPECT_EQ(world.right.received, numbers(0, SimDatagrams::kKernelDatagrams));
  EXPECT_EQ(world.right.socket->counts().overrun, 300 - SimDatagrams::kKernelDatagrams);
  world.right.received.clear();

  Sink successor(world.right_loop);
  SimLoop next_loop(world.timeline, "b again");
  SimDatagrams next_datagrams(world.fabric, next_loop);
  const ports::DatagramPath path{{"b", 7789}, {"a", 7789}};
  EXPECT_EQ(next_datagrams.open(path, successor).error(), ports::ListenError::address_in_use);
  world.right_loop.kill();
  world.send(0, 1);
  successor.socket = std::move(*next_datagrams.open(path, successor));
  world.send(1, 1);
  world.run(milliseconds(10));
  EXPECT_TRUE(world.right.received.empty());
  EXPECT_EQ(successor.received, numbers(1, 1));
  world.right.socket.reset();  // What the dead process leaves behind takes nothing from its successor.
  world.send(2, 1);
  world.run(milliseconds(10));
  EXPECT_EQ(successor.received, numbers(1, 2));
}

// Broken if a socket that its own datagram ends were called again.
TEST(SimDatagrams, A_socket_may_be_destroyed_by_the_datagram_it_brings) {
  World world;
  world.right.ends_at_first = true;
  world.right_loop.hang(milliseconds(50));
  world.send(0, 5);
  world.run(seconds(1));
  EXPECT_EQ(world.right.received, numbers(0, 1));
}

// Broken if what becomes of a datagram changed a draw of the rest of the run: every older seed would mean another run.
// (The turn in which one is received draws its length, as every turn does: hence nobody receives here.)
TEST(SimDatagrams, Their_faults_draw_nothing_from_the_run_s_own_sequence) {
  World world({.datagram_loss_probability = 0.2,
               .datagram_double_probability = 0.2,
               .datagram_late_probability = 0.2,
               .datagram_late_max = milliseconds(50)});
  world.right_loop.kill();
  Timeline untouched{1};
  world.send(0, 100);
  world.run(seconds(1));
  EXPECT_EQ(world.timeline.random().next(), untouched.random().next());
}

}  // namespace
}  // namespace replblk::sim
