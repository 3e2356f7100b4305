#include "runtime/neighbour_frames.hpp"

#include <gtest/gtest.h>

namespace replblk::runtime {
namespace {

using ports::HardwareAddress;

constexpr HardwareAddress kOwn{{2, 0, 0, 0, 0, 1}};
constexpr HardwareAddress kOther{{2, 0, 0, 0, 0, 9}};
const IpBytes kV4 = {192, 0, 2, 100};
const IpBytes kV6 = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56};

// RFC 5227 2.1.1: with the address as sender a probe would itself poison the neighbours' caches.
TEST(NeighbourFrames, An_ARP_probe_has_no_sender_address) {
  EXPECT_EQ(make_probe(kOwn, kV4),
            (Frame{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0,   6, 4, 0,
                   1,    2,    0,    0,    0,    0,    1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 100}));
}

// Hosts differ in which of the two forms they heed; with one of them missing some keep talking to the dead node.
TEST(NeighbourFrames, IPv4_is_announced_as_request_and_as_reply) {
  const std::vector<Frame> frames = make_announcements(kOwn, kV4);
  ASSERT_EQ(frames.size(), 2u);
  for (std::size_t n = 0; n < 2; ++n) {
    ASSERT_EQ(frames[n].size(), 42u);
    EXPECT_EQ(frames[n][21], n + 1);
    EXPECT_TRUE(std::equal(kV4.begin(), kV4.end(), frames[n].begin() + 28));
    EXPECT_TRUE(std::equal(kV4.begin(), kV4.end(), frames[n].begin() + 38));
    EXPECT_EQ(claimant(frames[n], kOther, kV4), kOwn);
    EXPECT_EQ(claimant(frames[n], kOwn, kV4), std::nullopt) << "one's own is no conflict";
    EXPECT_EQ(claimant(frames[n], kOther, {192, 0, 2, 101}), std::nullopt);
  }
}

// RFC 4861 7.2.6; a wrong checksum or hop limit is dropped by every receiver.
TEST(NeighbourFrames, IPv6_is_announced_by_an_advertisement_to_all_nodes_that_overrides) {
  const std::vector<Frame> frames = make_announcements(kOwn, kV6);
  ASSERT_EQ(frames.size(), 1u);
  const Frame& frame = frames[0];
  ASSERT_EQ(frame.size(), 14u + 40 + 32);
  EXPECT_EQ(Frame(frame.begin(), frame.begin() + 6), (Frame{0x33, 0x33, 0, 0, 0, 1}));
  EXPECT_EQ(frame[21], 255);
  EXPECT_EQ(frame[54], 136);
  EXPECT_EQ(frame[58], 0x20);
  EXPECT_EQ(claimant(frame, kOther, kV6), kOwn);
  Frame spoiled = frame;
  spoiled.back() ^= 1;
  EXPECT_EQ(claimant(spoiled, kOther, kV6), std::nullopt);
}

// Two clusters that are given one address by mistake start at the same time.
TEST(NeighbourFrames, Somebody_elses_probe_is_a_claim) {
  EXPECT_EQ(claimant(make_probe(kOther, kV4), kOwn, kV4), kOther);
  EXPECT_EQ(claimant(make_probe(kOther, kV6), kOwn, kV6), kOther);
  // Who has it keeps it: a switch may ask in that way, too.
  EXPECT_EQ(claimant(make_probe(kOther, kV4), kOwn, kV4, false), std::nullopt);
  EXPECT_EQ(claimant(make_probe(kOther, kV6), kOwn, kV6, false), std::nullopt);
}

TEST(NeighbourFrames, What_is_cut_short_says_nothing) {
  for (const IpBytes& address : {kV4, kV6}) {
    const Frame whole = make_announcements(kOwn, address).front();
    for (std::size_t length = 0; length < whole.size(); ++length)
      EXPECT_EQ(claimant({whole.data(), length}, kOther, address), std::nullopt) << length;
  }
}

}  // namespace
}  // namespace replblk::runtime
