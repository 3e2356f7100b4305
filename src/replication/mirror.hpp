// The primary's end of a volume (protocol.md 4): every request of the initiators passes through it. Orders overlapping
// requests, writes here and at the peer in parallel, completes when both are done, flushes both, and holds requests and
// answers while the configuration is in change. Not responsible for deciding anything: Resource freezes, thaws,
// attaches the peer and says when it is lost.
//
//   request → [held while frozen] → range claim → extents active → local + peer → release → [answer held while frozen]
//           → answer
//
// A change that needs more extents than one claim of the activity log may have goes in pieces, under one range claim.
// Invariant: while two are members no change is answered before the peer's acknowledgement, unless the peer was removed
// first.
#pragma once

#include <cstdint>
#include <memory>

#include "base/slot_pool.hpp"
#include "blockdev/store.hpp"
#include "ports/world.hpp"
#include "replication/peer_copy.hpp"
#include "replication/peer_link.hpp"

namespace replblk::replication {

/// Somebody who wants everything completed so far durable on all copies that are there.
class FlushWaiter : public IntrusiveNode<FlushWaiter> {
 public:
  Callback<void(bool is_good)> on_flushed;
};

class Mirror final : public blockdev::BlockBackend {
 public:
  /// `is_replicated`: false in a single-node cluster, where no dirty set is kept.
  Mirror(ports::World world, blockdev::Store& store, PeerLink& link, std::uint16_t volume, bool is_replicated);
  ~Mirror() override;

  [[nodiscard]] const blockdev::VolumeGeometry& geometry() const noexcept override { return geometry_; }
  void submit(blockdev::BlockRequest& request) noexcept override;

  /// What initiators ask is carried out (true) or dropped with not_serving (false): the role.
  void set_serving(bool is_serving) noexcept;
  /// Frozen: new requests wait, answers wait. Thawed: both go on, in order.
  void freeze() noexcept;
  void thaw() noexcept;
  [[nodiscard]] bool is_frozen() const noexcept { return is_frozen_; }
  /// Asked before each answer, after the data was read: the mandate at this moment (protocol.md 3.2). False: the answer
  /// is held as if frozen, and whoever said so freezes.
  void set_answer_gate(Callback<bool()> may_answer) noexcept { may_answer_ = may_answer; }

  /// On: changes and flushes go to the peer too (the link is attached and the peer's bits are merged). Off, without the
  /// loss of the peer: only when both copies have been flushed.
  void set_mirroring(bool is_mirroring) noexcept { is_mirroring_ = is_mirroring; }
  [[nodiscard]] bool is_mirroring() const noexcept { return is_mirroring_; }
  /// Whether the peer's copy is whole and the peer knows read_request: what cannot be read here is read there, and
  /// written back (protocol.md 7). Until peer_lost().
  void set_reading_at_peer(bool is_reading) noexcept { is_reading_at_peer_ = is_reading; }
  /// Before PeerLink::detach(): unstable blocks become dirty, later changes too.
  void peer_lost();

  /// The store may have grown. False: it did not.
  bool take_size();
  /// Flushes both copies; joins the next round when one is under way. Works while frozen.
  void flush(FlushWaiter& waiter);
  /// Called each time the last request in flight (held ones do not count) has finished.
  void set_idle_listener(Callback<void()> on_idle) noexcept { on_idle_ = on_idle; }
  [[nodiscard]] bool is_idle() const noexcept { return slots_.in_use_count() == 0; }
  /// Told when the own disk has failed a change or a flush, or has not given back anything in time (`is_hung`), before
  /// anybody is answered.
  void set_failure_listener(Callback<void(bool is_hung)> on_failed) noexcept { on_failed_ = on_failed; }
  /// Told of each read and change, once its copies are done, how long they took.
  void set_latency_listener(Callback<void(Duration)> on_latency) noexcept { on_latency_ = on_latency; }
  /// Reads that the own disk failed: read at the peer, and written back.
  [[nodiscard]] std::uint64_t mended_reads_count() const noexcept { return mended_reads_count_; }
  /// Flushes when something has been unstable since the last tick. Called each flush_interval.
  void tick();

  [[nodiscard]] PeerCopy& peer_copy() noexcept { return peer_copy_; }
  [[nodiscard]] std::size_t in_flight_count() const noexcept { return slots_.in_use_count(); }

