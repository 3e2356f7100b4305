// The secondary's end (protocol.md 4 step 4): applies the operations that come from the peer to the local stores and
// acknowledges them, batched for each turn, or answers with checksums. Overlapping operations are applied in the order
// of arrival (range lock). Not responsible for deciding whose operations are welcome: Resource opens it for one term
// and closes it. Invariant: an operation is acknowledged only after the store has completed it, and only to the
// connection it came by.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "base/slot_pool.hpp"
#include "blockdev/store.hpp"
#include "ports/world.hpp"
#include "replication/peer_channel.hpp"

namespace replblk::replication {

class PeerServer {
 public:
  /// `stores` in the order of the resource's volumes; null: Diskless.
  PeerServer(ports::World world, std::vector<blockdev::Store*> stores);
  ~PeerServer();

  /// Operations of `term` are applied and acknowledged over `channel`.
  void open(PeerChannel& channel, std::uint64_t term) noexcept;
  void set_term(std::uint64_t term) noexcept { term_ = term; }
  /// Nothing more is taken; what has begun finishes without an acknowledgement.
  void close() noexcept;
  [[nodiscard]] bool is_open() const noexcept { return channel_ != nullptr; }

  /// An operation from the peer. A violation of the protocol or of the term ends the channel.
  void apply(const FrameHeader& header, BufferRef data);

  /// Told, after its operation was refused, that the disk of a volume has failed one, or has not given one back in
  /// time (`is_hung`).
  void set_failure_listener(Callback<void(std::uint16_t volume, bool is_hung)> on_failed) noexcept {
    on_failed_ = on_failed;
  }

  [[nodiscard]] bool is_idle() const noexcept { return slots_.in_use_count() == 0; }
  [[nodiscard]] std::size_t in_flight_count() const noexcept { return slots_.in_use_count(); }
  /// Calls `done` once nothing of the peer's is in flight to a disk: no ghost of an old primary is left (protocol.md
  /// 4).
  void when_idle(Callback<void()> done);

 private:
  struct Operation {
    PeerServer* server = nullptr;
    blockdev::Store* store = nullptr;
    blockdev::BlockRequest local;
    blockdev::RangeLock::Claim claim;
    std::uint16_t volume = 0;
    std::uint64_t sequence = 0;
    std::uint64_t opening = 0;  ///< acknowledged only if the server is still open for the same channel
    bool is_claimed = false;
    bool is_question = false;  ///< a read: the answer is checksums, or the data
    bool wants_data = false;
    BufferWaiter buffer;
    void on_granted();
    void on_buffer(BufferRef memory);
    void on_done(blockdev::BlockRequest&);
  };

  void begin(Operation& operation);
  void finish(Operation& operation);
  void acknowledge(const Operation& operation);
  void send_checksums(const Operation& operation);
  void send_data(const Operation& operation);
  void send_acknowledgements();

  ports::World world_;
  std::vector<blockdev::Store*> stores_;
  PeerChannel* channel_ = nullptr;
  std::uint64_t term_ = 0;
  std::uint64_t opening_ = 0;
  SlotPool<Operation> slots_;
  std::vector<std::byte> acknowledgements_;
  ports::DeferredTask acknowledge_task_;
  std::deque<Callback<void()>> on_idle_;
  Callback<void(std::uint16_t volume, bool is_hung)> on_failed_;
};

}  // namespace replblk::replication
