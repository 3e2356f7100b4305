// One TCP socket and everything the kernel may still be doing with it. Lives in its TcpNetwork until the last
// operation has completed, which may be after the user's ports::Stream is gone: teardown is cancel, wait, free.
// Not responsible for accepting, or for what the bytes mean.
//
//   connecting ──→ open ──close()──→ draining ──queue sent, FIN──→ finishing ──peer's FIN or 5 s──→ dead → freed
//        │           ├─abort_after()──→ parting ──its time is over────────────────────────────────→ │
//        └───────────┴─ abort(), on_closed ────────┴────────────────────────────────────────────────↗
//
// Invariant: the sink is called only in `connecting` and `open`, from completions or deferred tasks, never after
// close(), abort() or on_closed.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <vector>

#include "ports/stream.hpp"
#include "runtime/reactor.hpp"
#include "runtime/send_queue.hpp"
#include "runtime/socket.hpp"

namespace replblk::runtime {

class TcpNetwork;

class TcpConnection final : public IntrusiveNode<TcpConnection> {
 public:
  /// An accepted socket.
  TcpConnection(TcpNetwork& network, int fd, ports::Endpoint remote);
  /// A socket to be connected: `fd` may be a negated errno, which is then reported as the connection's end.
  TcpConnection(TcpNetwork& network, int fd, const SocketAddress& remote, ports::Endpoint remote_endpoint,
                ports::StreamSink& sink);
  ~TcpConnection();

  // The user's side, by way of TcpStream.
  void set_sink(ports::StreamSink& sink) noexcept;
  void send(ConstBytes bytes);
  void send(BufferRef buffer, std::size_t offset_bytes, std::size_t length_bytes);
  [[nodiscard]] std::size_t queued_bytes() const noexcept { return output_.queued_bytes(); }
  void pause_receive() noexcept { is_paused_ = true; }
  void resume_receive() noexcept;
  void close() noexcept;
  void abort() noexcept;
  void abort_after(ConstBytes last_words, Duration wait) noexcept;
  /// The user's Stream is destroyed: aborts unless closed.
  void detach() noexcept;
  /// The network ends: what is queued after close() is dropped.
  void drop() noexcept {
    if (state_ != State::dead) die();
  }
  [[nodiscard]] bool has_stream() const noexcept { return has_stream_; }
  [[nodiscard]] bool is_parting() const noexcept { return state_ == State::parting; }
  /// What abort_after() waits for is here.
  void end_parting() noexcept;
  [[nodiscard]] const ports::Endpoint& local() const noexcept { return local_; }
  [[nodiscard]] const ports::Endpoint& remote() const noexcept { return remote_; }

 private:
  enum class State : std::uint8_t { connecting, open, draining, finishing, parting, dead };

  /// Held while callbacks run: frees the connection at its end if it died meanwhile.
  class Busy {
   public:
    explicit Busy(TcpConnection& connection) noexcept : connection_(connection) { ++connection_.busy_count_; }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;
    ~Busy() {
      --connection_.busy_count_;
      connection_.free_if_done();
    }

   private:
    TcpConnection& connection_;
  };

  void start_connect(const SocketAddress& remote) noexcept;
  void on_connected(std::int32_t result);
  void on_timer();
  void on_resumed();

  void flush();
  void start_send();
  void on_sent(std::int32_t result);

  void start_receive();
  void aim_receive(ports::DirectTarget target);
  void on_received(std::int32_t result);
  void note_received(std::size_t count);
  void deliver();

  void end(ports::StreamError error);
  void die() noexcept;
  void free_if_done() noexcept;
  [[nodiscard]] bool has_undelivered() const noexcept { return direct_received_ > 0 || received_ > 0; }
  [[nodiscard]] bool is_kernel_done() const noexcept {
    return !receive_op_.is_in_flight && !send_op_.is_in_flight && !connect_op_.is_in_flight;
  }

  TcpNetwork& network_;
  Reactor& reactor_;
  int fd_;
  State state_;
  bool has_stream_ = true;
  bool is_paused_ = false;
  bool was_queue_high_ = false;
  int busy_count_ = 0;
  int connect_error_ = 0;
  ports::StreamSink* sink_ = nullptr;
  ports::Endpoint local_;
  ports::Endpoint remote_;

  Op connect_op_;
  Op send_op_;
  Op receive_op_;
  ports::DeferredTask flush_task_;
  ports::DeferredTask resume_task_;
  ports::Timer timer_;  ///< of connect(), close() or abort_after()

  SendQueue output_;
  std::vector<iovec> send_pieces_;
  msghdr send_message_{};
  SocketAddress connect_address_;

  std::unique_ptr<std::byte[]> input_;
  std::size_t input_capacity_ = 0;
  std::size_t received_ = 0;         ///< in input_, not delivered
  std::size_t direct_received_ = 0;  ///< in the direct target, not reported
  std::size_t direct_length_ = 0;    ///< of the receive in flight
  BufferRef direct_buffer_;
  iovec receive_pieces_[2]{};
  msghdr receive_message_{};
};

}  // namespace replblk::runtime