 private:
  struct Request {
    Mirror* mirror = nullptr;
    blockdev::BlockRequest* upper = nullptr;
    blockdev::BlockRequest local;
    blockdev::RangeLock::Claim claim;
    blockdev::ActivityLogWriter::Claim log_claim;
    OutstandingOperation peer;
    FlushWaiter flush;
    BufferWaiter own_buffer;   ///< to compare, or to level
    std::uint8_t pending = 0;  ///< local and peer parts not done
    Instant started{};
    bool is_at_peer = false;
    bool is_claimed = false;
    /// Besides what was asked: reading at the peer and mending here what cannot be read here; levelling what has no
    /// room here.
    enum class Rescue : std::uint8_t { none, reading, mending, levelling } rescue = Rescue::none;
    std::uint32_t data_offset_bytes = 0;   ///< in the buffer: where the data of upper's first byte lies
    std::uint64_t level_losses_count = 0;  ///< of the peer, when it began
    std::uint64_t level_begin_bytes = 0;
    std::uint64_t level_end_bytes = 0;
    std::uint64_t level_piece_bytes = 0;  ///< what the buffer that is used for it has
    void on_granted();
    void on_active(bool is_active);
    void on_local_done(blockdev::BlockRequest&);
    void on_mended(blockdev::BlockRequest&);
    void on_peer_answer(PeerAnswer answer);
    void on_flushed(bool is_good);
    void on_compare_buffer(BufferRef buffer);
    void on_level_buffer(BufferRef buffer);
    void read_to_level();
    void on_level_read(blockdev::BlockRequest&);
    void on_compare_read(blockdev::BlockRequest&);
  };

  void start(blockdev::BlockRequest& upper);
  void begin(Request& request);
  void begin_change(Request& request);
  void begin_piece(Request& request, std::uint64_t offset_bytes);
  void write_copies(Request& request);
  void tell_failed(blockdev::BlockStatus status);
  void read_at_peer(Request& request);
  void read_at_peer_done(Request& request, PeerAnswer answer);
  void mend_piece(Request& request, std::uint64_t offset_bytes);
  void write_mended(Request& request);
  void end_rescue(Request& request);
  void level(Request& request);
  void level_piece(Request& request, std::uint64_t offset_bytes);
  void levelled(Request& request, PeerAnswer answer);
  void piece_done(Request& request);
  void begin_compare(Request& request);
  void part_done(Request& request);
  void finish(Request& request);
  void answer(blockdev::BlockRequest& upper) noexcept;
  void run_deferred();

  void on_flush_wanted();
  void start_flush_round();
  void on_round_local(blockdev::BlockRequest&);
  void on_round_peer(PeerAnswer answer);
  void round_part_done();

  using RequestList = IntrusiveList<blockdev::BlockRequest, blockdev::BlockRequest>;
  using FlushList = IntrusiveList<FlushWaiter, FlushWaiter>;

  ports::World world_;
  blockdev::Store& store_;
  blockdev::VolumeGeometry geometry_;  ///< what initiators may use: the store may have grown already (take_size())
  PeerLink& link_;
  std::uint16_t volume_;
  bool is_replicated_;
  bool is_serving_ = false;
  bool is_frozen_ = false;
  bool is_mirroring_ = false;
  bool is_reading_at_peer_ = false;
  std::uint64_t mended_reads_count_ = 0;
  PeerCopy peer_copy_;

  SlotPool<Request> slots_;
  RequestList waiting_;  ///< for a slot
  RequestList held_requests_;
  RequestList held_answers_;
  RequestList dropped_;
  ports::DeferredTask deferred_;
  Callback<bool()> may_answer_;
  Callback<void()> on_idle_;
  Callback<void(Duration)> on_latency_;
  Callback<void(bool is_hung)> on_failed_;

  FlushList round_;  ///< waiters of the flush under way
  FlushList next_round_;
  bool is_round_running_ = false;
  bool is_round_good_ = true;
  bool is_round_at_peer_ = false;
  std::uint8_t round_pending_ = 0;
  blockdev::BlockRequest round_local_;
  OutstandingOperation round_peer_;
  bool was_unstable_at_tick_ = false;
};

}  // namespace replblk::replication
