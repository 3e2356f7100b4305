#include "ports/virtual_ip.hpp"

#include <fmt/format.h>

namespace replblk::ports {

std::string to_string(const HardwareAddress& address) {
  const auto& b = address.bytes;
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2], b[3], b[4], b[5]);
}

}  // namespace replblk::ports
