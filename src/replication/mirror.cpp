#include "replication/mirror.hpp"

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"

namespace replblk::replication {

using blockdev::BlockOp;
using blockdev::BlockRequest;
using blockdev::BlockStatus;
using blockdev::RangeLock;

namespace {

// Enough for 4 sessions with full command windows; more wait in order.
constexpr std::size_t kRequestsMax = 512;
constexpr std::uint64_t kLevelBytesMax = 65536;

FrameType frame_type(BlockOp op) {
  switch (op) {
    case BlockOp::write:
    case BlockOp::compare_and_write:
      return FrameType::write;
    case BlockOp::discard:
      return FrameType::discard;
    case BlockOp::write_zeroes:
      return FrameType::write_zeroes;
    case BlockOp::read:
    case BlockOp::flush:
      break;
  }
  RB_UNREACHABLE();
}

}  // namespace

Mirror::Mirror(ports::World world, blockdev::Store& store, PeerLink& link, std::uint16_t volume, bool is_replicated)
    : world_(world),
      store_(store),
      geometry_(store.geometry()),
      link_(link),
      volume_(volume),
      is_replicated_(is_replicated),
      peer_copy_(store.dirty(), store.geometry().size_bytes, store.geometry().has_write_cache),
      slots_(kRequestsMax),
      deferred_(Callback<void()>::to<&Mirror::run_deferred>(*this)) {
  round_local_.op = BlockOp::flush;
  round_local_.on_complete = Callback<void(BlockRequest&)>::to<&Mirror::on_round_local>(*this);
  round_peer_.on_answer = Callback<void(PeerAnswer)>::to<&Mirror::on_round_peer>(*this);
  store.activity_log().set_flusher(Callback<void()>::to<&Mirror::on_flush_wanted>(*this));
}

Mirror::~Mirror() {
  RB_ASSERT(is_idle() && !is_round_running_ && held_requests_.empty() && held_answers_.empty());
  store_.activity_log().set_flusher({});
}

// ---- the role and the gate -------------------------------------------------------------------------------------

void Mirror::submit(BlockRequest& request) noexcept {
  if (!is_serving_) {
    request.status = BlockStatus::not_serving;
    dropped_.push_back(request);
    world_.loop.defer(deferred_);
    return;
  }
  if (is_frozen_) {
    held_requests_.push_back(request);
    return;
  }
  start(request);
}

void Mirror::set_serving(bool is_serving) noexcept {
  is_serving_ = is_serving;
  if (is_serving) return;
  // What is in flight finishes on the copies, but nobody hears of it: its initiators' connections are being reset.
  for (RequestList* list : {&held_requests_, &held_answers_, &waiting_}) {
    while (BlockRequest* request = list->pop_front()) {
      request->status = BlockStatus::not_serving;
      dropped_.push_back(*request);
    }
  }
  if (!dropped_.empty()) world_.loop.defer(deferred_);
}

void Mirror::run_deferred() {
  while (BlockRequest* request = dropped_.pop_front()) request->on_complete(*request);
}

void Mirror::freeze() noexcept {
  is_frozen_ = true;
  // Requests that wait for a slot have not begun: they are held like new ones.
  held_requests_.splice_back(waiting_);
}

void Mirror::thaw() noexcept {
  is_frozen_ = false;
  while (!is_frozen_) {
    BlockRequest* request = held_answers_.pop_front();
    if (request == nullptr) break;
    request->on_complete(*request);
  }
  while (!is_frozen_) {
    BlockRequest* request = held_requests_.pop_front();
    if (request == nullptr) break;
    start(*request);
  }
}

void Mirror::answer(BlockRequest& upper) noexcept {
  if (!is_serving_) {
    upper.status = BlockStatus::not_serving;
  } else if (is_frozen_ || (may_answer_ && !may_answer_())) {
    held_answers_.push_back(upper);
    return;
  }
  upper.on_complete(upper);
}

// ---- one request -----------------------------------------------------------------------------------------------

void Mirror::start(BlockRequest& upper) {
  Request* request = slots_.acquire();
  if (request == nullptr) {
    RB_PROBE("request_waits_for_slot");
    waiting_.push_back(upper);
    return;
  }
  if (request->mirror == nullptr) {
    request->mirror = this;
    request->log_claim.on_active = Callback<void(bool)>::to<&Request::on_active>(*request);
    request->claim.on_granted = Callback<void()>::to<&Request::on_granted>(*request);
    request->peer.on_answer = Callback<void(PeerAnswer)>::to<&Request::on_peer_answer>(*request);
    request->flush.on_flushed = Callback<void(bool)>::to<&Request::on_flushed>(*request);
  }
  request->upper = &upper;
  request->pending = 0;
  request->is_at_peer = false;
  request->started = world_.loop.now();
  upper.status = BlockStatus::good;
  if (upper.op == BlockOp::flush) {
    request->is_claimed = false;
    flush(request->flush);
    return;
  }
  request->is_claimed = true;
  const auto mode = upper.is_change() ? RangeLock::Mode::exclusive : RangeLock::Mode::shared;
  if (store_.ranges().acquire(request->claim, upper.offset_bytes, upper.length_bytes, mode)) begin(*request);
}

void Mirror::Request::on_granted() { mirror->begin(*this); }

void Mirror::begin(Request& request) {
  const BlockRequest& upper = *request.upper;
  BlockRequest& local = request.local;
  local.op = upper.op;
  local.is_fua = upper.is_fua;
  local.offset_bytes = upper.offset_bytes;
  local.length_bytes = upper.length_bytes;
  local.status = BlockStatus::good;
  local.on_complete = Callback<void(BlockRequest&)>::to<&Request::on_local_done>(request);
  if (upper.op == BlockOp::compare_and_write) {
    begin_compare(request);
    return;
  }
  if (upper.buffer) local.buffer = upper.buffer.share();
  local.buffer_offset_bytes = upper.buffer_offset_bytes;
  if (upper.op == BlockOp::read) {
    request.pending = 1;
    store_.submit(local);
    return;
  }
  begin_change(request);
}

void Mirror::begin_change(Request& request) {
  request.data_offset_bytes = request.local.buffer_offset_bytes;
  begin_piece(request, request.upper->offset_bytes);
}

/// protocol.md 4 step 2: the extents are active, durably, before the data goes anywhere.
void Mirror::begin_piece(Request& request, std::uint64_t offset_bytes) {
  const BlockRequest& upper = *request.upper;
  BlockRequest& local = request.local;
  local.offset_bytes = offset_bytes;
  local.length_bytes = upper.end_bytes() - offset_bytes;
  if (!is_replicated_) return write_copies(request);
  local.length_bytes = store_.activity_log().piece_bytes(offset_bytes, local.length_bytes);
  local.buffer_offset_bytes = request.data_offset_bytes + static_cast<std::uint32_t>(offset_bytes - upper.offset_bytes);
  if (store_.activity_log().acquire(request.log_claim, local.offset_bytes, local.length_bytes)) write_copies(request);
}

void Mirror::Request::on_active(bool is_active) {
  if (rescue == Rescue::mending) {
    // What was read at the peer is good, whatever becomes of the block here.
    is_active ? mirror->write_mended(*this) : mirror->end_rescue(*this);
    return;
  }
  if (is_active) {
    mirror->write_copies(*this);
    return;
  }
  upper->status = BlockStatus::io_error;
  mirror->finish(*this);
}

/// protocol.md 4 step 3: the local write and the frame leave together.
void Mirror::write_copies(Request& request) {
  const BlockRequest& local = request.local;
  if (is_mirroring_) {
    FrameHeader header;
    header.type = frame_type(local.op);
    header.is_durable = local.is_fua;
    header.volume = volume_;
    header.offset_bytes = local.offset_bytes;
    header.length_bytes = local.length_bytes;
    request.pending = 2;
    request.is_at_peer = true;
    if (header.type == FrameType::write) {
      link_.send(request.peer, header, local.buffer, local.buffer_offset_bytes);
    } else {
      link_.send(request.peer, header);
    }
  } else {
    request.pending = 1;
    if (is_replicated_) store_.dirty().set(local.offset_bytes, local.length_bytes);
  }
  store_.submit(request.local);
}

void Mirror::Request::on_local_done(BlockRequest&) {
  if (local.status == BlockStatus::io_error && upper->op == BlockOp::read && mirror->is_reading_at_peer_)
    return mirror->read_at_peer(*this);
  if (local.status != BlockStatus::good) {
    upper->status = local.status;
    // The copies may differ now: the range stays in the resync set.
    RB_PROBE("own_disk_failed_a_request");
    if (upper->is_change() && mirror->is_replicated_) {
      mirror->peer_copy_.own_copy_failed({local.offset_bytes, local.length_bytes});
      if (local.status == BlockStatus::io_error) mirror->tell_failed(local.status);
    }
    // A read too: its buffer is the device's still, so nothing can be put there instead (protocol.md 7).
    if (local.status == BlockStatus::timed_out) mirror->tell_failed(local.status);
  }
  mirror->part_done(*this);
}

void Mirror::tell_failed(BlockStatus status) {
  if (on_failed_) on_failed_(status == BlockStatus::timed_out);
}

void Mirror::Request::on_peer_answer(PeerAnswer answer) {
  if (rescue == Rescue::reading) return mirror->read_at_peer_done(*this, answer);
  if (rescue == Rescue::levelling) return mirror->levelled(*this, answer);
  if (answer == PeerAnswer::done && local.status == BlockStatus::good) {
    mirror->peer_copy_.acknowledged({local.offset_bytes, local.length_bytes}, local.is_fua);
  } else {
    mirror->store_.dirty().set(local.offset_bytes, local.length_bytes);
  }
  mirror->part_done(*this);
}

void Mirror::Request::on_flushed(bool is_good) {
  if (!is_good) {
    RB_PROBE("flush_failed");
    upper->status = BlockStatus::io_error;
  }
  mirror->finish(*this);
}

void Mirror::part_done(Request& request) {
  RB_ASSERT(request.pending > 0);
  if (--request.pending > 0) return;
  const BlockRequest& upper = *request.upper;
  if (!upper.is_change()) return finish(request);
  const bool is_uneven = upper.status == BlockStatus::no_space && request.is_at_peer && is_mirroring_;
  if (is_uneven && request.rescue == Request::Rescue::none) return level(request);
  piece_done(request);
}

void Mirror::piece_done(Request& request) {
  const BlockRequest& upper = *request.upper;
  // What was refused may have left something in the caches, as may what made the copies even again.
  const bool is_durable = (upper.is_fua && upper.status == BlockStatus::good) || !geometry().has_write_cache;
  if (is_replicated_) store_.activity_log().release(request.log_claim, is_durable);
  const std::uint64_t done_bytes = request.local.end_bytes();
  if (upper.status != BlockStatus::good || done_bytes == upper.end_bytes()) return finish(request);
  request.is_at_peer = false;
  begin_piece(request, done_bytes);
}

void Mirror::finish(Request& request) {
  BlockRequest& upper = *request.upper;
  request.local.buffer.reset();
  const bool is_claimed = request.is_claimed;
  // Flushes claim nothing: what they take is another matter than what initiators read and write.
  if (is_claimed && on_latency_) on_latency_(world_.loop.now() - request.started);
  if (is_claimed) store_.ranges().release(request.claim);
  slots_.release(request);
  answer(upper);
  if (BlockRequest* next = is_frozen_ ? nullptr : waiting_.pop_front()) start(*next);
  if (is_idle() && on_idle_) on_idle_();
}

// ---- what cannot be read here ----------------------------------------------------------------------------------

/// Nothing that overlaps is in flight on either copy: the range is claimed.
void Mirror::read_at_peer(Request& request) {
  request.rescue = Request::Rescue::reading;
  FrameHeader header;
  header.type = FrameType::read_request;
  header.volume = volume_;
  header.offset_bytes = request.local.offset_bytes;
  header.length_bytes = request.local.length_bytes;
  request.peer.answer_bytes = static_cast<std::uint32_t>(request.local.length_bytes);
  link_.send(request.peer, header);
}

void Mirror::read_at_peer_done(Request& request, PeerAnswer answer) {
  request.peer.answer_bytes = 0;
  const BufferRef data = request.peer.take_data();
  BlockRequest& local = request.local;
  if (answer != PeerAnswer::done || !data) {
    RB_PROBE("no_copy_can_read");
    request.rescue = Request::Rescue::none;
    request.upper->status = BlockStatus::io_error;
    request.upper->op == BlockOp::read ? part_done(request) : finish(request);
    return;
  }
  RB_PROBE("read_at_the_peer");
  log_warning("volume {}: bytes {} to +{} cannot be read here: read from the peer and written back", volume_,
              local.offset_bytes, local.length_bytes);
  std::memcpy(local.data(), data.data(), static_cast<std::size_t>(local.length_bytes));
  request.rescue = Request::Rescue::mending;
  request.data_offset_bytes = local.buffer_offset_bytes;
  mend_piece(request, request.upper->offset_bytes);
}

/// Like a write, a crash in the middle of it must find the extent active.
void Mirror::mend_piece(Request& request, std::uint64_t offset_bytes) {
  const BlockRequest& upper = *request.upper;
  BlockRequest& local = request.local;
  local.offset_bytes = offset_bytes;
  local.length_bytes = store_.activity_log().piece_bytes(offset_bytes, upper.end_bytes() - offset_bytes);
  local.buffer_offset_bytes = request.data_offset_bytes + static_cast<std::uint32_t>(offset_bytes - upper.offset_bytes);
  if (store_.activity_log().acquire(request.log_claim, local.offset_bytes, local.length_bytes)) write_mended(request);
}

void Mirror::write_mended(Request& request) {
  BlockRequest& local = request.local;
  local.op = BlockOp::write;
  local.status = BlockStatus::good;
  local.on_complete = Callback<void(BlockRequest&)>::to<&Request::on_mended>(request);
  store_.submit(local);
}

void Mirror::Request::on_mended(BlockRequest&) {
  mirror->store_.activity_log().release(log_claim, !mirror->geometry().has_write_cache);
  const std::uint64_t done_bytes = local.end_bytes();
  if (local.status == BlockStatus::good && done_bytes < upper->end_bytes())
    return mirror->mend_piece(*this, done_bytes);
  const bool is_failed = local.status == BlockStatus::io_error || local.status == BlockStatus::timed_out;
  if (is_failed) mirror->tell_failed(local.status);
  if (local.status == BlockStatus::good) ++mirror->mended_reads_count_;
  mirror->end_rescue(*this);
}

/// The read goes on as if it had succeeded here.
void Mirror::end_rescue(Request& request) {
  BlockRequest& local = request.local;
  const BlockRequest& upper = *request.upper;
  request.rescue = Request::Rescue::none;
  local.op = BlockOp::read;
  local.status = BlockStatus::good;
  local.offset_bytes = upper.offset_bytes;
  local.length_bytes = upper.length_bytes;
  local.buffer_offset_bytes = request.data_offset_bytes;
  upper.op == BlockOp::read ? request.on_local_done(local) : request.on_compare_read(local);
}

// ---- no room here ----------------------------------------------------------------------------------------------

/// The own file system had no room, and the peer may have done it: nobody may read there what is refused here, not even
/// after a change of roles. Still under the claim, which is for whole granules, the peer gets what is here: whole ones
/// too, so that their bits can go (where a bit stands for more, it stays until the next resync). A discard needs no
/// room, so the range is data.
void Mirror::level(Request& request) {
  RB_PROBE("no_room_here");
  constexpr std::uint64_t kGranule = blockdev::RangeLock::kGranuleBytes;
  const BlockRequest& local = request.local;
  request.rescue = Request::Rescue::levelling;
  request.level_losses_count = peer_copy_.losses_count();
  request.level_begin_bytes = local.offset_bytes / kGranule * kGranule;
  request.level_end_bytes = std::min((local.end_bytes() + kGranule - 1) / kGranule * kGranule, geometry_.size_bytes);
  // What the initiator sent is not needed any more; a write takes no other memory, since those who wait for its range
  // may hold all there is.
  request.level_piece_bytes = local.buffer ? local.length_bytes : kLevelBytesMax;
  level_piece(request, request.level_begin_bytes);
}

void Mirror::level_piece(Request& request, std::uint64_t offset_bytes) {
  BlockRequest& local = request.local;
  local.offset_bytes = offset_bytes;
  local.length_bytes = std::min(request.level_end_bytes - offset_bytes, request.level_piece_bytes);
  if (local.buffer) return request.read_to_level();
  request.own_buffer.length_bytes = local.length_bytes;
  request.own_buffer.on_buffer = Callback<void(BufferRef)>::to<&Request::on_level_buffer>(request);
  if (BufferRef buffer = world_.buffers.acquire_or_wait(request.own_buffer)) request.on_level_buffer(std::move(buffer));
}

void Mirror::Request::on_level_buffer(BufferRef buffer) {
  local.buffer = std::move(buffer);
  local.buffer_offset_bytes = 0;
  read_to_level();
}

void Mirror::Request::read_to_level() {
  local.op = BlockOp::read;
  local.is_fua = false;
  local.status = BlockStatus::good;
  local.on_complete = Callback<void(BlockRequest&)>::to<&Request::on_level_read>(*this);
  mirror->store_.submit(local);
}

void Mirror::Request::on_level_read(BlockRequest&) {
  if (local.status == BlockStatus::timed_out) mirror->tell_failed(local.status);
  if (local.status != BlockStatus::good || !mirror->is_mirroring_ || !mirror->link_.is_attached()) {
    rescue = Rescue::none;
    mirror->piece_done(*this);
    return;
  }
  FrameHeader header;
  header.type = FrameType::write;
  header.volume = mirror->volume_;
  header.offset_bytes = local.offset_bytes;
  header.length_bytes = local.length_bytes;
  mirror->link_.send(peer, header, local.buffer, local.buffer_offset_bytes);
}

void Mirror::levelled(Request& request, PeerAnswer answer) {
  const BlockRequest& local = request.local;
  if (answer != PeerAnswer::done) {
    store_.dirty().set(local.offset_bytes, request.level_end_bytes - local.offset_bytes);
  } else {
    const std::uint64_t done_bytes = local.end_bytes();
    if (done_bytes < request.level_end_bytes) return level_piece(request, done_bytes);
    // All at once: pieces have the length of what was sent, and may each be less than a block.
    const std::uint64_t level_bytes = request.level_end_bytes - request.level_begin_bytes;
    if (peer_copy_.losses_count() == request.level_losses_count)
      peer_copy_.acknowledged({request.level_begin_bytes, level_bytes}, false);
  }
  request.rescue = Request::Rescue::none;
  piece_done(request);
}

// ---- compare and write -----------------------------------------------------------------------------------------

void Mirror::begin_compare(Request& request) {
  request.own_buffer.length_bytes = request.upper->length_bytes;
  request.own_buffer.on_buffer = Callback<void(BufferRef)>::to<&Request::on_compare_buffer>(request);
  if (BufferRef buffer = world_.buffers.acquire_or_wait(request.own_buffer)) {
    request.on_compare_buffer(std::move(buffer));
  }
}

void Mirror::Request::on_compare_buffer(BufferRef buffer) {
  local.op = BlockOp::read;
  local.is_fua = false;
  local.buffer = std::move(buffer);
  local.buffer_offset_bytes = 0;
  local.on_complete = Callback<void(BlockRequest&)>::to<&Request::on_compare_read>(*this);
  mirror->store_.submit(local);
}

void Mirror::Request::on_compare_read(BlockRequest&) {
  if (local.status == BlockStatus::io_error && mirror->is_reading_at_peer_) return mirror->read_at_peer(*this);
  if (local.status != BlockStatus::good) {
    upper->status = local.status;
    if (local.status == BlockStatus::timed_out) mirror->tell_failed(local.status);
    mirror->finish(*this);
    return;
  }
  const std::size_t length = static_cast<std::size_t>(upper->length_bytes);
  const std::byte* expected = upper->data();
  const std::byte* found = local.data();
  const auto differs = std::mismatch(expected, expected + length, found);
  if (differs.first != expected + length) {
    upper->status = BlockStatus::miscompare;
    upper->miscompare_offset_bytes = static_cast<std::uint32_t>(differs.first - expected);
    mirror->finish(*this);
    return;
  }
  local.op = BlockOp::write;
  local.is_fua = upper->is_fua;
  local.buffer = upper->buffer.share();
  local.buffer_offset_bytes = upper->buffer_offset_bytes + static_cast<std::uint32_t>(length);
  local.on_complete = Callback<void(BlockRequest&)>::to<&Request::on_local_done>(*this);
  mirror->begin_change(*this);
}

// ---- flush -----------------------------------------------------------------------------------------------------

void Mirror::flush(FlushWaiter& waiter) {
  next_round_.push_back(waiter);
  if (!is_round_running_) start_flush_round();
}

/// The activity log runs short of slots that may be given to other extents.
void Mirror::on_flush_wanted() {
  if (!is_round_running_) start_flush_round();
}

void Mirror::start_flush_round() {
  RB_ASSERT(!is_round_running_ && round_.empty());
  is_round_running_ = true;
  is_round_good_ = true;
  round_.splice_back(next_round_);
  is_round_at_peer_ = is_mirroring_ && link_.is_attached();
  round_pending_ = 1;
  round_local_.status = BlockStatus::good;
  store_.activity_log().flush_begins();
  if (is_round_at_peer_) {
    round_pending_ = 2;
    peer_copy_.flush_begins();
    FrameHeader header;
    header.type = FrameType::flush;
    header.volume = volume_;
    link_.send(round_peer_, header);
  }
  store_.submit(round_local_);
}

void Mirror::on_round_local(BlockRequest& request) {
  if (request.status != BlockStatus::good) {
    is_round_good_ = false;
    tell_failed(request.status);
  }
  round_part_done();
}

void Mirror::on_round_peer(PeerAnswer answer) {
  // A lost peer flushed nothing that anybody may count on: peer_lost() makes those blocks dirty.
  if (answer == PeerAnswer::done) peer_copy_.flush_done();
  round_part_done();
}

void Mirror::round_part_done() {
  RB_ASSERT(round_pending_ > 0);
  if (--round_pending_ > 0) return;
  is_round_running_ = false;
  const bool is_good = is_round_good_;  // The next round begins with its own.
  // What a lost peer had not flushed is dirty by now, which is as good as its flush.
  store_.activity_log().flush_done(is_good);
  FlushList done;
  done.splice_back(round_);
  if (!next_round_.empty()) start_flush_round();
  while (FlushWaiter* waiter = done.pop_front()) waiter->on_flushed(is_good);
}

bool Mirror::take_size() {
  if (peer_copy_.volume_size_bytes() == store_.geometry().size_bytes) return false;
  geometry_ = store_.geometry();
  peer_copy_.grow(geometry_.size_bytes);
  return true;
}

void Mirror::peer_lost() {
  is_mirroring_ = false;
  is_reading_at_peer_ = false;
  peer_copy_.lost();
}

void Mirror::tick() {
  const bool is_unstable = is_mirroring_ && peer_copy_.needs_flush();
  if (is_unstable && was_unstable_at_tick_ && !is_round_running_) start_flush_round();
  was_unstable_at_tick_ = is_unstable;
}

}  // namespace replblk::replication
