// Persistent reservations follow the data (protocol.md 4): the table is in the record of every copy before a PERSISTENT
// RESERVE OUT is answered, and an added peer receives it with the configuration.
//
// The copies are those of the members at the moment of the answer. So no table starts on its way while the
// configuration is in change, and a change waits for nothing here: a table that the own record has goes out with the
// proposal that adds the peer; one that the peer has not confirmed when it is lost is on all members once the peer is
// removed.
#include <utility>

#include "base/assert.hpp"
#include "node/resource.hpp"

namespace replblk::node {

static_assert(scsi::Device::kReservationTableBytesMax <= blockdev::ResourceRecord::kReservationsBytesMax);

void Resource::keep(std::string table, Callback<void(bool is_kept)> done) {
  keepings_.push_back({std::move(table), done});
  world_.loop.defer(keep_task_);
}

/// One table at a time, in the order of asking. Whatever holds it back now ends in thaw_all() or refuse_keeping().
void Resource::start_keeping() {
  if (is_keeping_ || keepings_.empty()) return;
  if (!is_primary_ || is_copy_failed_) {
    refuse_keeping();
    return;
  }
  if (machine_->service() != membership::Service::serving) return;
  is_keeping_ = true;
  ++keeping_number_;
  is_keeping_here_ = true;
  is_keeping_at_peer_ = phase_ == LinkPhase::established;
  if (is_keeping_at_peer_) {
    keeping_deadline_ = world_.loop.now() + cluster_.peer_timeout;
    channel_->send(replication::Reservations{keeping_number_, keepings_.front().table});
  }
  blockdev::ResourceRecord next = record_;
  next.reservations = keepings_.front().table;
  persist(next, [this, number = keeping_number_] {
    if (!is_keeping_ || number != keeping_number_) return;  // Refused meanwhile.
    is_keeping_here_ = false;
    check_kept();
  });
}

void Resource::check_kept() {
  if (!is_keeping_ || is_keeping_here_ || is_keeping_at_peer_) return;
  if (machine_->service() != membership::Service::serving) return;  // Frozen: it comes back.
  is_keeping_ = false;
  const Keeping kept = std::move(keepings_.front());
  keepings_.pop_front();
  if (!keepings_.empty()) world_.loop.defer(keep_task_);
  kept.done(true);
}

/// The role is given up or lost. What is on its way may still become durable, here, at the peer or at both.
void Resource::refuse_keeping() {
  is_keeping_ = is_keeping_here_ = is_keeping_at_peer_ = false;
  std::deque<Keeping> refused;
  refused.swap(keepings_);
  for (const Keeping& keeping : refused) keeping.done(false);
}

void Resource::receive(const replication::Reservations& message) {
  if (phase_ != LinkPhase::established || is_primary_) {
    protocol_violation("the peer sent reservations that this node cannot take now");
    return;
  }
  if (message.table.size() > blockdev::ResourceRecord::kReservationsBytesMax) {
    protocol_violation("the peer sent more reservations than a record holds");
    return;
  }
  blockdev::ResourceRecord next = record_;
  next.reservations = message.table;
  persist(next,
          for_this_channel([this, number = message.number] { channel_->send(replication::ReservationsAck{number}); }));
}

void Resource::receive(const replication::ReservationsAck& message) {
  if (message.number == 0 || message.number > keeping_number_ || phase_ != LinkPhase::established) {
    protocol_violation("the peer acknowledged reservations that were not sent");
    return;
  }
  // A lower number, or none awaited: refused meanwhile, since this node gives up the role.
  if (!is_keeping_at_peer_ || message.number != keeping_number_) return;
  is_keeping_at_peer_ = false;
  check_kept();
}

}  // namespace replblk::node
