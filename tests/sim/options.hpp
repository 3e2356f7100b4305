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
  latency,     ///< of the link between the nodes
  hang,        ///< a daemon does not run for a while
  switchover,  ///< the administrator: secondary here, primary there
  disconnect,  ///< the administrator: disconnect, connect later
  pause,       ///< the administrator: pause-sync on one node, resume-sync later
  verify,      ///< the administrator: an online verify, some to repair with the primary's copy
  split,       ///< a careless administrator: the other node is promoted while the primary is cut off, not dead
};
inline constexpr std::size_t kFaultCount = 16;
[[nodiscard]] std::string_view to_string(Fault fault) noexcept;

struct RunOptions {
  std::uint64_t seed = 1;
  std::uint32_t steps = 0;
  bool is_lite = false;
  std::array<double, kFaultCount> weight{};  ///< 0: off in this run
  double quiet_probability = 0.3;            ///< of a step to be left alone
  Duration step_max = seconds(1);
  std::uint64_t volume_bytes = 0;
  std::uint32_t logical_block_bytes = 512;
  bool has_write_cache = true;
  bool has_external_metadata = false;
  bool supports_discard = true;
  bool supports_write_zeroes = true;
  DiskModel disk;
  NetworkModel network;
  std::uint64_t rate_max_bytes_per_second = 0;
  node::ActivityLogConfig activity_log;
  node::ChecksumUse checksum = node::ChecksumUse::automatic;
  bool has_silent_difference = false;  ///< at the end one copy is damaged where nobody looks, and verify must find it
  replication::SplitPolicies split_policies;
  std::vector<InitiatorOptions> initiators;

  [[nodiscard]] bool has(Fault fault) const noexcept { return weight[static_cast<std::size_t>(fault)] > 0; }
  [[nodiscard]] std::string describe() const;
};

/// `steps` 0: drawn too. `is_lite`: no faults.
[[nodiscard]] RunOptions draw_options(std::uint64_t seed, std::uint32_t steps, bool is_lite);

inline constexpr const char* kTargetName = "iqn.2026-11.org.example:sim";
inline constexpr const char* kNodeAddress[2] = {"10.0.0.1", "10.0.0.2"};
inline constexpr const char* kNodeName[2] = {"a", "b"};

}  // namespace replblk::sim
