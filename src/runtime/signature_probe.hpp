// Which foreign signatures (file systems, partition tables, RAID members …) a disk carries, by libblkid.
// Called by create-md, which refuses to overwrite them without --force. Reads only; not responsible for our own
// superblock, which libblkid does not know.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace replblk::runtime {

struct Signature {
  std::string type;  ///< "ext4", "LVM2_member", "gpt" …
  std::uint64_t offset_bytes = 0;
  friend bool operator==(const Signature&, const Signature&) = default;
};

/// All signatures, by libblkid's order; none for a blank disk. The error is one sentence for the operator.
[[nodiscard]] Result<std::vector<Signature>, std::string> probe_signatures(const std::string& path);
/// The same of an open descriptor, which needs no O_DIRECT alignment: it is read through /proc/self/fd.
[[nodiscard]] Result<std::vector<Signature>, std::string> probe_signatures(int fd);

}  // namespace replblk::runtime
