// One simulated process's datagram sockets (SimDatagrams: ports::Datagrams) on the links of a SimFabric.
//
// The fault model: each datagram is lost, or doubled, or late (also by seconds, hence behind later ones) with the
// probabilities of the NetworkModel, and lost in a direction that is cut when it is sent or when it arrives. After
// SimFabric::heal_all() only cut links and latency are left. What comes for a process that is gone is lost; for one
// that hangs it waits, up to kKernelDatagrams. Not modelled: forgery (HeartbeatSession's tests), corruption (UDP's
// checksum, and the MAC). All chance here comes from a sequence of its own, so that datagrams change no other draw of a
// run.
#pragma once

#include <memory>

#include "ports/datagram.hpp"
#include "sim_network.hpp"

namespace replblk::sim {

class SimDatagrams final : public ports::Datagrams {
 public:
  /// Of a socket whose process does not read.
  static constexpr std::size_t kKernelDatagrams = 256;

  SimDatagrams(SimFabric& fabric, SimLoop& loop) : fabric_(fabric), loop_(loop) {}
  /// Any address: a host has as many as are opened on it.
  [[nodiscard]] Result<std::unique_ptr<ports::DatagramSocket>, ports::ListenError> open(
      const ports::DatagramPath& path, ports::DatagramSink& sink) override;

 private:
  SimFabric& fabric_;
  SimLoop& loop_;
};

}  // namespace replblk::sim
