// Byte streams (TCP): a connection, a listener, and the network that makes them. Implemented by runtime (io_uring) and
// by the simulator. Bytes arrive in order, whole prefix or not at all; a stream may end at any moment.
// Calls and callbacks happen on one thread. No callback is made from inside a call of the user's, and none after
// close(), abort() or destruction: whoever ends a stream hears nothing more of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/buffer_pool.hpp"
#include "base/bytes.hpp"
#include "base/result.hpp"
#include "base/time.hpp"

namespace replblk::ports {

/// A numeric IPv4 or IPv6 address (no names, no brackets) and a TCP port. An empty address listens on all.
struct Endpoint {
  std::string address;
  std::uint16_t port = 0;
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};
[[nodiscard]] std::string to_string(const Endpoint& endpoint);  ///< "10.0.0.1:3260", "[::1]:3260"

enum class StreamError : std::uint8_t {
  closed_by_peer,  ///< orderly end (FIN)
  reset,           ///< RST, or any other failure of an established connection
  refused,         ///< connect: nobody listens
  unreachable,     ///< connect: no route, host down, or local address absent
  timed_out,       ///< connect or TCP user timeout
};
[[nodiscard]] std::string_view to_string(StreamError error) noexcept;

/// Memory that the next bytes of the stream should be received into, so that a large payload is not copied.
struct DirectTarget {
  BufferRef buffer;  ///< keeps the memory alive while the kernel may write to it; empty: no wish
  std::size_t offset_bytes = 0;
  std::size_t length_bytes = 0;
};

class StreamSink {
 public:
  /// Only for Network::connect: sending is possible from here on.
  virtual void on_connected() {}
  /// The next bytes, in order; the sink takes all of them now (the memory is the stream's).
  virtual void on_receive(ConstBytes bytes) = 0;
  /// Asked before each receive. Bytes that then arrive fill the target from its start and are reported by
  /// on_direct(count) instead of on_receive; what arrives beyond the target comes by on_receive after it.
  [[nodiscard]] virtual DirectTarget direct_target() { return {}; }
  virtual void on_direct(std::size_t count) { static_cast<void>(count); }
  /// Queued output fell to half of kQueueHighBytes or below after having been above kQueueHighBytes.
  virtual void on_send_room() {}
  /// The connection ended from outside. The last callback.
  virtual void on_closed(StreamError error) = 0;

 protected:
  ~StreamSink() = default;
};

class Stream {
 public:
  /// A sender should stop producing above this much queued output and wait for on_send_room().
  static constexpr std::size_t kQueueHighBytes = std::size_t{8} << 20;

  /// Aborts when neither closed nor aborted.
  virtual ~Stream() = default;
  /// For accepted streams, once, before the first turn ends: who gets the bytes.
  virtual void set_sink(StreamSink& sink) noexcept = 0;
  /// Queues a copy of `bytes` (headers, small answers). Sent in order, gathered, at the end of the turn.
  virtual void send(ConstBytes bytes) = 0;
  /// Queues a reference to pool memory; it is held until the kernel has taken the bytes.
  virtual void send(BufferRef buffer, std::size_t offset_bytes, std::size_t length_bytes) = 0;
  [[nodiscard]] virtual std::size_t queued_bytes() const noexcept = 0;
  /// While paused no more bytes are delivered (back-pressure to the sender), except what one receive already in flight
  /// brings, which is kept and delivered after resume_receive().
  virtual void pause_receive() noexcept = 0;
  virtual void resume_receive() noexcept = 0;
  /// Sends what is queued (for at most 5 s), then FIN. No callback follows.
  virtual void close() noexcept = 0;
  /// Drops what is queued and sends RST. No callback follows.
  virtual void abort() noexcept = 0;
  /// As abort(); but if nothing is queued it sends a few bytes now, which may be lost, and the RST only after `wait`,
  /// also when the local address has left the node meanwhile.
  virtual void abort_after(ConstBytes last_words, Duration wait) noexcept = 0;
  [[nodiscard]] virtual const Endpoint& local() const noexcept = 0;
  [[nodiscard]] virtual const Endpoint& remote() const noexcept = 0;
};

class AcceptSink {
 public:
  /// The new connection is the sink's; destroying it refuses the client.
  virtual void on_accept(std::unique_ptr<Stream> stream) = 0;

 protected:
  ~AcceptSink() = default;
};

/// Destroying it stops listening.
class Listener {
 public:
  virtual ~Listener() = default;
  [[nodiscard]] virtual const Endpoint& local() const noexcept = 0;
};

enum class ListenError : std::uint8_t { address_in_use, address_not_here, access_denied, bad_address, other };
[[nodiscard]] std::string_view to_string(ListenError error) noexcept;

class Network {
 public:
  virtual ~Network() = default;
  [[nodiscard]] virtual Result<std::unique_ptr<Listener>, ListenError> listen(const Endpoint& local,
                                                                              AcceptSink& sink) = 0;
  /// Starts to connect, from `local_address` if it is not empty. on_connected() or on_closed() follows within `5 s`.
  [[nodiscard]] virtual std::unique_ptr<Stream> connect(const Endpoint& remote, std::string_view local_address,
                                                        StreamSink& sink) = 0;
  /// Connections from `local_address` that wait for the RST of their abort_after() wait no longer.
  virtual void reset_parting(std::string_view local_address) noexcept = 0;
};

}  // namespace replblk::ports
