// The SCSI target device: the logical units of one iSCSI target and its I_T nexuses. The transport's only entry.
// Not responsible for transport, roles or replication: a unit stands on a BlockBackend and does what it says.
// One thread. Invariant: every executed task completes exactly once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/uuid.hpp"
#include "scsi/task.hpp"

namespace replblk::ports {
class Loop;
}

namespace replblk::scsi {

/// The identity and ground of one logical unit.
struct UnitConfig {
  std::uint16_t lun = 0;                      ///< 0..255
  Uuid volume_uuid;                           ///< makes NAA (VPD 83) and serial (VPD 80): one disk through both nodes
  std::string product = "replblk";            ///< INQUIRY product identification, ≤ 16 ASCII characters
  blockdev::BlockBackend* backend = nullptr;  ///< outlives the device
};

/// Keeps the persistent reservations beyond this process: durable on every copy before it is done.
class ReservationKeeper {
 public:
  /// `table` is opaque and replaces the one before, at most Device::kReservationTableBytesMax. Several may be
  /// outstanding; they are done in the order they came in, never from inside keep(). Not kept: a table that was kept
  /// before still is, and maybe this one.
  virtual void keep(std::string table, Callback<void(bool is_kept)> done) = 0;

 protected:
  ~ReservationKeeper() = default;
};

struct DeviceConfig {
  std::string target_name;  ///< IQN: VPD 83 SCSI name string
  std::uint16_t target_portal_group_tag = 1;
  std::uint16_t relative_target_port_id = 1;
  std::vector<UnitConfig> units;
  /// None: persistent reservations last as long as this device serves. Outlives the device.
  ReservationKeeper* reservation_keeper = nullptr;
};

/// The initiator port of a session: SAM-5 "I_T nexus" is {name,i,ISID} × {target,t,TPGT}.
struct NexusInfo {
  static constexpr std::size_t kNameBytesMax = 223;  ///< RFC 7143 4.2.7.1
  std::string initiator_name;                        ///< 1 to kNameBytesMax bytes
  std::uint64_t isid = 0;                            ///< 48 bits
  friend bool operator==(const NexusInfo&, const NexusInfo&) = default;
};

/// RFC 7143 11.6.1 TASK MANAGEMENT functions that reach SCSI.
enum class TaskFunction : std::uint8_t {
  abort_task = 1,
  abort_task_set = 2,
  clear_aca = 3,
  clear_task_set = 4,
  logical_unit_reset = 5,
  target_warm_reset = 6,
  target_cold_reset = 7,
};
enum class TaskFunctionResult : std::uint8_t { complete, task_not_found, lun_not_found, not_supported };

class Device {
 public:
  /// So that it fits the record in a superblock (docs/ondisk_format.md 3).
  static constexpr std::size_t kReservationTableBytesMax = 40960;

  Device(DeviceConfig config, ports::Loop& loop, BufferPool& buffers);
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device();

  /// A new I_T nexus; POWER ON unit attention is established on every unit (SAM-5 6.2).
  [[nodiscard]] NexusId attach(const NexusInfo& info);
  /// I_T nexus loss. The transport has aborted or finished the nexus's tasks before.
  void detach(NexusId nexus);

  void prepare(Task& task);
  void execute(Task& task);

  /// Marks a prepared or executing task aborted: its answer is not to be sent. It completes (on_complete, never from
  /// inside) once what it has out comes back; nothing that it has not yet submitted takes effect, a task that was only
  /// prepared completes later in this turn and must not be executed. Answers at once, never waits for a disk.
  void abort(Task& task);
  /// All functions but abort_task (which the transport maps to abort() of the task it finds by tag). Tasks of other
  /// nexuses that are hit get status task_aborted through their on_complete when TAS is set, unit attentions as
  /// SAM-5 5.6 says.
  [[nodiscard]] TaskFunctionResult manage(TaskFunction function, NexusId nexus, std::uint64_t lun_field);

  /// The tasks of `nexus` that are executing (submitted and not complete).
  [[nodiscard]] std::size_t executing_count(NexusId nexus) const;

  /// The node begins to serve, maybe after its peer did: from now on the persistent reservations are those of `table`
  /// (which a keeper got; empty: none), whatever was left here. A table that is malformed is refused whole: none, and
  /// an error is logged. No session is served, and the keeper has nothing outstanding (asserted).
  void load_reservations(std::string_view table);

  /// The size of a unit changed: CAPACITY DATA HAS CHANGED (2A/09) on every nexus.
  void capacity_changed(std::uint16_t lun);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace replblk::scsi
