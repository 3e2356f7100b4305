#include <fmt/format.h>

#include <algorithm>

#include "config_fixture.hpp"

namespace replblk::node {
namespace {

constexpr std::string_view kPath =
    R"(heartbeat { path { end { on: "alpha" address: "10.1.0.1" } end { on: "beta" address: "10.1.0.2" } } })";
constexpr std::string_view kNone = "arbiter { none {} }";

class ConfigArbiter : public ConfigFile {
 protected:
  [[nodiscard]] std::string with_arbiter(std::string_view kind) const {
    return pair_with(kNone, "arbiter { " + std::string(kind) + " }");
  }
  /// kPath after `from` became `to`.
  [[nodiscard]] std::string with_path(std::string_view from, std::string_view to) const {
    std::string text(kPath);
    replace(text, from, to);
    return pair_with(kNone, text);
  }
};

// Broken if a path were read the wrong way round: each node would bind the other's address.
TEST_F(ConfigArbiter, Heartbeats_are_read_and_their_ways_shared) {
  const auto config = parse(with_path("heartbeat {", "heartbeat { interval_ms: 50 lease_ms: 250 port: 7000 "), "beta");
  ASSERT_TRUE(config);
  HeartbeatConfig expected;
  expected.interval = milliseconds(50);
  expected.lease = milliseconds(250);
  expected.port = 7000;
  expected.paths = {{{"10.1.0.1", "10.1.0.2"}}};
  EXPECT_EQ(config->heartbeat, expected);
  EXPECT_EQ(parse(pair_with())->heartbeat, HeartbeatConfig{});
  for (const char* line : {"cluster.heartbeat.port=7000", "cluster.heartbeat.path[0]=10.1.0.1 10.1.0.2"}) {
    EXPECT_NE(std::ranges::find(config->shared_fields, line), config->shared_fields.end()) << line;
  }
  const auto swapped =
      parse(with_path(R"(end { on: "alpha" address: "10.1.0.1" } end { on: "beta" address: "10.1.0.2" })",
                      R"(end { on: "beta" address: "10.1.0.2" } end { on: "alpha" address: "10.1.0.1" })"));
  EXPECT_EQ(swapped->heartbeat.paths, expected.paths);
}

// Broken if a pair without a third party served alone after a while by default: both nodes would.
TEST_F(ConfigArbiter, Who_is_preferred_and_who_waits_how_long_is_read) {
  const auto with = [&](std::string_view keys) { return pair_with("resource {", "resource { " + std::string(keys)); };
  const ResourceConfig plain = parse(pair_with())->resources.front();
  EXPECT_EQ(plain.preferred_node, blockdev::kNoNode);
  EXPECT_FALSE(plain.failback_after.has_value());
  EXPECT_FALSE(plain.degraded_start_after.has_value());
  const auto config = parse(with(R"(preferred_node: "beta" failback_after_s: 60 degraded_start_after_s: 30)"));
  const ResourceConfig& made = config->resources.front();
  EXPECT_EQ(made.preferred_node, 1);
  EXPECT_EQ(made.failback_after, seconds(60));
  EXPECT_EQ(made.degraded_start_after, seconds(30));
  for (const char* line : {"resource[0].preferred_node=beta", "resource[0].failback_after_s=60"})
    EXPECT_NE(std::ranges::find(config->shared_fields, line), config->shared_fields.end()) << line;
  const auto etcd = parse(with_arbiter(R"(etcd { endpoint: "http://192.0.2.9:2379" })"));
  EXPECT_EQ(etcd->resources.front().degraded_start_after, seconds(120));
  EXPECT_FALSE(parse(with("degraded_start_after_s: 0"))->resources.front().degraded_start_after.has_value());
  for (const auto& [keys, rule] : {std::pair{R"(preferred_node: "gamma")", "there is no node \"gamma\""},
                                   {"failback_after_s: 60", "preferred_node: is missing; where the role goes back to"},
                                   {"degraded_start_after_s: 9", "9 is out of range; 10 to 86400"}}) {
    const std::string refused = complaints(with(keys));
    EXPECT_NE(refused.find(rule), std::string::npos) << refused;
  }
}

TEST_F(ConfigArbiter, Etcd_is_read) {
  const std::string password = write("password", "a password\n");
  const std::string ca = write("ca.pem", "x", 0644);
  const std::string cert = write("cert.pem", "x", 0644);
  const std::string key = write("key.pem", "x");
  const auto config = parse(with_arbiter(
      R"(etcd { endpoint: "https://192.0.2.9:2379" endpoint: "https://[2001:db8::0:9]:2380" user: "store" password_file: ")" +
      password + R"(" tls { ca_file: ")" + ca + R"(" cert_file: ")" + cert + R"(" key_file: ")" + key +
      R"(" server_name: "etcd.example" } timeout_ms: 700 })"));
  ASSERT_TRUE(config);
  const auto& etcd = std::get<EtcdConfig>(config->arbiter);
  EXPECT_EQ(etcd.endpoints, (std::vector<ports::Endpoint>{{"192.0.2.9", 2379}, {"2001:db8::9", 2380}}));
  EXPECT_TRUE(etcd.has_tls);
  EXPECT_EQ(etcd.user, "store");
  EXPECT_EQ(etcd.password, "a password");
  EXPECT_EQ((std::array{etcd.ca_file, etcd.cert_file, etcd.key_file, etcd.server_name}),
            (std::array<std::string, 4>{ca, cert, key, "etcd.example"}));
  EXPECT_EQ(etcd.timeout, milliseconds(700));
  EXPECT_NE(std::ranges::find(config->shared_fields, "cluster.arbiter=etcd"), config->shared_fields.end());
  const auto plain = parse(with_arbiter(R"(etcd { endpoint: "http://192.0.2.9:2379" })"));
  EXPECT_FALSE(std::get<EtcdConfig>(plain->arbiter).has_tls);
  EXPECT_EQ(std::get<EtcdConfig>(plain->arbiter).timeout, seconds(1));
}

TEST_F(ConfigArbiter, Ping_is_read) {
  const auto config = parse(with_arbiter(R"(ping { address: "192.0.2.254" address: "[2001:db8::1]:22" })"));
  ASSERT_TRUE(config);
  const auto& ping = std::get<PingConfig>(config->arbiter);
  EXPECT_EQ(ping.addresses, (std::vector<ports::Endpoint>{{"192.0.2.254", 0}, {"2001:db8::1", 22}}));
  EXPECT_EQ(ping.timeout, seconds(3));
  EXPECT_NE(std::ranges::find(config->shared_fields, "cluster.arbiter=ping"), config->shared_fields.end());
  EXPECT_TRUE(std::holds_alternative<NoArbiterConfig>(parse(pair_with())->arbiter));
}

// Broken if a path that reaches nobody, or is no second path, passed for one.
TEST_F(ConfigArbiter, Each_broken_rule_of_a_heartbeat_is_named) {
  struct Bad {
    std::string_view from, to, message;
  };
  const Bad table[] = {
      {"heartbeat {", "heartbeat { interval_ms: 19",
       "6:15: cluster.heartbeat.interval_ms: 19 is out of range; 20 to 2000"},
      {"heartbeat {", "heartbeat { lease_ms: 30001",
       "6:15: cluster.heartbeat.lease_ms: 30001 is out of range; 200 to 30000"},
      {"heartbeat {", "heartbeat { lease_ms: 499",
       "6:15: cluster.heartbeat.lease_ms: a lease of 499 ms and an interval of 100 ms are too near; the lease is at "
       "least 5 times the interval"},
      {"heartbeat {", "heartbeat { interval_ms: 201",
       "6:15: cluster.heartbeat.interval_ms: a lease of 1000 ms and an interval of 201 ms are too near; the lease is "
       "at least 5 times the interval"},
      {"heartbeat {", "heartbeat { port: 0", "6:15: cluster.heartbeat.port: 0 is out of range; 1 to 65535"},
      {R"(on: "beta")", R"(on: "gamma")",
       "6:15: cluster.heartbeat.path[0].end: is missing; a path has one end on each node\n"
       "node.conf:6:68: cluster.heartbeat.path[0].end[1].on: there is no node \"gamma\"; the name of a node: alpha, "
       "beta"},
      {R"(on: "beta")", R"(on: "alpha")",
       "6:15: cluster.heartbeat.path[0].end: is missing; a path has one end on each node\n"
       "node.conf:6:68: cluster.heartbeat.path[0].end[1].on: \"alpha\" is used twice; a path has one end on each "
       "node"},
      {R"( end { on: "beta" address: "10.1.0.2" })", "",
       "6:15: cluster.heartbeat.path[0].end: is missing; a path has one end on each node"},
      {"10.1.0.2", "10.1.0.1",
       "6:79: cluster.heartbeat.path[0].end[1].address: \"10.1.0.1\" is used twice; each end of a path has an address "
       "of its own"},
      {"10.1.0.2", "192.0.2.2",
       "6:79: cluster.heartbeat.path[0].end[1].address: \"192.0.2.2\" is the address of a node; the nodes' addresses "
       "are a path already, without being named here"},
      {"10.1.0.2", "0.0.0.0",
       "6:79: cluster.heartbeat.path[0].end[1].address: \"0.0.0.0\" is no node's address; the peer sends to it, so it "
       "names one host"},
      {"10.1.0.2", "beta",
       "6:79: cluster.heartbeat.path[0].end[1].address: \"beta\" is not an address; a numeric IPv4 or IPv6 address, "
       "without brackets, zone or prefix length"},
      {"10.1.0.2", "2001:db8::2",
       "6:22: cluster.heartbeat.path[0].end[0]: IPv4 does not reach IPv6; both ends of a path are of one family"},
  };
  for (const Bad& bad : table) {
    EXPECT_EQ(complaints(with_path(bad.from, bad.to)), "node.conf:" + std::string(bad.message))
        << bad.from << " -> " << bad.to;
  }
  std::string many;
  for (int index = 0; index < 17; ++index)
    many += fmt::format(
        "path {{ end {{ on: \"alpha\" address: \"10.1.{0}.1\" }} end {{ on: \"beta\" address: "
        "\"10.1.{0}.2\" }} }}\n",
        index);
  EXPECT_EQ(complaints(pair_with(kNone, "heartbeat {\n" + many + "}")),
            "node.conf:23:1: cluster.heartbeat.path[16]: is one too many; at most 16 paths");
}

TEST_F(ConfigArbiter, Each_broken_rule_of_an_arbiter_is_named) {
  const std::string etcd = R"(etcd { endpoint: "https://192.0.2.9:2379" )";
  const std::string form = "; http:// or https://, a numeric address and a port, as in \"https://192.0.2.9:2379\"";
  const std::string open_file = write("open", "x", 0644);
  const std::string closed_file = write("closed", "x");
  const auto file_of = [](const std::string& path) { return "\"" + path + "\""; };
  struct Bad {
    std::string arbiter, message;
  };
  const Bad table[] = {
      {"", "6:3: cluster.arbiter.none: is missing; an arbiter is none, etcd or ping"},
      {"etcd {}", "6:13: cluster.arbiter.etcd.endpoint: is missing; where etcd is, as in \"https://192.0.2.9:2379\""},
      {R"(etcd { endpoint: "192.0.2.9:2379" })",
       "6:20: cluster.arbiter.etcd.endpoint[0]: \"192.0.2.9:2379\" cannot be used" + form},
      {R"(etcd { endpoint: "http://etcd:2379" })",
       "6:20: cluster.arbiter.etcd.endpoint[0]: \"http://etcd:2379\" cannot be used" + form},
      {R"(etcd { endpoint: "http://0.0.0.0:2379" })",
       "6:20: cluster.arbiter.etcd.endpoint[0]: \"http://0.0.0.0:2379\" cannot be used" + form},
      {etcd + R"(endpoint: "http://192.0.2.10:2379" })",
       "6:55: cluster.arbiter.etcd.endpoint[1]: \"http://192.0.2.10:2379\" is of another scheme than the first one; "
       "all are http, or all https"},
      {etcd + R"(endpoint: "https://192.0.2.9:2379/" })",
       "6:55: cluster.arbiter.etcd.endpoint[1]: \"https://192.0.2.9:2379/\" is used twice; each is named once"},
      {R"(etcd { endpoint: "http://192.0.2.1:2379" endpoint: "http://192.0.2.2:2379" })",
       "6:20: cluster.arbiter.etcd.endpoint[0]: etcd is on the nodes only; an arbiter is a third party: what ends a "
       "node must not end it, too"},
      {etcd + "timeout_ms: 199 }", "6:55: cluster.arbiter.etcd.timeout_ms: 199 is out of range; 200 to 30000"},
      {etcd + R"(user: "store" })",
       "6:13: cluster.arbiter.etcd.password_file: is missing; a user and a password, or neither"},
      {etcd + R"(user: "" password_file: ")" + closed_file + "\" }",
       "6:55: cluster.arbiter.etcd.user: \"\" is not a user; 1 to 255 bytes, without control characters"},
      {etcd + R"(user: "store" password_file: ")" + open_file + "\" }",
       "6:69: cluster.arbiter.etcd.password_file: \"DIR/open\" can be accessed by everybody; chmod 600 DIR/open"},
      {etcd + R"(user: "store" password_file: "/nonexistent" })",
       "6:69: cluster.arbiter.etcd.password_file: \"/nonexistent\" does not exist; write the password of the user "
       "store to it"},
      {R"(etcd { endpoint: "http://192.0.2.9:2379" tls {} })",
       "6:54: cluster.arbiter.etcd.tls: the endpoints are http; only with https"},
      {etcd + R"(tls { ca_file: "/nonexistent" } })",
       "6:61: cluster.arbiter.etcd.tls.ca_file: \"/nonexistent\" cannot be used: No such file or directory; a file "
       "with certificates"},
      {etcd + "tls { cert_file: " + file_of(open_file) + " } }",
       "6:55: cluster.arbiter.etcd.tls.key_file: is missing; a certificate and its key, or neither"},
      {etcd + "tls { cert_file: " + file_of(open_file) + " key_file: " + file_of(open_file) + " } }",
       "KEY: cluster.arbiter.etcd.tls.key_file: \"DIR/open\" can be accessed by everybody; chmod 600 DIR/open"},
      {etcd + R"(tls { server_name: "a b" } })",
       "6:61: cluster.arbiter.etcd.tls.server_name: \"a b\" is not a name; 1 to 253 bytes, without blanks"},
      {"ping {}",
       "6:13: cluster.arbiter.ping.address: is missing; an address that answers unless this node is cut off: the "
       "gateway"},
      {R"(ping { address: "gateway" })",
       "6:20: cluster.arbiter.ping.address[0]: \"gateway\" cannot be used; a numeric address, with a port for TCP, as "
       "in \"192.0.2.1\" or \"192.0.2.1:22\""},
      {R"(ping { address: "192.0.2.254" address: "192.0.2.254" })",
       "6:43: cluster.arbiter.ping.address[1]: \"192.0.2.254\" is used twice; each is named once"},
      {R"(ping { address: "192.0.2.2:7789" })",
       "6:20: cluster.arbiter.ping.address[0]: \"192.0.2.2:7789\" is an address of a node; it must answer when the "
       "peer is dead, and only while this node is connected"},
      {R"(ping { address: "127.0.0.1" })",
       "6:20: cluster.arbiter.ping.address[0]: \"127.0.0.1\" is this host itself; it must answer only while this node "
       "is connected to something else"},
      {R"(ping { address: "192.0.2.254" timeout_ms: 99 })",
       "6:43: cluster.arbiter.ping.timeout_ms: 99 is out of range; 100 to 10000"},
  };
  for (const Bad& bad : table) {
    std::string expected = "node.conf:" + bad.message;
    // Where this one stands depends on the length of the directory's name.
    std::string found = complaints(with_arbiter(bad.arbiter));
    if (bad.message.starts_with("KEY: ")) {
      expected = bad.message.substr(5);
      found = found.substr(std::min(found.size(), found.find(": ") + 2));
    }
    EXPECT_EQ(found, expected) << bad.arbiter;
  }
  EXPECT_NE(complaints(with_arbiter("none {} ping {}")).find("another member of oneof"), std::string::npos);
}

// Broken if the address that moves were taken for one that tells something about the network.
TEST_F(ConfigArbiter, Virtual_addresses_are_neither_probed_nor_paths) {
  std::string text = with_arbiter(R"(ping { address: "192.0.2.100" })");
  replace(text, "target {", "virtual_ip { address: \"192.0.2.100/24\" device: \"eth0\" } target {");
  EXPECT_EQ(complaints(text),
            "node.conf:10:16: resource[0].virtual_ip[0].address: \"192.0.2.100/24\" is an address that the arbiter "
            "pings; the node that holds it would hear itself");
  text = with_path("10.1.0.2", "10.1.0.100");
  replace(text, "target {", "virtual_ip { address: \"10.1.0.100/24\" device: \"eth0\" } target {");
  EXPECT_EQ(complaints(text),
            "node.conf:10:16: resource[0].virtual_ip[0].address: \"10.1.0.100/24\" is an end of a heartbeat's path; an "
            "address that moves is no node's own");
}

TEST_F(ConfigArbiter, One_node_has_neither) {
  const auto single = [&](std::string_view what) {
    std::string text = pair_with(kNone, what);
    replace(text, "  node { name: \"beta\" address: \"192.0.2.2\" }\n", "");
    replace(text, "    disk { on: \"beta\" path: \"/dev/vdb\" }\n", "");
    return complaints(text);
  };
  EXPECT_EQ(single("heartbeat {}"), "node.conf:5:3: cluster.heartbeat: there is one node; a node alone hears nobody");
  EXPECT_EQ(single(R"(arbiter { ping { address: "192.0.2.254" } })"),
            "node.conf:5:3: cluster.arbiter: there is one node; an arbiter decides between two");
  EXPECT_EQ(single(kNone), "accepted");
}

}  // namespace
}  // namespace replblk::node
