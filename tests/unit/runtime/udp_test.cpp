#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>

#include "runtime/socket.hpp"
#include "runtime/udp_datagrams.hpp"
#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

using ports::DatagramPath;
using ports::DatagramSocket;
using ports::Endpoint;
using ports::ListenError;
using test::make_reactor;
using test::pattern;
using test::turn_for;
using test::turn_until;

using Received = std::vector<std::vector<std::byte>>;

struct Node final : ports::DatagramSink {
  void on_datagram(ConstBytes bytes) override {
    received.emplace_back(bytes.begin(), bytes.end());
    if (leaves_at_first) socket.reset();
  }
  std::unique_ptr<DatagramSocket> socket;
  Received received;
  bool leaves_at_first = false;
};

class UdpTest : public testing::Test {
 protected:
  /// `self` at `own`, whose peer is `other`: port 0 until somebody knows better.
  [[nodiscard]] Result<void, ListenError> open(Node& self, const Endpoint& own, const Endpoint& other) {
    auto opened = datagrams.open({own, other}, self);
    if (!opened) return fail(opened.error());
    self.socket = std::move(*opened);
    return {};
  }
  /// Both ends on free ports: the first learns where it is by opening twice.
  void open_pair(const std::string& left_address, const std::string& right_address) {
    Node scout;
    ASSERT_TRUE(open(scout, {right_address, 0}, {left_address, 1}).has_value());
    const Endpoint right_end = scout.socket->local();
    scout.socket.reset();
    // The kernel lets go of the port when it has heard of the cancelled poll.
    ASSERT_TRUE(open(left, {left_address, 0}, right_end).has_value());
    ASSERT_TRUE(turn_until(*reactor, [&] { return open(right, right_end, left.socket->local()).has_value(); }));
  }

  std::unique_ptr<Reactor> reactor = make_reactor();
  UdpDatagrams datagrams{*reactor};
  Node left, right;
};

// Broken if a heartbeat did not arrive whole, in either family.
TEST_F(UdpTest, Datagrams_go_both_ways_whole) {
  for (const char* address : {"127.0.0.1", "::1"}) {
    open_pair(address, address);
    const auto shortest = pattern(1, 1);
    const auto longest = pattern(ports::kDatagramBytesMax, 2);
    const auto answer = pattern(256, 3);
    left.socket->send(shortest);
    left.socket->send(longest);
    right.socket->send(answer);
    ASSERT_TRUE(turn_until(*reactor, [&] { return right.received.size() == 2 && left.received.size() == 1; }));
    EXPECT_EQ(right.received, (Received{shortest, longest})) << address;
    EXPECT_EQ(left.received, Received{answer}) << address;
    EXPECT_EQ(left.socket->counts(), (ports::DatagramCounts{.sent = 2, .received = 1}));
    EXPECT_EQ(right.socket->counts(), (ports::DatagramCounts{.sent = 1, .received = 2}));
    left = {};
    right = {};
  }
}

// Broken if whoever reaches the port had each of his datagrams authenticated, or one could overrun the buffer.
TEST_F(UdpTest, What_comes_from_elsewhere_or_is_too_long_is_dropped_and_counted) {
  open_pair("127.0.0.1", "127.0.0.2");
  Node stranger;
  ASSERT_TRUE(open(stranger, {"127.0.0.3", 0}, right.socket->local()).has_value());
  stranger.socket->send(pattern(256, 1));
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const auto too_long = pattern(ports::kDatagramBytesMax + 1, 2);
  const auto target = parse_address(right.socket->local());
  const auto source = parse_address({"127.0.0.1", 0});
  ASSERT_EQ(::bind(fd, source->get(), source->length), 0);
  ASSERT_EQ(::sendto(fd, too_long.data(), too_long.size(), 0, target->get(), target->length),
            static_cast<ssize_t>(too_long.size()));
  ::close(fd);
  const auto good = pattern(256, 3);
  left.socket->send(good);
  ASSERT_TRUE(turn_until(*reactor, [&] { return !right.received.empty(); }));
  EXPECT_EQ(right.received, Received{good});
  EXPECT_EQ(right.socket->counts().unexpected, 2u);
}

// Broken if a link that is down when the daemon starts kept it from starting, or ended the path for good.
TEST_F(UdpTest, An_address_that_is_not_here_yet_can_be_opened) {
  for (const auto& [own, other] : {std::pair("192.0.2.1", "127.0.0.1"), std::pair("2001:db8::1", "::1")}) {
    ASSERT_TRUE(open(left, {own, 0}, {other, 9}).has_value()) << own;
    EXPECT_EQ(left.socket->local().address, own);
  }
  ASSERT_TRUE(open(left, {"192.0.2.1", 0}, {"127.0.0.1", 9}).has_value());
  left.socket->send(pattern(256, 1));
  EXPECT_EQ(left.socket->counts(), (ports::DatagramCounts{.not_sent = 1}));
}

