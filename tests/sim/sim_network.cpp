#include "sim_network.hpp"

#include <algorithm>
#include <cstring>

namespace replblk::sim {

using detail::Connection;
using detail::ConnectionRef;
using detail::End;
using detail::Queued;
using detail::Segment;
using ports::Stream;
using ports::StreamError;

namespace {

constexpr Duration kConnectTimeout = seconds(5);
constexpr Duration kCloseTimeout = seconds(5);
constexpr Duration kRetryMax = seconds(3);  // TCP's doubles without end; a cut of minutes is not simulated

}  // namespace

/// The user's handle on its side.
class SimStream final : public ports::Stream {
 public:
  SimStream(SimFabric& fabric, ConnectionRef connection, int side)
      : fabric_(fabric), connection_(std::move(connection)), side_(side) {
    end().handle = this;
  }
  ~SimStream() override {
    if (end().handle == this) abort();
  }
  void set_sink(ports::StreamSink& sink) noexcept override { end().sink = &sink; }
  void send(ConstBytes bytes) override {
    if (bytes.empty()) return;
    queue({std::vector<std::byte>(bytes.begin(), bytes.end()), {}, 0, bytes.size()});
  }
  void send(BufferRef buffer, std::size_t offset_bytes, std::size_t length_bytes) override {
    if (length_bytes == 0) return;
    RB_ASSERT(buffer && offset_bytes + length_bytes <= buffer.capacity_bytes());
    queue({{}, std::move(buffer), offset_bytes, length_bytes});
  }
  [[nodiscard]] std::size_t queued_bytes() const noexcept override { return connection_->ends[side_].queue_bytes; }
  void pause_receive() noexcept override { end().is_paused = true; }
  void resume_receive() noexcept override {
    end().is_paused = false;
    if (end().is_open) fabric_.schedule_receive(connection_, side_);
  }
  void close() noexcept override {
    if (end().handle != this) return;
    release();
    end().is_closing = true;
    fabric_.pump(connection_, side_);
    fabric_.timeline().after(kCloseTimeout, [&fabric = fabric_, connection = connection_, side = side_] {
      if (connection->ends[side].is_open) {
        fabric.send_reset(connection, side);
        fabric.drop_side(connection->ends[side]);
      }
    });
  }
  void abort() noexcept override {
    if (end().handle != this) return;
    release();
    if (end().is_open) fabric_.send_reset(connection_, side_);
    fabric_.drop_side(end());
  }
  void abort_after(ConstBytes last_words, Duration) noexcept override {
    if (end().handle != this) return;
    // The reset can be all that arrives.
    if (!end().queue.empty() || fabric_.timeline().random().chance(0.5)) return abort();
    send(last_words);
    close();
  }
  [[nodiscard]] const ports::Endpoint& local() const noexcept override { return connection_->ends[side_].local; }
  [[nodiscard]] const ports::Endpoint& remote() const noexcept override { return connection_->ends[side_].remote; }

 private:
  [[nodiscard]] End& end() const noexcept { return connection_->ends[side_]; }
  void release() noexcept {
    end().handle = nullptr;
    end().sink = nullptr;
    end().target = {};
    end().has_target = false;
  }
  void queue(Queued item) {
    if (!end().is_open || end().handle != this) return;  // Ended; the user hears of it, or did.
    end().queue_bytes += item.length_bytes;
    end().queue.push_back(std::move(item));
    if (end().queue_bytes > kQueueHighBytes) end().was_high = true;
    if (std::exchange(end().is_output_scheduled, true)) return;
    end().network->loop_.at_output([&fabric = fabric_, connection = connection_, side = side_] {
      connection->ends[side].is_output_scheduled = false;
      fabric.pump(connection, side);
    });
  }

  SimFabric& fabric_;
  ConnectionRef connection_;
  int side_;
};

class SimNetwork::SimListener final : public ports::Listener {
 public:
  SimListener(SimNetwork& network, ports::Endpoint local, ports::AcceptSink& sink)
      : sink_(sink), network_(network), local_(std::move(local)) {}
  ~SimListener() override {
    *exists_ = false;
    const auto found = network_.listeners_.find(local_.port);
    if (found != network_.listeners_.end() && found->second == this) network_.listeners_.erase(found);
  }
  [[nodiscard]] const ports::Endpoint& local() const noexcept override { return local_; }
  ports::AcceptSink& sink_;
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);

