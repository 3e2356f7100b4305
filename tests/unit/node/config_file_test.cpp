#include "node/config_file.hpp"

#include <algorithm>

#include "config_fixture.hpp"

namespace replblk::node {
namespace {

// A default that drifts from the schema changes what every installation does.
TEST_F(ConfigFile, Smallest_pair_gets_the_defaults_of_the_schema) {
  const auto config = parse(pair_with());
  ASSERT_TRUE(config) << complaints(pair_with());
  EXPECT_EQ(config->name, "store1");
  EXPECT_TRUE(config->is_pair());
  EXPECT_EQ(config->self, 0);
  EXPECT_EQ(config->nodes[1].address, "192.0.2.2");
  EXPECT_EQ(config->secret, "0123456789abcdef0123456789abcdef");
  EXPECT_EQ(config->replication_port, 7789);
  EXPECT_EQ(config->admin_socket, "/run/replblk/control.sock");
  EXPECT_EQ(config->buffer_memory_mib, 64u);
  EXPECT_EQ(config->connect_interval, seconds(1));
  EXPECT_EQ(config->ping_interval, seconds(1));
  EXPECT_EQ(config->ping_timeout, seconds(2));
  EXPECT_EQ(config->peer_timeout, seconds(2));
  EXPECT_EQ(config->flush_interval, seconds(1));
  ASSERT_EQ(config->resources.size(), 1u);
  const ResourceConfig& resource = config->resources[0];
  EXPECT_EQ(resource.target.port, 3260);
  EXPECT_TRUE(resource.target.portal_addresses.empty());
  EXPECT_EQ(resource.resync.rate_max_bytes_per_second, 0u);
  EXPECT_TRUE(resource.activity_log.updates);
  EXPECT_EQ(resource.activity_log.extents, 4096u);
  EXPECT_EQ(resource.resync.rate_min_bytes_per_second, 1024u * 1024);
  EXPECT_EQ(resource.resync.latency_budget, 0.2);
  EXPECT_EQ(resource.resync.checksum, ChecksumUse::automatic);
  ASSERT_EQ(resource.volumes.size(), 1u);
  EXPECT_TRUE(resource.volumes[0].write_cache);
  EXPECT_EQ(resource.volumes[0].logical_block_bytes, 512u);
  EXPECT_EQ(resource.volumes[0].disks[1].path, "/dev/vdb");
  EXPECT_EQ(resource.volumes[0].disks[1].io_mode, IoMode::direct);
  EXPECT_EQ(resource.volumes[0].disks[1].metadata_path, "");
}

TEST_F(ConfigFile, Every_key_that_is_given_arrives) {
  const std::string text = R"(
cluster {
  name: "c"  node { name: "one" address: "::1" admin_socket: "/run/x//one.sock" buffer_memory_mib: 128 }
  replication_port: 7001  connect_interval_ms: 100  ping_interval_ms: 200  ping_timeout_ms: 300  peer_timeout_ms: 400
  flush_interval_ms: 500
}
resource {
  name: "r"
  target { iqn: "eui.02004567A425678D" alias: "a disk" port: 3261 portal { address: "::1" } portal { on: "one" address: "127.0.0.1" } }
  volume { lun: 255  disk { on: "one" path: "/a" metadata_path: "/m" io_mode: buffered timeout_ms: 1000 stall_timeout_ms: 500 }  write_cache: false  logical_block_size: 4096 }
  resync { rate_max_kib_per_second: 10 rate_min_kib_per_second: 5 latency_budget: 0.5 checksum: never }
  activity_log { extents: 1237 updates: false }
})";
  const auto config = parse(text, "", "one.example.org");
  ASSERT_TRUE(config) << complaints(text, "", "one.example.org");
  EXPECT_FALSE(config->is_pair());
  EXPECT_EQ(config->secret, "");
  EXPECT_EQ(config->admin_socket, "/run/x/one.sock");
  EXPECT_EQ(config->buffer_memory_mib, 128u);
  EXPECT_EQ(config->replication_port, 7001);
  EXPECT_EQ(config->connect_interval, milliseconds(100));
  EXPECT_EQ(config->ping_interval, milliseconds(200));
  EXPECT_EQ(config->ping_timeout, milliseconds(300));
  EXPECT_EQ(config->peer_timeout, milliseconds(400));
  EXPECT_EQ(config->flush_interval, milliseconds(500));
  const ResourceConfig& resource = config->resources[0];
  EXPECT_EQ(resource.target.alias, "a disk");
  EXPECT_EQ(resource.target.port, 3261);
  EXPECT_EQ(resource.target.portal_addresses, (std::vector<std::string>{"::1", "127.0.0.1"}));
  EXPECT_EQ(resource.volumes[0].lun, 255);
  EXPECT_FALSE(resource.volumes[0].write_cache);
  EXPECT_EQ(resource.volumes[0].logical_block_bytes, 4096u);
  EXPECT_EQ(resource.volumes[0].disks[0].metadata_path, "/m");
  EXPECT_EQ(resource.volumes[0].disks[0].io_mode, IoMode::buffered);
  EXPECT_EQ(resource.volumes[0].disks[0].timeout, seconds(1));
  EXPECT_EQ(resource.volumes[0].disks[0].stall_timeout, milliseconds(500));
  EXPECT_EQ(resource.resync.rate_max_bytes_per_second, 10240u);
  EXPECT_FALSE(resource.activity_log.updates);
  EXPECT_EQ(resource.activity_log.extents, 1237u);
  EXPECT_EQ(resource.resync.rate_min_bytes_per_second, 5120u);
  EXPECT_EQ(resource.resync.latency_budget, 0.5);
  EXPECT_EQ(resource.resync.checksum, ChecksumUse::never);
}

struct Bad {
  std::string_view from;
  std::string_view to;
  std::string_view message;  ///< after "node.conf:"; whole
};

// Each rule once: a rule that no longer fires lets a mistake through to the disks or to the initiators.
TEST_F(ConfigFile, Each_broken_rule_is_named_with_its_place_key_value_and_rule) {
  constexpr std::string_view kName =
      "a name is 1 to 63 letters, digits, '_', '.' or '-', and begins with a letter or digit";
  const std::string name_rule(kName);
  const std::vector<Bad> table = {
      {"name: \"store1\"", "name: \"store 1\"", "2:3: cluster.name: \"store 1\" is not a name; NAME"},
      {"  name: \"store1\"\n", "\n", "1:1: cluster.name: is missing; NAME"},
      {"\"beta\"", "\"Alpha\"",
       "4:10: cluster.node[1].name: \"Alpha\" is used twice; each node has its own name (case does not count)\n"
       "node.conf:11:3: resource[0].volume[0].disk: is missing; node \"Alpha\" has no copy of this volume; each node "
       "has one\n"
       "node.conf:14:12: resource[0].volume[0].disk[1].on: \"Alpha\" is used twice; each node has one copy of a "
       "volume\n"
       "node.conf:14:24: resource[0].volume[0].disk[1].path: \"/dev/vdb\" is used twice on node \"alpha\" (also by "
       "resource[0].volume[0].disk[0].path); a device or file holds one thing"},
      {"  node { name: \"beta\" address: \"192.0.2.2\" }", "  node { name: \"beta\" }",
       "4:3: cluster.node[1].address: is missing; a numeric IPv4 or IPv6 address, without brackets, zone or prefix "
       "length"},
      {"192.0.2.2", "beta.example.org",
       "4:23: cluster.node[1].address: \"beta.example.org\" is not an address; a numeric IPv4 or IPv6 address, without "
       "brackets, "
       "zone or prefix length"},
      {"192.0.2.2", "192.0.2.1",
       "4:23: cluster.node[1].address: \"192.0.2.1\" is used twice; each node has its own address"},
      {"192.0.2.2", "0.0.0.0",
       "4:23: cluster.node[1].address: \"0.0.0.0\" is no node's address; the peer connects to it, so it names one "
       "host"},
      {"192.0.2.2", "224.0.0.9", "4:23: cluster.node[1].address: \"224.0.0.9\" is multicast; an address of one host"},
      {"address: \"192.0.2.2\" }", "address: \"192.0.2.2\" admin_socket: \"run/x\" }",
       "4:44: cluster.node[1].admin_socket: \"run/x\" cannot be used; a path is absolute"},
      {"address: \"192.0.2.2\" }", "address: \"192.0.2.2\" buffer_memory_mib: 15 }",
       "4:44: cluster.node[1].buffer_memory_mib: 15 is out of range; 16 to 65536"},
      {"  arbiter", "  node { name: \"c\" address: \"192.0.2.3\" }\n  arbiter",
       "6:3: cluster.node[2]: is one too many; a cluster has two nodes, or one without a mirror\n"
       "node.conf:12:3: resource[0].volume[0].disk: is missing; node \"c\" has no copy of this volume; each node has "
       "one"},
      {"  secret_file: \"SECRET\"\n", "\n",
       "1:1: cluster.secret_file: is missing; the nodes of a pair prove to each other who they are with a shared "
       "secret"},
      {"  secret_file: \"SECRET\"\n", "  secret_file: \"secret\"\n",
       "5:3: cluster.secret_file: \"secret\" cannot be used; a path is absolute"},
      {"arbiter { none {} }", "replication_port: 0", "6:3: cluster.replication_port: 0 is out of range; 1 to 65535"},
      {"arbiter { none {} }", "replication_port: 65536",
       "6:3: cluster.replication_port: 65536 is out of range; 1 to 65535"},
      {"arbiter { none {} }", "connect_interval_ms: 99",
       "6:3: cluster.connect_interval_ms: 99 is out of range; 100 to 120000"},
      {"arbiter { none {} }", "ping_interval_ms: 120001",
       "6:3: cluster.ping_interval_ms: 120001 is out of range; 100 to 120000"},
      {"arbiter { none {} }", "ping_timeout_ms: 30001",
       "6:3: cluster.ping_timeout_ms: 30001 is out of range; 100 to 30000"},
      {"arbiter { none {} }", "peer_timeout_ms: 60001",
       "6:3: cluster.peer_timeout_ms: 60001 is out of range; 100 to 60000"},
      {"arbiter { none {} }", "flush_interval_ms: 1",
       "6:3: cluster.flush_interval_ms: 1 is out of range; 100 to 60000"},
      {"path: \"/dev/vdb\" }\n  }", "path: \"/dev/vdb\" timeout_ms: 999 }\n  }",
       "14:40: resource[0].volume[0].disk[1].timeout_ms: 999 is out of range; 1000 to 600000"},
      {"name: \"data\"", "name: \"all\"",
       "9:3: resource[0].name: \"all\" is taken; replblkctl means every resource by it"},
      {"  name: \"data\"", "", "8:1: resource[0].name: is missing; NAME"},
      {"  target { iqn: \"iqn.2026-11.org.example:data\" }", "",
       "8:1: resource[0].target: is missing; a resource is served as one iSCSI target"},
      {"iqn: \"iqn.2026-11.org.example:data\"", "",
       "10:3: resource[0].target.iqn: is missing; an iSCSI name, as in iqn.2026-11.org.example:disk"},
      {"iqn.2026-11.org.example:data", "iqn.2026-11.org.example:Data",
       "10:12: resource[0].target.iqn: \"iqn.2026-11.org.example:Data\" is not an iSCSI name; an iSCSI name is lower "
       "case (RFC 7143 "
       "4.2.7.2)"},
      {"example:data\" }", "example:data\" alias: \"a\\nb\" }",
       "10:48: resource[0].target.alias: \"a\\x0ab\" cannot be sent; one line of at most 255 bytes"},
      {"example:data\" }", "example:data\" port: 0 }", "10:48: resource[0].target.port: 0 is out of range; 1 to 65535"},
      {"example:data\" }", "example:data\" port: 7789 }",
       "10:48: resource[0].target.port: 7789 is the replication port, on the same address; initiators and the peer "
       "need "
       "different ports or addresses"},
      {"example:data\" }", "example:data\" portal { on: \"gamma\" address: \"192.0.2.9\" } }",
       "10:57: resource[0].target.portal[0].on: there is no node \"gamma\"; the name of a node: alpha, beta"},
      {"example:data\" }", "example:data\" portal { address: \"store1\" } }",
       "10:57: resource[0].target.portal[0].address: \"store1\" is not an address; a numeric IPv4 or IPv6 address, "
       "without "
       "brackets, zone or prefix length"},
      {"example:data\" }", "example:data\" portal { address: \"::1\" } portal { address: \"0::1\" on: \"beta\" } }",
       "10:83: resource[0].target.portal[1].address: \"0::1\" is used twice; a portal of a target is named once"},
      {"    lun: 0\n", "\n", "11:3: resource[0].volume[0].lun: is missing; the logical unit number, 0 to 255"},
      {"lun: 0", "lun: 256", "12:5: resource[0].volume[0].lun: 256 is out of range; 0 to 255"},
      {"lun: 0", "lun: 0 logical_block_size: 520",
       "12:12: resource[0].volume[0].logical_block_size: 520 is not possible; 512 or 4096"},
      {"    disk { on: \"beta\" path: \"/dev/vdb\" }\n", "",
       "11:3: resource[0].volume[0].disk: is missing; node \"beta\" has no copy of this volume; each node has one"},
      {"on: \"beta\" path: \"/dev/vdb\"", "on: \"beta\"",
       "14:5: resource[0].volume[0].disk[1].path: is missing; the absolute path of the backing device or file"},
      {"on: \"beta\" path: \"/dev/vdb\"", "on: \"beta\" path: \"vdb\"",
       "14:23: resource[0].volume[0].disk[1].path: \"vdb\" cannot be used; a path is absolute"},
      {"on: \"beta\" path: \"/dev/vdb\"", "on: \"beta\" path: \"/dev/vdb\" metadata_path: \"/dev//vdb\"",
       "14:40: resource[0].volume[0].disk[1].metadata_path: \"/dev/vdb\" is used twice on node \"beta\" (also by "
       "resource[0].volume[0].disk[1].path); a device or file holds one thing"},
      {"    lun: 0\n", "    lun: 0\n    disk { path: \"/dev/vdc\" }\n",
       "13:5: resource[0].volume[0].disk[0].on: is missing; the name of a node: alpha, beta"},
      {"resource {", "resource {\n  activity_log { extents: 66 }",
       "9:18: resource[0].activity_log.extents: 66 is out of range; 67 to 65534"},
      {"resource {", "resource {\n  handlers { split_brain: \"\" }",
       "9:14: resource[0].handlers.split_brain: 0 bytes; a command for /bin/sh, 1 to 4096 bytes, without NUL"},
      {"path: \"/dev/vdb\" }\n  }", "path: \"/dev/vdb\" stall_timeout_ms: 499 }\n  }",
       "14:40: resource[0].volume[0].disk[1].stall_timeout_ms: 499 is out of range; 500 to 60000"},
      {"resource {", "resource {\n  handlers { timeout_ms: 25001 }",
       "9:14: resource[0].handlers.timeout_ms: 25001 is out of range; 100 to 25000"},
      {"resource {", "resource {\n  activity_log { extents: 65535 }",
       "9:18: resource[0].activity_log.extents: 65535 is out of range; 67 to 65534"},
      {"resource {", "resource {\n  resync { rate_max_kib_per_second: 4194305 }",
       "9:12: resource[0].resync.rate_max_kib_per_second: 4194305 is out of range; 0 to 4194304"},
      {"resource {", "resource {\n  resync { rate_min_kib_per_second: 0 }",
       "9:12: resource[0].resync.rate_min_kib_per_second: 0 is out of range; 1 to 4194304"},
      {"resource {", "resource {\n  resync { rate_min_kib_per_second: 9 rate_max_kib_per_second: 8 }",
       "9:12: resource[0].resync.rate_min_kib_per_second: 9 is too much; not above rate_max_kib_per_second, which is "
       "8"},
      {"resource {", "resource {\n  resync { latency_budget: 0 }",
       "9:12: resource[0].resync.latency_budget: 0 is out of range; 0.01 to 100"},
      {"resource {", "resource { undo_directory: \"undo\"",
       "8:12: resource[0].undo_directory: \"undo\" cannot be used; a path is absolute"},
      {"resource {", "resource { after_sb_0pri: \"discard-node-gamma\"",
       "8:12: resource[0].after_sb_0pri: \"discard-node-gamma\" names no node; after discard-node- comes the name of a "
       "node: alpha, beta"},
      {"resource {", "resource { after_sb_0pri: \"consensus\"",
       "8:12: resource[0].after_sb_0pri: \"consensus\" is not a policy here; disconnect, discard-node-NAME, "
       "discard-younger-primary, discard-older-primary, discard-zero-changes or discard-least-changes"},
      {"resource {", "resource { after_sb_1pri: \"call-pri-lost-after-sb\"",
       "8:12: resource[0].after_sb_1pri: \"call-pri-lost-after-sb\" needs a handler that reboots the node; replblk "
       "runs "
       "none and needs none: violently-as0p makes a Primary that gives up Secondary first"},
      {"resource {", "resource { after_sb_2pri: \"discard-secondary\"",
       "8:12: resource[0].after_sb_2pri: \"discard-secondary\" is not a policy here; disconnect or violently-as0p"},
      {"lun: 0", "lunn: 0",
       "11:3: resource[0].volume[0].lun: is missing; the logical unit number, 0 to 255\n"
       "node.conf:12:5: lunn: unknown key; known here are lun, disk, write_cache, logical_block_size"},
      // Errors of syntax: the parser stops at the first.
      {"lun: 0", "lun: -1", "12:10: lun: Expected integer, got: -; a number, 0 or more"},
      {"lun: 0", "lun: 99999999999", "12:10: lun: Integer out of range (99999999999); a number, 0 or more"},
      {"lun: 0", "lun: 0 write_cache: maybe",
       "12:12: write_cache: Invalid value for boolean field \"write_cache\". Value: \"maybe\"; true or false"},
      {"path: \"/dev/vdb\"", "path: \"/dev/vdb\" io_mode: odirect",
       "13:41: io_mode: Unknown enumeration value of \"odirect\" for field \"io_mode\"; one of direct, buffered"},
      {"name: \"data\"", "name: \"data\" name: \"data2\"",
       "9:16: name: Non-repeated field \"name\" is specified multiple times; a text in quotes"},
      {"name: \"data\"", "name: data", "9:9: name: Expected string, got: data; a text in quotes"},
      {"lun: 0", "lun: 0 ]", "12:12: Expected identifier, got: ]"},
  };
  for (const Bad& bad : table) {
    std::string expected = "node.conf:" + std::string(bad.message);
    if (expected.ends_with("NAME")) expected.replace(expected.size() - 4, 4, name_rule);
    EXPECT_EQ(complaints(pair_with(bad.from, bad.to)), expected) << bad.from << " -> " << bad.to;
  }
}

TEST_F(ConfigFile, Values_that_must_be_unique_in_the_file_are) {
  const std::string twice = pair_with() + R"(resource {
  name: "data"
  target { iqn: "iqn.2026-11.org.example:data" }
  volume { lun: 1  disk { on: "alpha" path: "/dev/vdc" }  disk { on: "beta" path: "/dev/vdc" } }
  volume { lun: 1  disk { on: "alpha" path: "/dev/./vdb" }  disk { on: "beta" path: "/dev/vdd" } }
}
)";
  EXPECT_EQ(
      complaints(twice),
      "node.conf:18:3: resource[1].name: \"data\" is used twice; each resource has its own name\n"
      "node.conf:19:12: resource[1].target.iqn: \"iqn.2026-11.org.example:data\" is used twice; each target has its "
      "own name\n"
      "node.conf:21:12: resource[1].volume[1].lun: 1 is used twice; each LUN of a resource must be unique\n"
      "node.conf:21:39: resource[1].volume[1].disk[0].path: \"/dev/vdb\" is used twice on node \"alpha\" (also by "
      "resource[0].volume[0].disk[0].path); a device or file holds one thing");
}

