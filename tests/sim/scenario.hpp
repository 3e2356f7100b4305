// One run: makes the pair, its first primary and the initiators, lets faults happen (safety phase), then heals
// everything and demands that the pair recovers within a bound with nothing lost (liveness phase). The only place that
// knows the whole. Invariant: everything that happens is decided by RunOptions and the time line's generator.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "administrator.hpp"
#include "checkers.hpp"
#include "options.hpp"
#include "oracle.hpp"
#include "sim_host.hpp"

namespace replblk::sim {

/// A daemon may hang for 30 s yet, an initiator wait 8 s for a command and give up twice; the rest is the pair's. The
/// slowest of some thousand runs took 34 s.
inline constexpr Duration kConvergeMax = seconds(90);

struct RunOutcome {
  std::string violation;           ///< empty: the run held
  std::uint64_t hash = 0;          ///< of the trace, every event's time, every transfer, and the disks at the end
  std::uint64_t events_count = 0;  ///< of the time line that were executed: the steps of a run
  Duration recovery{};             ///< from the end of all faults to both copies UpToDate and every initiator served
  std::string summary;
};

class Scenario {
 public:
  Scenario(RunOptions options, bool is_tracing);
  ~Scenario();
  [[nodiscard]] RunOutcome run();
  [[nodiscard]] Timeline& timeline() noexcept { return timeline_; }

 private:
  void prepare();
  void safety();
  void liveness();
  /// The copies are compared by the daemons and must be equal.
  void verify_everything();
  void overwrite(blockdev::NodeIndex damaged);
  void silent_difference();
  void come_to_rest();
  /// Asks the node that serves, or either, and waits until its verify, and what it mends, is done.
  void verify_and_wait(blockdev::NodeIndex node, const std::string& repair_from);
  // scenario_split.cpp
  void check_undo(blockdev::NodeIndex loser, const std::vector<std::byte>& held,
                  const std::vector<blockdev::ByteRange>& changes);
  void finish_split();
  [[nodiscard]] bool go_apart();
  [[nodiscard]] bool demote(blockdev::NodeIndex node);
  [[nodiscard]] bool quiesce();
  [[nodiscard]] blockdev::NodeIndex loser_by_policy(const std::array<std::uint64_t, 2>& changed_bytes);
  void check_detected(const std::array<std::uint64_t, 2>& changed_bytes);
  [[nodiscard]] bool choose_by_hand(blockdev::NodeIndex& loser);
  void reconcile(blockdev::NodeIndex loser);
  [[nodiscard]] bool is_primary(blockdev::NodeIndex node) const;
  [[nodiscard]] bool is_sole(blockdev::NodeIndex node) const;
  [[nodiscard]] bool is_standalone(blockdev::NodeIndex node);
  // scenario.cpp again
  void fail(const std::string& sentence);
  void let_run(Duration duration);
  void pause_and_compare();
  void step();
  void inject(Fault fault);
  /// Whether `record`, which is the node's now, makes it the only member of what was a pair: what both had answered
  /// must be durable there.
  void note_parting(blockdev::NodeIndex node, const blockdev::ResourceRecord& record);
  void take_down(SimHost& host, Duration off_time, bool is_power_cut);
  void stop(SimHost& host, Duration off_time);
  void cut_power(SimHost& host);
  void start_due_hosts();
  void spring_ambush();
  void spring_growth_ambush();
  void check_not_frozen(const std::string& address);
  [[nodiscard]] std::string check_none_kept();
  void heal_due();
  void heal_later(Duration delay, std::function<void()> heal);
  void grow_devices(double probability);
  void finish_growth();
  void expect_disk_errors(const SimHost& host, Duration how_long);
  void hang_disk(SimHost& host, Duration how_long);
  void break_disk(Fault fault, SimHost& host, Duration how_long);
  void mend_disks(SimHost& host);
  [[nodiscard]] bool has_converged();
  [[nodiscard]] std::string check_virtual_ip();
  [[nodiscard]] bool is_virtual_ip_settled() const;
  [[nodiscard]] std::string describe_state();

  RunOptions options_;
  Timeline timeline_;
  SimFabric fabric_;
  std::unique_ptr<SimArbiterServer> arbiter_;  ///< null: there is none
  std::unique_ptr<SimLan> lan_;                ///< null: no virtual IP
  std::array<std::unique_ptr<SimHost>, 2> hosts_;
  std::unique_ptr<Oracle> oracle_;
  std::unique_ptr<Checkers> checkers_;
  std::unique_ptr<Administrator> administrator_;
  std::vector<std::unique_ptr<SimInitiator>> initiators_;
  std::array<Instant, 2> start_at_{Instant::max(), Instant::max()};
  std::multimap<Instant, std::function<void()>> heals_;
  std::uint64_t next_value_ = 16;
  Instant growth_ambush_until_{};
  std::array<Instant, 2> kept_since_{Instant::max(),
                                     Instant::max()};  ///< initiators of that node, beside one that serves
  std::array<Instant, 2> ambush_until_{};
  std::array<Instant, 2> ambush_springs_at_{Instant::max(), Instant::max()};
  Duration recovery_{};
  Instant next_look_{};
  std::array<bool, 2> was_pair_{};      ///< by node, as its record said when it was last looked at
  std::uint64_t answered_by_both_ = 0;  ///< the oracle's time after the last write that was answered by a pair
  Instant disk_errors_until_{};
  std::array<Instant, 2> fails_until_{};  ///< by node, with the time that an error needs to reach an initiator
  Instant both_fail_until_{};
  Instant last_apart_{};  ///< the pair was not established
  bool is_split_ = false;
  blockdev::NodeIndex split_primary_ = blockdev::kNoNode;  ///< who served when the nodes parted
  bool is_disconnected_ = false;
  std::string violation_;
  std::array<std::uint64_t, kFaultCount> injected_{};
  std::uint64_t comparisons_ = 0;
  std::uint64_t losses_ = 0;
  std::uint64_t mended_ = 0;
  std::uint64_t splits_ = 0;
};

}  // namespace replblk::sim
