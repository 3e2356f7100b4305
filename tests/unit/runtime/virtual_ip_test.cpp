// The virtual IP on real devices: two network namespaces of this test's own, joined by a veth pair. Needs root, else it
// is skipped. It ends nothing but the namespaces that it made.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

#include "runtime/netlink_virtual_ip.hpp"

namespace replblk::runtime {
namespace {

class VirtualIpTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: it makes network namespaces";
    here_ = "replblk-vip-" + std::to_string(::getpid()) + "-a";
    there_ = "replblk-vip-" + std::to_string(::getpid()) + "-b";
    must("ip netns add " + here_);
    must("ip netns add " + there_);
    must("ip -n " + here_ + " link add eth0 address 02:00:00:00:00:01 type veth peer name eth0 netns " + there_ +
         " address 02:00:00:00:00:09");
    for (const std::string& name : {here_, there_}) {
      // Or the kernel's own check keeps each new IPv6 address tentative for a second.
      must("ip netns exec " + name + " sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad'");
      must("ip -n " + name + " link set eth0 up");
    }
  }
  void TearDown() override {
    for (const std::string& name : {here_, there_}) {
      if (!name.empty()) static_cast<void>(std::system(("ip netns del " + name).c_str()));
    }
  }
  static void must(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }
  static std::string output_of(const std::string& command) {
    std::string text;
    FILE* pipe = ::popen(command.c_str(), "r");
    std::array<char, 512> line;
    while (pipe != nullptr && std::fgets(line.data(), line.size(), pipe) != nullptr) text += line.data();
    if (pipe != nullptr) ::pclose(pipe);
    return text;
  }
  [[nodiscard]] std::string addresses() const { return output_of("ip -n " + here_ + " -o address show dev eth0"); }

