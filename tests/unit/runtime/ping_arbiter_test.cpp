// Addresses that are asked whether they answer, in two network namespaces of this test's own, joined by a veth pair.
// Needs root, else it is skipped. It ends nothing but the namespaces that it made.
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "runtime/ping_arbiter.hpp"
#include "runtime/tcp_network.hpp"
#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

constexpr Duration kTimeout = milliseconds(800);

struct Sink final : ports::ArbiterSink {
  void on_arbiter_read(std::uint64_t, const ports::ArbiterReading&) override { ADD_FAILURE(); }
  void on_arbiter_replaced(std::uint64_t, bool) override { ADD_FAILURE(); }
  void on_arbiter_overwritten(std::uint64_t) override { ADD_FAILURE(); }
  void on_arbiter_probed(std::uint64_t number, bool is_reached) override { note(number, is_reached ? "yes" : "no"); }
  void on_arbiter_failed(std::uint64_t number, const ports::ArbiterFailure& failure) override {
    EXPECT_FALSE(failure.may_take_effect);
    note(number, failure.sentence);
  }
  void note(std::uint64_t number, const std::string& what) {
    text += std::to_string(number) + " " + what;
    ++answers_count;
  }
  std::string text;
  int answers_count = 0;
};

/// What a node has, and one probe.
struct Prober {
  explicit Prober(const std::vector<ports::Endpoint>& addresses, Duration timeout = kTimeout)
      : arbiter(make_ping_arbiter(*reactor, network, {addresses, timeout}, sink)) {}
  /// The answer, and how long it took.
  std::string ask() {
    const auto begin = std::chrono::steady_clock::now();
    arbiter->probe(++number);
    EXPECT_EQ(sink.answers_count, 0) << "an answer from inside the call";
    EXPECT_TRUE(test::turn_until(*reactor, [&] { return sink.answers_count > 0; }));
    took = std::chrono::steady_clock::now() - begin;
    sink.answers_count = 0;
    return std::exchange(sink.text, {});
  }
  std::unique_ptr<Reactor> reactor = test::make_reactor();
  TcpNetwork network{*reactor};
  Sink sink;
  std::unique_ptr<ports::Arbiter> arbiter;
  std::uint64_t number = 0;
  Duration took{};
};

class PingArbiterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: it makes network namespaces";
    here_ = "replblk-ping-" + std::to_string(::getpid()) + "-a";
    there_ = "replblk-ping-" + std::to_string(::getpid()) + "-b";
    must("ip netns add " + here_);
    must("ip netns add " + there_);
    must("ip -n " + here_ + " link add eth0 type veth peer name eth0 netns " + there_);
    for (const std::string& name : {here_, there_}) {
      must("ip netns exec " + name + " sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad'");
      must("ip -n " + name + " link set lo up");
      must("ip -n " + name + " link set eth0 up");
    }
    must("ip -n " + here_ + " addr add 192.0.2.1/24 dev eth0");
    must("ip -n " + here_ + " addr add 2001:db8::1/64 dev eth0");
  }
  void TearDown() override {
    for (const std::string& name : {here_, there_}) {
      if (!name.empty()) static_cast<void>(std::system(("ip netns del " + name).c_str()));
    }
  }
  static void must(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }
  void give_there(const std::string& address) const { must("ip -n " + there_ + " addr add " + address + " dev eth0"); }
  void let_groups_ping(const std::string& range) const {
    must("ip netns exec " + here_ + " sh -c 'echo " + range + " >/proc/sys/net/ipv4/ping_group_range'");
  }
  static void enter(const std::string& name) {
    const int fd = ::open(("/run/netns/" + name).c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(::setns(fd, CLONE_NEWNET), 0);
    ::close(fd);
  }
  /// Runs `work` in a thread that lives in the first namespace.
  void in_namespace(const std::function<void()>& work) const {
    std::thread thread([&] {
      enter(here_);
      work();
    });
    thread.join();
  }

  std::string here_;
  std::string there_;
};

// Broken if a gateway that answers did not count: a node whose peer died would give way to nobody.
TEST_F(PingArbiterTest, An_address_that_answers_is_reached_at_once_in_both_families_and_by_both_kinds_of_socket) {
  give_there("192.0.2.2/24");
  give_there("2001:db8::2/64");
  for (const char* groups : {"1 0", "0 2147483647"}) {
    let_groups_ping(groups);
    in_namespace([&] {
      for (const char* address : {"192.0.2.2", "2001:db8::2", "127.0.0.1", "::1"}) {
        Prober prober({{address, 0}});
        EXPECT_EQ(prober.ask(), "1 yes") << address << " " << groups;
        EXPECT_EQ(prober.ask(), "2 yes") << address << " " << groups;
        EXPECT_LT(prober.took, kTimeout) << address;
      }
      Prober one_of_three({{"192.0.2.9", 0}, {"2001:db8::9", 0}, {"192.0.2.2", 0}});
      EXPECT_EQ(one_of_three.ask(), "1 yes");
    });
  }
}

