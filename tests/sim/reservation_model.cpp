#include "reservation_model.hpp"

#include <fmt/format.h>

#include "base/assert.hpp"

namespace replblk::sim {

namespace {

std::string describe(const OwnReservation& own) {
  if (own.key == 0) return "no registration";
  return fmt::format("key {:#x}{}", own.key, own.is_holder ? ", holding the reservation" : "");
}

}  // namespace

OwnReservation find_own(ConstBytes full_status, std::string_view initiator_name, std::uint64_t isid) {
  constexpr std::size_t kDescriptorBytes = 24;
  const std::string port = fmt::format("{},i,0x{:012x}", initiator_name, isid);
  ByteReader reader(full_status);
  static_cast<void>(reader.take(8));
  while (reader.ok() && reader.remaining_bytes() >= kDescriptorBytes) {
    const ConstBytes descriptor = reader.take(kDescriptorBytes);
    const ConstBytes transport_id = reader.take(load_be<std::uint32_t>(descriptor.data() + 20));
    if (transport_id.size() < 4) break;
    const std::string_view text = as_text(transport_id.subspan(4));
    if (text.substr(0, text.find('\0')) != port) continue;
    return {load_be<std::uint64_t>(descriptor.data()), (std::to_integer<unsigned>(descriptor[12]) & 1) != 0};
  }
  return {};
}

void ReservationModel::begin(const OwnReservation& wanted) {
  RB_ASSERT(is_settled());
  wanted_ = wanted;
  is_changing_ = true;
  ++changes_count_;
}

void ReservationModel::answered() {
  own_ = wanted_;
  is_changing_ = false;
}

void ReservationModel::lost() {
  is_changing_ = false;
  is_open_ = true;
}

std::string ReservationModel::found(const OwnReservation& what) {
  RB_ASSERT(!is_changing_);
  const bool is_possible = what == own_ || (is_open_ && what == wanted_);
  if (!is_possible) {
    return fmt::format("{} where {}{} was answered", describe(what), describe(own_),
                       is_open_ ? fmt::format(" (or, without an answer, {})", describe(wanted_)) : "");
  }
  own_ = what;
  is_open_ = false;
  return {};
}

}  // namespace replblk::sim
