#include "blockdev/store.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "blockdev/record_codec.hpp"
#include "blockdev/store_impl.hpp"

namespace replblk::blockdev {

Store::Impl::Impl(ports::World world_, ports::Disk& data_, ports::Disk* metadata_, StoreOptions options_)
    : world(world_),
      data_disk(data_),
      metadata_disk(metadata_),
      options(std::move(options_)),
      data(world.buffers, data_disk, {options.has_write_cache, options.requests_max}),
      activity_log(world.loop, metadata_disk != nullptr ? *metadata_disk : data_disk, options.activity_log,
                   {Callback<bool(std::uint32_t)>::to<&Impl::are_saved>(*this),
                    Callback<void(const std::vector<std::uint32_t>&)>::to<&Impl::save_extents>(*this),
                    Callback<void(ports::IoError)>::to<&Impl::fail_metadata>(*this)}),
      io_(metadata_disk != nullptr ? *metadata_disk : data_disk),
      superblocks_(io_, metadata_disk != nullptr ? Placement::external : Placement::internal),
      bitmap_(io_, metadata_disk != nullptr ? *metadata_disk : data_disk),
      fail_task_(Callback<void()>::to<&Impl::fail_next_job>(*this)),
      room_task_(Callback<void()>::to<&Impl::tell_room>(*this)),
      refuse_task_(Callback<void()>::to<&Impl::tell_refused>(*this)) {
  zeroing_.on_complete = Callback<void(BlockRequest&)>::to<&Impl::on_zeroed>(*this);
  flush_op_.kind = ports::DiskOpKind::flush;
  flush_op_.on_done = Callback<void(ports::DiskOp&, IoResult)>::to<&Impl::on_data_flushed>(*this);
  cleaned_pages_.reserve(std::size_t{2} * options.activity_log.slots_count);
}

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
  switch (jobs_.front().kind) {
    case Job::Kind::save: {
      Superblock next = superblock();
      next.record = encode_record(options.resource_name, jobs_.front().record);
      superblocks_.write(std::move(next), on_done);
      return;
    }
    case Job::Kind::save_bitmap:
      bitmap_.save(superblock().layout, *dirty, on_done);
      return;
    case Job::Kind::save_extents:
      bitmap_.save_pages(superblock().layout, *dirty, cleaned_pages_, on_done);
      return;
    case Job::Kind::settle:
      if (activity_log.is_open()) {
        flush_data(IoDone::to<&Impl::on_settle_flushed>(*this));
      } else {
        on_settle_flushed({});
      }
      return;
    case Job::Kind::set_layout: {
      Superblock next = superblock();
      next.layout = *claimed_;
      superblocks_.write(std::move(next), on_done);
      return;
    }
    case Job::Kind::grow:
      run_grow(jobs_.front());
      return;
  }
  RB_UNREACHABLE();
}

void Store::Impl::on_job_done(IoResult result) {
  is_job_running_ = false;
  Job job = std::move(jobs_.front());
  jobs_.pop_front();
  if (!result) {
    RB_PROBE("metadata_write_failed");
    failure_ = result.error();
    activity_log.fail_all();
  } else if (job.kind == Job::Kind::save) {
    record = std::move(job.record);
  } else if (job.kind == Job::Kind::grow) {
    geometry.size_bytes = job.size_bytes;
    data.grow(job.size_bytes);
  }
  run_next_job();
  job.done(result);  // Last: it may end the store.
}

void Store::Impl::fail_next_job() {
  if (jobs_.empty()) return;
  const SaveDone done = jobs_.front().done;
  const ports::IoError error = *failure_;
  if (jobs_.front().kind == Job::Kind::settle && !settling_.empty()) {
    settling_.pop_front();
    for (const SaveDone& waiting : settling_) jobs_.push_back({Job::Kind::settle, {}, waiting});
    settling_.clear();
  }
  jobs_.pop_front();
  if (!jobs_.empty()) world.loop.defer(fail_task_);
  done(fail(error));
}

/// A write outside of the jobs' callers failed: they and all others are told.
void Store::Impl::fail_metadata(ports::IoError error) {
  if (failure_) return;
  failure_ = error;
  activity_log.fail_all();
  if (on_failed) on_failed(error);
}

// ---- the activity log ------------------------------------------------------------------------------------------

ByteRange Store::Impl::extent_range(std::uint32_t extent, std::uint8_t shift) const noexcept {
  const std::uint64_t size_bytes = superblock().layout.usable_bytes;
  const std::uint64_t extent_bytes = std::uint64_t{1} << shift;
  if (extent > size_bytes / extent_bytes) return {};
  const std::uint64_t begin_bytes = std::min(extent * extent_bytes, size_bytes);
  return {begin_bytes, std::min(extent_bytes, size_bytes - begin_bytes)};
}

bool Store::Impl::are_saved(std::uint32_t extent) {
  // A job that is under way has taken pages that are not yet durable.
  if (!jobs_.empty()) return false;
  const ByteRange range = extent_range(extent, options.activity_log.extent_shift);
  const std::uint64_t span_bytes = DirtyBitmap::kSavedPageBlocks * dirty->block_bytes();
  for (std::uint64_t page = range.offset_bytes / span_bytes; page * span_bytes < range.end_bytes(); ++page) {
    if (dirty->is_changed(page)) return false;
  }
  return true;
}

