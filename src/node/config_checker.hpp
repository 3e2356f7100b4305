// The rules of node.conf between its values, and the ClusterConfig that a file which keeps them all becomes. One pass
// over the whole file; every error is reported with its place. Rules of single values are in config_rules. The sections
// of the file have a source file each: config_cluster, config_arbiter, config_resource, config_target, config_volume.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "node/config.hpp"
#include "node/config_file.hpp"
#include "node/config_rules.hpp"
#include "node/config_text.hpp"

namespace replblk::node {

class ConfigChecker {
 public:
  ConfigChecker(const LoadOptions& options, const ConfigSection& root) : options_(options), root_(root) {}

  /// Meaningless once anything was complained of.
  [[nodiscard]] ClusterConfig run();

 private:
  struct DiskUse {
    std::size_t node;
    std::string path;
    friend auto operator<=>(const DiskUse&, const DiskUse&) = default;
  };

  // config_checker.cpp: what several sections need
  static void check_name(const ConfigSection& section, const char* key);
  /// The address when it is one of a host; complains otherwise.
  static std::optional<Address> check_address(const ConfigSection& section, const char* key);
  /// The path in its normal spelling; empty after a complaint.
  static std::string check_path(const ConfigSection& section, const char* key);
  /// Likewise of a directory, without the slash at its end.
  static std::string check_directory(const ConfigSection& section, const char* key);
  [[nodiscard]] std::optional<std::size_t> find_node(std::string_view name) const;
  [[nodiscard]] std::string node_names() const;
  /// The node that `on` names; complains otherwise.
  std::optional<std::size_t> check_on(const ConfigSection& section);

  void check_cluster(const ConfigSection& section);
  void check_node(const ConfigSection& section);
  void choose_self(const ConfigSection& section);
  void check_secret(const ConfigSection& section);
  HeartbeatConfig check_heartbeat(const ConfigSection& section);
  HeartbeatPathConfig check_heartbeat_path(const ConfigSection& section);

  ArbiterConfig check_arbiter(const ConfigSection& section);
  EtcdConfig check_etcd(const ConfigSection& section);
  static void check_tls(const ConfigSection& section, EtcdConfig& made);
  PingConfig check_ping(const ConfigSection& section);

  void check_resource(const ConfigSection& section);
  static HandlersConfig check_handlers(const ConfigSection& section);
  VirtualIpConfig check_virtual_ip(const ConfigSection& section);
  static ResyncConfig check_resync(const ConfigSection& section);
  replication::SplitPolicies check_split_policies(const ConfigSection& section);

  TargetConfig check_target(const ConfigSection& section);
  void check_port_collision(const ConfigSection& section, const TargetConfig& made);

  VolumeConfig check_volume(const ConfigSection& section);
  DiskConfig check_disk(const ConfigSection& section, std::optional<std::size_t> node);
  void claim_path(const ConfigSection& section, const char* key, const std::string& path,
                  std::optional<std::size_t> node);

  const LoadOptions& options_;
  const ConfigSection& root_;
  ClusterConfig config_;
  std::set<std::string> node_addresses_;
  std::set<std::string> path_addresses_;
  std::set<std::string> probed_addresses_;
  std::set<std::string> virtual_addresses_;
  std::set<std::string> resource_names_;
  std::set<std::string> target_names_;
  std::map<DiskUse, std::string> disk_uses_;
};

}  // namespace replblk::node
