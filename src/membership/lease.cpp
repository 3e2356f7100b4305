#include "membership/lease.hpp"

#include <algorithm>

namespace replblk::membership {

bool Lease::count(const Stamp& echo, const blockdev::Configuration& configuration, Instant now) noexcept {
  if (echo.is_none() || echo.incarnation != incarnation_ || echo.configuration != configuration || echo.t1 > now) {
    return false;
  }
  until_ = std::max(until_, echo.t1 + milliseconds(echo.lease_ms));
  return true;
}

void Promise::give(const Stamp& stamp, Instant now) noexcept {
  until_ = std::max(until_, now + with_margin(milliseconds(stamp.lease_ms)));
}

}  // namespace replblk::membership