TEST_F(ConfigFile, All_unknown_keys_are_named_in_one_run) {
  EXPECT_EQ(
      complaints(pair_with("arbiter { none {} }", "heartbeats { lease_ms: 1000 }\n  vip: 3")),
      "node.conf:6:3: heartbeats: unknown key; known here are name, node, secret_file, replication_port, "
      "connect_interval_ms, "
      "ping_interval_ms, ping_timeout_ms, peer_timeout_ms, flush_interval_ms, arbiter, heartbeat\n"
      "node.conf:7:3: vip: unknown key; known here are name, node, secret_file, replication_port, connect_interval_ms, "
      "ping_interval_ms, ping_timeout_ms, peer_timeout_ms, flush_interval_ms, arbiter, heartbeat");
}

TEST_F(ConfigFile, Empty_and_binary_files_are_refused) {
  EXPECT_EQ(complaints(""),
            "node.conf:1:1: cluster: is missing; the file has one cluster\n"
            "node.conf:1:1: resource: is missing; there is at least one resource");
  EXPECT_NE(complaints(std::string("\x7f\x45LF\0\1\2", 7)).find("node.conf:1:1: "), std::string::npos);
}

// A secret that others can read, or a short one, is none.
TEST_F(ConfigFile, Secret_file_is_checked) {
  const auto with_secret = [&](const std::string& path) {
    std::string text(kPair);
    replace(text, "SECRET", path);
    return complaints(text);
  };
  const std::string good = "0123456789abcdef";
  EXPECT_EQ(with_secret(write("a", good)), "accepted");
  EXPECT_EQ(with_secret(write("b", good, 0640)), "accepted");
  EXPECT_EQ(with_secret(write("c", std::string(4096, 'x') + "\r\n")), "accepted");
  EXPECT_EQ(with_secret(write("d", good, 0604)),
            "node.conf:5:3: cluster.secret_file: \"DIR/d\" can be accessed by everybody; chmod 600 DIR/d");
  EXPECT_EQ(with_secret(write("e", "0123456789abcde\n\n")),
            "node.conf:5:3: cluster.secret_file: \"DIR/e\" holds only 15 bytes; a secret has 16 to 4096 bytes");
  EXPECT_EQ(with_secret(write("f", std::string(4097, 'x'))),
            "node.conf:5:3: cluster.secret_file: \"DIR/f\" holds more than 4096 bytes; a secret has 16 to 4096 bytes");
  EXPECT_EQ(with_secret(directory_ / "g"),
            "node.conf:5:3: cluster.secret_file: \"DIR/g\" does not exist; make it on one node (head -c 32 "
            "/dev/urandom | base64 > "
            "DIR/g) and copy it to the other");
  EXPECT_EQ(with_secret(directory_), "node.conf:5:3: cluster.secret_file: \"DIR\" is not a file; a file with a secret");
}

