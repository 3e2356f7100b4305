#include "control/create_md.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <memory>
#include <utility>

#include "blockdev/store.hpp"
#include "control/volume_identity.hpp"
#include "runtime/disk_file.hpp"
#include "runtime/reactor.hpp"
#include "runtime/signature_probe.hpp"
#include "runtime/system_random.hpp"
#include "runtime/tcp_network.hpp"

namespace replblk::control {

namespace {

using blockdev::StoreError;
using blockdev::StoreErrorKind;

constexpr std::size_t kBufferBytes = std::size_t{16} << 20;
// For the disk of a daemon that has just been stopped.
constexpr seconds kPatience{3};

/// What a Store lives on, for one short job.
class Bench {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Bench>, std::string> create() {
    auto bench = std::make_unique<Bench>();
    auto reactor =
        runtime::Reactor::create({.ring = {.submission_entries = 256, .completion_entries = 1024}, .buffers = nullptr});
    if (!reactor) return fail(reactor.error());
    bench->reactor_ = std::move(*reactor);
    bench->network_ = std::make_unique<runtime::TcpNetwork>(*bench->reactor_);
    return bench;
  }
  [[nodiscard]] runtime::Reactor& reactor() noexcept { return *reactor_; }
  [[nodiscard]] ports::World world() noexcept { return {*reactor_, random_, *network_, buffers_}; }

 private:
  BufferPool buffers_{kBufferBytes};
  runtime::SystemRandom random_;
  std::unique_ptr<runtime::Reactor> reactor_;
  std::unique_ptr<runtime::TcpNetwork> network_;
};

/// Turns the loop until a callback has come.
template <class T>
class Awaited {
 public:
  [[nodiscard]] Callback<void(T)> callback() noexcept { return Callback<void(T)>::template to<&Awaited::take>(*this); }
  [[nodiscard]] T wait(runtime::Reactor& reactor) {
    while (!value_) reactor.run_turn(seconds(1));
    return std::move(*value_);
  }

 private:
  void take(T value) { value_.emplace(std::move(value)); }
  std::optional<T> value_;
};

/// One volume's copy on this node, opened.
struct Copy {
  const node::ResourceConfig* resource = nullptr;
  const node::VolumeConfig* volume = nullptr;
  std::uint32_t number = 0;  ///< the volume's place in the resource, as Node counts
  const node::DiskConfig* config = nullptr;
  std::unique_ptr<runtime::DiskFile> data;
  std::unique_ptr<runtime::DiskFile> metadata;

  [[nodiscard]] std::string name() const {
    return fmt::format("{} volume {} on {}", resource->name, number, config->path);
  }
  [[nodiscard]] blockdev::Store make_store(Bench& bench) const {
    return {bench.world(),
            *data,
            metadata.get(),
            {.has_write_cache = volume->write_cache,
             .resource_name = resource->name,
             .volume = number,
             .requests_max = 64}};
  }
};

class Job {
 public:
  Job(const node::ClusterConfig& config, const CreateMdOptions& options, Bench& bench)
      : config_(config), options_(options), bench_(bench) {}

  CreateMdReport run() {
    for (const node::ResourceConfig& resource : config_.resources) {
      if (!options_.resource.empty() && resource.name != options_.resource) continue;
      for (std::uint32_t number = 0; number < resource.volumes.size(); ++number) add(resource, number);
    }
    check_options();
    if (report_.outcome == CreateMdOutcome::done) {
      for (const Copy& copy : copies_) inspect(copy);
    }
    if (report_.outcome == CreateMdOutcome::done) {
      for (const Copy& copy : copies_) make(copy);
    }
    return std::move(report_);
  }

 private:
  void check_options() {
    if (copies_.size() > 1 && options_.volume_uuid)
      refuse("--volume-uuid names one volume, but several would be made; name the resource");
    if (copies_.size() > 1 && options_.size_bytes != 0)
      refuse("--size is of one volume, but several would be made; name the resource");
    if (options_.size_bytes % blockdev::kPageBytes != 0)
      refuse(fmt::format("--size {}: not a multiple of {}", options_.size_bytes, blockdev::kPageBytes));
  }

  void refuse(std::string sentence) {
    if (report_.outcome == CreateMdOutcome::done) report_.outcome = CreateMdOutcome::refused;
    report_.problems.push_back(std::move(sentence));
  }
  void fail_with(std::string sentence) {
    report_.outcome = CreateMdOutcome::failed;
    report_.problems.push_back(std::move(sentence));
  }
  /// What --force may override.
  void object(const std::string& sentence) {
    if (options_.is_forced) {
      report_.problems.push_back(fmt::format("{}: overwritten, as --force says", sentence));
    } else {
      refuse(fmt::format("{}; nothing was written; --force makes metadata all the same", sentence));
    }
  }

  std::unique_ptr<runtime::DiskFile> open(const std::string& path, node::IoMode mode) {
    auto disk =
        runtime::open_disk_when_free({.path = path, .is_buffered = mode == node::IoMode::buffered, .in_flight_max = 64},
                                     bench_.reactor(), kPatience);
    if (disk) return std::move(*disk);
    fail_with(disk.error());
    return nullptr;
  }

  void add(const node::ResourceConfig& resource, std::uint32_t number) {
    const node::VolumeConfig& volume = resource.volumes[number];
    const node::DiskConfig& config = volume.disks[config_.self];
    Copy copy{.resource = &resource,
              .volume = &volume,
              .number = number,
              .config = &config,
              .data = open(config.path, config.io_mode),
              .metadata = nullptr};
    if (!config.metadata_path.empty()) copy.metadata = open(config.metadata_path, config.io_mode);
    copies_.push_back(std::move(copy));
  }

