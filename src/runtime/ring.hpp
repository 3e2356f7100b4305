// One io_uring: set-up with the best flags that this kernel grants, submission, waiting, reaping, registration of
// files and buffers. Owned by one Reactor and used by its thread only (SINGLE_ISSUER).
// Not responsible for what completions mean, for timers or for the order of a turn: that is the Reactor's.
// Invariant: submission() always returns an entry; when the queue is full it is handed to the kernel first.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "base/time.hpp"

namespace replblk::runtime {

struct RingOptions {
  unsigned submission_entries = 2048;
  unsigned completion_entries = 8192;
};

struct RingCompletion {
  std::uint64_t user_data = 0;
  std::int32_t result = 0;
};

class Ring {
 public:
  Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring();

  /// Sets the ring up and probes what is needed. The error is one sentence for the operator.
  [[nodiscard]] Result<void, std::string> open(const RingOptions& options);

  /// A blank entry: fill it with io_uring_prep_*, then set user_data. It is submitted by the next enter().
  [[nodiscard]] io_uring_sqe& submission() noexcept {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    return entry != nullptr ? *entry : submission_when_full();
  }
  /// Submits what is prepared and, when `wait_max` is positive, waits for one completion at most that long.
  void enter(Duration wait_max) noexcept;
  [[nodiscard]] std::size_t ready_count() const noexcept { return io_uring_cq_ready(&ring_); }
  /// Takes the oldest completion; false when none is there.
  [[nodiscard]] bool pop(RingCompletion& completion) noexcept;

  /// A slot in the table of registered files, or -1: then the plain descriptor is used.
  [[nodiscard]] int register_file(int fd) noexcept;
  void unregister_file(int slot) noexcept;

  /// Registers the pool's memory so that the kernel need not pin pages per operation. Returns 0 or an errno; without
  /// registration fixed_buffer() answers -1 and plain operations do the same work, about a tenth dearer.
  [[nodiscard]] int register_region(MutableBytes region) noexcept;
  [[nodiscard]] int fixed_buffer(const std::byte* memory, std::size_t length_bytes) const noexcept {
    const auto offset = static_cast<std::size_t>(memory - region_.data());
    if (memory < region_.data() || offset >= region_.size()) return -1;
    const std::size_t index = offset / kRegisteredPieceBytes;
    if (length_bytes > region_.size() - offset || (offset + length_bytes - 1) / kRegisteredPieceBytes != index)
      return -1;
    return static_cast<int>(index);
  }

  /// "single_issuer defer_taskrun …", for the log.
  [[nodiscard]] const std::string& description() const noexcept { return description_; }

 private:
  /// The kernel takes at most 1 GiB per registered buffer.
  static constexpr std::size_t kRegisteredPieceBytes = std::size_t{1} << 30;
  static constexpr unsigned kFileSlots = 64;

  static constexpr unsigned kSubmissionEntriesMin = 128;

  [[nodiscard]] int set_up(unsigned flags, RingOptions options) noexcept;
  [[nodiscard]] io_uring_sqe& submission_when_full() noexcept;

  io_uring ring_{};
  bool is_open_ = false;
  bool has_file_table_ = false;
  std::uint64_t used_file_slots_ = 0;
  MutableBytes region_;
  std::string description_;
};

}  // namespace replblk::runtime
