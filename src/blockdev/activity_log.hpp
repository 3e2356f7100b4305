// Which extents of a volume may hold blocks that differ from the peer's copy without a bit on disk that says so
// (protocol.md 5.2): the slots of the activity log, who writes in them, which may be given to another extent, and what
// the next transaction says. Decides only: ActivityLogWriter does the I/O, Mirror says what is written and flushed.
// One thread; nothing is allocated after construction.
//
//   slot:  free ─plan()→ pending ─transaction_done()→ held ─last release()→ unstable ─flush_done()→ stable
//            held ←─ acquire() from unstable, stable, cleaning, saved
//            stable ─pick_cleaning()→ cleaning (its bits are being written) ─cleaning_done()→ saved
//            saved ─plan()→ pending, for another extent;   any but pending and held ─clear()→ free
//
// Invariants: a claim is granted only when all its extents are active, durably; an extent leaves its slot only when no
// claim holds it, every copy was flushed after its last write (or a bit in memory says that the peer's was not), and
// its bits are on disk. Claims that need a slot are served in the order of asking.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/callback.hpp"
#include "base/intrusive_list.hpp"
#include "blockdev/activity_log_codec.hpp"

namespace replblk::blockdev {

class ActivityLog {
 public:
  struct Shape {
    std::uint8_t extent_shift = 22;  ///< an extent is 2^shift bytes; 63: one that holds the whole volume
    std::uint32_t slots_count = 1;   ///< 1 … kLogSlotsMax
  };

  struct Slot;
  /// A member of whoever changes data; released (or never acquired) when destroyed.
  class Claim : public IntrusiveNode<Claim> {
   public:
    /// True: every extent is active, durably. False: the log cannot be written; nothing is held.
    Callback<void(bool is_active)> on_active;

   private:
    friend class ActivityLog;
    std::uint32_t first_ = 0;
    std::uint32_t count_ = 0;
    Slot* slot_ = nullptr;  ///< of a held claim on one extent, the hot case
  };

  struct Counters {
    std::uint64_t transactions = 0;
    std::uint64_t hits = 0;    ///< claims whose extents were all active
    std::uint64_t misses = 0;  ///< claims that waited for a transaction
    std::uint64_t waits = 0;   ///< claims among them that had to wait for a free slot
    std::uint64_t evictions = 0;
  };

  explicit ActivityLog(Shape shape);
  ~ActivityLog();

  /// How much of a change from `offset_bytes` on one claim may cover: no claim may need more than a quarter of the
  /// slots, so that large changes go in pieces and nobody waits for all others.
  [[nodiscard]] std::uint64_t piece_bytes(std::uint64_t offset_bytes, std::uint64_t length_bytes) const noexcept;

  /// True: active and held now. False: `claim` waits; plan() and transaction_done() will make it ready.
  [[nodiscard]] bool acquire(Claim& claim, std::uint64_t offset_bytes, std::uint64_t length_bytes) noexcept;
  /// The change has ended on every copy. `is_durable`: it needs no flush.
  void release(Claim& claim, bool is_durable) noexcept;
  [[nodiscard]] bool has_waiting() const noexcept { return !waiting_.empty(); }

  /// A flush of every copy is about to be sent; it covers the changes that were released before. One at a time.
  void flush_begins() noexcept;
  void flush_done(bool is_good) noexcept;
  /// A flush of every copy would help, and none is under way.
  [[nodiscard]] bool wants_flush() const noexcept;

  /// Fills in the next transaction, all but its sequence and is_reset, for as many waiting claims as it can serve.
  /// False: none is needed (claims may have become ready even so).
  [[nodiscard]] bool plan(LogTransaction& transaction) noexcept;
  void transaction_done() noexcept;
  /// The next claim that was granted; null: none.
  [[nodiscard]] Claim* pop_ready() noexcept { return ready_.pop_front(); }
  /// For a log that cannot be written any more: every claim that was not granted.
  [[nodiscard]] Claim* pop_ungranted() noexcept;
  /// The first claim that waits finds no slot.
  [[nodiscard]] bool is_blocked() const noexcept { return is_blocked_; }
  /// Nothing but a flush can free a slot for the claims that wait.
  [[nodiscard]] bool is_stuck() const noexcept {
    return is_blocked_ && count_of(Place::stable) + count_of(Place::cleaning) == 0;
  }
  /// That flush has failed: the claims that wait are to be refused.
  void refuse_waiting() noexcept;
  [[nodiscard]] Claim* pop_refused() noexcept { return refused_.pop_front(); }

  /// Slots are running short: extents whose bits must be on disk before they can go.
  [[nodiscard]] bool wants_cleaning() const noexcept;
  /// Appends to `extents` those to save now; `are_saved(extent)`: its bits are on disk already.
  template <class AreSaved>
  void pick_cleaning(AreSaved are_saved, std::vector<std::uint32_t>& extents);
  /// What was picked is on disk. Extents that were written meanwhile stay.
  void cleaning_done() noexcept;

