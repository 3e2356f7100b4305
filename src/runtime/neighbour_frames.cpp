#include "runtime/neighbour_frames.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace replblk::runtime {

namespace {

using ports::HardwareAddress;
using Bytes = std::span<const std::uint8_t>;

constexpr std::size_t kHardwareBytes = 6;
constexpr std::size_t kEthernetBytes = 14;
constexpr std::uint16_t kTypeArp = 0x0806;
constexpr std::uint16_t kTypeIpv6 = 0x86dd;
constexpr std::size_t kArpBytes = 28;
constexpr std::uint8_t kArpRequest = 1;
constexpr std::uint8_t kArpReply = 2;
constexpr std::size_t kIpv6HeaderBytes = 40;
constexpr std::size_t kIpv6Bytes = 16;
constexpr std::uint8_t kNextHeaderIcmpv6 = 58;
constexpr std::uint8_t kNeighbourSolicitation = 135;
constexpr std::uint8_t kNeighbourAdvertisement = 136;
constexpr std::uint8_t kTargetLinkLayerAddress = 2;
constexpr std::uint8_t kOverride = 0x20;
constexpr HardwareAddress kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
constexpr HardwareAddress kNobody{};
const IpBytes kAllNodes = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

void append(Frame& frame, Bytes bytes) { frame.insert(frame.end(), bytes.begin(), bytes.end()); }
void append_u16(Frame& frame, std::size_t value) {
  frame.push_back(static_cast<std::uint8_t>(value >> 8));
  frame.push_back(static_cast<std::uint8_t>(value));
}
std::uint16_t u16(Bytes bytes, std::size_t at) { return static_cast<std::uint16_t>(bytes[at] << 8 | bytes[at + 1]); }

Frame ethernet(const HardwareAddress& to, const HardwareAddress& from, std::uint16_t type) {
  Frame frame;
  append(frame, to.bytes);
  append(frame, from.bytes);
  append_u16(frame, type);
  return frame;
}

Frame arp(std::uint8_t operation, const HardwareAddress& own, const IpBytes& sender, const HardwareAddress& about,
          const IpBytes& target) {
  Frame frame = ethernet(kBroadcast, own, kTypeArp);
  append(frame, std::array<std::uint8_t, 6>{0, 1, 8, 0, kHardwareBytes, 4});
  append_u16(frame, operation);
  append(frame, own.bytes);
  append(frame, sender);
  append(frame, about.bytes);
  append(frame, target);
  return frame;
}

/// RFC 4443 2.3, over the pseudo-header of RFC 8200 8.1. Zero for a message that carries its right checksum.
std::uint16_t checksum(Bytes source, Bytes destination, Bytes message) {
  std::uint32_t sum = static_cast<std::uint32_t>(message.size()) + kNextHeaderIcmpv6;
  for (const Bytes part : {source, destination, message}) {
    for (std::size_t at = 0; at < part.size(); at += 2)
      sum += static_cast<std::uint32_t>(part[at] << 8 | (at + 1 < part.size() ? part[at + 1] : 0));
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

Frame icmpv6(const HardwareAddress& own, const IpBytes& source, const IpBytes& destination, Frame message) {
  const std::uint16_t sum = checksum(source, destination, message);
  message[2] = static_cast<std::uint8_t>(sum >> 8);
  message[3] = static_cast<std::uint8_t>(sum);
  // RFC 2464 7: a multicast address's frames go to 33:33 and its last four bytes.
  const HardwareAddress to{{0x33, 0x33, destination[12], destination[13], destination[14], destination[15]}};
  Frame frame = ethernet(to, own, kTypeIpv6);
  append(frame, std::array<std::uint8_t, 4>{0x60, 0, 0, 0});
  append_u16(frame, message.size());
  frame.push_back(kNextHeaderIcmpv6);
  frame.push_back(255);  // RFC 4861 7.1: a hop limit of 255 proves that the sender is on the link.
  append(frame, source);
  append(frame, destination);
  append(frame, message);
  return frame;
}

std::optional<HardwareAddress> arp_claimant(Bytes frame, const IpBytes& address, bool probes_count) {
  if (frame.size() < kEthernetBytes + kArpBytes) return std::nullopt;
  const Bytes body = frame.subspan(kEthernetBytes, kArpBytes);
  if (u16(body, 2) != 0x0800 || body[4] != kHardwareBytes || body[5] != 4) return std::nullopt;
  const Bytes sender = body.subspan(14, 4);
  const Bytes target = body.subspan(24, 4);
  // A probe by somebody else for the address (RFC 5227 2.1.1) is a conflict as well.
  const bool is_probe =
      probes_count && u16(body, 6) == kArpRequest && std::ranges::all_of(sender, [](auto byte) { return byte == 0; });
  if (!std::ranges::equal(sender, address) && !(is_probe && std::ranges::equal(target, address))) return std::nullopt;
  HardwareAddress from;
  std::ranges::copy(body.subspan(8, kHardwareBytes), from.bytes.begin());
  return from;
}

std::optional<HardwareAddress> advertisement_claimant(Bytes frame, const IpBytes& address, bool probes_count) {
  constexpr std::size_t kMessageBytesMin = 24;
  if (frame.size() < kEthernetBytes + kIpv6HeaderBytes + kMessageBytesMin) return std::nullopt;
  const Bytes header = frame.subspan(kEthernetBytes, kIpv6HeaderBytes);
  const std::size_t length = u16(header, 4);
  if (header[6] != kNextHeaderIcmpv6 || header[7] != 255 || length < kMessageBytesMin) return std::nullopt;
  if (frame.size() < kEthernetBytes + kIpv6HeaderBytes + length) return std::nullopt;
  const Bytes message = frame.subspan(kEthernetBytes + kIpv6HeaderBytes, length);
  if (checksum(header.subspan(8, kIpv6Bytes), header.subspan(24, kIpv6Bytes), message) != 0) return std::nullopt;
  const Bytes source = header.subspan(8, kIpv6Bytes);
  const bool is_probe = probes_count && message[0] == kNeighbourSolicitation &&
                        std::ranges::all_of(source, [](auto byte) { return byte == 0; });
  if (message[0] != kNeighbourAdvertisement && !is_probe) return std::nullopt;
  if (!std::ranges::equal(message.subspan(8, kIpv6Bytes), address)) return std::nullopt;
  HardwareAddress from;
  std::ranges::copy(frame.subspan(kHardwareBytes, kHardwareBytes), from.bytes.begin());
  return from;
}

}  // namespace

Frame make_probe(const HardwareAddress& own, const IpBytes& address) {
  if (address.size() == 4) return arp(kArpRequest, own, {0, 0, 0, 0}, kNobody, address);
  RB_ASSERT(address.size() == kIpv6Bytes);
  Frame message = {kNeighbourSolicitation, 0, 0, 0, 0, 0, 0, 0};
  append(message, address);
  // RFC 4291 2.7.1: the solicited-node multicast address.
  const IpBytes solicited = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, address[13], address[14], address[15]};
  return icmpv6(own, IpBytes(kIpv6Bytes), solicited, std::move(message));
}

std::vector<Frame> make_announcements(const HardwareAddress& own, const IpBytes& address) {
  if (address.size() == 4)
    return {arp(kArpRequest, own, address, kNobody, address), arp(kArpReply, own, address, own, address)};
  RB_ASSERT(address.size() == kIpv6Bytes);
  Frame message = {kNeighbourAdvertisement, 0, 0, 0, kOverride, 0, 0, 0};
  append(message, address);
  append(message, std::array<std::uint8_t, 2>{kTargetLinkLayerAddress, 1});
  append(message, own.bytes);
  return {icmpv6(own, address, kAllNodes, std::move(message))};
}

std::optional<HardwareAddress> claimant(Bytes frame, const HardwareAddress& own, const IpBytes& address,
                                        bool probes_count) {
  if (frame.size() < kEthernetBytes) return std::nullopt;
  const std::uint16_t type = u16(frame, 12);
  std::optional<HardwareAddress> from;
  if (type == kTypeArp && address.size() == 4) from = arp_claimant(frame, address, probes_count);
  if (type == kTypeIpv6 && address.size() == kIpv6Bytes) from = advertisement_claimant(frame, address, probes_count);
  return from == own ? std::nullopt : from;
}

}  // namespace replblk::runtime
