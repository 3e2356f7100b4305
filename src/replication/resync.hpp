// Copies the dirty blocks of one volume to the peer (protocol.md 6): source-driven, ascending, several requests in
// flight, each holding its range, zeroes sent as operations; or comparing checksums first and sending what differs.
// Knows nothing of configurations: Resource starts it, and adds the peer when every volume is done. Invariant: done
// means that no dirty bit is left, and bits are cleared only by flushes of the peer (PeerCopy).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "blockdev/store.hpp"
#include "ports/world.hpp"
#include "replication/mirror.hpp"
#include "replication/peer_link.hpp"
#include "replication/resync_governor.hpp"
#include "replication/sync_meter.hpp"

namespace replblk::replication {

enum class ResyncMode : std::uint8_t {
  copy,
  compare_first,  ///< asks for the peer's checksums and sends what differs
};

class Resync {
 public:
  /// `governor` is shared by all that copy for the resource.
  Resync(ports::World world, blockdev::Store& store, Mirror& mirror, PeerLink& link, ResyncGovernor& governor,
         std::uint16_t volume);
  ~Resync();

  /// `done` is called once, from the loop, when no dirty bit is left.
  void start(ResyncMode mode, Callback<void()> done);
  /// Before the link is detached. What is in flight ends by itself; bits stay.
  void stop() noexcept;
  [[nodiscard]] bool is_running() const noexcept { return is_running_; }
  /// Paused: nothing new is begun; what is in flight ends. Also between runs: a start then waits.
  void set_paused(bool is_paused) noexcept;
  [[nodiscard]] bool is_idle() const noexcept { return in_flight_count_ == 0; }

  [[nodiscard]] SyncMeter::Reading progress() const noexcept { return meter_.reading(world_.loop.now()); }
  /// What was compared and found equal, in this run.
  [[nodiscard]] std::uint64_t equal_bytes() const noexcept { return equal_bytes_; }

 private:
  struct Piece {
    Resync* resync = nullptr;
    blockdev::ByteRange range;
    blockdev::RangeLock::Claim claim;
    blockdev::BlockRequest local;
    OutstandingOperation peer;
    BufferWaiter buffer;
    bool is_used = false;
    bool is_lost = false;      ///< the peer went while the piece was in work
    std::uint8_t pending = 0;  ///< the local read and the peer's checksums
    bool is_asking = false;    ///< the operation at the peer is the request for its checksums
    std::vector<std::byte> theirs;
    std::vector<blockdev::ByteRange> differing;  ///< what is to be sent, one after the other
    std::size_t next_differing = 0;
    void on_buffer(BufferRef memory);
    void on_granted();
    void on_read(blockdev::BlockRequest&);
    void on_answer(PeerAnswer answer);
    void part_done();
    void ask();
    void send_next();
  };

  void pump();
  bool start_piece(Piece& piece, std::uint64_t length_bytes_max);
  void finish(Piece& piece);
  void on_flushed(bool is_good);
  void on_timer();
  [[nodiscard]] std::uint64_t left_bytes() const noexcept;

  ports::World world_;
  blockdev::Store& store_;
  Mirror& mirror_;
  PeerLink& link_;
  ResyncGovernor& governor_;
  std::uint16_t volume_;
  bool is_running_ = false;
  ResyncMode mode_ = ResyncMode::copy;
  bool is_paused_ = false;
  bool is_flush_out_ = false;
  Callback<void()> done_;
  std::uint64_t cursor_bytes_ = 0;
  std::vector<std::unique_ptr<Piece>> pieces_;
  std::size_t in_flight_count_ = 0;
  FlushWaiter flush_;
  ports::DeferredTask pump_task_;
  ports::Timer timer_;
  Instant retry_at_{};  ///< after an error of the own disk: when the next pass may begin
  SyncMeter meter_;
  std::uint64_t total_bytes_ = 0;  ///< dirty when it began
  std::uint64_t done_bytes_ = 0;   ///< copied or compared, in all passes
  std::uint64_t equal_bytes_ = 0;
};

}  // namespace replblk::replication
