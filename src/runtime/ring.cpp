#include "runtime/ring.hpp"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "runtime/start_error.hpp"

namespace replblk::runtime {

namespace {

struct FlagSet {
  unsigned flags;
  const char* name;
};

// From the best to what any supported kernel grants. DEFER_TASKRUN came with 6.1; without it a completion costs 22 to
// 51 % more CPU per I/O (measured), with COOP_TASKRUN alone up to 14 %.
constexpr FlagSet kFlagSets[] = {
    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
     "single_issuer defer_taskrun coop_taskrun submit_all"},
    {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, "coop_taskrun submit_all"},
    {0, "no flags"},
};

constexpr int kNeededOperations[] = {IORING_OP_READ,    IORING_OP_WRITE,    IORING_OP_FSYNC,       IORING_OP_FALLOCATE,
                                     IORING_OP_RECV,    IORING_OP_RECVMSG,  IORING_OP_SENDMSG,     IORING_OP_ACCEPT,
                                     IORING_OP_CONNECT, IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL};

constexpr unsigned kNeededFeatures =
    IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_FAST_POLL | IORING_FEAT_EXT_ARG;

bool has_needed_operations(io_uring& ring) noexcept {
  io_uring_probe* probe = io_uring_get_probe_ring(&ring);
  if (probe == nullptr) return false;
  const bool has_all = std::ranges::all_of(
      kNeededOperations, [probe](int operation) { return io_uring_opcode_supported(probe, operation) != 0; });
  io_uring_free_probe(probe);
  return has_all;
}

}  // namespace

Result<void, std::string> Ring::open(const RingOptions& options) {
  RB_ASSERT(!is_open_);
  int error = 0;
  const FlagSet* granted = nullptr;
  for (const FlagSet& candidate : kFlagSets) {
    error = set_up(candidate.flags, options);
    if (error == 0) granted = &candidate;
    if (error != EINVAL) break;  // Only EINVAL says that a flag is unknown.
  }
  if (granted == nullptr) return fail(describe_ring_failure(error, read_io_uring_disabled()));
  is_open_ = true;
  if ((ring_.features & kNeededFeatures) != kNeededFeatures || !has_needed_operations(ring_)) {
    return fail(describe_ring_failure(ENOSYS, read_io_uring_disabled()));
  }

  const bool has_registered_fd = io_uring_register_ring_fd(&ring_) == 1;
  has_file_table_ = io_uring_register_files_sparse(&ring_, kFileSlots) == 0;
  utsname host{};
  static_cast<void>(uname(&host));
  description_ = fmt::format("kernel {}, {}, {}/{} entries, {}, {}", host.release, granted->name, ring_.sq.ring_entries,
                             ring_.cq.ring_entries, has_registered_fd ? "registered ring" : "plain ring descriptor",
                             has_file_table_ ? "registered files" : "plain files");
  return {};
}

int Ring::set_up(unsigned flags, RingOptions options) noexcept {
  while (true) {
    io_uring_params parameters{};
    parameters.flags = flags | IORING_SETUP_CQSIZE;
    parameters.cq_entries = options.completion_entries;
    const int error = -io_uring_queue_init_params(options.submission_entries, &ring_, &parameters);
    // Newer kernels charge the queues to the locked-memory limit: small queues are slower, none is no daemon.
    if (error != ENOMEM || options.submission_entries <= kSubmissionEntriesMin) return error;
    options.submission_entries /= 2;
    options.completion_entries /= 2;
  }
}

Ring::~Ring() {
  if (is_open_) io_uring_queue_exit(&ring_);
}

io_uring_sqe& Ring::submission_when_full() noexcept {
  // The kernel refuses only while it is short of memory or its completion queue has overflowed; both pass once it
  // may post completions. They are reaped in the next turn, never from here.
  for (int attempt = 0; attempt < 1000; ++attempt) {
    static_cast<void>(io_uring_submit(&ring_));
    if (io_uring_sqe* entry = io_uring_get_sqe(&ring_); entry != nullptr) return *entry;
    static_cast<void>(io_uring_get_events(&ring_));
  }
  assertion_failed("the kernel takes no more submissions", __FILE__, __LINE__);
}

void Ring::enter(Duration wait_max) noexcept {
  int result = 0;
  if (wait_max <= Duration::zero()) {
    result = io_uring_submit_and_get_events(&ring_);
  } else {
    __kernel_timespec timeout{};
    timeout.tv_sec = wait_max.count() / 1'000'000'000;
    timeout.tv_nsec = wait_max.count() % 1'000'000'000;
    io_uring_cqe* ignored = nullptr;
    result = io_uring_submit_and_wait_timeout(&ring_, &ignored, 1, &timeout, nullptr);
  }
  // What was not submitted stays in the queue and goes out in the next turn.
  RB_ASSERT(result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN || result == -EBUSY);
}

bool Ring::pop(RingCompletion& completion) noexcept {
  io_uring_cqe* entry = nullptr;
  unsigned head = *ring_.cq.khead;
  if (head == io_uring_smp_load_acquire(ring_.cq.ktail)) return false;
  entry = &ring_.cq.cqes[head & ring_.cq.ring_mask];
  completion.user_data = entry->user_data;
  completion.result = entry->res;
  io_uring_cq_advance(&ring_, 1);
  return true;
}

int Ring::register_file(int fd) noexcept {
  static_assert(kFileSlots == 64);
  if (!has_file_table_ || ~used_file_slots_ == 0) return -1;
  const auto slot = static_cast<unsigned>(std::countr_one(used_file_slots_));
  if (io_uring_register_files_update(&ring_, slot, &fd, 1) != 1) return -1;
  used_file_slots_ |= std::uint64_t{1} << slot;
  return static_cast<int>(slot);
}

void Ring::unregister_file(int slot) noexcept {
  if (slot < 0) return;
  const int none = -1;
  RB_ASSERT(io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &none, 1) == 1);
  used_file_slots_ &= ~(std::uint64_t{1} << slot);
}

int Ring::register_region(MutableBytes region) noexcept {
  std::vector<iovec> pieces;
  for (std::size_t offset = 0; offset < region.size(); offset += kRegisteredPieceBytes) {
    pieces.push_back({region.data() + offset, std::min(kRegisteredPieceBytes, region.size() - offset)});
  }
  const int result = io_uring_register_buffers(&ring_, pieces.data(), static_cast<unsigned>(pieces.size()));
  if (result == 0) region_ = region;
  return -result;
}

}  // namespace replblk::runtime
