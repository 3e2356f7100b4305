// Orders overlapping operations on one volume (protocol.md 4 step 1): exclusive claims (writes, resync, verify) exclude
// each other and shared ones (reads); claims that conflict are granted in the order of asking, so nobody starves and
// both copies apply overlapping writes in one order. Not responsible for I/O. Ranges are rounded out to kGranuleBytes,
// so that a read-modify-write of an unaligned edge is covered. One thread; nothing is allocated. A claim counts the
// earlier claims that it conflicts with; it is granted when none is left. Short claims are found by the region that
// they touch, long ones stand in one list: random small I/O, the hot case, meets nobody.
#pragma once

#include <array>
#include <cstdint>

#include "base/callback.hpp"
#include "base/intrusive_list.hpp"

namespace replblk::blockdev {

class RangeLock {
 public:
  static constexpr std::uint64_t kGranuleBytes = 4096;

  class Claim;

 private:
  /// A claim's place in the bucket of one region that it touches.
  struct Place : IntrusiveNode<Place> {
    Claim* claim = nullptr;
    std::uint64_t region = 0;
  };
  struct ReadyTag;
  struct LongTag;

 public:
  /// A claim is a member of the operation that makes it; it must be released (or never acquired) when destroyed.
  class Claim : public IntrusiveNode<Claim>, private IntrusiveNode<ReadyTag>, private IntrusiveNode<LongTag> {
   public:
    /// Called from release() of the claim that stood in the way (held or waiting). It may acquire and release any
    /// claim, and end this one's life.
    Callback<void()> on_granted;
    [[nodiscard]] bool is_held() const noexcept { return is_held_; }
    [[nodiscard]] bool is_waiting() const noexcept { return IntrusiveNode<Claim>::is_linked() && !is_held_; }

   private:
    friend class RangeLock;
    template <class, class>
    friend class replblk::IntrusiveList;
    std::uint64_t begin_bytes_ = 0;
    std::uint64_t end_bytes_ = 0;
    std::uint64_t ticket_ = 0;          ///< order of asking
    std::uint32_t blockers_count_ = 0;  ///< earlier claims, held or waiting, that conflict with this one
    bool is_exclusive_ = false;
    bool is_held_ = false;
    std::array<Place, 2> places_;
  };
  enum class Mode : std::uint8_t { shared, exclusive };

  RangeLock() = default;
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;
  ~RangeLock();

  /// True: granted now (on_granted is not called). False: on_granted comes later.
  [[nodiscard]] bool acquire(Claim& claim, std::uint64_t offset_bytes, std::uint64_t length_bytes, Mode mode) noexcept;
  /// Gives a held claim back, or withdraws a waiting one. Claims that this lets through are granted before it returns,
  /// or, when it is called from an on_granted, after that one has returned.
  void release(Claim& claim) noexcept;
  [[nodiscard]] bool is_idle() const noexcept { return claims_.empty(); }

 private:
  /// 64 KiB: a claim of that much or less touches at most two regions, and 128 small writes in sequence share eight.
  static constexpr std::uint64_t kRegionShift = 16;
  static constexpr std::size_t kBucketCount = 256;

  [[nodiscard]] static std::uint64_t first_region(const Claim& claim) noexcept {
    return claim.begin_bytes_ >> kRegionShift;
  }
  [[nodiscard]] static std::uint64_t last_region(const Claim& claim) noexcept {
    return (claim.end_bytes_ - 1) >> kRegionShift;
  }
  [[nodiscard]] static bool is_short(const Claim& claim) noexcept {
    return last_region(claim) - first_region(claim) <= 1;
  }
  [[nodiscard]] static bool conflict(const Claim& one, const Claim& other) noexcept;
  template <class Visit>
  void for_each_conflicting(const Claim& claim, Visit visit) noexcept;
  [[nodiscard]] IntrusiveList<Place, Place>& bucket(std::uint64_t region) noexcept;
  void grant_ready() noexcept;

  IntrusiveList<Claim, Claim> claims_;  ///< all, in order of asking
  IntrusiveList<Claim, LongTag> long_claims_;
  IntrusiveList<Claim, ReadyTag> ready_;  ///< held since just now, on_granted not yet called
  std::array<IntrusiveList<Place, Place>, kBucketCount> buckets_;
  std::uint64_t next_ticket_ = 0;
  std::uint32_t waiting_count_ = 0;
  bool is_granting_ = false;
};

}  // namespace replblk::blockdev
