#include "node/heartbeat_link.hpp"

#include <fmt/format.h>

namespace replblk::node {

using membership::HeartbeatBytes;

HeartbeatLink::HeartbeatLink(const ClusterConfig& cluster, const std::string& resource, std::uint64_t incarnation,
                             ports::Loop& loop, HeartbeatPaths& paths, Listener& listener)
    : loop_(loop),
      paths_(paths),
      listener_(listener),
      resource_key_(membership::resource_key(cluster.name, resource)),
      lease_(cluster.heartbeat.lease),
      session_({cluster.self, incarnation, resource_key_, cluster.secret, paths.count() + 1}) {
  paths_.add(resource_key_, *this);
}

HeartbeatLink::~HeartbeatLink() { paths_.remove(resource_key_); }

void HeartbeatLink::send(const membership::Heartbeat& content) {
  for (std::size_t path = 0; path <= channel_path(); ++path) {
    if (path == channel_path() && channel_ == nullptr) continue;
    send_bytes(path, session_.seal(content, path, loop_.now(), lease_));
  }
}

void HeartbeatLink::send_bytes(std::size_t path, const HeartbeatBytes& bytes) {
  if (path != channel_path()) return paths_.send(path, bytes);
  if (channel_ == nullptr) return;
  replication::FrameHeader header;
  header.type = replication::FrameType::heartbeat;
  channel_->send(header, bytes);
}

void HeartbeatLink::on_heartbeat_datagram(std::size_t path, ConstBytes bytes) { open(path, bytes); }

void HeartbeatLink::on_channel_bytes(ConstBytes bytes) { open(channel_path(), bytes); }

void HeartbeatLink::open(std::size_t path, ConstBytes bytes) {
  const auto received = session_.open(bytes, path, loop_.now());
  if (received.reply.has_value()) send_bytes(path, *received.reply);
  if (received.fresh.has_value()) listener_.on_heartbeat(*received.fresh);
}

std::vector<HeartbeatPathStatus> HeartbeatLink::status() const {
  std::vector<HeartbeatPathStatus> all;
  const Instant now = loop_.now();
  const auto& dropped = session_.dropped();
  for (std::size_t path = 0; path <= channel_path(); ++path) {
    const membership::PathState& state = session_.paths()[path];
    HeartbeatPathStatus& one = all.emplace_back();
    one.name = path == channel_path() ? "replication connection" : paths_.name(path);
    one.is_heard = state.last_heard.has_value() && now - *state.last_heard <= lease_;
    one.is_heard_by_peer = one.is_heard && state.is_heard_by_peer;
    if (state.round_trip.has_value()) one.round_trip_us = static_cast<std::uint64_t>(state.round_trip->count() / 1000);
    if (one.is_heard) {
      if (!one.is_heard_by_peer) one.reason = "the peer does not hear this node on this path: one way is cut";
    } else if (state.last_heard.has_value()) {
      one.reason = fmt::format("nothing was heard for {} ms", to_ms(now - *state.last_heard));
    } else if (dropped.not_authentic > 0) {
      one.reason = "what came is not made with this cluster's secret: compare the secret files of both nodes";
    } else {
      one.reason = "nothing was heard since the start: is UDP let through there?";
      if (path == channel_path()) one.reason = "the nodes are not connected";
    }
  }
  return all;
}

}  // namespace replblk::node
