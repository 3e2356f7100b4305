// CRC-32C (Castagnoli), as iSCSI digests (RFC 7143 13.1), replication frames and on-disk structures use it.
// Check value: crc32c("123456789") = 0xe3069283. Chained: crc32c(b, crc32c(a)) = crc32c(a then b).
#pragma once

#include <cstdint>

#include "base/bytes.hpp"

namespace replblk {

/// For payloads of any size (ISA-L, vectorised).
[[nodiscard]] std::uint32_t crc32c(ConstBytes bytes, std::uint32_t previous = 0) noexcept;

}  // namespace replblk
