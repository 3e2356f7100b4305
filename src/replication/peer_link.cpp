#include "replication/peer_link.hpp"

#include "base/assert.hpp"
#include "base/probe.hpp"

namespace replblk::replication {

void PeerLink::attach(PeerChannel& channel, std::uint64_t term) noexcept {
  RB_ASSERT(channel_ == nullptr && count_ == 0);
  channel_ = &channel;
  term_ = term;
}

void PeerLink::detach() {
  channel_ = nullptr;
  // Owners may not send while they hear of the loss: is_attached() is false already.
  IntrusiveList<OutstandingOperation, OutstandingOperation> lost;
  lost.splice_back(oldest_first_);
  if (!lost.empty()) RB_PROBE("peer_lost_with_operations_out");
  while (OutstandingOperation* operation = lost.pop_front()) {
    const auto slot = static_cast<std::uint16_t>(operation->sequence_ & 0xffff);
    slots_[slot] = nullptr;
    free_.push_back(slot);
    --count_;
    operation->on_answer(PeerAnswer::lost);
  }
}

void PeerLink::admit(OutstandingOperation& operation, FrameHeader& header) {
  RB_ASSERT(channel_ != nullptr);
  if (free_.empty()) {
    RB_ASSERT(slots_.size() < 65536);
    free_.push_back(static_cast<std::uint16_t>(slots_.size()));
    slots_.push_back(nullptr);
  }
  const std::uint16_t slot = free_.back();
  free_.pop_back();
  slots_[slot] = &operation;
  operation.sequence_ = ++counter_ << 16 | slot;
  operation.sent_ = loop_.now();
  operation.length_bytes_ = header.length_bytes;
  oldest_first_.push_back(operation);
  ++count_;
  header.sequence = operation.sequence_;
  header.term = term_;
}

void PeerLink::send(OutstandingOperation& operation, FrameHeader header) {
  admit(operation, header);
  channel_->send(header);
}

void PeerLink::send(OutstandingOperation& operation, FrameHeader header, const BufferRef& buffer,
                    std::size_t offset_bytes) {
  admit(operation, header);
  channel_->send(header, buffer, offset_bytes);
}

OutstandingOperation* PeerLink::find(std::uint64_t sequence) const noexcept {
  const std::uint64_t slot = sequence & 0xffff;
  if (slot >= slots_.size() || slots_[slot] == nullptr || slots_[slot]->sequence_ != sequence) return nullptr;
  return slots_[slot];
}

void PeerLink::answer(OutstandingOperation& operation, ConstBytes bytes) {
  const auto slot = static_cast<std::uint16_t>(operation.sequence_ & 0xffff);
  slots_[slot] = nullptr;
  free_.push_back(slot);
  operation.unlink();
  --count_;
  operation.answer_ = bytes;
  operation.on_answer(PeerAnswer::done);
}

bool PeerLink::acknowledge(std::uint64_t sequence, ConstBytes bytes) {
  OutstandingOperation* operation = find(sequence);
  if (operation == nullptr || bytes.size() != operation->answer_bytes) return false;
  answer(*operation, bytes);
  return true;
}

bool PeerLink::deliver(std::uint64_t sequence, BufferRef data, std::uint64_t length_bytes) {
  OutstandingOperation* operation = find(sequence);
  if (operation == nullptr || length_bytes != operation->answer_bytes) return false;
  operation->data_ = std::move(data);
  answer(*operation, {});
  return true;
}

bool PeerLink::refuse(std::uint64_t sequence) {
  OutstandingOperation* operation = find(sequence);
  if (operation == nullptr || operation->answer_bytes == 0) return false;
  answer(*operation, {});
  return true;
}

bool PeerLink::is_overdue(Duration timeout) noexcept {
  OutstandingOperation* oldest = oldest_first_.front();
  if (oldest == nullptr) return false;
  const auto more = milliseconds(20 * static_cast<std::int64_t>(oldest->length_bytes_ >> 20));
  return loop_.now() - oldest->sent_ > timeout + more;
}

}  // namespace replblk::replication
