// One connection to the peer: frames in and out, the handshake, pings. Knows the form of everything and the meaning of
// nothing: whole, checked frames go to the observer. Owned by Resource (or by Node until the first Hello names one).
// Invariant: on_channel_ended comes exactly once, unless the owner ended the channel itself; nothing comes after it.
// The observer must not destroy the channel inside a callback (it moves it aside and destroys it later in the turn).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ports/world.hpp"
#include "replication/frame.hpp"
#include "replication/handshake.hpp"
#include "replication/messages.hpp"

namespace replblk::replication {

enum class ChannelEnd : std::uint8_t {
  connection_failed,  ///< could not connect
  network_failure,    ///< an established connection broke
  timeout,            ///< nothing came for too long
  protocol_error,     ///< the peer broke the protocol
  handshake_failed,   ///< names, versions or the secret do not fit
};
[[nodiscard]] std::string_view to_string(ChannelEnd end) noexcept;

class PeerChannelObserver {
 public:
  /// The connection is up; for the dialer before the handshake.
  virtual void on_proven() = 0;
  virtual void on_message(const Message& message) = 0;
  /// write, resync_data (with data), discard, write_zeroes, resync_zeroes, flush, checksum_request. The frame's own
  /// checksums are right.
  virtual void on_operation(const FrameHeader& header, BufferRef data) = 0;
  virtual void on_acknowledge(std::uint64_t sequence, OperationStatus status) = 0;
  virtual void on_bitmap_page(const FrameHeader& header, ConstBytes page) = 0;
  /// `entries` only during the call.
  virtual void on_checksums(const FrameHeader& header, ConstBytes entries) = 0;
  /// docs/heartbeat.md; `bytes` only during the call.
  virtual void on_heartbeat_frame(ConstBytes bytes) = 0;
  virtual void on_channel_ended(ChannelEnd end, const std::string& reason) = 0;

 protected:
  ~PeerChannelObserver() = default;
};

struct ChannelTimes {
  Duration ping_interval = seconds(1);
  Duration ping_timeout = seconds(2);
  Duration handshake_timeout = seconds(5);
};

class PeerChannel final : private ports::StreamSink {
 public:
  PeerChannel(ports::World world, ChannelTimes times, PeerChannelObserver& observer);
  PeerChannel(const PeerChannel&) = delete;
  PeerChannel& operator=(const PeerChannel&) = delete;
  ~PeerChannel();

  /// Dialer: connects and speaks first.
  void dial(const ports::Endpoint& remote, std::string_view local_address, HandshakeIdentity identity);
  /// Acceptor, step 1: reads; the first Hello goes to the observer's on_message.
  void accept(std::unique_ptr<ports::Stream> stream);
  /// Acceptor, step 2: the Hello belongs to `identity.resource`.
  void answer_hello(HandshakeIdentity identity, const Hello& hello);
  void set_observer(PeerChannelObserver& observer) noexcept { observer_ = &observer; }

  void send(const Message& message);
  void send(const FrameHeader& header);
  /// A small payload, copied; fills in length and checksum.
  void send(FrameHeader header, ConstBytes payload);
  /// Block data; holds the buffer until the kernel has taken it.
  void send(FrameHeader header, const BufferRef& buffer, std::size_t offset_bytes);

  /// Ends the channel without telling the observer. With `refusal`, says why first.
  void end() noexcept;
  void end(const Refusal& refusal);
  /// Ends the channel because of what the peer did, and tells the observer.
  void fail(ChannelEnd end, const std::string& reason);

  [[nodiscard]] bool is_proven() const noexcept { return is_proven_; }
  [[nodiscard]] bool is_ended() const noexcept { return is_ended_; }
  [[nodiscard]] std::uint64_t peer_incarnation() const noexcept { return handshake_->peer_incarnation(); }
  /// Once proven.
  [[nodiscard]] std::uint32_t protocol_version() const noexcept { return handshake_->protocol_version(); }
  [[nodiscard]] std::string remote_text() const;
  /// Its address without the port.
  [[nodiscard]] std::string remote_host() const;
  [[nodiscard]] std::size_t queued_bytes() const noexcept { return stream_ == nullptr ? 0 : stream_->queued_bytes(); }
  [[nodiscard]] std::uint64_t sent_bytes() const noexcept { return sent_bytes_; }
  [[nodiscard]] std::uint64_t received_bytes() const noexcept { return received_bytes_; }

 private:
  void on_connected() override;
  void on_receive(ConstBytes bytes) override;
  [[nodiscard]] ports::DirectTarget direct_target() override;
  void on_direct(std::size_t count) override;
  void on_closed(ports::StreamError error) override;

  void consume(ConstBytes bytes);
  void header_complete();
  void payload_complete();
  void dispatch_control(ConstBytes payload);
  void dispatch_acknowledge(ConstBytes payload);
  void on_buffer(BufferRef buffer);
  void resume();
  void on_tick();
  void begin();
  void close_stream() noexcept;

  enum class Part : std::uint8_t { header, payload, wants_buffer };

  ports::World world_;
  ChannelTimes times_;
  PeerChannelObserver* observer_;
  std::unique_ptr<ports::Stream> stream_;
  std::optional<Handshake> handshake_;
  bool is_connected_ = false;
  bool is_proven_ = false;
  bool is_ended_ = false;
  bool is_closing_ = false;  ///< the stream sends what is queued and ends by itself

  Part part_ = Part::header;
  FrameHeaderBytes header_bytes_{};
  std::size_t filled_bytes_ = 0;
  FrameHeader header_;
  BufferRef data_;                  ///< payload of block data
  std::vector<std::byte> small_;    ///< payload of everything else
  std::vector<std::byte> backlog_;  ///< received while waiting for a buffer
  BufferWaiter buffer_waiter_;
  ports::DeferredTask resume_task_;

  ports::Timer tick_;
  Instant last_received_{};
  Instant handshake_deadline_{};
  std::uint64_t sent_bytes_ = 0;
  std::uint64_t received_bytes_ = 0;
};

}  // namespace replblk::replication
