#include "membership/transitions.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace replblk::membership {

namespace {

void push_history(GenerationSet& set, const Generation& generation) {
  if (generation.is_none()) return;
  set.history.insert(set.history.begin(), generation);
  if (set.history.size() > GenerationSet::kHistoryCountMax) set.history.resize(GenerationSet::kHistoryCountMax);
}

/// protocol.md 5.1: base takes the old current only if the peer may have it. What the peer cannot have is forgotten: no
/// comparison with it can need it, and in the history it would push out the generation that the peer does have.
GenerationSet begin_line(const GenerationSet& old, bool peer_may_have_it, const Generation& fresh) {
  GenerationSet set = old;
  if (peer_may_have_it && !old.current.is_none()) {
    push_history(set, old.base);
    set.base = old.current;
  }
  set.current = fresh;
  return set;
}

ResourceRecord lead_alone(const ResourceRecord& record, NodeIndex self, NodeIndex primary, std::uint64_t term,
                          std::uint64_t nonce) {
  RB_ASSERT(self < 2 && (primary == self || primary == blockdev::kNoNode));
  ResourceRecord next = record;
  const bool peer_may_have_it = !record.configuration.is_sole(self) || is_in_doubt(record);
  next.configuration = {term, static_cast<std::uint8_t>(1u << self), primary};
  next.seen = term;
  next.generations = begin_line(record.generations, peer_may_have_it, {term, nonce});
  next.is_primary_open = primary == self;
  return next;
}

}  // namespace

bool may_serve_alone(const ResourceRecord& record, NodeIndex self) noexcept {
  return record.configuration.is_sole(self) && record.configuration.primary == self && !is_in_doubt(record) &&
         !record.is_inconsistent && !record.is_outdated;
}

std::uint64_t next_term(const ResourceRecord& record, std::uint64_t above) noexcept {
  return std::max({record.configuration.term, record.seen, above}) + 1;
}

ResourceRecord become_only_member(const ResourceRecord& record, NodeIndex self, NodeIndex primary, std::uint64_t above,
                                  std::uint64_t nonce) {
  return lead_alone(record, self, primary, next_term(record, above), nonce);
}

ResourceRecord become_only_member_at(const ResourceRecord& record, NodeIndex self, NodeIndex primary,
                                     std::uint64_t term, std::uint64_t nonce) {
  RB_ASSERT(term >= record.seen && term > record.configuration.term && !record.is_inconsistent);
  ResourceRecord next = lead_alone(record, self, primary, term, nonce);
  next.is_outdated = false;
  return next;
}

ResourceRecord force_primary(const ResourceRecord& record, NodeIndex self, std::uint64_t above, std::uint64_t nonce) {
  const bool is_new = record.configuration.term == 0;
  const std::uint64_t term = next_term(record, above) + (is_new ? 0 : kForcedTermLeap);
  ResourceRecord next = lead_alone(record, self, self, term, nonce);
  next.is_inconsistent = false;
  next.is_outdated = false;
  return next;
}

ResourceRecord take_over_by_agreement(const ResourceRecord& record, NodeIndex self, std::uint64_t above,
                                      std::uint64_t nonce) {
  RB_ASSERT(record.is_outdated && !record.is_inconsistent);
  ResourceRecord next = become_only_member(record, self, blockdev::kNoNode, above, nonce);
  next.is_outdated = false;
  return next;
}

ResourceRecord keep_after_split(const ResourceRecord& record, NodeIndex self, NodeIndex primary, std::uint64_t above,
                                std::uint64_t nonce, const Generation& given_up) {
  RB_ASSERT(!record.is_outdated && !record.is_inconsistent && !given_up.is_none());
  ResourceRecord next = become_only_member(record, self, primary, above, nonce);
  push_history(next.generations, next.generations.base);
  next.generations.base = given_up;
  return next;
}

