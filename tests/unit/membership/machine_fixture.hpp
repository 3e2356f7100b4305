// One MembershipMachine whose peer, disks and arbiter are played by the test. What it wants done is kept as text, one
// line an effect, so that a test compares a whole trace; heartbeats are kept apart.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "membership/membership_machine.hpp"

namespace replblk::membership {

inline std::string text(const blockdev::Configuration& configuration) {
  return fmt::format("({},{{{}{}}},{})", configuration.term, configuration.members & 1 ? "0" : "",
                     configuration.members & 2 ? "1" : "",
                     configuration.primary == blockdev::kNoNode ? "-" : std::to_string(configuration.primary));
}

using Trace = std::vector<std::string>;

class MachineFixture {
 public:
  using Index = blockdev::NodeIndex;

  static blockdev::ResourceRecord pair_record(Index primary) {
    blockdev::ResourceRecord record;
    record.configuration = {1, 3, primary};
    record.seen = 1;
    record.generations.current = {1, 7};
    record.pair_id.bytes[0] = std::byte{1};
    return record;
  }

  explicit MachineFixture(Index self, blockdev::ResourceRecord record = pair_record(0),
                          ArbiterKind arbiter = ArbiterKind::etcd, bool may_have_lost_cache = false)
      : self_(self) {
    MembershipOptions options;
    options.arbiter = arbiter;
    if (arbiter == ArbiterKind::etcd) options.degraded_start_after = seconds(120);
    start(options, std::move(record), may_have_lost_cache);
  }
  MachineFixture(Index self, const MembershipOptions& options) : self_(self) { start(options, pair_record(0), false); }

  /// Time passes; the machine is woken each 20 ms, as Node does.
  void pass(Duration duration) {
    for (const Instant end = now + duration; now < end;) {
      now += std::min<Duration>(milliseconds(20), end - now);
      machine->tick(now);
      collect();
    }
  }
  /// As pass(), and the peer is heard all the time.
  void pass_hearing(Duration duration) {
    for (const Instant end = now + duration; now < end;) {
      pass(std::min<Duration>(milliseconds(100), end - now));
      hear();
    }
  }
  void hear() {
    machine->heartbeat_received(peer, now);
    collect();
  }
  /// The disk has done what it was asked for.
  void persist() {
    ASSERT_NE(persist_out, 0u);
    machine->persisted(std::exchange(persist_out, 0), now);
    collect();
  }
  void flush() {
    ASSERT_NE(flush_out, 0u);
    machine->flushed(std::exchange(flush_out, 0), true, now);
    collect();
  }
  void read_arbiter(std::uint64_t term, std::uint8_t members, Index primary) {
    ASSERT_NE(arbiter_out, 0u);
    ports::ArbiterRecord record;
    record.id = machine->record().pair_id;
    record.term = term;
    record.members = members;
    record.primary = primary;
    machine->arbiter_read(std::exchange(arbiter_out, 0), {5, record}, now);
    collect();
  }
  void replace(bool is_replaced) {
    ASSERT_NE(arbiter_out, 0u);
    machine->arbiter_replaced(std::exchange(arbiter_out, 0), is_replaced, now);
    collect();
  }
  void lose_connection() {
    machine->disconnected(now);
    collect();
  }

  /// Both are members of (2,{01},primary) over a live connection; what it took is not in the trace.
  void establish(Index primary) {
    hear();
    machine->connected({Meeting::Direction::equal, peer.configuration, peer.seen}, now);
    collect();
    if (primary == self_) {
      flush();
      persist();
      machine->proposal_acknowledged(2, now);
    } else {
      machine->proposal_received({2, 3, primary}, machine->record().generations, now);
    }
    collect();
    persist();
    peer.configuration = {2, 3, primary};
    peer.seen = 2;
    peer.is_connected = true;
    peer.is_serving = primary != self_;
    hear();
    ASSERT_TRUE(machine->is_established());
    trace.clear();
  }
  /// The peer echoes this node's newest stamp.
  void grant_lease() {
    pass(milliseconds(100));
    peer.echo = sent.stamp;
    hear();
  }
  /// The peer, primary, asks for a lease; this node has recorded how long.
  void give_promise() {
    peer.stamp = {77, machine->record().configuration, Instant(seconds(9)), 1000};
    hear();
    if (persist_out != 0) persist();
    pass(milliseconds(100));
    ASSERT_EQ(sent.echo, peer.stamp);
    trace.clear();
  }
  [[nodiscard]] bool may_answer() const { return machine->may_answer(now); }
  [[nodiscard]] Trace take() { return std::exchange(trace, {}); }

