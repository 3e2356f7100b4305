// One node of a pair: owns the resources, the iSCSI portals and the peer connections, and introduces machines and
// stages to each other. The same class runs in the daemon and in the simulator; it touches the outside through
// ports::World only. Lives on one reactor thread. Not responsible for opening disks, for arguments or for threads: main
// does that.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/uuid.hpp"
#include "node/admin.hpp"
#include "node/config.hpp"
#include "ports/arbiter.hpp"
#include "ports/virtual_ip.hpp"
#include "ports/world.hpp"

namespace replblk::node {

/// The opened backing of one volume, in the order of the configuration's resources and their volumes.
struct VolumeDisks {
  ports::Disk* data = nullptr;      ///< null: could not be opened; the volume is Diskless, `reason` says why
  ports::Disk* metadata = nullptr;  ///< null: internal
  std::string reason;
};

/// Opens and closes the disks of a running node, for `attach` and `detach`. Whoever opened them at first.
class DiskOwner {
 public:
  /// Opens the disks of resource `index` anew.
  [[nodiscard]] virtual std::vector<VolumeDisks> open(std::size_t index) = 0;
  /// Nobody uses them any more.
  virtual void close(std::size_t index) noexcept = 0;

 protected:
  ~DiskOwner() = default;
};

/// Makes the connections to the arbiter that the configuration names; one for each resource.
class ArbiterOwner {
 public:
  [[nodiscard]] virtual std::unique_ptr<ports::Arbiter> connect(std::size_t resource, ports::ArbiterSink& sink) = 0;

 protected:
  ~ArbiterOwner() = default;
};

class Resource;

class Node {
 public:
  /// `disks[r][v]`; they outlive the node. `boot_id` is the host's.
  /// `virtual_ips[r]`: of resource r, in the order of the configuration; they outlive the node too. None at all: no
  /// resource has any.
  /// `arbiter_owner` outlives it too; null: there is no arbiter.
  /// `disk_owner` outlives it as well; null: `attach` and `detach` are refused.
  Node(ClusterConfig config, ports::World world, Uuid boot_id, std::vector<std::vector<VolumeDisks>> disks,
       std::vector<std::vector<ports::VirtualIp*>> virtual_ips = {}, DiskOwner* disk_owner = nullptr,
       ArbiterOwner* arbiter_owner = nullptr);
  /// Destroy it only after stop() has called back. A killed process is modelled by abandoning the node, not by
  /// destroying it.
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node();

  /// Listens, opens the volumes, starts to connect. The error is one sentence (a port taken, an address that is not
  /// here); nothing was begun then, and start() may be called again.
  [[nodiscard]] Result<void, std::string> start();
  /// Serves no more, drains, flushes, writes bitmaps and clean records; then calls `done`. Bounded: 1 s for initiators,
  /// disks as long as they take.
  void stop(std::function<void()> done);

  void request(const AdminRequest& request, std::function<void(AdminReply)> reply);
  [[nodiscard]] Status status() const;
  /// For checkers (Resource::inspect()).
  [[nodiscard]] const Resource& resource(std::size_t index) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace replblk::node
