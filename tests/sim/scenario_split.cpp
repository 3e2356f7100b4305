// The end of a run with a split: both sides go on alone, meet, and must notice; then the policies or the administrator
// give one copy up, the connection may break over it, and the pair must come back with two copies that hold exactly
// what the kept one held. What the policies must say is stated here a second time, not taken from the code.
#include <algorithm>
#include <cstring>

#include "scenario.hpp"
#include "stamp.hpp"

namespace replblk::sim {

using blockdev::kNoNode;
using blockdev::NodeIndex;
using blockdev::other_node;
using replication::AfterSb0;
using replication::AfterSb1;
using replication::AfterSb2;

bool Scenario::is_primary(NodeIndex node) const {
  const auto view = hosts_[node]->inspect();
  return view && view->is_primary;
}

bool Scenario::is_sole(NodeIndex node) const {
  const auto view = hosts_[node]->inspect();
  return view && view->record->configuration.is_sole(node);
}

bool Scenario::is_standalone(NodeIndex node) {
  return hosts_[node]->is_running() && hosts_[node]->node() != nullptr &&
         hosts_[node]->node()->status().resources.front().connection_state == "StandAlone";
}

/// Nothing passes between the nodes, and no arbiter is there: the secondary takes over by itself although the primary
/// lives, or a person who does not know that is quicker. False: the node refused; no split, nothing to see.
bool Scenario::go_apart() {
  const NodeIndex secondary = other_node(split_primary_);
  const Instant limit = timeline_.now() + seconds(60);
  const bool is_by_itself = Seeded(mix64(options_.seed) ^ 0x6974736c66).chance(0.5);
  Instant next_try = is_by_itself ? Instant::max() : timeline_.now();
  while (violation_.empty() && !(is_sole(0) && is_sole(1))) {
    let_run(milliseconds(50));
    if (timeline_.now() >= next_try && !is_sole(secondary)) {
      administrator_->promote_carelessly(secondary);
      next_try = timeline_.now() + seconds(1);
    }
    if (timeline_.now() <= limit) continue;
    if (is_by_itself)
      fail("3.5: without an arbiter nobody takes over from a peer that is not heard: " + describe_state());
    return false;
  }
  let_run(milliseconds(500));
  return violation_.empty();
}

bool Scenario::demote(NodeIndex node) {
  const Instant limit = timeline_.now() + seconds(30);
  while (violation_.empty() && is_primary(node)) {
    administrator_->demote(node);
    let_run(milliseconds(100));
    if (timeline_.now() > limit) fail(fmt::format("a primary does not become secondary: {}", describe_state()));
  }
  return violation_.empty();
}

/// No initiator writes, and nothing that one has sent is still on its way (late Data-Out takes up to 3 s).
bool Scenario::quiesce() {
  for (std::size_t index = 0; index < initiators_.size(); ++index) {
    initiators_[index]->set_load(false);
    const std::string address = fmt::format("10.0.1.{}", index + 1);
    for (const auto& host : hosts_) {
      fabric_.link(host->address(), address).is_cut = fabric_.link(address, host->address()).is_cut = false;
    }
  }
  const Instant limit = timeline_.now() + seconds(60);
  const auto is_quiet = [](const auto& initiator) { return initiator->has_nothing_in_flight(); };
  while (violation_.empty() && !std::ranges::all_of(initiators_, is_quiet)) {
    let_run(milliseconds(100));
    if (timeline_.now() > limit) fail("a node that serves alone does not answer: " + describe_state());
  }
  let_run(seconds(5));
  return violation_.empty();
}

/// What proto/config.proto says of the policies.
NodeIndex Scenario::loser_by_policy(const std::array<std::uint64_t, 2>& changed_bytes) {
  const replication::SplitPolicies& policies = options_.split_policies;
  const NodeIndex least = changed_bytes[0] < changed_bytes[1] ? 0 : 1;
  NodeIndex without = kNoNode;
  if (policies.without_primary == AfterSb0::discard_younger_primary) without = other_node(split_primary_);
  if (policies.without_primary == AfterSb0::discard_older_primary) without = split_primary_;
  if (policies.without_primary == AfterSb0::discard_least_changes) without = least;
  if (policies.without_primary == AfterSb0::discard_zero_changes && changed_bytes[least] == 0) without = least;
  if (policies.without_primary == AfterSb0::discard_node) without = policies.discarded_node;
  const int primaries = (is_primary(0) ? 1 : 0) + (is_primary(1) ? 1 : 0);
  if (primaries == 0) return without;
  if (primaries == 2) return policies.with_two_primaries == AfterSb2::violently_as0p ? without : kNoNode;
  const NodeIndex secondary = is_primary(0) ? 1 : 0;
  if (policies.with_one_primary == AfterSb1::discard_secondary) return secondary;
  if (policies.with_one_primary == AfterSb1::violently_as0p) return without;
  if (policies.with_one_primary == AfterSb1::consensus && without == secondary) return secondary;
  return kNoNode;
}

/// Nobody may merge, and both must say what each has changed.
void Scenario::check_detected(const std::array<std::uint64_t, 2>& changed_bytes) {
  const Instant limit = timeline_.now() + seconds(60);
  while (violation_.empty() && !(is_standalone(0) && is_standalone(1))) {
    let_run(milliseconds(100));
    if (timeline_.now() > limit) fail("P4: a split was not detected: " + describe_state());
  }
  let_run(seconds(5));
  if (!violation_.empty()) return;
  if (!is_sole(0) || !is_sole(1) || !is_standalone(0) || !is_standalone(1)) {
    fail("P4: a split was merged: " + describe_state());
    return;
  }
  for (const auto& host : hosts_) {
    const node::ResourceStatus resource = host->node()->status().resources.front();
    bool is_reported = resource.split.size() == 2;
    for (NodeIndex node = 0; is_reported && node < 2; ++node) {
      const node::SplitSideStatus& side = resource.split[node];
      is_reported = side.volumes.size() == 1 && side.volumes.front().changed_bytes == changed_bytes[node] &&
                    side.is_primary == is_primary(node) && side.alone_since_ms != 0;
    }
    if (!is_reported)
      fail(fmt::format("{} does not say what a split has changed on both sides", kNodeName[host->index()]));
  }
}

/// The administrator gives up the copy of a Secondary.
bool Scenario::choose_by_hand(NodeIndex& loser) {
  loser = static_cast<NodeIndex>(timeline_.random().below(2));
  if (is_primary(loser) && !is_primary(other_node(loser)) && timeline_.random().chance(0.7)) loser = other_node(loser);
  if (!demote(loser)) return false;
  administrator_->connect(loser, true);
  let_run(timeline_.random().duration(milliseconds(1), seconds(3)));
  administrator_->connect(other_node(loser), false);
  return violation_.empty();
}

/// Until both are members again, whatever happens meanwhile. Nobody has to say twice which copy is to go.
void Scenario::reconcile(NodeIndex loser) {
  Seeded& random = timeline_.random();
  const NodeIndex winner = other_node(loser);
  administrator_->resume_sync();  // What an earlier fault had paused.
  const Instant limit = timeline_.now() + kConvergeMax;
  int disturbances = random.chance(0.6) ? static_cast<int>(random.between(1, 3)) : 0;
  bool is_decided = false;
  while (violation_.empty() && !checkers_->is_established()) {
    if (const auto view = hosts_[loser]->inspect(); view && !is_decided) {
      is_decided = hosts_[winner]->persisted(true).generations.base == view->record->generations.current;
    }
    if (disturbances > 0 && random.chance(0.2)) {
      --disturbances;
      // A decision that is durable must survive also the death of either daemon.
      if (is_decided && random.chance(0.5)) {
        take_down(*hosts_[random.below(2)], random.duration(milliseconds(1), seconds(3)), false);
      } else {
        timeline_.note("split: the connection breaks over it");
        fabric_.reset_connections(hosts_[0]->address(), hosts_[1]->address(), random.chance(0.3));
      }
    }
    let_run(random.duration(milliseconds(5), is_decided ? milliseconds(60) : milliseconds(500)));
    if (timeline_.now() > limit) fail("P4: a split that was decided is not resolved: " + describe_state());
  }
}

/// Nothing that was written to the copy that was given up is lost for good.
void Scenario::check_undo(NodeIndex loser, const std::vector<std::byte>& held,
                          const std::vector<blockdev::ByteRange>& changes) {
  if (!options_.has_undo || changes.empty()) return;
  const SimUndoFiles::Kept& kept = hosts_[loser]->undo_files();
  const auto is_complete = [&](const auto& file) {
    return std::ranges::all_of(changes, [&](const blockdev::ByteRange& range) {
      return std::memcmp(file.second.data() + range.offset_bytes, held.data() + range.offset_bytes,
                         range.length_bytes) == 0;
    });
  };
  if (std::ranges::none_of(kept, is_complete)) {
    fail(fmt::format("what {} had written before it was given up is in none of {} files", kNodeName[loser],
                     kept.size()));
  }
}

void Scenario::finish_split() {
  for (const auto& host : hosts_) host->let_handlers_refuse(false);
  Seeded& random = timeline_.random();
  if (!go_apart()) return;
  for (NodeIndex node = 0; node < 2; ++node) {
    if (random.chance(0.4) && !demote(node)) return;
  }
  if (!quiesce()) return;
  const std::uint64_t data_bytes = checkers_->data_bytes();
  std::array<std::vector<std::byte>, 2> held;
  std::array<std::uint64_t, 2> changed_bytes{};
  std::array<std::vector<blockdev::ByteRange>, 2> changes;
  for (NodeIndex node = 0; node < 2; ++node) {
    const std::byte* content = hosts_[node]->data().content();
    held[node].assign(content, content + data_bytes);
    const blockdev::DirtyBitmap& dirty = hosts_[node]->inspect()->stores().front()->dirty();
    changed_bytes[node] = dirty.dirty_bytes();
    for (auto range = dirty.next_dirty(0, data_bytes); range; range = dirty.next_dirty(range->end_bytes(), data_bytes))
      changes[node].push_back(*range);
  }
  NodeIndex loser = loser_by_policy(changed_bytes);
  const bool is_by_hand = loser == kNoNode;
  timeline_.note("split: the nodes meet; to be given up: {}", is_by_hand ? "by hand" : kNodeName[loser]);
  fabric_.heal_all();
  administrator_->want_connect();  // A `disconnect` of before the split may have come late.
  if (is_by_hand) {
    check_detected(changed_bytes);
    if (!violation_.empty() || !choose_by_hand(loser)) return;
  }
  reconcile(loser);
  if (!violation_.empty()) return;
  for (NodeIndex node = 0; node < 2; ++node) {
    if (std::memcmp(hosts_[node]->data().content(), held[other_node(loser)].data(), data_bytes) == 0) continue;
    fail(fmt::format("P4: after the copy of {} was given up, {} does not hold what the other one held",
                     kNodeName[loser], kNodeName[node]));
    return;
  }
  check_undo(loser, held[loser], changes[loser]);
  // From here on the run is one like any other, with the kept copy's history.
  for (std::uint64_t sector = 0; sector < data_bytes / kSectorBytes; ++sector) {
    const auto value = read_stamp(hosts_[0]->data().content() + sector * kSectorBytes, sector);
    if (!value) return fail(fmt::format("sector {} holds neither a stamp of its place nor zeroes", sector));
    oracle_->adopt(sector, *value);
  }
  is_split_ = false;
  checkers_->set_split(false);
  administrator_->become_careful();
  for (const auto& initiator : initiators_) initiator->set_load(true);
  let_run(seconds(3));
}

}  // namespace replblk::sim
