// The administrator's requests as the reactor sees them: plain structs that cross the mailbox between the control
// thread and Node. Each request is answered exactly once.
#pragma once

#include <cstdint>
#include <string>

#include "node/status.hpp"

namespace replblk::node {

enum class AdminVerb : std::uint8_t {
  status,
  primary,
  secondary,
  connect,
  disconnect,
  down,
  pause_sync,
  resume_sync,
  verify,
  invalidate,
  invalidate_remote,
  detach,
  attach,
  resize,
  switchover,
  standby,
  unstandby,
  maintenance_on,
  maintenance_off
};

struct AdminRequest {
  AdminVerb verb = AdminVerb::status;
  std::string resource;        ///< empty: all
  bool is_forced = false;      ///< primary --force
  bool discards_data = false;  ///< connect --discard-my-data
  // verify:
  std::uint64_t start_bytes = 0;
  std::uint64_t stop_bytes = UINT64_MAX;  ///< exclusive; beyond the end: to the end
  std::string repair_from = {};  ///< whose copy overwrites what differs: a node's name, local, peer; empty: none's
};

/// DRBD's exit codes: 0 done, 1 usage, 10 invalid configuration, 20 execution error; 11 refused in the present state.
enum class AdminOutcome : std::uint8_t { done = 0, usage = 1, refused = 11, failed = 20 };

struct AdminReply {
  AdminOutcome outcome = AdminOutcome::done;
  std::string message;  ///< one sentence per line; why, and what to do
  Status status;        ///< for AdminVerb::status
};

}  // namespace replblk::node
