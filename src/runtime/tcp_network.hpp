// TCP on one reactor: makes connections and listeners, and keeps what the kernel still works on after the user has
// let go of it. Implements ports::Network. Not responsible for names, TLS or retries: whoever connects retries.
// Invariant: every Stream and Listener made here is destroyed before it; its destructor cancels and waits for the rest.
#pragma once

#include <memory>

#include "ports/stream.hpp"
#include "runtime/reactor.hpp"
#include "runtime/send_queue.hpp"
#include "runtime/tcp_connection.hpp"

namespace replblk::runtime {

class TcpNetwork;

/// The accept loop of one listening socket: one accept in flight, armed again after each.
class TcpAcceptor final : public IntrusiveNode<TcpAcceptor> {
 public:
  TcpAcceptor(TcpNetwork& network, int fd, ports::AcceptSink& sink);
  ~TcpAcceptor();
  [[nodiscard]] const ports::Endpoint& local() const noexcept { return local_; }
  /// Stops listening at once; frees itself when the kernel is done.
  void stop() noexcept;
  [[nodiscard]] bool is_stopped() const noexcept { return sink_ == nullptr; }

 private:
  void start_accept();
  void on_accepted(std::int32_t result);

  TcpNetwork& network_;
  int fd_;
  ports::AcceptSink* sink_;
  ports::Endpoint local_;
  Op accept_op_;
  ports::Timer retry_timer_;  ///< while descriptors or memory are short
  SocketAddress remote_;
  bool is_in_callback_ = false;
};

class TcpNetwork final : public ports::Network {
 public:
  /// `floating_addresses`: may be listened on although this node does not have them now (virtual IPs), as spelt in an
  /// Endpoint.
  explicit TcpNetwork(Reactor& reactor, std::vector<std::string> floating_addresses = {})
      : reactor_(reactor), floating_addresses_(std::move(floating_addresses)) {}
  ~TcpNetwork() override;

  [[nodiscard]] Result<std::unique_ptr<ports::Listener>, ports::ListenError> listen(const ports::Endpoint& local,
                                                                                    ports::AcceptSink& sink) override;
  [[nodiscard]] std::unique_ptr<ports::Stream> connect(const ports::Endpoint& remote, std::string_view local_address,
                                                       ports::StreamSink& sink) override;

  void reset_parting(std::string_view local_address) noexcept override;

  /// Some connection waits for the RST of its abort_after().
  [[nodiscard]] bool has_parting() noexcept;

  // For connections and acceptors.
  [[nodiscard]] Reactor& reactor() noexcept { return reactor_; }
  [[nodiscard]] SendChunkPool& chunks() noexcept { return chunks_; }
  [[nodiscard]] std::unique_ptr<ports::Stream> adopt(int fd, const SocketAddress& remote);
  void free(TcpConnection& connection) noexcept;
  void free(TcpAcceptor& acceptor) noexcept;

 private:
  Reactor& reactor_;
  std::vector<std::string> floating_addresses_;
  SendChunkPool chunks_;
  IntrusiveList<TcpConnection, TcpConnection> connections_;
  IntrusiveList<TcpAcceptor, TcpAcceptor> acceptors_;
};

}  // namespace replblk::runtime
