#include "node/config_rules.hpp"

#include <gtest/gtest.h>

namespace replblk::node {
namespace {

// An initiator refuses, or worse normalizes, a target name that is not one.
TEST(ConfigRules, Iscsi_names_follow_the_standard) {
  for (const std::string_view good :
       {"iqn.2026-11.org.example:iscsi-data", "iqn.2001-04.com.example", "iqn.2001-04.com.example:a:b.c-d",
        "eui.02004567A425678D", "naa.52004567BA64678D", "naa.62004567BA64678D0123456789ABCDEF"}) {
    EXPECT_FALSE(iscsi_name_violation(good)) << good;
  }
  for (const std::string_view bad :
       {"", "iqn.", "iqn.2026-13.org.example", "iqn.2026-00.org.example", "iqn.2026-11", "iqn.2026-11.",
        "iqn.2026-11.org.", "iqn.26-11.org.example:x", "iqn.2026-11.org.example:", "iqn.2026-11.-org:x",
        "iqn.2026-11.Org.example:x", "iqn.2026-11.org.example:X", "iqn.2026-11.org.example:a b",
        "iqn.2026-11.org.example:a_b", "eui.02004567A425678", "eui.02004567A425678Z", "naa.52004567BA64678D00",
        "disk0"}) {
    EXPECT_TRUE(iscsi_name_violation(bad)) << bad;
  }
  EXPECT_FALSE(iscsi_name_violation("iqn.2026-11.org.example:" + std::string(199, 'x')));
  EXPECT_TRUE(iscsi_name_violation("iqn.2026-11.org.example:" + std::string(200, 'x')));
}

// Two spellings of one address would pass as two nodes.
TEST(ConfigRules, Addresses_are_numeric_and_compare_by_value) {
  EXPECT_EQ(parse_address("0:0::1")->canonical, parse_address("::1")->canonical);
  EXPECT_TRUE(parse_address("0.0.0.0")->is_unspecified);
  EXPECT_TRUE(parse_address("::")->is_unspecified);
  EXPECT_TRUE(parse_address("224.0.0.1")->is_multicast);
  EXPECT_TRUE(parse_address("ff02::1")->is_multicast);
  EXPECT_TRUE(parse_address("127.3.0.1")->is_loopback);
  EXPECT_TRUE(parse_address("0::1")->is_loopback);
  EXPECT_FALSE(parse_address("192.0.2.127")->is_loopback);
  for (const std::string_view bad : {"", "localhost", "10.0.0.1/24", "[::1]", "fe80::1%eth0", "10.0.0", "10.0.0.256"}) {
    EXPECT_FALSE(parse_address(bad)) << bad;
  }
  EXPECT_FALSE(parse_address(std::string_view("10.0.0.1\0x", 10)));
}

// A port that is dropped or an IPv6 address that loses its end would be another host, or none.
TEST(ConfigRules, Endpoints_are_an_address_and_a_port) {
  const auto both = [](std::string_view text) {
    const auto parsed = parse_address_and_port(text);
    return parsed ? parsed->address.canonical + " " + std::to_string(parsed->port) : "refused";
  };
  EXPECT_EQ(both("192.0.2.1"), "192.0.2.1 0");
  EXPECT_EQ(both("192.0.2.1:80"), "192.0.2.1 80");
  EXPECT_EQ(both("2001:db8::0:1"), "2001:db8::1 0");
  EXPECT_EQ(both("[2001:db8::1]:65535"), "2001:db8::1 65535");
  for (const std::string_view bad :
       {"", ":", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:080", "192.0.2.1:65536", "192.0.2.1:1e3", "192.0.2.1:-1",
        "[192.0.2.1]:80", "[2001:db8::1]", "[2001:db8::1]:", "2001:db8::1]:80", "[2001:db8::1:80", "gateway:80"})
    EXPECT_EQ(both(bad), "refused") << bad;
  EXPECT_TRUE(parse_endpoint_url("https://192.0.2.9:2379")->has_tls);
  EXPECT_FALSE(parse_endpoint_url("http://[2001:db8::9]:2379/")->has_tls);
  EXPECT_EQ(parse_endpoint_url("http://[2001:db8::9]:2379/")->endpoint.port, 2379);
  for (const std::string_view bad : {"192.0.2.9:2379", "https://192.0.2.9", "ftp://192.0.2.9:2379", "http://",
                                     "https://etcd:2379", "http://192.0.2.9:2379/v3", "http://user@192.0.2.9:2379"})
    EXPECT_FALSE(parse_endpoint_url(bad)) << bad;
}

TEST(ConfigRules, Names_and_paths) {
  EXPECT_TRUE(is_name("pcmk-1.example_a"));
  for (const std::string_view bad : {"", "-a", ".a", "a b", "a/b", "\xc3\xa4"}) EXPECT_FALSE(is_name(bad)) << bad;
  EXPECT_TRUE(is_name(std::string(63, 'a')));
  EXPECT_FALSE(is_name(std::string(64, 'a')));
  EXPECT_TRUE(is_same_name("Alpha", "aLPHA"));
  EXPECT_FALSE(is_same_name("alpha", "alpha2"));
  EXPECT_EQ(normal_path("//dev/./x//../vdb"), "/dev/vdb");
  EXPECT_FALSE(path_violation("/dev/vdb"));
  for (const std::string_view bad : {"", "dev/vdb", "/dev/", "/dev/\nvdb"}) EXPECT_TRUE(path_violation(bad)) << bad;
}

}  // namespace
}  // namespace replblk::node
