#include "membership/heartbeat.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "membership/heartbeat_session.hpp"
#include "sim/seeded.hpp"

namespace replblk::membership {
namespace {

constexpr std::string_view kSecret = "sixteen bytes or more";
constexpr Duration kLease = seconds(1);
constexpr Instant at_ms(int ms) { return Instant(milliseconds(ms)); }

HeartbeatMessage full_message() {
  HeartbeatMessage message;
  message.header = {1,  3,         true,      0x1122334455667788, 9,         10, 11, 12,
                    13, at_ms(14), at_ms(15), milliseconds(16),   0x80000001};
  Heartbeat& content = message.content;
  content.configuration = {7, 3, 1};
  content.seen = 8;
  content.current = {6, 66};
  content.is_serving = content.is_outdated = content.is_maintenance = content.is_addressless = true;
  content.stamp = {9, {7, 3, 1}, at_ms(14), 1000};
  content.echo = {10, {7, 3, 0}, at_ms(4), 2000};
  content.request = {8, 88};
  content.reply = {5, 55};
  content.pair_id.bytes[0] = std::byte{6};
  content.pair_id.bytes[15] = std::byte{7};
  return message;
}

TEST(Heartbeat, What_is_encoded_is_decoded) {
  const auto decoded = decode_heartbeat(encode(full_message(), kSecret), kSecret);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(*decoded, full_message());
}

// The table of docs/heartbeat.md is the contract with the next release.
TEST(Heartbeat, Bytes_lie_where_the_documentation_says) {
  const HeartbeatBytes bytes = encode(full_message(), kSecret);
  EXPECT_EQ(as_text(std::span(bytes).first(4)), "RBH1");
  EXPECT_EQ(bytes[4], std::byte{2});
  EXPECT_EQ(bytes[5], std::byte{1});
  EXPECT_EQ(bytes[6], std::byte{3});
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[8]), 0x1122334455667788u);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[48]), 13u);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[80]), 7u);
  EXPECT_EQ(load_le<std::uint32_t>(&bytes[92]), 1u << 1 | 1u << 4 | 1u << 8 | 1u << 9);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[96]), 8u);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[120]), 9u);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[152]), 10u);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[184]), 8u);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[200]), 5u);
  EXPECT_EQ(load_le<std::uint32_t>(&bytes[216]), 0x80000001u);
  EXPECT_EQ(bytes[224], std::byte{6});
  EXPECT_EQ(bytes[239], std::byte{7});
  EXPECT_EQ(bytes.size(), 272u);
}

// One bit that may be changed on its way is one lease that may be forged.
TEST(Heartbeat, Any_flipped_bit_is_noticed) {
  const HeartbeatBytes good = encode(full_message(), kSecret);
  for (std::size_t bit = 0; bit < kHeartbeatBytes * 8; ++bit) {
    HeartbeatBytes bytes = good;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FALSE(decode_heartbeat(bytes, kSecret).has_value()) << "bit " << bit;
  }
}

TEST(Heartbeat, Garbage_other_sizes_and_other_secrets_are_refused) {
  const HeartbeatBytes good = encode(full_message(), kSecret);
  EXPECT_EQ(decode_heartbeat(good, "another secret of it").error(), HeartbeatError::not_authentic);
  for (std::size_t count = 0; count < kHeartbeatBytes; ++count) {
    EXPECT_EQ(decode_heartbeat(std::span(good).first(count), kSecret).error(), HeartbeatError::wrong_size);
  }
  std::vector<std::byte> longer(good.begin(), good.end());
  longer.push_back(std::byte{0});
  EXPECT_EQ(decode_heartbeat(longer, kSecret).error(), HeartbeatError::wrong_size);
  sim::Seeded random(1);
  for (int round = 0; round < 1000; ++round) {
    HeartbeatBytes bytes{};
    random.fill(bytes);
    EXPECT_FALSE(decode_heartbeat(bytes, kSecret).has_value());
    std::ranges::copy(std::span(good).first(5), bytes.begin());
    EXPECT_EQ(decode_heartbeat(bytes, kSecret).error(), HeartbeatError::not_authentic);
  }
}

