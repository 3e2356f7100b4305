// The dirty set on disk (docs/ondisk_format.md 4): writes the pages that changed and reads all back. What cannot be
// read for certain comes back as dirty, never as clean. Not responsible for what else counts as dirty: the activity log
// says that. Called by Store, one thing at a time. Invariant: whatever stops a save, each sector comes back as it was
// before or as it is after it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "blockdev/dirty_bitmap.hpp"
#include "blockdev/layout.hpp"
#include "blockdev/metadata_io.hpp"

namespace replblk::blockdev {

class BitmapArea {
 public:
  using Done = MetadataIo::Done;

  /// `disk` is the one that `io` works on.
  BitmapArea(MetadataIo& io, ports::Disk& disk);
  ~BitmapArea();

  /// An empty set (create-md). Ends with a flush.
  void create(const Layout& layout, Done done);
  /// Sets in `dirty` what is stored, or might be; pages that are the same there and here count as saved. Never fails:
  /// see damaged_sectors_count().
  void load(const Layout& layout, DirtyBitmap& dirty, Done done);
  /// Every page that was changed since it was last saved. Bits that are set while this runs may or may not be written,
  /// and count as changed. Ends with a flush, also when nothing was to be written.
  void save(const Layout& layout, DirtyBitmap& dirty, Done done);
  /// Those among the changed pages that are in `pages` (ascending, none twice; alive until `done`).
  void save_pages(const Layout& layout, DirtyBitmap& dirty, const std::vector<std::uint64_t>& pages, Done done);

  [[nodiscard]] std::uint64_t damaged_sectors_count() const noexcept { return damaged_sectors_count_; }
  [[nodiscard]] std::uint64_t written_pages_count() const noexcept { return written_pages_count_; }
  [[nodiscard]] std::uint64_t errors_count() const noexcept { return errors_count_; }  ///< of these
  [[nodiscard]] std::uint64_t saves_count() const noexcept { return saves_count_; }    ///< write operations of saves

 private:
  static constexpr std::size_t kRunPagesMax = MetadataIo::kMemoryBytes / kPageBytes;
  /// Pages that are to be saved lie far apart when writes are random: one after the other they would make whoever needs
  /// a slot of the activity log wait for as many turns of the device.
  static constexpr std::size_t kLanesCount = 16;
  static constexpr std::size_t kLanePagesMax = 8;
  struct Lane {
    BitmapArea* area = nullptr;
    ports::DiskOp op;
    AlignedMemory memory;  ///< the kernel's while is_busy
    bool is_busy = false;
    void on_saved(ports::DiskOp& op, Result<void, ports::IoError> result);
  };

  void begin(const Layout& layout, Done done) noexcept;
  void finish(Result<void, ports::IoError> result);

  void create_run();
  void on_run_created(Result<void, ports::IoError> result);

  [[nodiscard]] std::uint64_t next_changed(std::uint64_t page) noexcept;
  void begin_save();
  void fill_lanes();
  void save_run(Lane& lane);
  void lane_saved(Lane& lane, Result<void, ports::IoError> result);

  void load_run();
  void on_run_loaded(Result<void, ports::IoError> result);
  void take_page(std::uint64_t page, ConstBytes bytes);
  void doubt_sector(std::uint64_t page, std::size_t sector);

  MetadataIo& io_;
  ports::Disk& disk_;
  Layout layout_;
  DirtyBitmap* dirty_ = nullptr;
  const std::vector<std::uint64_t>* wanted_pages_ = nullptr;  ///< null: all
  std::size_t wanted_index_ = 0;
  Done done_;
  std::uint64_t page_ = 0;     ///< the next one to look at
  std::size_t run_pages_ = 0;  ///< in flight
  std::size_t run_pages_max_ = kRunPagesMax;
  std::uint64_t damaged_sectors_count_ = 0;
  std::uint64_t written_pages_count_ = 0;
  std::array<Lane, kLanesCount> lanes_;
  std::size_t busy_count_ = 0;
  std::optional<ports::IoError> save_error_;
  std::vector<AlignedMemory> abandoned_;  ///< of writes that timed out: the kernel may still read it
  std::uint64_t saves_count_ = 0;
  std::uint64_t errors_count_ = 0;
};

}  // namespace replblk::blockdev