// Broken if a node that is cut off took silence, or another address's answer, for an answer, or gave up at the first
// lost packet.
TEST_F(PingArbiterTest, An_address_that_does_not_answer_is_not_reached_and_has_the_whole_time_to) {
  give_there("192.0.2.2/24");
  in_namespace([&] {
    for (const ports::Endpoint& address : {ports::Endpoint{"192.0.2.9", 0},
                                           {"2001:db8::9", 0},
                                           {"198.51.100.1", 0},
                                           {"192.0.2.9", 80},
                                           {"192.0.2.2", 80}}) {
      Prober prober({address});
      EXPECT_EQ(prober.ask(), "1 no") << to_string(address);
      EXPECT_GE(prober.took, kTimeout - milliseconds(20)) << to_string(address);
    }
    // The kernel asks for a neighbour's hardware address once a second.
    Prober late({{"192.0.2.9", 0}}, seconds(3));
    std::thread helper([&] {
      std::this_thread::sleep_for(milliseconds(250));
      give_there("192.0.2.9/24");
    });
    EXPECT_EQ(late.ask(), "1 yes");
    EXPECT_GE(late.took, milliseconds(200));
    helper.join();
  });
}

// Broken if a link that is down for a moment, without any route, decided at once.
TEST_F(PingArbiterTest, A_link_that_comes_back_in_time_is_good_enough) {
  give_there("192.0.2.2/24");
  must("ip -n " + here_ + " link set eth0 down");
  in_namespace([&] {
    Prober prober({{"192.0.2.2", 0}});
    EXPECT_EQ(prober.ask(), "1 no");
    std::thread helper([&] {
      std::this_thread::sleep_for(milliseconds(100));
      must("ip -n " + here_ + " link set eth0 up");
    });
    EXPECT_EQ(prober.ask(), "2 yes");
    helper.join();
  });
}

struct Acceptor final : ports::AcceptSink {
  void on_accept(std::unique_ptr<ports::Stream>) override {}
};

TEST_F(PingArbiterTest, A_port_is_reached_by_a_connection_and_only_by_one) {
  in_namespace([&] {
    Prober prober({{"127.0.0.1", 8080}, {"::1", 8080}});
    EXPECT_EQ(prober.ask(), "1 no") << "refused is no answer: the host's own firewall can say that";
    Acceptor acceptor;
    auto listener = prober.network.listen({"::1", 8080}, acceptor);
    ASSERT_TRUE(listener.has_value());
    EXPECT_EQ(prober.ask(), "2 yes");
    EXPECT_LT(prober.took, kTimeout);
    listener->reset();
    // It listens only from the middle of the probe on.
    prober.arbiter->probe(++prober.number);
    test::turn_for(*prober.reactor, milliseconds(250));
    EXPECT_EQ(prober.sink.answers_count, 0);
    listener = prober.network.listen({"127.0.0.1", 8080}, acceptor);
    ASSERT_TRUE(test::turn_until(*prober.reactor, [&] { return prober.sink.answers_count > 0; }));
    EXPECT_EQ(prober.sink.text, "3 yes");
    prober.arbiter.reset();
    listener->reset();
  });
}

// Broken if a daemon without the right to ask took that for silence: both nodes of a pair would give way.
TEST_F(PingArbiterTest, Who_may_not_ask_says_so_unless_another_address_answers) {
  in_namespace([&] {
    ASSERT_EQ(::syscall(SYS_setresuid, 65534, 65534, 65534), 0);  // Of this thread alone.
    Prober prober({{"127.0.0.1", 0}, {"127.0.0.1", 8080}});
    EXPECT_EQ(
        prober.ask(),
        "1 ping: no ICMP echo can be sent: Operation not permitted; the daemon needs CAP_NET_RAW, or its group in "
        "net.ipv4.ping_group_range");
    Acceptor acceptor;
    auto listener = prober.network.listen({"127.0.0.1", 8080}, acceptor);
    EXPECT_EQ(prober.ask(), "2 yes");
    prober.arbiter.reset();
    listener->reset();
  });
}

// Broken if an answer that is late answered a later question, or came after the end.
TEST_F(PingArbiterTest, A_new_probe_takes_the_place_of_one_that_is_out) {
  in_namespace([&] {
    Prober prober({{"192.0.2.9", 0}, {"192.0.2.9", 80}});
    prober.arbiter->probe(7);
    test::turn_for(*prober.reactor, kTimeout / 2);
    prober.number = 8;
    EXPECT_EQ(prober.ask(), "9 no");
    EXPECT_GE(prober.took, kTimeout - milliseconds(20));
    prober.arbiter->probe(10);
    test::turn_for(*prober.reactor, milliseconds(50));
    prober.arbiter.reset();
    test::turn_for(*prober.reactor, kTimeout);
    EXPECT_EQ(prober.sink.answers_count, 0);
  });
}

}  // namespace
}  // namespace replblk::runtime
