#include "sim/membership_world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <span>

#include "base/assert.hpp"
#include "membership/transitions.hpp"

namespace replblk::sim {

using blockdev::Configuration;
using blockdev::ResourceRecord;
using membership::ArbiterKind;
using membership::MembershipMachine;

namespace {

constexpr std::string_view kSecret = "the secret of both nodes";
constexpr Duration kFaultTime = seconds(25);
constexpr Duration kHealTime = seconds(25);  ///< within which somebody must serve: degraded_start_after is 6 s here

std::string text(const Configuration& configuration) {
  return fmt::format("({},{{{}{}}},{})", configuration.term, configuration.members & 1 ? "0" : "",
                     configuration.members & 2 ? "1" : "", configuration.primary);
}

Uuid drawn_uuid(Seeded& random) {
  Uuid uuid;
  random.fill(uuid.bytes);
  return uuid;
}

}  // namespace

MembershipWorld::MembershipWorld(std::uint64_t seed, bool is_traced) : random_(seed), is_traced_(is_traced) {
  const auto draw_kind = random_.below(10);
  options_.arbiter = draw_kind < 6 ? ArbiterKind::etcd : draw_kind < 8 ? ArbiterKind::none : ArbiterKind::ping;
  if (options_.arbiter == ArbiterKind::etcd) {
    options_.degraded_start_after = random_.chance(0.7) ? Duration(seconds(6)) : Duration(milliseconds(200));
  }
  if (random_.chance(0.2)) options_.preferred_node = static_cast<Index>(random_.below(2));
  loss_ = random_.chance(0.5) ? 0.0 : random_.chance(0.5) ? 0.1 : 0.4;
  replay_ = random_.chance(0.3) ? 0.05 : 0.0;
  delay_max_ = random_.chance(0.7) ? milliseconds(5) : milliseconds(400);
  fault_interval_ = milliseconds(static_cast<int>(random_.between(150, 2500)));
  has_cache_ = random_.chance(0.5);
  has_power_loss_ = random_.chance(0.5);
  has_crashes_ = random_.chance(0.7);
  has_cuts_ = random_.chance(0.7);
  has_pauses_ = random_.chance(0.4);
  has_arbiter_faults_ = random_.chance(0.6);
  has_administrator_ = random_.chance(0.5);
  has_disk_failures_ = random_.chance(0.15);
  is_final_alone_ = random_.chance(0.3);
  ResourceRecord record;
  record.configuration = {1, 3, 0};
  record.seen = 1;
  record.generations.current = {1, 7};
  record.pair_id = drawn_uuid(random_);
  arbiter_.record = ports::ArbiterRecord{record.pair_id, 1, 3, 0, 1, 7};
  for (Node& node : nodes_) {
    node.record = record;
    node.boot_id = drawn_uuid(random_);
    node.clock_rate = 0.955 + 0.09 * static_cast<double>(random_.below(1000)) / 1000.0;
    node.clock_offset = seconds(static_cast<int>(random_.between(1, 1000)));
    // The files may differ while the lease is being changed (F11).
    node.lease_ms = random_.chance(0.7) ? 1000 : static_cast<std::uint32_t>(random_.between(300, 2500));
    node.pair_terms.insert(1);
  }
}

MembershipOutcome MembershipWorld::run() {
  start(0);
  start(1);
  at(milliseconds(50), [this] { try_connect(); });
  at(seconds(3), [this] { draw_fault(); });
  at(kFaultTime, [this] { heal(); });
  const Duration end = kFaultTime + kHealTime;
  while (failure_.empty() && !events_.empty() && now_ < end) {
    auto first = events_.extract(events_.begin());
    now_ = first.key().first;
    first.mapped()();
    check();
  }
  if (failure_.empty() && is_service_owed()) {
    std::string reasons;
    for (const Node& node : nodes_) {
      if (node.run != 0) reasons += fmt::format("; node {}: {}", index_of(node), node.machine->reason());
    }
    fail("I9: nobody serves although nothing is in the way" + reasons);
  }
  return {failure_, written_, changes_};
}

// ---- time and processes ----------------------------------------------------------------------------------------

void MembershipWorld::at(Duration delay, std::function<void()> event) {
  events_.emplace(std::pair(now_ + delay, ++order_), std::move(event));
}

/// Runs in the node's process of now, if that still lives then; a paused process does it when it goes on.
void MembershipWorld::at_node(Index index, Duration delay, std::function<void(Node&)> event) {
  at(delay, [this, index, run = nodes_[index].run, event = std::move(event)] {
    Node& node = nodes_[index];
    if (node.run != run || run == 0) return;
    if (now_ < node.paused_until) return at_node(index, node.paused_until - now_, event);
    event(node);
    if (node.run == run) pump(node);
  });
}

Instant MembershipWorld::local(const Node& node) const {
  return Instant(node.clock_offset +
                 Duration(static_cast<std::int64_t>(static_cast<double>(now_.count()) * node.clock_rate)));
}

void MembershipWorld::start(Index index) {
  Node& node = nodes_[index];
  if (node.run != 0 || node.is_away) return;
  node.run = ++runs_;
  node.paused_until = {};
  node.started_at = local(node);
  node.is_crashed_primary = node.record.is_primary_open;
  node.run_terms.clear();
  node.peer_heard_at = -seconds(10);
  const bool has_lost = has_cache_ && !node.record.is_clean_stop && !node.record.boot_id.is_none() &&
                        node.record.boot_id != node.boot_id && !node.record.configuration.is_sole(index);
  if (!has_lost) node.record.boot_id = node.boot_id;
  options_.self = index;
  options_.lease_ms = node.lease_ms;
  const std::uint64_t incarnation = random_.next() | 1;
  node.machine = std::make_unique<MembershipMachine>(
      options_, membership::MembershipStart{node.record, incarnation, has_lost}, local(node));
  node.session = std::make_unique<membership::HeartbeatSession>(
      membership::HeartbeatIdentity{index, incarnation, 42, std::string(kSecret), 3});
  if (node.is_disk_broken) node.machine->disk_failed(local(node));
  trace(node,
        fmt::format("starts: {} seen {}{}{}{}", text(node.record.configuration), node.record.seen,
                    node.record.is_outdated ? " Outdated" : "", node.record.is_inconsistent ? " Inconsistent" : "",
                    has_lost ? " may have lost its cache" : ""));
  tick(index, node.run);
  if (has_administrator_ && random_.chance(0.4)) {
    at_node(index, random_.duration(milliseconds(20), milliseconds(600)),
            [this](Node& at) { static_cast<void>(at.machine->make_primary(local(at))); });
  }
}

void MembershipWorld::kill(Index index, bool is_power_lost) {
  Node& node = nodes_[index];
  if (node.run != 0) {
    trace(node, is_power_lost ? "loses power" : "dies");
    // What was being written may have become durable.
    if (node.record_out.has_value() && random_.chance(0.5)) {
      check_record(node, node.record, *node.record_out);
      node.record = *node.record_out;
    }
    close_link(node);
  }
  const std::uint64_t was = std::exchange(node.run, 0);
  node.record_out.reset();
  node.machine.reset();
  node.session.reset();
  node.service = membership::Service::stopped;
  node.pending_write = node.drain_number = 0;
  node.is_syncing = node.is_synced = node.is_flushing = node.is_discarding = false;
  node.has_dirty = false;
  if (is_power_lost) note_power_loss(node);
  if (was != 0 && !is_healing_) {
    at(random_.chance(0.6) ? random_.duration(milliseconds(20), milliseconds(900))
                           : random_.duration(seconds(1), seconds(9)),
       [this, index] { start(index); });
  }
}

void MembershipWorld::tick(Index index, std::uint64_t run) {
  if (nodes_[index].run != run) return;
  at_node(index, random_.duration(milliseconds(15), milliseconds(60)), [this, index, run](Node& node) {
    node.machine->tick(local(node));
    load(node);
    tick(index, run);
  });
}

void MembershipWorld::pump(Node& node) {
  while (node.machine != nullptr) {
    auto effects = node.machine->take_effects();
    if (effects.empty()) break;
    for (auto& effect : effects) carry_out(node, effect);
  }
  answer_if_possible(node);
  drain_if_possible(node);
}

void MembershipWorld::carry_out(Node& node, membership::Effect& effect) {
  const Index index = index_of(node);
  if (auto* persist = std::get_if<membership::PersistEffect>(&effect)) {
    ResourceRecord next = membership::with_decision(node.record, persist->record);
    next.boot_id = node.machine->may_have_lost_cache() ? node.record.boot_id : node.boot_id;
    RB_ASSERT(!node.record_out.has_value());
    node.record_out = next;
    node.reached_for = now_ - node.unreached_at;
    const Duration slow = random_.chance(0.02) ? milliseconds(700) : milliseconds(3);
    at_node(index, random_.duration(microseconds(100), slow), [this, number = persist->number](Node& at) {
      check_record(at, at.record, *at.record_out);
      at.record = *at.record_out;
      at.record_out.reset();
      if (at.record.configuration.has_member(index_of(at)) && !at.machine->may_have_lost_cache()) at.lost_cache = false;
      if (at.record.configuration.is_pair()) {
        at.is_crashed_primary = at.has_dirty = at.is_discarding = false;
        // Whoever agrees to a pair has everything that both answered.
        for (Node& each : nodes_) each.has_written_alone = false;
      }
      at.machine->persisted(number, local(at));
      // The worst moment to die is when something has just become true.
      if (has_crashes_ && !is_healing_ && random_.chance(0.02)) {
        const bool is_power_lost = has_power_loss_ && random_.chance(0.7);
        at_node(index_of(at), random_.duration(Duration::zero(), milliseconds(20)), [this, is_power_lost](Node& dying) {
          if (!is_healing_) kill(index_of(dying), is_power_lost);
        });
      }
    });
  } else if (const auto* heartbeat = std::get_if<membership::SendHeartbeatEffect>(&effect)) {
    send_heartbeat(node, heartbeat->heartbeat);
  } else if (const auto* proposal = std::get_if<membership::SendProposalEffect>(&effect)) {
    if (proposal->configuration.term > node.record.seen) fail("a proposal left before its term was durable");
    node.proposed_terms.insert(proposal->configuration.term);
    node.run_terms.insert(proposal->configuration.term);
    send_frame(
        node,
        {.kind = FrameKind::proposal, .configuration = proposal->configuration, .generations = proposal->generations});
  } else if (const auto* ack = std::get_if<membership::SendProposalAckEffect>(&effect)) {
    send_frame(node, {.kind = FrameKind::proposal_ack, .term = ack->term});
  } else if (const auto* end = std::get_if<membership::EndConnectionEffect>(&effect)) {
    trace(node, "ends the connection: " + end->reason);
    close_link(node);
  } else if (std::holds_alternative<membership::EstablishedEffect>(effect)) {
    // What was only cached when the copies became equal matters now.
    if (has_power_loss_ && has_crashes_ && !is_healing_ && node.is_synced && random_.chance(0.03)) lose_power_soon();
    node.is_syncing = node.is_synced = false;
  } else if (std::holds_alternative<membership::TargetReadyEffect>(effect)) {
    node.lost_cache = false;
    node.data = node.stable = 0;
    send_frame(node, {.kind = FrameKind::target_ready});
  } else if (std::holds_alternative<membership::SourceReadyEffect>(effect)) {
    node.is_syncing = true;
    send_frame(node, {.kind = FrameKind::sync_start, .configuration = node.record.configuration});
  } else if (const auto* drain = std::get_if<membership::DrainAndFlushEffect>(&effect)) {
    node.drain_number = drain->number;
  } else if (const auto* flush = std::get_if<membership::FlushOwnEffect>(&effect)) {
    const Duration time = random_.duration(microseconds(100), milliseconds(20));
    // What is written while it goes on is not covered.
    at_node(index, time, [this, number = flush->number, covered = node.data](Node& at) {
      at.stable = std::max(at.stable, std::min(at.data, covered));
      at.machine->flushed(number, true, local(at));
    });
  } else if (const auto* read = std::get_if<membership::ReadArbiterEffect>(&effect)) {
    ask_arbiter(node, [this, number = read->number] {
      return [this, number, reading = ports::ArbiterReading{arbiter_.revision, arbiter_.record}](Node& at) {
        at.machine->arbiter_read(number, reading, local(at));
      };
    });
  } else if (const auto* replace = std::get_if<membership::ReplaceRecordEffect>(&effect)) {
    if (replace->record.term > node.record.seen) fail("a claim left before its term was durable");
    ask_arbiter(node, [this, index, claim = *replace] {
      const bool is_replaced = arbiter_.revision == claim.revision;
      if (is_replaced) {
        ++arbiter_.revision;
        arbiter_.record = claim.record;
        nodes_[index].granted_terms.insert(claim.record.term);
        trace(nodes_[index], fmt::format("is granted term {}", claim.record.term));
      }
      return [this, number = claim.number, is_replaced](Node& at) {
        at.machine->arbiter_replaced(number, is_replaced, local(at));
      };
    });
  } else if (const auto* overwrite = std::get_if<membership::OverwriteRecordEffect>(&effect)) {
    RB_ASSERT(options_.arbiter == ArbiterKind::etcd);  // Nothing else can be told anything.
    ask_arbiter(node, [this, number = overwrite->number, record = overwrite->record] {
      ++arbiter_.revision;
      arbiter_.record = record;
      return [this, number](Node& at) { at.machine->arbiter_overwritten(number, local(at)); };
    });
  } else if (const auto* probe = std::get_if<membership::ProbeAddressesEffect>(&effect)) {
    at_node(index, milliseconds(200), [this, number = probe->number](Node& at) {
      at.machine->arbiter_probed(number, at.reaches_arbiter, local(at));
    });
  } else if (const auto* service = std::get_if<membership::ServiceEffect>(&effect)) {
    node.service = service->service;
    if (node.service == membership::Service::stopped) node.pending_write = 0;
    trace(node, fmt::format("service {} {}: {}", static_cast<int>(node.service),
                            text(node.machine->record().configuration), node.machine->reason()));
  }
}

// ---- checks ----------------------------------------------------------------------------------------------------

void MembershipWorld::check() {
  bool is_held_by_both = true;
  for (const Node& node : nodes_) {
    const bool may = node.run != 0 && now_ >= node.paused_until && node.machine->may_answer(local(node));
    is_held_by_both = is_held_by_both && may;
    if (may && node.data < floor_ && options_.arbiter == ArbiterKind::etcd) {
      fail(fmt::format("node {} may answer with {}, and {} was answered", index_of(node), node.data, floor_));
    }
    if (may && (node.record.is_outdated || node.record.is_inconsistent)) fail("I8: a copy that is not whole is served");
  }
  look_for_silence();
  if (!is_held_by_both) not_both_at_ = now_;
  if (!is_held_by_both) return;
  if (options_.arbiter == ArbiterKind::etcd) fail("I1: both nodes hold a mandate");
  const Duration since = std::max({nodes_[0].unreached_at, nodes_[1].unreached_at, not_both_at_});
  if (now_ - since > kHearingMax) fail("I1: both nodes answer, though each can hear the other");
}

/// With `ping` and `none` both may go on, each because nothing reached it from the other: a run that is new is heard
/// after an exchange only, so a way that carries nothing silences both.
void MembershipWorld::look_for_silence() {
  const bool are_linked =
      std::ranges::all_of(nodes_, &Node::is_linked) &&
      std::ranges::none_of(nodes_, [](const Node& node) { return node.is_path_cut[kConnectionPath]; });
  const bool is_a_way_cut = std::ranges::any_of(nodes_, [](const Node& node) {
    return std::ranges::all_of(std::span(node.is_path_cut).first(kDatagramPaths), std::identity{});
  });
  for (Node& node : nodes_) {
    const Node& peer = other(node);
    const bool is_peer_still = peer.run == 0 || now_ < peer.paused_until;
    if (is_peer_still || (is_a_way_cut && !are_linked)) node.unreached_at = now_;
  }
}

/// I6 and I7, when a record becomes durable.
void MembershipWorld::check_record(Node& node, const ResourceRecord& before, const ResourceRecord& now) {
  const Index self = index_of(node);
  const Index peer = blockdev::other_node(self);
  if (now.configuration.term < before.configuration.term || now.seen < before.seen) fail("I6: a term goes down");
  const Configuration& next = now.configuration;
  const bool had_agreed = before.seen > before.configuration.term;  // It had proposed to add the peer.
  if (now.is_outdated && !before.is_outdated && options_.arbiter != ArbiterKind::etcd && node.has_written_alone &&
      before.configuration.is_sole(self) && !had_agreed && !node.is_split_decided) {
    fail("P4: a copy that was written alone gives way, and nobody has decided on the split");
  }
  if (now.is_inconsistent && !before.is_inconsistent) {
    if (node.has_written_alone && !node.is_split_decided) {
      fail("P4: a copy that was written alone is overwritten, and nobody said that there is a split");
    }
    node.has_written_alone = node.is_split_decided = false;
  }
  if (next.is_sole(self) && !before.configuration.is_sole(self) && options_.arbiter != ArbiterKind::etcd) {
    const bool is_split = other(node).record.configuration.is_sole(peer);
    if (is_split && loss_ <= kLossMax && node.reached_for > kHearingMax) {
      fail("I1: goes on alone beside a peer that went on alone, though that one can be heard");
    }
  }
  if (next.is_sole(self) && now.seen > next.term && node.run != 0) node.run_terms.insert(now.seen);
  if (next != before.configuration) {
    ++changes_;
    trace(node, fmt::format("is at {} seen {} (was {}){}", text(next), now.seen, text(before.configuration),
                            now.is_outdated ? " Outdated" : ""));
    bool is_decided = false;
    if (next.is_sole(self)) {
      note_degraded_start(node);
      if (has_cache_ && node.stable < std::min(node.data, floor_both_)) {
        fail("A19: alone, and what both answered is in the device's cache only");
      }
      is_decided = is_going_alone_decided(node, before, next.term);
    } else if (next.is_sole(peer)) {
      const bool is_recorded = arbiter_.record.has_value() && arbiter_.record->term >= next.term;
      is_decided = nodes_[peer].asked_terms.contains(next.term) ||
                   nodes_[peer].record.configuration.term >= next.term || is_recorded;
      if (!before.is_outdated || before.configuration.term < next.term) nodes_[peer].agreed_terms.insert(next.term);
    } else {
      is_decided = nodes_[peer].proposed_terms.contains(next.term) || nodes_[peer].pair_terms.contains(next.term);
      node.pair_terms.insert(next.term);
      if (node.run != 0) node.run_terms.insert(next.term);
    }
    if (!is_decided) fail(fmt::format("I7: node {} persists {} and nobody decided it", self, text(next)));
  }
}

bool MembershipWorld::is_going_alone_decided(Node& node, const ResourceRecord& before, std::uint64_t term) {
  const bool is_agreed = std::ranges::any_of(
      node.agreed_terms, [&](std::uint64_t agreed) { return agreed > before.configuration.term && agreed <= term; });
  const bool was_sole = before.configuration.is_sole(index_of(node)) && before.seen == before.configuration.term;
  if (is_agreed || was_sole) return true;
  if (options_.arbiter == ArbiterKind::etcd) return node.granted_terms.contains(term);
  // Those without a memory grant only to who was connected as a member, or proposed to be, in this run (A10).
  return !node.run_terms.empty() && *node.run_terms.rbegin() >= before.configuration.term;
}

/// protocol.md 3.7: by degraded_start_after a copy that may have lost its cache serves what it has; not while it hears
/// that its peer's is whole.
void MembershipWorld::note_degraded_start(Node& node) {
  const bool has_waited =
      options_.degraded_start_after.has_value() && local(node) - node.started_at >= *options_.degraded_start_after;
  const Node& peer = other(node);
  const bool is_peer_whole = !peer.lost_cache && !peer.record.is_inconsistent && !peer.is_disk_broken &&
                             !peer.record.generations.current.is_none();
  const bool is_peer_heard = peer.run != 0 && now_ - node.peer_heard_at < milliseconds(500);
  if (!node.lost_cache || !has_waited || (is_peer_heard && is_peer_whole)) return;
  for (std::uint64_t* floor : {&floor_, &floor_both_, &floor_flush_}) *floor = std::min(*floor, node.data);
}

void MembershipWorld::fail(const std::string& what) {
  if (failure_.empty()) failure_ = fmt::format("{:.3f} s: {}", static_cast<double>(now_.count()) / 1e9, what);
}

void MembershipWorld::trace(const Node& node, const std::string& what) {
  if (is_traced_) std::printf("%9.3f  %d  %s\n", static_cast<double>(now_.count()) / 1e9, index_of(node), what.c_str());
}

}  // namespace replblk::sim
