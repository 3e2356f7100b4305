// The first steps of a connection (docs/peer_protocol.md 2): version range, names, mutual proof of the shared secret.
// A machine: messages in, messages out, a verdict. No connection, no clock, no randomness (the nonce is given).
//
//   dialer:   start → (sends Hello) → Hello → (sends Proof) → Proof → proven
//   acceptor: (the Hello is read by who routes) → accept(Hello) → (sends Hello, Proof) → Proof → proven
// Any other message, or a check that fails, ends in `failed` with a sentence for the operator.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "replication/messages.hpp"

namespace replblk::replication {

enum class HandshakeSide : std::uint8_t { dialer, acceptor };

struct HandshakeIdentity {
  std::string cluster;
  std::string node;
  std::string peer;
  std::string resource;
  std::string secret;
  std::string nonce;  ///< kNonceBytes fresh random bytes
  std::uint64_t incarnation = 0;
};

class Handshake {
 public:
  enum class State : std::uint8_t { waits_for_hello, waits_for_proof, proven, failed };

  Handshake(HandshakeSide side, HandshakeIdentity identity);

  /// The dialer's first message.
  [[nodiscard]] Message start() const { return my_hello_; }
  /// Takes one message; appends the answers to `out`. After `failed` the connection must be closed once `out` is sent.
  State receive(const Message& message, std::vector<Message>& out);

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] const std::string& failure() const noexcept { return failure_; }
  [[nodiscard]] std::uint64_t peer_incarnation() const noexcept { return peer_hello_.incarnation; }
  /// The highest version that both speak; valid once the peer's Hello was accepted.
  [[nodiscard]] std::uint32_t protocol_version() const noexcept {
    return std::min(my_hello_.protocol_max, peer_hello_.protocol_max);
  }

 private:
  State fail_with(std::string reason, bool is_told, std::vector<Message>& out);
  [[nodiscard]] std::string check(const Hello& hello) const;
  [[nodiscard]] std::string mac(HandshakeSide sender) const;

  HandshakeSide side_;
  HandshakeIdentity identity_;
  Hello my_hello_;
  Hello peer_hello_;
  State state_ = State::waits_for_hello;
  std::string failure_;
};

}  // namespace replblk::replication
