#include "blockdev/range_lock.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace replblk::blockdev {

RangeLock::~RangeLock() { RB_ASSERT(is_idle()); }

bool RangeLock::conflict(const Claim& one, const Claim& other) noexcept {
  return one.begin_bytes_ < other.end_bytes_ && other.begin_bytes_ < one.end_bytes_ &&
         (one.is_exclusive_ || other.is_exclusive_);
}

IntrusiveList<RangeLock::Place, RangeLock::Place>& RangeLock::bucket(std::uint64_t region) noexcept {
  // Fibonacci hashing: neighbouring regions land far apart, strided ones do not pile up.
  return buckets_[(region * 0x9e3779b97f4a7c15u) >> 56];
}

/// Visits each other claim that conflicts with `claim`, once.
template <class Visit>
void RangeLock::for_each_conflicting(const Claim& claim, Visit visit) noexcept {
  if (!is_short(claim)) {
    for (Claim* other = claims_.front(); other != nullptr; other = claims_.next(*other)) {
      if (other != &claim && conflict(claim, *other)) visit(*other);
    }
    return;
  }
  for (Claim* other = long_claims_.front(); other != nullptr; other = long_claims_.next(*other)) {
    if (conflict(claim, *other)) visit(*other);
  }
  for (std::uint64_t region = first_region(claim); region <= last_region(claim); ++region) {
    IntrusiveList<Place, Place>& places = bucket(region);
    for (Place* place = places.front(); place != nullptr; place = places.next(*place)) {
      Claim& other = *place->claim;
      if (place->region != region || &other == &claim || !conflict(claim, other)) continue;
      // Two claims may meet in both of their regions: the one in which their overlap begins counts.
      if (std::max(claim.begin_bytes_, other.begin_bytes_) >> kRegionShift == region) visit(other);
    }
  }
}

bool RangeLock::acquire(Claim& claim, std::uint64_t offset_bytes, std::uint64_t length_bytes, Mode mode) noexcept {
  RB_ASSERT(!static_cast<IntrusiveNode<Claim>&>(claim).is_linked());
  RB_ASSERT(length_bytes > 0 && offset_bytes <= UINT64_MAX - kGranuleBytes - length_bytes);
  claim.begin_bytes_ = offset_bytes & ~(kGranuleBytes - 1);
  claim.end_bytes_ = (offset_bytes + length_bytes + kGranuleBytes - 1) & ~(kGranuleBytes - 1);
  claim.is_exclusive_ = mode == Mode::exclusive;
  claim.ticket_ = next_ticket_++;
  claim.blockers_count_ = 0;
  for_each_conflicting(claim, [&claim](Claim&) { ++claim.blockers_count_; });
  claims_.push_back(claim);
  if (is_short(claim)) {
    const std::uint64_t regions_count = last_region(claim) - first_region(claim) + 1;
    for (std::uint64_t n = 0; n < regions_count; ++n) {
      Place& place = claim.places_[n];
      place.claim = &claim;
      place.region = first_region(claim) + n;
      bucket(place.region).push_back(place);
    }
  } else {
    long_claims_.push_back(claim);
  }
  claim.is_held_ = claim.blockers_count_ == 0;
  if (!claim.is_held_) ++waiting_count_;
  return claim.is_held_;
}

void RangeLock::release(Claim& claim) noexcept {
  RB_ASSERT(static_cast<IntrusiveNode<Claim>&>(claim).is_linked());
  static_cast<IntrusiveNode<Claim>&>(claim).unlink();
  static_cast<IntrusiveNode<LongTag>&>(claim).unlink();
  static_cast<IntrusiveNode<ReadyTag>&>(claim).unlink();
  for (Place& place : claim.places_) place.unlink();
  if (!claim.is_held_) --waiting_count_;
  claim.is_held_ = false;
  if (waiting_count_ == 0) return;
  for_each_conflicting(claim, [this, &claim](Claim& other) {
    if (other.ticket_ < claim.ticket_) return;
    RB_ASSERT(!other.is_held_ && other.blockers_count_ > 0);
    if (--other.blockers_count_ > 0) return;
    other.is_held_ = true;
    --waiting_count_;
    ready_.push_back(other);
  });
  grant_ready();
}

void RangeLock::grant_ready() noexcept {
  if (is_granting_) return;  // A granted claim that releases at once must not recurse.
  is_granting_ = true;
  while (Claim* claim = ready_.pop_front()) {
    const Callback<void()> on_granted = claim->on_granted;  // The claim may end during the call.
    on_granted();
  }
  is_granting_ = false;
}

}  // namespace replblk::blockdev