// Authentic, and yet nonsense: another release's, or a bug. Nothing of it may reach the machine.
TEST(Heartbeat, Fields_out_of_range_are_refused) {
  const auto refuses = [](auto change) {
    HeartbeatMessage message = full_message();
    change(message);
    const auto decoded = decode_heartbeat(encode(message, kSecret), kSecret);
    return !decoded.has_value() && decoded.error() == HeartbeatError::bad_field;
  };
  EXPECT_TRUE(refuses([](HeartbeatMessage& message) { message.header.sender = 2; }));
  EXPECT_TRUE(refuses([](HeartbeatMessage& message) { message.header.path = 32; }));
  EXPECT_TRUE(refuses([](HeartbeatMessage& message) { message.header.incarnation = 0; }));
  EXPECT_TRUE(refuses([](HeartbeatMessage& message) { message.header.counter = 0; }));
  EXPECT_TRUE(refuses([](HeartbeatMessage& message) { message.header.held_for = Duration(-1); }));
  EXPECT_TRUE(refuses([](HeartbeatMessage& message) { message.content.configuration.members = 4; }));
  EXPECT_TRUE(refuses([](HeartbeatMessage& message) { message.content.configuration.primary = 2; }));
  EXPECT_TRUE(refuses([](HeartbeatMessage& message) { message.content.stamp.configuration.primary = 7; }));
  EXPECT_TRUE(refuses([](HeartbeatMessage& message) { message.content.echo.configuration.members = 9; }));
}

HeartbeatSession session(blockdev::NodeIndex self, std::uint64_t incarnation, std::size_t paths_count = 1) {
  return HeartbeatSession({self, incarnation, resource_key("c", "r"), std::string(kSecret), paths_count});
}

Heartbeat content_of_term(std::uint64_t term) {
  Heartbeat content;
  content.configuration = {term, 3, 0};
  return content;
}

/// One datagram each way and the answers to them, until nobody has anything to answer.
void introduce(HeartbeatSession& one, HeartbeatSession& two) {
  HeartbeatBytes bytes = one.seal({}, 0, at_ms(1), kLease);
  HeartbeatSession* to = &two;
  HeartbeatSession* from = &one;
  for (int turn = 0; turn < 6; ++turn) {
    const auto received = to->open(bytes, 0, at_ms(1));
    if (received.reply.has_value()) {
      bytes = *received.reply;
    } else {
      bytes = to->seal({}, 0, at_ms(1), kLease);
    }
    std::swap(to, from);
  }
}

TEST(HeartbeatSession, Two_nodes_come_to_believe_each_other_and_hear_each_content_once) {
  HeartbeatSession one = session(0, 100);
  HeartbeatSession two = session(1, 200);
  introduce(one, two);
  ASSERT_EQ(one.peer_incarnation(), 200u);
  ASSERT_EQ(two.peer_incarnation(), 100u);
  const HeartbeatBytes bytes = one.seal(content_of_term(5), 0, at_ms(2), kLease);
  const auto first = two.open(bytes, 0, at_ms(3));
  ASSERT_TRUE(first.fresh.has_value());
  EXPECT_EQ(first.fresh->configuration.term, 5u);
  EXPECT_FALSE(two.open(bytes, 0, at_ms(4)).fresh.has_value());
  EXPECT_EQ(two.dropped().replayed, 1u);
}

// An overtaken heartbeat may still tell that its path lives, but its content is the past.
TEST(HeartbeatSession, Older_content_is_not_delivered_after_newer) {
  HeartbeatSession one = session(0, 100);
  HeartbeatSession two = session(1, 200);
  introduce(one, two);
  const HeartbeatBytes older = one.seal(content_of_term(5), 0, at_ms(2), kLease);
  const HeartbeatBytes newer = one.seal(content_of_term(6), 0, at_ms(2), kLease);
  EXPECT_TRUE(two.open(newer, 0, at_ms(3)).fresh.has_value());
  EXPECT_FALSE(two.open(older, 0, at_ms(4)).fresh.has_value());
  EXPECT_EQ(two.paths()[0].last_heard, at_ms(4));
}

