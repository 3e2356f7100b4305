// One logical unit: admits tasks (LUN found, CDB valid, unit attention, reservation, write protection), runs them in
// the order of their attributes, turns backend results into status and sense, and keeps what a unit remembers. Not
// responsible for sessions, LUN lookup or delivery of completions (device), nor for what a command does (commands).
// Called by the device and, from the second part of the class on, by the command functions.
// Invariant: each task that was prepared and not decided leaves through finish() exactly once.
// A unit without a backend stands for every LUN that does not exist (SPC-4 5.11).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ports/loop.hpp"
#include "scsi/cdb.hpp"
#include "scsi/completion_queue.hpp"
#include "scsi/device.hpp"
#include "scsi/persistent_reservation.hpp"
#include "scsi/reservation_changes.hpp"
#include "scsi/sense.hpp"
#include "scsi/task.hpp"
#include "scsi/task_set.hpp"
#include "scsi/unit_attention.hpp"

namespace replblk::scsi {

/// What MODE SELECT can change; kept until a reset (no saved pages).
struct ModeParameters {
  bool is_sense_in_descriptors = false;  ///< D_SENSE
  bool is_write_protected = false;       ///< SWP
  bool is_abort_told = false;            ///< TAS
  friend bool operator==(const ModeParameters&, const ModeParameters&) = default;
};

class LogicalUnit {
 public:
  LogicalUnit(const UnitConfig& config, const DeviceConfig& device, BufferPool& buffers, CompletionQueue& completions,
              ReservationChanges& changes);
  LogicalUnit(const LogicalUnit&) = delete;
  LogicalUnit& operator=(const LogicalUnit&) = delete;
  ~LogicalUnit();

  // For the device.
  void attach(NexusId nexus, const NexusInfo& port);
  void detach(NexusId nexus);
  void prepare(Task& task);
  void execute(Task& task);
  void abort(Task& task);
  void abort_task_set(NexusId nexus);
  void clear_task_set(NexusId nexus);
  void reset(UnitAttention condition, NexusId nexus);
  void establish_for_all(UnitAttention condition, const NexusId* but = nullptr);
  /// Of a port that has no nexus now nothing is kept: its next one begins with POWER ON.
  void establish_for(const NexusInfo& port, UnitAttention condition);

  // For the commands: the ground.
  [[nodiscard]] bool is_present() const noexcept { return config_.backend != nullptr; }
  [[nodiscard]] const UnitConfig& config() const noexcept { return config_; }
  [[nodiscard]] const DeviceConfig& device() const noexcept { return device_; }
  [[nodiscard]] const blockdev::VolumeGeometry& geometry() const noexcept { return config_.backend->geometry(); }
  [[nodiscard]] std::uint64_t block_count() const noexcept {
    return geometry().size_bytes / geometry().logical_block_bytes;
  }
  [[nodiscard]] std::uint32_t block_bytes() const noexcept { return geometry().logical_block_bytes; }
  [[nodiscard]] ModeParameters& mode() noexcept { return mode_; }
  [[nodiscard]] UnitAttentions& attentions(NexusId nexus);
  /// Room in which data-in is put together; answer() copies it out.
  static constexpr std::size_t kScratchBytes = 36864;
  [[nodiscard]] MutableBytes scratch() noexcept { return scratch_; }
  /// RESERVE and RELEASE (SPC-2 7.21, 7.17): admission has refused whoever does not hold it while another does.
  /// False when another nexus was faster since this command was admitted.
  [[nodiscard]] bool reserve(NexusId nexus) noexcept;
  void release_reservation(NexusId nexus) noexcept;
  [[nodiscard]] bool has_plain_reservation() const noexcept { return is_reserved_; }
  [[nodiscard]] PersistentReservation& persistent_reservation() noexcept { return persistent_; }
  /// Somebody is registered, or is being registered.
  [[nodiscard]] bool has_registrations() const noexcept {
    return !persistent_.registrations().empty() || changes_.will_register(*this);
  }
  /// Ends the step of a PERSISTENT RESERVE OUT: the rest is the changes'.
  void change_reservation(Task& task) { changes_.submit(task); }
  /// The end of PREEMPT AND ABORT `task` (SPC-4 5.13.11.5): every other task of `ports` is aborted, and `task` is GOOD
  /// when all of them are over.
  void abort_preempted(Task& task, const std::vector<NexusInfo>& ports);
  [[nodiscard]] const NexusInfo& port_of(NexusId nexus) const;

  // For plan functions.
  /// Ends the task at prepare().
  void reject(Task& task, const Sense& sense);
  /// Takes LBA and count from the CDB, rejects a range that is not on the medium.
  [[nodiscard]] bool plan_range(Task& task);
  /// Transfer length in blocks; rejects what exceeds the largest buffer (announced in VPD B0).
  [[nodiscard]] bool plan_transfer(Task& task, std::uint64_t blocks);

  // For run and resume functions; each of these but request_buffer() ends the step.
  void finish(Task& task, Status status = Status::good);
  void fail(Task& task, const Sense& sense);
  /// GOOD with the first transfer_length_bytes of `data` (in scratch()).
  void answer(Task& task, std::size_t length_bytes);
  /// True when task.data_in is there; else run() comes again when it is.
  [[nodiscard]] bool request_buffer(Task& task, std::size_t length_bytes);
  /// request.op, range, FUA and buffer are set; resume() follows.
  void submit(Task& task);

  /// Received Data-Out.
  [[nodiscard]] static ConstBytes data_out(const Task& task) noexcept;

 private:
  [[nodiscard]] SenseFormat sense_format() const noexcept {
    return mode_.is_sense_in_descriptors ? SenseFormat::descriptor : SenseFormat::fixed;
  }
  void set_sense(Task& task, const Sense& sense) noexcept;
  [[nodiscard]] bool is_admitted(Task& task);
  /// A persistent reservation excludes the task's initiator.
  [[nodiscard]] bool is_excluded(const Task& task, const Opcode& opcode) const;
  void start(Task& task);
  /// True when nothing of it is out: it is to be finished.
  [[nodiscard]] bool cancel(Task& task);
  void finish_all(IntrusiveList<TaskWork, ReadyLink>& cancelled);
  /// No task that the preemptions up to `preemption` have aborted is left.
  [[nodiscard]] bool is_over(std::uint64_t preemption) noexcept;
  void finish_preemptions();
  void leave(Task& task);
  void release_blocked();
  void on_request_complete(Task& task);
  static void on_buffer(void* context, BufferRef buffer);

  const UnitConfig& config_;
  const DeviceConfig& device_;
  BufferPool& buffers_;
  CompletionQueue& completions_;
  TaskSet tasks_;
  bool is_releasing_ = false;
  ModeParameters mode_;
  bool is_reserved_ = false;
  NexusId reservation_holder_;
  PersistentReservation persistent_;
  ReservationChanges& changes_;
  std::uint64_t last_preemption_ = 0;
  IntrusiveList<TaskWork, ReservationLink> preemptions_;  ///< that wait for the tasks that they have aborted
  struct Nexus {
    NexusId id;
    bool is_attached = false;
    UnitAttentions attentions;
    NexusInfo port;
  };
  std::vector<Nexus> nexuses_;  ///< by slot_of(NexusId)
  alignas(8) std::array<std::byte, kScratchBytes> scratch_{};
};

/// A nexus id is a slot and a generation.
[[nodiscard]] constexpr std::size_t slot_of(NexusId nexus) noexcept { return nexus.value & 0xffff; }

}  // namespace replblk::scsi
