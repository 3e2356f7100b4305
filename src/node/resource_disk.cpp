// What becomes of a resource when its own copy fails (protocol.md 7; docs/ARCHITECTURE.md, "A failed copy is left
// behind").
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"
#include "membership/transitions.hpp"
#include "node/resource.hpp"

namespace replblk::node {

namespace {

/// Two ticks.
constexpr Duration kStallLookMax = milliseconds(500);

}  // namespace

bool Resource::is_own_copy_dispensable() const {
  return phase_ == LinkPhase::established && record_.configuration.is_pair() && channel_ != nullptr;
}

bool Resource::can_hand_over(Instant now) const {
  return is_primary_ && is_own_copy_dispensable() && machine_->is_settled() && machine_->may_peer_take_role(now);
}

/// A change or a flush of an initiator's failed here. While the peer is a member its copy has everything, and this one
/// is given up; the only copy is not given up for an error, so the initiator is told. For a device that does not give
/// back what it was asked it is, until it has: what it holds may take effect at any time, and it is asked nothing
/// more before.
void Resource::Volume::on_disk_failed(bool is_hung) {
  if (resource->is_copy_failed_) return;
  if (is_hung) return resource->copy_failed(*this, "the disk does not answer", true);
  if (!resource->is_primary_ || !resource->is_own_copy_dispensable()) {
    RB_PROBE("only_copy_failed_a_change");
    return resource->only_copy_failed(*this);
  }
  resource->copy_failed(*this, "the disk failed a write or a flush", false);
}

void Resource::only_copy_failed(Volume& volume) {
  if (!volume.trouble.empty()) return;
  volume.trouble = fmt::format(
      "volume {}: the disk failed a write or a flush, and who asked for it was told; this is the only good copy, which "
      "goes on. After a flush that failed all others do until the disks are opened again: `replblkctl attach` does it, "
      "and resets the initiators' connections",
      volume.index);
  log_error("resource {}: {}", config_.name, volume.trouble);
  tell(HandlerEvent::local_io_error);
}

/// An operation of the peer's failed here: the peer goes on without this copy.
void Resource::server_disk_failed(std::uint16_t volume, bool is_hung) {
  if (is_copy_failed_ || channel_ == nullptr) return;
  copy_failed(*volumes_[volume], is_hung ? "the disk does not answer" : "the disk failed an operation of the peer's",
              is_hung);
}

void Resource::Volume::on_metadata_failed(ports::IoError error) {
  resource->copy_failed(*this, fmt::format("the metadata cannot be written: {}", to_string(error)),
                        error == ports::IoError::timed_out);
}

/// Bits that cannot be recorded end what needs them: a resync, which begins anew from what is recorded. The only copy
/// is not given up for it.
void Resource::bits_not_saved(Volume& volume, ports::IoError error) {
  if (is_copy_failed_) return;
  if (error == ports::IoError::timed_out || !is_primary_ || is_own_copy_dispensable())
    return volume.on_metadata_failed(error);
  RB_PROBE("only_copy_cannot_save_bits");
  only_copy_failed(volume);
  if (channel_ == nullptr) return;
  const std::string why =
      fmt::format("volume {}: the bitmap cannot be written here: {}", volume.index, to_string(error));
  back_off();
  report_failure(why);
  const replication::Refusal refusal{why, false};
  end_channel("Unconnected", why, &refusal);
}

/// From here on this node serves nothing, agrees to nothing and records nothing: what its disk holds from now on nobody
/// can tell. The next start judges it anew.
void Resource::copy_failed(Volume& volume, const std::string& what, bool is_hung) {
  if (is_copy_failed_) return;
  is_copy_failed_ = true;
  is_copy_hung_ = is_hung;
  if (is_primary_) RB_PROBE("copy_failed_as_primary");
  const std::string sentence = fmt::format(
      "volume {}: {}: this copy is left behind {}", volume.index, what,
      is_hung
          ? "until the disk has answered everything; then it is opened again"
          : "until the disk works, or is replaced (`replblkctl detach`, `create-md`), and `replblkctl attach` opens "
            "it again");
  log_error("resource {}: {}", config_.name, sentence);
  for (const auto& one : volumes_) one->failure = sentence;
  end_verify("the disk failed");
  end_resize(sentence);
  if (undo_ != nullptr) undo_->stop();
  if (is_primary_) step_down("the disk failed");
  is_standalone_ = true;
  const Instant now = world_.loop.now();
  if (machine_ != nullptr && !is_membership_over_) {
    // Nothing can be recorded on a device that does not answer, and of one that fails nobody can tell.
    machine_->metadata_failed(now);
    pump();
  }
  if (channel_ != nullptr) {
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
void Resource::tick_with_failed_copy() {
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
  if (undo_ != nullptr && undo_->unreturned_count() > 0)
    return config_.undo_directory + " does not answer: try again when it does";
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
  const bool is_in_trouble = std::ranges::any_of(volumes_, [](const auto& volume) { return !volume->trouble.empty(); });
  if (is_opened_ && !is_copy_failed_ && !is_in_trouble) return "the disks are attached";
  return why_disks_must_stay();
}

bool Resource::is_reopenable() const {
  return is_copy_hung_ && !is_stopping_ && channel_ == nullptr && is_quiet() && why_disks_must_stay().empty();
}

void Resource::announce_reopening(Duration pause) {
  const auto when = static_cast<std::time_t>((world_.loop.unix_ms() + static_cast<std::uint64_t>(to_ms(pause))) / 1000);
  const std::string sentence = fmt::format(
      "the disk, which hung, has answered everything: it is opened again at {:%H:%M:%S} UTC; `replblkctl attach` opens "
      "it at once",
      fmt::gmtime(when));
  log_info("resource {}: {}", config_.name, sentence);
  for (const auto& volume : volumes_) volume->failure = sentence;
}

/// protocol.md 7: well before an operation is given up, a Primary whose device has completed nothing while requests
/// wait gives the role to a peer whose device works and that takes it: slow service is better than none. Time in which
/// this process stood still does not count.
bool Resource::hand_over_when_stalled(Instant now) {
  const Duration passed = std::min<Duration>(now - std::exchange(last_stall_look_, now), kStallLookMax);
  for (const auto& volume : volumes_) {
    const Duration limit = volume->config.disks[self()].stall_timeout;
    const blockdev::Store::Counters& counters = volume->store->counters();
    const std::uint64_t ended = counters.operations + counters.metadata_writes;
    const bool is_stalled = volume->store->in_flight_count() > 0 && ended == std::exchange(volume->last_ended, ended);
    volume->stalled_for = is_stalled ? volume->stalled_for + passed : Duration{};
    if (limit == Duration{} || volume->stalled_for < limit) continue;
    if (!can_hand_over(now)) continue;
    RB_PROBE("stalled_disk_gives_the_role_away");
    copy_failed(*volume, fmt::format("the disk has finished nothing for {} ms", to_ms(volume->stalled_for)), true);
    return true;
  }
  return false;
}

bool Resource::is_quiet() const {
  if (!is_opened_) return opening_count_ == 0;
  const bool is_idle = std::ranges::all_of(
      volumes_, [](const auto& volume) { return volume->mirror->is_idle() && volume->store->in_flight_count() == 0; });
  return is_idle && server_->is_idle() && are_copiers_idle() && (undo_ == nullptr || !undo_->is_running());
}

}  // namespace replblk::node
