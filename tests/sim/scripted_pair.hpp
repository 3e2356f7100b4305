// Two whole nodes in simulated time for tests that say what happens, step by step.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <memory>

#include "sim_host.hpp"
#include "stamp.hpp"

namespace replblk::sim {

struct ScriptedPair {
  static constexpr std::uint64_t kDataBytes = 1 << 20;

  /// What the seed decides: latencies, and what a power cut leaves of a write cache. `edit`: what else is to be so.
  explicit ScriptedPair(std::uint64_t seed = 1, const std::function<void(RunOptions&)>& edit = {})
      : options(draw_options(1, 1, true)), timeline(seed), fabric(timeline, options.network) {
    options.has_write_cache = true;
    if (edit) edit(options);
    for (blockdev::NodeIndex node = 0; node < 2; ++node) hosts[node] = std::make_unique<SimHost>(fabric, options, node);
  }
  ~ScriptedPair() {
    for (const auto& host : hosts) {
      if (host->is_running()) host->kill();
    }
  }
  [[nodiscard]] static Uuid uuid() {
    Uuid uuid;
    uuid.bytes.fill(std::byte{1});
    return uuid;
  }
  /// Each node's copy is full of its own value.
  void begin(const blockdev::ResourceRecord& first, const blockdev::ResourceRecord& second) {
    for (blockdev::NodeIndex node = 0; node < 2; ++node) {
      for (std::uint64_t sector = 0; sector < kDataBytes / kSectorBytes; ++sector) {
        std::byte bytes[kSectorBytes];
        write_stamp(bytes, node + 1u, sector);
        hosts[node]->data().preset(sector * kSectorBytes, bytes);
      }
      static_cast<void>(hosts[node]->create_metadata(uuid(), node == 0 ? first : second));
      // Of what a crashed primary was writing nothing is narrowed down: all of it.
      if (node == 0 && first.is_primary_open) hosts[node]->spoil_activity_log();
      hosts[node]->start();
    }
  }
  /// The link between the nodes, both ways.
  void cut(bool is_cut) {
    fabric.link(hosts[0]->address(), hosts[1]->address()).is_cut = is_cut;
    fabric.link(hosts[1]->address(), hosts[0]->address()).is_cut = is_cut;
  }
  void run(Duration duration) { timeline.run_until(timeline.now() + duration); }
  void request(std::size_t node, const node::AdminRequest& request) {
    replies[node] = {};
    hosts[node]->request(
        request, [] { return true; }, [this, node](const node::AdminReply& reply) { replies[node] = reply; });
    run(milliseconds(100));
  }
  node::ResourceStatus status(std::size_t node) { return hosts[node]->node()->status().resources.front(); }
  bool is_established() {
    return std::ranges::all_of(hosts, [](const auto& host) {
      const auto view = host->inspect();
      return view && view->phase == node::LinkPhase::established && view->record->configuration.is_pair();
    });
  }
  /// How many sectors of this node's copy hold what node `whose` had.
  std::size_t sectors_of(std::size_t node, std::size_t whose) {
    std::size_t count = 0;
    for (std::uint64_t sector = 0; sector < kDataBytes / kSectorBytes; ++sector) {
      count += read_stamp(hosts[node]->data().content() + sector * kSectorBytes, sector) == whose + 1 ? 1u : 0u;
    }
    return count;
  }

  RunOptions options;
  Timeline timeline;
  SimFabric fabric;
  std::array<std::unique_ptr<SimHost>, 2> hosts;
  std::array<node::AdminReply, 2> replies;
};

}  // namespace replblk::sim
