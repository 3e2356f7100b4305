#include "replication/peer_server.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/probe.hpp"
#include "replication/block_checksums.hpp"

namespace replblk::replication {

using blockdev::BlockOp;
using blockdev::BlockRequest;
using blockdev::BlockStatus;

namespace {

// A mirror has at most 512 changes and a resync at most 64 requests out for each volume, and one flush.
constexpr std::size_t kOperationsMaxPerVolume = 1024;

BlockOp block_op(FrameType type) {
  switch (type) {
    case FrameType::write:
    case FrameType::resync_data:
      return BlockOp::write;
    case FrameType::discard:
    case FrameType::resync_zeroes:
      // What is zero at the source needs no room here (protocol.md 6); without discard zeroes are written.
      return BlockOp::discard;
    case FrameType::write_zeroes:
      return BlockOp::write_zeroes;
    case FrameType::flush:
      return BlockOp::flush;
    case FrameType::checksum_request:
    case FrameType::read_request:
      return BlockOp::read;
    case FrameType::checksums:
    case FrameType::read_data:
    case FrameType::heartbeat:
    case FrameType::control:
    case FrameType::acknowledge:
    case FrameType::bitmap:
    case FrameType::ping:
    case FrameType::pong:
      break;
  }
  RB_UNREACHABLE();
}

}  // namespace

PeerServer::PeerServer(ports::World world, std::vector<blockdev::Store*> stores)
    : world_(world),
      stores_(std::move(stores)),
      slots_(kOperationsMaxPerVolume * std::max<std::size_t>(stores_.size(), 1)),
      acknowledge_task_(Callback<void()>::to<&PeerServer::send_acknowledgements>(*this)) {
  acknowledgements_.reserve(std::size_t{kAcknowledgeEntryBytes} * kAcknowledgeEntriesMax);
}

PeerServer::~PeerServer() { RB_ASSERT(is_idle()); }

void PeerServer::open(PeerChannel& channel, std::uint64_t term) noexcept {
  RB_ASSERT(channel_ == nullptr);
  channel_ = &channel;
  term_ = term;
  ++opening_;
}

void PeerServer::close() noexcept {
  channel_ = nullptr;
  acknowledgements_.clear();
  acknowledge_task_.unlink();
}

void PeerServer::apply(const FrameHeader& header, BufferRef data) {
  RB_ASSERT(channel_ != nullptr);
  const auto refuse = [&](const std::string& reason) { channel_->fail(ChannelEnd::protocol_error, reason); };
  if (header.term != term_) {
    RB_PROBE("frame_of_another_term_refused");
    refuse(fmt::format("an operation of term {} came while the configuration is of term {}", header.term, term_));
    return;
  }
  blockdev::Store* store = header.volume < stores_.size() ? stores_[header.volume] : nullptr;
  if (store == nullptr) {
    refuse(fmt::format("an operation for volume {}, which has no disk here", header.volume));
    return;
  }
  const bool is_flush = header.type == FrameType::flush;
  const std::uint64_t size = store->geometry().size_bytes;
  if (!is_flush && (header.offset_bytes > size || header.length_bytes > size - header.offset_bytes ||
                    header.offset_bytes % 512 != 0)) {
    refuse(fmt::format("an operation on bytes {} to +{} of volume {}, which has {} bytes", header.offset_bytes,
                       header.length_bytes, header.volume, size));
    return;
  }
  const bool is_checksum = header.type == FrameType::checksum_request;
  if (is_checksum && (header.offset_bytes % store->bitmap_block_bytes() != 0 ||
                      checksum_count(header.length_bytes, store->bitmap_block_bytes()) > kChecksumEntriesMax)) {
    refuse("a request for checksums that is not one of whole blocks");
    return;
  }
  Operation* operation = slots_.acquire();
  if (operation == nullptr) {
    refuse("more operations in flight than the protocol allows");
    return;
  }
  operation->server = this;
  operation->store = store;
  operation->volume = header.volume;
  operation->sequence = header.sequence;
  operation->opening = opening_;
  operation->is_claimed = !is_flush;
  operation->wants_data = header.type == FrameType::read_request;
  operation->is_question = is_checksum || operation->wants_data;
  operation->claim.on_granted = Callback<void()>::to<&Operation::on_granted>(*operation);
  BlockRequest& local = operation->local;
  local.op = block_op(header.type);
  local.is_fua = header.is_durable;
  local.offset_bytes = header.offset_bytes;
  local.length_bytes = header.length_bytes;
  local.buffer = std::move(data);
  local.buffer_offset_bytes = 0;
  local.status = BlockStatus::good;
  local.on_complete = Callback<void(BlockRequest&)>::to<&Operation::on_done>(*operation);
  const auto mode = operation->is_question ? blockdev::RangeLock::Mode::shared : blockdev::RangeLock::Mode::exclusive;
  if (is_flush || store->ranges().acquire(operation->claim, local.offset_bytes, local.length_bytes, mode)) {
    begin(*operation);
  }
}

void PeerServer::Operation::on_granted() { server->begin(*this); }

void PeerServer::begin(Operation& operation) {
  if (!operation.is_question) {
    operation.store->submit(operation.local);
    return;
  }
  operation.buffer.on_buffer = Callback<void(BufferRef)>::to<&Operation::on_buffer>(operation);
  operation.buffer.length_bytes = operation.local.length_bytes;
  if (BufferRef memory = world_.buffers.acquire_or_wait(operation.buffer)) operation.on_buffer(std::move(memory));
}

void PeerServer::Operation::on_buffer(BufferRef memory) {
  local.buffer = std::move(memory);
  store->submit(local);
}

void PeerServer::Operation::on_done(BlockRequest&) { server->finish(*this); }

void PeerServer::finish(Operation& operation) {
  const bool is_hung = operation.local.status == BlockStatus::timed_out;
  const bool is_failed = is_hung || (operation.local.status == BlockStatus::io_error && !operation.is_question);
  const std::uint16_t volume = operation.volume;
  if (channel_ != nullptr && operation.opening == opening_) {
    if (operation.is_question && operation.local.status == BlockStatus::good) {
      operation.wants_data ? send_data(operation) : send_checksums(operation);
    } else {
      acknowledge(operation);
    }
  }
  operation.local.buffer.reset();
  if (operation.is_claimed) operation.store->ranges().release(operation.claim);
  slots_.release(operation);
  while (is_idle() && !on_idle_.empty()) {
    const Callback<void()> done = on_idle_.front();
    on_idle_.pop_front();
    done();
  }
  if (is_failed && on_failed_) on_failed_(volume, is_hung);
}

void PeerServer::send_checksums(const Operation& operation) {
  const BlockRequest& local = operation.local;
  FrameHeader header;
  header.type = FrameType::checksums;
  header.volume = operation.volume;
  header.offset_bytes = local.offset_bytes;
  header.length_bytes = local.length_bytes;
  header.sequence = operation.sequence;
  header.term = term_;
  channel_->send(header,
                 block_checksums(local.buffer.bytes(0, local.length_bytes), operation.store->bitmap_block_bytes()));
}

void PeerServer::send_data(const Operation& operation) {
  const BlockRequest& local = operation.local;
  FrameHeader header;
  header.type = FrameType::read_data;
  header.volume = operation.volume;
  header.offset_bytes = local.offset_bytes;
  header.length_bytes = local.length_bytes;
  header.sequence = operation.sequence;
  header.term = term_;
  channel_->send(header, local.buffer, 0);
}

void PeerServer::acknowledge(const Operation& operation) {
  const std::size_t at = acknowledgements_.size();
  acknowledgements_.resize(at + kAcknowledgeEntryBytes);
  store_le<std::uint64_t>(&acknowledgements_[at], operation.sequence);
  OperationStatus status = OperationStatus::done;
  if (operation.local.status != BlockStatus::good) {
    const bool is_full = operation.local.status == BlockStatus::no_space;
    status = is_full ? OperationStatus::full : OperationStatus::failed;
  }
  store_le<std::uint32_t>(&acknowledgements_[at + 8], static_cast<std::uint32_t>(status));
  store_le<std::uint32_t>(&acknowledgements_[at + 12], 0);
  if (acknowledgements_.size() == std::size_t{kAcknowledgeEntryBytes} * kAcknowledgeEntriesMax) {
    send_acknowledgements();
  } else {
    world_.loop.defer_to_turn_end(acknowledge_task_);
  }
}

void PeerServer::send_acknowledgements() {
  if (acknowledgements_.empty() || channel_ == nullptr) return;
  FrameHeader header;
  header.type = FrameType::acknowledge;
  header.term = term_;
  channel_->send(header, acknowledgements_);
  acknowledgements_.clear();
}

void PeerServer::when_idle(Callback<void()> done) {
  if (!is_idle()) RB_PROBE("waits_for_operations_of_a_lost_peer");
  if (is_idle()) {
    done();
    return;
  }
  on_idle_.push_back(done);
}

}  // namespace replblk::replication
