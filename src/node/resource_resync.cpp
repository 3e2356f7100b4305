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

/// The machine sees to it that this node is the only member before begin_as_source().
void Resource::plan_as_source(const replication::Plan& plan) {
  is_resync_continued_ = !plan.is_split && replication::is_same_resync(record_.merged_term, self(), *my_introduction_,
                                                                       *peer_introduction_);
  if (is_resync_continued_) RB_PROBE("resync_continued");
  resync_mode_ = choose_mode(plan);
  is_plan_full_ = plan.is_full && !is_resync_continued_;
  const auto connect = [this, is_split = plan.is_split] {
    membership::Meeting meeting;
    meeting.direction = membership::Meeting::Direction::source;
    meeting.peer_configuration = peer_introduction_->configuration;
    meeting.peer_seen = peer_introduction_->seen;
    meeting.peer_pair_id = peer_introduction_->pair_id;
    meeting.is_split = is_split;
    meeting.given_up = peer_introduction_->generations.current;
    if (!machine_->is_settled() || record_.configuration != my_introduction_->configuration) {
      const replication::Refusal refusal{"a change of this node's own is under way", false};
      return end_channel("Unconnected", "the configuration changed while the nodes met", &refusal);
    }
    machine_->connected(meeting, world_.loop.now());
    pump();
  };
  const auto begin = [this, connect] {
    if (!is_plan_full_) return connect();
    // Before the record says that the bits cover all that differs, they must, durably.
    for (const auto& volume : volumes_) volume->store->dirty().set_all();
    save_bitmaps(for_this_channel(connect));
  };
  is_resync_continued_ ? begin() : record_merged(0, for_this_channel(begin));
}

void Resource::record_merged(std::uint64_t term, std::function<void()> then) {
  if (record_.merged_term == term) return then();
  blockdev::ResourceRecord next = record_;
  next.merged_term = term;
  persist(next, std::move(then));
}

void Resource::begin_as_source() {
  tell(HandlerEvent::before_resync_source);
  link_.attach(*channel_, record_.configuration.term);
  channel_->send(replication::SyncStart{record_.configuration, is_plan_full_});
}

void Resource::receive(const replication::SyncStart& message) {
  const Configuration& source = message.configuration;
  if (phase_ != LinkPhase::target_preparing || server_->is_open() || is_resync_beginning_) {
    protocol_violation("the peer began a resync that was not planned");
    return;
  }
  is_resync_beginning_ = true;
  // That this copy gives way may still be on its way to the disk.
  when_persisted(for_this_channel([this, source, is_full = message.is_full] { begin_as_target(source, is_full); }));
}

void Resource::begin_as_target(const Configuration& source, bool is_full) {
  is_discarding_ = false;
  const auto begin = [this, source] {
    is_resync_beginning_ = false;
    // The own bits are durable before the flags that told of them go (A16, A17).
    settle_all(for_this_channel([this, source] {
      machine_->resync_begins(source, world_.loop.now());
      pump();
    }));
  };
  ask_before_resync([this, begin, is_full] { keep_for_undo(is_full, begin); });
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
  if (record_.merged_term != 0) return;
  save_bitmaps(for_this_channel([this, term = record_.configuration.term] {
    if (phase_ == LinkPhase::source_syncing && record_.configuration.term == term) record_merged(term, [] {});
  }));
}

void Resource::Volume::on_resynced() { resource->volume_resynced(*this); }

void Resource::volume_resynced(Volume& volume) {
  volume.is_resynced = true;
  if (is_repairing_) return volume_repaired();
  if (!std::ranges::all_of(volumes_, [](const auto& one) { return one->is_resynced; })) return;
  machine_->resynced(world_.loop.now());
  pump();
}

}  // namespace replblk::node
