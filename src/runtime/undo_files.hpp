// ports::UndoFiles as sparse files, readable by root only, written through the page cache.
#pragma once

#include "ports/undo_files.hpp"
#include "runtime/reactor.hpp"

namespace replblk::runtime {

class SparseUndoFiles final : public ports::UndoFiles {
 public:
  explicit SparseUndoFiles(Reactor& reactor) : reactor_(reactor) {}
  /// The file is `path` with ".partial" behind it until it is kept; one that a killed daemon left is begun anew.
  [[nodiscard]] Result<std::unique_ptr<ports::UndoFile>, std::string> create(const std::string& path,
                                                                             std::uint64_t size_bytes) override;

 private:
  Reactor& reactor_;
};

}  // namespace replblk::runtime
