// The dirty set on disk (docs/ondisk_format.md 4): writes it whole and reads it back. What cannot be read for certain
// comes back as dirty, never as clean. Not responsible for when it counts: the record and the superblock say that.
// Called by Store, one thing at a time. Invariant: memory is constant, whatever the size of the volume.
#pragma once

#include <array>
#include <cstdint>

#include "blockdev/bitmap_table.hpp"
#include "blockdev/dirty_bitmap.hpp"
#include "blockdev/metadata_io.hpp"

namespace replblk::blockdev {

class BitmapArea {
 public:
  using Done = MetadataIo::Done;

  explicit BitmapArea(MetadataIo& io) : io_(io) {}

  /// Bits that are set while this runs may or may not be written. `dirty` null: an empty set (create-md). Ends with a
  /// flush.
  void save(const Layout& layout, std::uint64_t sequence, const DirtyBitmap* dirty, Done done);
  /// Sets in `dirty` what is stored, or might be. Never fails: see damaged_pages_count().
  void load(const Layout& layout, std::uint64_t sequence, DirtyBitmap& dirty, Done done);
  [[nodiscard]] std::uint64_t damaged_pages_count() const noexcept { return damaged_pages_count_; }

 private:
  static constexpr std::size_t kRunPagesMax = MetadataIo::kMemoryBytes / kPageBytes;

  [[nodiscard]] std::uint64_t pages_begin() const noexcept { return table_block_ * kBitmapTableEntries; }
  [[nodiscard]] std::uint64_t pages_end() const noexcept;
  [[nodiscard]] BitmapTableIdentity identity() const noexcept;
  [[nodiscard]] BitmapTableEntry& entry(std::uint64_t page) noexcept { return entries_[page - pages_begin()]; }
  [[nodiscard]] std::size_t next_run(std::size_t count_max) noexcept;
  void begin(const Layout& layout, std::uint64_t sequence, Done done) noexcept;
  void finish(Result<void, ports::IoError> result);

  void save_block();
  void save_pages();
  void on_pages_saved(Result<void, ports::IoError> result);
  void on_block_saved(Result<void, ports::IoError> result);

  void load_block();
  void on_block_loaded(Result<void, ports::IoError> result);
  void load_pages();
  void on_pages_loaded(Result<void, ports::IoError> result);
  void doubt_page(std::uint64_t page);

  MetadataIo& io_;
  Layout layout_;
  std::uint64_t sequence_ = 0;
  const DirtyBitmap* saved_ = nullptr;
  DirtyBitmap* loaded_ = nullptr;
  Done done_;
  std::uint64_t table_block_ = 0;
  std::uint64_t page_ = 0;     ///< the next one to look at
  std::size_t run_pages_ = 0;  ///< pages page_ … in flight
  std::size_t run_pages_max_ = kRunPagesMax;
  std::uint64_t damaged_pages_count_ = 0;
  std::array<BitmapTableEntry, kBitmapTableEntries> entries_;
};

}  // namespace replblk::blockdev
