// What a volume may legally hold: for every sector the writes that a read may return, by the rules of a linearizable
// register with distinct values (protocol.md P1-P3, invariants I2 and I3). Knows operations by their beginning and
// end only; knows nothing of nodes, disks or connections.
//   - A write is a candidate from begin_write(). Once another one took effect for certain that began after it had
//     ended, it is superseded: a read that begins later must not return it.
//   - A write "took effect for certain" when it is answered, or when a read has returned it.
//   - A value was there from the first end of an operation on it (its write, or a read that returned it) to the last
//     beginning of one: its zone. Zones that run forward must not overlap, and a backward one (all operations on that
//     value overlap each other) must not lie inside a forward one (Gibbons and Korach, "Testing Shared Memories",
//     1997). This sees what the rule before does not: a slow read whose order was decided before it began.
//   - A write without an answer (lost) may take effect until close_lost(): the moment when a new login has been
//     answered (protocol.md 4 "No ghosts"). From then on it has happened or has not.
//   - A write is durable when a flush that began after it had ended was answered, or when it was FUA. forget_volatile()
//     says that every copy lost what was not: then everything that no durable write supersedes is a candidate again.
// Invariant: it never calls a legal history illegal. Without forget_volatile() and equal values (zeroes) it calls every
// illegal one illegal at its first illegal answer.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.hpp"

namespace replblk::sim {

struct Sectors {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

class Oracle {
 public:
  using OpId = std::uint64_t;

  /// `has_write_cache` off: every answered write is durable.
  Oracle(std::uint64_t sectors_count, bool has_write_cache);

  /// What the device held before anything was written.
  void preset(std::uint64_t sector, std::uint64_t value);

  [[nodiscard]] OpId begin_write(Sectors sectors, std::uint64_t value, bool is_fua);
  void end_write(OpId op);   ///< answered GOOD
  void lose_write(OpId op);  ///< the connection ended before the answer: it may happen until close_lost
  /// Ends every lost write whose beginning is older than `before` and that is in `ops`; they have happened or not.
  void close_lost(OpId op);
  void refuse_write(OpId op);  ///< answered by an error: may have happened in part, does nothing later

  [[nodiscard]] OpId begin_read(Sectors sectors);
  /// Empty: legal. Otherwise a sentence.
  [[nodiscard]] std::string end_read(OpId op, ConstBytes bytes);
  void drop_read(OpId op) { reads_.erase(op); }

  [[nodiscard]] OpId begin_flush() { return ++clock_; }
  /// Answered GOOD, for the volume that has these sectors. Returns the sectors of which it made a write durable.
  [[nodiscard]] std::vector<std::uint64_t> end_flush(OpId op, Sectors volume = {0, UINT64_MAX});

  void forget_volatile();

  /// A split has been resolved: whatever was begun so far is over, and the sector holds what the kept copy holds.
  void adopt(std::uint64_t sector, std::uint64_t value);

  /// Whether a copy that holds every answered write may hold this value now. Empty: yes.
  [[nodiscard]] std::string check_copy(std::uint64_t sector, const std::byte* bytes) const;
  /// Whether what a device would keep without power is at least what was made durable. Empty: yes.
  [[nodiscard]] std::string check_durable(std::uint64_t sector, const std::byte* bytes) const;
  [[nodiscard]] std::string describe(std::uint64_t sector) const;
  [[nodiscard]] std::uint64_t sectors_count() const noexcept { return sectors_.size(); }

 private:
  static constexpr std::uint64_t kNever = UINT64_MAX;
  struct Candidate {
    std::uint64_t op = 0;
    std::uint64_t value = 0;
    std::uint64_t ended = kNever;
    std::uint64_t superseded = kNever;  ///< reads that begin later must not return it
    std::uint64_t first_end = kNever;   ///< of an operation on it
    std::uint64_t last_begin = 0;       ///< of an operation on it
    std::uint64_t last_end = 0;
    bool is_certain = false;
    bool is_durable = false;
    bool is_durably_superseded = false;
    [[nodiscard]] std::uint64_t began() const noexcept { return op; }
    [[nodiscard]] bool is_forward() const noexcept { return first_end < last_begin; }
  };
  struct Write {
    Sectors sectors;
    bool is_fua = false;
  };
  using Candidates = std::vector<Candidate>;

  void make_certain(Candidates& candidates, Candidate& winner, std::uint64_t when) const;
  /// Whether it made any durable that was not.
  bool make_durable(Candidates& candidates, std::uint64_t ended_before) const;
  static void take_part(Candidate& candidate, std::uint64_t began, std::uint64_t when) noexcept;
  [[nodiscard]] static const Candidate* find_collision(const Candidates& candidates, const Candidate& one) noexcept;
  void prune(std::uint64_t sector);
  [[nodiscard]] static Candidate* find(Candidates& candidates, OpId op) noexcept;
  [[nodiscard]] std::string check_sector(std::uint64_t sector, const std::byte* bytes, std::uint64_t began);

  bool has_write_cache_;
  std::uint64_t clock_ = 1;
  std::uint64_t caches_lost_at_ = 0;
  std::vector<Candidates> sectors_;
  std::set<std::uint64_t> crowded_;  ///< sectors with more than one candidate, or a volatile one
  std::map<OpId, Write> writes_;
  std::map<OpId, Sectors> reads_;
};

}  // namespace replblk::sim