TEST_F(ConfigFile, Node_is_chosen_by_host_name_or_by_option) {
  EXPECT_EQ(parse(pair_with(), "", "beta")->self, 1);
  EXPECT_EQ(parse(pair_with(), "", "BETA.example.org")->self, 1);
  EXPECT_EQ(parse(pair_with(), "beta", "alpha")->self, 1);
  EXPECT_EQ(complaints(pair_with(), "", "gamma.example.org"),
            "node.conf:3:3: cluster.node[0]: none has the name of this host, \"gamma.example.org\"; choose one with "
            "--node: alpha, beta");
  EXPECT_EQ(complaints(pair_with(), "gamma"),
            "node.conf:3:3: cluster.node[0]: there is no node \"gamma\", as --node says; the nodes are alpha, beta");
}

TEST_F(ConfigFile, Portals_of_the_other_node_are_not_this_ones) {
  const std::string text =
      pair_with("example:data\" }",
                "example:data\" portal { on: \"alpha\" address: \"127.0.0.1\" } portal { on: \"beta\" address: "
                "\"127.0.0.2\" } portal { address: \"192.0.2.100\" } }");
  EXPECT_EQ(parse(text, "alpha")->resources[0].target.portal_addresses,
            (std::vector<std::string>{"127.0.0.1", "192.0.2.100"}));
  EXPECT_EQ(parse(text, "beta")->resources[0].target.portal_addresses,
            (std::vector<std::string>{"127.0.0.2", "192.0.2.100"}));
}

