// What a node tells an operator: a plain snapshot that control prints (DRBD's grammar, JSON). Words are DRBD's.
// `reason` fields say why a state is not normal, since when, and what to do; empty when normal.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blockdev/dirty_bitmap.hpp"

namespace replblk::node {

/// The last verify that this node drove since its start.
struct VerifyStatus {
  bool is_known = false;  ///< there was one
  bool is_running = false;
  bool is_complete = false;
  std::uint64_t start_bytes = 0;
  std::uint64_t stop_bytes = 0;  ///< exclusive
  std::uint64_t compared_bytes = 0;
  std::uint64_t differing_bytes = 0;
  std::uint64_t differing_ranges_count = 0;
  std::vector<blockdev::ByteRange> differing_ranges;  ///< the first 64
  std::string reason;  ///< what was found and what to do, or why it ended early; empty: all is equal, or it runs
};

struct VolumeStatus {
  std::uint32_t volume = 0;
  std::uint16_t lun = 0;
  std::string backing_path;
  std::string disk_state;  ///< Diskless Attaching Failed Inconsistent Outdated Consistent UpToDate
  std::string disk_reason;
  std::string replication_state;  ///< Off Established WFBitMapS/T SyncSource SyncTarget …
  std::string peer_disk_state;    ///< DUnknown when not connected
  std::uint64_t size_bytes = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t metadata_writes = 0;      ///< all writes to the metadata
  std::uint64_t activity_log_writes = 0;  ///< transactions
  std::uint64_t bitmap_page_writes = 0;
  std::uint64_t activity_log_hits = 0;       ///< changes whose extents were active
  std::uint64_t activity_log_misses = 0;     ///< changes that waited for a transaction
  std::uint64_t activity_log_waits = 0;      ///< times that a change had to wait for a slot
  std::uint64_t activity_log_evictions = 0;  ///< extents that gave way to others
  std::uint64_t mended_reads = 0;            ///< that the own disk failed: read at the peer and written back
  std::uint64_t received_bytes = 0;          ///< from the peer
  std::uint64_t sent_bytes = 0;              ///< to the peer
  std::uint64_t out_of_sync_bytes = 0;
  std::uint64_t upper_pending = 0;  ///< initiators' requests in work
  std::uint64_t lower_pending = 0;  ///< requests at the disk
  std::uint64_t pending = 0;        ///< sent to the peer, not answered
  std::uint64_t unacked = 0;        ///< received from the peer, not answered
  bool is_syncing = false;          ///< a resync, a verify or a repair runs: the sync_ fields count
  double percent_done = 0;          ///< 0..100
  std::uint64_t sync_rate_bytes_per_second = 0;
  std::uint64_t sync_seconds_left = 0;
  std::uint64_t sync_total_bytes = 0;
  std::uint64_t sync_left_bytes = 0;
  std::uint64_t sync_average_rate_bytes_per_second = 0;  ///< since it began; the other one is of the last half minute
  std::uint64_t sync_elapsed_ms = 0;
  std::uint64_t sync_equal_bytes = 0;  ///< compared and not copied
  VerifyStatus verify;
  std::string resync_suspended = "no";  ///< DRBD's: no, user (this node's administrator), peer, or both
  std::string replication_reason;       ///< why the replication state is not normal, and what to do
};

/// What one node has changed in one volume since the two copies parted.
struct ChangesStatus {
  std::uint32_t volume = 0;
  std::uint64_t changed_bytes = 0;
  std::vector<blockdev::ByteRange> ranges;  ///< ascending; the first ones
  bool are_all_ranges = true;               ///< false: there are more
};

/// One side of a split brain.
struct SplitSideStatus {
  std::string node_name;
  bool is_primary = false;
  std::uint64_t alone_since_ms = 0;  ///< Unix time by that node's clock; 0: not known
  std::vector<ChangesStatus> volumes;
};

/// An address that moves with the role.
struct VirtualIpStatus {
  std::string name;   ///< "192.0.2.100/24 on eth0"
  std::string state;  ///< absent, probing, held, failed
  std::string reason;
};

/// One way on which the two nodes' heartbeats go.
struct HeartbeatPathStatus {
  std::string name;                 ///< "10.0.0.1 to 10.0.0.2", or "replication connection"
  bool is_heard = false;            ///< within a lease
  bool is_heard_by_peer = false;    ///< as the peer says
  std::uint64_t round_trip_us = 0;  ///< of the last one; 0: not known
  std::string reason;               ///< why not, and what to look at
};

struct SessionStatus {
  std::string initiator_name;
  std::string isid;  ///< 12 hex digits
  std::string address;
  std::uint64_t seconds = 0;  ///< since login
  std::uint32_t commands_in_flight = 0;
};

struct ResourceStatus {
  std::string name;
  std::string role;  ///< Primary, Secondary
  std::string role_reason;
  bool is_suspended = false;  ///< commands are held
  std::string suspended_reason;
  std::string target_iqn;
  bool is_serving = false;
  std::string arbiter;  ///< none, etcd, ping; empty in a single-node cluster
  std::uint64_t term = 0;
  std::string members;  ///< names of the members, comma-separated
  std::string current_generation;
  std::string peer_name;         ///< empty in a single-node cluster
  std::string connection_state;  ///< StandAlone Unconnected Connecting Connected NetworkFailure ProtocolError Timeout
  std::string connection_reason;
  std::string peer_role;               ///< Unknown when not connected
  std::vector<SplitSideStatus> split;  ///< both sides, after the nodes met and found a split brain; else empty
  std::vector<VolumeStatus> volumes;
  std::vector<SessionStatus> sessions;
  std::vector<VirtualIpStatus> virtual_ips;
  std::vector<HeartbeatPathStatus> heartbeat_paths;
};

struct Status {
  std::string node_name;
  std::uint32_t node_id = 0;  ///< its NodeIndex
  std::string version;
  std::vector<ResourceStatus> resources;
};

}  // namespace replblk::node
