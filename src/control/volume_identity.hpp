// The identity of a volume as create-md chooses it. Both nodes of a pair must lay down the same one, since initiators
// know the disk by it (NAA, serial), and they make their metadata without talking to each other: so it is derived
// from what they share. A cluster of one has nobody to agree with and gets a random one.
#pragma once

#include <cstdint>

#include "base/uuid.hpp"
#include "node/config.hpp"

namespace replblk::control {

/// The same on both nodes of a pair. Asserts that there is a secret: without it, equal names in two places would make
/// equal disks.
[[nodiscard]] Uuid derive_volume_uuid(const node::ClusterConfig& config, const node::ResourceConfig& resource,
                                      std::uint16_t lun);
[[nodiscard]] Uuid random_volume_uuid();

}  // namespace replblk::control
