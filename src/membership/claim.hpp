// The rule by which a claim is granted (protocol.md 3.5), apart from the arbiter, which only compares and swaps: pure.
#pragma once

#include <cstdint>
#include <optional>

#include "blockdev/record.hpp"
#include "ports/arbiter.hpp"

namespace replblk::membership {

enum class ClaimVerdict : std::uint8_t {
  grantable,  ///< the record may be replaced by {term, {me}, me}, if it still is what was read
  refused,    ///< somebody went on without this node: it takes the record's configuration, and is Outdated
  no_record,  ///< none, another pair's, or one that makes no sense: grants nothing but to a person
};

struct ClaimJudgement {
  ClaimVerdict verdict = ClaimVerdict::no_record;
  std::uint64_t term = 0;                 ///< grantable: max(own term, the record's, seen) + 1
  blockdev::Configuration configuration;  ///< refused: what the record says
};

/// A claim by `self`, whose record is `own`. Own grants whose answer was lost are grantable again.
[[nodiscard]] ClaimJudgement judge_claim(const blockdev::ResourceRecord& own, blockdev::NodeIndex self,
                                         const std::optional<ports::ArbiterRecord>& record) noexcept;

}  // namespace replblk::membership
