#include "membership/virtual_ip_holder.hpp"

#include <gtest/gtest.h>

#include <deque>

#include "fake_loop.hpp"

namespace replblk::membership {
namespace {

using ports::HardwareAddress;
using test::FakeLoop;

constexpr HardwareAddress kPeer{{2, 0, 0, 0, 0, 2}};
constexpr HardwareAddress kStranger{{2, 0, 0, 0, 0, 3}};

class FakePort final : public ports::VirtualIp {
 public:
  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::vector<HardwareAddress> hardware_addresses() const override { return {}; }
  [[nodiscard]] Result<void, std::string> check() override {
    if (!trouble.empty()) return fail(trouble);
    return {};
  }
  [[nodiscard]] Result<void, std::string> probe() override {
    ++probes;
    is_listening = true;
    return {};
  }
  [[nodiscard]] std::optional<HardwareAddress> take_answer() override {
    if (answers.empty()) return std::nullopt;
    const HardwareAddress answer = answers.front();
    answers.pop_front();
    return answer;
  }
  void end_probing() noexcept override { is_listening = false; }
  [[nodiscard]] Result<void, std::string> hold(Duration lifetime) override {
    if (!trouble.empty()) return fail(trouble);
    EXPECT_EQ(lifetime, seconds(2));
    holds.push_back(loop.now());
    is_set = true;
    return {};
  }
  [[nodiscard]] Result<void, std::string> announce() override {
    EXPECT_TRUE(is_set) << "announced before it was set";
    announcements.push_back(to_ms(loop.now() - started));
    return {};
  }
  void release() noexcept override { is_set = false; }

  explicit FakePort(FakeLoop& with) : loop(with) {}
  FakeLoop& loop;
  Instant started = loop.now();
  std::string trouble;
  std::deque<HardwareAddress> answers;
  int probes = 0;
  bool is_set = false;
  bool is_listening = false;
  std::vector<Instant> holds;
  std::vector<std::int64_t> announcements;