TEST_F(UdpTest, What_cannot_be_opened_is_told_apart) {
  const auto error_of = [&](const Endpoint& own, const Endpoint& other) {
    const auto opened = open(left, own, other);
    return opened ? std::nullopt : std::optional(opened.error());
  };
  EXPECT_EQ(error_of({"127.0.0.1", 0}, {"::1", 9}), ListenError::bad_address);
  EXPECT_EQ(error_of({"127.0.0.1", 0}, {"", 9}), ListenError::bad_address);
  EXPECT_EQ(error_of({"", 0}, {"127.0.0.1", 9}), ListenError::bad_address);
  EXPECT_EQ(error_of({"localhost", 0}, {"127.0.0.1", 9}), ListenError::bad_address);
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in foreign{};
  foreign.sin_family = AF_INET;
  foreign.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof foreign;
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&foreign), length), 0);
  ASSERT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&foreign), &length), 0);
  EXPECT_EQ(error_of({"127.0.0.1", ntohs(foreign.sin_port)}, {"127.0.0.1", 9}), ListenError::address_in_use);
  ::close(fd);
}

// Broken if a daemon had to wait, for seconds, until the kernel has taken its killed predecessor's ring down.
TEST_F(UdpTest, A_successor_opens_beside_its_predecessor_and_is_the_one_that_hears) {
  for (const char* address : {"127.0.0.1", "::1"}) {
    open_pair(address, address);
    Node successor;
    ASSERT_TRUE(open(successor, right.socket->local(), left.socket->local()).has_value());
    left.socket->send(pattern(256, 1));
    ASSERT_TRUE(turn_until(*reactor, [&] { return !successor.received.empty(); }));
    EXPECT_TRUE(right.received.empty()) << address;
    left = {};
    right = {};
  }
}

// Broken if a flood kept the loop from its other work, or what it displaced were not seen.
TEST_F(UdpTest, A_flood_takes_a_share_of_each_turn_and_what_is_lost_is_counted) {
  open_pair("127.0.0.1", "127.0.0.1");
  constexpr std::size_t kFlood = 3000;
  const auto datagram = pattern(256, 1);
  for (std::size_t count = 0; count < kFlood; ++count) left.socket->send(datagram);
  std::size_t before = 0;
  const auto turns_are_short = [&] {
    const std::size_t in_this_turn = right.received.size() - std::exchange(before, right.received.size());
    EXPECT_LE(in_this_turn, 16u);
    return in_this_turn == 0 && before > 0;
  };
  ASSERT_TRUE(turn_until(*reactor, turns_are_short));
  // The kernel tells of what it dropped with the next one that it takes.
  left.socket->send(datagram);
  ASSERT_TRUE(turn_until(*reactor, [&] { return right.received.size() > before; }));
  const ports::DatagramCounts counts = right.socket->counts();
  EXPECT_EQ(left.socket->counts().sent, kFlood + 1);
  EXPECT_GT(counts.overrun, 0u);
  EXPECT_EQ(counts.received + counts.overrun, kFlood + 1);
}

// Broken if a sink that ends its path heard more of it, or a freed socket were used.
TEST_F(UdpTest, A_socket_may_be_destroyed_by_the_datagram_it_brings) {
  open_pair("127.0.0.1", "127.0.0.1");
  right.leaves_at_first = true;
  left.socket->send(pattern(256, 1));
  left.socket->send(pattern(256, 2));
  ASSERT_TRUE(turn_until(*reactor, [&] { return right.socket == nullptr; }));
  turn_for(*reactor, milliseconds(20));
  EXPECT_EQ(right.received.size(), 1u);
  // Nobody listens there now; the kernel's word about that ends nothing at this end.
  for (int count = 0; count < 3; ++count) {
    left.socket->send(pattern(256, 3));
    turn_for(*reactor, milliseconds(5));
  }
  EXPECT_EQ(left.socket->counts(), (ports::DatagramCounts{.sent = 5}));
}

// Broken if destruction before the first turn, with the poll not even submitted, left something behind.
TEST_F(UdpTest, A_socket_may_go_in_the_turn_in_which_it_came) {
  for (int round = 0; round < 100; ++round) {
    ASSERT_TRUE(open(left, {"127.0.0.1", 0}, {"127.0.0.1", 9}).has_value());
    left.socket.reset();
  }
  turn_for(*reactor, milliseconds(5));
}

}  // namespace
}  // namespace replblk::runtime
