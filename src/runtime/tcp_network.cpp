#include "runtime/tcp_network.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "base/log.hpp"
#include "runtime/error_map.hpp"

namespace replblk::runtime {

namespace {

// Long enough not to spin, short enough that a client's connect() does not time out.
constexpr Duration kAcceptRetry = milliseconds(100);

/// The user's handle; the connection outlives it as long as the kernel needs.
class TcpStream final : public ports::Stream {
 public:
  explicit TcpStream(TcpConnection& connection) : connection_(connection) {}
  ~TcpStream() override { connection_.detach(); }
  void set_sink(ports::StreamSink& sink) noexcept override { connection_.set_sink(sink); }
  void send(ConstBytes bytes) override { connection_.send(bytes); }
  void send(BufferRef buffer, std::size_t offset_bytes, std::size_t length_bytes) override {
    connection_.send(std::move(buffer), offset_bytes, length_bytes);
  }
  [[nodiscard]] std::size_t queued_bytes() const noexcept override { return connection_.queued_bytes(); }
  void pause_receive() noexcept override { connection_.pause_receive(); }
  void resume_receive() noexcept override { connection_.resume_receive(); }
  void close() noexcept override { connection_.close(); }
  void abort() noexcept override { connection_.abort(); }
  void abort_after(ConstBytes last_words, Duration wait) noexcept override {
    connection_.abort_after(last_words, wait);
  }
  [[nodiscard]] const ports::Endpoint& local() const noexcept override { return connection_.local(); }
  [[nodiscard]] const ports::Endpoint& remote() const noexcept override { return connection_.remote(); }

 private:
  TcpConnection& connection_;
};

class TcpListener final : public ports::Listener {
 public:
  explicit TcpListener(TcpAcceptor& acceptor) : acceptor_(acceptor) {}
  ~TcpListener() override { acceptor_.stop(); }
  [[nodiscard]] const ports::Endpoint& local() const noexcept override { return acceptor_.local(); }

