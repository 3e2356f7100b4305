// Files that keep what is about to be overwritten in a copy that lost a split brain. Implemented by runtime (sparse
// files) and by the simulator. Not responsible for what is kept: the node says it. Invariant: a file is under its name
// only when keep() has said so; until then it is gone with whoever was writing it.
#pragma once

#include <memory>
#include <string>

#include "ports/disk.hpp"

namespace replblk::ports {

class UndoFile {
 public:
  virtual ~UndoFile() = default;
  /// As large as the volume, all zero, with no room taken. Nothing is in flight when this is destroyed, but for what it
  /// has not given back (Disk::unreturned_count), which is waited for.
  [[nodiscard]] virtual Disk& disk() noexcept = 0;
  /// What was flushed is there for good, under its name. The error is a sentence.
  [[nodiscard]] virtual Result<void, std::string> keep() = 0;
};

class UndoFiles {
 public:
  virtual ~UndoFiles() = default;
  /// `path` is absolute; a file of that name is replaced by keep(). The error is a sentence.
  [[nodiscard]] virtual Result<std::unique_ptr<UndoFile>, std::string> create(const std::string& path,
                                                                              std::uint64_t size_bytes) = 0;
};

}  // namespace replblk::ports
