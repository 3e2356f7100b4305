#include "replication/handshake.hpp"

#include <gtest/gtest.h>

namespace replblk::replication {
namespace {

HandshakeIdentity identity(const std::string& node, const std::string& peer, char nonce,
                           const std::string& secret = "secret") {
  return {"cluster", node, peer, "r0", secret, std::string(kNonceBytes, nonce), 1};
}

/// Carries messages between two machines until both rest.
void converse(Handshake& dialer, Handshake& acceptor) {
  std::vector<Message> to_acceptor{dialer.start()};
  std::vector<Message> to_dialer;
  const auto is_open = [](const Handshake& side) {
    return side.state() == Handshake::State::waits_for_hello || side.state() == Handshake::State::waits_for_proof;
  };
  while (!to_acceptor.empty() || !to_dialer.empty()) {
    for (const Message& message : std::exchange(to_acceptor, {})) {
      if (is_open(acceptor)) acceptor.receive(message, to_dialer);
    }
    for (const Message& message : std::exchange(to_dialer, {})) {
      if (is_open(dialer)) dialer.receive(message, to_acceptor);
    }
  }
}

TEST(Handshake, Two_nodes_with_one_secret_prove_each_other) {
  Handshake dialer(HandshakeSide::dialer, identity("b", "a", 'x'));
  Handshake acceptor(HandshakeSide::acceptor, identity("a", "b", 'y'));
  converse(dialer, acceptor);
  EXPECT_EQ(dialer.state(), Handshake::State::proven);
  EXPECT_EQ(acceptor.state(), Handshake::State::proven);
}

// A node without the secret that is let in could overwrite the copy.
TEST(Handshake, A_wrong_secret_is_refused_by_both) {
  Handshake dialer(HandshakeSide::dialer, identity("b", "a", 'x', "other"));
  Handshake acceptor(HandshakeSide::acceptor, identity("a", "b", 'y'));
  converse(dialer, acceptor);
  EXPECT_EQ(dialer.state(), Handshake::State::failed);
  EXPECT_EQ(acceptor.state(), Handshake::State::failed);
  EXPECT_NE(acceptor.failure().find("secret"), std::string::npos);
}

// An attacker who reflects our own messages must not be taken for the peer.
TEST(Handshake, The_own_proof_sent_back_proves_nothing) {
  Handshake dialer(HandshakeSide::dialer, identity("b", "a", 'x'));
  Hello fake = std::get<Hello>(dialer.start());
  fake.node = "a";
  fake.expected_peer = "b";
  std::vector<Message> out;
  EXPECT_EQ(dialer.receive(fake, out), Handshake::State::failed);  // The nonce is repeated.
  Handshake second(HandshakeSide::dialer, identity("b", "a", 'x'));
  fake.nonce = std::string(kNonceBytes, 'z');
  out.clear();
  ASSERT_EQ(second.receive(fake, out), Handshake::State::waits_for_proof);
  ASSERT_EQ(out.size(), 1u);
  std::vector<Message> ignored;
  EXPECT_EQ(second.receive(out[0], ignored), Handshake::State::failed);
}

// A recorded proof must not open a later connection.
TEST(Handshake, A_replayed_conversation_is_refused) {
  Handshake dialer(HandshakeSide::dialer, identity("b", "a", 'x'));
  Handshake acceptor(HandshakeSide::acceptor, identity("a", "b", 'y'));
  std::vector<Message> from_acceptor;
  acceptor.receive(dialer.start(), from_acceptor);
  std::vector<Message> from_dialer;
  for (const Message& message : from_acceptor) dialer.receive(message, from_dialer);
  Handshake later(HandshakeSide::acceptor, identity("a", "b", 'q'));
  std::vector<Message> out;
  later.receive(dialer.start(), out);
  EXPECT_EQ(later.receive(from_dialer.at(0), out), Handshake::State::failed);
}

TEST(Handshake, Each_mismatch_is_named_to_both_sides) {
  const auto failure_with = [](auto change) {
    HandshakeIdentity wrong = identity("b", "a", 'x');
    change(wrong);
    Handshake dialer(HandshakeSide::dialer, wrong);
    Handshake acceptor(HandshakeSide::acceptor, identity("a", "b", 'y'));
    converse(dialer, acceptor);
    EXPECT_EQ(acceptor.state(), Handshake::State::failed);
    EXPECT_EQ(dialer.state(), Handshake::State::failed);
    EXPECT_NE(dialer.failure().find(acceptor.failure()), std::string::npos);
    return acceptor.failure();
  };
  EXPECT_NE(failure_with([](auto& id) { id.cluster = "elsewhere"; }).find("elsewhere"), std::string::npos);
  EXPECT_NE(failure_with([](auto& id) { id.node = "a"; }).find("both nodes are configured as \"a\""),
            std::string::npos);
  EXPECT_NE(failure_with([](auto& id) { id.node = "c"; }).find("met \"c\""), std::string::npos);
  EXPECT_NE(failure_with([](auto& id) { id.resource = "r9"; }).find("r9"), std::string::npos);
}

TEST(Handshake, Another_protocol_version_is_named_with_both_ranges) {
  Handshake acceptor(HandshakeSide::acceptor, identity("a", "b", 'y'));
  Hello future{7, 9, 0, "cluster", "b", "a", "r0", std::string(kNonceBytes, 'x'), 1};
  std::vector<Message> out;
  EXPECT_EQ(acceptor.receive(future, out), Handshake::State::failed);
  EXPECT_NE(acceptor.failure().find("6 to 6"), std::string::npos);
  EXPECT_NE(acceptor.failure().find("7 to 9"), std::string::npos);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<Refusal>(out[0]));
}

}  // namespace
}  // namespace replblk::replication
