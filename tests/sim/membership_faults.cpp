// The faults of a MembershipWorld, its administrator, and what is owed when all of it is over.
#include <algorithm>

#include "sim/membership_world.hpp"

namespace replblk::sim {

using membership::ArbiterKind;
using membership::Service;

void MembershipWorld::draw_fault() {
  if (is_healing_) return;
  at(random_.duration(Duration::zero(), 2 * fault_interval_), [this] { draw_fault(); });
  const auto index = static_cast<Index>(random_.below(2));
  Node& node = nodes_[index];
  const auto is_deaf = [this](Duration lasting) { deaf_until_ = std::max(deaf_until_, now_ + lasting + seconds(12)); };
  switch (random_.below(10)) {
    case 0:
    case 1:
      if (!has_cuts_) return;
      // One path, one way; or everything at once.
      if (random_.chance(0.4)) {
        const bool is_one_way = random_.chance(0.5);
        for (std::size_t path = 0; path < 3; ++path) {
          node.is_path_cut[path] = true;
          if (!is_one_way) nodes_[1 - index].is_path_cut[path] = true;
        }
      } else {
        node.is_path_cut[random_.below(3)] = true;
      }
      is_deaf(seconds(20));
      trace(node, "paths are cut");
      return;
    case 2:
    case 3:
    case 4:
      if (!has_cuts_) return;
      for (Node& each : nodes_) each.is_path_cut = {};
      trace(node, "paths are whole");
      return;
    case 5:
      if (node.run == 0 || !node.is_linked || now_ < node.paused_until) return;
      trace(node, "its end of the connection breaks");
      is_deaf(seconds(1));
      return at_node(index, {}, [this](Node& at) {
        if (!at.is_linked) return;
        close_link(at);
        at.machine->disconnected(local(at));
      });
    case 6:
      if (!has_crashes_) return;
      is_deaf(seconds(1));
      // A daemon that restarts and finds itself alone must remember what the one before it promised.
      if (has_cuts_ && random_.chance(0.4)) {
        for (Node& each : nodes_) each.is_path_cut.fill(true);
        is_deaf(seconds(20));
      }
      if (has_disk_failures_ && random_.chance(0.3)) return replace_disk(index);
      if (random_.chance(0.25)) kill(static_cast<Index>(1 - index), has_power_loss_ && random_.chance(0.5));
      return kill(index, has_power_loss_ && random_.chance(0.5));
    case 7:
      if (!has_pauses_ || node.run == 0) return;
      node.paused_until = now_ + random_.duration(milliseconds(50), seconds(4));
      is_deaf(seconds(4));
      trace(node, "stands still");
      return;
    case 8:
      if (has_arbiter_faults_) node.reaches_arbiter = random_.chance(0.6);
      return;
    case 9:
      if (has_disk_failures_ && random_.chance(0.1) && node.run != 0) {
        return at_node(index, {}, [this](Node& at) {
          trace(at, "its disk fails");
          at.is_disk_broken = true;
          at.machine->disk_failed(local(at));
        });
      }
      // A process that stood still hears of it later; not after the faults are over.
      if (has_administrator_ && node.run != 0) {
        at_node(index, {}, [this](Node& at) {
          if (!is_healing_) administer(at);
        });
      }
      return;
    default:
      return;
  }
}

/// Both nodes.
void MembershipWorld::lose_power_soon() {
  at(random_.duration(Duration::zero(), milliseconds(50)), [this] {
    for (Index index = 0; index < 2; ++index) kill(index, true);
  });
}

void MembershipWorld::administer(Node& node) {
  const Instant now = local(node);
  switch (random_.below(11)) {
    case 0:
    case 1:
    case 2:
      static_cast<void>(node.machine->switch_over(now));
      break;
    case 3:
      static_cast<void>(node.machine->make_secondary(now));
      break;
    case 4:
      static_cast<void>(node.machine->make_primary(now));
      break;
    case 5:
      node.machine->set_standby(random_.chance(0.5), now);
      break;
    case 6:
      node.machine->set_maintenance(random_.chance(0.5), now);
      break;
    case 7:
      static_cast<void>(node.machine->switch_over(now));
      break;
    case 8:
      static_cast<void>(node.machine->leave_peer(now));
      break;
    case 9:
      node.machine->set_apart(random_.chance(0.5), now);
      break;
    case 10:
      // The daemon ends in order; the connection first.
      trace(node, "is stopped");
      node.machine->stop(now);
      at_node(index_of(node), milliseconds(100), [this](Node& at) {
        close_link(at);
        at.machine->disconnected(local(at));
      });
      at_node(index_of(node), milliseconds(200), [this](Node& stopped) {
        kill(index_of(stopped), false);
        if (is_healing_) at(milliseconds(100), [this, index = index_of(stopped)] { start(index); });
      });
      break;
    default:
      break;
  }
}

/// The peer's copy holds everything: this one's disk is taken out, and an empty one put in.
void MembershipWorld::replace_disk(Index index) {
  Node& node = nodes_[index];
  const Node& peer = other(node);
  const auto& left = peer.record;
  const bool has_all = left.configuration.has_member(1 - index) && !left.is_outdated && !left.is_inconsistent &&
                       !peer.lost_cache && !peer.is_disk_broken && !left.generations.current.is_none() &&
                       left.configuration.term >= node.record.configuration.term;
  // A claim of the daemon on the old disk may commit after the disk is gone, and its `seen` with it: then the arbiter's
  // record names a copy that is no more, and a person must force the other one. Here none is out.
  const bool are_both_settled = node.run != 0 && peer.run != 0 && node.machine->is_established() &&
                                peer.machine->is_established() && !node.record_out.has_value();
  if (!has_all || !are_both_settled || has_arbiter_faults_) return;
  kill(index, false);
  if (node.record.configuration.is_sole(index) || node.record.configuration.term > left.configuration.term) return;
  trace(node, "gets an empty disk");
  node.record = {};
  node.data = node.stable = 0;
  node.lost_cache = false;
  node.has_written_alone = false;
}

/// No fault any more. One node may stay away for good, if the other one can do without it.
void MembershipWorld::heal() {
  is_healing_ = true;
  loss_ = replay_ = 0;
  delay_max_ = milliseconds(5);
  deaf_until_ = std::max(deaf_until_, now_ + seconds(12));
  for (Node& node : nodes_) {
    node.is_path_cut = {};
    node.reaches_arbiter = true;
    node.is_disk_broken = false;
    if (now_ < node.paused_until) node.paused_until = now_ + milliseconds(10);
    trace(node, "heals");
  }
  if (has_disk_failures_) {
    for (Index index = 0; index < 2; ++index) kill(index, false);
  }
  const auto gone = static_cast<Index>(random_.below(2));
  if (is_final_alone_) {
    kill(gone, false);
    nodes_[gone].is_away = true;
    trace(nodes_[gone], "stays away");
  }
  for (Index index = 0; index < 2; ++index) {
    if (!is_final_alone_ || index != gone) start(index);
    if (nodes_[index].run == 0) continue;
    const auto ask_for_service = [this](Node& node) {
      node.machine->set_maintenance(false, local(node));
      node.machine->set_standby(false, local(node));
      node.machine->set_apart(false, local(node));
    };
    at_node(index, milliseconds(20), ask_for_service);
  }
  // The administrator may have left the pair without a primary: he asks for one. And what a dead peer said of
  // maintenance ends only now that it is silent.
  for (Index index = 0; index < 2; ++index) {
    if (nodes_[index].run == 0) continue;
    at_node(index, seconds(index == gone ? 8 : 12), [this](Node& node) {
      node.machine->set_maintenance(false, local(node));
      const bool is_unnamed = node.machine->record().configuration.primary == blockdev::kNoNode;
      if (is_unnamed) static_cast<void>(node.machine->make_primary(local(node)));
    });
  }
}

/// I9. With `none` and `ping`, which remember nothing, a pair that split or that started with one node waits for a
/// person.
bool MembershipWorld::is_service_owed() const {
  if (std::ranges::any_of(nodes_, [](const Node& node) { return node.service == Service::serving; })) return false;
  const Node& one = nodes_[0];
  const Node& two = nodes_[1];
  if (one.run != 0 && two.run != 0) {
    if (options_.arbiter == ArbiterKind::etcd) return true;
    // One disk was replaced, and then the other one's host lost its power: a person must say what is left to serve.
    if (one.record.generations.current.is_none() || two.record.generations.current.is_none()) return false;
    return now_ > deaf_until_;
  }
  if (options_.arbiter != ArbiterKind::etcd) return false;
  const Index left = one.run != 0 ? 0 : 1;
  const Node& here = nodes_[left];
  const Node& away = nodes_[1 - left];
  const bool is_whole = !here.record.is_inconsistent && here.record.configuration.has_member(left);
  const bool is_behind = away.record.configuration.term > here.record.configuration.term;
  return is_whole && !is_behind;
}

}  // namespace replblk::sim
