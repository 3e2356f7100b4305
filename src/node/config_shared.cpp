#include <fmt/format.h>

#include <array>

#include "node/config_file.hpp"

namespace replblk::node {

// Only what both nodes must agree on for the data or for what initiators see. Time-outs, paths and memory are not among
// it: a node that was restarted with a better value, or with a replaced device, must be able to join a peer that
// serves.
std::vector<std::string> make_shared_fields(const ClusterConfig& config) {
  std::vector<std::string> fields;
  fields.push_back(fmt::format("cluster.name={}", config.name));
  for (std::size_t index = 0; index < config.nodes.size(); ++index) {
    fields.push_back(fmt::format("cluster.node[{}].name={}", index, config.nodes[index].name));
    fields.push_back(fmt::format("cluster.node[{}].address={}", index, config.nodes[index].address));
  }
  fields.push_back(fmt::format("cluster.replication_port={}", config.replication_port));
  fields.push_back(fmt::format("cluster.heartbeat.port={}", config.heartbeat.port));
  for (std::size_t index = 0; index < config.heartbeat.paths.size(); ++index) {
    const auto& addresses = config.heartbeat.paths[index].addresses;
    fields.push_back(fmt::format("cluster.heartbeat.path[{}]={} {}", index, addresses[0], addresses[1]));
  }
  // Two arbiters would be none. Where one is reached each node may see differently.
  constexpr std::array kArbiterNames{"none", "etcd", "ping"};
  fields.push_back(fmt::format("cluster.arbiter={}", kArbiterNames[config.arbiter.index()]));
  for (std::size_t index = 0; index < config.resources.size(); ++index) {
    const ResourceConfig& resource = config.resources[index];
    fields.push_back(fmt::format("resource[{}].name={}", index, resource.name));
    fields.push_back(fmt::format("resource[{}].target.iqn={}", index, resource.target.iqn));
    fields.push_back(fmt::format("resource[{}].target.alias={}", index, resource.target.alias));
    for (std::size_t number = 0; number < resource.virtual_ips.size(); ++number) {
      const VirtualIpConfig& ip = resource.virtual_ips[number];
      fields.push_back(
          fmt::format("resource[{}].virtual_ip[{}].address={}/{}", index, number, ip.address, ip.prefix_bits));
    }
    // Two preferences would move the role back and forth.
    const std::string preferred =
        resource.preferred_node < config.nodes.size() ? config.nodes[resource.preferred_node].name : "";
    fields.push_back(fmt::format("resource[{}].preferred_node={}", index, preferred));
    const auto failback_s = std::chrono::duration_cast<seconds>(resource.failback_after.value_or(Duration{})).count();
    fields.push_back(fmt::format("resource[{}].failback_after_s={}", index, failback_s));
    // Each node evaluates them for both.
    const replication::SplitPolicies& policies = resource.after_split_brain;
    const std::string discarded =
        policies.discarded_node < config.nodes.size() ? config.nodes[policies.discarded_node].name : "";
    fields.push_back(
        fmt::format("resource[{}].after_sb_0pri={}{}", index, to_string(policies.without_primary), discarded));
    fields.push_back(fmt::format("resource[{}].after_sb_1pri={}", index, to_string(policies.with_one_primary)));
    fields.push_back(fmt::format("resource[{}].after_sb_2pri={}", index, to_string(policies.with_two_primaries)));
    for (std::size_t number = 0; number < resource.volumes.size(); ++number) {
      const VolumeConfig& volume = resource.volumes[number];
      const std::string key = fmt::format("resource[{}].volume[{}]", index, number);
      fields.push_back(fmt::format("{}.lun={}", key, volume.lun));
      fields.push_back(fmt::format("{}.write_cache={}", key, volume.write_cache));
      fields.push_back(fmt::format("{}.logical_block_size={}", key, volume.logical_block_bytes));
    }
  }
  return fields;
}

}  // namespace replblk::node