TEST_F(ConfigFile, A_virtual_ip_has_a_device_on_each_node) {
  const auto with = [&](const std::string& ip) {
    return pair_with("name: \"data\"", "name: \"data\" virtual_ip { " + ip + " }");
  };
  const std::string one_name = with(R"(address: "2001:DB8::100/64" device: "eth0")");
  for (const char* node : {"alpha", "beta"}) {
    const auto config = parse(one_name, node);
    ASSERT_TRUE(config);
    ASSERT_EQ(config->resources[0].virtual_ips.size(), 1u);
    EXPECT_EQ(config->resources[0].virtual_ips[0].address, "2001:db8::100");
    EXPECT_EQ(config->resources[0].virtual_ips[0].prefix_bits, 64u);
    EXPECT_EQ(config->resources[0].virtual_ips[0].device, "eth0");
  }
  const std::string two_names = with(R"(address: "192.0.2.100/24" interface { on: "alpha" device: "eth0" } )"
                                     R"(interface { on: "beta" device: "ens18" })");
  EXPECT_EQ(parse(two_names, "alpha")->resources[0].virtual_ips[0].device, "eth0");
  EXPECT_EQ(parse(two_names, "beta")->resources[0].virtual_ips[0].device, "ens18");

  const std::string at = "node.conf:9:16: resource[0].virtual_ip[0]";
  EXPECT_EQ(complaints(with(R"(device: "eth0")")),
            at + ".address: is missing; a numeric address and the length of its prefix, as in 192.0.2.100/24");
  for (const char* bad :
       {"192.0.2.100", "192.0.2.100/0", "192.0.2.100/33", "192.0.2.100/024", "0.0.0.0/8", "224.0.0.9/24", "x/24"}) {
    EXPECT_EQ(complaints(with("address: \"" + std::string(bad) + "\" device: \"eth0\"")),
              "node.conf:9:29: resource[0].virtual_ip[0].address: \"" + std::string(bad) +
                  "\" cannot be used; a numeric address and the length of its prefix, as in 192.0.2.100/24");
  }
  EXPECT_EQ(complaints(with(R"(address: "192.0.2.1/24" device: "eth0")")),
            "node.conf:9:29: resource[0].virtual_ip[0].address: \"192.0.2.1/24\" is the address of a node; an address "
            "that moves "
            "is no node's own");
  EXPECT_EQ(complaints(with(R"(address: "192.0.2.100/24")")),
            at + ".device: is missing; the name of a network interface, or an `interface` for each node, and not both");
  EXPECT_EQ(complaints(with(R"(address: "192.0.2.100/24" device: "a/b")")),
            "node.conf:9:55: resource[0].virtual_ip[0].device: \"a/b\" is no name of an interface; 1 to 15 letters "
            "without '/' and "
            "blanks");
  EXPECT_EQ(complaints(with(R"(address: "192.0.2.100/24" interface { on: "alpha" device: "eth0" })")),
            at + ".interface: is missing; one interface for each node");
}

