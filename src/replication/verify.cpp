#include "replication/verify.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "replication/block_checksums.hpp"

namespace replblk::replication {

using blockdev::BlockOp;
using blockdev::BlockRequest;
using blockdev::BlockStatus;
using blockdev::ByteRange;

namespace {

constexpr std::size_t kPiecesMax = 16;

}  // namespace

Verify::Verify(ports::World world, blockdev::Store& store, Mirror& mirror, PeerLink& link, ResyncGovernor& governor,
               std::uint16_t volume)
    : world_(world),
      store_(store),
      mirror_(mirror),
      link_(link),
      governor_(governor),
      volume_(volume),
      pump_task_(Callback<void()>::to<&Verify::pump>(*this)),
      timer_(Callback<void()>::to<&Verify::pump>(*this)) {
  for (std::size_t index = 0; index < kPiecesMax; ++index) {
    auto piece = std::make_unique<Piece>();
    piece->verify = this;
    piece->claim.on_granted = Callback<void()>::to<&Piece::on_granted>(*piece);
    piece->buffer.on_buffer = Callback<void(BufferRef)>::to<&Piece::on_buffer>(*piece);
    piece->peer.on_answer = Callback<void(PeerAnswer)>::to<&Piece::on_answer>(*piece);
    pieces_.push_back(std::move(piece));
  }
}

Verify::~Verify() {
  RB_ASSERT(is_idle());
  world_.loop.cancel(timer_);
}

void Verify::start(ByteRange range, Callback<void()> done) {
  RB_ASSERT(!is_running_ && range.length_bytes > 0 && range.offset_bytes < store_.geometry().size_bytes);
  const std::uint64_t block = store_.dirty().block_bytes();
  const std::uint64_t size = store_.geometry().size_bytes;
  const std::uint64_t begin = range.offset_bytes / block * block;
  const std::uint64_t wanted_end = std::min(range.end_bytes(), size);
  const std::uint64_t end_bytes = std::min((wanted_end + block - 1) / block * block, size);
  report_ = {};
  report_.is_known = true;
  report_.range = {begin, end_bytes - begin};
  is_running_ = true;
  done_ = done;
  cursor_bytes_ = begin;
  governor_.set_copying(true, world_.loop.now());
  meter_.start(world_.loop.now(), report_.range.length_bytes);
  world_.loop.defer(pump_task_);
}

void Verify::stop(const std::string& why) {
  if (!is_running_) return;
  report_.failure = why;
  is_running_ = false;
  governor_.set_copying(false, world_.loop.now());
  pump_task_.unlink();
  world_.loop.cancel(timer_);
  for (const auto& piece : pieces_) {
    // A piece that waits for its range or for memory has touched nothing: it ends here.
    const bool waits_for_range = piece->is_used && piece->claim.is_waiting();
    const bool waits_for_memory = piece->is_used && piece->buffer.is_linked();
    if (waits_for_memory) world_.buffers.cancel(piece->buffer);
    if (waits_for_range || waits_for_memory) finish(*piece);
  }
}

void Verify::pump() {
  if (!is_running_) return;
  for (const auto& piece : pieces_) {
    if (cursor_bytes_ >= report_.range.end_bytes()) break;
    if (piece->is_used) continue;
    const ResyncGovernor::Allowance allowance = governor_.allowance(world_.loop.now(), mirror_.in_flight_count() > 0);
    if (!allowance.may_begin) {
      if (!timer_.is_armed()) world_.loop.arm(timer_, allowance.ask_again);
      return;
    }
    start_piece(*piece, allowance.piece_bytes_max);
  }
  if (in_flight_count_ == 0 && cursor_bytes_ >= report_.range.end_bytes()) end(true);
}

void Verify::end(bool is_complete) {
  is_running_ = false;
  report_.is_complete = is_complete;
  governor_.set_copying(false, world_.loop.now());
  world_.loop.cancel(timer_);
  pump_task_.unlink();
  done_();
}

void Verify::start_piece(Piece& piece, std::uint64_t length_bytes_max) {
  const std::uint64_t block = store_.dirty().block_bytes();
  const std::uint64_t length = std::max(length_bytes_max / block * block, block);
  piece.range = {cursor_bytes_, std::min(length, report_.range.end_bytes() - cursor_bytes_)};
  cursor_bytes_ = piece.range.end_bytes();
  piece.is_used = true;
  ++in_flight_count_;
  governor_.began(piece.range.length_bytes);
  piece.buffer.length_bytes = piece.range.length_bytes;
  if (BufferRef memory = world_.buffers.acquire_or_wait(piece.buffer)) piece.on_buffer(std::move(memory));
}

/// Memory before the range: writes that wait for the range hold memory, and would be waited for in a circle.
void Verify::Piece::on_buffer(BufferRef memory) {
  if (!verify->is_running_) {
    verify->finish(*this);
    return;
  }
  local.buffer = std::move(memory);
  if (verify->store_.ranges().acquire(claim, range.offset_bytes, range.length_bytes,
                                      blockdev::RangeLock::Mode::shared)) {
    on_granted();
  }
}

/// Nothing is in flight in the range here, and a write is answered here only when the peer has it: nothing is there
/// either, but what was refused, which ends the connection. Both disks read at the same time.
void Verify::Piece::on_granted() {
  if (!verify->is_running_ || !verify->link_.is_attached()) {
    verify->finish(*this);
    return;
  }
  is_lost = false;
  pending = 2;
  FrameHeader header;
  header.type = FrameType::checksum_request;
  header.volume = verify->volume_;
  header.offset_bytes = range.offset_bytes;
  header.length_bytes = range.length_bytes;
  peer.answer_bytes = static_cast<std::uint32_t>(
      checksum_count(range.length_bytes, verify->store_.dirty().block_bytes()) * kChecksumBytes);
  verify->link_.send(peer, header);
  local.op = BlockOp::read;
  local.offset_bytes = range.offset_bytes;
  local.length_bytes = range.length_bytes;
  local.buffer_offset_bytes = 0;
  local.status = BlockStatus::good;
  local.on_complete = Callback<void(BlockRequest&)>::to<&Piece::on_read>(*this);
  verify->store_.submit(local);
}

void Verify::Piece::on_read(BlockRequest&) { part_done(); }

void Verify::Piece::on_answer(PeerAnswer answer) {
  is_lost = answer == PeerAnswer::lost;
  if (!is_lost) theirs.assign(peer.answer().begin(), peer.answer().end());
  part_done();
}

void Verify::Piece::part_done() {
  if (--pending > 0) return;
  if (verify->is_running_ && !is_lost) compare();
  verify->finish(*this);
}

void Verify::Piece::compare() {
  Report& report = verify->report_;
  if (local.status != BlockStatus::good) {
    report.failure = fmt::format("bytes {} to +{} cannot be read here: {}", range.offset_bytes, range.length_bytes,
                                 to_string(local.status));
    verify->cursor_bytes_ = report.range.end_bytes();
    return;
  }
  std::vector<ByteRange> differing;
  if (theirs.empty()) {
    log_error("verify: volume {}: bytes {} to +{} cannot be read at the peer: taken for different", verify->volume_,
              range.offset_bytes, range.length_bytes);
    differing.push_back(range);
  } else {
    differing = differing_ranges(range.offset_bytes, local.buffer.bytes(0, range.length_bytes),
                                 verify->store_.dirty().block_bytes(), theirs, 0);
  }
  for (const ByteRange& part : differing) {
    verify->store_.dirty().set(part.offset_bytes, part.length_bytes);
    report.differences.add(part);
    if (report.differences.ranges_count() > DifferenceList::kListedMax) continue;  // The log stays readable.
    log_error("verify: volume {}: the copies differ in bytes {} to +{}", verify->volume_, part.offset_bytes,
              part.length_bytes);
  }
  // A dirty block that is equal has been written over since: the next flush of the peer takes its bit away.
  if (differing.empty() && verify->store_.dirty().is_dirty(range.offset_bytes, range.length_bytes)) {
    verify->mirror_.peer_copy().acknowledged(range, false);
  }
  report.compared_bytes += range.length_bytes;
  verify->meter_.sample(verify->world_.loop.now(), report.range.length_bytes - report.compared_bytes);
}

void Verify::finish(Piece& piece) {
  piece.local.buffer.reset();
  piece.is_used = false;
  --in_flight_count_;
  governor_.ended(world_.loop.now(), piece.range.length_bytes);
  if (piece.claim.is_held() || piece.claim.is_waiting()) store_.ranges().release(piece.claim);
  if (!is_running_) return;
  if (!report_.failure.empty()) {
    if (in_flight_count_ == 0) end(false);
    return;
  }
  world_.loop.defer(pump_task_);
}

}  // namespace replblk::replication
