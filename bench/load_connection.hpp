// One connection under load: keeps a fixed number of commands in flight, answers R2T, checks every response.
// Not responsible for the socket: the loop feeds received bytes in and takes gathered output from it, so this
// class makes no system call. Called by LoadLoop only. Invariant: nothing is allocated after construction, and
// the first thing that a target does wrong ends the process with a sentence (a benchmark of wrong answers is
// worth nothing).
//
//   idle -> in flight (READ or WRITE) -> idle                          without --sync-every-write
//   idle -> in flight (WRITE) -> sync queued -> in flight (SYNCHRONIZE CACHE) -> idle     with it
#pragma once

#include "initiator_session.hpp"
#include "latency_histogram.hpp"
#include "options.hpp"
#include "pdu.hpp"
#include "workload_cursor.hpp"

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <vector>

namespace replblk::bench {

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Completed operations of all connections within the measured window.
struct Tally {
  LatencyHistogram latency;
  std::uint64_t bytes = 0;
  bool measuring = false;
};

class LoadConnection {
 public:
  LoadConnection(const InitiatorSession& session, const Options& options, std::uint32_t lba_bytes,
                 WorkloadCursor& cursor, Tally& tally);
  LoadConnection(const LoadConnection&) = delete;
  LoadConnection& operator=(const LoadConnection&) = delete;

  // Puts as many ready commands into the output as the target's command window allows.
  void issue_ready(std::uint64_t now_ns);
  // Bytes from the socket, in order, cut anywhere.
  void receive(std::span<const std::uint8_t> bytes, std::uint64_t now_ns);

  // Output: at most one gather in flight. next_gather() is empty when there is nothing to send.
  [[nodiscard]] std::span<iovec> next_gather();
  void sent(std::size_t length_bytes);
  [[nodiscard]] bool send_in_flight() const noexcept { return send_in_flight_; }

  // No new operations from here on; when the last one is done a logout follows.
  void stop() noexcept { stopping_ = true; }
  [[nodiscard]] bool logged_out() const noexcept { return logged_out_; }
  [[nodiscard]] int socket() const noexcept { return socket_; }

 private:
  enum class Phase : std::uint8_t { idle, transfer, sync_queued, sync };

  struct Slot {
    Pdu command;
    std::uint64_t start_ns = 0;
    const std::uint8_t* data = nullptr;
    std::uint32_t task_tag = 0;
    std::uint32_t received_bytes = 0;
    std::uint32_t data_sn = 0;  // Data-In seen
    std::uint32_t r2t_sn = 0;   // R2T seen
    std::uint32_t data_out_count = 0;
    Phase phase = Phase::idle;
  };

  void issue_transfer(std::uint32_t index, std::uint64_t now_ns);
  void issue_sync(std::uint32_t index);
  void begin_command(Slot& slot, std::uint32_t index, std::uint8_t flags, std::uint32_t expected_bytes);
  void queue_data_out(std::uint32_t index, std::uint32_t offset, std::uint32_t length, std::uint32_t transfer_tag);
  void queue(const void* data, std::size_t length_bytes);
  void queue_logout();

  void on_header(std::uint64_t now_ns);
  void on_pdu_complete(std::uint64_t now_ns);
  void on_data_in();
  void on_r2t();
  void on_status(std::uint64_t now_ns);
  void on_nop_in();
  void finish(std::uint32_t index, std::uint64_t now_ns);
  void take_window(const Pdu& pdu) noexcept;
  [[nodiscard]] std::uint32_t slot_index_of(std::uint32_t task_tag) const;

  const Negotiated negotiated_;
  SequenceNumbers numbers_;
  const std::uint64_t wire_lun_;
  const int socket_;
  const std::uint32_t block_bytes_;
  const std::uint32_t lba_bytes_;
  const bool writes_;
  const bool sync_every_write_;
  WorkloadCursor& cursor_;
  Tally& tally_;

  std::vector<Slot> slots_;
  std::vector<std::uint32_t> ready_;  // ring of slots that wait for the command window
  std::size_t ready_head_ = 0;
  std::size_t ready_count_ = 0;
  std::uint32_t in_flight_count_ = 0;
  std::uint32_t data_out_per_slot_max_ = 0;
  std::vector<Pdu> data_out_headers_;  // data_out_per_slot_max_ for each slot
  Pdu logout_;
  Pdu nop_out_;
  bool nop_out_queued_ = false;

  std::vector<iovec> queued_;
  std::vector<iovec> sending_;
  std::size_t sending_head_ = 0;
  bool send_in_flight_ = false;

  Pdu incoming_;
  std::size_t header_fill_ = 0;
  std::uint32_t body_remaining_ = 0;
  std::uint32_t sense_fill_ = 0;
  std::uint8_t sense_[32] = {};
  bool stopping_ = false;
  bool logout_queued_ = false;
  bool logged_out_ = false;
};

}  // namespace replblk::bench
