// Files that keep what is about to be overwritten, as a host has them: what is kept survives its daemons, what is not
// is gone with the one that wrote it. Some cannot be made, and some fail in the middle.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ports/undo_files.hpp"
#include "sim_loop.hpp"

namespace replblk::sim {

class SimUndoFiles final : public ports::UndoFiles {
 public:
  using Kept = std::map<std::string, std::vector<std::byte>>;

  SimUndoFiles(SimLoop& loop, Kept& kept) : loop_(loop), kept_(kept) {}
  [[nodiscard]] Result<std::unique_ptr<ports::UndoFile>, std::string> create(const std::string& path,
                                                                             std::uint64_t size_bytes) override;

 private:
  class File;
  SimLoop& loop_;
  Kept& kept_;
};

}  // namespace replblk::sim