// Initiators are sent nowhere else than where the other node is: not to an address that moves, not where a file forbids
// it.
TEST_F(ConfigFile, Initiators_are_sent_to_what_is_the_other_nodes_alone) {
  const auto sent_to = [&](const std::string& target) {
    return parse(pair_with("example:data\" }", "example:data\" " + target + " }"), "alpha")
        ->resources[0]
        .target.peer_portal_addresses;
  };
  EXPECT_EQ(sent_to(""), std::vector<std::string>{"192.0.2.2"});
  EXPECT_EQ(sent_to("redirect: false"), std::vector<std::string>{});
  EXPECT_EQ(sent_to(R"(portal { address: "192.0.2.100" })"), std::vector<std::string>{});
  const std::string portals = R"(portal { address: "192.0.2.100" } portal { on: "alpha" address: "198.51.100.1" } )"
                              R"(portal { on: "beta" address: "198.51.100.2" })";
  EXPECT_EQ(sent_to(portals), std::vector<std::string>{"198.51.100.2"});
  EXPECT_EQ(sent_to(portals + " redirect: false"), std::vector<std::string>{});
  EXPECT_EQ(sent_to(R"(portal { on: "alpha" address: "0.0.0.0" } portal { on: "beta" address: "0.0.0.0" })"),
            std::vector<std::string>{});
}

