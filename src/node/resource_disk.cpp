// What becomes of a resource when its own copy fails (protocol.md 7; docs/ARCHITECTURE.md, "A failed copy is left
// behind").
#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "membership/transitions.hpp"
#include "node/resource.hpp"

namespace replblk::node {

namespace {

/// A peer that takes over ends the connection; one that does not is not waited for.
constexpr Duration kHandOverTimeout = seconds(5);

}  // namespace

bool Resource::is_own_copy_dispensable() const {
  return phase_ == LinkPhase::established && record_.configuration.is_pair() && channel_ != nullptr;
}

/// A change or a flush of an initiator's failed here. While the peer is a member its copy has everything, and this one
/// is given up; the only copy is not given up for an error, so the initiator is told. For a device that does not give
/// back what it was asked it is, until `attach`: what it holds may take effect at any time, and it is asked nothing
/// more before.
void Resource::Volume::on_disk_failed(bool is_hung) {
  if (resource->is_copy_failed_) return;
  if (is_hung) return resource->copy_failed(*this, "the disk does not answer");
  if (!resource->is_primary_ || !resource->is_own_copy_dispensable()) {
    RB_PROBE("only_copy_failed_a_change");
    return;
  }
  resource->copy_failed(*this, "the disk failed a write or a flush");
}

/// An operation of the peer's failed here: the peer goes on without this copy.
void Resource::server_disk_failed(std::uint16_t volume) {
  if (is_copy_failed_ || channel_ == nullptr) return;
  copy_failed(*volumes_[volume], "the disk failed an operation of the peer's, or does not answer");
}

void Resource::Volume::on_metadata_failed(ports::IoError error) {
  resource->copy_failed(*this, fmt::format("the metadata cannot be written: {}", to_string(error)));
}

/// From here on this node serves nothing, agrees to nothing and records nothing: what its disk holds from now on nobody
/// can tell. The next start judges it anew.
void Resource::copy_failed(Volume& volume, const std::string& what) {
  if (is_copy_failed_) return;
  is_copy_failed_ = true;
  const bool hands_over = is_primary_ && is_own_copy_dispensable() && !is_changing_role_ && proposed_term_ == 0 &&
                          !is_keeping_ && channel_->protocol_version() >= replication::kVersionOfTakeOver;
  if (is_primary_) RB_PROBE("copy_failed_as_primary");
  const std::string sentence = fmt::format(
      "volume {}: {}: this copy is left behind until the disk works, or is replaced (`replblkctl detach`, "
      "`create-md`), and `replblkctl attach` opens it again",
      volume.index, what);
  log_error("resource {}: {}", config_.name, sentence);
  for (const auto& one : volumes_) one->failure = sentence;
  end_verify("the disk failed");
  stop_serving("the disk failed");
  is_primary_ = false;
  refuse_keeping();
  is_standalone_ = true;
  if (hands_over) {
    RB_PROBE("role_handed_to_the_peer");
    log_warning("resource {}: the peer takes over", config_.name);
    channel_->send(replication::TakeOver{});
    hand_over_deadline_ = world_.loop.now() + kHandOverTimeout;
  } else if (channel_ != nullptr) {
    const replication::Refusal refusal{
        fmt::format("the disk of {} failed ({}); it needs a disk that works and `replblkctl attach` there",
                    cluster_.nodes[self()].name, what),
        false};
    end_channel("StandAlone", sentence, &refusal);
  }
  answer_open_verbs(sentence);
  tell(HandlerEvent::local_io_error);
}

/// A stop that the failure met in its midst ends when nothing is in flight any more: what it waited for may never come.
void Resource::tick_with_failed_copy(Instant now) {
  if (channel_ != nullptr && now >= hand_over_deadline_)
    end_channel("StandAlone", "the peer did not take over in time; the disk here failed", nullptr);
  if (is_stopping_ && is_quiet()) finish_stop();
}

/// What a device has not given back may still be written to it, and its memory is the device's: nothing takes the place
/// of this resource before.
std::string Resource::why_disks_must_stay() const {
  if (opening_count_ > 0) return "the disks are still being opened; try again";
  for (const auto& volume : volumes_) {
    std::size_t count = 0;
    for (const ports::Disk* disk : {volume->disks.data, volume->disks.metadata}) {
      if (disk != nullptr) count += disk->unreturned_count();
    }
    if (count > 0) {
      return fmt::format(
          "volume {}: the disk has not given back {} operations: try again when it answers; if it never does, restart "
          "the daemon",
          volume->index, count);
    }
  }
  return {};
}

std::string Resource::why_no_detach() const {
  if (std::string why = why_disks_must_stay(); !why.empty()) return why;
  if (!is_opened_ || is_copy_failed_) return {};
  if (is_primary_) return "this node is Primary: make it secondary, and the peer primary, first";
  if (!is_own_copy_dispensable())
    return "the copy here may be the only good one: its disks are let go of only while both nodes are connected and "
           "UpToDate";
  return {};
}

std::string Resource::why_no_attach() const {
  if (is_opened_ && !is_copy_failed_) return "the disks are attached";
  return why_disks_must_stay();
}

bool Resource::is_quiet() const {
  if (!is_opened_) return opening_count_ == 0;
  const bool is_idle = std::ranges::all_of(
      volumes_, [](const auto& volume) { return volume->mirror->is_idle() && volume->store->in_flight_count() == 0; });
  return is_idle && server_->is_idle() && are_copiers_idle();
}

// ---- the peer's copy fails -------------------------------------------------------------------------------------

/// The Primary's copy has failed: it answers nobody any more, and everything that it sent came before this.
void Resource::receive(const replication::TakeOver&) {
  const bool may =
      phase_ == LinkPhase::established && is_peer_primary_ && record_.configuration.is_pair() && !is_primary_;
  if (!may) return protocol_violation("the peer hands over a role that it does not have");
  log_warning("resource {}: the disk of {} failed: this node takes over", config_.name, cluster_.nodes[peer()].name);
  end_verify("the peer's disk failed");
  set_peer_primary(false);
  if (is_changing_role_ || is_removing_peer_ || persists_out_ > 0 || is_stopping_) {
    RB_PROBE("take_over_meets_another_change");
    end_channel("Unconnected", "the peer's disk failed while a change was under way here", nullptr);
    return;
  }
  is_changing_role_ = true;
  promote_alone([this](const AdminReply& reply) {
    if (reply.outcome != AdminOutcome::done) log_error("{}", reply.message);
  });
}

}  // namespace replblk::node
