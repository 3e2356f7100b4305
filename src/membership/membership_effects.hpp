// What the MembershipMachine wants done, as data. Who owns the machine carries the effects out in their order and tells
// it what came of those that have a number.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "blockdev/record.hpp"
#include "membership/heartbeat.hpp"
#include "ports/arbiter.hpp"

namespace replblk::membership {

/// Make what membership decides of the record (with_decision()) durable on every volume, then persisted(number); if
/// that fails on one of them, metadata_failed() instead: the number is never answered. One is out at a time.
struct PersistEffect {
  std::uint64_t number = 0;
  blockdev::ResourceRecord record;
};
/// Over every path and inside the connection. May be lost.
struct SendHeartbeatEffect {
  Heartbeat heartbeat;
};
/// Over the connection, in order, after everything that was sent before.
struct SendProposalEffect {
  blockdev::Configuration configuration;
  blockdev::GenerationSet generations;
};
struct SendProposalAckEffect {
  std::uint64_t term = 0;
};
/// The connection is over at this end; every unacknowledged and unstable block becomes dirty. No disconnected()
/// follows.
struct EndConnectionEffect {
  std::string reason;
};
/// The connection is under a configuration of two members now: writes are mirrored.
struct EstablishedEffect {
  std::uint64_t term = 0;
};
/// The target's record is durable: blocks may come.
struct TargetReadyEffect {};
/// The source is the only member, durably: the resync may begin.
struct SourceReadyEffect {};
/// Admit nothing new; when every frame is acknowledged flush both copies; then flushed(number, …).
struct DrainAndFlushEffect {
  std::uint64_t number = 0;
};
/// When no write of the peer's or the initiators' is in flight, flush the own copy; then flushed(number, …).
struct FlushOwnEffect {
  std::uint64_t number = 0;
};
struct ReadArbiterEffect {
  std::uint64_t number = 0;
};
struct ReplaceRecordEffect {
  std::uint64_t number = 0;
  std::uint64_t revision = 0;
  ports::ArbiterRecord record;
};
/// A person forced this node, durably: Arbiter::overwrite(), then arbiter_overwritten(number) or arbiter_failed(number,
/// …).
struct OverwriteRecordEffect {
  std::uint64_t number = 0;
  ports::ArbiterRecord record;
};
struct ProbeAddressesEffect {
  std::uint64_t number = 0;
};
/// What initiators find. serving: answered. frozen: held, and nothing new is admitted. closed: held, but the peer may
/// serve by now without this node hearing of it: their connections are reset and logins are refused, so that they look
/// there. stopped: likewise, and nothing is held any more. The virtual IP is held while serving, and only then.
enum class Service : std::uint8_t { stopped, closed, frozen, serving };
struct ServiceEffect {
  Service service = Service::stopped;
};

using Effect =
    std::variant<PersistEffect, SendHeartbeatEffect, SendProposalEffect, SendProposalAckEffect, EndConnectionEffect,
                 EstablishedEffect, TargetReadyEffect, SourceReadyEffect, DrainAndFlushEffect, FlushOwnEffect,
                 ReadArbiterEffect, ReplaceRecordEffect, OverwriteRecordEffect, ProbeAddressesEffect, ServiceEffect>;
using Effects = std::vector<Effect>;

}  // namespace replblk::membership
