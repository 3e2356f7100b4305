// One resync from its plan to the add that ends it, on both sides (protocol.md 5.3, 6; docs/peer_protocol.md 2).
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "membership/transitions.hpp"
#include "node/resource.hpp"

namespace replblk::node {

using blockdev::Configuration;
using blockdev::ResourceRecord;

void Resource::start_as_source(const replication::Plan& plan) {
  const bool is_alone_already = !plan.is_split && record_.configuration.is_sole(self()) &&
                                !membership::is_in_doubt(record_) &&
                                record_.configuration.term >= peer_introduction_->configuration.term;
  is_resync_continued_ =
      is_alone_already && replication::is_same_resync(synced_term_, *my_introduction_, *peer_introduction_);
  if (!is_resync_continued_) resync_mode_ = choose_mode(plan);
  const auto begin = [this, is_full = plan.is_full && !is_resync_continued_] {
    const auto attach = [this, is_full] {
      link_.attach(*channel_, record_.configuration.term);
      channel_->send(replication::SyncStart{record_.configuration, is_full});
    };
    if (!is_full) return attach();
    for (const auto& volume : volumes_) volume->store->dirty().set_all();
    save_bitmaps(for_this_channel(attach));
  };
  if (is_alone_already) {
    begin();
    return;
  }
  RB_PROBE("source_leaves_pair_to_resync");
  const auto record = [this, plan, begin] {
    // As record_alone(), but a connection that has ended meanwhile takes the plan with it.
    flush_all([this, number = channel_number_, plan, begin](bool is_flushed) {
      if (number != channel_number_) return;
      if (!is_flushed) {
        back_off();
        report_failure("the local disk cannot be flushed");
        return end_channel("Unconnected", "the local disk cannot be flushed", nullptr);
      }
      may_have_lost_cache_ = is_crashed_primary_ = false;
      persist(record_as_source(plan), for_this_channel(begin));
    });
  };
  if (!plan.is_split || !plan.is_full) return record();
  // Before the record says that the bits cover all that differs, they must, durably.
  for (const auto& volume : volumes_) volume->store->dirty().set_all();
  save_bitmaps(for_this_channel(record));
}

ResourceRecord Resource::record_as_source(const replication::Plan& plan) {
  const NodeIndex primary = is_primary_ ? self() : blockdev::kNoNode;
  if (plan.row == replication::MeetingRow::by_agreement) {
    log_warning(
        "resource {}: the peer may have lost what its write cache held; this copy, which it left behind at a term that "
        "it never acted upon, is whole and takes over",
        config_.name);
    return membership::take_over_by_agreement(record_, self(), peer_seen_, fresh_nonce());
  }
  if (!plan.is_split) return membership::become_only_member(record_, self(), primary, peer_seen_, fresh_nonce());
  return membership::keep_after_split(record_, self(), primary, peer_seen_, fresh_nonce(),
                                      peer_introduction_->generations.current);
}

void Resource::receive(const replication::SyncStart& message) {
  const Configuration& source = message.configuration;
  if (phase_ != LinkPhase::target_preparing || server_->is_open() || persists_out_ > 0 || is_resync_beginning_) {
    protocol_violation("the peer began a resync that was not planned");
    return;
  }
  if (!source.is_sole(peer()) || source.term < record_.configuration.term || is_primary_) {
    protocol_violation("the peer began a resync under a configuration that does not stand above this node's");
    return;
  }
  connected_term_ = 0;
  is_discarding_ = false;
  peer_seen_ = std::max(peer_seen_, source.term);
  const auto begin = [this, source] {
    is_resync_beginning_ = false;
    // The own bits are durable before the flags that told of them go (A16, A17).
    settle_all(for_this_channel([this, source] {
      is_crashed_primary_ = false;
      persist(membership::become_sync_target(record_, source), for_this_channel([this] { send_bitmaps(); }));
    }));
  };
  is_resync_beginning_ = true;
  ask_before_resync([this, begin, is_full = message.is_full] { keep_for_undo(is_full, begin); });
}

void Resource::send_bitmaps() {
  server_->open(*channel_, record_.configuration.term);
  phase_ = LinkPhase::target_syncing;
  for (const auto& volume : volumes_) {
    const blockdev::DirtyBitmap& dirty = volume->store->dirty();
    for (std::size_t page = 0; page < dirty.pages_count(); ++page) {
      if (!dirty.has_page(page)) continue;
      std::array<std::byte, blockdev::DirtyBitmap::kPageBytes> bits{};
      dirty.get_page(page, bits);
      replication::FrameHeader header;
      header.type = replication::FrameType::bitmap;
      header.volume = volume->index;
      header.offset_bytes = page;
      header.term = record_.configuration.term;
      channel_->send(header, bits);
    }
  }
  channel_->send(replication::BitmapEnd{});
  log_info("resource {}: SyncTarget, term {}", config_.name, record_.configuration.term);
}

void Resource::on_bitmap_page(const replication::FrameHeader& header, ConstBytes page) {
  const bool is_expected =
      phase_ == LinkPhase::source_preparing && link_.is_attached() && header.volume < volumes_.size();
  if (!is_expected || header.offset_bytes >= volumes_[header.volume]->store->dirty().pages_count()) {
    protocol_violation("the peer sent a bitmap page that nobody asked for");
    return;
  }
  // They are in the set already, as far as they have not been copied since.
  if (is_resync_continued_) return;
  volumes_[header.volume]->store->dirty().merge_page(header.offset_bytes,
                                                     page.first<blockdev::DirtyBitmap::kPageBytes>());
}

void Resource::start_syncing() {
  phase_ = LinkPhase::source_syncing;
  synced_term_ = record_.configuration.term;
  std::uint64_t bytes = 0;
  for (const auto& volume : volumes_) {
    bytes += volume->store->dirty().dirty_bytes();
    volume->is_resynced = false;
    volume->mirror->set_mirroring(true);
    volume->resync->start(resync_mode_, Callback<void()>::to<&Volume::on_resynced>(*volume));
  }
  log_info("resource {}: SyncSource, {} KiB to {}{}, term {}", config_.name, bytes / 1024,
           resync_mode_ == replication::ResyncMode::compare_first ? "compare" : "copy",
           is_resync_continued_ ? ", going on where it was cut off" : "", record_.configuration.term);
}

void Resource::Volume::on_resynced() { resource->volume_resynced(*this); }

void Resource::volume_resynced(Volume& volume) {
  volume.is_resynced = true;
  if (is_repairing_) return volume_repaired();
  if (std::ranges::all_of(volumes_, [](const auto& one) { return one->is_resynced; })) begin_add();
}

/// protocol.md 3.4, add: drain, flush both, propose; nothing is answered until it is decided.
void Resource::begin_add() {
  // A demotion under way ends first; on_tick() does not call again, so the demotion's end does (see demoted()).
  phase_ = LinkPhase::adding;
  freeze_all();
  suspended_reason_ = "the peer is being added";
  if (is_changing_role_) {
    RB_PROBE("add_while_demoting");
    return;
  }
  drain_all(for_this_channel([this] {
    flush_all([this, number = channel_number_](bool is_flushed) {
      if (number != channel_number_) return;
      const bool is_clean =
          std::ranges::all_of(volumes_, [](const auto& volume) { return volume->store->dirty().is_clean(); });
      if (is_flushed && is_clean) {
        finish_add();
        return;
      }
      // Something was written in between that could not be copied yet: another pass.
      RB_PROBE("add_needs_another_pass");
      thaw_all();
      start_syncing();
    });
  }));
}

void Resource::finish_add() {
  const NodeIndex primary = is_primary_ ? self() : blockdev::kNoNode;
  propose(kBoth, primary, membership::generations_for_pair(record_.generations), [this, primary] {
    ResourceRecord next = membership::join_pair(record_, {proposed_term_, 3, primary},
                                                membership::generations_for_pair(record_.generations));
    next.is_primary_open = is_primary_;
    persist(next, for_this_channel([this] {
              joined();
              thaw_all();
            }));
  });
}

}  // namespace replblk::node
