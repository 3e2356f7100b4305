// A node's status for people and for scripts made for DRBD: the grammar of `drbdadm status`, the keys of
// `drbdsetup status --json` with ours beside them, and the sentences that say why something is not normal.
// Pure functions; called by replblkctl. The texts end in a line feed.
#pragma once

#include <string>
#include <string_view>

#include "node/status.hpp"

namespace replblk::control {

struct StatusTextOptions {
  bool is_verbose = false;      ///< everything, also what is normal
  bool has_statistics = false;  ///< sizes (KiB) and counters
  bool is_terminal = false;     ///< DRBD leaves "client:" out of a Diskless line there
};

[[nodiscard]] std::string status_text(const node::Status& status, const StatusTextOptions& options);
/// Not part of DRBD's grammar, hence apart: one line per state that is not normal, "RESOURCE: ...". Empty when all is
/// well.
[[nodiscard]] std::string status_reasons(const node::Status& status);
/// "2026-11-25T22:40:48Z"; empty for 0.
[[nodiscard]] std::string calendar_text(std::uint64_t unix_ms);
[[nodiscard]] std::string status_json(const node::Status& status);

}  // namespace replblk::control
