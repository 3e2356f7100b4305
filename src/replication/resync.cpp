#include "replication/resync.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "replication/block_checksums.hpp"

namespace replblk::replication {

using blockdev::BlockOp;
using blockdev::BlockRequest;
using blockdev::BlockStatus;

namespace {

constexpr std::size_t kPiecesMax = 16;
// So much of equal data is sent along rather than waiting for one more answer.
constexpr std::uint64_t kGapBytesMax = std::uint64_t{64} << 10;
constexpr Duration kRetryAfterError = seconds(1);

}  // namespace

Resync::Resync(ports::World world, blockdev::Store& store, Mirror& mirror, PeerLink& link, ResyncGovernor& governor,
               std::uint16_t volume)
    : world_(world),
      store_(store),
      mirror_(mirror),
      link_(link),
      governor_(governor),
      volume_(volume),
      pump_task_(Callback<void()>::to<&Resync::pump>(*this)),
      timer_(Callback<void()>::to<&Resync::on_timer>(*this)) {
  for (std::size_t index = 0; index < kPiecesMax; ++index) {
    auto piece = std::make_unique<Piece>();
    piece->resync = this;
    piece->claim.on_granted = Callback<void()>::to<&Piece::on_granted>(*piece);
    piece->buffer.on_buffer = Callback<void(BufferRef)>::to<&Piece::on_buffer>(*piece);
    piece->peer.on_answer = Callback<void(PeerAnswer)>::to<&Piece::on_answer>(*piece);
    pieces_.push_back(std::move(piece));
  }
  flush_.on_flushed = Callback<void(bool)>::to<&Resync::on_flushed>(*this);
}

Resync::~Resync() {
  RB_ASSERT(is_idle());
  world_.loop.cancel(timer_);
}

void Resync::start(ResyncMode mode, Callback<void()> done) {
  RB_ASSERT(!is_running_);
  is_running_ = true;
  mode_ = mode;
  governor_.set_copying(true, world_.loop.now());
  done_ = done;
  cursor_bytes_ = 0;
  total_bytes_ = store_.dirty().dirty_bytes();
  done_bytes_ = 0;
  equal_bytes_ = 0;
  meter_.start(world_.loop.now(), total_bytes_);
  world_.loop.defer(pump_task_);
}

void Resync::stop() noexcept {
  if (is_running_) governor_.set_copying(false, world_.loop.now());
  is_running_ = false;
  pump_task_.unlink();
  world_.loop.cancel(timer_);
  for (const auto& piece : pieces_) {
    // A piece that waits for its range or for memory has touched nothing: it ends here.
    const bool waits_for_range = piece->is_used && piece->claim.is_waiting();
    const bool waits_for_memory = piece->is_used && piece->buffer.is_linked();
    if (waits_for_range) RB_PROBE("resync_stopped_while_waiting_for_range");
    if (waits_for_memory) RB_PROBE("resync_stopped_while_waiting_for_memory");
    if (waits_for_memory) world_.buffers.cancel(piece->buffer);
    if (waits_for_range || waits_for_memory) finish(*piece);
  }
}

void Resync::set_paused(bool is_paused) noexcept {
  is_paused_ = is_paused;
  if (!is_paused_ && is_running_) world_.loop.defer(pump_task_);
}

void Resync::pump() {
  if (!is_running_ || is_paused_) return;
  for (const auto& piece : pieces_) {
    if (cursor_bytes_ >= store_.geometry().size_bytes) break;
    if (piece->is_used) continue;
    const ResyncGovernor::Allowance allowance = governor_.allowance(world_.loop.now(), mirror_.in_flight_count() > 0);
    if (!allowance.may_begin) {
      if (!timer_.is_armed()) world_.loop.arm(timer_, allowance.ask_again);
      return;
    }
    if (!start_piece(*piece, allowance.piece_bytes_max)) break;
  }
  if (in_flight_count_ > 0 || is_flush_out_ || cursor_bytes_ < store_.geometry().size_bytes) return;
  // The end of a pass: a flush of the peer clears what it has; bits that are left then need another pass.
  is_flush_out_ = true;
  mirror_.flush(flush_);
}

bool Resync::start_piece(Piece& piece, std::uint64_t length_bytes_max) {
  const auto range =
      store_.dirty().next_dirty(cursor_bytes_, std::max<std::uint64_t>(length_bytes_max, store_.dirty().block_bytes()));
  if (!range.has_value()) {
    cursor_bytes_ = store_.geometry().size_bytes;
    return false;
  }
  cursor_bytes_ = range->end_bytes();
  piece.is_used = true;
  piece.range = *range;
  ++in_flight_count_;
  governor_.began(range->length_bytes);
  piece.buffer.length_bytes = range->length_bytes;
  if (BufferRef memory = world_.buffers.acquire_or_wait(piece.buffer)) piece.on_buffer(std::move(memory));
  return true;
}

/// Memory before the range: writes that wait for the range hold memory, and would be waited for in a circle.
void Resync::Piece::on_buffer(BufferRef memory) {
  if (!resync->is_running_) {
    resync->finish(*this);
    return;
  }
  local.buffer = std::move(memory);
  if (resync->store_.ranges().acquire(claim, range.offset_bytes, range.length_bytes,
                                      blockdev::RangeLock::Mode::shared)) {
    on_granted();
  }
}

void Resync::Piece::on_granted() {
  if (!resync->is_running_) {
    resync->finish(*this);
    return;
  }
  is_lost = false;
  differing.clear();
  next_differing = 0;
  pending = 1;
  if (resync->mode_ == ResyncMode::compare_first) ask();
  local.op = BlockOp::read;
  local.offset_bytes = range.offset_bytes;
  local.length_bytes = range.length_bytes;
  local.buffer_offset_bytes = 0;
  local.status = BlockStatus::good;
  local.on_complete = Callback<void(BlockRequest&)>::to<&Piece::on_read>(*this);
  resync->store_.submit(local);
}

/// Both disks read at the same time.
void Resync::Piece::ask() {
  if (!resync->is_running_ || !resync->link_.is_attached()) return;
  FrameHeader header;
  header.type = FrameType::checksum_request;
  header.volume = resync->volume_;
  header.offset_bytes = range.offset_bytes;
  header.length_bytes = range.length_bytes;
  is_asking = true;
  ++pending;
  peer.answer_bytes = static_cast<std::uint32_t>(
      checksum_count(range.length_bytes, resync->store_.dirty().block_bytes()) * kChecksumBytes);
  resync->link_.send(peer, header);
}

void Resync::Piece::on_read(BlockRequest&) { part_done(); }

void Resync::Piece::part_done() {
  if (--pending > 0) return;
  const bool has_asked = std::exchange(is_asking, false);
  if (!resync->is_running_ || !resync->link_.is_attached() || is_lost) {
    resync->finish(*this);
    return;
  }
  if (local.status != BlockStatus::good) {
    RB_PROBE("resync_cannot_read");
    log_error("resync: volume {}: bytes {} to +{} cannot be read: {}", resync->volume_, range.offset_bytes,
              range.length_bytes, to_string(local.status));
    resync->retry_at_ = resync->world_.loop.now() + kRetryAfterError;
    resync->finish(*this);
    return;
  }
  if (has_asked && !theirs.empty()) {
    differing = differing_ranges(range.offset_bytes, local.buffer.bytes(0, range.length_bytes),
                                 resync->store_.dirty().block_bytes(), theirs, kGapBytesMax);
    std::uint64_t differing_bytes = 0;
    for (const blockdev::ByteRange& part : differing) differing_bytes += part.length_bytes;
    resync->equal_bytes_ += range.length_bytes - differing_bytes;
  } else {
    // Also what the peer cannot read: a write mends most such blocks.
    differing.push_back(range);
  }
  send_next();
}

void Resync::Piece::send_next() {
  if (next_differing == differing.size()) {
    // protocol.md 5.3: what was compared and found equal is in the peer's cache like what was written.
    resync->mirror_.peer_copy().acknowledged(range, false);
    resync->done_bytes_ += range.length_bytes;
    resync->meter_.sample(resync->world_.loop.now(), resync->left_bytes());
    resync->finish(*this);
    return;
  }
  const blockdev::ByteRange part = differing[next_differing++];
  const std::size_t at = static_cast<std::size_t>(part.offset_bytes - range.offset_bytes);
  FrameHeader header;
  header.volume = resync->volume_;
  header.offset_bytes = part.offset_bytes;
  header.length_bytes = part.length_bytes;
  peer.answer_bytes = 0;
  if (is_all_zero(local.buffer.bytes(at, part.length_bytes))) {
    header.type = FrameType::resync_zeroes;
    resync->link_.send(peer, header);
  } else {
    header.type = FrameType::resync_data;
    resync->link_.send(peer, header, local.buffer, at);
  }
}

void Resync::Piece::on_answer(PeerAnswer answer) {
  if (is_asking) {
    is_lost = answer == PeerAnswer::lost;
    if (!is_lost) theirs.assign(peer.answer().begin(), peer.answer().end());
    part_done();
    return;
  }
  if (answer == PeerAnswer::lost || !resync->is_running_ || !resync->link_.is_attached()) {
    resync->finish(*this);
    return;
  }
  send_next();
}

void Resync::finish(Piece& piece) {
  piece.local.buffer.reset();
  piece.is_used = false;
  --in_flight_count_;
  governor_.ended(world_.loop.now(), piece.range.length_bytes);
  if (piece.claim.is_held() || piece.claim.is_waiting()) store_.ranges().release(piece.claim);
  if (is_running_) world_.loop.defer(pump_task_);
}

void Resync::on_flushed(bool is_good) {
  is_flush_out_ = false;
  if (!is_running_) return;
  if (!is_good) {
    RB_PROBE("resync_cannot_flush");
    world_.loop.arm(timer_, world_.loop.now() + kRetryAfterError);
    return;
  }
  if (store_.dirty().is_clean()) {
    is_running_ = false;
    governor_.set_copying(false, world_.loop.now());
    world_.loop.cancel(timer_);
    done_();
    return;
  }
  RB_PROBE("resync_needs_another_pass");
  cursor_bytes_ = 0;
  // A block that cannot be read is not read again at once.
  if (world_.loop.now() < retry_at_) {
    world_.loop.arm(timer_, retry_at_);
  } else {
    world_.loop.defer(pump_task_);
  }
}

void Resync::on_timer() {
  if (is_running_) world_.loop.defer(pump_task_);
}

/// Bits are cleared by flushes only; what was copied in the first pass counts as done for the reader.
std::uint64_t Resync::left_bytes() const noexcept {
  const std::uint64_t dirty = store_.dirty().dirty_bytes();
  if (done_bytes_ < total_bytes_) return std::min(dirty, total_bytes_ - done_bytes_);
  return cursor_bytes_ >= store_.geometry().size_bytes ? 0 : dirty;
}

}  // namespace replblk::replication
