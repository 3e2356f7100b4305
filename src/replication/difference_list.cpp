#include "replication/difference_list.hpp"

#include <algorithm>

namespace replblk::replication {

void DifferenceList::add(const blockdev::ByteRange& range) {
  bytes_ += range.length_bytes;
  const auto next = std::ranges::lower_bound(listed_, range.offset_bytes, {}, &blockdev::ByteRange::offset_bytes);
  const bool joins_next = next != listed_.end() && next->offset_bytes == range.end_bytes();
  const bool joins_previous = next != listed_.begin() && std::prev(next)->end_bytes() == range.offset_bytes;
  if (joins_previous) {
    std::prev(next)->length_bytes += range.length_bytes;
    if (!joins_next) return;
    std::prev(next)->length_bytes += next->length_bytes;
    listed_.erase(next);
  } else if (joins_next) {
    next->offset_bytes = range.offset_bytes;
    next->length_bytes += range.length_bytes;
  } else if (listed_.size() < kListedMax) {
    listed_.insert(next, range);
  } else {
    ++unlisted_count_;
  }
}

void DifferenceList::clear() noexcept {
  listed_.clear();
  unlisted_count_ = 0;
  bytes_ = 0;
}

}  // namespace replblk::replication
