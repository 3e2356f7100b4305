#include "membership/claim.hpp"

#include <algorithm>

namespace replblk::membership {

ClaimJudgement judge_claim(const blockdev::ResourceRecord& own, blockdev::NodeIndex self,
                           const std::optional<ports::ArbiterRecord>& record) noexcept {
  if (!record.has_value() || record->id != own.pair_id) return {};
  if (record->members == 0 || record->members > 3) return {};  // Not of this protocol's making.
  const blockdev::Configuration decided{record->term, record->members, record->primary};
  if (record->term >= own.configuration.term && !decided.has_member(self)) {
    return {ClaimVerdict::refused, 0, decided};
  }
  return {ClaimVerdict::grantable, std::max({own.configuration.term, record->term, own.seen}) + 1, {}};
}

}  // namespace replblk::membership
