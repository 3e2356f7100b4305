// Reads node.conf (protobuf text format; the schema with all rules in words is proto/config.proto) and checks it whole:
// either a ClusterConfig with every default filled in, or every error in it, one sentence each:
//   node.conf:12:5: resource[0].volume[1].lun: 0 is used twice; each LUN of a resource must be unique
// Called by main and replblkctl at start. Not responsible for what must be opened to be known (devices, ports).
// Invariant: a ClusterConfig that comes from here breaks no rule of the schema.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "node/config.hpp"

namespace replblk::node {

struct LoadOptions {
  std::string path;
  std::string node_name;  ///< --node; empty: the node is chosen by host_name
  std::string host_name;  ///< with or without its domain
};

[[nodiscard]] Result<ClusterConfig, std::vector<std::string>> load_config(const LoadOptions& options);
/// The same for a text that has been read already; `options.path` is what the messages call it.
[[nodiscard]] Result<ClusterConfig, std::vector<std::string>> parse_config(std::string_view text,
                                                                           const LoadOptions& options);

/// What must be equal on both nodes, in a fixed order: see ClusterConfig::shared_fields.
[[nodiscard]] std::vector<std::string> make_shared_fields(const ClusterConfig& config);

}  // namespace replblk::node
