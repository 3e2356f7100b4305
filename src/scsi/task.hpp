// One SCSI command on its way through the target: the seam between the transport (iscsi) and SCSI (scsi).
// The transport owns the task and its memory from prepare() until on_complete(); a task is a member of the
// transport's command context, made once and reused. Sequence:
//   Device::prepare(task)  checks LUN, CDB, unit attention, reservations; says what data is wanted, or
//                          decides at once (is_decided: status and sense are set; nothing is transferred out)
//   transport              collects Data-Out into `data_out` (data_out_length_bytes of it, fewer when the initiator has
//   fewer) Device::execute(task)  runs it; on_complete(task) follows exactly once, never from inside execute()
//   transport              sends Data-In from `data_in` or `small_data_in`, status, sense
// After Device::abort(task) or Device::manage() hit it (is_aborted is set) the answer is not sent, but the task stays
// alive until on_complete. That holds for a prepared task whose Data-Out is still being collected, too: its on_complete
// comes later in the same turn, execute() must not be called any more. Who looks at is_aborted in on_complete needs no
// other book-keeping. The IntrusiveNode<Task> base is the transport's; SCSI links a task through `work`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/buffer_pool.hpp"
#include "base/callback.hpp"
#include "base/intrusive_list.hpp"
#include "blockdev/block_request.hpp"

namespace replblk::scsi {

/// SAM-5 5.3.1.
enum class Status : std::uint8_t {
  good = 0x00,
  check_condition = 0x02,
  condition_met = 0x04,
  busy = 0x08,
  reservation_conflict = 0x18,
  task_set_full = 0x28,
  aca_active = 0x30,
  task_aborted = 0x40,
};

/// SAM-5 8.6; the codes are those of RFC 7143 11.3.1.
enum class TaskAttribute : std::uint8_t { untagged = 0, simple = 1, ordered = 2, head_of_queue = 3, aca = 4 };

enum class DataDirection : std::uint8_t { none, in, out };

/// Names an I_T nexus (one session of one initiator port) that Device::attach() gave out.
struct NexusId {
  std::uint32_t value = 0;
  friend bool operator==(const NexusId&, const NexusId&) = default;
};

class Task;
struct Opcode;
struct TaskSetLink;
struct ReadyLink;
struct ReservationLink;

/// Where a task stands in its unit. collecting: prepared, execute() has not come. blocked: waits for tasks before it
/// (ORDERED, HEAD OF QUEUE). running: a request, a buffer or a processor has it. finishing: on_complete is queued.
enum class TaskState : std::uint8_t { idle, collecting, blocked, running, finishing };

/// SCSI's own part of a task.
class TaskWork : public IntrusiveNode<TaskSetLink>,
                 public IntrusiveNode<ReadyLink>,
                 public IntrusiveNode<ReservationLink> {
 public:
  explicit TaskWork(Task& owner) : task(owner) {}
  Task& task;
  const Opcode* opcode = nullptr;
  TaskState state = TaskState::idle;
  bool is_cancelled = false;          ///< nothing more of it takes effect
  bool is_task_aborted_told = false;  ///< TAS: it is answered TASK ABORTED
  bool is_executing = false;          ///< counted in Device::executing_count()
  std::uint64_t lba = 0;
  std::uint64_t block_count = 0;
  /// PREEMPT AND ABORT: on a task that one has aborted its number, on one that waits for those its own; 0: neither.
  std::uint64_t preemption = 0;
  BufferWaiter buffer_waiter;
};

class Task : public IntrusiveNode<Task> {
 public:
  static constexpr std::size_t kSenseBytesMax = 96;
  static constexpr std::size_t kSmallDataBytesMax = 512;

  // Set by the transport before prepare().
  NexusId nexus;
  std::uint64_t lun_field = 0;  ///< the eight LUN bytes as a big-endian number (SAM-5 4.7)
  std::array<std::byte, 16> cdb{};
  TaskAttribute attribute = TaskAttribute::simple;
  std::uint32_t tag = 0;  ///< Initiator Task Tag
  /// What the initiator is ready to transfer (Expected Data Transfer Length); data-in larger than this need not be
  /// made.
  std::uint32_t expected_length_bytes = 0;
  Callback<void(Task&)> on_complete;

  // Set by prepare().
  bool is_decided = false;  ///< status and sense are final; execute() must not be called, on_complete does not come
  DataDirection direction = DataDirection::none;
  std::uint32_t transfer_length_bytes = 0;  ///< what the CDB says is transferred; ≤ BufferPool::kBufferBytesMax

  // Data-out: set by the transport before execute().
  BufferRef data_out;
  std::uint32_t data_out_length_bytes =
      0;  ///< received bytes; fewer than transfer_length_bytes when the initiator had fewer

  // Set when it is complete.
  Status status = Status::good;
  std::array<std::byte, kSenseBytesMax> sense{};
  std::uint8_t sense_length_bytes = 0;
  /// Data-in is in exactly one of these two, data_in_length_bytes of it (0: none).
  BufferRef data_in;
  std::array<std::byte, kSmallDataBytesMax> small_data_in{};
  std::uint32_t data_in_length_bytes = 0;
  /// The role was lost: the transport drops the command without an answer (the connection is being reset).
  bool is_dropped = false;

  /// Aborted: the answer is not to be sent. Set by Device::abort() and Device::manage().
  bool is_aborted = false;

  // For SCSI only.
  void* unit = nullptr;
  blockdev::BlockRequest request;
  std::uint32_t step = 0;  ///< position in commands of several requests
  std::uint64_t progress_bytes = 0;
  TaskWork work{*this};
};

}  // namespace replblk::scsi
