#include "runtime/tcp_connection.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "runtime/error_map.hpp"
#include "runtime/tcp_network.hpp"

namespace replblk::runtime {

using ports::StreamError;

namespace {

constexpr Duration kConnectTimeout = seconds(5);  // ports::Network::connect
constexpr Duration kCloseTimeout = seconds(5);    // ports::Stream::close

// A connection begins with a small receive buffer and grows it when a receive fills it: many idle sessions stay
// cheap. 256 KiB is where larger receives stopped paying.
constexpr std::size_t kInputBytesMin = std::size_t{16} << 10;
constexpr std::size_t kInputBytesMax = std::size_t{256} << 10;
// One receive per turn and connection, and its direct part no longer than this: others get their share of the turn.
constexpr std::size_t kDirectBytesMax = kInputBytesMax;

}  // namespace

TcpConnection::TcpConnection(TcpNetwork& network, int fd, ports::Endpoint remote)
    : network_(network),
      reactor_(network.reactor()),
      fd_(fd),
      state_(State::open),
      local_(fd >= 0 ? local_endpoint(fd) : ports::Endpoint{}),
      remote_(std::move(remote)),
      connect_op_(Callback<void(std::int32_t)>::to<&TcpConnection::on_connected>(*this), &network),
      send_op_(Callback<void(std::int32_t)>::to<&TcpConnection::on_sent>(*this), &network),
      receive_op_(Callback<void(std::int32_t)>::to<&TcpConnection::on_received>(*this), &network),
      flush_task_(Callback<void()>::to<&TcpConnection::flush>(*this)),
      resume_task_(Callback<void()>::to<&TcpConnection::on_resumed>(*this)),
      timer_(Callback<void()>::to<&TcpConnection::on_timer>(*this)),
      output_(network.chunks()) {}

TcpConnection::TcpConnection(TcpNetwork& network, int fd, const SocketAddress& remote, ports::Endpoint remote_endpoint,
                             ports::StreamSink& sink)
    : TcpConnection(network, fd, std::move(remote_endpoint)) {
  sink_ = &sink;
  state_ = State::connecting;
  if (fd < 0) {
    connect_error_ = -fd;
    reactor_.defer(resume_task_);
  } else {
    start_connect(remote);
  }
}

TcpConnection::~TcpConnection() {
  RB_ASSERT(state_ == State::dead && is_kernel_done());
  if (fd_ >= 0) ::close(fd_);
}

// Connecting.

void TcpConnection::start_connect(const SocketAddress& remote) noexcept {
  connect_address_ = remote;
  io_uring_prep_connect(&reactor_.prepare(connect_op_), fd_, connect_address_.get(), connect_address_.length);
  reactor_.arm(timer_, reactor_.now() + kConnectTimeout);
}

void TcpConnection::on_connected(std::int32_t result) {
  const Busy busy(*this);
  if (state_ != State::connecting) return;
  reactor_.cancel(timer_);
  if (result < 0) return end(connect_error_from(-result));
  local_ = local_endpoint(fd_);
  // Simultaneous open with oneself: the kernel chose the very port that nobody listens on.
  if (local_ == remote_) return end(StreamError::refused);
  state_ = State::open;
  reactor_.defer_to_flush(flush_task_);
  sink_->on_connected();
}

void TcpConnection::on_timer() {
  const Busy busy(*this);
  if (state_ == State::connecting) return end(StreamError::timed_out);
  // close(): the peer took too long to read the rest or to end its side. abort_after(): it is time.
  if (state_ == State::draining || state_ == State::parting) reset(fd_);
  die();
}

// Sending.

void TcpConnection::send(ConstBytes bytes) {
  if (state_ != State::open && state_ != State::connecting) return;
  output_.push_copy(bytes);
  if (output_.queued_bytes() > ports::Stream::kQueueHighBytes) was_queue_high_ = true;
  reactor_.defer_to_flush(flush_task_);
}

void TcpConnection::send(BufferRef buffer, std::size_t offset_bytes, std::size_t length_bytes) {
  if (state_ != State::open && state_ != State::connecting) return;
  output_.push(std::move(buffer), offset_bytes, length_bytes);
  if (output_.queued_bytes() > ports::Stream::kQueueHighBytes) was_queue_high_ = true;
  reactor_.defer_to_flush(flush_task_);
}

void TcpConnection::flush() {
  const Busy busy(*this);
  start_send();
  start_receive();
}

void TcpConnection::start_send() {
  if (state_ == State::connecting || state_ == State::parting || state_ == State::dead || send_op_.is_in_flight) return;
  if (output_.empty()) {
    if (state_ == State::draining) {
      static_cast<void>(::shutdown(fd_, SHUT_WR));
      state_ = State::finishing;
    }
    return;
  }
  output_.gather(send_pieces_);
  send_message_.msg_iov = send_pieces_.data();
  send_message_.msg_iovlen = send_pieces_.size();
  io_uring_prep_sendmsg(&reactor_.prepare(send_op_), fd_, &send_message_, MSG_WAITALL | MSG_NOSIGNAL);
}

void TcpConnection::on_sent(std::int32_t result) {
  const Busy busy(*this);
  if (state_ == State::dead) return;
  if (result < 0) {
    if (is_transient(-result)) return reactor_.defer_to_flush(flush_task_);
    if (state_ == State::open) return end(stream_error_from(-result));
    return die();
  }
  // Buffers that come back may call somebody who ends this connection.
  output_.consume(static_cast<std::size_t>(result));
  if (state_ == State::dead) return;
  if (!output_.empty() || state_ == State::draining) reactor_.defer_to_flush(flush_task_);
  if (was_queue_high_ && output_.queued_bytes() <= ports::Stream::kQueueHighBytes / 2) {
    was_queue_high_ = false;
    if (sink_ != nullptr) sink_->on_send_room();
  }
}

// Receiving.

void TcpConnection::set_sink(ports::StreamSink& sink) noexcept {
  RB_ASSERT(sink_ == nullptr);
  if (state_ != State::open) return;
  sink_ = &sink;
  reactor_.defer_to_flush(flush_task_);
}

void TcpConnection::resume_receive() noexcept {
  is_paused_ = false;
  if (state_ == State::open) reactor_.defer(resume_task_);
}

void TcpConnection::on_resumed() {
  const Busy busy(*this);
  if (connect_error_ != 0) return end(connect_error_from(std::exchange(connect_error_, 0)));
  if (state_ != State::open || is_paused_) return;
  deliver();
  if (state_ == State::open) reactor_.defer_to_flush(flush_task_);
}

void TcpConnection::start_receive() {
  if (receive_op_.is_in_flight || state_ == State::connecting || state_ == State::parting || state_ == State::dead)
    return;
  ports::DirectTarget target;
  if (state_ == State::open) {
    if (sink_ == nullptr || is_paused_ || has_undelivered()) return;
    target = sink_->direct_target();
    if (state_ != State::open || is_paused_) return;
  }
  if (input_ == nullptr) {
    input_capacity_ = kInputBytesMin;
    input_ = std::make_unique_for_overwrite<std::byte[]>(input_capacity_);
  }
  aim_receive(std::move(target));
}

void TcpConnection::aim_receive(ports::DirectTarget target) {
  direct_length_ = target.buffer ? std::min(target.length_bytes, kDirectBytesMax) : 0;
  if (direct_length_ == 0) {
    io_uring_prep_recv(&reactor_.prepare(receive_op_), fd_, input_.get(), input_capacity_, 0);
    return;
  }
  const MutableBytes memory = target.buffer.bytes(target.offset_bytes, direct_length_);
  direct_buffer_ = std::move(target.buffer);
  receive_pieces_[0] = {memory.data(), memory.size()};
  receive_pieces_[1] = {input_.get(), input_capacity_};
  receive_message_.msg_iov = receive_pieces_;
  // What follows the target must not be received before the whole of it.
  receive_message_.msg_iovlen = direct_length_ == target.length_bytes ? 2 : 1;
  io_uring_prep_recvmsg(&reactor_.prepare(receive_op_), fd_, &receive_message_, 0);
}

void TcpConnection::on_received(std::int32_t result) {
  const Busy busy(*this);
  if (state_ == State::dead) return;
  if (result < 0 && is_transient(-result)) return reactor_.defer_to_flush(flush_task_);
  if (state_ == State::parting) return;  // Nobody reads what comes now.
  if (state_ == State::draining || state_ == State::finishing) {
    // After close() what arrives is dropped; the peer's FIN is awaited so that no RST overtakes our last bytes.
    if (result > 0) return reactor_.defer_to_flush(flush_task_);
    if (state_ == State::finishing || result < 0) die();
    return;
  }
  if (result < 0) return end(stream_error_from(-result));
  // A send may have consumed the connection's ECONNRESET already.
  if (result == 0) return end(is_torn_down(fd_) ? StreamError::reset : StreamError::closed_by_peer);
  note_received(static_cast<std::size_t>(result));
  if (!is_paused_) deliver();
  if (state_ == State::open) reactor_.defer_to_flush(flush_task_);
}

void TcpConnection::note_received(std::size_t count) {
  direct_received_ = std::min(count, direct_length_);
  received_ = count - direct_received_;
}

void TcpConnection::deliver() {
  // Given back at the end: somebody who waits for memory may then end this connection.
  const BufferRef target = std::move(direct_buffer_);
  if (direct_received_ > 0) {
    sink_->on_direct(std::exchange(direct_received_, 0));
    if (state_ != State::open || is_paused_) return;
  }
  if (received_ == 0) return;
  const std::size_t count = std::exchange(received_, 0);
  sink_->on_receive({input_.get(), count});
  // It was full and is empty now: the next receive gets more room.
  if (count == input_capacity_ && input_capacity_ < kInputBytesMax) {
    input_capacity_ = kInputBytesMax;
    input_ = std::make_unique_for_overwrite<std::byte[]>(input_capacity_);
  }
}

// Ending.

void TcpConnection::close() noexcept {
  if (state_ == State::connecting) return die();
  if (state_ != State::open) return;
  sink_ = nullptr;
  state_ = State::draining;
  reactor_.arm(timer_, reactor_.now() + kCloseTimeout);
  reactor_.defer_to_flush(flush_task_);
}

void TcpConnection::abort() noexcept {
  if (state_ == State::dead) return;
  if (fd_ >= 0) reset(fd_);
  die();
}

void TcpConnection::abort_after(ConstBytes last_words, Duration wait) noexcept {
  // What it says must not come into the midst of something else; whether it arrives is left to the network.
  if (state_ != State::open || !output_.empty() || send_op_.is_in_flight) return abort();
  if (wait > Duration(0)) allow_absent_source(fd_);
  static_cast<void>(::send(fd_, last_words.data(), last_words.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
  if (wait <= Duration(0)) return abort();
  set_reset_on_close(fd_);  // This process may be killed before.
  sink_ = nullptr;
  state_ = State::parting;
  reactor_.arm(timer_, reactor_.now() + wait);
}

void TcpConnection::end_parting() noexcept {
  if (state_ != State::parting) return;
  reactor_.cancel(timer_);
  on_timer();
}

void TcpConnection::detach() noexcept {
  has_stream_ = false;
  if (state_ == State::open || state_ == State::connecting) {
    abort();
  } else {
    free_if_done();
  }
}

void TcpConnection::end(StreamError error) {
  ports::StreamSink* sink = sink_;
  die();
  if (sink != nullptr) sink->on_closed(error);
}

void TcpConnection::die() noexcept {
  state_ = State::dead;
  sink_ = nullptr;
  reactor_.cancel(timer_);
  flush_task_.unlink();
  resume_task_.unlink();
  reactor_.cancel(connect_op_);
  reactor_.cancel(send_op_);
  reactor_.cancel(receive_op_);
  free_if_done();
}

void TcpConnection::free_if_done() noexcept {
  if (state_ != State::dead || busy_count_ > 0 || !is_kernel_done()) return;
  // The kernel is done: the socket ends and buffers go back now, even while the user still holds his Stream. He may
  // let go of it while they do.
  ++busy_count_;
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  output_.clear();
  direct_buffer_.reset();
  --busy_count_;
  if (!has_stream_) network_.free(*this);
}

}  // namespace replblk::runtime
