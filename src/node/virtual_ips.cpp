#include "node/virtual_ips.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "replication/messages.hpp"

namespace replblk::node {

namespace {

[[nodiscard]] std::string_view to_string(membership::VirtualIpHolder::State state) noexcept {
  using State = membership::VirtualIpHolder::State;
  switch (state) {
    case State::absent:
      return "absent";
    case State::probing:
      return "probing";
    case State::held:
      return "held";
    case State::failed:
      return "failed";
  }
  RB_UNREACHABLE();
}

}  // namespace

VirtualIps::VirtualIps(ports::Loop& loop, const std::vector<ports::VirtualIp*>& ports,
                       const std::function<bool()>& may_hold)
    : ports_(ports) {
  for (ports::VirtualIp* port : ports)
    holders_.push_back(std::make_unique<membership::VirtualIpHolder>(loop, *port, may_hold));
}

std::vector<ports::HardwareAddress> VirtualIps::hardware_addresses() const {
  std::vector<ports::HardwareAddress> addresses;
  for (const ports::VirtualIp* port : ports_) {
    for (const ports::HardwareAddress& address : port->hardware_addresses()) {
      const bool is_known = std::ranges::find(addresses, address) != addresses.end();
      if (!is_known && addresses.size() < replication::kHardwareAddressesMax) addresses.push_back(address);
    }
  }
  return addresses;
}

bool VirtualIps::are_held() const {
  return std::ranges::all_of(
      holders_, [](const auto& holder) { return holder->state() == membership::VirtualIpHolder::State::held; });
}

void VirtualIps::set_peer(const std::vector<ports::HardwareAddress>& peer) {
  for (const auto& holder : holders_) holder->set_peer(peer);
}

void VirtualIps::probe(Done done) {
  RB_ASSERT(!is_probing() && !holders_.empty());
  done_ = std::move(done);
  trouble_.clear();
  probing_count_ = holders_.size();
  for (const auto& holder : holders_) {
    holder->probe([this](Result<void, std::string> result) { probed(std::move(result)); });
  }
}

void VirtualIps::probed(Result<void, std::string> result) {
  if (!result) trouble_ += (trouble_.empty() ? "" : "; ") + result.error();
  if (--probing_count_ > 0) return;
  const Done done = std::exchange(done_, nullptr);
  trouble_.empty() ? done({}) : done(fail(trouble_));
}

bool VirtualIps::look() {
  bool is_good = true;
  for (const auto& holder : holders_) is_good = holder->look() && is_good;
  return is_good;
}

void VirtualIps::hold() {
  for (const auto& holder : holders_) holder->hold();
}

void VirtualIps::take_over() {
  for (const auto& holder : holders_) holder->take_over();
}

void VirtualIps::set_frozen(bool is_frozen) {
  for (const auto& holder : holders_) holder->set_frozen(is_frozen);
}

void VirtualIps::release() {
  for (const auto& holder : holders_) holder->release();
}

std::vector<VirtualIpStatus> VirtualIps::status() const {
  std::vector<VirtualIpStatus> status;
  status.reserve(holders_.size());
  for (const auto& holder : holders_) {
    status.push_back({holder->name(), std::string(to_string(holder->state())), holder->reason()});
  }
  return status;
}

}  // namespace replblk::node
