// What the two nodes keep telling each other of a resource (docs/heartbeat.md). Roles are given by hand still: nothing
// follows from what is heard, but `status` shows which ways between the nodes work.
#include "node/resource.hpp"

namespace replblk::node {

void Resource::send_heartbeat() {
  world_.loop.arm(heartbeat_timer_, world_.loop.now() + cluster_.heartbeat.interval);
  heartbeats_.send(compose_heartbeat());
}

membership::Heartbeat Resource::compose_heartbeat() const {
  membership::Heartbeat heartbeat;
  heartbeat.is_connected = phase_ == LinkPhase::established;
  heartbeat.has_failed_disk = is_copy_failed_;
  heartbeat.may_have_lost_cache = may_have_lost_cache_;
  // The rest must be durable to be said.
  if (persists_out_ > 0 || is_copy_failed_) return heartbeat;
  heartbeat.configuration = record_.configuration;
  heartbeat.seen = record_.seen;
  heartbeat.current = record_.generations.current;
  heartbeat.is_outdated = record_.is_outdated;
  heartbeat.is_inconsistent = record_.is_inconsistent;
  heartbeat.is_serving = is_primary_;
  return heartbeat;
}

void Resource::on_heartbeat(const membership::Heartbeat&) {}

void Resource::on_heartbeat_frame(ConstBytes bytes) { heartbeats_.on_channel_bytes(bytes); }

}  // namespace replblk::node
