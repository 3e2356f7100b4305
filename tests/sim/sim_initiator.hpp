// An initiator host: keeps one I_T nexus to whichever node serves, issues a random mix of commands on its region with
// stamped blocks, and tells the oracle when each began and ended. Loses connections, gives them up early (leaving the
// old one alive as a ghost that still sends its Data-Out), logs in again with the same ISID, tries the other portal.
// Policy: a write without an answer is a "maybe" until the next login has been answered and TEST UNIT READY is GOOD.
// Not responsible for what is legal (Oracle) nor for the protocol's details (IscsiSession).
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "iscsi_session.hpp"
#include "oracle.hpp"
#include "reservation_model.hpp"
#include "sim_disk.hpp"
#include "sim_network.hpp"

namespace replblk::sim {

struct InitiatorOptions {
  SessionOptions session;
  std::vector<ports::Endpoint> portals;
  std::uint16_t lun = 0;
  std::uint64_t base_sector = 0;                  ///< the number of the volume's first sector
  std::uint64_t volume_sectors = UINT64_MAX / 2;  ///< that a flush of the volume covers
  Sectors region;                                 ///< in numbers through all volumes
  std::uint32_t queue_depth = 4;
  /// In sectors of the volume: what it has from here on is new, and used by all of its initiators. 0: it does not grow.
  std::uint64_t grown_from = 0;
  std::uint32_t large_sectors_max = 512;
  Duration gap_max = milliseconds(4);  ///< between commands of one slot
  double read_share = 0.35;
  double flush_share = 0.06;
  double fua_share = 0.1;            ///< of the writes
  double exotic_share = 0.06;        ///< UNMAP, WRITE SAME, COMPARE AND WRITE
  double reservation_share = 0;      ///< PERSISTENT RESERVE; what is found must be what was answered
  double impatience_per_second = 0;  ///< connections given up for no reason
  Duration command_timeout = seconds(8);
};

class SimInitiator final : public IscsiSession::Owner {
 public:
  struct Hooks {
    std::function<std::uint64_t()> next_value;
    std::function<void(std::uint16_t lun, Sectors sectors, bool is_durable)> on_write_answered;
    std::function<void(const std::vector<std::uint64_t>& sectors)> on_flush_answered;
    std::function<void(const std::string& name, std::uint64_t isid, const OwnReservation& own)> on_reservation_answered;
    std::function<void(const std::string& sentence)> on_violation;
    /// A read, write or flush was answered GOOD by the node of this address.
    std::function<void(const std::string& address)> on_data_answered;
    /// Whether a disk error may be the answer now.
    std::function<bool()> may_fail;
    std::function<bool()> may_be_full;
  };

  SimInitiator(SimFabric& fabric, std::string host, Oracle& oracle, InitiatorOptions options, Hooks hooks);
  ~SimInitiator();

  void start();
  /// New commands are issued only while on; what is in flight ends by itself.
  void set_load(bool is_on);
  [[nodiscard]] bool is_idle() const noexcept { return pending_.empty() && lost_.empty(); }
  [[nodiscard]] bool has_nothing_in_flight() const noexcept { return pending_.empty(); }
  [[nodiscard]] bool is_ready() const noexcept { return is_ready_; }
  /// Reads the whole region once, then calls `done`. Retries until it succeeds.
  void read_everything(std::function<void()> done);
  [[nodiscard]] const std::string& name() const noexcept { return options_.session.initiator_name; }

  struct Counters {
    std::uint64_t writes_answered = 0;
    std::uint64_t writes_lost = 0;
    std::uint64_t reads = 0;
    std::uint64_t flushes = 0;
    std::uint64_t reservations = 0;  ///< changes that were answered
    std::uint64_t logins = 0;
    std::uint64_t redirects = 0;
    std::uint64_t ghosts = 0;
    std::uint64_t disk_errors = 0;
  };
  [[nodiscard]] const Counters& counters() const noexcept { return counters_; }
  /// Of the volume, as it was last told.
  [[nodiscard]] std::uint64_t capacity_bytes() const noexcept { return capacity_sectors_ * kSectorBytes; }

  void on_logged_in(IscsiSession& session) override;
  void on_reply(IscsiSession& session, std::uint64_t cookie, const ScsiReply& reply) override;
  void on_ended(IscsiSession& session, const std::string& sentence) override;
  void on_violation(const std::string& sentence) override;

 private:
  enum class Kind : std::uint8_t {
    ready,
    capacity,
    read,
    write,
    flush,
    compare_and_write,
    reserve,
    reservation_status
  };
  struct Pending {
    Kind kind = Kind::ready;
    Sectors sectors;
    std::uint64_t oracle_op = 0;
    std::uint64_t oracle_read = 0;  ///< of a COMPARE AND WRITE
    std::vector<std::byte> compare;
    bool is_sweep = false;
    bool is_fua = false;
    bool is_registered = false;  ///< surely, when it was sent
    std::uint64_t reservation_changes_count = 0;
  };

  void connect();
  void give_up(const std::string& why);
  void forget_pending();
  void retry_later(Duration delay);
  void send_ready();
  void on_ready();
  void ask_capacity();
  void on_tick();
  void pump();
  void issue();
  void issue_read(Sectors sectors, bool is_sweep);
  void issue_write(Sectors sectors, bool is_zero, bool is_unmap);
  void issue_compare_and_write();
  void issue_flush();
  void issue_sweep();
  [[nodiscard]] bool has_grown() const noexcept {
    return options_.grown_from != 0 && capacity_sectors_ > options_.grown_from;
  }
  void issue_reservation();
  void issue_reservation_status(bool is_sweep);
  [[nodiscard]] bool may_conflict(const Pending& pending) const;
  [[nodiscard]] Sectors draw_sectors();
  [[nodiscard]] std::uint64_t lba_of(std::uint64_t sector) const noexcept {
    return (sector - options_.base_sector) / block_sectors_;
  }
  void submit(Pending pending, ScsiCommand command);
  void complete(const Pending& pending, const ScsiReply& reply);
  void drop(const Pending& pending);

  SimFabric& fabric_;
  SimLoop loop_;
  SimNetwork network_;
  Seeded& random_;
  Oracle& oracle_;
  InitiatorOptions options_;
  Hooks hooks_;
  std::unique_ptr<IscsiSession> session_;
  std::vector<std::unique_ptr<IscsiSession>> ghosts_;
  bool is_ready_ = false;
  bool is_load_on_ = false;
  bool can_unmap_ = false;
  std::uint32_t block_sectors_ = 1;
  std::uint64_t capacity_sectors_ = 0;
  bool is_capacity_out_ = false;
  std::size_t portal_ = 0;
  std::uint32_t not_ready_count_ = 0;
  std::uint64_t next_cookie_ = 1;
  std::map<std::uint64_t, Pending> pending_;
  std::vector<Oracle::OpId> lost_;     ///< writes whose fate is open until the next login
  std::vector<std::byte> last_block_;  ///< a block that was read, for COMPARE AND WRITE
  std::uint64_t last_block_sector_ = 0;
  std::uint32_t slots_waiting_ = 0;
  std::function<void()> sweep_done_;
  std::uint64_t sweep_next_ = 0;
  ReservationModel reservation_;
  bool is_reservation_out_ = false;  ///< a change or a status: one at a time
  std::uint64_t next_key_ = 1;
  ports::Timer retry_timer_;
  ports::Timer tick_timer_;
  ports::Timer gap_timer_;
  bool is_retrying_ready_ = false;
  Counters counters_;
};

}  // namespace replblk::sim
