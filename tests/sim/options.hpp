// Everything that a run draws from its seed before it begins (swarm: each run turns a random subset of faults on, with
// random rates), and what the command line fixes. Plain data; printed whole, first. Invariant: equal seed, equal
// options.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "node/config.hpp"
#include "replication/split_brain.hpp"
#include "sim_disk.hpp"
#include "sim_initiator.hpp"
#include "sim_network.hpp"

namespace replblk::sim {

enum class Fault : std::uint8_t {
  kill,            ///< SIGKILL of a daemon, restart later
  power_cut,       ///< of a host: volatile cache lost sector by sector, another boot id
  power_cut_both,  ///< of both hosts within a moment
  stop,            ///< orderly stop of a daemon, start later
  link_cut,        ///< between the nodes, both ways
  one_way_cut,     ///< between the nodes, one way
  reset,           ///< of the replication connection
  initiator_cut,   ///< between an initiator and a node
  initiator_reset,
  latency,         ///< of the link between the nodes
  hang,            ///< a daemon does not run for a while
  switchover,      ///< the administrator: secondary here, primary there
  demote,          ///< the administrator: secondary here, whatever is under way
  disconnect,      ///< the administrator: disconnect, connect later
  pause,           ///< the administrator: pause-sync on one node, resume-sync later
  verify,          ///< the administrator: an online verify, some to repair with the primary's copy
  invalidate,      ///< the administrator: one copy is to be overwritten whole
  read_error,      ///< a range of a data device cannot be read for a while
  write_error,     ///< a range of a data device cannot be written for a while
  flush_error,     ///< a data device cannot be flushed for a while
  metadata_error,  ///< the metadata cannot be written for a while; then the daemon is restarted
  ambush,          ///< a host goes down in the middle of the next change of its configuration
  slow_disk,       ///< each operation takes longer for a while
  split,           ///< a careless administrator: the other node is promoted while the primary is cut off, not dead
  hung_disk,       ///< a device gives nothing back for a while, mostly for longer than the time-out
  resize,          ///< devices become larger, on one node or both, and the administrator asks for the volumes to
  standby,         ///< the administrator: standby on one node, unstandby later
  maintenance,     ///< likewise maintenance-on, maintenance-off
  full_disk,       ///< a data device has no room for a while, for a part or for all of it
};
inline constexpr std::size_t kFaultCount = 29;
[[nodiscard]] std::string_view to_string(Fault fault) noexcept;

struct RunOptions {
  std::uint64_t seed = 1;
  std::uint32_t steps = 0;
  bool is_lite = false;
  std::array<double, kFaultCount> weight{};  ///< 0: off in this run
  double quiet_probability = 0.3;            ///< of a step to be left alone
  Duration step_max = seconds(1);
  std::uint64_t volume_bytes = 0;  ///< of each volume's device
  std::uint64_t growth_bytes = 0;  ///< by which it becomes larger in the run; 0: it does not
  std::uint32_t volumes_count = 1;
  /// Sectors are numbered through all volumes: sector s of volume v is v × volume_sectors() + s.
  [[nodiscard]] std::uint64_t volume_sectors() const noexcept { return (volume_bytes + growth_bytes) / kSectorBytes; }
  std::uint32_t logical_block_bytes = 512;
  bool has_write_cache = true;
  bool has_external_metadata = false;
  bool supports_discard = true;
  bool supports_write_zeroes = true;
  /// Of transfers to the device; more than the logical block: smaller requests are read, changed and written back.
  std::uint32_t alignment_bytes = 512;
  std::uint32_t buffer_memory_mib = 32;
  DiskModel disk;
  Duration disk_stall_timeout{};  ///< of the nodes; 0: never
  NetworkModel network;
  std::uint64_t rate_max_bytes_per_second = 0;
  node::ActivityLogConfig activity_log;
  node::ChecksumUse checksum = node::ChecksumUse::automatic;
  bool has_silent_difference = false;  ///< at the end one copy is damaged where nobody looks, and verify must find it
  replication::SplitPolicies split_policies;
  std::array<double, 2> clock_rate{1.0,
                                   1.0};  ///< of the hosts; their rates differ by less than the margin (protocol.md P3)
  bool has_undo = false;                  ///< what a copy that lost a split had is kept first
  bool has_virtual_ip = false;
  bool has_arbiter = false;  ///< none: the nodes' own words decide, and a full partition splits the copies
  bool has_arbiter_faults = false;
  bool has_switchover_verb = false;  ///< a switchover is asked for by its name; else as secondary here, primary there
  bool has_handlers = false;         ///< a person's program is asked before each resync, and takes its time
  std::vector<InitiatorOptions> initiators;

  [[nodiscard]] bool has(Fault fault) const noexcept { return weight[static_cast<std::size_t>(fault)] > 0; }
  [[nodiscard]] bool has_disk_errors() const noexcept {
    return has(Fault::read_error) || has(Fault::write_error) || has(Fault::flush_error) || has(Fault::metadata_error) ||
           has(Fault::hung_disk);
  }
  [[nodiscard]] std::string describe() const;
};

/// `steps` 0: drawn too. `is_lite`: no faults.
[[nodiscard]] RunOptions draw_options(std::uint64_t seed, std::uint32_t steps, bool is_lite);

inline constexpr const char* kTargetName = "iqn.2026-11.org.example:sim";
inline constexpr const char* kNodeAddress[2] = {"10.0.0.1", "10.0.0.2"};
inline constexpr const char* kNodeName[2] = {"a", "b"};

}  // namespace replblk::sim
