// Both superblocks of a volume on their device (docs/ondisk_format.md 2.3, 2.4): reads and judges them, and replaces
// them one after the other. Not responsible for the record inside, nor for queueing: Store calls one thing at a time.
// Invariant: while a copy is being written the other is whole on the disk, and `done` comes only after both are
// durable.
#pragma once

#include <array>
#include <cstdint>

#include "blockdev/metadata_io.hpp"
#include "blockdev/superblock.hpp"

namespace replblk::blockdev {

class SuperblockPair {
 public:
  using Done = MetadataIo::Done;

  SuperblockPair(MetadataIo& io, Placement placement);

  /// False: the device is too small to have superblocks.
  [[nodiscard]] bool has_room() const noexcept {
    return superblock_offsets(placement_, io_.device_bytes()).has_value();
  }
  [[nodiscard]] std::uint64_t offset_bytes(std::uint8_t copy) const noexcept;

  /// Reads and judges both. Never fails: errors stand in the verdict. Internal ones that are not at the device's end
  /// are looked for where it may have ended before it grew (former_size()).
  void read(Done done);
  [[nodiscard]] const SuperblockVerdict& verdict() const noexcept { return verdict_; }
  [[nodiscard]] const std::array<SuperblockCopy, 2>& copies() const noexcept { return copies_; }

  /// The one that counts; after read() with kind good or one_only, or after a write.
  [[nodiscard]] const Superblock& current() const noexcept { return current_; }
  /// What was read may be in the device's cache only: flushes it, and then writes the copy that does not count again
  /// when the verdict says that it needs it. To be called after a verdict `good`, before anything is done by it; after
  /// `one_only` the next write() does it, when somebody has decided to go on with this volume.
  void make_durable(Done done);
  /// Overwrites both slots with zeroes, durably: whatever was there before is no volume any more.
  void wipe(Done done);
  /// First superblocks of a new volume: all sectors of both slots, sequence 1.
  void write_first(Superblock superblock, Done done);
  /// Replaces the current one; the sequence is set here.
  void write(Superblock superblock, Done done);
  /// Likewise, at the end that the device has now (internal), at least two slots beyond the former one; afterwards
  /// nothing is left of those there.
  void move(Superblock superblock, Done done);

 private:
  struct Step {
    std::uint8_t copy = 0;
    bool is_next = false;  ///< of next_, else of current_
  };

  void on_copy_read(Result<void, ports::IoError> result);
  void add_step(Step step) noexcept { steps_[steps_count_++] = step; }
  void begin();
  void on_chosen_flushed(Result<void, ports::IoError> result);
  void run_step();
  void on_copy_written(Result<void, ports::IoError> result);
  void on_copy_flushed(Result<void, ports::IoError> result);
  void finish(Result<void, ports::IoError> result);
  void on_wiped(Result<void, ports::IoError> result);
  void read_copies();
  void finish_read();
  void search();
  void on_probed(Result<void, ports::IoError> result);
  void on_moved(Result<void, ports::IoError> result);

  MetadataIo& io_;
  Placement placement_;
  std::uint64_t device_bytes_ = 0;         ///< at whose end they are; the device may have grown since
  std::uint64_t former_device_bytes_ = 0;  ///< move(): where they were
  std::array<SuperblockCopy, 2> copies_;
  std::array<SuperblockCopy, 2> found_at_end_;  ///< while former places are searched
  std::uint8_t reading_ = 0;
  SuperblockVerdict verdict_;
  Superblock current_;
  Superblock next_;
  bool is_whole_slot_ = false;     ///< write_first: seal the slots to their ends
  bool is_repair_needed_ = false;  ///< the copy that is not verdict_.chosen is not whole
  bool is_durable_ = false;        ///< both copies, surely, but for a step under way
  std::array<Step, 3> steps_;
  std::size_t steps_count_ = 0;
  std::size_t step_ = 0;
  Done done_;
  Done moved_;
};

}  // namespace replblk::blockdev
