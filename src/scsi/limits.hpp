// What this target allows in one command: announced in VPD page B0 and enforced by the commands.
// Not responsible for enforcing. Used by the vital product data and the commands, so that both say the same.
// Invariant: the largest Data-Out of any command fits one pool buffer.
#pragma once

#include <cstdint>

#include "base/buffer_pool.hpp"
#include "blockdev/block_request.hpp"

namespace replblk::scsi {

[[nodiscard]] constexpr std::uint32_t transfer_blocks_max(const blockdev::VolumeGeometry& geometry) noexcept {
  return static_cast<std::uint32_t>(BufferPool::kBufferBytesMax / geometry.logical_block_bytes);
}
/// What one byte can say (VPD B0 byte 5): 2 × 255 blocks of 4 KiB still fit one buffer.
inline constexpr std::uint8_t kCompareAndWriteBlocksMax = 255;
static_assert(std::size_t{2} * kCompareAndWriteBlocksMax * 4096 <= BufferPool::kBufferBytesMax);
/// What WRITE SAME(10) can say, as LIO's block backstore announces. More would be welcome to mkfs, but libiscsi's tests
/// take a limit of 65536 blocks and more for a promise that WRITE(16) moves 32 MiB at once, which one buffer does not
/// hold.
inline constexpr std::uint32_t kWriteSameBlocksMax = 65535;
/// At most 1 Mi blocks in 256 descriptors: what one command unmaps is done well within any initiator's timeout.
inline constexpr std::uint32_t kUnmapBlocksMax = 1u << 20;
inline constexpr std::uint32_t kUnmapDescriptorsMax = 256;
/// One request of zeroing or discarding; between two of them a command can be aborted and others get their turn.
inline constexpr std::uint64_t kZeroPieceBytes = std::uint64_t{64} << 20;
/// One request of a pattern or of reading for comparison.
inline constexpr std::uint64_t kDataPieceBytes = std::uint64_t{1} << 20;
/// The size that we like best: one piece.
inline constexpr std::uint64_t kOptimalTransferBytes = kDataPieceBytes;

}  // namespace replblk::scsi