ResourceRecord with_decision(const ResourceRecord& record, const ResourceRecord& decided) {
  RB_ASSERT(decided.seen >= record.seen && decided.configuration.term >= record.configuration.term);
  ResourceRecord next = record;
  next.configuration = decided.configuration;
  next.seen = decided.seen;
  next.pair_id = decided.pair_id;
  next.generations = decided.generations;
  next.lease_ms_max = decided.lease_ms_max;
  next.is_inconsistent = decided.is_inconsistent;
  next.is_outdated = decided.is_outdated;
  next.is_primary_open = decided.is_primary_open;
  return next;
}

void remember_parting(const ResourceRecord& before, ResourceRecord& next, NodeIndex self,
                      std::uint64_t unix_ms) noexcept {
  if (next.configuration.is_pair()) {
    next.alone_since_ms = 0;
    next.was_primary_at_parting = false;
  } else if (next.configuration.is_sole(self) && !before.configuration.is_sole(self)) {
    next.alone_since_ms = unix_ms;
    next.was_primary_at_parting = before.is_primary_open;
  }
}

ResourceRecord record_of_all(std::span<const ResourceRecord> records) {
  RB_ASSERT(!records.empty());
  ResourceRecord all = records.front();
  for (const ResourceRecord& other : records) {
    ResourceRecord next = other.configuration.term < all.configuration.term ? other : all;
    next.seen = std::max(all.seen, other.seen);
    next.is_inconsistent = all.is_inconsistent || other.is_inconsistent;
    next.is_outdated = all.is_outdated || other.is_outdated;
    next.is_primary_open = all.is_primary_open || other.is_primary_open;
    next.is_clean_stop = all.is_clean_stop && other.is_clean_stop;
    next.merged_term = std::min(all.merged_term, other.merged_term);
    next.may_be_older = all.may_be_older || other.may_be_older;
    next.is_standby = all.is_standby || other.is_standby;
    next.is_maintenance = all.is_maintenance || other.is_maintenance;
    all = next;
  }
  return all;
}

ResourceRecord name_term(const ResourceRecord& record, std::uint64_t term) {
  RB_ASSERT(term > record.seen && term > record.configuration.term);
  ResourceRecord next = record;
  next.seen = term;
  return next;
}

ResourceRecord become_sync_target(const ResourceRecord& record, const Configuration& configuration,
                                  const Uuid& pair_id) {
  RB_ASSERT(configuration.term >= record.configuration.term);
  ResourceRecord next = record;
  next.configuration = configuration;
  next.seen = std::max(record.seen, configuration.term);
  next.is_outdated = true;
  next.is_inconsistent = true;
  next.is_primary_open = false;
  next.pair_id = pair_id;
  return next;
}

ResourceRecord become_outdated(const ResourceRecord& record, const Configuration& configuration) {
  RB_ASSERT(configuration.term > record.seen && !configuration.is_pair());
  ResourceRecord next = record;
  next.configuration = configuration;
  next.seen = configuration.term;
  next.is_outdated = true;
  next.is_primary_open = false;
  return next;
}

ResourceRecord give_way(const ResourceRecord& record, const Configuration& configuration) {
  RB_ASSERT(configuration.term >= record.configuration.term && !configuration.is_pair());
  ResourceRecord next = record;
  next.configuration = configuration;
  next.seen = std::max(record.seen, configuration.term);
  next.is_outdated = true;
  next.is_primary_open = false;
  return next;
}

ResourceRecord give_way_unheard(const ResourceRecord& record) {
  ResourceRecord next = record;
  next.is_outdated = true;
  next.is_primary_open = false;
  return next;
}

ResourceRecord join_pair(const ResourceRecord& record, const Configuration& configuration,
                         const GenerationSet& generations) {
  RB_ASSERT(configuration.is_pair() && configuration.term >= record.seen);
  ResourceRecord next = record;
  next.configuration = configuration;
  next.seen = configuration.term;
  next.generations = generations;
  next.is_outdated = false;
  next.is_inconsistent = false;
  return next;
}

GenerationSet generations_for_pair(const GenerationSet& generations) {
  GenerationSet set = generations;
  push_history(set, set.base);
  set.base = {};
  return set;
}

}  // namespace replblk::membership
