// replblkctl create-md: lays fresh metadata on this node's copies of a resource's volumes, offline, with a reactor of
// its own. Looks at everything first and refuses before anything is written: devices in use, foreign signatures,
// volumes of ours. Not responsible for the format (blockdev::Store) nor for the lock that keeps a daemon away (the
// caller holds it).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/uuid.hpp"
#include "node/config.hpp"

namespace replblk::control {

struct CreateMdOptions {
  std::string resource;  ///< empty: all
  bool is_forced = false;
  std::optional<Uuid> volume_uuid;  ///< only when exactly one volume is made
  std::uint64_t size_bytes = 0;     ///< likewise; of the volume, a multiple of 4096; 0: all that there is room for
};

enum class CreateMdOutcome : std::uint8_t { done, refused, failed };

struct CreateMdReport {
  CreateMdOutcome outcome = CreateMdOutcome::done;
  std::vector<std::string> made;      ///< one line per volume
  std::vector<std::string> problems;  ///< one sentence each; also what --force overrode
};

[[nodiscard]] CreateMdReport create_metadata(const node::ClusterConfig& config, const CreateMdOptions& options);

}  // namespace replblk::control