 private:
  SimNetwork& network_;
  ports::Endpoint local_;
};

// ---- Links ----

Duration SimFabric::latency(const std::string& from, const std::string& to) {
  return timeline_.random().duration(model_.latency_min, model_.latency_max) + link(from, to).extra_latency;
}

bool SimFabric::is_powered(const std::string& host) const {
  const auto found = powered_.find(host);
  return found == powered_.end() || found->second;
}

bool SimFabric::can_pass(const std::string& from, const std::string& to) {
  return is_powered(from) && is_powered(to) && !link(from, to).is_cut;
}

void SimFabric::heal_all() {
  for (auto& [key, state] : links_) state = {};
  has_datagram_faults_ = false;
}

void SimFabric::reset_connections(const std::string& host, const std::string& other, bool is_one_sided) {
  std::vector<ConnectionRef> found;
  for (auto& [id, weak] : connections_) {
    if (ConnectionRef connection = weak.lock()) found.push_back(std::move(connection));
  }
  for (const ConnectionRef& connection : found) {
    for (int side = 0; side < 2; ++side) {
      End& end = connection->ends[side];
      if (end.host != host || connection->ends[1 - side].host != other) continue;
      end_side(connection, side, StreamError::reset);
      if (!is_one_sided) end_side(connection, 1 - side, StreamError::reset);
    }
  }
}

// ---- Connecting ----

void SimFabric::try_connect(const ConnectionRef& connection, Instant deadline) {
  End& client = connection->ends[0];
  End& server = connection->ends[1];
  if (client.handle == nullptr) return;  // Given up.
  if (timeline_.now() >= deadline) {
    end_side(connection, 0, StreamError::timed_out);
    return;
  }
  if (!can_pass(client.host, server.host) || !can_pass(server.host, client.host)) {
    timeline_.after(seconds(1), [this, connection, deadline] { try_connect(connection, deadline); });
    return;
  }
  const auto process = processes_.find(server.host);
  SimNetwork* network = process == processes_.end() || process->second->has_left_ ? nullptr : process->second;
  const auto listener =
      network == nullptr ? decltype(network->listeners_.end()){} : network->listeners_.find(server.local.port);
  const Duration back = latency(server.host, client.host);
  if (network == nullptr || listener == network->listeners_.end()) {
    timeline_.after(back, [this, connection] { end_side(connection, 0, StreamError::refused); });
    return;
  }
  server.network = network;
  server.is_open = true;
  SimNetwork::SimListener* accepting = listener->second;
  network->loop_.post([this, connection, accepting, exists = accepting->exists_] {
    End& accepted = connection->ends[1];
    if (!*exists || !accepted.is_open) {
      send_reset(connection, 1);
      drop_side(accepted);
      return;
    }
    auto stream = std::make_unique<SimStream>(*this, connection, 1);
    accepting->sink_.on_accept(std::move(stream));
    if (accepted.handle != nullptr) {
      RB_ASSERT(accepted.sink != nullptr);  // ports/stream.hpp: set_sink before the first turn ends
      schedule_receive(connection, 1);
    }
  });
  timeline_.after(back, [this, connection] {
    End& connected = connection->ends[0];
    if (connected.handle == nullptr || connected.network == nullptr) {
      send_reset(connection, 0);  // The server has a connection that the client has forgotten.
      return;
    }
    connected.is_open = true;
    connected.network->loop_.post([this, connection] {
      End& opened = connection->ends[0];
      if (opened.sink == nullptr || !opened.is_open) return;
      opened.sink->on_connected();
      pump(connection, 0);
      schedule_receive(connection, 0);
    });
  });
}

// ---- Sending ----