  /// No claim is holding, no transaction under way.
  [[nodiscard]] bool is_quiescent() const noexcept;
  [[nodiscard]] bool has_unstable() const noexcept { return count_of(Place::unstable) > 0; }
  /// Extents of which some copy may not have been flushed since their last change.
  template <class Visit>
  void for_each_unstable(Visit visit);
  /// Every slot becomes free. Quiescent only; claims may wait.
  void clear() noexcept;
  /// While set every claim waits and plan() serves none.
  void set_closing(bool is_closing) noexcept { is_closing_ = is_closing; }
  [[nodiscard]] bool is_closing() const noexcept { return is_closing_; }

  [[nodiscard]] const Shape& shape() const noexcept { return shape_; }
  [[nodiscard]] std::uint32_t active_count() const noexcept { return shape_.slots_count - count_of(Place::free); }
  [[nodiscard]] const Counters& counters() const noexcept { return counters_; }

 private:
  enum class Place : std::uint8_t { free, pending, held, unstable, stable, cleaning, saved };
  static constexpr std::size_t kPlacesCount = 7;
  static constexpr std::uint32_t kNoSlot = UINT32_MAX;

  using SlotList = IntrusiveList<Slot, Slot>;
  using ClaimList = IntrusiveList<Claim, Claim>;

  void release(Slot& slot, bool is_durable) noexcept;
  [[nodiscard]] Slot* find(std::uint32_t extent) noexcept;
  [[nodiscard]] std::uint32_t& bucket(std::uint32_t extent) noexcept;
  void insert(Slot& slot, std::uint32_t extent) noexcept;
  void remove(Slot& slot) noexcept;
  [[nodiscard]] std::uint32_t index_of(const Slot& slot) const noexcept;
  [[nodiscard]] std::uint32_t count_of(Place place) const noexcept { return counts_[static_cast<std::size_t>(place)]; }
  void put(Slot& slot, Place place) noexcept;
  void hold(Slot& slot) noexcept;
  [[nodiscard]] Slot& take_slot() noexcept;
  [[nodiscard]] bool admit(Claim& claim, LogTransaction& transaction) noexcept;
  void note_blocked() noexcept;
  [[nodiscard]] std::uint32_t reserve_count() const noexcept;

  Shape shape_;
  std::uint32_t quarter_count_;  ///< of the slots, at least one
  std::uint32_t bucket_shift_;
  std::unique_ptr<Slot[]> slots_;
  std::vector<std::uint32_t> buckets_;
  std::uint32_t counts_[kPlacesCount] = {};
  SlotList free_;
  SlotList unstable_;  ///< in the order of their last release, as are the next three
  SlotList stable_;
  SlotList cleaning_;
  SlotList saved_;

  ClaimList waiting_;
  ClaimList planned_;  ///< wait for the transaction under way
  ClaimList ready_;
  ClaimList refused_;
  std::vector<std::uint32_t> planned_slots_;
  std::uint64_t claims_held_count_ = 0;
  bool is_transaction_out_ = false;
  bool is_closing_ = false;
  /// The first waiting claim finds no slot.
  bool is_blocked_ = false;
  std::uint64_t blocked_epoch_ = 0;
  /// It found none even after a flush: nobody overtakes it any more.
  bool is_starving_ = false;

  std::uint64_t epoch_ = 1;  ///< counts flushes
  std::uint64_t flushing_epoch_ = 0;
  std::uint64_t flushed_epoch_ = 0;
  bool is_flushing_ = false;
  std::uint32_t slots_taken_since_flush_ = 0;
  std::uint32_t context_cursor_ = 0;
  Counters counters_;
};

struct ActivityLog::Slot : IntrusiveNode<ActivityLog::Slot> {
  std::uint32_t extent = kNoExtent;
  std::uint32_t next_in_bucket = kNoSlot;
  std::uint32_t holds_count = 0;
  Place place = Place::free;
  std::uint64_t written_epoch = 0;  ///< of its last change that needs a flush; 0: none
};

template <class AreSaved>
void ActivityLog::pick_cleaning(AreSaved are_saved, std::vector<std::uint32_t>& extents) {
  for (std::uint32_t count = quarter_count_; count > 0; --count) {
    Slot* slot = stable_.front();
    if (slot == nullptr) return;
    if (are_saved(slot->extent)) {
      put(*slot, Place::saved);
    } else {
      put(*slot, Place::cleaning);
      extents.push_back(slot->extent);
    }
  }
}

template <class Visit>
void ActivityLog::for_each_unstable(Visit visit) {
  for (std::uint32_t index = 0; index < shape_.slots_count; ++index) {
    const Slot& slot = slots_[index];
    if (slot.place == Place::unstable || slot.place == Place::held) visit(slot.extent);
  }
}

}  // namespace replblk::blockdev
