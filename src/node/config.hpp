// The checked configuration of a pair as plain data: what node.conf says after validation, with every default filled
// in. Made by config_file (protobuf text) or by tests; read by Node, control and main. Holds no rules of its own.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/time.hpp"
#include "blockdev/record.hpp"
#include "ports/stream.hpp"
#include "replication/split_brain.hpp"

namespace replblk::node {

using blockdev::NodeIndex;

struct NodeConfig {
  std::string name;
  std::string address;  ///< numeric; replication listens and connects here
};

enum class IoMode : std::uint8_t { direct, buffered };

/// A heartbeat's way besides the one between the nodes' addresses and the replication connection.
struct HeartbeatPathConfig {
  std::array<std::string, 2> addresses;  ///< numeric, by NodeIndex
  friend bool operator==(const HeartbeatPathConfig&, const HeartbeatPathConfig&) = default;
};

struct HeartbeatConfig {
  Duration interval = milliseconds(100);
  Duration lease = seconds(1);
  std::uint16_t port = 7789;  ///< UDP, of all paths
  std::vector<HeartbeatPathConfig> paths;
  friend bool operator==(const HeartbeatConfig&, const HeartbeatConfig&) = default;
};

/// By hand, or what the nodes' own words decide.
struct NoArbiterConfig {};

struct EtcdConfig {
  std::vector<ports::Endpoint> endpoints;
  std::string user;  ///< empty: without authentication
  std::string password;
  bool has_tls = false;
  std::string ca_file;    ///< empty: what the system trusts
  std::string cert_file;  ///< empty: none
  std::string key_file;
  std::string server_name;  ///< empty: the endpoint's address
  Duration timeout = seconds(1);
};

struct PingConfig {
  std::vector<ports::Endpoint> addresses;  ///< port 0: an ICMP echo instead of a connection
  Duration timeout = seconds(3);
};

using ArbiterConfig = std::variant<NoArbiterConfig, EtcdConfig, PingConfig>;

struct DiskConfig {
  std::string path;           ///< backing device or file
  std::string metadata_path;  ///< empty: internal
  IoMode io_mode = IoMode::direct;
  Duration timeout = seconds(30);       ///< 0: never
  Duration stall_timeout = seconds(3);  ///< 0: never
};

struct VolumeConfig {
  std::uint16_t lun = 0;
  std::array<DiskConfig, 2> disks;  ///< by NodeIndex; in a single-node cluster only [0]
  bool write_cache = true;
  std::uint32_t logical_block_bytes = 512;
};

struct TargetConfig {
  std::string iqn;
  std::string alias;
  std::vector<std::string> portal_addresses;  ///< numeric; empty: all addresses
  /// Where the other node alone is reached by initiators, the best first; empty: nowhere, or `redirect: false`.
  std::vector<std::string> peer_portal_addresses;
  std::uint16_t port = 3260;
};

/// When a resync compares checksums before it copies.
enum class ChecksumUse : std::uint8_t { automatic, always, never };

struct ResyncConfig {
  std::uint64_t rate_max_bytes_per_second = 0;  ///< 0: as fast as it goes
  std::uint64_t rate_min_bytes_per_second = std::uint64_t{1} << 20;
  double latency_budget = 0.2;
  ChecksumUse checksum = ChecksumUse::automatic;
};

struct ActivityLogConfig {
  std::uint32_t extents = 4096;    ///< active at once, per volume: 67 to 65534
  bool updates = true;             ///< false: after a crash of the primary every block is resynced
  std::uint8_t extent_shift = 22;  ///< 4 MiB; not in the file
};

/// An address that moves with the role, as this node sets it.
struct VirtualIpConfig {
  std::string address;  ///< numeric
  unsigned prefix_bits = 0;
  std::string device;
};

/// What a handler is told of, by DRBD's names.
enum class HandlerEvent : std::uint8_t {
  before_resync_target,
  after_resync_target,
  out_of_sync,
  initial_split_brain,
  split_brain,
  local_io_error,
  disconnected,
  before_resync_source,
  pri_lost,
  pri_lost_after_sb,
  quorum_lost,
  fence_peer,
  unfence_peer,
};
inline constexpr std::size_t kHandlerEventsCount = 13;
/// As in the file, by HandlerEvent.
inline constexpr std::array<const char*, kHandlerEventsCount> kHandlerNames{
    "before_resync_target", "after_resync_target",  "out_of_sync",
    "initial_split_brain",  "split_brain",          "local_io_error",
    "disconnected",         "before_resync_source", "pri_lost",
    "pri_lost_after_sb",    "quorum_lost",          "fence_peer",
    "unfence_peer"};
[[nodiscard]] inline const char* to_string(HandlerEvent event) noexcept {
  return kHandlerNames[static_cast<std::size_t>(event)];
}

struct HandlersConfig {
  std::array<std::string, kHandlerEventsCount> commands;  ///< by HandlerEvent; empty: nothing is run
  Duration timeout = seconds(20);
};

struct ResourceConfig {
  std::string name;
  TargetConfig target;
  std::vector<VirtualIpConfig> virtual_ips;
  std::vector<VolumeConfig> volumes;
  ResyncConfig resync;
  ActivityLogConfig activity_log;
  replication::SplitPolicies after_split_brain;
  std::string undo_directory;  ///< for what a copy that lost a split brain had; empty: nothing is kept
  HandlersConfig handlers;
  NodeIndex preferred_node = blockdev::kNoNode;  ///< of two that may serve alike
  std::optional<Duration> failback_after;        ///< nothing: the role never goes back by itself
  /// How long a node that starts waits for its peer before it serves alone; with `etcd`, before it asks. Nothing: for
  /// ever.
  std::optional<Duration> degraded_start_after;
};

struct ClusterConfig {
  std::string name;
  std::vector<NodeConfig> nodes;  ///< two, or one for an unreplicated target
  std::string secret;             ///< the bytes of secret_file; empty only in a single-node cluster
  std::uint16_t replication_port = 7789;
  std::vector<ResourceConfig> resources;
  std::string admin_socket;  ///< path of the Unix socket of this node
  std::uint32_t buffer_memory_mib = 64;
  Duration connect_interval = seconds(1);
  Duration ping_interval = seconds(1);  ///< idle replication connection
  Duration ping_timeout = seconds(2);   ///< no byte from the peer for this long after a ping: connection is dead
  Duration peer_timeout = seconds(2);   ///< acknowledgements stop while bytes still come
  Duration flush_interval = seconds(1);
  HeartbeatConfig heartbeat;
  ArbiterConfig arbiter;

  /// What must be equal on both nodes, as "key=value" lines in a fixed order: the handshake compares them and names
  /// those that differ. Node-local values (secret, admin socket, buffer memory) are not in it.
  std::vector<std::string> shared_fields;

  NodeIndex self = 0;  ///< which of `nodes` this daemon is
  [[nodiscard]] bool is_pair() const noexcept { return nodes.size() == 2; }
};

}  // namespace replblk::node
