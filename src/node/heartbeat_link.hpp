// The heartbeats of one resource with its peer: the same content over every path of HeartbeatPaths and inside the
// replication connection, which counts as one more path, the last. Owned by Resource. Decides nothing: what is to be
// said, and what follows from what was heard, is the MembershipMachine's matter; what may be believed the session's.
#pragma once

#include <string>
#include <vector>

#include "membership/heartbeat_session.hpp"
#include "node/heartbeat_paths.hpp"
#include "node/status.hpp"
#include "ports/loop.hpp"
#include "replication/peer_channel.hpp"

namespace replblk::node {

class HeartbeatLink final : private HeartbeatReceiver {
 public:
  class Listener {
   public:
    /// Newer than all before.
    virtual void on_heartbeat(const membership::Heartbeat& heartbeat) = 0;

   protected:
    ~Listener() = default;
  };

  HeartbeatLink(const ClusterConfig& cluster, const std::string& resource, std::uint64_t incarnation, ports::Loop& loop,
                HeartbeatPaths& paths, Listener& listener);
  HeartbeatLink(const HeartbeatLink&) = delete;
  HeartbeatLink& operator=(const HeartbeatLink&) = delete;
  ~HeartbeatLink();

  /// The connection that carries them too, once it is proven; null: none.
  void set_channel(replication::PeerChannel* channel) noexcept { channel_ = channel; }
  void send(const membership::Heartbeat& content);
  /// Came over the connection.
  void on_channel_bytes(ConstBytes bytes);
  [[nodiscard]] std::vector<HeartbeatPathStatus> status() const;

 private:
  void on_heartbeat_datagram(std::size_t path, ConstBytes bytes) override;
  void open(std::size_t path, ConstBytes bytes);
  void send_bytes(std::size_t path, const membership::HeartbeatBytes& bytes);
  [[nodiscard]] std::size_t channel_path() const noexcept { return paths_.count(); }

  ports::Loop& loop_;
  HeartbeatPaths& paths_;
  Listener& listener_;
  std::uint64_t resource_key_;
  Duration lease_;
  replication::PeerChannel* channel_ = nullptr;
  membership::HeartbeatSession session_;
};

}  // namespace replblk::node
