// What an initiator may find of its own registration and reservation: what it was answered; where an answer is missing,
// that or what it had asked for, and from then on what it found. Exact, since nobody preempts or clears: only the port
// itself changes what it has, one change at a time. Not responsible for commands (SimInitiator). Invariant: what was
// found once stays true until the next change.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.hpp"

namespace replblk::sim {

struct OwnReservation {
  std::uint64_t key = 0;  ///< 0: not registered
  bool is_holder = false;
  friend bool operator==(const OwnReservation&, const OwnReservation&) = default;
};

/// The part of one port in the answer to PERSISTENT RESERVE IN, READ FULL STATUS (SPC-4 6.15.5).
[[nodiscard]] OwnReservation find_own(ConstBytes full_status, std::string_view initiator_name, std::uint64_t isid);

class ReservationModel {
 public:
  /// What is so, if is_settled().
  [[nodiscard]] const OwnReservation& own() const noexcept { return own_; }
  /// No change is under way or of unknown outcome.
  [[nodiscard]] bool is_settled() const noexcept { return !is_changing_ && !is_open_; }
  /// Counts changes: while it stays and the model is settled, so does what is registered.
  [[nodiscard]] std::uint64_t changes_count() const noexcept { return changes_count_; }

  /// Of the change under way: another's reservation may be in the way.
  [[nodiscard]] bool wants_to_hold() const noexcept { return wanted_.is_holder && !own_.is_holder; }

  void begin(const OwnReservation& wanted);
  void answered();
  void refused() { is_changing_ = false; }
  /// No answer, and none will come.
  void lost();
  /// Found with no change under way, and nothing of an old session alive. A sentence when that cannot be.
  [[nodiscard]] std::string found(const OwnReservation& what);

 private:
  OwnReservation own_;
  OwnReservation wanted_;
  std::uint64_t changes_count_ = 0;
  bool is_changing_ = false;
  bool is_open_ = false;  ///< own_ or wanted_
};

}  // namespace replblk::sim
