// The address that moves between the two hosts, as the network and the hosts' kernels see it: a kernel keeps what it
// was told for its lifetime, whatever becomes of the process, and answers for it. Invariant that it looks after itself
// (protocol.md 3.8): no kernel is told to keep the address by a daemon that has not held the mandate for a while.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <utility>

#include "blockdev/record.hpp"
#include "ports/virtual_ip.hpp"
#include "sim_loop.hpp"

namespace replblk::sim {

class SimLan {
 public:
  /// From the loss of the mandate until the daemon's next turn has noticed it.
  static constexpr Duration kNoticeMax = milliseconds(50);

  explicit SimLan(Timeline& timeline) : timeline_(timeline) {}

  /// Called in each step while the node holds the mandate.
  void note_mandate(blockdev::NodeIndex node) noexcept { mandate_at_[node] = timeline_.now(); }
  void hold(blockdev::NodeIndex node, Duration lifetime);
  void drop(blockdev::NodeIndex node) noexcept { held_until_[node] = {}; }
  void announce(blockdev::NodeIndex node) noexcept { announced_by_ = node; }
  [[nodiscard]] bool holds(blockdev::NodeIndex node) const noexcept { return held_until_[node] > timeline_.now(); }
  /// Who was the last to say that it has the address: where initiators' packets go.
  [[nodiscard]] blockdev::NodeIndex announced_by() const noexcept { return announced_by_; }
  /// The node's device is not fit for the address; empty: it is.
  void set_trouble(blockdev::NodeIndex node, std::string sentence) { trouble_[node] = std::move(sentence); }
  [[nodiscard]] const std::string& trouble(blockdev::NodeIndex node) const noexcept { return trouble_[node]; }
  /// Empty: none.
  [[nodiscard]] const std::string& violation() const noexcept { return violation_; }

 private:
  Timeline& timeline_;
  std::array<Instant, 2> held_until_{};
  std::array<Instant, 2> mandate_at_{};
  std::array<std::string, 2> trouble_;
  blockdev::NodeIndex announced_by_ = blockdev::kNoNode;
  std::string violation_;
};

/// Of one process.
class SimVirtualIp final : public ports::VirtualIp {
 public:
  SimVirtualIp(SimLan& lan, blockdev::NodeIndex node, std::function<bool()> holds_mandate)
      : lan_(lan), node_(node), holds_mandate_(std::move(holds_mandate)) {}

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] std::vector<ports::HardwareAddress> hardware_addresses() const override { return {address_of(node_)}; }
  [[nodiscard]] Result<void, std::string> check() override;
  [[nodiscard]] Result<void, std::string> probe() override;
  [[nodiscard]] std::optional<ports::HardwareAddress> take_answer() override;
  void end_probing() noexcept override { is_answered_ = false; }
  [[nodiscard]] Result<void, std::string> hold(Duration lifetime) override;
  [[nodiscard]] Result<void, std::string> announce() override;
  void release() noexcept override;

 private:
  [[nodiscard]] static ports::HardwareAddress address_of(blockdev::NodeIndex node) noexcept {
    return {{2, 0, 0, 0, 0, static_cast<std::uint8_t>(node + 1)}};
  }

  SimLan& lan_;
  blockdev::NodeIndex node_;
  std::function<bool()> holds_mandate_;
  std::string name_ = "10.0.0.100/24 on eth0";
  bool is_answered_ = false;
  bool is_set_ = false;
};

}  // namespace replblk::sim
