// The UDP sockets of a node: one for each path to its peer, shared by all resources, since a datagram says whose it is
// (docs/heartbeat.md). Passes bytes on; which of them are to be believed is the receiver's HeartbeatSession's matter.
// Path 0 is the one between the nodes' addresses, the others those of `heartbeat.path`, in their order.
// Owned by Node; outlives every resource.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "node/config.hpp"
#include "ports/datagram.hpp"

namespace replblk::node {

class HeartbeatReceiver {
 public:
  /// `bytes` only during the call.
  virtual void on_heartbeat_datagram(std::size_t path, ConstBytes bytes) = 0;

 protected:
  ~HeartbeatReceiver() = default;
};

class HeartbeatPaths {
 public:
  /// `datagrams` null: there are no paths but the replication connection.
  HeartbeatPaths(const ClusterConfig& cluster, ports::Datagrams* datagrams);
  HeartbeatPaths(const HeartbeatPaths&) = delete;
  HeartbeatPaths& operator=(const HeartbeatPaths&) = delete;

  /// Opens the sockets anew. The error is one sentence.
  [[nodiscard]] Result<void, std::string> open();
  void close() noexcept;

  /// Datagrams with this key go to `receiver`, until it is removed.
  void add(std::uint64_t resource_key, HeartbeatReceiver& receiver);
  void remove(std::uint64_t resource_key) noexcept { receivers_.erase(resource_key); }

  [[nodiscard]] std::size_t count() const noexcept { return paths_.size(); }
  void send(std::size_t path, ConstBytes bytes) noexcept;
  /// "10.0.0.1 to 10.0.0.2".
  [[nodiscard]] const std::string& name(std::size_t path) const noexcept { return paths_[path].name; }

 private:
  struct Path final : ports::DatagramSink {
    HeartbeatPaths* all = nullptr;
    std::size_t index = 0;
    std::string name;
    ports::DatagramPath ends;
    std::unique_ptr<ports::DatagramSocket> socket;
    void on_datagram(ConstBytes bytes) override;
  };

  ports::Datagrams* datagrams_;
  std::vector<Path> paths_;
  std::map<std::uint64_t, HeartbeatReceiver*> receivers_;
};

}  // namespace replblk::node
