#include "node/resource.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "membership/transitions.hpp"

namespace replblk::node {

using blockdev::ResourceRecord;
using blockdev::Store;
using replication::FlushWaiter;
using replication::Mirror;

namespace {

constexpr Duration kTickInterval = milliseconds(250);
/// protocol.md 3.8: giving up the role is bounded, whatever disks do.
constexpr Duration kStopTimeout = seconds(10);
/// Of these, for the peer to take the role.
constexpr Duration kHandOverTimeout = seconds(2);
/// How long a node that was stopped stays for its peer to ask whether it may go on alone: a few records' writing.
constexpr Duration kLastWordTimeout = milliseconds(500);

}  // namespace

Resource::Resource(const ClusterConfig& cluster, const ResourceConfig& config, ports::World& world,
                   iscsi::Portal& portal, Uuid boot_id, std::uint64_t incarnation, std::vector<VolumeDisks> disks,
                   const std::vector<ports::VirtualIp*>& virtual_ips, HeartbeatPaths& heartbeat_paths)
    : cluster_(cluster),
      config_(config),
      world_(world),
      portal_(portal),
      boot_id_(boot_id),
      incarnation_(incarnation),
      governor_({.rate_min_bytes_per_second = config.resync.rate_min_bytes_per_second,
                 .rate_max_bytes_per_second = config.resync.rate_max_bytes_per_second,
                 .latency_budget = config.resync.latency_budget}),
      virtual_ips_(world.loop, virtual_ips, [this] { return machine_->may_answer(world_.loop.now()); }),
      membership_timer_(Callback<void()>::to<&Resource::on_membership_timer>(*this)),
      gate_task_(Callback<void()>::to<&Resource::gate_closed>(*this)),
      stop_task_(Callback<void()>::to<&Resource::go_on_stopping>(*this)),
      sweep_task_(
          Callback<void()>::with(this, [](void* self) { static_cast<Resource*>(self)->retired_channels_.clear(); })),
      dial_backoff_(cluster.connect_interval),
      dial_timer_(Callback<void()>::to<&Resource::dial>(*this)),
      tick_timer_(Callback<void()>::to<&Resource::on_tick>(*this)),
      stop_timer_(Callback<void()>::to<&Resource::finish_stop>(*this)),
      heartbeats_(cluster, config.name, fresh_nonce(), world.loop, heartbeat_paths, *this),
      keep_task_(Callback<void()>::to<&Resource::start_keeping>(*this)),
      link_(world.loop) {
  candidate_.resource = this;
  RB_ASSERT(disks.size() == config.volumes.size());
  for (std::size_t index = 0; index < disks.size(); ++index) {
    auto volume = std::make_unique<Volume>();
    volume->config = config.volumes[index];
    volume->disks = std::move(disks[index]);
    volume->index = static_cast<std::uint16_t>(index);
    volume->resource = this;
    volumes_.push_back(std::move(volume));
  }
}

Resource::~Resource() {
  virtual_ips_.release();
  world_.loop.cancel(dial_timer_);
  world_.loop.cancel(tick_timer_);
  world_.loop.cancel(stop_timer_);
  world_.loop.cancel(membership_timer_);
  if (target_ != nullptr) portal_.remove_target(*target_);
}

// ---- opening ---------------------------------------------------------------------------------------------------

void Resource::start() {
  opening_count_ = volumes_.size();
  for (const auto& volume : volumes_) {
    if (volume->disks.data == nullptr) {
      volume->failure = volume->disks.reason;
      volume_opened(*volume, fail(blockdev::StoreError{blockdev::StoreErrorKind::io, volume->disks.reason}));
      continue;
    }
    blockdev::StoreOptions options;
    options.has_write_cache = volume->config.write_cache;
    options.resource_name = config_.name;
    options.volume = volume->index;
    const ActivityLogConfig& log = config_.activity_log;
    if (log.updates) options.activity_log = {log.extent_shift, log.extents};
    volume->store = std::make_unique<Store>(world_, *volume->disks.data, volume->disks.metadata, options);
    volume->store->open(Callback<void(Result<void, blockdev::StoreError>)>::to<&Volume::on_opened>(*volume));
  }
}

void Resource::Volume::on_opened(Result<void, blockdev::StoreError> result) { resource->volume_opened(*this, result); }

void Resource::volume_opened(Volume& volume, Result<void, blockdev::StoreError> result) {
  if (!result && result.error().kind == blockdev::StoreErrorKind::one_superblock && volume.store->is_open()) {
    RB_PROBE("one_superblock_at_open");
    volume.has_lost_write = true;
  } else if (!result) {
    volume.failure = result.error().sentence;
    log_error("resource {}: volume {}: {}", config_.name, volume.index, volume.failure);
  }
  RB_ASSERT(opening_count_ > 0);
  if (--opening_count_ == 0) all_opened();
}

void Resource::all_opened() {
  world_.loop.arm(tick_timer_, world_.loop.now() + kTickInterval);
  if (is_stopping_) {
    RB_PROBE("stopped_while_opening");
    finish_stop();
    return;
  }
  if (are_volumes_open()) refuse_volumes_of_two_pairs();
  if (!are_volumes_open()) {
    RB_PROBE("volume_cannot_be_opened");
    connection_state_ = "StandAlone";
    connection_reason_ = "a volume could not be opened; see its disk state";
    return;
  }
  const bool may_have_lost_cache = take_records();
  is_set_coarse_ = is_crashed_primary_ || std::ranges::any_of(volumes_, [](const auto& volume) {
                     const blockdev::DirtyBitmap& dirty = volume->store->dirty();
                     return dirty.dirty_blocks_count() == dirty.blocks_count();
                   });
  std::vector<Store*> stores;
  for (const auto& volume : volumes_) {
    stores.push_back(volume->store.get());
    volume->store->set_failure_listener(Callback<void(ports::IoError)>::to<&Volume::on_metadata_failed>(*volume));
    volume->mirror = std::make_unique<Mirror>(world_, *volume->store, link_, volume->index, has_peer());
    volume->mirror->set_idle_listener(Callback<void()>::to<&Resource::check_drained>(*this));
    volume->mirror->set_failure_listener(Callback<void(bool)>::to<&Volume::on_disk_failed>(*volume));
    volume->mirror->set_latency_listener(Callback<void(Duration)>::to<&Resource::on_request_latency>(*this));
    volume->resync =
        std::make_unique<replication::Resync>(world_, *volume->store, *volume->mirror, link_, governor_, volume->index);
  }
  for (const auto& volume : volumes_) {
    volume->verify =
        std::make_unique<replication::Verify>(world_, *volume->store, *volume->mirror, link_, governor_, volume->index);
  }
  growth_.set_stores(stores);
  server_ = std::make_unique<replication::PeerServer>(world_, std::move(stores));
  server_->set_failure_listener(Callback<void(std::uint16_t, bool)>::to<&Resource::server_disk_failed>(*this));
  build_target();
  build_machine(may_have_lost_cache);
  is_opened_ = true;
  if (record_.is_standby) machine_->set_standby(true, world_.loop.now());
  if (record_.is_maintenance) machine_->set_maintenance(true, world_.loop.now());
  apply_pause();
  ResourceRecord next = record_;
  next.is_clean_stop = false;
  persist(next, [this] {
    pump();
    dial();
  });
}

/// One of the disks is the wrong one, and nobody here knows which: terms and generations of two pairs mean nothing
/// beside each other, and the lowest of them would stand for all.
void Resource::refuse_volumes_of_two_pairs() {
  const Volume* first = nullptr;
  std::string sentence;
  for (const auto& volume : volumes_) {
    const Uuid& id = volume->store->record().pair_id;
    if (id.is_none()) continue;
    if (first == nullptr) first = volume.get();
    if (id == first->store->record().pair_id) continue;
    sentence = fmt::format(
        "volumes {} and {} hold copies of two pairs, or of this one before and after create-md: put the right disk in, "
        "or "
        "run create-md --force on the wrong one",
        first->index, volume->index);
  }
  if (sentence.empty()) return;
  log_error("resource {}: {}", config_.name, sentence);
  for (const auto& volume : volumes_) volume->failure = sentence;
}

/// Several volumes: a change that is not in all of them was never acted upon, so the lower configuration holds, and
/// every restriction that any of them remembers.
bool Resource::take_records() {
  std::vector<ResourceRecord> records;
  for (const auto& volume : volumes_) records.push_back(volume->store->record());
  if (std::ranges::any_of(records, [&](const auto& one) { return one.configuration != records.front().configuration; }))
    RB_PROBE("stopped_between_two_volumes");
  record_ = membership::record_of_all(records);
  // Without a peer nothing was promised to anybody, and what is just created has promised nothing.
  const bool is_lost = std::ranges::any_of(volumes_, [](const auto& volume) { return volume->has_lost_write; });
  if (is_lost && has_peer() && !record_.generations.current.is_none()) record_.may_be_older = true;
  // What it says of its own mandate may be over: in doubt it serves by nobody's word but the peer's or a person's. Nor
  // is what it says of a resync relied upon.
  if (record_.may_be_older) {
    record_.seen = std::max(record_.seen, record_.configuration.term + 1);
    record_.merged_term = 0;
  }
  const bool is_sole = record_.configuration.is_sole(self());
  is_crashed_primary_ = record_.is_primary_open;
  const bool is_cached = std::ranges::any_of(volumes_, [](const auto& volume) { return volume->config.write_cache; });
  const bool may_have_lost_cache =
      is_cached && !record_.is_clean_stop && !record_.boot_id.is_none() && record_.boot_id != boot_id_ && !is_sole;
  if (may_have_lost_cache) RB_PROBE("cache_may_be_lost_at_start");
  return may_have_lost_cache || record_.may_be_older;
}

void Resource::build_target() {
  scsi::DeviceConfig device;
  device.target_name = config_.target.iqn;
  device.reservation_keeper = this;
  for (const auto& volume : volumes_) {
    scsi::UnitConfig unit;
    unit.lun = volume->config.lun;
    unit.volume_uuid = volume->store->volume_uuid();
    unit.backend = volume->mirror.get();
    device.units.push_back(unit);
  }
  device_ = std::make_unique<scsi::Device>(std::move(device), world_.loop, world_.buffers);
  iscsi::TargetConfig target;
  target.name = config_.target.iqn;
  target.alias = config_.target.alias;
  for (const std::string& address : config_.target.portal_addresses) {
    target.portals.push_back({address, config_.target.port});
  }
  for (const std::string& address : config_.target.peer_portal_addresses) {
    target.peer_portals.push_back({address, config_.target.port});
  }
  target.node_address = cluster_.nodes[self()].address;
  for (const VirtualIpConfig& ip : config_.virtual_ips) target.moving_addresses.push_back(ip.address);
  target_ = std::make_unique<iscsi::Target>(std::move(target), world_, *device_);
  portal_.add_target(*target_);
}

bool Resource::are_volumes_open() const {
  return std::ranges::all_of(volumes_, [](const auto& volume) {
    return volume->store != nullptr && volume->store->is_open() && volume->failure.empty();
  });
}

// ---- the record ------------------------------------------------------------------------------------------------

void Resource::persist(ResourceRecord next, std::function<void()> then) {
  RB_ASSERT(next.seen >= record_.seen && next.configuration.term >= record_.configuration.term);
  // A copy that may have lost its cache keeps the old boot id until it is whole again, so that a second restart
  // does not forget it.
  if (!machine_->may_have_lost_cache()) {
    next.boot_id = boot_id_;
    next.may_be_older = false;
  }
  membership::remember_parting(record_, next, self(), world_.loop.unix_ms());
  if (!next.configuration.is_sole(self())) next.merged_term = 0;
  record_ = next;
  ++persists_out_;
  const auto save = [next](Store& store, const Callback<void(Result<void, ports::IoError>)>& done) {
    store.save(next, done);
  };
  const auto failed = [](Volume& volume, ports::IoError error) { volume.on_metadata_failed(error); };
  on_all_stores(save, failed, [this, then = std::move(then)](bool is_good) {
    --persists_out_;
    if (!is_good) return;
    then();
    run_after_persists();
    if (phase_ == LinkPhase::introducing) introduce();
  });
}

void Resource::when_persisted(std::function<void()> then) {
  after_persists_.push_back(std::move(then));
  run_after_persists();
}

void Resource::run_after_persists() {
  if (persists_out_ > 0) return;
  for (const auto& then : std::exchange(after_persists_, {})) then();
}

void Resource::save_bitmaps(std::function<void()> then) { for_all_stores(&Store::save_bitmap, std::move(then)); }

void Resource::settle_all(std::function<void()> then) { for_all_stores(&Store::settle, std::move(then)); }

void Resource::for_all_stores(StoreStep step, std::function<void()> then) {
  const auto begin = [step](Store& store, const Callback<void(Result<void, ports::IoError>)>& done) {
    (store.*step)(done);
  };
  const auto failed = [this](Volume& volume, ports::IoError error) { bits_not_saved(volume, error); };
  on_all_stores(begin, failed, [this, then = std::move(then)](bool) {
    if (!is_copy_failed_) then();
  });
}

/// `failed` at once, for the first volume of which that is so; `then` after the last one has ended.
void Resource::on_all_stores(const StoreOperation& begin, StoreFailure failed, std::function<void(bool is_good)> then) {
  struct All;
  struct One {
    All* all = nullptr;
    Volume* volume = nullptr;
  };
  struct All {
    std::vector<One> ones;
    std::size_t pending = 0;
    bool is_good = true;
    StoreFailure failed;
    std::function<void(bool)> then;
  };
  auto* all = new All{{}, volumes_.size(), true, std::move(failed), std::move(then)};
  for (const auto& volume : volumes_) all->ones.push_back({all, volume.get()});
  for (std::size_t index = 0; index < volumes_.size(); ++index) {
    begin(*volumes_[index]->store, Callback<void(Result<void, ports::IoError>)>::with(
                                       &all->ones[index], [](void* context, Result<void, ports::IoError> result) {
                                         const One& one = *static_cast<One*>(context);
                                         All* owner = one.all;
                                         if (!result && std::exchange(owner->is_good, false))
                                           owner->failed(*one.volume, result.error());
                                         if (--owner->pending > 0) return;
                                         const std::unique_ptr<All> owned(owner);
                                         owned->then(owned->is_good);
                                       }));
  }
}

// ---- all volumes at once ---------------------------------------------------------------------------------------

void Resource::flush_all(std::function<void(bool)> then) {
  struct Flushing;
  struct OneFlush {
    FlushWaiter waiter;
    Flushing* all = nullptr;
  };
  struct Flushing {
    std::vector<std::unique_ptr<OneFlush>> flushes;
    std::size_t pending = 0;
    bool is_good = true;
    std::function<void(bool)> then;
  };
  auto* all = new Flushing;
  all->then = std::move(then);
  all->pending = volumes_.size();
  for (std::size_t index = 0; index < volumes_.size(); ++index) {
    auto one = std::make_unique<OneFlush>();
    one->all = all;
    one->waiter.on_flushed = Callback<void(bool)>::with(one.get(), [](void* context, bool is_good) {
      Flushing* flushing = static_cast<OneFlush*>(context)->all;
      flushing->is_good = flushing->is_good && is_good;
      if (--flushing->pending > 0) return;
      const std::unique_ptr<Flushing> owned(flushing);
      owned->then(owned->is_good);
    });
    all->flushes.push_back(std::move(one));
  }
  std::vector<OneFlush*> flushes;
  for (const auto& one : all->flushes) flushes.push_back(one.get());
  for (std::size_t index = 0; index < volumes_.size(); ++index) {
    volumes_[index]->mirror->flush(flushes[index]->waiter);
  }
}

void Resource::drain_all(std::function<void()> then) {
  on_drained_.push_back(std::move(then));
  check_drained();
}

void Resource::check_drained() {
  if (on_drained_.empty() || !are_mirrors_idle()) return;
  for (const auto& then : std::exchange(on_drained_, {})) then();
}

bool Resource::are_mirrors_idle() const {
  return std::ranges::all_of(volumes_, [](const auto& volume) { return volume->mirror->is_idle(); });
}

void Resource::on_request_latency(Duration latency) { governor_.request_done(world_.loop.now(), latency); }

void Resource::freeze_all() {
  virtual_ips_.set_frozen(true);
  for (const auto& volume : volumes_) volume->mirror->freeze();
}

void Resource::thaw_all() {
  virtual_ips_.set_frozen(false);
  for (const auto& volume : volumes_) volume->mirror->thaw();
  if (!keepings_.empty()) world_.loop.defer(keep_task_);
}

std::uint64_t Resource::fresh_nonce() {
  std::uint64_t nonce = 0;
  while (nonce == 0) nonce = world_.random.next_u64();
  return nonce;
}

bool Resource::is_settled() const {
  return is_opened_ && persists_out_ == 0 && !is_copy_failed_ && machine_->is_settled() && server_->is_idle() &&
         are_copiers_idle() && !growth_.is_busy() && (is_primary_ || are_mirrors_idle());
}

void Resource::on_tick() {
  world_.loop.arm(tick_timer_, world_.loop.now() + kTickInterval);
  if (!is_opened_) return;
  check_copiers_idle();
  go_on_stopping();
  if (is_stop_ending_ && is_quiet()) return finish_stop();
  const Instant now = world_.loop.now();
  if (is_copy_failed_) return tick_with_failed_copy();
  look_at_virtual_ips(now);
  fail_back(now);
  tell_of_lost_quorum(now);
  answer_long_resize(now);
  if (channel_ != nullptr) {
    if (link_.is_overdue(cluster_.peer_timeout)) {
      RB_PROBE("peer_acknowledges_nothing");
      channel_->fail(replication::ChannelEnd::timeout,
                     fmt::format("the peer has not acknowledged a write for {} ms", to_ms(cluster_.peer_timeout)));
      return;
    }
    if (is_keeping_at_peer_ && phase_ == LinkPhase::established && now >= keeping_deadline_) {
      channel_->fail(replication::ChannelEnd::timeout, "the peer has not acknowledged a table of reservations");
      return;
    }
    if (end_stuck_sync(now)) return;
    send_progress();
    if (phase_ == LinkPhase::introducing) introduce();
  }
  answer_done_verbs();
  if (hand_over_when_stalled(now)) return;
  if (now - last_flush_tick_ >= cluster_.flush_interval) {
    last_flush_tick_ = now;
    for (const auto& volume : volumes_) volume->mirror->tick();
    if (activity() != replication::SyncProgress::Activity::none && !is_saving_progress_) {
      // So that a resync that is broken off does not begin from the start, and what a verify finds is not forgotten.
      is_saving_progress_ = true;
      save_bitmaps([this] { is_saving_progress_ = false; });
    }
  }
}

// ---- stopping --------------------------------------------------------------------------------------------------

void Resource::stop(std::function<void()> done) {
  if (is_stopped_) {
    done();
    return;
  }
  if (is_stopping_) {
    stop_done_ = [first = std::move(stop_done_), then = std::move(done)] {
      first();
      then();
    };
    return;
  }
  is_stopping_ = true;
  stop_done_ = std::move(done);
  world_.loop.cancel(dial_timer_);
  world_.loop.arm(stop_timer_, world_.loop.now() + kStopTimeout);
  if (!is_opened_) {
    if (opening_count_ == 0) finish_stop();
    return;
  }
  // Initiators see a switchover, not a failure, where the peer can take over at once.
  if (is_primary_ && !machine_->is_in_maintenance() && machine_->hand_over(world_.loop.now()).is_accepted) {
    RB_PROBE("stop_hands_the_role_over");
    is_handing_over_ = true;
    handed_over_by_ = world_.loop.now() + kHandOverTimeout;
    return pump();
  }
  begin_stop();
}

/// The peer serves once this node's word has reached it, which a connection that ends too early would take along: it
/// would have to ask the arbiter.
bool Resource::is_handed_over() const {
  return !is_primary_ && persists_out_ == 0 && (is_peer_primary_ || channel_ == nullptr);
}

void Resource::go_on_stopping() {
  if (is_stopped_) return;
  if (is_handing_over_ && (is_handed_over() || world_.loop.now() >= handed_over_by_)) {
    is_handing_over_ = false;
    begin_stop();
  }
  if (is_stop_drained_) continue_stop();
}

void Resource::begin_stop() {
  machine_->stop(world_.loop.now());
  pump();
  if (is_primary_) step_down("the daemon stops");
  end_verify("the daemon stopped");
  end_resize("the daemon stops");
  if (undo_ != nullptr) undo_->stop();
  drain_all([this] {
    for (const auto& volume : volumes_) volume->resync->stop();
    flush_all([this](bool is_flushed) {
      is_stop_drained_ = is_flushed && !is_copy_failed_;
      if (!is_stop_drained_) {
        RB_PROBE("stop_is_not_clean");
        // Neither record nor activity log are closed: the next start knows what may differ.
        end_stop();
        return;
      }
      continue_stop();
    });
  });
}

/// Everything is on both copies. A change of the record, and pieces of a resync, that are under way end first, and a
/// peer that serves gets this node's word that it may go on alone: it freezes for an arbiter's otherwise
/// (go_on_stopping() calls again).
void Resource::continue_stop() {
  if (is_stopped_) return;
  // From here the peer may go on alone: nothing was answered that it lacks.
  is_standalone_ = true;
  const bool is_named = record_.configuration.is_pair() && record_.configuration.primary == peer();
  if (is_named && last_word_by_ == Instant{}) last_word_by_ = world_.loop.now() + kLastWordTimeout;
  if (channel_ != nullptr) {
    const replication::Refusal refusal{"the daemon of " + cluster_.nodes[self()].name + " was stopped", false};
    end_channel("Unconnected", "the daemon stops", &refusal);
  }
  if (is_copy_failed_) {
    is_stop_drained_ = false;
    return end_stop();
  }
  // Until it says that it has heard it: the reply goes out again with each heartbeat.
  if (world_.loop.now() < last_word_by_ && !machine_->is_peer_alone()) return;
  if (persists_out_ > 0 || !are_copiers_idle()) {
    RB_PROBE("stop_waits_for_change_of_record");
    return;
  }
  is_membership_over_ = true;
  is_stop_drained_ = false;
  server_->when_idle(Callback<void()>::with(this, [](void* context) {
    auto* self = static_cast<Resource*>(context);
    // What the peer sent after the flush above is in the cache: flush again, so that "clean" is true.
    self->flush_all([self](bool is_good) {
      if (!is_good) return self->end_stop();
      self->settle_all([self] {
        ResourceRecord next = self->record_;
        // What an earlier end cost this copy is not made good by a clean one: until the copy is whole again, the next
        // start must know it too (protocol.md 3.7).
        next.is_primary_open = self->is_crashed_primary_;
        next.is_clean_stop = !self->machine_->may_have_lost_cache();
        self->persist(next, [self] { self->end_stop(); });
      });
    });
  }));
}

/// What has to be done is done, or cannot be: at once, or as soon as nothing is in flight any more (on_tick()), since
/// the mirrors are destroyed after it.
void Resource::end_stop() {
  is_stop_ending_ = true;
  if (is_quiet()) finish_stop();
}

void Resource::finish_stop() {
  if (is_stopped_ || !is_stopping_) return;
  is_stopped_ = true;
  is_membership_over_ = true;
  answer_open_verbs("the resource was taken down");
  if (is_primary_) step_down("the daemon stops");
  world_.loop.cancel(stop_timer_);
  world_.loop.cancel(tick_timer_);
  world_.loop.cancel(dial_timer_);
  world_.loop.cancel(membership_timer_);
  if (channel_ != nullptr) end_channel("Unconnected", "the daemon stops", nullptr);
  std::exchange(stop_done_, {})();
}

}  // namespace replblk::node
