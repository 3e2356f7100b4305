// Heartbeats. The first byte says what the rest is:
//   even  bytes of a datagram. As they are they must not be believed; with the right MAC they are decoded, and what is
//   accepted
//         is given back byte for byte.
//   odd   what somebody on the path does to two nodes: each byte lets one send, restarts one, or delivers a datagram
//   that was
//         ever sent, to either, once more. Content must come only from a run that lived after the receiver started, and
//         only forward.
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <vector>

#include "membership/heartbeat_session.hpp"

using namespace replblk;
using namespace replblk::membership;

namespace {

constexpr std::string_view kSecret = "sixteen bytes or more";
constexpr std::size_t kPaths = 2;
constexpr std::size_t kMacBytes = 32;

HeartbeatIdentity identity(blockdev::NodeIndex self, std::uint64_t incarnation) {
  return {self, incarnation, 7, std::string(kSecret), kPaths};
}

void try_bytes(ConstBytes input) {
  HeartbeatBytes bytes{};
  std::ranges::copy(input.first(std::min(input.size(), bytes.size() - kMacBytes)), bytes.begin());
  HeartbeatSession session(identity(0, 9));
  if (session.open(bytes, 0, Instant(seconds(5))).fresh || session.open(input, 1, Instant(seconds(5))).fresh)
    std::abort();
  unsigned int count = 0;
  HMAC(EVP_sha256(), kSecret.data(), static_cast<int>(kSecret.size()),
       reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size() - kMacBytes,
       reinterpret_cast<unsigned char*>(bytes.data() + bytes.size() - kMacBytes), &count);
  const auto message = decode_heartbeat(bytes, kSecret);
  if (message && encode(*message, kSecret) != bytes) std::abort();
  const auto received = session.open(bytes, 0, Instant(seconds(5)));
  if (received.fresh && (!message || session.peer_incarnation() != message->header.incarnation)) std::abort();
  static_cast<void>(session.seal({}, 0, Instant(seconds(6)), seconds(1)));
}

class World {
 public:
  World() {
    restart(0);
    restart(1);
  }

  void act(std::uint8_t what) {
    now_ += milliseconds(1 + what % 7);
    const blockdev::NodeIndex node = what & 1;
    switch (what >> 1 & 7) {
      case 0:
        if (what >> 4 == 15) restart(node);
        return;
      case 1:
      case 2:
        return send(node, (what >> 4) % kPaths);
      case 6:
      case 7:
        return deliver(node, 16 + (what >> 4) * 5u);
      default:
        return deliver(node, what >> 4);
    }
  }

 private:
  struct Node {
    std::optional<HeartbeatSession> session;
    std::uint64_t started_at = 0;  ///< the serial number of the next content when it started
    std::uint64_t last_heard = 0;
  };
  struct Datagram {
    HeartbeatBytes bytes;
    std::size_t path;
  };

  void restart(blockdev::NodeIndex index) {
    nodes_[index].session.emplace(identity(index, ++incarnation_));
    nodes_[index].started_at = serial_ + 1;
    nodes_[index].last_heard = 0;
  }
  void send(blockdev::NodeIndex index, std::size_t path) {
    Heartbeat content;
    content.seen = ++serial_;
    sent_.push_back({nodes_[index].session->seal(content, path, now_, seconds(1)), path});
  }
  /// `which` counts from the newest one.
  void deliver(blockdev::NodeIndex to, std::size_t which) {
    if (which >= sent_.size()) return;
    const Datagram datagram = sent_[sent_.size() - 1 - which];
    Node& node = nodes_[to];
    const auto received = node.session->open(datagram.bytes, datagram.path, now_);
    if (received.reply) sent_.push_back({*received.reply, datagram.path});
    if (!received.fresh) return;
    if (received.fresh->seen < node.started_at || received.fresh->seen <= node.last_heard) std::abort();
    node.last_heard = received.fresh->seen;
  }

  std::array<Node, 2> nodes_;
  std::vector<Datagram> sent_;
  Instant now_{seconds(1)};
  std::uint64_t serial_ = 0;
  std::uint64_t incarnation_ = 100;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span<const std::uint8_t> rest = std::span(data, size).subspan(1);
  if ((data[0] & 1) == 0) {
    try_bytes(std::as_bytes(rest));
    return 0;
  }
  World world;
  for (const std::uint8_t what : rest) world.act(what);
  return 0;
}
