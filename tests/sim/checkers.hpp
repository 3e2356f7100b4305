// What protocol.md 8 forbids, held against the two hosts from outside (devices) and inside (Resource::inspect, which is
// const in spirit): I1, I2, I4, I5, I6, I8. I3 is the oracle's, I9 the scenario's. Each check returns the first
// violation as a sentence, or nothing. Never changes anything; called between turns only.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "oracle.hpp"
#include "reservation_model.hpp"
#include "sim_host.hpp"

namespace replblk::sim {

class Checkers {
 public:
  Checkers(std::array<SimHost*, 2> hosts, Oracle& oracle) : hosts_(hosts), oracle_(oracle) {}

  void set_data_bytes(std::uint64_t bytes) noexcept { data_bytes_ = bytes; }
  /// A split was provoked: data is not comparable until it is resolved.
  void set_split(bool is_split) noexcept { is_split_ = is_split; }
  [[nodiscard]] std::uint64_t data_bytes() const noexcept { return data_bytes_; }
  /// A disk may fail in this run: a write that only one member's disk took is refused and leaves a difference between
  /// members, which must be in a resync set.
  void set_disk_errors() noexcept { has_disk_errors_ = true; }

  /// I1 (as far as hands keep it), I8. Cheap: after each slice of time.
  [[nodiscard]] std::string check_roles();
  /// I2 for one answered write: in every member's copy, unless that host lost its cache since it became a member.
  [[nodiscard]] std::string check_answered(Sectors sectors);
  /// The same for one answered change of an initiator's registration or reservation: durable in every member's record.
  [[nodiscard]] std::string check_reservation_answered(const std::string& initiator_name, std::uint64_t isid,
                                                       const OwnReservation& own);
  /// P2 for what an answer has made durable: in what each member's device would keep without power.
  [[nodiscard]] std::string check_durable(const std::vector<std::uint64_t>& sectors);
  /// P1: a node has become the only member, and `sectors` hold writes that were answered before: nobody else is asked
  /// for them any more, so a power cut now must not undo them here.
  [[nodiscard]] std::string check_parted(blockdev::NodeIndex node, const std::vector<std::uint64_t>& sectors);
  /// I4 and I5, when nothing is in flight. Says in `was_compared` whether there was something to compare.
  [[nodiscard]] std::string check_copies(bool& was_compared);
  /// I5 as a crash would find it, at any moment: what both devices remember (stored bits and active extents) covers
  /// every block that may differ, whichever of the volatile sectors a power cut on either side would keep.
  [[nodiscard]] std::string check_remembered();
  /// P5: no verify finds anything, unless damage was done on purpose or disks fail (then the one at the end counts).
  [[nodiscard]] std::string check_verify();
  void expect_differences(bool are_expected) noexcept { are_differences_expected_ = are_expected; }
  /// I6 for both hosts; of I7: what one node has persisted of a common decision, the other has at least seen.
  [[nodiscard]] std::string check_records();
  /// The end: both copies equal in every byte.
  [[nodiscard]] std::string check_identical();

  /// Power was cut: what this host holds is no proof of anything until it has joined again.
  void lost_cache(blockdev::NodeIndex node) noexcept { has_lost_cache_[node] = true; }
  void keeps_what_is_left(blockdev::NodeIndex node) noexcept { has_lost_cache_[node] = false; }
  [[nodiscard]] bool has_lost_cache(blockdev::NodeIndex node) const noexcept { return has_lost_cache_[node]; }
  /// Looks whether both are established: from then on both copies count again.
  void observe();
  [[nodiscard]] bool is_established();

 private:
  [[nodiscard]] std::uint64_t common_bytes(std::size_t volume) const;

  std::array<SimHost*, 2> hosts_;
  Oracle& oracle_;
  std::uint64_t data_bytes_ = 0;
  bool is_split_ = false;
  bool are_differences_expected_ = false;
  bool has_disk_errors_ = false;
  std::array<bool, 2> has_lost_cache_{};
  std::array<std::uint64_t, 2> term_{};
  std::array<std::uint64_t, 2> seen_{};
};

}  // namespace replblk::sim
