// Which reach probes (base/probe.hpp) the runs of this campaign have reached, counted over all its processes. Made
// once, before the first run.
#pragma once

#include <string>

namespace replblk::sim {

/// Memory that the processes of the runs share. Before any of them starts.
void share_probes();

/// How many probes were reached, and the names of those that never were.
[[nodiscard]] std::string describe_probes();

}  // namespace replblk::sim
