// The virtual IPs of one resource, as one: all are probed before the role is taken, held while it serves, given up
// together. Introduces the holders (membership) to Resource. One thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "membership/virtual_ip_holder.hpp"
#include "node/status.hpp"
#include "ports/virtual_ip.hpp"

namespace replblk::node {

class VirtualIps {
 public:
  using Done = std::function<void(Result<void, std::string>)>;

  /// `may_hold`: the mandate.
  VirtualIps(ports::Loop& loop, const std::vector<ports::VirtualIp*>& ports, const std::function<bool()>& may_hold);

  [[nodiscard]] bool empty() const noexcept { return holders_.empty(); }
  [[nodiscard]] bool is_probing() const noexcept { return probing_count_ > 0; }
  [[nodiscard]] bool are_held() const;
  /// Of this node: what the peer must know.
  [[nodiscard]] std::vector<ports::HardwareAddress> hardware_addresses() const;
  void set_peer(const std::vector<ports::HardwareAddress>& peer);

  /// Could all be held? `done` is called once; the error names all that could not. Not while held or probing.
  void probe(Done done);
  /// Are all devices fit? What is in the way stands in status().
  [[nodiscard]] bool look();
  void hold();
  /// From the peer, by agreement.
  void take_over();
  void set_frozen(bool is_frozen);
  void release();

  [[nodiscard]] std::vector<VirtualIpStatus> status() const;

 private:
  void probed(Result<void, std::string> result);

  std::vector<ports::VirtualIp*> ports_;
  std::vector<std::unique_ptr<membership::VirtualIpHolder>> holders_;
  std::size_t probing_count_ = 0;
  std::string trouble_;
  Done done_;
};

}  // namespace replblk::node
