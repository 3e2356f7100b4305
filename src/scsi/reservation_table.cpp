#include "scsi/reservation_table.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "base/assert.hpp"
#include "base/bytes.hpp"

namespace replblk::scsi {

namespace {

constexpr std::uint8_t kVersion = 1;
constexpr std::uint8_t kNoHolder = 255;
constexpr std::uint16_t kLunMax = 255;
constexpr std::size_t kIsidBytes = 6;
static_assert(PersistentReservation::kRegistrationsMax < kNoHolder);

template <std::unsigned_integral T>
void put(std::string& to, T value) {
  std::array<std::byte, sizeof(T)> bytes;
  store_le(bytes.data(), value);
  to.append(as_text(bytes));
}

bool was_ever_registered_with(const PersistentReservation& reservation) noexcept {
  return reservation.generation() != 0 || !reservation.registrations().empty();
}

void encode_unit(const UnitReservation& unit, std::string& to) {
  RB_ASSERT(unit.lun <= kLunMax);
  const PersistentReservation::State state = unit.reservation.state();
  put(to, unit.lun);
  put(to, state.generation);
  put(to, static_cast<std::uint8_t>(state.type));
  put(to, state.holder.has_value() ? static_cast<std::uint8_t>(*state.holder) : kNoHolder);
  put(to, static_cast<std::uint8_t>(state.registrations.size()));
  for (const PersistentReservation::Registration& registration : state.registrations) {
    const std::string& name = registration.port.initiator_name;
    RB_ASSERT(!name.empty() && name.size() <= NexusInfo::kNameBytesMax);
    put(to, registration.key);
    std::array<std::byte, 8> isid;
    store_be(isid.data(), registration.port.isid);
    to.append(as_text(std::span(isid).last<kIsidBytes>()));
    put(to, static_cast<std::uint8_t>(name.size()));
    to.append(name);
  }
}

std::optional<UnitReservation> decode_unit(ByteReader& reader) {
  UnitReservation unit;
  PersistentReservation::State state;
  unit.lun = reader.le<std::uint16_t>();
  state.generation = reader.le<std::uint32_t>();
  const auto type = to_reservation_type(reader.le<std::uint8_t>());
  const auto holder = reader.le<std::uint8_t>();
  const auto count = reader.le<std::uint8_t>();
  if (!reader.ok() || !type.has_value() || unit.lun > kLunMax) return std::nullopt;
  state.type = *type;
  if (holder != kNoHolder) state.holder = holder;
  for (std::uint8_t index = 0; index < count; ++index) {
    PersistentReservation::Registration registration;
    registration.key = reader.le<std::uint64_t>();
    for (const std::byte digit : reader.take(kIsidBytes))
      registration.port.isid = registration.port.isid << 8 | std::to_integer<std::uint64_t>(digit);
    const auto length = reader.le<std::uint8_t>();
    registration.port.initiator_name = as_text(reader.take(length));
    if (!reader.ok() || length == 0 || length > NexusInfo::kNameBytesMax) return std::nullopt;
    state.registrations.push_back(std::move(registration));
  }
  auto reservation = PersistentReservation::from(std::move(state));
  if (!reservation.has_value() || !was_ever_registered_with(*reservation)) return std::nullopt;
  unit.reservation = std::move(*reservation);
  return unit;
}

}  // namespace

std::string encode_reservations(const std::vector<UnitReservation>& units) {
  std::string table;
  const auto count = std::ranges::count_if(
      units, [](const UnitReservation& unit) { return was_ever_registered_with(unit.reservation); });
  if (count == 0) return table;
  put(table, kVersion);
  put(table, static_cast<std::uint16_t>(count));
  for (const UnitReservation& unit : units) {
    if (was_ever_registered_with(unit.reservation)) encode_unit(unit, table);
  }
  return table;
}

std::optional<std::vector<UnitReservation>> decode_reservations(std::string_view table) {
  std::vector<UnitReservation> units;
  if (table.empty()) return units;
  ByteReader reader(as_bytes(table));
  const auto version = reader.le<std::uint8_t>();
  const auto count = reader.le<std::uint16_t>();
  if (!reader.ok() || version != kVersion || count == 0) return std::nullopt;
  for (std::uint16_t index = 0; index < count; ++index) {
    auto unit = decode_unit(reader);
    if (!unit.has_value()) return std::nullopt;
    if (std::ranges::find(units, unit->lun, &UnitReservation::lun) != units.end()) return std::nullopt;
    units.push_back(std::move(*unit));
  }
  if (reader.remaining_bytes() > 0) return std::nullopt;
  return units;
}

}  // namespace replblk::scsi
