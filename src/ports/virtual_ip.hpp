// An address that moves between the two nodes, on one network device of this one. Implemented by runtime (netlink and
// packet sockets) and by the simulator. Decides nothing: when to hold, renew, announce or give it up is
// membership::VirtualIpHolder's matter. One thread; no call waits longer than the kernel takes to answer.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"

namespace replblk::ports {

/// Of an Ethernet interface.
struct HardwareAddress {
  std::array<std::uint8_t, 6> bytes{};
  friend bool operator==(const HardwareAddress&, const HardwareAddress&) = default;
};
[[nodiscard]] std::string to_string(const HardwareAddress& address);  ///< "02:00:00:00:00:01"

/// Errors are sentences: what cannot be done, why, and what to do.
class VirtualIp {
 public:
  virtual ~VirtualIp() = default;

  /// "192.0.2.100/24 on eth0"
  [[nodiscard]] virtual const std::string& name() const noexcept = 0;
  /// Of this node, by which its kernel may answer for the address: the device's own first, if it is there and has one,
  /// and then those of other devices, since a kernel answers by any device for what it has on one of them.
  [[nodiscard]] virtual std::vector<HardwareAddress> hardware_addresses() const = 0;

  /// Whether the address could be held here now: the device is there and up, the process has the right, and the address
  /// is not on any device of this node by somebody else's hand. One that is about to expire is a predecessor's of this
  /// daemon.
  [[nodiscard]] virtual Result<void, std::string> check() = 0;

  /// Asks the network whether anybody has the address (RFC 5227 2.1.1; RFC 4862 5.4.2), and listens from the first time
  /// on.
  [[nodiscard]] virtual Result<void, std::string> probe() = 0;
  /// Who has answered since the last call, this node left out; nullopt: nobody.
  [[nodiscard]] virtual std::optional<HardwareAddress> take_answer() = 0;
  /// Stops listening.
  virtual void end_probing() noexcept = 0;

  /// Sets the address, or renews it: the kernel takes it away when `lifetime` (whole seconds, at least 1) has passed
  /// without another call, whatever becomes of this process. Fails when somebody else has set it meanwhile.
  [[nodiscard]] virtual Result<void, std::string> hold(Duration lifetime) = 0;
  /// Tells the network where the address is now: gratuitous ARP in request and in reply form, or an unsolicited
  /// neighbour advertisement (RFC 5944 4.6; RFC 4861 7.2.6).
  [[nodiscard]] virtual Result<void, std::string> announce() = 0;
  /// Takes the address away, if hold() has set it since the last release(), and nobody else after that.
  virtual void release() noexcept = 0;
};

}  // namespace replblk::ports
