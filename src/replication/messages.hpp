// The control messages of the peer protocol as plain structs, and their protobuf form (proto/peer.proto).
// decode() accepts only messages whose required fields are there and in range: what it returns can be used unchecked.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.hpp"
#include "base/uuid.hpp"
#include "blockdev/dirty_bitmap.hpp"
#include "blockdev/record.hpp"
#include "ports/virtual_ip.hpp"

namespace replblk::replication {

/// Those before 5 had no heartbeats, and roles that were given by hand: they cannot give or take a lease. 5 did not say
/// which pair a copy belongs to.
inline constexpr std::uint32_t kProtocolVersionMin = 6;
inline constexpr std::uint32_t kProtocolVersionMax = 6;
inline constexpr std::size_t kNonceBytes = 32;

struct Hello {
  std::uint32_t protocol_min = kProtocolVersionMin;
  std::uint32_t protocol_max = kProtocolVersionMax;
  std::uint64_t features = 0;
  std::string cluster;
  std::string node;
  std::string expected_peer;
  std::string resource;
  std::string nonce;  ///< kNonceBytes
  std::uint64_t incarnation = 0;
};

struct Proof {
  std::string mac;
};

struct Refusal {
  std::string reason;
  bool is_final = false;
};

struct VolumeIntroduction {
  Uuid uuid;
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 0;
  std::uint32_t bitmap_block_bytes = 0;
  bool has_dirty_blocks = false;
  std::uint64_t dirty_bytes = 0;
  std::uint64_t room_bytes = 0;  ///< how large it can become there without more ado; 0: not told
  /// The first runs of dirty blocks, ascending: what was changed since the copies parted. All volumes of an
  /// Introduction together have at most kDirtyRangesMax.
  std::vector<blockdev::ByteRange> dirty_ranges;
  friend bool operator==(const VolumeIntroduction&, const VolumeIntroduction&) = default;
};

/// Keeps an Introduction well below the size of a control message, and a report readable.
inline constexpr std::size_t kDirtyRangesMax = 64;

/// What a node says of itself when two meet.
struct Introduction {
  std::vector<std::string> shared_fields;
  std::vector<VolumeIntroduction> volumes;
  blockdev::Configuration configuration;
  std::uint64_t seen = 0;
  Uuid pair_id;  ///< none: the copy was just created
  blockdev::GenerationSet generations;
  bool is_inconsistent = false;
  bool is_outdated = false;
  bool is_crashed_primary = false;
  bool may_have_lost_cache = false;
  bool survived_connected = false;
  bool is_primary = false;
  bool is_sync_paused = false;          ///< its administrator has paused resyncs
  bool discards_data = false;           ///< a person gave this copy up, for this connection, if the two have split
  std::uint64_t alone_since_ms = 0;     ///< Unix time by that node's clock; 0: a member of a pair, or not known
  bool was_primary_at_parting = false;  ///< it served when the two parted
  /// By which its kernel may answer for its virtual IPs: such answers to a probe are no conflict. At most
  /// kHardwareAddressesMax.
  std::vector<ports::HardwareAddress> hardware_addresses;
};
inline constexpr std::size_t kHardwareAddressesMax = 64;

struct SyncStart {
  blockdev::Configuration configuration;
  bool is_full = false;
};

struct BitmapEnd {};

struct Proposal {
  blockdev::Configuration configuration;
  blockdev::GenerationSet generations;
  std::string reservations;
};

struct ProposalAck {
  std::uint64_t term = 0;
};

struct Reservations {
  std::uint64_t number = 0;
  std::string table;
};

struct ReservationsAck {
  std::uint64_t number = 0;
};

struct RoleChange {
  bool is_primary = false;
  bool has_addresses = false;  ///< virtual IPs: the Primary has them; who is not Primary any more had them until now
};

/// The sender's administrator has paused or resumed resyncs.
struct SyncPause {
  bool is_paused = false;
};

/// What the sender does with the copies, for the receiver's status: each second while it lasts, and once at its end.
struct SyncProgress {
  enum class Activity : std::uint8_t { none, resync, verify, repair };
  struct Volume {
    std::uint64_t total_bytes = 0;
    std::uint64_t left_bytes = 0;
    std::uint64_t rate_bytes_per_second = 0;
    std::uint64_t seconds_left = 0;
    friend bool operator==(const Volume&, const Volume&) = default;
  };
  Activity activity = Activity::none;
  std::vector<Volume> volumes;
};

/// The sender's administrator wants the copies compared, and the receiver's is the one to compare with.
struct VerifyRequest {
  std::uint64_t start_bytes = 0;
  std::uint64_t stop_bytes = UINT64_MAX;
  bool is_repair = false;  ///< and what differs overwritten by the receiver's copy
};

/// The sender's administrator gives the sender's copy up: the receiver is to overwrite it.
struct Invalidate {};

/// The volumes become larger (docs/peer_protocol.md 3): the sender's administrator asked for it, the receiver follows.
enum class ResizeStep : std::uint8_t { measure, zero, grow, give_up };
struct Resize {
  ResizeStep step = ResizeStep::measure;
  std::vector<std::uint64_t> sizes_bytes;  ///< zero, grow: what each volume is to have
};

/// The receiver has taken the step, durably, or says why not.
struct ResizeReply {
  ResizeStep step = ResizeStep::measure;
  std::vector<std::uint64_t> sizes_bytes;  ///< measure: how large each volume can be there
  std::string failure;                     ///< empty: done
};

using Message = std::variant<Hello, Proof, Refusal, Introduction, SyncStart, BitmapEnd, Proposal, ProposalAck,
                             RoleChange, SyncPause, SyncProgress, VerifyRequest, Reservations, ReservationsAck,
                             Invalidate, Resize, ResizeReply>;

[[nodiscard]] std::string encode(const Message& message);
[[nodiscard]] std::optional<Message> decode(ConstBytes bytes);

}  // namespace replblk::replication
