// A sector of metadata that vouches for itself (docs/ondisk_format.md 2.1): 496 bytes of payload, the sequence of the
// write that it belongs to, its index, a checksum. Pure bytes. It tells the two kinds of damage apart: sectors that are
// each valid but of different writes were torn by a power cut, one that is not valid was lost by the medium. Used by
// the superblock and the activity log. Invariant: a sealed sector with any bit flipped is not sealed.
#pragma once

#include <cstdint>

#include "base/bytes.hpp"

namespace replblk::blockdev {

inline constexpr std::size_t kSectorBytes = 512;
inline constexpr std::size_t kSectorPayloadBytes = 496;

/// What is added to the index in the seal, so that a sector of one kind is not taken for one of another.
enum class SealKind : std::uint16_t { superblock = 0, activity_log = 256 };

/// Seals sector `index` of `sectors` (a slot, or a page), whose payload is in place.
void seal_sector(MutableBytes sectors, std::size_t index, SealKind kind, std::uint64_t sequence) noexcept;
[[nodiscard]] bool is_sealed(ConstBytes sectors, std::size_t index, SealKind kind) noexcept;
[[nodiscard]] std::uint64_t sector_sequence(ConstBytes sectors, std::size_t index) noexcept;

}  // namespace replblk::blockdev