void SimFabric::take_from_queue(const ConnectionRef& connection, int side) {
  End& end = connection->ends[side];
  Seeded& random = timeline_.random();
  while (!end.queue.empty() && end.wire_bytes < kKernelSendBytes) {
    Segment segment;
    const std::size_t size_max = random.chance(0.1) ? random.between(1, 100) : random.between(1, 64 << 10);
    while (segment.bytes.size() < size_max && !end.queue.empty()) {
      Queued& item = end.queue.front();
      const std::size_t count = std::min(size_max - segment.bytes.size(), item.length_bytes);
      const std::byte* from = item.buffer ? item.buffer.data() : item.copied.data();
      segment.bytes.insert(segment.bytes.end(), from + item.offset_bytes, from + item.offset_bytes + count);
      item.offset_bytes += count;
      item.length_bytes -= count;
      end.queue_bytes -= count;
      if (item.length_bytes == 0) end.queue.pop_front();
    }
    end.last_arrival = std::max(end.last_arrival, timeline_.now() + latency(end.host, connection->ends[1 - side].host));
    segment.arrives_at = end.last_arrival;
    end.wire_bytes += segment.bytes.size();
    end.wire.push_back(std::move(segment));
  }
}

void SimFabric::pump(const ConnectionRef& connection, int side) {
  End& end = connection->ends[side];
  if (!end.is_open) return;
  take_from_queue(connection, side);
  if (end.was_high && end.queue_bytes <= Stream::kQueueHighBytes / 2) {
    end.was_high = false;
    if (end.network != nullptr && end.sink != nullptr) {
      end.network->loop_.post([connection, side] {
        if (connection->ends[side].sink != nullptr) connection->ends[side].sink->on_send_room();
      });
    }
  }
  if (end.queue.empty() && end.is_closing && !end.is_fin_sent) {
    end.is_fin_sent = true;
    Segment segment;
    segment.is_fin = true;
    end.last_arrival = std::max(end.last_arrival, timeline_.now() + latency(end.host, connection->ends[1 - side].host));
    segment.arrives_at = end.last_arrival;
    end.wire.push_back(std::move(segment));
  }
  if (!end.wire.empty()) schedule_wire(connection, side, end.wire.front().arrives_at);
}

void SimFabric::schedule_wire(const ConnectionRef& connection, int side, Instant when) {
  if (std::exchange(connection->ends[side].is_wire_scheduled, true)) return;
  timeline_.at(when, [this, connection, side] {
    connection->ends[side].is_wire_scheduled = false;
    run_wire(connection, side);
  });
}

/// The first segment on the wire arrives, or is blocked and tried again.
void SimFabric::run_wire(const ConnectionRef& connection, int side) {
  End& end = connection->ends[side];
  if (!end.is_open || end.wire.empty()) return;
  if (!deliver(connection, side)) {
    if (!end.is_open) return;
    if (end.blocked_since == Instant::max()) end.blocked_since = timeline_.now();
    if (timeline_.now() - end.blocked_since >= model_.user_timeout) {
      end_side(connection, side, StreamError::timed_out);
      return;
    }
    schedule_wire(connection, side, timeline_.now() + end.retry);
    end.retry = std::min(end.retry * 2, kRetryMax);
    return;
  }
  if (!end.is_open) return;
  end.blocked_since = Instant::max();
  end.retry = milliseconds(200);
  end.wire_bytes -= end.wire.front().bytes.size();
  const bool was_fin = end.wire.front().is_fin;
  end.wire.pop_front();
  if (was_fin) {
    drop_side(end);
    return;
  }
  pump(connection, side);
}

