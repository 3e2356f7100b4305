// Inside of Store: what it is made of, and the order in which metadata work is done. Included by store*.cpp only.
// Metadata jobs (save, save_bitmap) run one after the other in the order of asking; the first that fails fails all
// later ones. open() and create() run alone, before any job.
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
  ResourceRecord record;
  VolumeGeometry geometry;
  bool is_open = false;

 private:
  struct Job {
    enum class Kind : std::uint8_t { save, save_bitmap };
    Kind kind = Kind::save;
    ResourceRecord record;
    SaveDone done;
  };
  using IoResult = Result<void, ports::IoError>;

  void add_job(Job job);
  void run_next_job();
  void on_job_done(IoResult result);
  void fail_next_job();

  void on_superblocks_read(IoResult result);
  [[nodiscard]] std::optional<StoreError> verdict_error() const;
  [[nodiscard]] std::optional<StoreError> check_devices() const;
  [[nodiscard]] std::optional<StoreError> check_identity();
  void on_repaired(IoResult result);
  void load_bitmap();
  void on_bitmap_loaded(IoResult result);
  void finish_open();
  void refuse(StoreError error);
  void tell_refused();

  void on_wiped(IoResult result);
  void on_log_zeroed(IoResult result);
  void on_bitmap_created(IoResult result);
  void on_created(IoResult result);
  void fail_create(ports::IoError error, std::string_view what);

  MetadataIo io_;
  SuperblockPair superblocks_;
  BitmapArea bitmap_;
  std::uint64_t bitmap_sequence_ = 0;  ///< of the bitmap on disk, or of one that may be there in part
  std::deque<Job> jobs_;
  bool is_job_running_ = false;
  std::optional<ports::IoError> failure_;
  ports::DeferredTask fail_task_;

  bool is_busy_opening_ = false;  ///< open() or create() under way
  OpenDone open_done_;
  CreateDone create_done_;
  Superblock created_;
  std::uint64_t zeroed_bytes_ = 0;
  std::optional<StoreError> refusal_;
  ports::DeferredTask refuse_task_;
  mutable Counters counters_;
};

}  // namespace replblk::blockdev
