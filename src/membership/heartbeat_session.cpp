#include "membership/heartbeat_session.hpp"

#include <utility>

#include "base/assert.hpp"

namespace replblk::membership {

namespace {

constexpr std::uint64_t kWindow = 64;

}  // namespace

HeartbeatSession::HeartbeatSession(HeartbeatIdentity identity)
    : identity_(std::move(identity)), traces_(identity_.paths_count), paths_(identity_.paths_count) {
  RB_ASSERT(identity_.self < 2 && identity_.incarnation != 0);
  RB_ASSERT(identity_.paths_count >= 1 && identity_.paths_count <= kHeartbeatPathsMax);
}

HeartbeatBytes HeartbeatSession::seal(const Heartbeat& content, std::size_t path, Instant now, Duration lease) {
  const bool has_session = peer_incarnation_ != 0;
  return seal_to(peer_incarnation_, peer_challenge_, has_session ? &content : nullptr, path, now, lease);
}

HeartbeatBytes HeartbeatSession::seal_to(std::uint64_t receiver, std::uint64_t answer, const Heartbeat* content,
                                         std::size_t path, Instant now, Duration lease) {
  RB_ASSERT(path < paths_.size());
  HeartbeatMessage message;
  message.header.sender = identity_.self;
  message.header.path = static_cast<std::uint8_t>(path);
  message.header.has_content = content != nullptr;
  message.header.resource_key = identity_.resource_key;
  message.header.incarnation = identity_.incarnation;
  message.header.receiver_incarnation = receiver;
  message.header.challenge = challenge_;
  message.header.answer = answer;
  message.header.counter = ++counter_;
  message.header.sent_at = now;
  if (const Path& trace = traces_[path]; trace.has_heard) {
    message.header.heard_sent_at = trace.peer_sent_at;
    message.header.held_for = now - trace.arrived_at;
  }
  for (std::size_t index = 0; index < paths_.size(); ++index) {
    const auto& heard = paths_[index].last_heard;
    if (heard.has_value() && now - *heard <= lease) message.header.paths_heard |= 1u << index;
  }
  if (content != nullptr) message.content = *content;
  return encode(message, identity_.secret);
}

HeartbeatSession::Received HeartbeatSession::open(ConstBytes bytes, std::size_t path, Instant now) {
  RB_ASSERT(path < paths_.size());
  Received received;
  const auto message = decode_heartbeat(bytes, identity_.secret);
  if (!message) {
    ++(message.error() == HeartbeatError::not_authentic ? dropped_.not_authentic : dropped_.malformed);
    return received;
  }
  const HeartbeatHeader& header = message->header;
  if (header.resource_key != identity_.resource_key || header.sender == identity_.self) {
    ++dropped_.misdirected;
    return received;
  }
  const bool is_to_this_run = header.receiver_incarnation == identity_.incarnation;
  if (header.incarnation != peer_incarnation_) {
    if (!is_to_this_run || header.answer != challenge_) {
      // Perhaps a new run of the peer's that does not know this one yet, perhaps an old run's datagram: only a living
      // one can repeat what the introduction says.
      if (is_to_this_run || header.has_content) {
        ++dropped_.replayed;
        return received;
      }
      received.reply = seal_to(header.incarnation, header.challenge, nullptr, path, now, Duration::zero());
      return received;
    }
    received.is_new_incarnation = true;
    peer_incarnation_ = header.incarnation;
    counter_max_ = counters_seen_ = content_counter_ = 0;
    ++challenge_;
  } else if (!is_to_this_run) {
    ++dropped_.replayed;  // From before this daemon started, or the peer has not heard of this run.
    return received;
  }
  if (!admit_counter(header.counter)) {
    ++dropped_.replayed;
    return received;
  }
  if (header.counter == counter_max_) peer_challenge_ = header.challenge;
  note_path(header, path, now);
  if (header.has_content && header.counter > content_counter_) {
    content_counter_ = header.counter;
    received.fresh = message->content;
  }
  return received;
}

/// Each counter once; one that is older than the window counts as come.
bool HeartbeatSession::admit_counter(std::uint64_t counter) {
  if (counter > counter_max_) {
    const std::uint64_t step = counter - counter_max_;
    counters_seen_ = step >= kWindow ? 0 : counters_seen_ << step;
    counters_seen_ |= 1;
    counter_max_ = counter;
    return true;
  }
  const std::uint64_t age = counter_max_ - counter;
  if (age >= kWindow || (counters_seen_ >> age & 1) != 0) return false;
  counters_seen_ |= std::uint64_t{1} << age;
  return true;
}

void HeartbeatSession::note_path(const HeartbeatHeader& header, std::size_t path, Instant now) {
  traces_[path] = {header.sent_at, now, true};
  PathState& state = paths_[path];
  state.last_heard = now;
  state.is_heard_by_peer = (header.paths_heard >> path & 1) != 0;
  const Duration since = now - header.heard_sent_at;
  if (header.heard_sent_at != Instant{} && since >= header.held_for) state.round_trip = since - header.held_for;
}

}  // namespace replblk::membership