/// True: arrived and acknowledged.
bool SimFabric::deliver(const ConnectionRef& connection, int from_side) {
  End& from = connection->ends[from_side];
  End& to = connection->ends[1 - from_side];
  Segment& segment = from.wire.front();
  if (!can_pass(from.host, to.host)) return false;
  if (!segment.is_delivered) {
    if (!to.is_open) {
      if (can_pass(to.host, from.host)) end_side(connection, from_side, StreamError::reset);
      return false;
    }
    if (to.handle == nullptr && to.is_closing && !segment.is_fin && to.network != nullptr) {
      // close() reads on and drops what comes, so that no RST overtakes the last bytes (TcpConnection does).
      segment.is_delivered = true;
      return can_pass(to.host, from.host);
    }
    if (to.handle == nullptr && to.is_closing && !segment.is_fin) {
      // Data for a socket that its owner has closed: RST, and what it still had to send is lost with it.
      send_reset(connection, 1 - from_side);
      drop_side(to);
      return false;
    }
    if (to.received.size() > kKernelReceiveBytes) {
      from.blocked_since = Instant::max();  // Zero window: the peer's kernel answers, so nothing times out.
      from.retry = milliseconds(5);
      return false;
    }
    timeline_.mix(connection->id << 32 ^ segment.bytes.size());
    to.received.insert(to.received.end(), segment.bytes.begin(), segment.bytes.end());
    if (segment.is_fin) to.is_fin_received = true;
    segment.is_delivered = true;
    if (to.handle != nullptr) schedule_receive(connection, 1 - from_side);
  }
  return can_pass(to.host, from.host);
}

void SimFabric::send_reset(const ConnectionRef& connection, int from_side) {
  const std::string& from = connection->ends[from_side].host;
  const std::string& to = connection->ends[1 - from_side].host;
  timeline_.after(latency(from, to), [this, connection, from_side] {
    if (!can_pass(connection->ends[from_side].host, connection->ends[1 - from_side].host))
      return;  // Lost; not repeated.
    end_side(connection, 1 - from_side, StreamError::reset);
  });
}

/// The kernel has forgotten this side's connection.
void SimFabric::drop_side(End& end) {
  end.is_open = false;
  end.queue.clear();
  end.queue_bytes = 0;
  end.wire.clear();
  end.wire_bytes = 0;
  end.received.clear();
  end.target = {};
  end.has_target = false;
}

/// Ends this side from outside; its user hears of it in its next turn.
void SimFabric::end_side(const ConnectionRef& connection, int side, StreamError error) {
  End& end = connection->ends[side];
  const bool was_connecting = side == 0 && !end.is_open && end.handle != nullptr && end.sink != nullptr;
  if (!end.is_open && !was_connecting) return;
  timeline_.mix(connection->id << 8 ^ static_cast<std::uint64_t>(error));
  drop_side(end);
  if (end.network == nullptr || end.sink == nullptr) return;
  end.network->loop_.post([connection, side, error] {
    End& ended = connection->ends[side];
    ports::StreamSink* sink = std::exchange(ended.sink, nullptr);
    if (sink == nullptr) return;
    sink->on_closed(error);
  });
}

// ---- Receiving ----

void SimFabric::ask_target(End& end) {
  if (end.has_target || end.sink == nullptr) return;
  end.target = end.sink->direct_target();
  end.has_target = true;
  if (end.target.buffer)
    RB_ASSERT(end.target.offset_bytes + end.target.length_bytes <= end.target.buffer.capacity_bytes());
}

void SimFabric::schedule_receive(const ConnectionRef& connection, int side) {
  End& end = connection->ends[side];
  if (end.network == nullptr || end.handle == nullptr) return;
  if (end.received.empty() && !end.is_fin_received) return;
  if (std::exchange(end.is_receive_posted, true)) return;
  end.network->loop_.post([this, connection, side] {
    connection->ends[side].is_receive_posted = false;
    run_receive(connection, side);
  });
}

/// One completed receive.
void SimFabric::run_receive(const ConnectionRef& connection, int side) {
  End& end = connection->ends[side];
  if (end.sink == nullptr || !end.is_open || end.is_paused) return;
  Seeded& random = timeline_.random();
  if (!end.received.empty()) {
    ask_target(end);
    ports::DirectTarget target = std::move(end.target);
    end.target = {};
    end.has_target = false;
    std::size_t count = end.received.size();
    if (random.chance(0.1)) count = random.between(1, count);  // The kernel had not more yet.
    std::vector<std::byte> bytes(end.received.begin(), end.received.begin() + static_cast<std::ptrdiff_t>(count));
    end.received.erase(end.received.begin(), end.received.begin() + static_cast<std::ptrdiff_t>(count));
    std::size_t direct = 0;
    if (target.buffer && target.length_bytes > 0) {
      direct = std::min(count, target.length_bytes);
      std::memcpy(target.buffer.data() + target.offset_bytes, bytes.data(), direct);
      end.sink->on_direct(direct);
    }
    if (direct < count && end.sink != nullptr) end.sink->on_receive(ConstBytes(bytes).subspan(direct));
    if (end.sink == nullptr || !end.is_open) return;
    // The next receive is given to the kernel at once, or when the turn ends: either is the loop's right.
    if (random.chance(0.5)) ask_target(end);
  }
  if (!end.received.empty()) {
    schedule_receive(connection, side);
    return;
  }
  if (end.is_fin_received) end_side(connection, side, StreamError::closed_by_peer);
}