  void inspect(const Copy& copy) {
    const std::uint32_t device_block = copy.data->geometry().logical_block_bytes;
    if (device_block > copy.volume->logical_block_bytes) {
      refuse(
          fmt::format("{}: the device's blocks have {} bytes, the volume's {}; set logical_block_size: {} in node.conf",
                      copy.name(), device_block, copy.volume->logical_block_bytes, device_block));
    }
    const std::size_t problems_before = report_.problems.size();
    look_for_signatures(*copy.data, copy.config->path);
    if (copy.metadata) look_for_signatures(*copy.metadata, copy.config->metadata_path);
    if (report_.problems.size() == problems_before) look_for_volume(copy);
  }

  void look_for_signatures(const runtime::DiskFile& disk, const std::string& path) {
    const auto signatures = runtime::probe_signatures(disk.descriptor());
    if (!signatures) return fail_with(fmt::format("{}: {}", path, signatures.error()));
    for (const runtime::Signature& signature : *signatures) {
      object(fmt::format("{} holds something else: {} at byte {}", path, signature.type, signature.offset_bytes));
    }
  }

  void look_for_volume(const Copy& copy) {
    blockdev::Store store = copy.make_store(bench_);
    Awaited<Result<void, StoreError>> opened;
    store.open(opened.callback());
    const Result<void, StoreError> result = opened.wait(bench_.reactor());
    if (result) {
      return object(fmt::format("{} holds a replblk volume already, {}", copy.name(), to_string(store.volume_uuid())));
    }
    switch (result.error().kind) {
      case StoreErrorKind::no_metadata:
        return;
      case StoreErrorKind::io:
        return fail_with(fmt::format("{}: {}", copy.name(), result.error().sentence));
      case StoreErrorKind::damaged:
      case StoreErrorKind::from_the_future:
      case StoreErrorKind::wrong_volume:
      case StoreErrorKind::shrunk:
      case StoreErrorKind::one_superblock:
        return object(fmt::format("{} holds metadata of a replblk volume: {}", copy.name(), result.error().sentence));
    }
    RB_UNREACHABLE();
  }

  void make(const Copy& copy) {
    const Uuid uuid = options_.volume_uuid ? *options_.volume_uuid
                      : config_.is_pair()  ? derive_volume_uuid(config_, *copy.resource, copy.volume->lun)
                                           : random_volume_uuid();
    blockdev::Store store = copy.make_store(bench_);
    Awaited<Result<std::uint64_t, StoreError>> created;
    // The record's defaults say "just created": configuration of term 0 without members, no generations.
    store.create({.resource_name = copy.resource->name,
                  .volume = copy.number,
                  .volume_uuid = uuid,
                  .logical_block_bytes = copy.volume->logical_block_bytes,
                  .bitmap_block_bytes = 0,
                  .size_bytes = options_.size_bytes,
                  .record = {}},
                 created.callback());
    const Result<std::uint64_t, StoreError> result = created.wait(bench_.reactor());
    if (!result) return fail_with(fmt::format("{}: {}", copy.name(), result.error().sentence));
    report_.made.push_back(
        fmt::format("{}: {} of {} bytes ({:.1f} MiB) for initiators, metadata {}, identity {}", copy.name(), *result,
                    copy.data->geometry().size_bytes, static_cast<double>(*result) / (1024.0 * 1024.0),
                    copy.metadata ? "on " + copy.config->metadata_path : "internal", to_string(uuid)));
    advise(copy, *result);
  }

  /// What bench/README.md measures: a durable write to a file waits until the blocks that other writes have just been
  /// given in it are in the file system's journal, and each change of the set of extents in work is such a write.
  void advise(const Copy& copy, std::uint64_t usable_bytes) {
    const node::ActivityLogConfig& log = copy.resource->activity_log;
    const bool has_room_for_all = usable_bytes >> log.extent_shift <= log.extents;
    struct stat status = {};
    if (copy.metadata || !log.updates || has_room_for_all || ::fstat(copy.data->descriptor(), &status) < 0) return;
    constexpr std::int64_t kStatBlockBytes = 512;
    if (!S_ISREG(status.st_mode) || status.st_blocks * kStatBlockBytes >= status.st_size / 2) return;
    const auto external = blockdev::plan_layout({.placement = blockdev::Placement::external,
                                                 .data_device_bytes = copy.data->geometry().size_bytes,
                                                 .metadata_device_bytes = UINT64_MAX});
    report_.made.push_back(fmt::format(
        "{}: the metadata is at the end of a sparse file: random writes over all of it take about half as long again. "
        "A metadata_path (a file of its own, {} bytes or more), or a file that is allocated (`fallocate`), avoids that",
        copy.name(), external ? external->metadata_end_bytes : 0));
  }

  const node::ClusterConfig& config_;
  const CreateMdOptions& options_;
  Bench& bench_;
  std::vector<Copy> copies_;
  CreateMdReport report_;
};

}  // namespace

CreateMdReport create_metadata(const node::ClusterConfig& config, const CreateMdOptions& options) {
  auto bench = Bench::create();
  if (!bench) return {.outcome = CreateMdOutcome::failed, .made = {}, .problems = {bench.error()}};
  return Job(config, options, **bench).run();
}

}  // namespace replblk::control
