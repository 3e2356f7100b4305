// What becomes of a split brain (protocol.md 5.1 row 9): what stands in `status`, which copy is given up, and how.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "node/resource.hpp"
#include "replication/split_brain.hpp"

namespace replblk::node {

using replication::Introduction;
using replication::PlanKind;
using replication::VolumeIntroduction;

/// What this copy holds that the absent peer's may lack.
void Resource::fill_changes(Introduction& intro) const {
  const std::size_t share = std::max<std::size_t>(1, replication::kDirtyRangesMax / volumes_.size());
  std::size_t left = replication::kDirtyRangesMax;
  for (std::size_t index = 0; index < volumes_.size(); ++index) {
    VolumeIntroduction& volume = intro.volumes[index];
    const blockdev::DirtyBitmap& dirty = volumes_[index]->store->dirty();
    volume.has_dirty_blocks = !dirty.is_clean();
    volume.dirty_bytes = dirty.dirty_bytes();
    std::uint64_t from = 0;
    while (from < volume.size_bytes && volume.dirty_ranges.size() < share && left > 0) {
      const auto range = dirty.next_dirty(from, volume.size_bytes);
      if (!range.has_value()) break;
      volume.dirty_ranges.push_back(*range);
      from = range->end_bytes();
      --left;
    }
  }
}

std::vector<SplitSideStatus> Resource::split_sides() const {
  std::vector<SplitSideStatus> sides(2);
  for (NodeIndex node = 0; node < 2; ++node) {
    const Introduction& intro = node == self() ? *my_introduction_ : *peer_introduction_;
    SplitSideStatus& side = sides[node];
    side.node_name = cluster_.nodes[node].name;
    side.is_primary = intro.is_primary;
    side.alone_since_ms = intro.alone_since_ms;
    for (std::size_t index = 0; index < intro.volumes.size(); ++index) {
      const VolumeIntroduction& volume = intro.volumes[index];
      ChangesStatus changes;
      changes.volume = static_cast<std::uint32_t>(index);
      changes.changed_bytes = volume.dirty_bytes;
      changes.ranges = volume.dirty_ranges;
      std::uint64_t listed_bytes = 0;
      for (const blockdev::ByteRange& range : volume.dirty_ranges) listed_bytes += range.length_bytes;
      changes.are_all_ranges = listed_bytes >= volume.dirty_bytes;
      side.volumes.push_back(std::move(changes));
    }
  }
  return sides;
}

/// Makes of a plan that only says "split" what the policies or a person make of it. False: this node has ended the
/// connection and gives up its role first.
bool Resource::settle_split(replication::Plan& plan) {
  RB_ASSERT(plan.is_split && plan.kind == PlanKind::apart);
  split_ = split_sides();
  tell(HandlerEvent::initial_split_brain);
  std::array<const Introduction*, 2> nodes{};
  nodes[self()] = &*my_introduction_;
  nodes[peer()] = &*peer_introduction_;
  const replication::SplitResolution resolution = resolve_split(config_.after_split_brain, nodes);
  if (resolution.loser == blockdev::kNoNode) {
    plan.reason += fmt::format(" ({})", resolution.why);
    tell(HandlerEvent::split_brain);
    return true;
  }
  const bool is_mine = resolution.loser == self();
  const std::string& loser = cluster_.nodes[resolution.loser].name;
  if (resolution.must_demote) {
    const std::string reason =
        fmt::format("split brain: by {} node {} gives up the role of Primary and then its copy", resolution.why, loser);
    if (is_mine) {
      give_up_copy(reason);
      return false;
    }
    plan.is_final = false;
    plan.reason = reason;
    return true;
  }
  log_warning("resource {}: split brain: by {} the copy of node {} is given up", config_.name, resolution.why, loser);
  split_.clear();
  plan.kind = is_mine ? PlanKind::sync_target : PlanKind::sync_source;
  plan.is_full = !is_split_covered_by_bitmaps(*my_introduction_, *peer_introduction_);
  plan.is_final = false;
  plan.reason.clear();
  return true;
}

/// A node that went on alone and is the target of a resync has lost a split brain, or its daemon died over one, or it
/// gave way before the nodes met to a peer that a person had forced: what it has in blocks that differ nobody else has.
void Resource::keep_for_undo(bool is_whole, std::function<void()> then) {
  const bool is_clean = std::ranges::all_of(volumes_, [](const auto& one) { return one->store->dirty().is_clean(); });
  const bool is_wanted = !config_.undo_directory.empty() && world_.undo_files != nullptr;
  const bool has_own = record_.alone_since_ms != 0 && !record_.is_inconsistent;
  if (!is_wanted || !has_own || (is_clean && !is_whole)) return then();
  const bool is_same = undo_ != nullptr && undo_generation_ == record_.generations.current;
  if (is_same && undo_->is_complete()) return then();
  if (undo_ != nullptr && undo_->is_running()) {
    // Of an earlier connection: it only reads, and the copy is as it was.
    if (is_same) on_undo_ = for_this_channel(std::move(then));
    if (!is_same) undo_->stop();
    return;
  }
  if (undo_ != nullptr && undo_->unreturned_count() > 0) {
    on_undo_ = nullptr;
    return undo_ended(config_.undo_directory + " does not answer");
  }
  std::vector<UndoCopy::Source> sources;
  const blockdev::Generation& current = record_.generations.current;
  for (const auto& volume : volumes_) {
    sources.push_back({volume->disks.data, volume->store.get(),
                       fmt::format("{}/{}-{}-{}-{:016x}.img", config_.undo_directory, config_.name, volume->index,
                                   current.term, current.nonce)});
  }
  undo_ = std::make_unique<UndoCopy>(world_.loop, *world_.undo_files, std::move(sources), is_whole);
  undo_generation_ = current;
  on_undo_ = for_this_channel(std::move(then));
  log_info("resource {}: what is about to be overwritten is kept in {}: {} KiB to look at", config_.name,
           config_.undo_directory, undo_->total_bytes() / 1024);
  undo_->start([this](const std::string& failure) { undo_ended(failure); });
}

void Resource::undo_ended(const std::string& failure) {
  const auto then = std::exchange(on_undo_, nullptr);
  if (failure.empty()) {
    RB_PROBE("undo_copy_kept");
    log_info("resource {}: kept for an undo: {} KiB", config_.name, undo_->kept_bytes() / 1024);
    if (then) then();
    return;
  }
  RB_PROBE("undo_copy_failed");
  if (is_stopping_ || channel_ == nullptr || phase_ != LinkPhase::target_preparing) return;
  const std::string reason = fmt::format(
      "what is about to be overwritten cannot be kept in undo_directory ({}): nothing is overwritten", failure);
  back_off();
  report_failure(reason);
  const replication::Refusal refusal{reason, false};
  end_channel("Unconnected", reason, &refusal);
}

/// A Primary whose copy loses: its initiators are reset and what is in flight ends; then the nodes meet again, and the
/// Introduction says that the copy is to go.
void Resource::give_up_copy(const std::string& reason) {
  tell(HandlerEvent::pri_lost_after_sb);
  report_failure(reason);
  const replication::Refusal refusal{reason, false};
  end_channel("Unconnected", reason, &refusal);
  is_discarding_ = true;
  make_secondary([this](const AdminReply& reply) {
    if (reply.outcome != AdminOutcome::done) log_error("{}", reply.message);
  });
}

}  // namespace replblk::node
