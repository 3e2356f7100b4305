// One opened backing file or block device on a reactor's ring. Implements ports::Disk.
// Made by open_disk(), which claims the device so that no second daemon can share it. Not responsible for ordering,
// ranges or retries of failed operations: the Store above is.
// An operation that the device does not give back in time is reported all the same, and its memory is the kernel's
// until it comes: whoever submitted it must not use it again. Invariant: after a failed flush every later flush fails
// too, until the file is opened anew: the kernel reports lost write-back once and then forgets it, so a second flush
// would lie. Not destroyed from inside an on_done.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "ports/disk.hpp"
#include "runtime/reactor.hpp"

namespace replblk::runtime {

struct DiskOptions {
  std::string path;
  bool is_buffered = false;  ///< through the page cache instead of O_DIRECT
  /// Operations in the kernel at once; what is submitted beyond waits here, in order. Bounds the completion queue.
  std::uint32_t in_flight_max = 2048;
  /// An operation that has not come back after this time is reported as IoError::timed_out; the kernel keeps its memory
  /// until it does come back, if ever. Time in which the process stood still does not count. 0: never.
  Duration timeout{};
};

/// What is behind the file. memory: tmpfs or ramfs, where a write is a copy that can't wait for a device: it is done at
/// once, since io_uring would give it to a kernel thread, whose waking costs several times the copy.
enum class Backing : std::uint8_t { storage, memory };

class DiskFile;

/// The error is one sentence for the operator; says_in_use() tells the one worth retrying.
[[nodiscard]] Result<std::unique_ptr<DiskFile>, std::string> open_disk(const DiskOptions& options, Reactor& reactor);
/// Tried again for `patience`, asleep in between, while the disk is in use: a process that has ended holds its disks
/// until the kernel has finished its I/O.
[[nodiscard]] Result<std::unique_ptr<DiskFile>, std::string> open_disk_when_free(const DiskOptions& options,
                                                                                 Reactor& reactor, Duration patience);

class DiskFile final : public ports::Disk {
 public:
  DiskFile(Reactor& reactor, int fd, const Geometry& geometry, Backing backing, std::uint32_t in_flight_max,
           Duration timeout = {});
  /// Operations still in flight are waited for and not reported: afterwards the kernel touches no memory of theirs.
  /// Without a bound: whoever cannot wait looks at unreturned_count() first.
  ~DiskFile() override;

  [[nodiscard]] const Geometry& geometry() const noexcept override { return geometry_; }
  [[nodiscard]] Result<std::uint64_t, ports::IoError> measure() noexcept override;
  void submit(ports::DiskOp& request) noexcept override;
  [[nodiscard]] std::size_t unreturned_count() const noexcept override {
    return given_up_count_ + (is_flush_given_up_ && flush_op_.is_in_flight ? 1 : 0);
  }
  [[nodiscard]] int descriptor() const noexcept { return fd_; }

 private:
  using Queue = IntrusiveList<ports::DiskOp, ports::DiskOp>;

  /// What the kernel works on for one request; preallocated, so that submitting allocates nothing.
  struct Pending : IntrusiveNode<Pending> {
    void on_completed(std::int32_t result) { disk->on_completed(*this, result); }
    Op op;
    DiskFile* disk = nullptr;
    ports::DiskOp* request = nullptr;  ///< null: nobody waits for it any more
    Instant started{};
    Pending* next_free = nullptr;
    std::int32_t copied_result = 0;
    std::uint32_t done_bytes = 0;
    std::uint32_t retry_count = 0;
    bool is_syncing = false;  ///< the second half of a durable write_zeroes
  };

  void start(ports::DiskOp& request) noexcept;
  void issue(Pending& pending) noexcept;
  void issue_transfer(Pending& pending) noexcept;
  void copy_now(Pending& pending) noexcept;
  void complete_copied() noexcept;
  void issue_fallocate(Pending& pending) noexcept;
  void on_completed(Pending& pending, std::int32_t result) noexcept;
  [[nodiscard]] bool needs_more(Pending& pending, std::int32_t& result) noexcept;
  void finish(Pending& pending, Result<void, ports::IoError> result) noexcept;

  void watch() noexcept;
  void look_at(Instant due) noexcept;
  void on_watch() noexcept;
  void start_flush() noexcept;
  void issue_flush() noexcept;
  void on_flushed(std::int32_t result) noexcept;

  void refuse(ports::DiskOp& request, ports::IoError error) noexcept;
  void report_refused() noexcept;
  void report(ports::DiskOp& request, Result<void, ports::IoError> result) noexcept;
  void set_target(io_uring_sqe& entry) const noexcept;
  [[nodiscard]] bool is_inside(const ports::DiskOp& request) const noexcept;

  Reactor& reactor_;
  int fd_;
  int slot_;  ///< in the ring's file table, or -1
  Geometry geometry_;

  std::unique_ptr<Pending[]> pending_;
  Pending* free_ = nullptr;
  std::uint32_t in_flight_count_ = 0;
  Queue waiting_;  ///< no Pending was free
  Backing backing_;
  Duration timeout_;
  /// In the kernel and waited for, oldest first. What is copied at once is in copied_ instead.
  IntrusiveList<Pending, Pending> watched_;
  ports::Timer watch_timer_;
  Instant next_look_{};
  Instant resumed_at_{};              ///< the process had stood still until then: the time-outs begin anew
  std::uint32_t given_up_count_ = 0;  ///< in the kernel and not waited for any more
  Instant flush_started_{};
  bool is_flush_given_up_ = false;          ///< nobody waits for the flush in the kernel
  IntrusiveList<Pending, Pending> copied_;  ///< to be completed at the end of this turn
  ports::DeferredTask copied_task_;

  // One fdatasync at a time. Flushes submitted meanwhile share the next one: it begins after all of them were
  // submitted, so it covers every write that had completed by then.
  Op flush_op_;
  Queue flushing_;
  Queue flush_waiting_;
  std::uint32_t flush_retry_count_ = 0;
  bool is_durability_lost_ = false;

  /// For what operations are refused without the kernel, and who waits to be told, in the same order.
  static constexpr std::array kRefusals{ports::IoError::io, ports::IoError::not_supported, ports::IoError::timed_out};
  std::array<Queue, kRefusals.size()> refused_;
  ports::DeferredTask refused_task_;
  bool is_reporting_ = false;
  bool is_closing_ = false;
};

}  // namespace replblk::runtime
