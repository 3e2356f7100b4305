// A volume whose devices grew: its metadata moves to their new end, what is new is zeroed, and then the volume is
// larger. Each step is durable before the next, and a stop after any of them leaves the volume as large as it was, or
// as it is to be (docs/ondisk_format.md 6).
#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "blockdev/store_impl.hpp"

namespace replblk::blockdev {

namespace {

/// What is zeroed at once: a device without a zeroing operation of its own writes so much in well under a second.
constexpr std::uint64_t kZeroStepBytes = std::uint64_t{16} << 20;

}  // namespace

void Store::Impl::claim_room(RoomDone done) {
  RB_ASSERT(is_open && !room_done_);
  room_done_ = done;
  room_refusal_.clear();
  const Layout& layout = superblock().layout;
  const auto data_bytes = data_disk.measure();
  const auto metadata_bytes = metadata_disk != nullptr ? metadata_disk->measure() : data_bytes;
  if (failure_) {
    room_refusal_ = "the metadata cannot be written";
  } else if (!data_bytes || !metadata_bytes) {
    room_refusal_ = "the size of the device cannot be told";
  } else if (round_down_to_page(*data_bytes) < layout.data_device_bytes) {
    room_refusal_ = fmt::format("the data device has {} bytes now, less than the {} that the volume was made for",
                                *data_bytes, layout.data_device_bytes);
  } else if (auto grown = grow_layout(layout, *data_bytes, *metadata_bytes); !grown) {
    room_refusal_ = fmt::format(
        "the data device has {} bytes now: too few more to move the metadata (128 KiB){}, or the bits of its blocks of "
        "{} "
        "bytes would take more than {} MiB of memory",
        *data_bytes,
        metadata_disk != nullptr ? fmt::format(", too many for the {} bytes of the metadata device", *metadata_bytes)
                                 : "",
        layout.bitmap_block_bytes, kGrownBitmapBytesMax >> 20);
  } else if (*grown != layout) {
    claimed_ = grown;
    if (metadata_disk != nullptr)
      return add_job({Job::Kind::set_layout, {}, SaveDone::to<&Impl::on_room_claimed>(*this)});
    return settle(SaveDone::to<&Impl::on_room_claimed>(*this));
  }
  world.loop.defer(room_task_);
}

/// Nothing is being changed, and bits and log are durable where they were. The superblocks go first, and say so:
/// whatever stops this, a whole pair of them is at one of the two ends. Where the new bitmap and log overwrite the old
/// ones, a start finds damage there, and every block counts as different.
void Store::Impl::move_metadata() {
  Superblock next = superblock();
  next.layout.data_device_bytes = claimed_->data_device_bytes;
  next.layout.metadata_end_bytes = claimed_->metadata_end_bytes;
  superblocks_.move(std::move(next), IoDone::to<&Impl::on_superblocks_moved>(*this));
}

void Store::Impl::on_superblocks_moved(IoResult result) {
  if (!result) return on_metadata_moved(result);
  dirty->set_all_changed();
  bitmap_.save(*claimed_, *dirty, IoDone::to<&Impl::on_moved_bits_saved>(*this));
}

void Store::Impl::on_moved_bits_saved(IoResult result) {
  if (!result) return on_metadata_moved(result);
  write_ring(*claimed_, superblock().volume_uuid, IoDone::to<&Impl::on_moved_ring_written>(*this));
}

void Store::Impl::on_moved_ring_written(IoResult result) {
  if (!result) return on_metadata_moved(result);
  Superblock next = superblock();
  next.layout = *claimed_;
  superblocks_.write(std::move(next), IoDone::to<&Impl::on_metadata_moved>(*this));
}

void Store::Impl::on_metadata_moved(IoResult result) {
  if (result) {
    log_info("resource {} volume {}: the metadata moved to the device's new end, byte {}", options.resource_name,
             options.volume, claimed_->data_device_bytes);
    activity_log.start(claimed_->activity_log_offset_bytes, superblock().volume_uuid, kLogPagesCount);
  }
  claimed_.reset();
  on_settle_closed(result);
}

void Store::Impl::on_room_claimed(IoResult result) {
  // Internal, and still to be moved: the data device could not be flushed.
  const bool is_moved = !claimed_ || metadata_disk != nullptr;
  claimed_.reset();
  if (!result || !is_moved) {
    room_refusal_ = fmt::format("the metadata cannot be moved: {}",
                                result ? "the data device cannot be flushed" : ports::to_string(result.error()));
  }
  tell_room();
}

void Store::Impl::tell_room() {
  const RoomDone done = std::exchange(room_done_, {});
  if (!room_refusal_.empty()) return done(fail(room_refusal_));
  done(superblock().layout.room_bytes());
}

// ---- what is new reads back as zeroes --------------------------------------------------------------------------

void Store::Impl::zero_room(std::uint64_t size_bytes, SaveDone done) {
  RB_ASSERT(is_open && !zeroed_ && size_bytes <= superblock().layout.room_bytes());
  zeroed_ = done;
  zero_end_bytes_ = size_bytes;
  is_zeroing_stopped_ = false;
  data.grow(std::max(size_bytes, geometry.size_bytes));
  zeroing_.offset_bytes = geometry.size_bytes;
  zero_next();
}

void Store::Impl::zero_next() {
  zeroing_.op = zeroing_.offset_bytes < zero_end_bytes_ ? BlockOp::discard : BlockOp::flush;
  zeroing_.length_bytes = std::min(kZeroStepBytes, zero_end_bytes_ - std::min(zeroing_.offset_bytes, zero_end_bytes_));
  zeroing_.status = BlockStatus::good;
  data.submit(zeroing_);
}

void Store::Impl::on_zeroed(BlockRequest& request) {
  const bool is_last = request.op == BlockOp::flush;
  if (request.status == BlockStatus::good && !is_last && !is_zeroing_stopped_) {
    request.offset_bytes += request.length_bytes;
    return zero_next();
  }
  const SaveDone done = std::exchange(zeroed_, {});
  if (request.status == BlockStatus::good && is_last) return done({});
  const bool is_full = request.status == BlockStatus::no_space;
  const bool is_hung = request.status == BlockStatus::timed_out;
  done(fail(is_full ? ports::IoError::no_space : is_hung ? ports::IoError::timed_out : ports::IoError::io));
}

// ---- the volume is larger --------------------------------------------------------------------------------------

void Store::Impl::grow(std::uint64_t size_bytes, bool is_equal, SaveDone done) {
  RB_ASSERT(size_bytes >= geometry.size_bytes && size_bytes <= superblock().layout.room_bytes());
  RB_ASSERT(size_bytes % kPageBytes == 0);
  add_job({Job::Kind::grow, {}, done, size_bytes, is_equal});
}

/// The bits first: a superblock that names the new size is only ever read together with what they say of it.
void Store::Impl::run_grow(const Job& job) {
  const std::uint64_t former_bytes = geometry.size_bytes;
  dirty->grow(job.size_bytes);
  if (!job.is_equal && job.size_bytes > former_bytes) dirty->set(former_bytes, job.size_bytes - former_bytes);
  Layout layout = superblock().layout;
  layout.usable_bytes = job.size_bytes;
  bitmap_.save(layout, *dirty, IoDone::to<&Impl::on_grown_bits_saved>(*this));
}

void Store::Impl::on_grown_bits_saved(IoResult result) {
  if (!result) return on_job_done(result);
  Superblock next = superblock();
  next.layout.usable_bytes = jobs_.front().size_bytes;
  superblocks_.write(std::move(next), SaveDone::to<&Impl::on_job_done>(*this));
}

}  // namespace replblk::blockdev
