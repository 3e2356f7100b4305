#include "blockdev/superblock_pair.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"

namespace replblk::blockdev {

using IoResult = Result<void, ports::IoError>;

SuperblockPair::SuperblockPair(MetadataIo& io, Placement placement)
    : io_(io), placement_(placement), device_bytes_(io.device_bytes()) {}

std::uint64_t SuperblockPair::offset_bytes(std::uint8_t copy) const noexcept {
  const auto offsets = superblock_offsets(placement_, device_bytes_);
  RB_ASSERT(offsets.has_value());
  return (*offsets)[copy];
}

void SuperblockPair::read(Done done) {
  done_ = done;
  is_durable_ = false;
  device_bytes_ = round_down_to_page(io_.device_bytes());
  read_copies();
}

void SuperblockPair::read_copies() {
  reading_ = 0;
  copies_ = {};
  io_.read(offset_bytes(0), kSuperblockSlotBytes, Done::to<&SuperblockPair::on_copy_read>(*this));
}

void SuperblockPair::on_copy_read(IoResult result) {
  copies_[reading_] = {};
  if (result) copies_[reading_] = decode_superblock(io_.memory().first(kSuperblockSlotBytes), reading_);
  if (++reading_ < 2) {
    io_.read(offset_bytes(reading_), kSuperblockSlotBytes, Done::to<&SuperblockPair::on_copy_read>(*this));
    return;
  }
  using Kind = SuperblockVerdict::Kind;
  verdict_ = judge_superblocks(copies_);
  const bool is_chosen = verdict_.kind == Kind::good || verdict_.kind == Kind::one_only;
  is_repair_needed_ = is_chosen && verdict_.is_repair_needed;
  if (is_chosen) current_ = copies_[verdict_.chosen].superblock;
  const bool is_at_end = device_bytes_ == round_down_to_page(io_.device_bytes());
  // Damage at the end may be what a power cut left of a move, with the former ones still whole.
  const bool is_missing = verdict_.kind == Kind::none || verdict_.kind == Kind::damaged;
  const bool is_found = is_at_end ? !is_missing : verdict_.kind == Kind::from_the_future;
  if (is_at_end) found_at_end_ = copies_;
  if (placement_ == Placement::external || is_found) return finish_read();
  if (!is_at_end && is_chosen && current_.layout.data_device_bytes == device_bytes_) {
    RB_PROBE("superblocks_found_before_the_end");
    log_info("the metadata is at byte {} of a device of {} bytes, which has grown: resize takes the new part into use",
             device_bytes_ - 2 * kSuperblockSlotBytes, io_.device_bytes());
    return finish_read();
  }
  search();
}

void SuperblockPair::finish_read() {
  const Done done = done_;
  done({});
}

/// The device may have grown while nobody had it open.
void SuperblockPair::search() {
  const std::uint64_t end_bytes = round_down_to_page(io_.device_bytes());
  const auto former_bytes = former_size(end_bytes, device_bytes_);
  if (!former_bytes) {
    device_bytes_ = end_bytes;
    copies_ = found_at_end_;
    verdict_ = judge_superblocks(copies_);
    is_repair_needed_ = false;
    return finish_read();
  }
  device_bytes_ = *former_bytes;
  io_.read(offset_bytes(0), kPageBytes, Done::to<&SuperblockPair::on_probed>(*this));
}

void SuperblockPair::on_probed(IoResult result) {
  if (result && has_superblock_magic(io_.memory().first(kPageBytes))) return read_copies();
  search();
}

void SuperblockPair::make_durable(Done done) {
  RB_ASSERT(!is_durable_);  // `done` must not be called from here.
  done_ = done;
  steps_count_ = step_ = 0;
  if (is_repair_needed_) add_step({static_cast<std::uint8_t>(1 - verdict_.chosen), false});
  begin();
}

void SuperblockPair::write(Superblock superblock, Done done) {
  done_ = done;
  next_ = std::move(superblock);
  next_.sequence = current_.sequence + 1;
  steps_count_ = step_ = 0;
  if (is_repair_needed_) add_step({static_cast<std::uint8_t>(1 - verdict_.chosen), false});
  add_step({0, true});
  add_step({1, true});
  begin();
}

/// What was read may be in the device's cache only, left there by a daemon that was killed before it could flush: one
/// copy must be durable before the other one is touched.
void SuperblockPair::begin() {
  if (is_durable_) {
    run_step();
  } else {
    io_.flush(Done::to<&SuperblockPair::on_chosen_flushed>(*this));
  }
}

void SuperblockPair::on_chosen_flushed(IoResult result) {
  if (!result) {
    finish(result);
    return;
  }
  is_durable_ = true;
  run_step();
}

void SuperblockPair::write_first(Superblock superblock, Done done) {
  current_ = {};
  is_repair_needed_ = false;
  is_whole_slot_ = true;
  write(std::move(superblock), done);
}

void SuperblockPair::move(Superblock superblock, Done done) {
  former_device_bytes_ = std::exchange(device_bytes_, round_down_to_page(io_.device_bytes()));
  moved_ = done;
  is_repair_needed_ = false;
  is_whole_slot_ = true;
  write(std::move(superblock), Done::to<&SuperblockPair::on_moved>(*this));
}

/// So that nobody takes the former ones for this volume's.
void SuperblockPair::on_moved(IoResult result) {
  const Done done = moved_;
  if (!result) return done(result);
  done_ = done;
  constexpr std::uint64_t kBothBytes = 2 * kSuperblockSlotBytes;
  std::fill_n(io_.memory().begin(), kBothBytes, std::byte{0});
  io_.write(former_device_bytes_ - kBothBytes, kBothBytes, Done::to<&SuperblockPair::on_wiped>(*this));
}

void SuperblockPair::wipe(Done done) {
  done_ = done;
  device_bytes_ = round_down_to_page(io_.device_bytes());
  std::fill_n(io_.memory().begin(), 2 * kSuperblockSlotBytes, std::byte{0});
  // The slots are neighbours in both placements.
  io_.write(offset_bytes(0), 2 * kSuperblockSlotBytes, Done::to<&SuperblockPair::on_wiped>(*this));
}

void SuperblockPair::on_wiped(IoResult result) {
  if (!result) {
    const Done done = done_;
    done(result);
    return;
  }
  io_.flush(done_);
}

void SuperblockPair::run_step() {
  if (step_ == steps_count_) {
    finish({});
    return;
  }
  const Step step = steps_[step_];
  const std::size_t used_bytes =
      encode_superblock(step.is_next ? next_ : current_, step.copy, io_.memory().first(kSuperblockSlotBytes));
  io_.write(offset_bytes(step.copy), is_whole_slot_ ? kSuperblockSlotBytes : used_bytes,
            Done::to<&SuperblockPair::on_copy_written>(*this));
}

void SuperblockPair::on_copy_written(IoResult result) {
  if (!result) {
    finish(result);
    return;
  }
  // The other copy may only be touched when this one would survive a power cut.
  io_.flush(Done::to<&SuperblockPair::on_copy_flushed>(*this));
}

void SuperblockPair::on_copy_flushed(IoResult result) {
  if (!result) {
    finish(result);
    return;
  }
  if (!steps_[step_].is_next) is_repair_needed_ = false;
  ++step_;
  run_step();
}

void SuperblockPair::finish(IoResult result) {
  if (!result) is_durable_ = false;
  if (result && steps_count_ > 0 && steps_[steps_count_ - 1].is_next) current_ = std::move(next_);
  is_whole_slot_ = false;
  const Done done = done_;
  done(result);
}

}  // namespace replblk::blockdev
