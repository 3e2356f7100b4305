#include "oracle.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "stamp.hpp"

namespace replblk::sim {

Oracle::Oracle(std::uint64_t sectors_count, bool has_write_cache)
    : has_write_cache_(has_write_cache), sectors_(sectors_count) {
  for (Candidates& candidates : sectors_)
    candidates.push_back(
        {.op = 1, .ended = 1, .first_end = 1, .last_begin = 1, .last_end = 1, .is_certain = true, .is_durable = true});
}

void Oracle::preset(std::uint64_t sector, std::uint64_t value) { sectors_[sector].front().value = value; }

void Oracle::adopt(std::uint64_t sector, std::uint64_t value) {
  sectors_[sector] = {{.op = 1, .value = value, .ended = 1, .is_certain = true, .is_durable = true}};
  crowded_.erase(sector);
}

Oracle::Candidate* Oracle::find(Candidates& candidates, OpId op) noexcept {
  for (Candidate& candidate : candidates) {
    if (candidate.op == op) return &candidate;
  }
  return nullptr;
}

Oracle::OpId Oracle::begin_write(Sectors sectors, std::uint64_t value, bool is_fua) {
  const OpId op = ++clock_;
  writes_[op] = {sectors, is_fua || !has_write_cache_};
  for (std::uint64_t sector = sectors.first; sector < sectors.first + sectors.count; ++sector) {
    sectors_[sector].push_back({.op = op, .value = value, .last_begin = op});
    crowded_.insert(sector);
  }
  return op;
}

/// `winner` has taken effect by `when`: whatever had ended before it began is superseded.
void Oracle::make_certain(Candidates& candidates, Candidate& winner, std::uint64_t when) const {
  winner.is_certain = true;
  winner.ended = std::min(winner.ended, when);
  for (Candidate& other : candidates) {
    if (other.ended < winner.began()) other.superseded = std::min(other.superseded, when);
  }
}

/// An operation on this value, its write or a read that returned it.
void Oracle::take_part(Candidate& candidate, std::uint64_t began, std::uint64_t when) noexcept {
  candidate.first_end = std::min(candidate.first_end, when);
  candidate.last_begin = std::max(candidate.last_begin, began);
  candidate.last_end = std::max(candidate.last_end, when);
}

/// A value that cannot have been there when `one` was.
const Oracle::Candidate* Oracle::find_collision(const Candidates& candidates, const Candidate& one) noexcept {
  for (const Candidate& other : candidates) {
    if (&other == &one || !other.is_certain || (!one.is_forward() && !other.is_forward())) continue;
    if (one.first_end < other.last_begin && other.first_end < one.last_begin) return &other;
  }
  return nullptr;
}

bool Oracle::make_durable(Candidates& candidates, std::uint64_t ended_before) const {
  bool is_any_new = false;
  for (Candidate& candidate : candidates) {
    if (!candidate.is_certain || candidate.ended >= ended_before) continue;
    is_any_new = is_any_new || !candidate.is_durable;
    candidate.is_durable = true;
    for (Candidate& other : candidates) {
      if (other.ended < candidate.began()) other.is_durably_superseded = true;
    }
  }
  return is_any_new;
}

void Oracle::end_write(OpId op) {
  const auto found = writes_.find(op);
  RB_ASSERT(found != writes_.end());
  const Write write = found->second;
  if (op < caches_lost_at_ && !write.is_fua) {
    // The answer was under way when the caches were lost: it may have gone with them.
    close_lost(op);
    return;
  }
  writes_.erase(found);
  const std::uint64_t when = ++clock_;
  for (std::uint64_t sector = write.sectors.first; sector < write.sectors.first + write.sectors.count; ++sector) {
    Candidate* candidate = find(sectors_[sector], op);
    if (candidate == nullptr) continue;  // Superseded durably through a read that returned it before the answer.
    make_certain(sectors_[sector], *candidate, when);
    take_part(*candidate, candidate->began(), when);
    if (write.is_fua) {
      candidate->is_durable = true;
      for (Candidate& other : sectors_[sector]) {
        if (other.ended < candidate->began()) other.is_durably_superseded = true;
      }
    }
    prune(sector);
  }
}

void Oracle::lose_write(OpId op) { RB_ASSERT(writes_.contains(op)); }

void Oracle::close_lost(OpId op) {
  const auto found = writes_.find(op);
  RB_ASSERT(found != writes_.end());
  const std::uint64_t when = ++clock_;
  const Sectors sectors = found->second.sectors;
  for (std::uint64_t sector = sectors.first; sector < sectors.first + sectors.count; ++sector) {
    Candidate* candidate = find(sectors_[sector], op);
    if (candidate == nullptr) continue;
    candidate->ended = std::min(candidate->ended, when);
    candidate->first_end = std::min(candidate->first_end, when);
  }
  writes_.erase(found);
}

void Oracle::refuse_write(OpId op) { close_lost(op); }

Oracle::OpId Oracle::begin_read(Sectors sectors) {
  const OpId op = ++clock_;
  reads_[op] = sectors;
  return op;
}

std::string Oracle::check_sector(std::uint64_t sector, const std::byte* bytes, std::uint64_t began) {
  Candidates& candidates = sectors_[sector];
  const auto value = read_stamp(bytes, sector);
  if (!value) return fmt::format("sector {} is neither a stamp of its place nor zeroes", sector);
  Candidate* returned = nullptr;
  std::size_t count = 0;
  for (Candidate& candidate : candidates) {
    // began + 0: a read that began before the value was superseded may still return it.
    if (candidate.value != *value || candidate.superseded < began) continue;
    returned = &candidate;
    ++count;
  }
  if (count == 0)
    return fmt::format("sector {} returned write {:#x}, which no read may return now: {}", sector, *value,
                       describe(sector));
  // Its answer was under way when the caches were lost: what it saw may have gone with them.
  if (began < caches_lost_at_) return {};
  if (count > 1) return {};  // Zeroes, which several writes put there: nothing is decided.
  const std::uint64_t when = clock_;
  for (Candidate& other : candidates) {
    // Both took effect before this read saw `returned`, so `other` came first.
    if (&other != returned && other.ended < began) other.superseded = std::min(other.superseded, when);
  }
  make_certain(candidates, *returned, when);
  take_part(*returned, began, when);
  if (const Candidate* other = find_collision(candidates, *returned)) {
    return fmt::format(
        "sector {} returned write {:#x}, and write {:#x} was there before and after or at the same time: {}", sector,
        *value, other->value, describe(sector));
  }
  return {};
}

std::string Oracle::end_read(OpId op, ConstBytes bytes) {
  const auto found = reads_.find(op);
  RB_ASSERT(found != reads_.end());
  const Sectors sectors = found->second;
  RB_ASSERT(bytes.size() == sectors.count * kSectorBytes);
  ++clock_;
  for (std::uint64_t index = 0; index < sectors.count; ++index) {
    std::string sentence = check_sector(sectors.first + index, bytes.data() + index * kSectorBytes, op);
    if (!sentence.empty()) return sentence;
  }
  reads_.erase(found);
  for (std::uint64_t index = 0; index < sectors.count; ++index) prune(sectors.first + index);
  return {};
}

std::vector<std::uint64_t> Oracle::end_flush(OpId op, Sectors volume) {
  std::vector<std::uint64_t> made_durable;
  ++clock_;
  const std::vector<std::uint64_t> crowded(crowded_.begin(), crowded_.end());
  for (const std::uint64_t sector : crowded) {
    if (sector < volume.first || sector - volume.first >= volume.count) continue;
    if (make_durable(sectors_[sector], op)) made_durable.push_back(sector);
    prune(sector);
  }
  return made_durable;
}

void Oracle::forget_volatile() {
  const std::uint64_t when = ++clock_;
  caches_lost_at_ = when;
  for (const std::uint64_t sector : crowded_) {
    for (Candidate& candidate : sectors_[sector]) {
      if (candidate.is_durably_superseded) continue;
      candidate.superseded = kNever;
      candidate.last_begin = candidate.began();
      if (candidate.first_end != kNever) candidate.first_end = when;
      if (candidate.is_durable) continue;
      // It may be there or not; nothing that is over can come later.
      candidate.is_certain = false;
      if (candidate.ended != kNever) candidate.ended = when;
    }
    // The values now compete as if all had been in flight until this moment; those that are durable stay what they
    // were.
  }
}

void Oracle::prune(std::uint64_t sector) {
  const std::uint64_t oldest_read = reads_.empty() ? kNever : reads_.begin()->first;
  Candidates& candidates = sectors_[sector];
  std::erase_if(candidates, [&](const Candidate& candidate) {
    // A read in flight may yet collide with it, though it must not return it.
    const bool is_over = candidate.superseded < oldest_read && candidate.last_end < oldest_read;
    return candidate.is_durably_superseded && is_over && !writes_.contains(candidate.op);
  });
  RB_ASSERT(!candidates.empty());
  if (candidates.size() == 1 && candidates.front().is_durable) {
    crowded_.erase(sector);
  } else {
    crowded_.insert(sector);
  }
}

std::string Oracle::check_copy(std::uint64_t sector, const std::byte* bytes) const {
  const auto value = read_stamp(bytes, sector);
  if (!value) return fmt::format("sector {} holds neither a stamp of its place nor zeroes", sector);
  for (const Candidate& candidate : sectors_[sector]) {
    if (candidate.value == *value && candidate.superseded == kNever) return {};
  }
  return fmt::format("sector {} holds write {:#x}, which is not what it may hold: {}", sector, *value,
                     describe(sector));
}

std::string Oracle::check_durable(std::uint64_t sector, const std::byte* bytes) const {
  const auto value = read_stamp(bytes, sector);
  if (!value) return fmt::format("sector {} is neither a stamp of its place nor zeroes", sector);
  for (const Candidate& candidate : sectors_[sector]) {
    if (candidate.value == *value && !candidate.is_durably_superseded) return {};
  }
  return fmt::format("sector {} would be left with write {:#x}: {}", sector, *value, describe(sector));
}

std::string Oracle::describe(std::uint64_t sector) const {
  std::string text;
  const auto number = [](std::uint64_t value) { return value == kNever ? std::string("-") : fmt::format("{}", value); };
  for (const Candidate& candidate : sectors_[sector]) {
    text += fmt::format("[write {:#x} began {} ended {} superseded {} there {} to {}{}{}{}]", candidate.value,
                        candidate.op, number(candidate.ended), number(candidate.superseded),
                        number(candidate.first_end), candidate.last_begin, candidate.is_certain ? " certain" : "",
                        candidate.is_durable ? " durable" : "",
                        candidate.is_durably_superseded ? " durably superseded" : "");
  }
  return text;
}

}  // namespace replblk::sim
