// Makes durable what ActivityLog decides (protocol.md 5.2): writes its transactions, one at a time, into the ring, and
// tells who waits. Knows the device and the order of things; not which extents are active (ActivityLog), nor how bits
// reach the disk (Store saves them and says so) or a flush both copies (Mirror). Owned by Store; one thread.
// Invariant: an extent is granted only when the transaction that names it is durable; after a failed write nothing is
// granted any more.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "blockdev/activity_log.hpp"
#include "blockdev/metadata_io.hpp"
#include "ports/loop.hpp"

namespace replblk::blockdev {

class ActivityLogWriter {
 public:
  using Claim = ActivityLog::Claim;
  using Done = MetadataIo::Done;

  struct Hooks {
    /// Whether the bits of an extent are on disk as they are in memory.
    Callback<bool(std::uint32_t extent)> are_saved;
    /// Extents whose bits must go to disk; cleaned() is to be called then.
    Callback<void(const std::vector<std::uint32_t>& extents)> save;
    Callback<void(ports::IoError)> on_failed;
  };

  ActivityLogWriter(ports::Loop& loop, ports::Disk& disk, ActivityLog::Shape shape, Hooks hooks);
  ~ActivityLogWriter();

  /// The ring lies at this place and its newest transaction, which leaves every slot free, has this sequence.
  void start(std::uint64_t offset_bytes, const Uuid& volume, std::uint64_t sequence);
  /// Who flushes every copy when slots run short; it calls flush_begins() and flush_done().
  void set_flusher(Callback<void()> on_flush_wanted) noexcept { on_flush_wanted_ = on_flush_wanted; }

  [[nodiscard]] std::uint64_t piece_bytes(std::uint64_t offset_bytes, std::uint64_t length_bytes) const noexcept {
    return log_.piece_bytes(offset_bytes, length_bytes);
  }
  /// True: the range is active and held. False: claim.on_active comes later, never from inside.
  [[nodiscard]] bool acquire(Claim& claim, std::uint64_t offset_bytes, std::uint64_t length_bytes);
  void release(Claim& claim, bool is_durable);
  void flush_begins() noexcept { log_.flush_begins(); }
  void flush_done(bool is_good);
  void cleaned();

  /// Calls `done` (from the loop) once no claim holds; those that wait, or come later, wait until finish_closing().
  /// `flushes`: nor is there any extent that some copy may not have flushed, unless it cannot be flushed.
  void begin_closing(bool flushes, Callback<void()> done);
  template <class Visit>
  void for_each_unstable(Visit visit) {
    log_.for_each_unstable(visit);
  }
  /// A transaction that frees every slot; nothing when the log is closed already.
  void write_closing(Done done);
  void finish_closing();

  /// The device failed: whoever waits is told, and whoever asks later.
  void fail_all();
  /// Some slot may be taken on disk.
  [[nodiscard]] bool is_open() const noexcept { return is_open_; }
  [[nodiscard]] bool is_writing() const noexcept { return is_writing_; }
  [[nodiscard]] const ActivityLog& log() const noexcept { return log_; }
  [[nodiscard]] std::uint64_t writes_count() const noexcept { return writes_count_; }

 private:
  void pump();
  void close_when_still();
  void write();
  void on_written(ports::DiskOp& op, Result<void, ports::IoError> result);

  ports::Loop& loop_;
  ports::Disk& disk_;
  ActivityLog log_;
  Hooks hooks_;
  Callback<void()> on_flush_wanted_;
  std::uint64_t offset_bytes_ = 0;
  Uuid volume_;
  std::uint64_t sequence_ = 0;  ///< of the newest transaction
  bool is_open_ = false;
  bool is_writing_ = false;
  bool is_failed_ = false;
  bool is_cleaning_ = false;
  bool closes_flushed_ = false;
  bool has_flush_failed_ = false;  ///< and somebody waits for a slot
  Callback<void()> quiescent_;     ///< set while begin_closing() waits
  Done closed_;                    ///< set while the closing transaction is written
  AlignedMemory memory_;
  AlignedMemory abandoned_;  ///< of a write that timed out: the kernel may still touch it
  ports::DiskOp op_;
  LogTransaction transaction_;
  std::vector<std::uint32_t> cleaning_;
  ports::DeferredTask pump_task_;
  std::uint64_t writes_count_ = 0;
};

}  // namespace replblk::blockdev
