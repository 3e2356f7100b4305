#include "blockdev/superblock_pair.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace replblk::blockdev {

using IoResult = Result<void, ports::IoError>;

SuperblockPair::SuperblockPair(MetadataIo& io, Placement placement) : io_(io), placement_(placement) {}

std::uint64_t SuperblockPair::offset_bytes(std::uint8_t copy) const noexcept {
  const auto offsets = superblock_offsets(placement_, io_.device_bytes());
  RB_ASSERT(offsets.has_value());
  return (*offsets)[copy];
}

void SuperblockPair::read(Done done) {
  done_ = done;
  reading_ = 0;
  is_durable_ = false;
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
  const Done done = done_;
  done({});
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

void SuperblockPair::wipe(Done done) {
  done_ = done;
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