// The handshake compares these lines: what one node fills in by itself must not be among them.
TEST_F(ConfigFile, Shared_fields_are_the_same_on_both_nodes_and_name_a_difference) {
  const std::vector<std::string> expected = {"cluster.name=store1",
                                             "cluster.node[0].name=alpha",
                                             "cluster.node[0].address=192.0.2.1",
                                             "cluster.node[1].name=beta",
                                             "cluster.node[1].address=192.0.2.2",
                                             "cluster.replication_port=7789",
                                             "cluster.heartbeat.port=7789",
                                             "cluster.arbiter=none",
                                             "resource[0].name=data",
                                             "resource[0].target.iqn=iqn.2026-11.org.example:data",
                                             "resource[0].target.alias=",
                                             "resource[0].preferred_node=",
                                             "resource[0].failback_after_s=0",
                                             "resource[0].after_sb_0pri=disconnect",
                                             "resource[0].after_sb_1pri=disconnect",
                                             "resource[0].after_sb_2pri=disconnect",
                                             "resource[0].volume[0].lun=0",
                                             "resource[0].volume[0].write_cache=true",
                                             "resource[0].volume[0].logical_block_size=512"};
  EXPECT_EQ(parse(pair_with(), "alpha")->shared_fields, expected);
  EXPECT_EQ(parse(pair_with("example:data\" }", "example:data\" portal { on: \"beta\" address: \"::1\" } }"), "beta")
                ->shared_fields,
            expected);
  std::vector<std::string> other = expected;
  other[16] = "resource[0].volume[0].lun=7";
  EXPECT_EQ(parse(pair_with("lun: 0", "lun: 7"), "beta")->shared_fields, other);
}

