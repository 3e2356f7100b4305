#include "sim_datagrams.hpp"

#include <utility>
#include <vector>

namespace replblk::sim {

/// The fabric knows it by its local end, from its opening to its end or that of its process.
class SimDatagramSocket final : public ports::DatagramSocket {
 public:
  SimDatagramSocket(SimFabric& fabric, SimLoop& loop, const ports::DatagramPath& path, ports::DatagramSink& sink)
      : fabric_(fabric), loop_(loop), path_(path), sink_(sink) {
    fabric_.datagram_sockets_[key()] = this;
  }
  ~SimDatagramSocket() override {
    *exists_ = false;
    const auto found = fabric_.datagram_sockets_.find(key());
    if (found != fabric_.datagram_sockets_.end() && found->second == this) fabric_.datagram_sockets_.erase(found);
  }

  void send(ConstBytes bytes) noexcept override {
    RB_ASSERT(bytes.size() <= ports::kDatagramBytesMax);
    ++counts_.sent;
    const NetworkModel& model = fabric_.model_;
    Seeded& random = fabric_.datagram_random_;
    const bool is_faulty = fabric_.has_datagram_faults_;
    const int copies = is_faulty && random.chance(model.datagram_double_probability) ? 2 : 1;
    for (int copy = 0; copy < copies; ++copy) {
      Duration delay = random.duration(model.latency_min, model.latency_max) +
                       fabric_.link(path_.local.address, path_.remote.address).extra_latency;
      if (is_faulty && random.chance(model.datagram_late_probability))
        delay += random.duration(Duration{}, model.datagram_late_max);
      if (is_faulty && random.chance(model.datagram_loss_probability)) continue;
      if (!fabric_.can_pass(path_.local.address, path_.remote.address)) continue;
      fabric_.timeline().after(delay, [&fabric = fabric_, path = path_,
                                       sent = std::vector(bytes.begin(), bytes.end())] { arrive(fabric, path, sent); });
    }
  }
  [[nodiscard]] const ports::DatagramCounts& counts() const noexcept override { return counts_; }
  [[nodiscard]] const ports::Endpoint& local() const noexcept override { return path_.local; }
  [[nodiscard]] bool is_alive() const noexcept { return loop_.is_alive(); }

 private:
  using Key = std::pair<std::string, std::uint16_t>;
  [[nodiscard]] Key key() const { return {path_.local.address, path_.local.port}; }

  static void arrive(SimFabric& fabric, const ports::DatagramPath& path, const std::vector<std::byte>& bytes) {
    if (!fabric.can_pass(path.local.address, path.remote.address)) return;
    const auto found = fabric.datagram_sockets_.find({path.remote.address, path.remote.port});
    if (found == fabric.datagram_sockets_.end() || !found->second->is_alive()) return;
    SimDatagramSocket& socket = *found->second;
    fabric.timeline().mix(std::uint64_t{path.local.port} << 32 ^ bytes.size());
    if (path.local.address != socket.path_.remote.address) {
      ++socket.counts_.unexpected;
      return;
    }
    if (socket.waiting_count_ == SimDatagrams::kKernelDatagrams) {
      ++socket.counts_.overrun;
      return;
    }
    ++socket.waiting_count_;
    socket.loop_.post([&socket, exists = socket.exists_, bytes] {
      if (!*exists) return;
      --socket.waiting_count_;
      ++socket.counts_.received;
      socket.sink_.on_datagram(bytes);
    });
  }

  SimFabric& fabric_;
  SimLoop& loop_;
  const ports::DatagramPath path_;
  ports::DatagramSink& sink_;
  ports::DatagramCounts counts_;
  std::size_t waiting_count_ = 0;
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
};

Result<std::unique_ptr<ports::DatagramSocket>, ports::ListenError> SimDatagrams::open(const ports::DatagramPath& path,
                                                                                      ports::DatagramSink& sink) {
  if (path.local.address.empty() || path.remote.address.empty()) return fail(ports::ListenError::bad_address);
  const auto found = fabric_.datagram_sockets_.find({path.local.address, path.local.port});
  if (found != fabric_.datagram_sockets_.end() && found->second->is_alive())
    return fail(ports::ListenError::address_in_use);
  return std::make_unique<SimDatagramSocket>(fabric_, loop_, path, sink);
}

}  // namespace replblk::sim
