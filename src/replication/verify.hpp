// Compares one volume's copies while it is served (protocol.md 6): piece by piece, each under the range lock here and
// at the peer, so that nothing is in flight in it on either, by checksums. What differs becomes dirty, so that it is in
// the resync set from then on, and is reported. Runs beside a Mirror that mirrors, on the node that serves (or either,
// when none does). Knows nothing of configurations, and mends nothing: Resource starts a Resync for that.
// Invariant: a block that was found to differ is dirty before its range is released.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/store.hpp"
#include "ports/world.hpp"
#include "replication/difference_list.hpp"
#include "replication/mirror.hpp"
#include "replication/peer_link.hpp"
#include "replication/resync_governor.hpp"
#include "replication/sync_meter.hpp"

namespace replblk::replication {

class Verify {
 public:
  Verify(ports::World world, blockdev::Store& store, Mirror& mirror, PeerLink& link, ResyncGovernor& governor,
         std::uint16_t volume);
  ~Verify();

  /// `range` is rounded out to whole blocks and cut to the volume. `done` is called once, from the loop, when all of it
  /// is compared or the own disk could not be read (report().failure).
  void start(blockdev::ByteRange range, Callback<void()> done);
  /// Also when none runs. What is in flight ends by itself and is not reported. `why` stands in the report.
  void stop(const std::string& why);
  [[nodiscard]] bool is_running() const noexcept { return is_running_; }
  [[nodiscard]] bool is_idle() const noexcept { return in_flight_count_ == 0; }

  /// Of the last run; kept until the next.
  struct Report {
    bool is_known = false;     ///< there was one
    bool is_complete = false;  ///< all of `range` was compared
    blockdev::ByteRange range;
    std::uint64_t compared_bytes = 0;
    DifferenceList differences;
    std::string failure;  ///< why it ended early
  };
  [[nodiscard]] const Report& report() const noexcept { return report_; }
  [[nodiscard]] SyncMeter::Reading progress() const noexcept { return meter_.reading(world_.loop.now()); }

 private:
  struct Piece {
    Verify* verify = nullptr;
    blockdev::ByteRange range;
    blockdev::RangeLock::Claim claim;
    blockdev::BlockRequest local;
    OutstandingOperation peer;
    BufferWaiter buffer;
    std::vector<std::byte> theirs;
    std::uint8_t pending = 0;
    bool is_used = false;
    bool is_lost = false;
    void on_buffer(BufferRef memory);
    void on_granted();
    void on_read(blockdev::BlockRequest&);
    void on_answer(PeerAnswer answer);
    void part_done();
    void compare();
  };

  void pump();
  void start_piece(Piece& piece, std::uint64_t length_bytes_max);
  void finish(Piece& piece);
  void end(bool is_complete);

  ports::World world_;
  blockdev::Store& store_;
  Mirror& mirror_;
  PeerLink& link_;
  ResyncGovernor& governor_;
  std::uint16_t volume_;
  bool is_running_ = false;
  Callback<void()> done_;
  std::uint64_t cursor_bytes_ = 0;
  std::vector<std::unique_ptr<Piece>> pieces_;
  std::size_t in_flight_count_ = 0;
  Report report_;
  SyncMeter meter_;
  ports::DeferredTask pump_task_;
  ports::Timer timer_;
};

}  // namespace replblk::replication
