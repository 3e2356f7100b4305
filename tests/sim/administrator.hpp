// The person (or script) who moves roles when nothing has failed, and names a primary where nobody is named; failovers
// are the nodes' own. She knows what a careful one would: which copies hold every answered write. Works through admin
// requests only.
// Not responsible for faults (Scenario). Invariant: in a careful run it never causes a split.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "checkers.hpp"
#include "sim_host.hpp"

namespace replblk::sim {

class Administrator {
 public:
  Administrator(Timeline& timeline, std::array<SimHost*, 2> hosts, Checkers& checkers)
      : timeline_(timeline), hosts_(hosts), checkers_(checkers) {}

  /// The first full sync starts here.
  void make_first_primary(blockdev::NodeIndex node) { first_primary_ = node; }
  void want_switchover() { is_switchover_wanted_ = true; }
  /// What she wanted and has not come to yet she does not want any more.
  void switch_over_by_name() noexcept { has_switchover_verb_ = true; }
  void standby(blockdev::NodeIndex node) { request_aside(node, node::AdminVerb::standby); }
  void maintenance(blockdev::NodeIndex node) { request_aside(node, node::AdminVerb::maintenance_on); }
  /// On both nodes.
  void end_standby_and_maintenance();
  void rest() noexcept { is_switchover_wanted_ = false; }
  /// The primary becomes secondary, whatever it is in the middle of.
  void want_secondary();
  void want_disconnect(blockdev::NodeIndex node);
  /// Takes back `disconnect`: asks the nodes that stand alone.
  void want_connect();
  void pause_sync(blockdev::NodeIndex node);
  void attach(blockdev::NodeIndex node);
  void invalidate(blockdev::NodeIndex node, bool is_remote);
  /// On both nodes.
  void resume_sync();
  void resize(blockdev::NodeIndex node);
  void verify(blockdev::NodeIndex node);
  /// Looks after the pair; called every few hundred milliseconds.
  void look();
  /// Promotes although the other one may live: provokes a split.
  void promote_carelessly(blockdev::NodeIndex node);
  /// After a split: the role is given up, or not wanted any more.
  void demote(blockdev::NodeIndex node);
  /// `connect`, and on the node whose copy is to go `connect --discard-my-data`.
  void connect(blockdev::NodeIndex node, bool discards_data);
  /// The split is over.
  void become_careful() noexcept { is_careless_ = false; }
  /// A request is out whose outcome depends on the other node staying as it is.
  [[nodiscard]] bool is_busy();
  [[nodiscard]] std::uint64_t refusals_count() const noexcept { return refusals_count_; }

 private:
  void request(blockdev::NodeIndex node, node::AdminVerb verb, bool is_forced);
  void request_aside(blockdev::NodeIndex node, node::AdminVerb verb);
  [[nodiscard]] bool may_promote(blockdev::NodeIndex node, bool& may_force);
  [[nodiscard]] bool must_refuse(blockdev::NodeIndex node);

  Timeline& timeline_;
  std::array<SimHost*, 2> hosts_;
  Checkers& checkers_;
  blockdev::NodeIndex first_primary_ = blockdev::kNoNode;
  blockdev::NodeIndex preferred_ = blockdev::kNoNode;
  bool is_switchover_wanted_ = false;
  bool has_switchover_verb_ = false;
  bool is_careless_ = false;
  std::uint64_t busy_run_ = 0;
  blockdev::NodeIndex busy_node_ = blockdev::kNoNode;
  std::uint64_t request_number_ = 0;
  std::uint64_t refusals_count_ = 0;
};

}  // namespace replblk::sim
