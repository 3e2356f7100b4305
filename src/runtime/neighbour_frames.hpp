// The Ethernet frames that tell a network segment where an IP address is, and that ask whether somebody has it: ARP for
// IPv4 (RFC 826, RFC 5227, RFC 5944 4.6), neighbour discovery for IPv6 (RFC 4861, RFC 4862). Bytes only;
// NetlinkVirtualIp sends and receives them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ports/virtual_ip.hpp"

namespace replblk::runtime {

/// In network order; 4 bytes or 16.
using IpBytes = std::vector<std::uint8_t>;
using Frame = std::vector<std::uint8_t>;

/// "Does anybody have this address?": an ARP probe, whose sender address is 0 so that nobody learns from it (RFC
/// 5227 2.1.1), or a neighbour solicitation from the unspecified address (RFC 4862 5.4.2).
[[nodiscard]] Frame make_probe(const ports::HardwareAddress& own, const IpBytes& address);
/// "It is here": gratuitous ARP as request and as reply, since some hosts heed only one of them; or an unsolicited
/// neighbour advertisement with the override flag to all nodes.
[[nodiscard]] std::vector<Frame> make_announcements(const ports::HardwareAddress& own, const IpBytes& address);
/// Who says in this frame that it has `address`, or, if probes count, is about to take it; nullopt: nobody, or this
/// host itself. For who has the address already others' probes are no conflict (RFC 5227 2.4): switches send such, too.
/// A neighbour advertisement whose checksum is wrong says nothing.
[[nodiscard]] std::optional<ports::HardwareAddress> claimant(std::span<const std::uint8_t> frame,
                                                             const ports::HardwareAddress& own, const IpBytes& address,
                                                             bool probes_count = true);

}  // namespace replblk::runtime