// ---- A process's view ----

SimNetwork::SimNetwork(SimFabric& fabric, SimLoop& loop, std::string host)
    : fabric_(fabric), loop_(loop), host_(std::move(host)) {
  fabric_.processes_[host_] = this;
}

SimNetwork::~SimNetwork() {
  if (!has_left_) leave(false);
}

Result<std::unique_ptr<ports::Listener>, ports::ListenError> SimNetwork::listen(const ports::Endpoint& local,
                                                                                ports::AcceptSink& sink) {
  if (!local.address.empty() && local.address != host_) return fail(ports::ListenError::address_not_here);
  if (listeners_.contains(local.port)) return fail(ports::ListenError::address_in_use);
  auto listener = std::make_unique<SimListener>(*this, local, sink);
  listeners_[local.port] = listener.get();
  return listener;
}

std::unique_ptr<ports::Stream> SimNetwork::connect(const ports::Endpoint& remote, std::string_view local_address,
                                                   ports::StreamSink& sink) {
  auto connection = std::make_shared<Connection>();
  connection->id = fabric_.next_id_++;
  fabric_.connections_[connection->id] = connection;
  std::erase_if(fabric_.connections_, [](const auto& entry) { return entry.second.expired(); });
  End& client = connection->ends[0];
  End& server = connection->ends[1];
  client.network = this;
  client.host = host_;
  client.sink = &sink;
  client.local = {host_, next_port_++};
  client.remote = remote;
  server.host = remote.address;
  server.local = remote;
  server.remote = client.local;
  auto stream = std::make_unique<SimStream>(fabric_, connection, 0);
  Timeline& timeline = fabric_.timeline();
  if (!local_address.empty() && local_address != host_) {
    timeline.after(microseconds(1), [this, connection] { fabric_.end_side(connection, 0, StreamError::unreachable); });
    return stream;
  }
  timeline.after(fabric_.latency(host_, remote.address),
                 [&fabric = fabric_, connection, deadline = timeline.now() + kConnectTimeout] {
                   fabric.try_connect(connection, deadline);
                 });
  return stream;
}

void SimNetwork::leave(bool is_power_cut) {
  if (has_left_) return;
  has_left_ = true;
  const auto process = fabric_.processes_.find(host_);
  if (process != fabric_.processes_.end() && process->second == this) fabric_.processes_.erase(process);
  Seeded& random = fabric_.timeline().random();
  std::vector<ConnectionRef> found;
  for (auto& [id, weak] : fabric_.connections_) {
    if (ConnectionRef connection = weak.lock()) found.push_back(std::move(connection));
  }
  for (const ConnectionRef& connection : found) {
    for (int side = 0; side < 2; ++side) {
      End& end = connection->ends[side];
      if (end.network != this) continue;
      // What the process had queued and not handed over is gone; what the kernel has may still be sent.
      end.network = nullptr;
      end.handle = nullptr;
      end.sink = nullptr;
      end.queue.clear();
      end.queue_bytes = 0;
      end.target = {};
      end.has_target = false;
      if (!end.is_open) continue;
      if (is_power_cut) {
        fabric_.drop_side(end);
      } else if (!end.received.empty() || random.chance(0.5)) {
        fabric_.send_reset(connection, side);
        fabric_.drop_side(end);
      } else {
        end.is_closing = true;
        fabric_.pump(connection, side);
      }
    }
  }
}

}  // namespace replblk::sim