 private:
  std::string name_ = "192.0.2.100/24 on eth0";
};

class VirtualIpHolderTest : public ::testing::Test {
 protected:
  ~VirtualIpHolderTest() override { holder.release(); }
  void probe() {
    holder.set_peer({kPeer});
    holder.probe([this](Result<void, std::string> outcome) { result = std::move(outcome); });
    EXPECT_FALSE(result.has_value()) << "never from inside the call";
  }
  /// As whoever takes the role does it.
  void hold() {
    probe();
    loop.advance(milliseconds(200));
    ASSERT_TRUE(result.has_value() && result->has_value());
    port.started = loop.now();
    holder.hold();
    EXPECT_TRUE(port.is_set) << "probed just now: no reason to wait";
  }
  FakeLoop loop;
  FakePort port{loop};
  bool has_mandate = true;
  VirtualIpHolder holder{loop, port, [this] { return has_mandate; }};
  std::optional<Result<void, std::string>> result;
};

// Broken if initiators of a role that moves by plan met nobody for the time of a question whose answer is known.
TEST_F(VirtualIpHolderTest, One_that_the_peer_has_given_up_is_set_at_once_and_the_network_is_asked_meanwhile) {
  holder.set_peer({kPeer});
  port.answers = {kPeer};
  holder.take_over();
  EXPECT_TRUE(port.is_set);
  EXPECT_EQ(holder.state(), VirtualIpHolder::State::held);
  EXPECT_EQ(port.announcements.size(), 1u);
  EXPECT_EQ(port.probes, 1);
  loop.advance(seconds(2));
  EXPECT_EQ(port.probes, 2);
  EXPECT_TRUE(port.is_set);
  EXPECT_FALSE(port.is_listening);
}

// Broken if two hosts had it for good, since one of them was not asked before.
TEST_F(VirtualIpHolderTest, One_that_was_taken_over_is_given_up_when_another_host_answers) {
  holder.take_over();
  loop.advance(milliseconds(150));
  port.answers = {kStranger};
  loop.advance(milliseconds(50));
  EXPECT_FALSE(port.is_set);
  EXPECT_EQ(holder.state(), VirtualIpHolder::State::failed);
  EXPECT_NE(holder.reason().find("in use by 02:00:00:00:00:03"), std::string::npos);
  const std::size_t announced = port.announcements.size();
  loop.advance(milliseconds(950));
  EXPECT_EQ(port.announcements.size(), announced);
  loop.advance(milliseconds(400));
  EXPECT_EQ(holder.state(), VirtualIpHolder::State::held) << "it is asked for again, before it is set";
}

// Broken if who may not serve set it, or set it without a question once the time of the move was over.
TEST_F(VirtualIpHolderTest, One_that_could_not_be_taken_over_in_time_is_asked_for_first) {
  has_mandate = false;
  holder.take_over();
  loop.advance(milliseconds(300));
  EXPECT_FALSE(port.is_set);
  const int probes = port.probes;
  has_mandate = true;
  port.answers = {kStranger};
  loop.advance(milliseconds(300));
  EXPECT_FALSE(port.is_set);
  EXPECT_GT(port.probes + static_cast<int>(holder.state() == VirtualIpHolder::State::failed), probes);
  EXPECT_EQ(holder.state(), VirtualIpHolder::State::failed);
}

// A host that has the address would fight over it with us, and initiators would land here and there.
TEST_F(VirtualIpHolderTest, An_address_that_answers_elsewhere_is_not_taken) {
  probe();
  loop.advance(milliseconds(50));
  EXPECT_EQ(port.probes, 1);
  port.answers = {kPeer, kStranger};
  loop.advance(milliseconds(60));
  ASSERT_TRUE(result.has_value());
  ASSERT_FALSE(result->has_value());
  EXPECT_EQ(
      result->error(),
      "the virtual IP 192.0.2.100/24 on eth0 is in use by 02:00:00:00:00:03: another host has it, or a resource agent "
      "of another cluster sets it");
  EXPECT_FALSE(port.is_set);
}

// The kernel of a node whose daemon was killed keeps the address for up to 2 s: the failover must not wait for that.
TEST_F(VirtualIpHolderTest, The_peers_kernel_may_still_answer) {
  probe();
  port.answers = {kPeer};
  loop.advance(milliseconds(199));
  EXPECT_FALSE(result.has_value());
  loop.advance(milliseconds(1));
  ASSERT_TRUE(result.has_value());
  EXPECT_TRUE(result->has_value());
  EXPECT_EQ(port.probes, 2);
}

TEST_F(VirtualIpHolderTest, A_device_that_is_down_is_said_before_the_role_is_taken) {
  port.trouble = "the device is down";
  probe();
  loop.run();
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->error(), "the device is down");
  EXPECT_EQ(port.probes, 0);
}

// protocol.md 3.8: burst of 5 at 100 ms, then after 1, 5, 30 s, then each minute.
TEST_F(VirtualIpHolderTest, Is_announced_on_schedule) {
  hold();
  loop.advance(seconds(160));
  EXPECT_EQ(port.announcements, (std::vector<std::int64_t>{0, 100, 200, 300, 400, 1400, 6400, 36400, 96400, 156400}));
}

// Renewed too seldom the address would come and go; renewed without the mandate it would draw initiators to a frozen
// node.
TEST_F(VirtualIpHolderTest, Is_renewed_well_before_it_expires_and_never_while_frozen) {
  hold();
  loop.advance(seconds(10));
  for (std::size_t index = 1; index < port.holds.size(); ++index)
    EXPECT_LE(port.holds[index] - port.holds[index - 1], seconds(1));
  EXPECT_GE(port.holds.size(), 20u);
  const std::size_t before = port.holds.size();
  holder.set_frozen(true);
  loop.advance(milliseconds(999));
  EXPECT_TRUE(port.is_set) << "a freeze of a moment gives nothing up";
  EXPECT_EQ(port.holds.size(), before);
  loop.advance(milliseconds(1));
  EXPECT_FALSE(port.is_set);
  EXPECT_EQ(holder.state(), VirtualIpHolder::State::absent);
  loop.advance(seconds(5));
  EXPECT_EQ(port.holds.size(), before);
  const std::size_t announced = port.announcements.size();
  holder.set_frozen(false);
  loop.advance(milliseconds(200));
  EXPECT_TRUE(port.is_set);
  EXPECT_EQ(port.announcements.size(), announced + 1) << "set anew, so announced anew";
}

// Broken if a process that was stopped for a while, and whose timer for this comes first when it goes on, took the
// address back from the node that serves now.
TEST_F(VirtualIpHolderTest, Without_the_mandate_nothing_is_set_or_renewed_though_nobody_has_said_so_yet) {
  hold();
  has_mandate = false;
  const std::size_t before = port.holds.size();
  loop.advance(seconds(10));
  EXPECT_EQ(port.holds.size(), before);
  has_mandate = true;
  loop.advance(milliseconds(100));
  EXPECT_EQ(port.holds.size(), before + 1);

  holder.release();
  has_mandate = false;
  holder.hold();
  loop.advance(seconds(3));
  EXPECT_EQ(port.holds.size(), before + 1);
  has_mandate = true;
  loop.advance(milliseconds(500));
  EXPECT_EQ(port.holds.size(), before + 2);
  EXPECT_EQ(holder.state(), VirtualIpHolder::State::held);
}

TEST_F(VirtualIpHolderTest, A_short_freeze_is_followed_by_a_renewal) {
  hold();
  loop.advance(milliseconds(450));
  holder.set_frozen(true);
  loop.advance(milliseconds(900));
  const std::size_t before = port.holds.size();
  holder.set_frozen(false);
  EXPECT_EQ(port.holds.size(), before + 1);
  loop.advance(seconds(1));
  EXPECT_GE(port.holds.size(), before + 2);
}

TEST_F(VirtualIpHolderTest, A_device_that_fails_and_comes_back_gets_the_address_again) {
  hold();
  loop.advance(seconds(1));
  port.trouble = "the device has no carrier";
  loop.advance(seconds(3));
  EXPECT_EQ(holder.state(), VirtualIpHolder::State::failed);
  EXPECT_EQ(holder.reason(), "the device has no carrier");
  const std::size_t announced = port.announcements.size();
  port.trouble.clear();
  loop.advance(milliseconds(1200));
  EXPECT_EQ(holder.state(), VirtualIpHolder::State::held);
  EXPECT_EQ(holder.reason(), "");
  EXPECT_GT(port.announcements.size(), announced);
}

// A node that starts as the only member serves without being asked: it must look first all the same.
TEST_F(VirtualIpHolderTest, Held_without_a_probe_before_it_probes_and_keeps_trying) {
  holder.hold();
  EXPECT_FALSE(port.is_set);
  loop.advance(milliseconds(50));
  port.answers = {kStranger};
  loop.advance(milliseconds(150));
  EXPECT_EQ(holder.state(), VirtualIpHolder::State::failed);
  EXPECT_FALSE(port.is_set);
  EXPECT_NE(holder.reason().find("in use by 02:00:00:00:00:03"), std::string::npos);
  loop.advance(milliseconds(1200));
  EXPECT_EQ(holder.state(), VirtualIpHolder::State::held);
  EXPECT_TRUE(port.is_set);
}

TEST_F(VirtualIpHolderTest, Nothing_is_renewed_or_announced_after_the_release) {
  hold();
  loop.advance(milliseconds(150));
  holder.release();
  EXPECT_FALSE(port.is_set);
  const std::size_t announced = port.announcements.size();
  loop.advance(seconds(100));
  EXPECT_FALSE(port.is_set);
  EXPECT_EQ(port.announcements.size(), announced);
  EXPECT_TRUE(loop.is_idle());
}

TEST_F(VirtualIpHolderTest, A_release_ends_a_probe) {
  probe();
  loop.advance(milliseconds(10));
  holder.release();
  ASSERT_TRUE(result.has_value());
  EXPECT_FALSE(result->has_value());
  EXPECT_TRUE(loop.is_idle());
}

}  // namespace
}  // namespace replblk::membership
