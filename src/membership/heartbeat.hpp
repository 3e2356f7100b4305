// What two nodes keep telling each other (docs/heartbeat.md): the content of a heartbeat and its 272 bytes. Only the
// codec and the message authentication are here: which datagram is fresh is HeartbeatSession's matter, what follows
// from one the MembershipMachine's. All times in it are the sender's CLOCK_BOOTTIME and mean nothing to the receiver,
// who repeats them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "base/uuid.hpp"
#include "blockdev/record.hpp"

namespace replblk::membership {

/// The primary's question for a lease (protocol.md 3.6). The secondary repeats it whole.
struct Stamp {
  std::uint64_t incarnation = 0;  ///< 0: none
  blockdev::Configuration configuration;
  Instant t1{};
  std::uint32_t lease_ms = 0;
  friend bool operator==(const Stamp&, const Stamp&) = default;
  [[nodiscard]] bool is_none() const noexcept { return incarnation == 0; }
};

/// A request to mark oneself Outdated, or the reply to one: both repeat the same two numbers. Term 0: none.
struct RemovalTicket {
  std::uint64_t term = 0;
  std::uint64_t nonce = 0;
  friend bool operator==(const RemovalTicket&, const RemovalTicket&) = default;
  [[nodiscard]] bool is_none() const noexcept { return term == 0; }
};

/// Everything here is durable at the sender, or is about this moment.
struct Heartbeat {
  blockdev::Configuration configuration;
  std::uint64_t seen = 0;
  blockdev::Generation current;
  bool is_frozen = false;     ///< named primary, and may not answer
  bool is_serving = false;    ///< holds the mandate at this moment
  bool is_standby = false;    ///< the administrator wants no primary here
  bool is_connected = false;  ///< its end of the replication connection is established
  bool is_outdated = false;
  bool is_inconsistent = false;
  bool has_failed_disk = false;
  bool may_have_lost_cache = false;
  bool is_maintenance = false;
  bool is_addressless = false;  ///< a virtual IP could not be held there
  Stamp stamp;
  Stamp echo;
  RemovalTicket request;
  RemovalTicket reply;
  Uuid pair_id;  ///< none: the copy was just created
  friend bool operator==(const Heartbeat&, const Heartbeat&) = default;
};

/// In front of the content: who speaks to whom, and the freshness of it.
struct HeartbeatHeader {
  std::uint8_t sender = 0;         ///< node 0 or 1
  std::uint8_t path = 0;           ///< position of the path in the configuration
  bool has_content = false;        ///< false: only an introduction of a new incarnation
  std::uint64_t resource_key = 0;  ///< resource_key() of cluster and resource
  std::uint64_t incarnation = 0;
  std::uint64_t receiver_incarnation = 0;  ///< as the sender knows it; 0: not yet
  std::uint64_t challenge = 0;             ///< what a new incarnation must repeat to be believed
  std::uint64_t answer = 0;                ///< the receiver's challenge, as last heard
  std::uint64_t counter = 0;               ///< 1, 2, … in each incarnation, over all paths
  Instant sent_at{};
  Instant heard_sent_at{};        ///< sent_at of the last datagram that came over this path
  Duration held_for{};            ///< from its arrival to sent_at
  std::uint32_t paths_heard = 0;  ///< bit n: path n brought something within a lease
  friend bool operator==(const HeartbeatHeader&, const HeartbeatHeader&) = default;
};

inline constexpr std::size_t kHeartbeatBytes = 272;
inline constexpr std::size_t kHeartbeatPathsMax = 32;
using HeartbeatBytes = std::array<std::byte, kHeartbeatBytes>;

struct HeartbeatMessage {
  HeartbeatHeader header;
  Heartbeat content;
  friend bool operator==(const HeartbeatMessage&, const HeartbeatMessage&) = default;
};

enum class HeartbeatError : std::uint8_t {
  wrong_size,
  wrong_magic,
  wrong_version,
  not_authentic,  ///< the MAC is not made with this cluster's secret over these bytes
  bad_field,      ///< authentic, and yet a field is out of its range: another release
};
[[nodiscard]] std::string_view to_string(HeartbeatError error) noexcept;

/// First eight bytes of SHA-256 over both names: tells resources of one secret apart.
[[nodiscard]] std::uint64_t resource_key(std::string_view cluster, std::string_view resource);

/// Whose they may be, before anything is checked but the size; for who passes them on.
[[nodiscard]] std::optional<std::uint64_t> resource_key_of(ConstBytes bytes) noexcept;

[[nodiscard]] HeartbeatBytes encode(const HeartbeatMessage& message, std::string_view secret);
/// Checks size, magic, version, then the MAC, then every field; never reads past the bytes.
[[nodiscard]] Result<HeartbeatMessage, HeartbeatError> decode_heartbeat(ConstBytes bytes, std::string_view secret);

}  // namespace replblk::membership
