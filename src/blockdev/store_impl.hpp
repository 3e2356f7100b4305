// Inside of Store: what it is made of, and the order in which metadata work is done. Included by store*.cpp only.
// Metadata jobs (save, save_bitmap, settle, the bits of extents that leave the log) run one after the other in the
// order of asking; the first that fails fails all later ones. open() and create() run alone, before any job.
#pragma once

#include <deque>
#include <optional>

#include "blockdev/bitmap_area.hpp"
#include "blockdev/data_area.hpp"
#include "blockdev/store.hpp"
#include "blockdev/superblock_pair.hpp"

namespace replblk::blockdev {

class Store::Impl {
 public:
  using OpenDone = Callback<void(Result<void, StoreError>)>;
  using CreateDone = Callback<void(Result<std::uint64_t, StoreError>)>;
  using SaveDone = Callback<void(Result<void, ports::IoError>)>;

  Impl(ports::World world, ports::Disk& data, ports::Disk* metadata, StoreOptions options);
  ~Impl();

  // store_open.cpp
  void create(const CreateOptions& options, CreateDone done);
  void open(OpenDone done);

  // store.cpp
  void save(const ResourceRecord& record, SaveDone done);
  void save_bitmap(SaveDone done);
  void settle(SaveDone done);
  // store_growth.cpp
  using RoomDone = Callback<void(Result<std::uint64_t, std::string>)>;
  void claim_room(RoomDone done);
  void zero_room(std::uint64_t size_bytes, SaveDone done);
  void stop_zeroing() noexcept { is_zeroing_stopped_ = true; }
  void grow(std::uint64_t size_bytes, bool is_equal, SaveDone done);

  [[nodiscard]] const Counters& counters() const noexcept;
  [[nodiscard]] std::uint32_t in_flight_count() const noexcept;
  [[nodiscard]] const Superblock& superblock() const noexcept { return superblocks_.current(); }

  ports::World world;
  ports::Disk& data_disk;
  ports::Disk* metadata_disk;  ///< null: internal
  StoreOptions options;
  DataArea data;
  RangeLock ranges;
  std::optional<DirtyBitmap> dirty;
  ActivityLogWriter activity_log;
  Callback<void(ports::IoError)> on_failed;
  ResourceRecord record;
  VolumeGeometry geometry;
  bool is_open = false;
  std::string notice;

 private:
  struct Job {
    enum class Kind : std::uint8_t { save, save_bitmap, save_extents, settle, set_layout, grow };
    Kind kind = Kind::save;
    ResourceRecord record;
    SaveDone done;
    std::uint64_t size_bytes = 0;  ///< grow
    bool is_equal = false;         ///< likewise
  };
  using IoResult = Result<void, ports::IoError>;
  using IoDone = Callback<void(IoResult)>;

  void add_job(Job job);
  void run_next_job();
  void on_job_done(IoResult result);
  void fail_next_job();
  void fail_metadata(ports::IoError error);

  // The activity log's wishes.
  [[nodiscard]] bool are_saved(std::uint32_t extent);
  void save_extents(const std::vector<std::uint32_t>& extents);
  void on_extents_saved(IoResult result);
  [[nodiscard]] ByteRange extent_range(std::uint32_t extent, std::uint8_t shift) const noexcept;
  void begin_closing();
  void on_log_quiescent();
  void on_settle_flushed(IoResult result);
  void on_settle_saved(IoResult result);
  void on_settle_closed(IoResult result);

  void run_grow(const Job& job);
  void on_grown_bits_saved(IoResult result);
  void move_metadata();
  void on_moved_bits_saved(IoResult result);
  void on_moved_ring_written(IoResult result);
  void on_superblocks_moved(IoResult result);
  void on_metadata_moved(IoResult result);
  void on_room_claimed(IoResult result);
  void tell_room();
  void zero_next();
  void on_zeroed(BlockRequest& request);

  void flush_data(Callback<void(IoResult)> done) noexcept;
  void on_data_flushed(ports::DiskOp& op, IoResult result);

  void on_superblocks_read(IoResult result);
  [[nodiscard]] std::optional<StoreError> verdict_error() const;
  [[nodiscard]] std::optional<StoreError> check_devices() const;
  [[nodiscard]] std::optional<StoreError> check_identity();
  void on_made_durable(IoResult result);
  void add_notice(const std::string& sentence);
  void load_bitmap();
  void on_bitmap_loaded(IoResult result);
  void read_log();
  void on_log_read(IoResult result);
  void recover();
  void on_recovery_flushed(IoResult result);
  void on_recovered_bits_saved(IoResult result);
  void on_log_closed(IoResult result);
  void refuse_recovery(ports::IoError error);
  void finish_open();
  void refuse(StoreError error);
  void tell_refused();

  void on_wiped(IoResult result);
  void write_ring(const Layout& layout, const Uuid& volume, IoDone done);
  void on_ring_part_written(IoResult result);
  void on_ring_created(IoResult result);
  void on_bitmap_created(IoResult result);
  void on_created(IoResult result);
  void fail_create(ports::IoError error, std::string_view what);

  MetadataIo io_;
  SuperblockPair superblocks_;
  BitmapArea bitmap_;
  std::deque<Job> jobs_;
  bool is_job_running_ = false;
  std::optional<ports::IoError> failure_;
  ports::DeferredTask fail_task_;
  std::vector<std::uint64_t> cleaned_pages_;  ///< of the bitmap area: what the save_extents job writes
  std::deque<SaveDone> settling_;             ///< wait until the log is quiescent
  bool is_settle_flushed_ = false;
  ports::DiskOp flush_op_;  ///< of the data device
  IoDone flush_done_;

  std::optional<Layout> claimed_;  ///< claim_room(): what the metadata is to become; until it has
  RoomDone room_done_;
  std::string room_refusal_;
  ports::DeferredTask room_task_;
  SaveDone zeroed_;
  std::uint64_t zero_end_bytes_ = 0;
  BlockRequest zeroing_;
  bool is_zeroing_stopped_ = false;

  bool is_busy_opening_ = false;  ///< open() or create() under way
  OpenDone open_done_;
  CreateDone create_done_;
  Superblock created_;
  std::vector<std::byte> ring_;  ///< while it is read
  std::uint64_t ring_bytes_ = 0;
  Layout ring_layout_;
  Uuid ring_volume_;
  IoDone ring_done_;
  LogRecovery recovery_;
  std::optional<StoreError> refusal_;
  ports::DeferredTask refuse_task_;
  mutable Counters counters_;
};

}  // namespace replblk::blockdev
