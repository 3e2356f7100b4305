#include "replication/handshake.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/assert.hpp"

namespace replblk::replication {

Handshake::Handshake(HandshakeSide side, HandshakeIdentity identity) : side_(side), identity_(std::move(identity)) {
  RB_ASSERT(identity_.nonce.size() == kNonceBytes);
  my_hello_.cluster = identity_.cluster;
  my_hello_.node = identity_.node;
  my_hello_.expected_peer = identity_.peer;
  my_hello_.resource = identity_.resource;
  my_hello_.nonce = identity_.nonce;
  my_hello_.incarnation = identity_.incarnation;
}

Handshake::State Handshake::receive(const Message& message, std::vector<Message>& out) {
  RB_ASSERT(state_ == State::waits_for_hello || state_ == State::waits_for_proof);
  if (const auto* refusal = std::get_if<Refusal>(&message)) {
    return fail_with("the peer refused: " + refusal->reason, false, out);
  }
  if (state_ == State::waits_for_hello) {
    const auto* hello = std::get_if<Hello>(&message);
    if (hello == nullptr) return fail_with("the peer sent something else than a Hello first", true, out);
    if (std::string wrong = check(*hello); !wrong.empty()) return fail_with(std::move(wrong), true, out);
    peer_hello_ = *hello;
    if (side_ == HandshakeSide::acceptor) out.emplace_back(my_hello_);
    out.emplace_back(Proof{mac(side_)});
    return state_ = State::waits_for_proof;
  }
  const auto* proof = std::get_if<Proof>(&message);
  if (proof == nullptr) return fail_with("the peer sent something else than its proof of the secret", true, out);
  const std::string expected = mac(side_ == HandshakeSide::dialer ? HandshakeSide::acceptor : HandshakeSide::dialer);
  if (proof->mac.size() != expected.size() || CRYPTO_memcmp(proof->mac.data(), expected.data(), expected.size()) != 0) {
    return fail_with("the shared secret differs: secret_file must have the same content on both nodes", true, out);
  }
  return state_ = State::proven;
}

Handshake::State Handshake::fail_with(std::string reason, bool is_told, std::vector<Message>& out) {
  if (is_told) out.emplace_back(Refusal{reason, false});
  failure_ = std::move(reason);
  return state_ = State::failed;
}

std::string Handshake::check(const Hello& hello) const {
  if (hello.protocol_max < kProtocolVersionMin || hello.protocol_min > kProtocolVersionMax) {
    return fmt::format("no common protocol version: {} speaks {} to {}, {} speaks {} to {}", identity_.node,
                       kProtocolVersionMin, kProtocolVersionMax, hello.node, hello.protocol_min, hello.protocol_max);
  }
  if (hello.cluster != identity_.cluster) {
    return fmt::format("cluster name: {} belongs to \"{}\", {} to \"{}\"", identity_.node, identity_.cluster,
                       hello.node, hello.cluster);
  }
  if (hello.node == identity_.node) {
    return fmt::format("both nodes are configured as \"{}\": start each with its own name", identity_.node);
  }
  if (hello.node != identity_.peer || hello.expected_peer != identity_.node) {
    return fmt::format("node names: {} expects \"{}\" and met \"{}\", which expects \"{}\"", identity_.node,
                       identity_.peer, hello.node, hello.expected_peer);
  }
  if (hello.resource != identity_.resource) {
    return fmt::format("resource: \"{}\" here, \"{}\" there", identity_.resource, hello.resource);
  }
  if (hello.nonce == identity_.nonce) return "the peer repeated this node's nonce";
  return {};
}

std::string Handshake::mac(HandshakeSide sender) const {
  const Hello& dialer = side_ == HandshakeSide::dialer ? my_hello_ : peer_hello_;
  const Hello& acceptor = side_ == HandshakeSide::dialer ? peer_hello_ : my_hello_;
  std::string text = sender == HandshakeSide::dialer ? "replblk dialer" : "replblk acceptor";
  for (const Hello* hello : {&dialer, &acceptor}) {
    const std::string bytes = encode(*hello);
    text += fmt::format("|{}|", bytes.size());
    text += bytes;
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int digest_bytes = 0;
  const unsigned char* made =
      HMAC(EVP_sha256(), identity_.secret.data(), static_cast<int>(identity_.secret.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &digest_bytes);
  RB_ASSERT(made != nullptr);
  return {reinterpret_cast<const char*>(digest), digest_bytes};
}

}  // namespace replblk::replication
