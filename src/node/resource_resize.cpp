// The volumes grow while they serve, after their devices did (docs/peer_protocol.md 3, docs/ondisk_format.md 6):
// measure on both nodes, zero what is new on both, then grow the peer's copy, then this one, then tell the initiators.
// Whoever serves grows last: nobody can write where the peer has nothing.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.hpp"
#include "base/probe.hpp"
#include "blockdev/layout.hpp"
#include "node/resource.hpp"

namespace replblk::node {

namespace {

/// An administrator is not kept waiting for longer; the resize goes on.
constexpr Duration kReplyTimeout = seconds(30);

}  // namespace

std::string Resource::why_no_resize() const {
  if (!is_opened_ || is_stopping_ || is_copy_failed_) return "the resource is not open here; see `status`";
  if (resizing_ != nullptr || growth_.is_busy()) return "a resize is under way; see `status`";
  if (!has_peer()) return {};
  if (phase_ != LinkPhase::established) {
    return "the volumes grow on both nodes together: they must be connected, and both copies UpToDate; see `status`";
  }
  return why_members_are_busy();
}

void Resource::resize(AdminReplyCallback reply) {
  std::string why = why_no_resize();
  if (why.empty() && has_peer() && is_peer_primary_) {
    why = fmt::format("{} is Primary, and tells its initiators: run it there", cluster_.nodes[peer()].name);
  }
  if (!why.empty()) return reply({AdminOutcome::refused, config_.name + ": " + why, {}});
  resizing_ = std::make_unique<Resizing>();
  resizing_->is_driver = true;
  resizing_->reply = std::move(reply);
  resizing_->began_at = world_.loop.now();
  growth_.measure([this](const std::string& failure) {
    if (resizing_ == nullptr) return;
    if (!failure.empty()) return end_resize(failure);
    if (!has_peer()) return resize_measured(growth_.rooms_bytes());
    channel_->send(replication::Resize{replication::ResizeStep::measure, {}});
  });
}

/// The smaller device of each volume decides.
void Resource::resize_measured(const std::vector<std::uint64_t>& rooms_there) {
  std::vector<std::uint64_t> sizes = growth_.sizes_bytes();
  if (rooms_there.size() != sizes.size()) return protocol_violation("the peer measured another number of volumes");
  bool is_larger = false;
  std::string found;
  for (std::size_t index = 0; index < sizes.size(); ++index) {
    const std::uint64_t here = growth_.rooms_bytes()[index];
    const std::uint64_t there = rooms_there[index];
    found += fmt::format("{}volume {} has {} bytes; there is room for {}", found.empty() ? "" : "; ", index,
                         sizes[index], here);
    if (has_peer()) found += fmt::format(" on this node and {} on {}", there, cluster_.nodes[peer()].name);
    const std::uint64_t size = blockdev::round_down_to_page(std::min(here, there));
    is_larger = is_larger || size > sizes[index];
    sizes[index] = std::max(sizes[index], size);
  }
  if (!is_larger)
    return end_resize("nothing can grow: " + found + "; make the devices larger first, on both nodes",
                      AdminOutcome::refused);
  log_info("resource {}: {}: what is new is zeroed", config_.name, found);
  resizing_->sizes_bytes = sizes;
  resizing_->is_zeroed_there = !has_peer();
  if (has_peer()) channel_->send(replication::Resize{replication::ResizeStep::zero, sizes});
  growth_.zero(sizes, [this](const std::string& failure) {
    if (resizing_ == nullptr) return;
    if (!failure.empty()) return end_resize(failure);
    resizing_->is_zeroed_here = true;
    resize_zeroed();
  });
}

void Resource::resize_zeroed() {
  if (!resizing_->is_zeroed_here || !resizing_->is_zeroed_there) return;
  if (!has_peer()) return resize_grow();
  if (is_peer_primary_) return end_resize("the role moved to the peer meanwhile: run it there", AdminOutcome::refused);
  channel_->send(replication::Resize{replication::ResizeStep::grow, resizing_->sizes_bytes});
}

void Resource::resize_grow() {
  growth_.grow(resizing_->sizes_bytes, true, [this](const std::string& failure) {
    if (!failure.empty()) return;  // The metadata has failed, and with it the copy.
    sizes_changed();
    if (resizing_ != nullptr) end_resize({});
  });
}

/// The stores have their new sizes: everybody who remembers the old one is told.
void Resource::sizes_changed() {
  for (const auto& volume : volumes_) {
    const std::uint64_t size = volume->store->geometry().size_bytes;
    if (!volume->mirror->take_size()) continue;
    RB_PROBE("volume_grew");
    log_info("resource {}: volume {} has {} bytes now", config_.name, volume->index, size);
    device_->capacity_changed(volume->config.lun);
  }
}

/// `failure` is empty: it is done. What one node has done and the other has not is made good when they meet.
void Resource::end_resize(const std::string& failure, AdminOutcome outcome) {
  if (resizing_ == nullptr) return;
  growth_.stop();
  const bool must_tell = !failure.empty() && resizing_->is_driver && phase_ == LinkPhase::established;
  if (must_tell) channel_->send(replication::Resize{replication::ResizeStep::give_up, {}});
  const std::unique_ptr<Resizing> ended = std::move(resizing_);
  if (!failure.empty()) log_error("resource {}: the volumes do not grow: {}", config_.name, failure);
  if (!ended->reply) return;
  if (!failure.empty()) {
    return ended->reply({outcome, fmt::format("{}: the volumes do not grow: {}", config_.name, failure), {}});
  }
  std::string sizes;
  for (const std::uint64_t size : growth_.sizes_bytes()) sizes += fmt::format("{}{}", sizes.empty() ? "" : ", ", size);
  ended->reply({AdminOutcome::done, fmt::format("{}: {} bytes now; initiators were told", config_.name, sizes), {}});
}

void Resource::answer_long_resize(Instant now) {
  if (resizing_ == nullptr || !resizing_->reply || now - resizing_->began_at < kReplyTimeout) return;
  std::exchange(resizing_->reply,
                {})({AdminOutcome::done,
                     config_.name + ": what is new is still being zeroed; `status` shows the new size when it is done",
                     {}});
}

// ---- the peer drives -------------------------------------------------------------------------------------------

void Resource::receive(const replication::Resize& message) {
  using Step = replication::ResizeStep;
  const auto answer = [this, step = message.step](std::vector<std::uint64_t> sizes, std::string failure) {
    channel_->send(replication::ResizeReply{step, std::move(sizes), std::move(failure)});
  };
  if (message.step == Step::measure) {
    if (std::string why = why_no_resize(); !why.empty()) return answer({}, why);
    resizing_ = std::make_unique<Resizing>();
    growth_.measure([this, answer](const std::string& failure) {
      if (resizing_ == nullptr) return;
      if (!failure.empty()) resizing_.reset();
      answer(growth_.rooms_bytes(), failure);
    });
    return;
  }
  if (message.step == Step::give_up) {
    if (resizing_ == nullptr || resizing_->is_driver) return;
    growth_.stop();
    resizing_.reset();
    return;
  }
  if (resizing_ == nullptr) return answer({}, "the resize was given up");
  const std::vector<std::uint64_t> now_bytes = growth_.sizes_bytes();
  bool is_possible = !resizing_->is_driver && !growth_.is_busy() && message.sizes_bytes.size() == now_bytes.size();
  for (std::size_t index = 0; is_possible && index < now_bytes.size(); ++index) {
    const std::uint64_t size = message.sizes_bytes[index];
    is_possible = size >= now_bytes[index] && size <= growth_.rooms_bytes()[index] && size % blockdev::kPageBytes == 0;
  }
  if (message.step == Step::grow) is_possible = is_possible && resizing_->sizes_bytes == message.sizes_bytes;
  if (!is_possible) return protocol_violation("the peer wants the volumes to grow to what cannot be");
  if (message.step == Step::zero) {
    growth_.zero(message.sizes_bytes, [this, answer, sizes = message.sizes_bytes](const std::string& failure) {
      if (resizing_ == nullptr) return;
      resizing_->sizes_bytes = sizes;
      if (!failure.empty()) resizing_.reset();
      answer({}, failure);
    });
    return;
  }
  if (is_primary_) {
    resizing_.reset();
    return answer({}, "the role moved meanwhile");
  }
  growth_.grow(message.sizes_bytes, true, [this, answer](const std::string& failure) {
    if (!failure.empty()) return;  // The metadata has failed, and with it the copy.
    sizes_changed();
    if (resizing_ == nullptr) return;
    resizing_.reset();
    answer({}, {});
  });
}

void Resource::receive(const replication::ResizeReply& message) {
  using Step = replication::ResizeStep;
  if (resizing_ == nullptr || !resizing_->is_driver) return;  // Given up here meanwhile.
  if (!message.failure.empty()) return end_resize(fmt::format("{}: {}", cluster_.nodes[peer()].name, message.failure));
  switch (message.step) {
    case Step::measure:
      if (!resizing_->sizes_bytes.empty() || growth_.is_busy()) break;
      return resize_measured(message.sizes_bytes);
    case Step::zero:
      resizing_->is_zeroed_there = true;
      return resize_zeroed();
    case Step::grow:
      if (!resizing_->is_zeroed_here || growth_.is_busy()) break;
      return resize_grow();
    case Step::give_up:
      break;
  }
  protocol_violation("the peer answered a step of a resize that was not asked for");
}

// ---- a resize that was cut off between the nodes -----------------------------------------------------------------

/// True: one side has a volume that the other one can make as large, and does; they meet again then. What is new there
/// counts as different.
bool Resource::level_sizes() {
  const std::vector<std::uint64_t> sizes = replication::sizes_to_grow_to(*my_introduction_, *peer_introduction_);
  const bool grows_here = sizes != growth_.sizes_bytes();
  const bool grows_there = replication::sizes_to_grow_to(*peer_introduction_, *my_introduction_) !=
                           replication::volume_sizes(*peer_introduction_);
  if (!grows_here && !grows_there) return false;
  RB_PROBE("sizes_levelled_at_meeting");
  const std::string reason = fmt::format("the volumes of {} grow to the size of the other copy",
                                         grows_here ? cluster_.nodes[self()].name : cluster_.nodes[peer()].name);
  log_info("resource {}: {}", config_.name, reason);
  const replication::Refusal refusal{reason, false};
  end_channel("Unconnected", reason, &refusal);
  if (grows_here) {
    growth_.grow(sizes, false, [this](const std::string& failure) {
      if (failure.empty()) sizes_changed();
    });
  }
  return true;
}

}  // namespace replblk::node
