// ports::Arbiter that remembers nothing: it asks addresses whether they answer (protocol.md 3.5, `ping`), by an ICMP
// echo or by a TCP connection. Only probe() is asked of it. One probe at a time: a new one takes the place of one that
// is out. "Not reached" makes a node give way, so it is said only after the whole time, in which each address was asked
// several times, and never when this process could not ask.
#pragma once

#include <memory>
#include <vector>

#include "ports/arbiter.hpp"
#include "ports/stream.hpp"
#include "runtime/reactor.hpp"

namespace replblk::runtime {

struct PingOptions {
  std::vector<ports::Endpoint> addresses;  ///< port 0: an ICMP echo
  Duration timeout = seconds(3);
};

/// `network` makes the TCP connections; it and the reactor outlive the arbiter.
[[nodiscard]] std::unique_ptr<ports::Arbiter> make_ping_arbiter(Reactor& reactor, ports::Network& network,
                                                                const PingOptions& options, ports::ArbiterSink& sink);

}  // namespace replblk::runtime