 private:
  TcpAcceptor& acceptor_;
};

}  // namespace

TcpAcceptor::TcpAcceptor(TcpNetwork& network, int fd, ports::AcceptSink& sink)
    : network_(network),
      fd_(fd),
      sink_(&sink),
      local_(local_endpoint(fd)),
      accept_op_(Callback<void(std::int32_t)>::to<&TcpAcceptor::on_accepted>(*this), &network),
      retry_timer_(Callback<void()>::to<&TcpAcceptor::start_accept>(*this)) {
  start_accept();
}

TcpAcceptor::~TcpAcceptor() { ::close(fd_); }

void TcpAcceptor::start_accept() {
  remote_.length = sizeof remote_.storage;
  io_uring_prep_accept(&network_.reactor().prepare(accept_op_), fd_, remote_.get(), &remote_.length, SOCK_CLOEXEC);
}

void TcpAcceptor::on_accepted(std::int32_t result) {
  if (is_stopped()) {
    if (result >= 0) ::close(result);
    return network_.free(*this);
  }
  if (result >= 0) {
    set_connection_options(result);
    is_in_callback_ = true;
    sink_->on_accept(network_.adopt(result, remote_));
    is_in_callback_ = false;
    if (is_stopped()) return network_.free(*this);
  } else if (result == -EMFILE || result == -ENFILE || result == -ENOBUFS || result == -ENOMEM) {
    log_warning("cannot accept a connection on {}: out of file descriptors or memory; trying again",
                ports::to_string(local_));
    return network_.reactor().arm(retry_timer_, network_.reactor().now() + kAcceptRetry);
  }
  // Anything else concerns the one client that has gone again.
  start_accept();
}

void TcpAcceptor::stop() noexcept {
  if (is_stopped()) return;
  sink_ = nullptr;
  network_.reactor().cancel(retry_timer_);
  // A ring that dies with an accept pending holds the port for a while (measured up to 135 ms); this frees it now.
  static_cast<void>(::shutdown(fd_, SHUT_RDWR));
  network_.reactor().cancel(accept_op_);
  if (!accept_op_.is_in_flight && !is_in_callback_) network_.free(*this);
}

TcpNetwork::~TcpNetwork() {
  for (TcpConnection* connection = connections_.front(); connection != nullptr;) {
    TcpConnection* next = connections_.next(*connection);
    RB_ASSERT(!connection->has_stream());
    connection->drop();
    connection = next;
  }
  for (TcpAcceptor* acceptor = acceptors_.front(); acceptor != nullptr; acceptor = acceptors_.next(*acceptor)) {
    RB_ASSERT(acceptor->is_stopped());
  }
  const auto is_empty = [](void* context) {
    auto& self = *static_cast<TcpNetwork*>(context);
    return self.connections_.empty() && self.acceptors_.empty();
  };
  reactor_.reap_until(this, Callback<bool()>::with(this, is_empty));
}

Result<std::unique_ptr<ports::Listener>, ports::ListenError> TcpNetwork::listen(const ports::Endpoint& local,
                                                                                ports::AcceptSink& sink) {
  const std::optional<SocketAddress> address = parse_address(local);
  if (!address) return fail(ports::ListenError::bad_address);
  const bool is_floating = std::ranges::find(floating_addresses_, local.address) != floating_addresses_.end();
  int fd = open_listening_socket(local, *address, is_floating);
  if (fd == -EAFNOSUPPORT && local.address.empty()) {
    // A host without IPv6.
    const ports::Endpoint any_v4{.address = "0.0.0.0", .port = local.port};
    fd = open_listening_socket(any_v4, *parse_address(any_v4), false);
  }
  if (fd < 0) return fail(listen_error_from(-fd));
  auto* acceptor = new TcpAcceptor(*this, fd, sink);
  acceptors_.push_back(*acceptor);
  return std::make_unique<TcpListener>(*acceptor);
}

std::unique_ptr<ports::Stream> TcpNetwork::connect(const ports::Endpoint& remote, std::string_view local_address,
                                                   ports::StreamSink& sink) {
  const std::optional<SocketAddress> address = parse_address(remote);
  std::optional<SocketAddress> local;
  if (!local_address.empty()) local = parse_address({.address = std::string(local_address), .port = 0});
  int fd = -EADDRNOTAVAIL;
  if (address && !remote.address.empty() && (local_address.empty() || local)) {
    fd = open_connecting_socket(*address, local ? &*local : nullptr);
  }
  auto* connection = new TcpConnection(*this, fd, address.value_or(SocketAddress{}), remote, sink);
  connections_.push_back(*connection);
  return std::make_unique<TcpStream>(*connection);
}

std::unique_ptr<ports::Stream> TcpNetwork::adopt(int fd, const SocketAddress& remote) {
  auto* connection = new TcpConnection(*this, fd, to_endpoint(remote));
  connections_.push_back(*connection);
  return std::make_unique<TcpStream>(*connection);
}

void TcpNetwork::reset_parting(std::string_view local_address) noexcept {
  for (TcpConnection* connection = connections_.front(); connection != nullptr;) {
    TcpConnection* next = connections_.next(*connection);
    if (connection->is_parting() && connection->local().address == local_address) connection->end_parting();
    connection = next;
  }
}

bool TcpNetwork::has_parting() noexcept {
  for (TcpConnection* connection = connections_.front(); connection != nullptr;
       connection = connections_.next(*connection)) {
    if (connection->is_parting()) return true;
  }
  return false;
}

void TcpNetwork::free(TcpConnection& connection) noexcept {
  connection.unlink();
  delete &connection;
}

void TcpNetwork::free(TcpAcceptor& acceptor) noexcept {
  acceptor.unlink();
  delete &acceptor;
}

}  // namespace replblk::runtime
