#include "node/heartbeat_paths.hpp"

#include <fmt/format.h>

#include "base/assert.hpp"
#include "membership/heartbeat.hpp"

namespace replblk::node {

HeartbeatPaths::HeartbeatPaths(const ClusterConfig& cluster, ports::Datagrams* datagrams) : datagrams_(datagrams) {
  if (!cluster.is_pair() || datagrams == nullptr) return;
  const NodeIndex self = cluster.self;
  const NodeIndex peer = blockdev::other_node(self);
  paths_.resize(1 + cluster.heartbeat.paths.size());
  for (std::size_t index = 0; index < paths_.size(); ++index) {
    std::array<std::string, 2> addresses{cluster.nodes[0].address, cluster.nodes[1].address};
    if (index > 0) addresses = cluster.heartbeat.paths[index - 1].addresses;
    Path& path = paths_[index];
    path.all = this;
    path.index = index;
    path.name = fmt::format("{} to {}", addresses[self], addresses[peer]);
    path.ends = {{addresses[self], cluster.heartbeat.port}, {addresses[peer], cluster.heartbeat.port}};
  }
}

Result<void, std::string> HeartbeatPaths::open() {
  close();
  for (Path& path : paths_) {
    auto socket = datagrams_->open(path.ends, path);
    if (!socket) {
      close();
      return fail(
          fmt::format("heartbeat: cannot use {} (UDP): {}", to_string(path.ends.local), to_string(socket.error())));
    }
    path.socket = std::move(*socket);
  }
  return {};
}

void HeartbeatPaths::close() noexcept {
  for (Path& path : paths_) path.socket.reset();
}

void HeartbeatPaths::add(std::uint64_t resource_key, HeartbeatReceiver& receiver) {
  const bool is_new = receivers_.emplace(resource_key, &receiver).second;
  RB_ASSERT(is_new);
}

void HeartbeatPaths::send(std::size_t path, ConstBytes bytes) noexcept {
  RB_ASSERT(path < paths_.size());
  if (paths_[path].socket != nullptr) paths_[path].socket->send(bytes);
}

void HeartbeatPaths::Path::on_datagram(ConstBytes bytes) {
  const auto key = membership::resource_key_of(bytes);
  if (!key.has_value()) return;
  const auto found = all->receivers_.find(*key);
  if (found != all->receivers_.end()) found->second->on_heartbeat_datagram(index, bytes);
}

}  // namespace replblk::node
