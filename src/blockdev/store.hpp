// One volume's copy on this node: the data area and the metadata area of its backing device(s). Carries local requests
// (alignment, bounce buffers, durable writes, discard and zeroing with their fall-backs), keeps the record durable
// and owns the range lock, the dirty set and the activity log. Not responsible for what the record means, nor for the
// peer. Called by Mirror, PeerServer, Resync and the resource; one thread. Invariant: save() is done only when the
// record is durable in both superblocks; a failed metadata write is reported, never ignored; bits on disk and active
// extents together cover the dirty set in memory, but for the peer's bits during a resync, which are on the peer's
// disk, and for what a verify has just found, until Resource saves it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/uuid.hpp"
#include "blockdev/activity_log_writer.hpp"
#include "blockdev/block_request.hpp"
#include "blockdev/dirty_bitmap.hpp"
#include "blockdev/range_lock.hpp"
#include "blockdev/record.hpp"
#include "ports/world.hpp"

namespace replblk::blockdev {

struct StoreOptions {
  bool has_write_cache = true;        ///< write_cache: off → every change is durable before completion
  std::string resource_name;          ///< must match the superblock
  std::uint32_t volume = 0;           ///< volume number within the resource: must match the superblock
  std::uint32_t requests_max = 1024;  ///< in flight to the disk; more wait in order
  /// The default keeps no log of single extents: after a crash of whoever changes data every block is dirty.
  ActivityLog::Shape activity_log{63, 1};
};

/// Why a volume could not be opened: `sentence` says what was found, where, and what to do.
enum class StoreErrorKind : std::uint8_t {
  io,
  no_metadata,
  damaged,
  from_the_future,
  wrong_volume,
  shrunk,
  one_superblock
};
struct StoreError {
  StoreErrorKind kind = StoreErrorKind::io;
  std::string sentence;
};

/// What create-md lays down. All sizes in bytes.
struct CreateOptions {
  std::string resource_name;
  std::uint32_t volume = 0;
  Uuid volume_uuid;
  std::uint32_t logical_block_bytes = 512;  ///< what initiators see
  std::uint32_t bitmap_block_bytes = 0;     ///< 0: 4096, or more so that the bitmap stays below 128 MiB
  std::uint64_t size_bytes = 0;             ///< of the volume, a multiple of 4096; 0: all that there is room for
  ResourceRecord record;
};

class Store final : public BlockBackend {
 public:
  /// `metadata` is null for internal metadata. The disks outlive the store.
  Store(ports::World world, ports::Disk& data, ports::Disk* metadata, StoreOptions options);
  ~Store() override;

  /// Writes fresh metadata (superblocks, empty bitmap, closed activity log), durable. `done` gets the usable size.
  void create(const CreateOptions& options, Callback<void(Result<std::uint64_t, StoreError>)> done);
  /// Reads superblocks, bitmap and activity log. Serves nothing before. Extents that a crash left active become bits;
  /// when the log cannot be believed every block does. The data device is flushed first, and the bits are on disk and
  /// the log closed before `done` is called (protocol.md 5.3).
  /// StoreErrorKind::one_superblock: it is open, but one of the two has lost a write that was durable, so the record
  /// may not be the last that was saved; Resource decides what may be done by it.
  void open(Callback<void(Result<void, StoreError>)> done);
  [[nodiscard]] bool is_open() const noexcept;
  /// What open() found damaged and has made good, for people; empty: nothing.
  [[nodiscard]] const std::string& notice() const noexcept;

  [[nodiscard]] const VolumeGeometry& geometry() const noexcept override;
  [[nodiscard]] const Uuid& volume_uuid() const noexcept;
  [[nodiscard]] const ResourceRecord& record() const noexcept;  ///< as last saved or read
  [[nodiscard]] std::uint32_t bitmap_block_bytes() const noexcept;

  /// Makes the record durable in both superblocks (write, flush, write, flush; each write in turn so that one is always
  /// whole). Calls are served in order; a later call waits. On failure the volume's metadata is failed and stays so.
  void save(const ResourceRecord& record, Callback<void(Result<void, ports::IoError>)> done);
  /// Writes what was changed of the dirty set to the bitmap area, durable.
  void save_bitmap(Callback<void(Result<void, ports::IoError>)> done);
  /// Lets go of the activity log: waits until nothing is changed in it, flushes the data device, turns extents that
  /// some copy may not have flushed into bits, saves the dirty set, closes the log. If the data device cannot be
  /// flushed all but the last is done. Changes that are asked for meanwhile wait.
  void settle(Callback<void(Result<void, ports::IoError>)> done);
  /// Takes into account that the devices may have grown: how large the volume can become, in bytes. Metadata at the end
  /// of the data device moves to its new end; changes wait for that, as for settle(). The volume's size stays. A
  /// sentence: they did not grow to what the volume needs.
  void claim_room(Callback<void(Result<std::uint64_t, std::string>)> done);
  /// What lies between the volume's end and `size_bytes` (at most its room) reads back as zeroes, durably. In pieces,
  /// one at a time; stop_zeroing() ends it early, with an error.
  void zero_room(std::uint64_t size_bytes, Callback<void(Result<void, ports::IoError>)> done);
  void stop_zeroing() noexcept;
  /// The volume has `size_bytes` from when this is done, durably. `is_equal`: what is new is the same on both copies;
  /// otherwise its blocks are dirty. Not while anything is being copied or compared.
  void grow(std::uint64_t size_bytes, bool is_equal, Callback<void(Result<void, ports::IoError>)> done);
  /// How large the volume can become without claim_room(), in bytes.
  [[nodiscard]] std::uint64_t room_bytes() const noexcept;

  /// Told when a write of the activity log or of bits that it waits for has failed: the metadata is failed then.
  void set_failure_listener(Callback<void(ports::IoError)> on_failed) noexcept;

  /// Local read, write, flush, discard, write_zeroes. compare_and_write is Mirror's business: asserted away.
  /// The caller holds the range (RangeLock), so an unaligned edge can be read, modified and written here.
  /// Discard on a device without it, and zeroing, fall back to writing zeroes.
  void submit(BlockRequest& request) noexcept override;

  [[nodiscard]] RangeLock& ranges() noexcept;
  [[nodiscard]] DirtyBitmap& dirty() noexcept;
  /// Whoever changes data on more than one copy claims the extents first (protocol.md 4 step 2).
  [[nodiscard]] ActivityLogWriter& activity_log() noexcept;
  [[nodiscard]] std::uint32_t in_flight_count() const noexcept;

  struct Counters {
    std::uint64_t read_bytes = 0;
    std::uint64_t written_bytes = 0;
    std::uint64_t flushes = 0;
    std::uint64_t bounces = 0;
    std::uint64_t metadata_writes = 0;
    std::uint64_t bitmap_page_writes = 0;
    ActivityLog::Counters activity_log;
    std::uint64_t io_errors = 0;
    std::uint64_t operations = 0;  ///< on the data device that have ended
  };
  [[nodiscard]] const Counters& counters() const noexcept;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace replblk::blockdev