  static constexpr std::uint64_t kIncarnation = 42;
  Instant now{seconds(1000)};
  std::unique_ptr<MembershipMachine> machine;
  Heartbeat peer;  ///< what hear() says
  Heartbeat sent;  ///< the last one that left
  Trace trace;
  std::uint64_t persist_out = 0;
  std::uint64_t flush_out = 0;
  std::uint64_t arbiter_out = 0;

 private:
  void start(MembershipOptions options, blockdev::ResourceRecord record, bool may_have_lost_cache) {
    options.self = self_;
    peer.configuration = record.configuration;
    peer.seen = record.seen;
    peer.current = record.generations.current;
    machine = std::make_unique<MembershipMachine>(
        options, MembershipStart{std::move(record), kIncarnation, may_have_lost_cache}, now);
  }
  void collect() {
    for (const Effect& effect : machine->take_effects()) note(effect);
  }
  void note(const Effect& effect) {
    if (const auto* persist = std::get_if<PersistEffect>(&effect)) {
      persist_out = persist->number;
      const auto& record = persist->record;
      trace.push_back(fmt::format("persist {} seen {}{}", text(record.configuration), record.seen,
                                  record.is_outdated ? " Outdated" : ""));
    } else if (const auto* heartbeat = std::get_if<SendHeartbeatEffect>(&effect)) {
      sent = heartbeat->heartbeat;
    } else if (const auto* proposal = std::get_if<SendProposalEffect>(&effect)) {
      trace.push_back("propose " + text(proposal->configuration));
    } else if (const auto* ack = std::get_if<SendProposalAckEffect>(&effect)) {
      trace.push_back(fmt::format("acknowledge {}", ack->term));
    } else if (std::holds_alternative<EndConnectionEffect>(effect)) {
      trace.push_back("end connection");
    } else if (std::holds_alternative<EstablishedEffect>(effect)) {
      trace.push_back("established");
    } else if (std::holds_alternative<TargetReadyEffect>(effect)) {
      trace.push_back("target ready");
    } else if (std::holds_alternative<SourceReadyEffect>(effect)) {
      trace.push_back("source ready");
    } else if (const auto* drain = std::get_if<DrainAndFlushEffect>(&effect)) {
      flush_out = drain->number;
      trace.push_back("drain and flush both");
    } else if (const auto* flush = std::get_if<FlushOwnEffect>(&effect)) {
      flush_out = flush->number;
      trace.push_back("flush");
    } else if (const auto* read = std::get_if<ReadArbiterEffect>(&effect)) {
      arbiter_out = read->number;
      trace.push_back("read arbiter");
    } else if (const auto* replace = std::get_if<ReplaceRecordEffect>(&effect)) {
      arbiter_out = replace->number;
      trace.push_back(fmt::format("claim {}", replace->record.term));
    } else if (const auto* overwrite = std::get_if<OverwriteRecordEffect>(&effect)) {
      trace.push_back(fmt::format("overwrite arbiter {}", overwrite->record.term));
    } else if (const auto* probe = std::get_if<ProbeAddressesEffect>(&effect)) {
      arbiter_out = probe->number;
      trace.push_back("probe");
    } else if (const auto* service = std::get_if<ServiceEffect>(&effect)) {
      constexpr const char* kNames[] = {"stop", "close", "freeze", "serve"};
      trace.emplace_back(kNames[static_cast<int>(service->service)]);
    }
  }

  Index self_;
};

}  // namespace replblk::membership
