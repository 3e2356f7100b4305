// UDP on one reactor. Implements ports::Datagrams: the ring tells when a socket is readable, and one recvmmsg then
// takes what has come; a send is one sendto that never waits. Not submitted to the ring one by one: a few dozen
// datagrams a second need no batching, and a stamp that is sent at once ages less than one that waits for the turn's
// end. Invariant: every socket made here is destroyed before the reactor.
#pragma once

#include <memory>

#include "ports/datagram.hpp"
#include "runtime/reactor.hpp"

namespace replblk::runtime {

class UdpDatagrams final : public ports::Datagrams {
 public:
  explicit UdpDatagrams(Reactor& reactor) : reactor_(reactor) {}
  [[nodiscard]] Result<std::unique_ptr<ports::DatagramSocket>, ports::ListenError> open(
      const ports::DatagramPath& path, ports::DatagramSink& sink) override;

 private:
  Reactor& reactor_;
};

}  // namespace replblk::runtime