void Store::Impl::save_extents(const std::vector<std::uint32_t>& extents) {
  cleaned_pages_.clear();
  const std::uint64_t span_bytes = DirtyBitmap::kSavedPageBlocks * dirty->block_bytes();
  for (const std::uint32_t extent : extents) {
    const ByteRange range = extent_range(extent, options.activity_log.extent_shift);
    for (std::uint64_t page = range.offset_bytes / span_bytes; page * span_bytes < range.end_bytes(); ++page) {
      cleaned_pages_.push_back(page);
    }
  }
  std::ranges::sort(cleaned_pages_);
  const auto rest = std::ranges::unique(cleaned_pages_);
  cleaned_pages_.erase(rest.begin(), rest.end());
  add_job({Job::Kind::save_extents, {}, SaveDone::to<&Impl::on_extents_saved>(*this)});
}

void Store::Impl::on_extents_saved(IoResult result) {
  if (result) {
    activity_log.cleaned();
  } else if (on_failed) {
    on_failed(result.error());
  }
}

void Store::Impl::settle(SaveDone done) {
  RB_ASSERT(is_open);
  if (failure_) return add_job({Job::Kind::settle, {}, done});  // It fails like every other.
  settling_.push_back(done);
  if (settling_.size() == 1) begin_closing();
}

void Store::Impl::begin_closing() {
  // Whoever settles has flushed both copies; when the metadata moves, writes have just been held back.
  const bool moves = claimed_ && metadata_disk == nullptr;
  activity_log.begin_closing(moves, Callback<void()>::to<&Impl::on_log_quiescent>(*this));
}

void Store::Impl::on_log_quiescent() { add_job({Job::Kind::settle, {}, settling_.front()}); }

void Store::Impl::on_settle_flushed(IoResult result) {
  is_settle_flushed_ = result.has_value();
  if (!result) {
    log_error("resource {}: volume {}: the data device cannot be flushed ({}): the activity log stays open",
              options.resource_name, options.volume, ports::to_string(result.error()));
  }
  activity_log.for_each_unstable([this](std::uint32_t extent) {
    const ByteRange range = extent_range(extent, options.activity_log.extent_shift);
    dirty->set(range.offset_bytes, range.length_bytes);
  });
  bitmap_.save(superblock().layout, *dirty, SaveDone::to<&Impl::on_settle_saved>(*this));
}

void Store::Impl::on_settle_saved(IoResult result) {
  if (!result || !is_settle_flushed_ || !activity_log.is_open()) return on_settle_closed(result);
  activity_log.write_closing(SaveDone::to<&Impl::on_settle_closed>(*this));
}

void Store::Impl::on_settle_closed(IoResult result) {
  if (result && is_settle_flushed_ && claimed_ && metadata_disk == nullptr) return move_metadata();
  activity_log.finish_closing();
  settling_.pop_front();
  if (!settling_.empty()) begin_closing();
  on_job_done(result);
}

void Store::Impl::flush_data(IoDone done) noexcept {
  flush_done_ = done;
  data_disk.submit(flush_op_);
}

void Store::Impl::on_data_flushed(ports::DiskOp&, IoResult result) {
  const IoDone done = flush_done_;
  done(result);
}

std::uint32_t Store::Impl::in_flight_count() const noexcept {
  return data.in_flight_count() + static_cast<std::uint32_t>(jobs_.size()) + (is_busy_opening_ ? 1 : 0) +
         (activity_log.is_writing() ? 1 : 0);
}

const Store::Counters& Store::Impl::counters() const noexcept {
  counters_ = data.counters();
  counters_.metadata_writes = io_.writes_count() + bitmap_.saves_count() + activity_log.writes_count();
  counters_.bitmap_page_writes = bitmap_.written_pages_count();
  counters_.activity_log = activity_log.log().counters();
  counters_.io_errors += io_.errors_count() + bitmap_.errors_count();
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
const std::string& Store::notice() const noexcept { return impl_->notice; }

const VolumeGeometry& Store::geometry() const noexcept { return impl_->geometry; }
const Uuid& Store::volume_uuid() const noexcept { return impl_->superblock().volume_uuid; }
const ResourceRecord& Store::record() const noexcept { return impl_->record; }
std::uint32_t Store::bitmap_block_bytes() const noexcept { return impl_->superblock().layout.bitmap_block_bytes; }

void Store::save(const ResourceRecord& record, Callback<void(Result<void, ports::IoError>)> done) {
  impl_->save(record, done);
}
void Store::save_bitmap(Callback<void(Result<void, ports::IoError>)> done) { impl_->save_bitmap(done); }
void Store::settle(Callback<void(Result<void, ports::IoError>)> done) { impl_->settle(done); }
void Store::claim_room(Callback<void(Result<std::uint64_t, std::string>)> done) { impl_->claim_room(done); }
void Store::zero_room(std::uint64_t size_bytes, Callback<void(Result<void, ports::IoError>)> done) {
  impl_->zero_room(size_bytes, done);
}
void Store::stop_zeroing() noexcept { impl_->stop_zeroing(); }
void Store::grow(std::uint64_t size_bytes, bool is_equal, Callback<void(Result<void, ports::IoError>)> done) {
  impl_->grow(size_bytes, is_equal, done);
}
std::uint64_t Store::room_bytes() const noexcept { return impl_->superblock().layout.room_bytes(); }
void Store::set_failure_listener(Callback<void(ports::IoError)> on_failed) noexcept { impl_->on_failed = on_failed; }

void Store::submit(BlockRequest& request) noexcept { impl_->data.submit(request); }

RangeLock& Store::ranges() noexcept { return impl_->ranges; }
DirtyBitmap& Store::dirty() noexcept {
  RB_ASSERT(impl_->dirty.has_value());
  return *impl_->dirty;
}
ActivityLogWriter& Store::activity_log() noexcept { return impl_->activity_log; }
std::uint32_t Store::in_flight_count() const noexcept { return impl_->in_flight_count(); }
const Store::Counters& Store::counters() const noexcept { return impl_->counters(); }

}  // namespace replblk::blockdev
