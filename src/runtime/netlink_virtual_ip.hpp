// ports::VirtualIp on a Linux network device: rtnetlink (libnl-route) for the address with its lifetime
// (IFA_CACHEINFO), packet sockets for probes and announcements. Needs CAP_NET_ADMIN and CAP_NET_RAW. Each call is a
// system call or a few; the kernel answers netlink requests inside the call.
#pragma once

#include <memory>
#include <string>

#include "ports/virtual_ip.hpp"

namespace replblk::runtime {

struct VirtualIpOptions {
  std::string address;  ///< numeric IPv4 or IPv6
  unsigned prefix_bits = 32;
  std::string device;  ///< name of the interface; it need not be there yet
};

[[nodiscard]] std::unique_ptr<ports::VirtualIp> make_virtual_ip(const VirtualIpOptions& options);

}  // namespace replblk::runtime
