#include "iscsi/login.hpp"

#include <gtest/gtest.h>

#include "iscsi_fixture.hpp"

namespace replblk::iscsi {
namespace {

using test::keys;

class Directory final : public TargetDirectory {
 public:
  [[nodiscard]] TargetVerdict look_up(std::string_view name) const override {
    if (name == "iqn.t") return {LoginStatus::success, "alias", 1, {}};
    if (name == "iqn.away") return {LoginStatus::target_moved_temporarily, {}, 1, "192.0.2.9:3260"};
    if (name == "iqn.down") return {LoginStatus::service_unavailable, {}, 1, {}};
    return {};
  }
};

class LoginTest : public ::testing::Test {
 protected:
  LoginAnswer send(const LoginRequest& request, std::string_view text) {
    LoginAnswer answer;
    login.receive(request, as_bytes(text), answer);
    return answer;
  }
  static LoginRequest request(std::uint8_t current, std::uint8_t next, bool transit = true) {
    LoginRequest pdu;
    pdu.current_stage = current;
    pdu.next_stage = next;
    pdu.transit = transit;
    pdu.isid = 0x80123456789a;
    pdu.initiator_task_tag = 5;
    pdu.cid = 1;
    pdu.cmd_sn = 77;
    pdu.exp_stat_sn = 9;
    return pdu;
  }
  static unsigned status_of(const LoginAnswer& answer) {
    return answer.response.status_class * 256u + answer.response.status_detail;
  }

