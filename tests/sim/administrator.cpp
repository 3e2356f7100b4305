#include "administrator.hpp"

#include "replication/meeting.hpp"

namespace replblk::sim {

using blockdev::Configuration;
using blockdev::NodeIndex;
using blockdev::ResourceRecord;
using node::AdminVerb;
using node::LinkPhase;

namespace {

/// Of a look: she asks for a copy that must not be served.
constexpr double kMistakeProbability = 0.1;

}  // namespace

bool Administrator::is_busy() {
  if (busy_node_ == blockdev::kNoNode) return false;
  SimHost& host = *hosts_[busy_node_];
  if (!host.is_running() || host.incarnation() != busy_run_)
    busy_node_ = blockdev::kNoNode;  // It died over the request.
  return busy_node_ != blockdev::kNoNode;
}

void Administrator::request(NodeIndex node, AdminVerb verb, bool is_forced) {
  SimHost& host = *hosts_[node];
  if (!host.is_running() || host.is_stopping()) return;
  busy_node_ = node;
  busy_run_ = host.incarnation();
  timeline_.note("admin: {} verb {}{}", kNodeName[node], static_cast<int>(verb), is_forced ? " --force" : "");
  const auto may_still = [this, node, verb] {
    bool may_force = false;
    if (verb != AdminVerb::primary || is_careless_ || node == first_primary_ || may_promote(node, may_force))
      return true;
    if (must_refuse(node)) return true;
    timeline_.note("admin: takes the request to {} back: things have changed", kNodeName[node]);
    busy_node_ = blockdev::kNoNode;
    return false;
  };
  host.request({.verb = verb, .resource = {}, .is_forced = is_forced}, may_still,
               [this, number = ++request_number_, node, verb](const node::AdminReply& reply) {
                 timeline_.note("admin: {} answers {}: {}", kNodeName[node], static_cast<int>(reply.outcome),
                                reply.message);
                 if (number == request_number_) busy_node_ = blockdev::kNoNode;
                 if (reply.outcome != node::AdminOutcome::done) ++refusals_count_;
                 if (reply.outcome == node::AdminOutcome::done && verb == AdminVerb::primary && node == first_primary_)
                   first_primary_ = blockdev::kNoNode;
               });
}

void Administrator::want_disconnect(NodeIndex node) {
  if (!is_busy()) request(node, AdminVerb::disconnect, false);
}

void Administrator::want_secondary() {
  if (is_busy() || first_primary_ != blockdev::kNoNode) return;
  for (SimHost* host : hosts_) {
    const auto view = host->inspect();
    if (!view || !view->is_primary || is_busy()) continue;
    request(host->index(), AdminVerb::secondary, false);
  }
}

void Administrator::want_connect() {
  for (SimHost* host : hosts_) {
    if (!host->is_running() || host->is_stopping() || !host->inspect()) continue;
    // Whoever is not StandAlone must come back without her.
    if (host->node()->status().resources.front().connection_state == "StandAlone") connect(host->index(), false);
  }
}

/// Requests that nothing depends on: nobody waits for the answer.
void Administrator::request_aside(NodeIndex node, AdminVerb verb) {
  SimHost& host = *hosts_[node];
  if (!host.is_running() || host.is_stopping()) return;
  host.request({.verb = verb, .resource = {}}, [] { return true; }, [](const node::AdminReply&) {});
}

void Administrator::resize(NodeIndex node) {
  SimHost& host = *hosts_[node];
  if (!host.is_running() || host.is_stopping()) return;
  node::AdminRequest request;
  request.verb = AdminVerb::resize;
  host.ask(request, [this, node](const node::AdminReply& reply) {
    timeline_.note("admin: {} answers {}: {}", kNodeName[node], static_cast<int>(reply.outcome), reply.message);
  });
}

void Administrator::attach(NodeIndex node) { request_aside(node, AdminVerb::attach); }

void Administrator::invalidate(NodeIndex node, bool is_remote) {
  request_aside(node, is_remote ? AdminVerb::invalidate_remote : AdminVerb::invalidate);
}

void Administrator::pause_sync(NodeIndex node) { request_aside(node, AdminVerb::pause_sync); }

void Administrator::resume_sync() {
  for (const SimHost* host : hosts_) request_aside(host->index(), AdminVerb::resume_sync);
}

void Administrator::end_standby_and_maintenance() {
  for (const SimHost* host : hosts_) {
    request_aside(host->index(), AdminVerb::unstandby);
    request_aside(host->index(), AdminVerb::maintenance_off);
  }
}

/// Of all or of a part, some to repair: whose copy is taken then is the daemon's to refuse.
void Administrator::verify(NodeIndex node) {
  SimHost& host = *hosts_[node];
  if (!host.is_running() || host.is_stopping()) return;
  Seeded& random = timeline_.random();
  node::AdminRequest request;
  request.verb = AdminVerb::verify;
  if (random.chance(0.3)) request.start_bytes = random.below(std::uint64_t{1} << 20);
  if (random.chance(0.3)) request.stop_bytes = request.start_bytes + 1 + random.below(std::uint64_t{1} << 20);
  if (random.chance(0.3)) request.repair_from = random.chance(0.5) ? "local" : "peer";
  host.ask(request, [this, node](const node::AdminReply& reply) {
    timeline_.note("admin: {} answers {}: {}", kNodeName[node], static_cast<int>(reply.outcome), reply.message);
  });
}

void Administrator::connect(NodeIndex node, bool discards_data) {
  SimHost& host = *hosts_[node];
  if (!host.is_running() || host.is_stopping()) return;
  if (discards_data) timeline_.note("admin: {} connect --discard-my-data", kNodeName[node]);
  host.request(
      {.verb = AdminVerb::connect, .resource = {}, .discards_data = discards_data}, [] { return true; },
      [](const node::AdminReply&) {});
}

void Administrator::demote(NodeIndex node) {
  if (!is_busy()) request(node, AdminVerb::secondary, false);
}

void Administrator::promote_carelessly(NodeIndex node) {
  is_careless_ = true;
  if (hosts_[node]->is_running()) request(node, AdminVerb::primary, true);
}

/// Whether this copy holds every answered write and nobody else can be writing.
bool Administrator::may_promote(NodeIndex node, bool& may_force) {
  may_force = false;
  const auto view = hosts_[node]->inspect();
  if (!view || hosts_[node]->is_stopping()) return false;
  const ResourceRecord& mine = *view->record;
  if (mine.is_inconsistent || mine.is_outdated || mine.generations.current.is_none()) return false;
  SimHost& other = *hosts_[blockdev::other_node(node)];
  // A node that hangs may think itself established when its peer has long gone on without it: both must say so.
  if (view->phase == LinkPhase::established) {
    const auto peer = other.inspect();
    if (peer && peer->phase == LinkPhase::established) return true;
  }
  if (checkers_.has_lost_cache(node)) return false;
  if (other.is_running()) {
    const auto peer = other.inspect();
    return mine.configuration.is_sole(node) && peer && !peer->is_primary &&
           !peer->record->configuration.is_sole(other.index());
  }
  // Dead. Whatever its disk says that it decided is decided: read it first, once all its writes have landed or not.
  if (timeline_.now() < other.quiet_at()) return false;
  const ResourceRecord theirs = other.persisted(false);
  Configuration higher;
  if (!replication::pick_higher(mine.configuration, theirs.configuration, higher) || !higher.has_member(node))
    return false;
  may_force = true;
  return true;
}

/// A copy that must not be served: whoever asks for it without force is refused (protocol.md 3.3, 3.7).
bool Administrator::must_refuse(NodeIndex node) {
  const auto view = hosts_[node]->inspect();
  return view && view->phase != LinkPhase::established && !view->is_primary &&
         (view->record->is_inconsistent || view->record->is_outdated);
}

void Administrator::look() {
  if (is_busy()) return;
  if (first_primary_ == blockdev::kNoNode && timeline_.random().chance(kMistakeProbability)) {
    const auto node = static_cast<NodeIndex>(timeline_.random().below(2));
    if (must_refuse(node)) {
      request(node, AdminVerb::primary, false);
      return;
    }
  }
  // The answer may have been lost with the daemon; whoever forces the same node again would split the copies.
  if (first_primary_ != blockdev::kNoNode && !hosts_[first_primary_]->persisted(true).generations.current.is_none())
    first_primary_ = blockdev::kNoNode;
  if (first_primary_ != blockdev::kNoNode) {
    const auto view = hosts_[first_primary_]->inspect();
    if (view) request(first_primary_, AdminVerb::primary, true);
    return;
  }
  for (SimHost* host : hosts_) {
    const auto view = host->inspect();
    if (!view || !view->is_primary) continue;
    if (is_switchover_wanted_ && checkers_.is_established() && !host->is_stopping()) {
      is_switchover_wanted_ = false;
      if (has_switchover_verb_) return request(host->index(), AdminVerb::switchover, false);
      preferred_ = blockdev::other_node(host->index());
      request(host->index(), AdminVerb::secondary, false);
    }
    return;
  }
  // Who is named takes the role, or is taken over from, without her: only where nobody is, she asks.
  for (SimHost* host : hosts_) {
    const auto view = host->inspect();
    if (view && view->record->configuration.primary != blockdev::kNoNode) return;
  }
  NodeIndex order[2] = {0, 1};
  if (preferred_ == 1 || (preferred_ == blockdev::kNoNode && timeline_.random().chance(0.5)))
    std::swap(order[0], order[1]);
  for (const NodeIndex node : order) {
    bool may_force = false;
    if (!may_promote(node, may_force)) continue;
    // Without force: the nodes themselves know what may be served.
    request(node, AdminVerb::primary, false);
    preferred_ = blockdev::kNoNode;
    return;
  }
}

}  // namespace replblk::sim
