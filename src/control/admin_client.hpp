// replblkctl's side of the admin socket: one request, one reply, with a time limit. Blocking.
#pragma once

#include <string>

#include "base/result.hpp"
#include "base/time.hpp"
#include "node/admin.hpp"

namespace replblk::control {

/// The error is one sentence for the operator: the daemon does not run, which socket, what to do.
[[nodiscard]] Result<node::AdminReply, std::string> ask_daemon(const std::string& socket_path,
                                                               const node::AdminRequest& request, Duration timeout);

}  // namespace replblk::control