  Directory directory;
  Login login{directory, NegotiationLimits{}};
};

// If it failed, open-iscsi and libiscsi, which go through both stages, could not log in.
TEST_F(LoginTest, Passes_security_and_operational_stage) {
  LoginAnswer first = send(
      request(0, 1), keys({"InitiatorName=iqn.i", "SessionType=Normal", "TargetName=iqn.t", "AuthMethod=CHAP,None"}));
  EXPECT_EQ(status_of(first), 0u);
  EXPECT_EQ(first.text, keys({"AuthMethod=None", "TargetAlias=alias", "TargetPortalGroupTag=1"}));
  EXPECT_TRUE(first.response.transit);
  EXPECT_EQ(first.response.current_stage, 0);
  EXPECT_EQ(first.response.next_stage, 1);
  EXPECT_EQ(first.response.numbers.stat_sn, 9u);
  EXPECT_EQ(first.response.numbers.exp_cmd_sn, 77u);

  LoginAnswer unused = send(request(1, 3), keys({"HeaderDigest=CRC32C,None", "MaxRecvDataSegmentLength=65536"}));
  EXPECT_EQ(login.state(), Login::State::ready);
  const LoginAnswer last = login.accept(0x1234);
  EXPECT_EQ(last.text, keys({"HeaderDigest=CRC32C", "MaxRecvDataSegmentLength=262144"}));
  EXPECT_TRUE(last.response.transit);
  EXPECT_EQ(last.response.next_stage, 3);
  EXPECT_EQ(last.response.tsih, 0x1234);
  EXPECT_EQ(last.response.numbers.stat_sn, 10u);
  EXPECT_EQ(login.next_stat_sn(), 11u);
  EXPECT_TRUE(login.parameters().header_digest);
  EXPECT_EQ(login.parameters().initiator_recv_bytes, 65536u);
}

// If it failed, an initiator that negotiates without asking for the next stage would be thrown out or dragged along.
TEST_F(LoginTest, Stays_in_a_stage_until_the_initiator_wants_to_leave) {
  const LoginAnswer answer =
      send(request(1, 0, false), keys({"InitiatorName=iqn.i", "TargetName=iqn.t", "ImmediateData=Yes"}));
  EXPECT_EQ(status_of(answer), 0u);
  EXPECT_FALSE(answer.response.transit);
  EXPECT_EQ(login.state(), Login::State::negotiating);
  const LoginAnswer second = send(request(1, 0, false), keys({"InitialR2T=No"}));
  EXPECT_EQ(second.text, keys({"InitialR2T=No"})) << "declared twice";
}

// If it failed, a text that spans PDUs would be cut at the border.
TEST_F(LoginTest, Collects_a_text_that_goes_on) {
  LoginRequest first = request(1, 0, false);
  first.continues = true;
  const LoginAnswer empty = send(first, "InitiatorName=iqn.i");
  EXPECT_TRUE(empty.text.empty());
  EXPECT_EQ(status_of(empty), 0u);
  (void)send(request(1, 3), std::string("\0TargetName=iqn.t\0", 18));
  EXPECT_EQ(login.state(), Login::State::ready);
  EXPECT_EQ(login.initiator_name(), "iqn.i");
}

struct Refusal {
  const char* what;
  unsigned status;
  std::uint8_t current;
  std::uint8_t next;
  std::string text;
};

// If it failed, initiators would retry what cannot succeed, or be let in where they must not.
TEST_F(LoginTest, Every_error_has_its_status) {
  const std::string both = keys({"InitiatorName=iqn.i", "TargetName=iqn.t"});
  const Refusal refusals[] = {
      {"no initiator", 0x0207, 1, 3, keys({"TargetName=iqn.t"})},
      {"no target", 0x0207, 1, 3, keys({"InitiatorName=iqn.i"})},
      {"unknown target", 0x0203, 1, 3, keys({"InitiatorName=iqn.i", "TargetName=iqn.x"})},
      {"not serving", 0x0301, 1, 3, keys({"InitiatorName=iqn.i", "TargetName=iqn.down"})},
      {"session type", 0x0209, 1, 3, keys({"InitiatorName=iqn.i", "SessionType=Odd"})},
      {"only CHAP", 0x0201, 0, 1, both + keys({"AuthMethod=CHAP"})},
      {"garbage", 0x0200, 1, 3, "\x01\x02\x03"},
      {"two names", 0x0200, 1, 3, both + keys({"InitiatorName=iqn.j"})},
      {"a key twice", 0x0200, 1, 3, both + keys({"InitialR2T=No", "InitialR2T=No"})},
      {"AuthMethod too late", 0x0200, 1, 3, both + keys({"AuthMethod=None"})},
      {"backwards", 0x0200, 1, 0, both},
      {"stage 2", 0x0200, 1, 2, both},
      {"begins in stage 3", 0x0200, 3, 3, both},
      {"a name too long", 0x0200, 1, 3, keys({"InitiatorName=" + std::string(224, 'x'), "TargetName=iqn.t"})},
  };
  for (const Refusal& refusal : refusals) {
    Login fresh{directory, NegotiationLimits{}};
    LoginAnswer answer;
    fresh.receive(request(refusal.current, refusal.next), as_bytes(refusal.text), answer);
    EXPECT_EQ(fresh.state(), Login::State::failed) << refusal.what;
    EXPECT_EQ(status_of(answer), refusal.status) << refusal.what;
    EXPECT_EQ(answer.response.initiator_task_tag, 5u);
  }
  LoginRequest version = request(1, 3);
  version.version_min = 1;
  EXPECT_EQ(status_of(send(version, both)), 0x0205u);
}

// If it failed, an initiator could slip into another session in the middle of its login.
TEST_F(LoginTest, The_session_must_not_change_during_the_login) {
  (void)send(request(0, 1), keys({"InitiatorName=iqn.i", "TargetName=iqn.t"}));
  LoginRequest other = request(1, 3);
  other.isid = 1;
  EXPECT_EQ(status_of(send(other, {})), 0x0200u);
}

// If it failed, plain routed networks would need a virtual IP to find the primary.
TEST_F(LoginTest, A_target_that_has_moved_says_where) {
  const LoginAnswer answer = send(request(1, 3), keys({"InitiatorName=iqn.i", "TargetName=iqn.away"}));
  EXPECT_EQ(status_of(answer), 0x0101u);
  EXPECT_EQ(answer.text, keys({"TargetAddress=192.0.2.9:3260"}));
}

// If it failed, discovery would demand a target's name, which is what it is to find out.
TEST_F(LoginTest, Discovery_needs_no_target) {
  (void)send(request(0, 3), keys({"InitiatorName=iqn.i", "SessionType=Discovery", "AuthMethod=None"}));
  EXPECT_EQ(login.state(), Login::State::ready);
  EXPECT_EQ(login.session_type(), SessionType::discovery);
}

}  // namespace
}  // namespace replblk::iscsi
