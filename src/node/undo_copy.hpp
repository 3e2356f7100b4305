// Keeps what a copy holds in blocks that are about to be overwritten: one sparse file for each volume, with each kept
// block at its own place. For a copy that lost a split brain, before its resync begins. Not responsible for when, nor
// for the volumes: nobody writes to them meanwhile. One thread. Invariant: `done` comes once; without a failure every
// file is there for good, under its name.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/metadata_io.hpp"
#include "blockdev/store.hpp"
#include "ports/undo_files.hpp"

namespace replblk::node {

class UndoCopy {
 public:
  struct Source {
    ports::Disk* disk = nullptr;       ///< whose data begins at 0
    blockdev::Store* store = nullptr;  ///< whose dirty blocks are kept
    std::string path;                  ///< of the file
  };
  /// Empty: everything is kept. Else a sentence.
  using Done = std::function<void(std::string failure)>;

  /// `is_whole`: whatever is not zero is kept, since the dirty blocks do not tell all that will be overwritten. The
  /// disks and stores outlive this, and this what they have not given back.
  UndoCopy(ports::Loop& loop, ports::UndoFiles& files, std::vector<Source> sources, bool is_whole);
  UndoCopy(const UndoCopy&) = delete;
  UndoCopy& operator=(const UndoCopy&) = delete;
  ~UndoCopy();

  void start(Done done);
  /// Ends early, with a failure, when what is in flight has come back.
  void stop() noexcept { is_stopped_ = true; }
  [[nodiscard]] bool is_running() const noexcept { return done_ != nullptr; }
  /// What the file system of the files has not given back: this must stay.
  [[nodiscard]] std::size_t unreturned_count() const noexcept { return file_ ? file_->disk().unreturned_count() : 0; }
  [[nodiscard]] bool is_complete() const noexcept { return is_complete_; }
  [[nodiscard]] std::uint64_t kept_bytes() const noexcept { return kept_bytes_; }
  [[nodiscard]] std::uint64_t total_bytes() const noexcept { return total_bytes_; }

 private:
  using IoResult = Result<void, ports::IoError>;
  void begin_volume();
  void next();
  void on_op_done(ports::DiskOp& op, IoResult result);
  void proceed();
  void finish(std::string failure);

  ports::Loop& loop_;
  ports::UndoFiles& files_;
  std::vector<Source> sources_;
  bool is_whole_;
  bool is_stopped_ = false;
  bool is_complete_ = false;
  std::size_t volume_ = 0;
  std::uint64_t from_bytes_ = 0;
  std::unique_ptr<ports::UndoFile> file_;
  blockdev::AlignedMemory memory_;
  ports::DiskOp op_;
  IoResult result_;
  ports::DeferredTask proceed_task_;  ///< a file must not be closed from inside its own callback
  std::uint64_t kept_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
  Done done_;
};

}  // namespace replblk::node
