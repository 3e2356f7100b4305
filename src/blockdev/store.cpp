#include "blockdev/store.hpp"

#include <utility>

#include "base/assert.hpp"
#include "blockdev/record_codec.hpp"
#include "blockdev/store_impl.hpp"

namespace replblk::blockdev {

Store::Impl::Impl(ports::World world_, ports::Disk& data_, ports::Disk* metadata_, StoreOptions options_)
    : world(world_),
      data_disk(data_),
      metadata_disk(metadata_),
      options(std::move(options_)),
      data(world.buffers, data_disk, {options.has_write_cache, options.requests_max}),
      io_(metadata_disk != nullptr ? *metadata_disk : data_disk),
      superblocks_(io_, metadata_disk != nullptr ? Placement::external : Placement::internal),
      bitmap_(io_),
      fail_task_(Callback<void()>::to<&Impl::fail_next_job>(*this)),
      refuse_task_(Callback<void()>::to<&Impl::tell_refused>(*this)) {}

Store::Impl::~Impl() {
  // Cancel, wait, then free: whoever closes a volume has waited for its requests and saves.
  RB_ASSERT(in_flight_count() == 0);
}

void Store::Impl::save(const ResourceRecord& record_, SaveDone done) { add_job({Job::Kind::save, record_, done}); }

void Store::Impl::save_bitmap(SaveDone done) { add_job({Job::Kind::save_bitmap, {}, done}); }

void Store::Impl::add_job(Job job) {
  RB_ASSERT(is_open);
  jobs_.push_back(std::move(job));
  if (!is_job_running_) run_next_job();
}

void Store::Impl::run_next_job() {
  if (jobs_.empty()) return;
  if (failure_) {
    world.loop.defer(fail_task_);
    return;
  }
  is_job_running_ = true;
  const SaveDone on_done = SaveDone::to<&Impl::on_job_done>(*this);
  if (jobs_.front().kind == Job::Kind::save_bitmap) {
    // A new sequence even if this fails half-way: no superblock will ever name what is half there.
    ++bitmap_sequence_;
    bitmap_.save(superblock().layout, bitmap_sequence_, &*dirty, on_done);
    return;
  }
  Superblock next = superblock();
  next.bitmap_sequence = bitmap_sequence_;
  next.record = encode_record(options.resource_name, jobs_.front().record);
  superblocks_.write(std::move(next), on_done);
}

void Store::Impl::on_job_done(IoResult result) {
  is_job_running_ = false;
  Job job = std::move(jobs_.front());
  jobs_.pop_front();
  if (!result) {
    failure_ = result.error();
  } else if (job.kind == Job::Kind::save) {
    record = std::move(job.record);
  }
  run_next_job();
  job.done(result);  // Last: it may end the store.
}

void Store::Impl::fail_next_job() {
  if (jobs_.empty()) return;
  const SaveDone done = jobs_.front().done;
  const ports::IoError error = *failure_;
  jobs_.pop_front();
  if (!jobs_.empty()) world.loop.defer(fail_task_);
  done(fail(error));
}

std::uint32_t Store::Impl::in_flight_count() const noexcept {
  return data.in_flight_count() + static_cast<std::uint32_t>(jobs_.size()) + (is_busy_opening_ ? 1 : 0);
}

const Store::Counters& Store::Impl::counters() const noexcept {
  counters_ = data.counters();
  counters_.metadata_writes = io_.writes_count();
  counters_.io_errors += io_.errors_count();
  return counters_;
}

Store::Store(ports::World world, ports::Disk& data, ports::Disk* metadata, StoreOptions options)
    : impl_(std::make_unique<Impl>(world, data, metadata, std::move(options))) {}
Store::~Store() = default;

void Store::create(const CreateOptions& options, Callback<void(Result<std::uint64_t, StoreError>)> done) {
  impl_->create(options, done);
}
void Store::open(Callback<void(Result<void, StoreError>)> done) { impl_->open(done); }
bool Store::is_open() const noexcept { return impl_->is_open; }

const VolumeGeometry& Store::geometry() const noexcept { return impl_->geometry; }
const Uuid& Store::volume_uuid() const noexcept { return impl_->superblock().volume_uuid; }
const ResourceRecord& Store::record() const noexcept { return impl_->record; }
std::uint32_t Store::bitmap_block_bytes() const noexcept { return impl_->superblock().layout.bitmap_block_bytes; }

void Store::save(const ResourceRecord& record, Callback<void(Result<void, ports::IoError>)> done) {
  impl_->save(record, done);
}
void Store::save_bitmap(Callback<void(Result<void, ports::IoError>)> done) { impl_->save_bitmap(done); }

void Store::submit(BlockRequest& request) noexcept { impl_->data.submit(request); }

RangeLock& Store::ranges() noexcept { return impl_->ranges; }
DirtyBitmap& Store::dirty() noexcept {
  RB_ASSERT(impl_->dirty.has_value());
  return *impl_->dirty;
}
std::uint32_t Store::in_flight_count() const noexcept { return impl_->in_flight_count(); }
const Store::Counters& Store::counters() const noexcept { return impl_->counters(); }

}  // namespace replblk::blockdev