  /// Runs `work` in a thread that lives in the first namespace.
  void in_namespace(const std::function<void(ports::VirtualIp&)>& work, const std::string& address = "192.0.2.100",
                    unsigned prefix_bits = 24, const std::string& device = "eth0") const {
    std::thread thread([&] {
      const int fd = ::open(("/run/netns/" + here_).c_str(), O_RDONLY | O_CLOEXEC);
      ASSERT_GE(fd, 0);
      ASSERT_EQ(::setns(fd, CLONE_NEWNET), 0);
      ::close(fd);
      const auto port = make_virtual_ip({address, prefix_bits, device});
      work(*port);
    });
    thread.join();
  }
  static std::string sentence(const Result<void, std::string>& result) { return result ? "" : result.error(); }
  static std::optional<ports::HardwareAddress> answer_within(ports::VirtualIp& port, milliseconds time) {
    for (milliseconds waited{}; waited < time; waited += milliseconds(5)) {
      if (const auto answer = port.take_answer()) return answer;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return std::nullopt;
  }

  std::string here_;
  std::string there_;
};

constexpr ports::HardwareAddress kThere{{2, 0, 0, 0, 0, 9}};

// protocol.md 3.8: whatever becomes of the daemon, the address is gone 2 s after the last renewal.
TEST_F(VirtualIpTest, Is_set_renewed_and_taken_away_by_the_kernel) {
  for (const auto& [address, prefix_bits] : {std::pair("192.0.2.100", 24u), std::pair("2001:db8::100", 64u)}) {
    in_namespace(
        [&](ports::VirtualIp& port) {
          ASSERT_EQ(sentence(port.check()), "");
          ASSERT_EQ(sentence(port.hold(seconds(2))), "");
          EXPECT_NE(addresses().find(address), std::string::npos);
          for (int count = 0; count < 6; ++count) {
            std::this_thread::sleep_for(milliseconds(500));
            ASSERT_EQ(sentence(port.check()), "") << "one's own is no conflict";
            ASSERT_EQ(sentence(port.hold(seconds(2))), "");
          }
          EXPECT_NE(addresses().find(address), std::string::npos) << "3 s, renewed all the time";
          const auto renewed = std::chrono::steady_clock::now();
          while (addresses().find(address) != std::string::npos) std::this_thread::sleep_for(milliseconds(20));
          EXPECT_LT(std::chrono::steady_clock::now() - renewed, milliseconds(3500));
        },
        address, prefix_bits);
  }
}

TEST_F(VirtualIpTest, Is_gone_at_once_when_it_is_given_up) {
  in_namespace([&](ports::VirtualIp& port) {
    ASSERT_EQ(sentence(port.hold(seconds(2))), "");
    port.release();
    EXPECT_EQ(addresses().find("192.0.2.100"), std::string::npos);
  });
}

// An administrator's own address must survive every role change of ours.
TEST_F(VirtualIpTest, An_address_that_somebody_else_has_set_is_refused_and_left_alone) {
  must("ip -n " + here_ + " address add 192.0.2.100/24 dev eth0");
  in_namespace([&](ports::VirtualIp& port) {
    EXPECT_EQ(sentence(port.check()),
              "virtual IP 192.0.2.100/24 on eth0: the address is on eth0 already, set by somebody else, and is not "
              "taken away "
              "from there: remove it with `ip addr del` and from what sets it at start-up");
    port.release();
  });
  EXPECT_NE(addresses().find("192.0.2.100"), std::string::npos);
}

// A daemon that stood still for longer than the lifetime: what it finds then is not its own.
TEST_F(VirtualIpTest, An_address_that_somebody_has_set_after_it_expired_is_left_alone) {
  for (const auto& [address, prefix_bits] : {std::pair("192.0.2.100", 24u), std::pair("2001:db8::100", 64u)}) {
    in_namespace(
        [&](ports::VirtualIp& port) {
          ASSERT_EQ(sentence(port.hold(seconds(1))), "");
          while (addresses().find(address) != std::string::npos) std::this_thread::sleep_for(milliseconds(20));
          must("ip -n " + here_ + " address add " + address + "/" + std::to_string(prefix_bits) + " dev eth0");
          EXPECT_NE(sentence(port.check()).find("set by somebody else"), std::string::npos);
          EXPECT_NE(sentence(port.hold(seconds(2))).find("set by somebody else"), std::string::npos);
          port.release();
        },
        address, prefix_bits);
    EXPECT_NE(addresses().find(address), std::string::npos);
    EXPECT_EQ(output_of("ip -n " + here_ + " -o address show dev eth0 to " + address).find("sec"), std::string::npos)
        << "it has a lifetime now";
  }
}

// The next daemon within the lifetime, after a SIGKILL: no stranger's.
TEST_F(VirtualIpTest, What_a_killed_predecessor_was_renewing_is_taken_over) {
  must("ip -n " + here_ + " address add 192.0.2.100/24 dev eth0 valid_lft 2 preferred_lft 2");
  in_namespace([&](ports::VirtualIp& port) {
    EXPECT_EQ(sentence(port.check()), "");
    EXPECT_EQ(sentence(port.hold(seconds(2))), "");
  });
}

TEST_F(VirtualIpTest, Says_what_is_wrong_with_the_device) {
  in_namespace(
      [&](ports::VirtualIp& port) {
        EXPECT_EQ(sentence(port.check()), "virtual IP 192.0.2.100/24 on eth7: there is no such device");
        EXPECT_EQ(sentence(port.hold(seconds(2))), "virtual IP 192.0.2.100/24 on eth7: there is no such device");
      },
      "192.0.2.100", 24, "eth7");
  must("ip -n " + there_ + " link set eth0 down");
  in_namespace([&](ports::VirtualIp& port) {
    EXPECT_EQ(sentence(port.check()),
              "virtual IP 192.0.2.100/24 on eth0: the device has no carrier: the cable or the switch");
  });
  must("ip -n " + here_ + " link set eth0 down");
  in_namespace([&](ports::VirtualIp& port) {
    EXPECT_EQ(sentence(port.check()),
              "virtual IP 192.0.2.100/24 on eth0: the device is down; set it up with `ip link set eth0 up`");
  });
}

TEST_F(VirtualIpTest, A_host_that_has_the_address_answers_the_probe) {
  for (const auto& [address, prefix_bits] : {std::pair("192.0.2.100", 24u), std::pair("2001:db8::100", 64u)}) {
    in_namespace(
        [](ports::VirtualIp& port) {
          ASSERT_EQ(sentence(port.probe()), "");
          EXPECT_EQ(answer_within(port, milliseconds(200)), std::nullopt) << "nobody has it yet";
        },
        address, prefix_bits);
    must("ip -n " + there_ + " address add " + address + "/" + std::to_string(prefix_bits) + " dev eth0");
    in_namespace(
        [](ports::VirtualIp& port) {
          ASSERT_EQ(sentence(port.probe()), "");
          EXPECT_EQ(answer_within(port, seconds(1)), kThere);
          port.end_probing();
          EXPECT_EQ(port.take_answer(), std::nullopt);
        },
        address, prefix_bits);
  }
}

// Without it initiators would talk to the dead node until their caches expire.
TEST_F(VirtualIpTest, An_announcement_moves_the_neighbours_entry) {
  for (const auto& [address, own, prefix_bits] :
       {std::tuple("192.0.2.100", "192.0.2.9/24", 24u), std::tuple("2001:db8::100", "2001:db8::9/64", 64u)}) {
    must("ip -n " + there_ + " address add " + own + " dev eth0");
    must("ip -n " + there_ + " neigh replace " + address + " lladdr 02:00:00:00:00:77 dev eth0 nud stale");
    in_namespace(
        [](ports::VirtualIp& port) {
          ASSERT_EQ(sentence(port.hold(seconds(2))), "");
          // Linux believes no ARP that follows the last change of an entry within a second (locktime): hence the burst.
          for (int count = 0; count < 4; ++count) {
            ASSERT_EQ(sentence(port.announce()), "");
            std::this_thread::sleep_for(milliseconds(400));
            ASSERT_EQ(sentence(port.hold(seconds(2))), "");
          }
        },
        address, prefix_bits);
    EXPECT_NE(output_of("ip -n " + there_ + " neigh show " + address).find("02:00:00:00:00:01"), std::string::npos)
        << output_of("ip -n " + there_ + " neigh show");
  }
}

// Refused with the capability's name, not with a number; and before the role is taken, not after.
TEST_F(VirtualIpTest, Names_the_capability_that_is_missing) {
  const ::pid_t child = ::fork();
  if (child == 0) {
    const int fd = ::open(("/run/netns/" + here_).c_str(), O_RDONLY | O_CLOEXEC);
    if (::setns(fd, CLONE_NEWNET) != 0 || ::setresuid(65534, 65534, 65534) != 0) ::_exit(2);
    const auto port = make_virtual_ip({"192.0.2.100", 24, "eth0"});
    const bool is_named = sentence(port->check()).find("CAP_NET_ADMIN") != std::string::npos &&
                          sentence(port->hold(seconds(2))).find("CAP_NET_ADMIN") != std::string::npos &&
                          sentence(port->announce()).find("CAP_NET_RAW") != std::string::npos;
    ::_exit(is_named ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace replblk::runtime
