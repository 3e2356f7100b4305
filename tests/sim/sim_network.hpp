// The network of a simulated run (SimFabric) and one process's view of it (SimNetwork: ports::Network).
//
// The fault model, and what each fault stands for:
//   - Each direction between two hosts has its own latency. A stream's bytes are cut into segments at random places
//     (1 byte to 64 KiB) that arrive in order, whole prefix or not at all; receives merge and split them again.
//   - Cut direction: nothing arrives; the sender's kernel keeps the bytes and tries again with back-off, so a cut that
//   heals
//     is only a delay, and one that does not ends the sender's side with timed_out after `user_timeout`. A side that
//     has nothing to send notices nothing. One-way cuts stop data on one side and acknowledgements on the other.
//   - Reset: both ends hear `reset`, or one of them only (a stateful firewall that forgot).
//   - Process killed: its kernel sends what was already handed to it, then FIN or RST. A later segment is answered by
//   RST.
//   - Power cut: silence. A segment that arrives after the host is up again is answered by RST.
//   - Connect: refused without a listener, timed_out after 5 s without an answer.
//   - The kernel takes kKernelSendBytes before they are acknowledged, and buffers kKernelReceiveBytes for a process
//   that
//     does not read: beyond that the sender's queued_bytes() grow.
//   - Pool memory that a stream refers to is read when the kernel takes it, not when it was queued.
// Not modelled: corruption (TCP's checksum; frames have a CRC of their own), duplicates and reordering (TCP hides
// them).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ports/stream.hpp"
#include "sim_loop.hpp"

namespace replblk::sim {

struct NetworkModel {
  Duration latency_min = microseconds(30);
  Duration latency_max = microseconds(200);
  Duration user_timeout = seconds(10);
  // Of datagrams only (sim_datagrams.hpp); drawn from a sequence of their own.
  std::uint64_t datagram_seed = 1;
  double datagram_loss_probability = 0;
  double datagram_double_probability = 0;
  double datagram_late_probability = 0;
  Duration datagram_late_max{};
};

struct LinkState {
  bool is_cut = false;
  Duration extra_latency{};
};

class SimFabric;
class SimNetwork;
class SimStream;
class SimDatagramSocket;

namespace detail {

struct Queued {
  std::vector<std::byte> copied;
  BufferRef buffer;
  std::size_t offset_bytes = 0;
  std::size_t length_bytes = 0;
};

struct Segment {
  std::vector<std::byte> bytes;
  bool is_fin = false;
  bool is_delivered = false;  ///< but the acknowledgement did not come back
  Instant arrives_at{};
};

/// One side of a connection, as its host's kernel has it.
struct End {
  SimNetwork* network = nullptr;  ///< null: the process is gone
  std::string host;
  ports::Endpoint local, remote;
  SimStream* handle = nullptr;  ///< null: closed, aborted or destroyed by its user
  ports::StreamSink* sink = nullptr;
  bool is_open = false;  ///< the kernel knows the connection
  bool is_closing = false;
  bool is_fin_sent = false;
  // Sending.
  std::deque<Queued> queue;
  std::size_t queue_bytes = 0;
  bool was_high = false;
  bool is_output_scheduled = false;
  std::deque<Segment> wire;
  std::size_t wire_bytes = 0;
  bool is_wire_scheduled = false;
  Instant last_arrival{};
  Instant blocked_since = Instant::max();
  Duration retry = milliseconds(200);
  // Receiving.
  std::vector<std::byte> received;
  bool is_fin_received = false;
  bool is_paused = false;
  bool is_receive_posted = false;
  bool has_target = false;
  ports::DirectTarget target;
};

struct Connection {
  std::uint64_t id = 0;
  End ends[2];
};
using ConnectionRef = std::shared_ptr<Connection>;

}  // namespace detail

/// All hosts and wires.
class SimFabric {
 public:
  static constexpr std::size_t kKernelSendBytes = 512 << 10;
  static constexpr std::size_t kKernelReceiveBytes = 1 << 20;

  SimFabric(Timeline& timeline, const NetworkModel& model)
      : timeline_(timeline), model_(model), datagram_random_(model.datagram_seed) {}

  /// The direction from one host to another.
  [[nodiscard]] LinkState& link(const std::string& from, const std::string& to) { return links_[{from, to}]; }
  /// Every link is whole again, and datagrams have no more faults of their own.
  void heal_all();
  void set_powered(const std::string& host, bool is_powered) { powered_[host] = is_powered; }
  /// Every connection between the two hosts; `is_one_sided`: only the first host's end hears of it.
  void reset_connections(const std::string& host, const std::string& other, bool is_one_sided);
  [[nodiscard]] Timeline& timeline() noexcept { return timeline_; }

 private:
  friend class SimNetwork;
  friend class SimStream;
  friend class SimDatagrams;
  friend class SimDatagramSocket;
  using End = detail::End;
  using ConnectionRef = detail::ConnectionRef;

  [[nodiscard]] Duration latency(const std::string& from, const std::string& to);
  [[nodiscard]] bool can_pass(const std::string& from, const std::string& to);
  [[nodiscard]] bool is_powered(const std::string& host) const;
  void try_connect(const ConnectionRef& connection, Instant deadline);
  void pump(const ConnectionRef& connection, int side);
  void take_from_queue(const ConnectionRef& connection, int side);
  void schedule_wire(const ConnectionRef& connection, int side, Instant when);
  void run_wire(const ConnectionRef& connection, int side);
  [[nodiscard]] bool deliver(const ConnectionRef& connection, int from_side);
  void send_reset(const ConnectionRef& connection, int from_side);
  void end_side(const ConnectionRef& connection, int side, ports::StreamError error);
  void drop_side(detail::End& end);
  void schedule_receive(const ConnectionRef& connection, int side);
  void run_receive(const ConnectionRef& connection, int side);
  static void ask_target(detail::End& end);

  Timeline& timeline_;
  const NetworkModel& model_;
  std::map<std::pair<std::string, std::string>, LinkState> links_;
  std::map<std::string, bool> powered_;
  std::map<std::string, SimNetwork*> processes_;  ///< by host address: the one process that uses the network there
  std::map<std::uint64_t, std::weak_ptr<detail::Connection>> connections_;
  std::uint64_t next_id_ = 1;
  Seeded datagram_random_;
  bool has_datagram_faults_ = true;
  std::map<std::pair<std::string, std::uint16_t>, SimDatagramSocket*> datagram_sockets_;  ///< by local end
};

class SimNetwork final : public ports::Network {
 public:
  SimNetwork(SimFabric& fabric, SimLoop& loop, std::string host);
  ~SimNetwork() override;

  [[nodiscard]] Result<std::unique_ptr<ports::Listener>, ports::ListenError> listen(const ports::Endpoint& local,
                                                                                    ports::AcceptSink& sink) override;
  [[nodiscard]] std::unique_ptr<ports::Stream> connect(const ports::Endpoint& remote, std::string_view local_address,
                                                       ports::StreamSink& sink) override;
  /// None waits: see abort_after().
  void reset_parting(std::string_view) noexcept override {}

  /// The process died (its kernel ends the connections), or the host did (silence). Before its user is destroyed.
  void leave(bool is_power_cut);

 private:
  friend class SimFabric;
  friend class SimStream;
  class SimListener;

  SimFabric& fabric_;
  SimLoop& loop_;
  std::string host_;
  bool has_left_ = false;
  std::map<std::uint16_t, SimListener*> listeners_;
  std::uint16_t next_port_ = 40000;
};

}  // namespace replblk::sim
