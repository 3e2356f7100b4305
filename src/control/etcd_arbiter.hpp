// ports::Arbiter over etcd: one record for each resource under /replblk/CLUSTER/RESOURCE. Questions are asked on the
// control thread and answered on the reactor's, through a mailbox. Decides nothing, and retries nothing that may have
// changed something: that is the asker's matter, who reads again. Endpoints are tried in turn, the one that answered
// last first; each gets its share of the time that one question may take. Invariant: every question gets exactly one
// answer, within that time and a little, unless its Arbiter is destroyed.
#pragma once

#include <memory>
#include <string>

#include "base/result.hpp"
#include "node/config.hpp"
#include "ports/arbiter.hpp"
#include "runtime/reactor.hpp"

namespace boost::asio {
class io_context;
}

namespace replblk::control {

/// On the reactor's thread. Destroyed after the Arbiters it made, and before the reactor and the `io_context`.
class EtcdArbiters {
 public:
  /// `io` runs on the control thread. The error is one sentence: a file that cannot be used.
  [[nodiscard]] static Result<std::unique_ptr<EtcdArbiters>, std::string> create(boost::asio::io_context& io,
                                                                                 runtime::Reactor& reactor,
                                                                                 std::string cluster,
                                                                                 const node::EtcdConfig& config);
  EtcdArbiters(const EtcdArbiters&) = delete;
  EtcdArbiters& operator=(const EtcdArbiters&) = delete;
  ~EtcdArbiters();
  [[nodiscard]] std::unique_ptr<ports::Arbiter> arbiter(const std::string& resource, ports::ArbiterSink& sink);

 private:
  class Impl;
  explicit EtcdArbiters(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace replblk::control
