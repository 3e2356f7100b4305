#include "blockdev/activity_log.hpp"

#include <algorithm>
#include <bit>

#include "base/assert.hpp"

namespace replblk::blockdev {

ActivityLog::ActivityLog(Shape shape)
    : shape_(shape),
      quarter_count_(std::max(1u, shape.slots_count / 4)),
      bucket_shift_(32 - static_cast<std::uint32_t>(std::bit_width(2 * shape.slots_count - 1))),
      slots_(std::make_unique<Slot[]>(shape.slots_count)),
      buckets_(std::size_t{1} << (32 - bucket_shift_), kNoSlot) {
  RB_ASSERT(shape.slots_count >= 1 && shape.slots_count <= kLogSlotsMax && shape.extent_shift < 64);
  planned_slots_.reserve(kLogUpdatesMax);
  for (std::uint32_t index = 0; index < shape.slots_count; ++index) {
    free_.push_back(slots_[index]);
    ++counts_[static_cast<std::size_t>(Place::free)];
  }
}

ActivityLog::~ActivityLog() {
  RB_ASSERT(waiting_.empty() && planned_.empty() && ready_.empty() && refused_.empty());
  for (SlotList* list : {&free_, &unstable_, &stable_, &cleaning_, &saved_}) {
    while (list->pop_front() != nullptr) {
    }
  }
}

// ---- slots and lists -------------------------------------------------------------------------------------------

std::uint32_t& ActivityLog::bucket(std::uint32_t extent) noexcept {
  // Fibonacci hashing: neighbouring extents land far apart, strided ones do not pile up.
  return buckets_[(extent * 0x9e3779b1u) >> bucket_shift_];
}

ActivityLog::Slot* ActivityLog::find(std::uint32_t extent) noexcept {
  for (std::uint32_t index = bucket(extent); index != kNoSlot; index = slots_[index].next_in_bucket) {
    if (slots_[index].extent == extent) return &slots_[index];
  }
  return nullptr;
}

std::uint32_t ActivityLog::index_of(const Slot& slot) const noexcept {
  return static_cast<std::uint32_t>(&slot - slots_.get());
}

void ActivityLog::insert(Slot& slot, std::uint32_t extent) noexcept {
  slot.extent = extent;
  slot.next_in_bucket = bucket(extent);
  bucket(extent) = index_of(slot);
}

void ActivityLog::remove(Slot& slot) noexcept {
  std::uint32_t* link = &bucket(slot.extent);
  while (*link != index_of(slot)) link = &slots_[*link].next_in_bucket;
  *link = slot.next_in_bucket;
  slot.next_in_bucket = kNoSlot;
  slot.extent = kNoExtent;
}

void ActivityLog::put(Slot& slot, Place place) noexcept {
  slot.unlink();
  --counts_[static_cast<std::size_t>(slot.place)];
  ++counts_[static_cast<std::size_t>(place)];
  slot.place = place;
  switch (place) {
    case Place::free:
      free_.push_back(slot);
      break;
    case Place::pending:
    case Place::held:
      break;
    case Place::unstable:
      unstable_.push_back(slot);
      break;
    case Place::stable:
      stable_.push_back(slot);
      break;
    case Place::cleaning:
      cleaning_.push_back(slot);
      break;
    case Place::saved:
      saved_.push_back(slot);
      break;
  }
}

void ActivityLog::hold(Slot& slot) noexcept {
  ++slot.holds_count;
  if (slot.place != Place::held && slot.place != Place::pending) put(slot, Place::held);
}

/// For a new extent: a free one, else that of the saved extent which has been idle for longest.
ActivityLog::Slot& ActivityLog::take_slot() noexcept {
  if (Slot* slot = free_.front()) return *slot;
  Slot* slot = saved_.front();
  RB_ASSERT(slot != nullptr && slot->holds_count == 0);
  remove(*slot);
  ++counters_.evictions;
  return *slot;
}

// ---- claims ----------------------------------------------------------------------------------------------------

std::uint64_t ActivityLog::piece_bytes(std::uint64_t offset_bytes, std::uint64_t length_bytes) const noexcept {
  const std::uint64_t extent_bytes = std::uint64_t{1} << shape_.extent_shift;
  // No transaction has room for more; and one extent may be more than a 64-bit count of a quarter of them can hold.
  const std::uint64_t extents_count = std::min(quarter_count_, kLogUpdatesMax);
  const std::uint64_t span_bytes =
      extents_count > UINT64_MAX / extent_bytes ? UINT64_MAX : extents_count * extent_bytes;
  return std::min(length_bytes, span_bytes - (offset_bytes & (extent_bytes - 1)));
}

bool ActivityLog::acquire(Claim& claim, std::uint64_t offset_bytes, std::uint64_t length_bytes) noexcept {
  RB_ASSERT(!claim.is_linked() && length_bytes > 0);
  claim.first_ = static_cast<std::uint32_t>(offset_bytes >> shape_.extent_shift);
  claim.count_ =
      static_cast<std::uint32_t>((offset_bytes + length_bytes - 1) >> shape_.extent_shift) - claim.first_ + 1;
  RB_ASSERT(claim.count_ <= std::min(quarter_count_, kLogUpdatesMax));
  bool is_hit = !is_starving_ && !is_closing_;
  for (std::uint32_t n = 0; is_hit && n < claim.count_; ++n) {
    claim.slot_ = find(claim.first_ + n);
    is_hit = claim.slot_ != nullptr && claim.slot_->place != Place::pending;
  }
  if (!is_hit) {
    ++counters_.misses;
    waiting_.push_back(claim);
    return false;
  }
  ++counters_.hits;
  ++claims_held_count_;
  if (claim.count_ == 1) {
    hold(*claim.slot_);
  } else {
    for (std::uint32_t n = 0; n < claim.count_; ++n) hold(*find(claim.first_ + n));
  }
  return true;
}

void ActivityLog::release(Claim& claim, bool is_durable) noexcept {
  RB_ASSERT(!claim.is_linked() && claims_held_count_ > 0);
  --claims_held_count_;
  if (claim.count_ == 1) {
    release(*claim.slot_, is_durable);
  } else {
    for (std::uint32_t n = 0; n < claim.count_; ++n) release(*find(claim.first_ + n), is_durable);
  }
}

void ActivityLog::release(Slot& slot, bool is_durable) noexcept {
  RB_ASSERT(slot.place == Place::held && slot.holds_count > 0);
  if (!is_durable) slot.written_epoch = epoch_;
  if (--slot.holds_count > 0) return;
  put(slot, slot.written_epoch <= flushed_epoch_ ? Place::stable : Place::unstable);
}

// ---- flushes ---------------------------------------------------------------------------------------------------

void ActivityLog::flush_begins() noexcept {
  RB_ASSERT(!is_flushing_);
  is_flushing_ = true;
  flushing_epoch_ = epoch_++;
  slots_taken_since_flush_ = 0;
}

void ActivityLog::flush_done(bool is_good) noexcept {
  RB_ASSERT(is_flushing_);
  is_flushing_ = false;
  if (!is_good) return;
  flushed_epoch_ = flushing_epoch_;
  while (Slot* slot = unstable_.front()) {
    if (slot->written_epoch > flushed_epoch_) break;
    put(*slot, Place::stable);
  }
}

std::uint32_t ActivityLog::reserve_count() const noexcept {
  return count_of(Place::free) + count_of(Place::stable) + count_of(Place::cleaning) + count_of(Place::saved);
}

bool ActivityLog::wants_flush() const noexcept {
  if (is_flushing_ || count_of(Place::unstable) == 0) return false;
  // Early enough that writers rarely wait; not for a working set that fits and takes no new slots.
  const bool is_short =
      reserve_count() < quarter_count_ && slots_taken_since_flush_ >= std::max(1u, quarter_count_ / 4);
  return is_blocked_ || is_short;
}

// ---- transactions ----------------------------------------------------------------------------------------------

/// All or nothing: a claim that finds too few slots takes none.
bool ActivityLog::admit(Claim& claim, LogTransaction& transaction) noexcept {
  std::uint32_t missing_count = 0;
  std::uint32_t own_saved_count = 0;
  for (std::uint32_t n = 0; n < claim.count_; ++n) {
    const Slot* slot = find(claim.first_ + n);
    missing_count += slot == nullptr ? 1 : 0;
    own_saved_count += slot != nullptr && slot->place == Place::saved ? 1 : 0;
  }
  if (transaction.updates_count + missing_count > kLogUpdatesMax) return false;
  if (missing_count > count_of(Place::free) + count_of(Place::saved) - own_saved_count) {
    note_blocked();
    return false;
  }
  // Those that are there first, so that none of them is given away for one that is not.
  for (std::uint32_t n = 0; n < claim.count_; ++n) {
    if (Slot* slot = find(claim.first_ + n)) hold(*slot);
  }
  for (std::uint32_t n = 0; n < claim.count_; ++n) {
    const std::uint32_t extent = claim.first_ + n;
    if (find(extent) != nullptr) continue;
    Slot& slot = take_slot();
    put(slot, Place::pending);
    insert(slot, extent);
    slot.written_epoch = 0;
    slot.holds_count = 1;
    planned_slots_.push_back(index_of(slot));
    transaction.add(static_cast<std::uint16_t>(index_of(slot)), extent);
    ++slots_taken_since_flush_;
  }
  claim.slot_ = find(claim.first_);
  ++claims_held_count_;
  return true;
}

void ActivityLog::note_blocked() noexcept {
  if (!is_blocked_) {
    is_blocked_ = true;
    blocked_epoch_ = epoch_;
    ++counters_.waits;
    return;
  }
  const bool is_flushed = flushed_epoch_ >= blocked_epoch_;
  is_starving_ = is_starving_ || (is_flushed && count_of(Place::stable) + count_of(Place::cleaning) == 0);
}

bool ActivityLog::plan(LogTransaction& transaction) noexcept {
  RB_ASSERT(!is_transaction_out_);
  transaction.updates_count = 0;
  if (is_closing_) return false;
  while (Claim* claim = waiting_.front()) {
    if (!admit(*claim, transaction)) break;
    is_blocked_ = is_starving_ = false;
    claim->unlink();
    planned_.push_back(*claim);
  }
  if (transaction.updates_count == 0) {
    // Their extents have become active while they waited for others.
    ready_.splice_back(planned_);
    return false;
  }
  is_transaction_out_ = true;
  ++counters_.transactions;
  transaction.extent_shift = shape_.extent_shift;
  transaction.slots_count = shape_.slots_count;
  transaction.context_start = context_cursor_;
  transaction.context_count = std::min(kLogContextMax, shape_.slots_count);
  for (std::uint32_t n = 0; n < transaction.context_count; ++n) {
    transaction.context[n] = slots_[context_cursor_].extent;
    if (++context_cursor_ == shape_.slots_count) context_cursor_ = 0;
  }
  return true;
}

void ActivityLog::transaction_done() noexcept {
  RB_ASSERT(is_transaction_out_);
  is_transaction_out_ = false;
  for (const std::uint32_t index : planned_slots_) put(slots_[index], Place::held);
  planned_slots_.clear();
  ready_.splice_back(planned_);
}

ActivityLog::Claim* ActivityLog::pop_ungranted() noexcept {
  for (ClaimList* list : {&planned_, &waiting_}) {
    if (Claim* claim = list->pop_front()) return claim;
  }
  return nullptr;
}

void ActivityLog::refuse_waiting() noexcept {
  refused_.splice_back(waiting_);
  is_blocked_ = is_starving_ = false;
}

// ---- cleaning and closing --------------------------------------------------------------------------------------

bool ActivityLog::wants_cleaning() const noexcept {
  if (stable_.empty()) return false;
  const bool is_short = count_of(Place::free) + count_of(Place::saved) < quarter_count_ && slots_taken_since_flush_ > 0;
  return is_blocked_ || is_short;
}

void ActivityLog::cleaning_done() noexcept {
  while (Slot* slot = cleaning_.front()) put(*slot, Place::saved);
}

bool ActivityLog::is_quiescent() const noexcept {
  return planned_.empty() && ready_.empty() && claims_held_count_ == 0 && !is_transaction_out_;
}

void ActivityLog::clear() noexcept {
  is_blocked_ = is_starving_ = false;
  for (std::uint32_t index = 0; index < shape_.slots_count; ++index) {
    Slot& slot = slots_[index];
    if (slot.place == Place::free) continue;
    RB_ASSERT(slot.place != Place::held && slot.place != Place::pending);
    remove(slot);
    slot.written_epoch = 0;
    put(slot, Place::free);
  }
}

}  // namespace replblk::blockdev
