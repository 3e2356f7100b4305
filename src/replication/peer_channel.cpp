#include "replication/peer_channel.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "base/crc32c.hpp"

namespace replblk::replication {

namespace {

// Below this a payload is copied from the stream's buffer: cheaper than a receive of its own.
constexpr std::size_t kDirectBytesMin = 16384;

}  // namespace

std::string_view to_string(ChannelEnd end) noexcept {
  switch (end) {
    case ChannelEnd::connection_failed:
      return "Connecting";
    case ChannelEnd::network_failure:
      return "NetworkFailure";
    case ChannelEnd::timeout:
      return "Timeout";
    case ChannelEnd::protocol_error:
      return "ProtocolError";
    case ChannelEnd::handshake_failed:
      return "ProtocolError";
  }
  RB_UNREACHABLE();
}

PeerChannel::PeerChannel(ports::World world, ChannelTimes times, PeerChannelObserver& observer)
    : world_(world), times_(times), observer_(&observer), tick_(Callback<void()>::to<&PeerChannel::on_tick>(*this)) {
  buffer_waiter_.on_buffer = Callback<void(BufferRef)>::to<&PeerChannel::on_buffer>(*this);
  resume_task_.run = Callback<void()>::to<&PeerChannel::resume>(*this);
}

PeerChannel::~PeerChannel() { end(); }

void PeerChannel::dial(const ports::Endpoint& remote, std::string_view local_address, HandshakeIdentity identity) {
  handshake_.emplace(HandshakeSide::dialer, std::move(identity));
  begin();
  stream_ = world_.network.connect(remote, local_address, *this);
}

void PeerChannel::accept(std::unique_ptr<ports::Stream> stream) {
  begin();
  stream_ = std::move(stream);
  is_connected_ = true;
  stream_->set_sink(*this);
}

void PeerChannel::answer_hello(HandshakeIdentity identity, const Hello& hello) {
  RB_ASSERT(!handshake_.has_value());
  handshake_.emplace(HandshakeSide::acceptor, std::move(identity));
  std::vector<Message> out;
  const Handshake::State state = handshake_->receive(hello, out);
  for (const Message& message : out) send(message);
  if (state == Handshake::State::failed) fail(ChannelEnd::handshake_failed, handshake_->failure());
}

void PeerChannel::begin() {
  last_received_ = world_.loop.now();
  handshake_deadline_ = last_received_ + times_.handshake_timeout;
  world_.loop.arm(tick_, last_received_ + times_.ping_interval);
}

void PeerChannel::on_connected() {
  is_connected_ = true;
  last_received_ = world_.loop.now();
  send(handshake_->start());
}

void PeerChannel::send(const Message& message) {
  FrameHeader header;
  header.type = FrameType::control;
  const std::string bytes = encode(message);
  send(header, as_bytes(bytes));
}

void PeerChannel::send(const FrameHeader& header) {
  if (is_ended_) return;
  const FrameHeaderBytes bytes = encode_frame_header(header);
  stream_->send(bytes);
  sent_bytes_ += bytes.size();
}

void PeerChannel::send(FrameHeader header, ConstBytes payload) {
  if (is_ended_) return;
  header.payload_length_bytes = static_cast<std::uint32_t>(payload.size());
  header.payload_crc = crc32c(payload);
  send(header);
  stream_->send(payload);
  sent_bytes_ += payload.size();
}

void PeerChannel::send(FrameHeader header, const BufferRef& buffer, std::size_t offset_bytes) {
  if (is_ended_) return;
  header.payload_length_bytes = static_cast<std::uint32_t>(header.length_bytes);
  header.payload_crc = crc32c(buffer.bytes(offset_bytes, header.length_bytes));
  send(header);
  stream_->send(buffer.share(), offset_bytes, header.length_bytes);
  sent_bytes_ += header.length_bytes;
}

void PeerChannel::end() noexcept {
  if (is_ended_) return;
  is_ended_ = true;
  world_.loop.cancel(tick_);
  world_.buffers.cancel(buffer_waiter_);
  resume_task_.unlink();
  data_.reset();
  if (stream_ != nullptr && !is_closing_) stream_->abort();
}

void PeerChannel::end(const Refusal& refusal) {
  if (is_ended_) return;
  send(refusal);
  close_stream();
  end();
}

/// What is queued is sent: it may be the Refusal that tells the peer why.
void PeerChannel::close_stream() noexcept {
  is_closing_ = true;
  stream_->close();
}

void PeerChannel::fail(ChannelEnd how, const std::string& reason) {
  if (is_ended_) return;
  if (how == ChannelEnd::handshake_failed && stream_ != nullptr) close_stream();
  end();
  observer_->on_channel_ended(how, reason);
}

std::string PeerChannel::remote_text() const {
  return stream_ == nullptr ? std::string() : to_string(stream_->remote());
}

std::string PeerChannel::remote_host() const { return stream_ == nullptr ? std::string() : stream_->remote().address; }

void PeerChannel::on_closed(ports::StreamError error) {
  // A reset before the connection was there still comes from somebody who answers.
  const bool is_nobody_there = !is_connected_ && error != ports::StreamError::reset;
  if (is_nobody_there) {
    fail(ChannelEnd::connection_failed, std::string(to_string(error)));
  } else if (is_proven_) {
    fail(ChannelEnd::network_failure, std::string(to_string(error)));
  } else {
    fail(ChannelEnd::network_failure,
         fmt::format("the peer ended the connection in the handshake without a reason ({})", to_string(error)));
  }
}

void PeerChannel::on_tick() {
  const Instant now = world_.loop.now();
  if (!is_proven_ && now >= handshake_deadline_) {
    fail(ChannelEnd::timeout, "the peer did not finish the handshake in time");
    return;
  }
  const Duration silence = now - last_received_;
  if (is_proven_ && silence >= times_.ping_interval + times_.ping_timeout) {
    fail(ChannelEnd::timeout, fmt::format("nothing came from the peer for {} ms", to_ms(silence)));
    return;
  }
  if (is_proven_ && silence >= times_.ping_interval) {
    FrameHeader ping;
    ping.type = FrameType::ping;
    send(ping);
  }
  world_.loop.arm(tick_, now + times_.ping_interval / 2);
}

// ---- receiving -------------------------------------------------------------------------------------------------

void PeerChannel::on_receive(ConstBytes bytes) {
  last_received_ = world_.loop.now();
  received_bytes_ += bytes.size();
  if (part_ == Part::wants_buffer) {
    backlog_.insert(backlog_.end(), bytes.begin(), bytes.end());
    return;
  }
  consume(bytes);
}

ports::DirectTarget PeerChannel::direct_target() {
  if (is_ended_ || part_ != Part::payload || !data_) return {};
  const std::size_t missing = header_.payload_length_bytes - filled_bytes_;
  if (missing < kDirectBytesMin) return {};
  return {data_.share(), filled_bytes_, missing};
}

void PeerChannel::on_direct(std::size_t count) {
  last_received_ = world_.loop.now();
  received_bytes_ += count;
  filled_bytes_ += count;
  RB_ASSERT(filled_bytes_ <= header_.payload_length_bytes);
  if (filled_bytes_ == header_.payload_length_bytes) payload_complete();
}

void PeerChannel::consume(ConstBytes bytes) {
  while (!bytes.empty() && !is_ended_) {
    if (part_ == Part::header) {
      const std::size_t count = std::min(bytes.size(), kFrameHeaderBytes - filled_bytes_);
      std::memcpy(header_bytes_.data() + filled_bytes_, bytes.data(), count);
      filled_bytes_ += count;
      bytes = bytes.subspan(count);
      if (filled_bytes_ == kFrameHeaderBytes) header_complete();
      if (part_ == Part::wants_buffer) {
        backlog_.assign(bytes.begin(), bytes.end());
        return;
      }
      continue;
    }
    const std::size_t count = std::min(bytes.size(), header_.payload_length_bytes - filled_bytes_);
    std::byte* to = data_ ? data_.data() : small_.data();
    std::memcpy(to + filled_bytes_, bytes.data(), count);
    filled_bytes_ += count;
    bytes = bytes.subspan(count);
    if (filled_bytes_ == header_.payload_length_bytes) payload_complete();
  }
}

void PeerChannel::header_complete() {
  const auto header = decode_frame_header(header_bytes_);
  filled_bytes_ = 0;
  if (!header) {
    fail(ChannelEnd::protocol_error, std::string(to_string(header.error())));
    return;
  }
  header_ = *header;
  if (!is_proven_) {
    if (header_.type != FrameType::control || header_.payload_length_bytes > kControlBytesMaxBeforeProof) {
      fail(ChannelEnd::protocol_error, "something else than a short control message before the proof of the secret");
      return;
    }
  }
  if (header_.payload_length_bytes == 0) {
    payload_complete();
    return;
  }
  if (!carries_block_data(header_.type)) {
    small_.resize(header_.payload_length_bytes);
    part_ = Part::payload;
    return;
  }
  buffer_waiter_.length_bytes = header_.payload_length_bytes;
  data_ = world_.buffers.acquire_or_wait(buffer_waiter_);
  if (data_) {
    part_ = Part::payload;
    return;
  }
  part_ = Part::wants_buffer;
  stream_->pause_receive();
}

void PeerChannel::on_buffer(BufferRef buffer) {
  // Not here: the buffer comes from inside somebody's release of it.
  data_ = std::move(buffer);
  world_.loop.defer(resume_task_);
}

void PeerChannel::resume() {
  part_ = Part::payload;
  const std::vector<std::byte> backlog = std::move(backlog_);
  backlog_.clear();
  consume(backlog);
  if (!is_ended_ && part_ != Part::wants_buffer) stream_->resume_receive();
}

void PeerChannel::payload_complete() {
  part_ = Part::header;
  filled_bytes_ = 0;
  const FrameHeader header = header_;
  BufferRef data = std::move(data_);
  const ConstBytes payload = data ? ConstBytes(data.bytes(0, header.payload_length_bytes))
                                  : ConstBytes(small_.data(), header.payload_length_bytes);
  if (header.payload_length_bytes > 0 && crc32c(payload) != header.payload_crc) {
    fail(ChannelEnd::protocol_error, "payload checksum mismatch");
    return;
  }
  switch (header.type) {
    case FrameType::control:
      dispatch_control(payload);
      return;
    case FrameType::acknowledge:
      dispatch_acknowledge(payload);
      return;
    case FrameType::bitmap:
      observer_->on_bitmap_page(header, payload);
      return;
    case FrameType::checksums:
      observer_->on_checksums(header, payload);
      return;
    case FrameType::heartbeat:
      observer_->on_heartbeat_frame(payload);
      return;
    case FrameType::ping: {
      FrameHeader pong;
      pong.type = FrameType::pong;
      send(pong);
      return;
    }
    case FrameType::pong:
      return;
    case FrameType::write:
    case FrameType::discard:
    case FrameType::write_zeroes:
    case FrameType::flush:
    case FrameType::resync_data:
    case FrameType::resync_zeroes:
    case FrameType::checksum_request:
    case FrameType::read_request:
    case FrameType::read_data:
      observer_->on_operation(header, std::move(data));
      return;
  }
  RB_UNREACHABLE();
}

void PeerChannel::dispatch_control(ConstBytes payload) {
  const std::optional<Message> message = decode(payload);
  if (!message.has_value()) {
    fail(ChannelEnd::protocol_error, "a control message that cannot be understood");
    return;
  }
  if (is_proven_ || !handshake_.has_value()) {
    if (!is_proven_ && !std::holds_alternative<Hello>(*message)) {
      fail(ChannelEnd::protocol_error, "the peer sent something else than a Hello first");
      return;
    }
    observer_->on_message(*message);
    return;
  }
  std::vector<Message> out;
  const Handshake::State state = handshake_->receive(*message, out);
  for (const Message& answer : out) send(answer);
  if (state == Handshake::State::failed) {
    fail(ChannelEnd::handshake_failed, handshake_->failure());
  } else if (state == Handshake::State::proven) {
    is_proven_ = true;
    observer_->on_proven();
  }
}

void PeerChannel::dispatch_acknowledge(ConstBytes payload) {
  // The payload's memory is reused by the next frame, which cannot arrive inside this loop.
  for (std::size_t at = 0; at < payload.size() && !is_ended_; at += kAcknowledgeEntryBytes) {
    const auto sequence = load_le<std::uint64_t>(&payload[at]);
    const auto status = load_le<std::uint32_t>(&payload[at + 8]);
    if (status > static_cast<std::uint32_t>(OperationStatus::full)) {
      fail(ChannelEnd::protocol_error, "an acknowledgement whose status is not known");
      return;
    }
    observer_->on_acknowledge(sequence, static_cast<OperationStatus>(status));
  }
}

}  // namespace replblk::replication
