#include "sim_virtual_ip.hpp"

#include <fmt/format.h>

#include "options.hpp"

namespace replblk::sim {

void SimLan::hold(blockdev::NodeIndex node, Duration lifetime) {
  const Duration since = timeline_.now() - mandate_at_[node];
  if (since > kNoticeMax && violation_.empty()) {
    violation_ = fmt::format("3.8: {} sets or renews the virtual IP {} ms after it held the mandate", kNodeName[node],
                             to_ms(since));
  }
  held_until_[node] = timeline_.now() + lifetime;
}

Result<void, std::string> SimVirtualIp::check() {
  if (lan_.trouble(node_).empty()) return {};
  return fail(lan_.trouble(node_));
}

/// The other kernel answers at once, if it has the address.
Result<void, std::string> SimVirtualIp::probe() {
  is_answered_ = is_answered_ || lan_.holds(blockdev::other_node(node_));
  return {};
}

std::optional<ports::HardwareAddress> SimVirtualIp::take_answer() {
  if (!std::exchange(is_answered_, false)) return std::nullopt;
  return address_of(blockdev::other_node(node_));
}

Result<void, std::string> SimVirtualIp::hold(Duration lifetime) {
  is_set_ = true;
  if (holds_mandate_()) lan_.note_mandate(node_);
  lan_.hold(node_, lifetime);
  return {};
}

Result<void, std::string> SimVirtualIp::announce() {
  lan_.announce(node_);
  return {};
}

void SimVirtualIp::release() noexcept {
  if (std::exchange(is_set_, false)) lan_.drop(node_);
}

}  // namespace replblk::sim
