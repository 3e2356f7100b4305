#include "sim_host.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "blockdev/record_codec.hpp"
#include "blockdev/store.hpp"
#include "blockdev/superblock.hpp"
#include "membership/transitions.hpp"

#if defined(__SANITIZE_ADDRESS__)
/// Killed nodes are left lying on purpose (sim_host.hpp).
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace replblk::sim {

namespace {

constexpr std::uint64_t kExternalMetadataBytes = 2 << 20;
constexpr std::uint64_t kMetadataBytesMax = 2 << 20;

ports::Disk::Geometry geometry_of(const RunOptions& options) {
  ports::Disk::Geometry geometry;
  geometry.size_bytes = options.volume_bytes;
  geometry.logical_block_bytes = options.logical_block_bytes;
  geometry.alignment_bytes = options.alignment_bytes;
  geometry.supports_discard = options.supports_discard;
  geometry.supports_write_zeroes = options.supports_write_zeroes;
  return geometry;
}

/// "a", and "a.1" for a second volume.
std::string medium_name(blockdev::NodeIndex index, std::size_t volume) {
  return volume == 0 ? kNodeName[index] : fmt::format("{}.{}", kNodeName[index], volume);
}

std::unique_ptr<Medium> make_metadata_medium(Timeline& timeline, const RunOptions& options, const std::string& name) {
  ports::Disk::Geometry geometry = geometry_of(options);
  geometry.size_bytes = kExternalMetadataBytes;
  return std::make_unique<Medium>(timeline, name + ".meta", geometry);
}

blockdev::StoreOptions store_options(const RunOptions& options, std::size_t volume) {
  blockdev::StoreOptions store;
  store.has_write_cache = options.has_write_cache;
  store.resource_name = "r0";
  store.volume = static_cast<std::uint32_t>(volume);
  if (options.activity_log.updates)
    store.activity_log = {options.activity_log.extent_shift, options.activity_log.extents};
  return store;
}

/// A world of its own with instant disks, to run one Store operation to its end outside of the run's time.
struct Aside {
  Aside(const Medium& data, const Medium* metadata, bool is_stable_only)
      : data_medium(timeline, "aside", data.geometry()), network_model(), fabric(timeline, network_model) {
    copy(data_medium, data, is_stable_only);
    if (metadata != nullptr) {
      metadata_medium = std::make_unique<Medium>(timeline, "aside.meta", metadata->geometry());
      copy(*metadata_medium, *metadata, is_stable_only);
      metadata_disk = std::make_unique<SimDisk>(*metadata_medium, loop, model);
    }
  }
  /// The metadata only: internal, it is at the end. Whole devices would be most of what a run costs.
  static void copy(Medium& to, const Medium& from, bool is_stable_only) {
    const std::uint64_t size = from.geometry().size_bytes;
    // After the device grew it may still be where it was.
    const std::uint64_t begin = size == from.first_bytes() ? size - std::min(size, kMetadataBytesMax) : 0;
    to.preset(from, begin, is_stable_only);
  }
  template <class Condition>
  void run(Condition is_done) {
    while (!is_done() && timeline.step()) {
    }
    RB_ASSERT(is_done());
  }
  Timeline timeline{1};
  SimLoop loop{timeline, "aside"};
  DiskModel model;
  Medium data_medium;
  std::unique_ptr<Medium> metadata_medium;
  NetworkModel network_model;
  SimFabric fabric;
  SimNetwork network{fabric, loop, "aside"};
  BufferPool buffers{8 << 20};
  SimDisk data_disk{data_medium, loop, model};
  std::unique_ptr<SimDisk> metadata_disk;
  ports::World world{loop, timeline.random(), network, buffers};
};

}  // namespace

node::ClusterConfig make_cluster_config(const RunOptions& options, blockdev::NodeIndex self) {
  node::ClusterConfig config;
  config.name = "sim";
  for (int index = 0; index < 2; ++index) config.nodes.push_back({kNodeName[index], kNodeAddress[index]});
  config.secret = "a secret of the simulation";
  config.buffer_memory_mib = options.buffer_memory_mib;
  node::ResourceConfig resource;
  resource.name = "r0";
  resource.target.iqn = kTargetName;
  resource.target.peer_portal_addresses.push_back(kNodeAddress[1 - self]);
  for (std::uint16_t number = 0; number < options.volumes_count; ++number) {
    node::VolumeConfig volume;
    volume.lun = number;
    for (blockdev::NodeIndex index = 0; index < 2; ++index) {
      volume.disks[index].stall_timeout = options.disk_stall_timeout;
      volume.disks[index].path = "/dev/" + medium_name(index, number);
      if (options.has_external_metadata) volume.disks[index].metadata_path = volume.disks[index].path + ".meta";
    }
    volume.write_cache = options.has_write_cache;
    volume.logical_block_bytes = options.logical_block_bytes;
    resource.volumes.push_back(volume);
  }
  resource.after_split_brain = options.split_policies;
  resource.resync.rate_max_bytes_per_second = options.rate_max_bytes_per_second;
  resource.activity_log = options.activity_log;
  resource.resync.checksum = options.checksum;
  if (options.has_undo) resource.undo_directory = "/undo";
  if (options.has_handlers) resource.handlers.commands.fill("a person's");
  config.resources.push_back(resource);
  config.self = self;
  config.shared_fields = {fmt::format("resource[0].volume[0].write_cache={}", options.has_write_cache)};
  return config;
}

SimHost::Process::Process(SimFabric& fabric, SimHost& host)
    : loop(fabric.timeline(), kNodeName[host.index_], host.options_.clock_rate[host.index_]),
      network(fabric, loop, host.address_),
      datagrams(fabric, loop),
      handlers(loop, host.may_handlers_refuse_, host.told_),
      undo_files(loop, host.undo_files_),
      buffers(std::make_unique<BufferPool>(std::size_t{host.options_.buffer_memory_mib} << 20)) {
  for (Medium& medium : host.data_) data.emplace_back(medium, loop, host.options_.disk);
  for (const auto& medium : host.metadata_) metadata.emplace_back(*medium, loop, host.options_.disk);
}

void SimHost::SimHandlers::run(ports::HandlerCall call, Done done) {
  told_.push_back(call.name);
  Timeline& timeline = loop_.timeline();
  Seeded& random = timeline.random();
  const int exit_code = !may_refuse_ || random.chance(0.9) ? 0 : random.chance(0.5) ? 1 : kNoAnswer;
  timeline.note("{}: handler {} will answer {}", loop_.name(), call.name, exit_code);
  const Duration delay = exit_code == kNoAnswer ? call.timeout : random.duration(milliseconds(1), seconds(3));
  // A dead process hears nothing any more.
  timeline.after(delay, [this, lives = std::weak_ptr<bool>(exists_), exit_code, done = std::move(done)]() mutable {
    if (lives.expired() || !loop_.is_alive()) return;
    loop_.post([exit_code, done = std::move(done)] {
      if (done) done(exit_code);
    });
  });
}

SimHost::SimHost(SimFabric& fabric, const RunOptions& options, blockdev::NodeIndex index)
    : fabric_(fabric), options_(options), index_(index), address_(kNodeAddress[index]) {
  for (std::size_t volume = 0; volume < options.volumes_count; ++volume) {
    const std::string name = medium_name(index, volume);
    data_.emplace_back(fabric.timeline(), name, geometry_of(options), options.growth_bytes);
    if (options.has_external_metadata) metadata_.push_back(make_metadata_medium(fabric.timeline(), options, name));
  }
  fabric.timeline().random().fill(boot_id_.bytes);
}

SimHost::~SimHost() {
  if (process_ != nullptr) leave(false);
}

std::uint64_t SimHost::create_metadata(const Uuid& uuid, const blockdev::ResourceRecord& record, std::size_t volume) {
  Medium& data = data_[volume];
  Aside aside(data, metadata_medium(volume), false);
  blockdev::CreateOptions create;
  create.resource_name = "r0";
  create.volume = static_cast<std::uint32_t>(volume);
  create.volume_uuid = uuid;
  create.record = record;
  create.logical_block_bytes = options_.logical_block_bytes;
  std::optional<Result<std::uint64_t, blockdev::StoreError>> outcome;
  {
    blockdev::Store store(aside.world, aside.data_disk, aside.metadata_disk.get(), store_options(options_, volume));
    aside.loop.post([&] {
      store.create(create, Callback<void(Result<std::uint64_t, blockdev::StoreError>)>::with(
                               &outcome, [](void* into, Result<std::uint64_t, blockdev::StoreError> result) {
                                 *static_cast<decltype(outcome)*>(into) = std::move(result);
                               }));
    });
    aside.run([&] { return outcome.has_value(); });
  }
  RB_ASSERT(outcome->has_value());
  if (metadata_.empty()) {
    data.preset(aside.data_medium, data.geometry().size_bytes - kMetadataBytesMax, false);
  } else {
    metadata(volume).preset(*aside.metadata_medium, 0, false);
  }
  return **outcome;
}

PersistedRecord SimHost::persisted_with_bits(bool is_stable_only, std::size_t volume) const {
  Aside aside(data_[volume], metadata_medium(volume), is_stable_only);
  std::optional<Result<void, blockdev::StoreError>> outcome;
  blockdev::Store store(aside.world, aside.data_disk, aside.metadata_disk.get(), store_options(options_, volume));
  aside.loop.post([&] {
    store.open(Callback<void(Result<void, blockdev::StoreError>)>::with(
        &outcome, [](void* into, Result<void, blockdev::StoreError> result) {
          *static_cast<decltype(outcome)*>(into) = std::move(result);
        }));
  });
  aside.run([&] { return outcome.has_value(); });
  RB_ASSERT(store.is_open());  // A superblock written in turn is always whole.
  return {store.record(), std::move(store.dirty())};
}

blockdev::Superblock SimHost::superblock(bool is_stable_only, std::size_t volume) const {
  const Medium& medium = metadata_.empty() ? data_[volume] : *metadata_[volume];
  const std::byte* bytes = is_stable_only ? medium.stable() : medium.content();
  const auto placement = metadata_.empty() ? blockdev::Placement::internal : blockdev::Placement::external;
  // Where the device ends, or ended before it grew.
  for (const std::uint64_t device_bytes : {medium.geometry().size_bytes, medium.first_bytes()}) {
    const auto offsets = blockdev::superblock_offsets(placement, device_bytes);
    RB_ASSERT(offsets.has_value());
    std::array<blockdev::SuperblockCopy, 2> copies;
    for (std::uint8_t copy = 0; copy < 2; ++copy)
      copies[copy] = blockdev::decode_superblock({bytes + (*offsets)[copy], blockdev::kSuperblockSlotBytes}, copy);
    const blockdev::SuperblockVerdict verdict = blockdev::judge_superblocks(copies);
    using Kind = blockdev::SuperblockVerdict::Kind;
    if (verdict.kind == Kind::good || verdict.kind == Kind::one_only) return copies[verdict.chosen].superblock;
  }
  RB_UNREACHABLE();  // Written in turn, one is always whole.
}

void SimHost::grow_devices(std::size_t volume) {
  data_[volume].grow();
  fabric_.timeline().note("{}: the device of volume {} has {} KiB now", kNodeName[index_], volume,
                          data_[volume].geometry().size_bytes >> 10);
}

blockdev::ResourceRecord SimHost::persisted(bool is_stable_only) const {
  std::vector<blockdev::ResourceRecord> records;
  for (std::size_t volume = 0; volume < data_.size(); ++volume) {
    const auto named = blockdev::decode_record(superblock(is_stable_only, volume).record);
    RB_ASSERT(named.has_value());
    records.push_back(named->record);
  }
  return membership::record_of_all(records);
}

void SimHost::spoil_activity_log() {
  const std::vector<std::byte> garbage(blockdev::kActivityLogBytes, std::byte{0xff});
  metadata().preset(superblock(false, 0).layout.activity_log_offset_bytes, garbage);
}

std::vector<node::VolumeDisks> SimHost::open(std::size_t) {
  std::vector<node::VolumeDisks> disks;
  for (std::size_t volume = 0; volume < process_->data.size(); ++volume) {
    disks.push_back({&process_->data[volume], process_->metadata.empty() ? nullptr : &process_->metadata[volume], ""});
  }
  return disks;
}

void SimHost::start() {
  RB_ASSERT(is_powered_ && process_ == nullptr);
  RB_ASSERT(fabric_.timeline().now() >= quiet_at());
  process_ = std::make_unique<Process>(fabric_, *this);
  is_stopping_ = false;
  ++incarnation_;
  fabric_.timeline().note("{}: start {}", kNodeName[index_], incarnation_);
  Process& process = *process_;
  process.loop.post([this, &process] {
    std::vector<std::vector<node::VolumeDisks>> disks(1, open(0));
    const ports::World world{process.loop,
                             fabric_.timeline().random(),
                             process.network,
                             *process.buffers,
                             options_.has_handlers ? &process.handlers : nullptr,
                             &process.datagrams,
                             &process.undo_files};
    node::ClusterConfig config = make_cluster_config(options_, index_);
    if (arbiter_ != nullptr) config.arbiter = node::EtcdConfig{};
    if (config_edit_) config_edit_(config);
    std::vector<std::vector<ports::VirtualIp*>> virtual_ips;
    if (lan_ != nullptr)
      virtual_ips.push_back({&process.virtual_ip.emplace(*lan_, index_, [this] { return holds_mandate(); })});
    process.node = std::make_unique<node::Node>(std::move(config), world, boot_id_, std::move(disks),
                                                std::move(virtual_ips), static_cast<node::DiskOwner*>(this),
                                                arbiter_ == nullptr ? nullptr : static_cast<node::ArbiterOwner*>(this));
    const auto started = process.node->start();
    RB_ASSERT(started.has_value());
  });
}

/// The kernel takes from the process what it held.
void SimHost::leave(bool is_power_cut) {
  process_->loop.kill();
  process_->network.leave(is_power_cut);
  for (SimDisk& disk : process_->data) disk.leave(is_power_cut);
  for (SimDisk& disk : process_->metadata) disk.leave(is_power_cut);
  abandon();
}

void SimHost::abandon() {
  const MutableBytes region = process_->buffers->region();
  madvise(region.data(), region.size(), MADV_DONTNEED);
  static_cast<void>(process_.release());
}

void SimHost::kill() {
  RB_ASSERT(process_ != nullptr);
  fabric_.timeline().note("{}: killed", kNodeName[index_]);
  leave(false);
}

void SimHost::cut_power() {
  RB_ASSERT(is_powered_);
  fabric_.timeline().note("{}: power cut", kNodeName[index_]);
  is_powered_ = false;
  fabric_.set_powered(address_, false);
  if (process_ != nullptr) leave(true);
  if (lan_ != nullptr) lan_->drop(index_);
  for (Medium& medium : data_) medium.cut_power();
  for (const auto& medium : metadata_) medium->cut_power();
}

void SimHost::restore_power() {
  is_powered_ = true;
  fabric_.set_powered(address_, true);
  fabric_.timeline().random().fill(boot_id_.bytes);
}

void SimHost::stop(std::function<void()> done) {
  RB_ASSERT(process_ != nullptr);
  is_stopping_ = true;
  fabric_.timeline().note("{}: stop", kNodeName[index_]);
  process_->loop.post([this, done = std::move(done), run = incarnation_] {
    process_->node->stop([this, done, run] {
      // The daemon leaves its loop and destroys the node; that is a later event, not part of this callback.
      fabric_.timeline().after(microseconds(50), [this, done, run] {
        if (process_ == nullptr || incarnation_ != run) return;
        fabric_.timeline().note("{}: stopped", kNodeName[index_]);
        if (!process_->node->resource(0).is_quiet()) {
          // A stop is bounded in time: what a hung device has not given back is left behind, like everything else.
          leave(false);
          return done();
        }
        process_->node.reset();
        process_->loop.kill();
        process_->network.leave(false);
        // A real daemon closes nothing: what a hung device still has, the kernel waits for.
        for (auto* disks : {&process_->data, &process_->metadata}) {
          for (SimDisk& disk : *disks) {
            RB_ASSERT(disk.in_flight_count() == disk.unreturned_count());
            disk.leave(false);
          }
        }
        process_.reset();
        done();
      });
    });
  });
}

std::optional<node::Resource::Inspection> SimHost::inspect() const {
  if (process_ == nullptr || process_->node == nullptr) return std::nullopt;
  const node::Resource::Inspection view = process_->node->resource(0).inspect();
  if (!view.is_open) return std::nullopt;
  return view;
}

std::unique_ptr<ports::Arbiter> SimHost::connect(std::size_t, ports::ArbiterSink& sink) {
  return std::make_unique<SimArbiter>(*arbiter_, process_->loop, index_, sink);
}

bool SimHost::holds_mandate() const {
  const auto view = inspect();
  return view && view->is_serving && view->machine->may_answer(process_->loop.host_now());
}

void SimHost::request(const node::AdminRequest& request, std::function<bool()> may_still,
                      std::function<void(const node::AdminReply&)> reply) {
  RB_ASSERT(process_ != nullptr);
  process_->loop.post([this, request, may_still = std::move(may_still), reply = std::move(reply)] {
    if (process_->node == nullptr || !may_still()) return;
    process_->node->request(request, reply);
  });
}

void SimHost::ask(const node::AdminRequest& request, std::function<void(const node::AdminReply&)> reply) {
  RB_ASSERT(process_ != nullptr);
  process_->loop.post([this, request, reply = std::move(reply)] {
    if (process_->node != nullptr) process_->node->request(request, reply);
  });
}

}  // namespace replblk::sim
