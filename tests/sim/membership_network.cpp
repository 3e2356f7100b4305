// What lies between the two nodes of a MembershipWorld: datagrams, the connection, the arbiter; and the register that
// is written through them.
#include <fmt/format.h>

#include <algorithm>

#include "membership/transitions.hpp"
#include "sim/membership_world.hpp"

namespace replblk::sim {

using membership::HeartbeatBytes;
using membership::Service;

// ---- datagrams -------------------------------------------------------------------------------------------------

void MembershipWorld::send_heartbeat(Node& node, const membership::Heartbeat& heartbeat) {
  if (heartbeat.configuration != node.record.configuration || heartbeat.seen != node.record.seen) {
    fail("a heartbeat says what is not durable");
  }
  if (!heartbeat.request.is_none()) {
    node.asked_terms.insert(heartbeat.request.term);
    if (has_cache_ && node.stable < std::min(node.data, floor_both_)) {
      fail("a node makes its peer give way before it has flushed what both answered");
    }
  }
  for (std::size_t path = 0; path < kDatagramPaths; ++path) {
    send_datagram(node, path, node.session->seal(heartbeat, path, local(node), milliseconds(node.lease_ms)));
  }
  if (node.is_linked) {
    Frame frame{.kind = FrameKind::heartbeat};
    frame.heartbeat = node.session->seal(heartbeat, kConnectionPath, local(node), milliseconds(node.lease_ms));
    send_frame(node, std::move(frame));
  }
}

void MembershipWorld::send_datagram(Node& node, std::size_t path, const HeartbeatBytes& bytes) {
  if (path == kConnectionPath) return;  // Answers to introductions: the connection has its own.
  const Index to = blockdev::other_node(index_of(node));
  if (replay_ > 0 && random_.chance(replay_)) {
    at(random_.duration(milliseconds(500), seconds(15)), [this, to, path, bytes] {
      if (nodes_[to].run != 0) at_node(to, {}, [this, to, path, bytes](Node&) { deliver(to, path, bytes); });
    });
  }
  if (node.is_path_cut[path] || random_.chance(loss_)) return;
  at_node(to, random_.duration(microseconds(50), delay_max_),
          [this, to, path, bytes](Node&) { deliver(to, path, bytes); });
}

void MembershipWorld::deliver(Index to, std::size_t path, const HeartbeatBytes& bytes) {
  Node& node = nodes_[to];
  const auto received = node.session->open(bytes, path, local(node));
  if (received.reply.has_value()) send_datagram(node, path, *received.reply);
  if (!received.fresh.has_value()) return;
  node.peer_heard_at = now_;
  node.machine->heartbeat_received(*received.fresh, local(node));
}

// ---- the connection --------------------------------------------------------------------------------------------

void MembershipWorld::send_frame(Node& node, Frame frame) {
  if (!node.is_linked) return;
  const Index from = index_of(node);
  const Index to = blockdev::other_node(from);
  // In order, whatever is drawn; a cut path stops everything until the connection ends.
  link_order_[from] =
      std::max(link_order_[from] + Duration(1), now_ + random_.duration(microseconds(50), milliseconds(4)));
  if (node.is_path_cut[kConnectionPath]) {
    // What TCP cannot deliver ends the connection before long (ping_timeout).
    return at_node(from, random_.duration(seconds(1), seconds(3)), [this, number = link_number_](Node& at) {
      if (!at.is_linked || number != link_number_) return;
      close_link(at);
      at.machine->disconnected(local(at));
    });
  }
  at_node(to, link_order_[from] - now_, [this, number = link_number_, frame = std::move(frame)](Node& at) {
    if (at.is_linked && number == link_number_) receive_frame(at, frame);
  });
}

/// This end is gone; the other one hears of it, or of the silence, later.
void MembershipWorld::close_link(Node& node) {
  if (!node.is_linked) return;
  node.is_linked = false;
  const bool served = node.machine != nullptr && node.service != Service::stopped;
  if (served) node.has_dirty = true;
  node.is_acknowledged = node.is_flushing = node.is_syncing = node.is_synced = false;
  node.drain_number = 0;
  const Index to = blockdev::other_node(index_of(node));
  const bool is_heard = !node.is_path_cut[kConnectionPath];
  at_node(to,
          is_heard ? random_.duration(microseconds(50), milliseconds(50)) : random_.duration(seconds(2), seconds(4)),
          [this, number = link_number_](Node& at) {
            if (!at.is_linked || number != link_number_) return;
            close_link(at);
            at.machine->disconnected(local(at));
          });
}

replication::Introduction MembershipWorld::introduce(const Node& node) const {
  const auto& record = node.machine->record();
  replication::Introduction intro;
  replication::VolumeIntroduction& volume = intro.volumes.emplace_back();
  volume.size_bytes = 1 << 20;
  volume.has_dirty_blocks = node.has_dirty;
  intro.configuration = record.configuration;
  intro.seen = record.seen;
  intro.pair_id = record.pair_id;
  intro.generations = record.generations;
  intro.is_inconsistent = record.is_inconsistent;
  intro.is_outdated = record.is_outdated;
  intro.is_crashed_primary = node.is_crashed_primary;
  intro.may_have_lost_cache = node.machine->may_have_lost_cache();
  intro.survived_connected = node.machine->has_survived_connected();
  intro.is_primary = node.machine->is_primary();
  return intro;
}

/// Both dial all the time; who is settled introduces itself, and both compute the plan.
void MembershipWorld::try_connect() {
  at(random_.duration(milliseconds(100), milliseconds(600)), [this] { try_connect(); });
  const auto is_ready = [&](const Node& node) {
    return node.run != 0 && now_ >= node.paused_until && !node.is_linked && node.machine->is_settled() &&
           !node.is_path_cut[kConnectionPath];
  };
  if (!is_ready(nodes_[0]) || !is_ready(nodes_[1])) return;
  const std::array intros = {introduce(nodes_[0]), introduce(nodes_[1])};
  ++link_number_;
  const std::array delays = {random_.duration(microseconds(50), milliseconds(5)),
                             random_.duration(microseconds(50), milliseconds(5))};
  std::array<replication::Plan, 2> plans;
  for (Index index = 0; index < 2; ++index) {
    plans[index] = replication::plan_meeting(index, intros[index], intros[1 - index]);
    if (plans[index].kind != replication::PlanKind::apart) continue;
    if (plans[index].is_split) return split_found(intros);
    trace(nodes_[index], "apart: " + plans[index].reason);
    return;
  }
  for (Index index = 0; index < 2; ++index) {
    meet(index, plans[index], intros[1 - index], delays[index]);
    link_order_[index] = now_ + delays[1 - index];  // Nothing comes before the other's Introduction.
  }
}

void MembershipWorld::meet(Index index, const replication::Plan& plan, const replication::Introduction& theirs,
                           Duration delay) {
  using Direction = membership::Meeting::Direction;
  membership::Meeting meeting;
  switch (plan.kind) {
    case replication::PlanKind::agree:
      meeting.direction = Direction::equal;
      break;
    case replication::PlanKind::sync_source:
      meeting.direction = Direction::source;
      break;
    case replication::PlanKind::sync_target:
      meeting.direction = Direction::target;
      break;
    case replication::PlanKind::wait:
    case replication::PlanKind::apart:
      meeting.direction = Direction::wait;
      break;
  }
  meeting.peer_configuration = theirs.configuration;
  meeting.peer_seen = theirs.seen;
  meeting.peer_pair_id = theirs.pair_id;
  meeting.is_split = plan.is_split;
  meeting.given_up = theirs.generations.current;
  nodes_[index].is_linked = true;
  at_node(index, delay, [this, meeting, number = link_number_, before = nodes_[index].machine->record()](Node& node) {
    if (!node.is_linked || number != link_number_) return;
    if (node.machine->record() != before || !node.machine->is_settled()) return close_link(node);
    trace(node, fmt::format("connected, {}{}", static_cast<int>(meeting.direction), meeting.is_split ? ", split" : ""));
    node.machine->connected(meeting, local(node));
  });
}

/// Nobody merges; the administrator comes now and then, and gives up one copy: of a primary only after its role.
void MembershipWorld::split_found(const std::array<replication::Introduction, 2>& intros) {
  trace(nodes_[0], "the copies have split");
  for (Index index = 0; index < 2; ++index) {
    at_node(index, milliseconds(1), [this, theirs = intros[1 - index].configuration](Node& node) {
      node.machine->split_found(theirs, local(node));
    });
  }
  for (Node& node : nodes_) node.is_split_decided = false;
  if (!random_.chance(is_healing_ ? 0.5 : 0.1)) return;
  if (!nodes_[0].is_discarding && !nodes_[1].is_discarding) nodes_[random_.below(2)].is_discarding = true;
  const Index loser = nodes_[0].is_discarding ? 0 : 1;
  Node& given_up = nodes_[loser];
  if (given_up.machine->is_primary()) {
    return at_node(loser, {}, [this](Node& node) { static_cast<void>(node.machine->make_secondary(local(node))); });
  }
  if (!intros[1 - loser].generations.current.is_none() && !intros[1 - loser].is_outdated &&
      !intros[1 - loser].is_inconsistent) {
    for (Index index = 0; index < 2; ++index) {
      replication::Plan plan;
      plan.kind = index == loser ? replication::PlanKind::sync_target : replication::PlanKind::sync_source;
      plan.is_split = true;
      nodes_[index].is_split_decided = true;
      const Duration delay = random_.duration(microseconds(50), milliseconds(5));
      meet(index, plan, intros[1 - index], delay);
      link_order_[1 - index] = now_ + delay;
    }
  } else {
    given_up.is_discarding = false;
  }
}

void MembershipWorld::receive_frame(Node& node, const Frame& frame) {
  membership::MembershipMachine& machine = *node.machine;
  const auto& record = machine.record();
  const auto refuse = [&](const std::string& why) {
    trace(node, "hangs up: " + why);
    close_link(node);
    machine.disconnected(local(node));
  };
  switch (frame.kind) {
    case FrameKind::heartbeat:
      return deliver(index_of(node), kConnectionPath, frame.heartbeat);
    case FrameKind::write: {
      if (frame.term != record.configuration.term || !machine.may_apply_frames()) {
        return refuse("a frame of another configuration");
      }
      node.data = frame.value;
      return send_frame(node, {.kind = FrameKind::ack, .value = frame.value});
    }
    case FrameKind::ack:
      if (node.pending_write == frame.value) node.is_acknowledged = true;
      return;
    case FrameKind::flush:
      node.stable = node.data;
      return send_frame(node, {.kind = FrameKind::flush_ack, .value = frame.value});
    case FrameKind::flush_ack:
      node.stable = std::max(node.stable, node.flushing_data);
      if (frame.value == 0) {
        node.is_flushing = false;
        if (machine.may_answer(local(node))) floor_flush_ = std::max(floor_flush_, node.client_flush_floor);
      } else {
        machine.flushed(frame.value, true, local(node));
      }
      return;
    case FrameKind::proposal:
      return machine.proposal_received(frame.configuration, frame.generations, local(node));
    case FrameKind::proposal_ack:
      return machine.proposal_acknowledged(frame.term, local(node));
    case FrameKind::sync_start:
      return machine.resync_begins(frame.configuration, local(node));
    case FrameKind::target_ready:
      if (node.is_syncing && machine.is_source()) send_frame(node, {.kind = FrameKind::sync_data, .value = node.data});
      node.is_synced = true;
      return;
    case FrameKind::sync_data:
      node.data = frame.value;
      return send_frame(node, {.kind = FrameKind::sync_ack});
    case FrameKind::sync_ack:
      return machine.resynced(local(node));
  }
}

// ---- the arbiter -----------------------------------------------------------------------------------------------

/// The transaction may commit long after it was asked for; its answer may be lost.
void MembershipWorld::ask_arbiter(Node& node, std::function<std::function<void(Node&)>()> transaction) {
  const Index index = index_of(node);
  if (!node.reaches_arbiter) return;
  const bool is_late = has_arbiter_faults_ && !is_healing_ && random_.chance(0.15);
  const Duration delay =
      is_late ? random_.duration(milliseconds(500), seconds(6)) : random_.duration(milliseconds(1), milliseconds(30));
  at(delay, [this, index, run = node.run, transaction = std::move(transaction)] {
    auto answer = transaction();
    const bool is_lost = has_arbiter_faults_ && !is_healing_ && random_.chance(0.15);
    if (nodes_[index].run != run || !nodes_[index].reaches_arbiter || is_lost) return;
    at_node(index, random_.duration(milliseconds(1), milliseconds(30)), std::move(answer));
  });
}

// ---- the register ----------------------------------------------------------------------------------------------

/// One client: writes numbers that only grow, reads, flushes.
void MembershipWorld::load(Node& node) {
  const bool may = node.service == Service::serving && node.machine->may_answer(local(node));
  if (!may) return;
  const bool is_pair = node.machine->is_established();
  if (node.pending_write == 0 && random_.chance(0.5)) {
    node.data = node.pending_write = ++written_;
    node.is_acknowledged = false;
    const bool is_mirrored = is_pair || (node.machine->is_source() && node.is_synced);
    if (is_mirrored) {
      send_frame(node,
                 {.kind = FrameKind::write, .value = node.data, .term = node.machine->record().configuration.term});
    }
  } else if (node.pending_write == 0) {
    floor_ = std::max(floor_, node.data);  // A read; a range with a write in flight waits for it (A18).
    if (is_pair) floor_both_ = std::max(floor_both_, node.data);
    if (random_.chance(0.2) && !node.is_flushing) {
      if (is_pair) {
        node.is_flushing = true;
        node.client_flush_floor = floor_;
        node.flushing_data = node.data;
        send_frame(node, {.kind = FrameKind::flush});
      } else if (node.record.configuration.is_sole(index_of(node))) {
        node.stable = node.data;
        floor_flush_ = floor_;
      }
    }
  }
}

void MembershipWorld::answer_if_possible(Node& node) {
  if (node.machine == nullptr || node.pending_write == 0 || !node.machine->may_answer(local(node))) return;
  const bool is_pair = node.record.configuration.is_pair();
  const bool is_target_behind = node.machine->is_source() && node.is_synced && !node.is_acknowledged;
  if ((is_pair && !node.is_acknowledged) || is_target_behind) return;
  floor_ = std::max(floor_, node.pending_write);
  if (!is_pair) node.has_written_alone = true;
  if (is_pair) floor_both_ = std::max(floor_both_, node.pending_write);
  node.pending_write = 0;
}

/// Every frame is acknowledged, then both flush.
void MembershipWorld::drain_if_possible(Node& node) {
  if (node.machine == nullptr || node.drain_number == 0 || !node.is_linked) return;
  if (node.pending_write != 0 && !node.is_acknowledged) return;
  node.flushing_data = node.data;
  send_frame(node, {.kind = FrameKind::flush, .value = std::exchange(node.drain_number, 0)});
}

/// What P1 and P2 still owe once a cache is gone (protocol-review: one answered by two survives one failure, flushed
/// ones both).
void MembershipWorld::note_power_loss(Node& node) {
  node.boot_id = {};
  random_.fill(node.boot_id.bytes);
  node.clock_offset =
      Duration(-static_cast<std::int64_t>(static_cast<double>(now_.count()) * node.clock_rate)) + seconds(2);
  if (!has_cache_) return;
  const bool is_sole = node.record.configuration.is_sole(index_of(node));
  if (random_.chance(0.7)) node.data = std::min(node.data, node.stable);
  if (!is_sole) node.lost_cache = true;
  const auto owe = [&](std::uint64_t value) { floor_ = std::min(floor_, value); };
  const std::uint64_t newest = std::max(nodes_[0].data, nodes_[1].data);
  if (nodes_[0].lost_cache && nodes_[1].lost_cache) {
    floor_both_ = floor_flush_;
    owe(floor_flush_);
  }
  if (is_sole && node.data < floor_) owe(std::max(floor_both_, floor_flush_));
  if (newest < floor_both_) {
    floor_both_ = floor_flush_;
    owe(floor_flush_);
  }
  if (newest < floor_) owe(std::max(floor_both_, floor_flush_));
}

}  // namespace replblk::sim