// Broken if a policy were read as another one, or the two nodes could have different ones without a word.
TEST_F(ConfigFile, Split_policies_are_read_and_shared) {
  const auto config = parse(pair_with("resource {",
                                      "resource { after_sb_0pri: \"discard-node-BETA\" after_sb_1pri: \"consensus\" "
                                      "after_sb_2pri: \"violently-as0p\""));
  ASSERT_TRUE(config);
  EXPECT_EQ(config->resources[0].after_split_brain,
            (replication::SplitPolicies{replication::AfterSb0::discard_node, 1, replication::AfterSb1::consensus,
                                        replication::AfterSb2::violently_as0p}));
  for (const char* line : {"resource[0].after_sb_0pri=discard-node-beta", "resource[0].after_sb_1pri=consensus",
                           "resource[0].after_sb_2pri=violently-as0p"}) {
    EXPECT_NE(std::ranges::find(config->shared_fields, line), config->shared_fields.end()) << line;
  }
  EXPECT_EQ(parse(pair_with())->resources[0].after_split_brain, replication::SplitPolicies{});
}

// Broken if an event ran another one's command, or the nodes had to have the same programs.
TEST_F(ConfigFile, Handlers_are_each_nodes_own) {
  const auto config = parse(pair_with("resource {",
                                      "resource { handlers { split_brain: \"/bin/mail root\" "
                                      "before_resync_target: \"snap $DRBD_VOLUME\" timeout_ms: 5000 }"));
  ASSERT_TRUE(config);
  HandlersConfig expected;
  expected.commands[static_cast<std::size_t>(HandlerEvent::split_brain)] = "/bin/mail root";
  expected.commands[static_cast<std::size_t>(HandlerEvent::before_resync_target)] = "snap $DRBD_VOLUME";
  expected.timeout = seconds(5);
  EXPECT_EQ(config->resources[0].handlers.commands, expected.commands);
  EXPECT_EQ(config->resources[0].handlers.timeout, expected.timeout);
  EXPECT_EQ(config->shared_fields, parse(pair_with())->shared_fields);
}

// An example that does not load is worse than none.
TEST_F(ConfigFile, Example_in_docs_is_accepted) {
  std::ifstream stream(REPLBLK_EXAMPLE);
  std::string text((std::istreambuf_iterator<char>(stream)), {});
  replace(text, "secret_file: \"/etc/replblk/secret\"", "secret_file: \"" + (directory_ / "secret").string() + "\"");
  EXPECT_EQ(complaints(text, "", "pcmk-2"), "accepted");
}

TEST_F(ConfigFile, Files_that_cannot_be_read_are_refused_in_words) {
  const auto sentence = [](const std::string& path) {
    return load_config({.path = path, .node_name = "alpha", .host_name = ""}).error().at(0);
  };
  EXPECT_EQ(sentence(directory_), directory_.string() + ": is a directory, not a configuration file");
  EXPECT_EQ(sentence("/nonexistent/node.conf"),
            "/nonexistent/node.conf: does not exist; write it (an example is in docs/node.conf.example) or name "
            "another with --config");
  const std::string path = write("node.conf", pair_with());
  EXPECT_TRUE(load_config({.path = path, .node_name = "alpha", .host_name = ""}));
}

}  // namespace
}  // namespace replblk::node
