// Who this host is: its name (chooses the node in node.conf) and the identity of this boot (tells a crash from a
// restart of the daemon). Read once at start by main. Not responsible for DNS: the name is the kernel's own.
#pragma once

#include <string>

#include "base/result.hpp"
#include "base/uuid.hpp"

namespace replblk::runtime {

[[nodiscard]] std::string host_name();
/// /proc/sys/kernel/random/boot_id. The error is one sentence for the operator.
[[nodiscard]] Result<Uuid, std::string> read_boot_id();

}  // namespace replblk::runtime