// F11: whatever an earlier run of either daemon said must not count for this one.
TEST(HeartbeatSession, Nothing_from_before_a_restart_of_either_node_is_believed) {
  HeartbeatSession one = session(0, 100);
  HeartbeatSession two = session(1, 200);
  introduce(one, two);
  const HeartbeatBytes kept = one.seal(content_of_term(5), 0, at_ms(2), kLease);
  const HeartbeatBytes introduction = session(0, 100).seal({}, 0, at_ms(1), kLease);
  // The receiver restarts.
  HeartbeatSession two_again = session(1, 201);
  EXPECT_FALSE(two_again.open(kept, 0, at_ms(9)).fresh.has_value());
  EXPECT_EQ(two_again.peer_incarnation(), 0u);
  introduce(one, two_again);
  ASSERT_EQ(two_again.peer_incarnation(), 100u);
  // The sender restarts: what its first run said to this very receiver is kept and sent again.
  const HeartbeatBytes kept_for_second = one.seal(content_of_term(6), 0, at_ms(9), kLease);
  HeartbeatSession one_again = session(0, 101);
  introduce(one_again, two_again);
  ASSERT_EQ(two_again.peer_incarnation(), 101u);
  EXPECT_FALSE(two_again.open(kept_for_second, 0, at_ms(10)).fresh.has_value());
  const auto replayed = two_again.open(introduction, 0, at_ms(10));
  EXPECT_FALSE(replayed.is_new_incarnation);
  EXPECT_EQ(two_again.peer_incarnation(), 101u);
  EXPECT_TRUE(two_again.open(one_again.seal(content_of_term(7), 0, at_ms(11), kLease), 0, at_ms(11)).fresh.has_value());
}

TEST(HeartbeatSession, Own_datagrams_and_other_resources_are_not_the_peers) {
  HeartbeatSession one = session(0, 100);
  HeartbeatSession two = session(1, 200);
  introduce(one, two);
  EXPECT_FALSE(one.open(one.seal(content_of_term(5), 0, at_ms(2), kLease), 0, at_ms(2)).fresh.has_value());
  HeartbeatSession other({0, 100, resource_key("c", "other"), std::string(kSecret), 1});
  EXPECT_FALSE(two.open(other.seal({}, 0, at_ms(2), kLease), 0, at_ms(2)).reply.has_value());
  EXPECT_EQ(one.dropped().misdirected, 1u);
  EXPECT_EQ(two.dropped().misdirected, 1u);
  EXPECT_NE(resource_key("ab", "c"), resource_key("a", "bc"));
}

TEST(HeartbeatSession, Each_path_has_its_own_state_and_round_trip) {
  HeartbeatSession one = session(0, 100, 2);
  HeartbeatSession two = session(1, 200, 2);
  introduce(one, two);
  static_cast<void>(two.open(one.seal({}, 1, at_ms(10), kLease), 1, at_ms(13)));
  static_cast<void>(one.open(two.seal({}, 1, at_ms(20), kLease), 1, at_ms(24)));
  EXPECT_EQ(one.paths()[1].last_heard, at_ms(24));
  EXPECT_EQ(one.paths()[1].round_trip, milliseconds(7));
  EXPECT_TRUE(one.paths()[1].is_heard_by_peer);
  EXPECT_EQ(one.paths()[0].last_heard, at_ms(1));
  static_cast<void>(one.open(two.seal({}, 0, at_ms(5000), kLease), 0, at_ms(5001)));
  EXPECT_FALSE(one.paths()[0].is_heard_by_peer);
}

}  // namespace
}  // namespace replblk::membership
