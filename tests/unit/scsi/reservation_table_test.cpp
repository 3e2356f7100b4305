// The bytes that carry persistent reservations through restarts and failovers (docs/ondisk_format.md 3.1).
#include "scsi/reservation_table.hpp"

#include <gtest/gtest.h>

#include "scsi/device.hpp"

namespace replblk::scsi::test {

namespace {

using State = PersistentReservation::State;
using Registration = PersistentReservation::Registration;

UnitReservation unit(std::uint16_t lun, State state) {
  auto reservation = PersistentReservation::from(std::move(state));
  EXPECT_TRUE(reservation.has_value());
  return {lun, *reservation};
}

/// Two units: one held by its second registration, one reserved for all registrants.
std::vector<UnitReservation> two_units() {
  return {unit(0, {7, ReservationType::write_exclusive, 1, {{{"iqn.a", 0x010203040506}, 9}, {{"iqn.b", 2}, 10}}}),
          unit(255, {0xfffffffe, ReservationType::exclusive_access_all, {}, {{{"x", 0xffffffffffff}, UINT64_MAX}}})};
}

std::string bytes(std::initializer_list<int> values) {
  std::string text;
  for (const int value : values) text.push_back(static_cast<char>(value));
  return text;
}

}  // namespace

// A later replblk, and the peer, read these bytes.
TEST(ReservationTable, Bytes_are_those_of_the_format) {
  const std::string expected = bytes({1, 2, 0}) + bytes({0, 0, 7, 0, 0, 0, 1, 1, 2}) +
                               bytes({9, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 5}) + "iqn.a" +
                               bytes({10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 5}) + "iqn.b" +
                               bytes({255, 0, 0xfe, 0xff, 0xff, 0xff, 8, 255, 1}) +
                               bytes({255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}) + "x";
  EXPECT_EQ(encode_reservations(two_units()), expected);
}

TEST(ReservationTable, What_is_encoded_comes_back) {
  EXPECT_EQ(decode_reservations(encode_reservations(two_units())), two_units());
  std::vector<UnitReservation> full;
  for (std::uint16_t lun = 0; lun < 2; ++lun) {
    State state{1, ReservationType::write_exclusive_registrants, PersistentReservation::kRegistrationsMax - 1, {}};
    for (std::uint64_t isid = 0; isid < PersistentReservation::kRegistrationsMax; ++isid)
      state.registrations.push_back({{std::string(NexusInfo::kNameBytesMax, 'n'), isid}, isid + 1});
    full.push_back(unit(lun, state));
  }
  EXPECT_EQ(decode_reservations(encode_reservations(full)), full);
  EXPECT_LE(encode_reservations({full.front()}).size(), Device::kReservationTableBytesMax);
}

// A generation that goes back tells an initiator that nothing has changed when something has.
TEST(ReservationTable, Units_without_registrations_keep_their_generation_and_untouched_ones_take_no_room) {
  const std::vector<UnitReservation> units = {unit(0, {}), unit(3, {5, ReservationType::none, {}, {}})};
  const auto back = decode_reservations(encode_reservations(units));
  EXPECT_EQ(back, std::vector<UnitReservation>{units[1]});
  EXPECT_EQ(encode_reservations({unit(0, {})}), "");
  EXPECT_EQ(decode_reservations(""), std::vector<UnitReservation>{});
}

TEST(ReservationTable, A_table_that_is_too_short_or_too_long_is_refused) {
  const std::string table = encode_reservations(two_units());
  for (std::size_t size = 1; size < table.size(); ++size)
    EXPECT_FALSE(decode_reservations(table.substr(0, size)).has_value()) << size;
  EXPECT_FALSE(decode_reservations(table + '\0').has_value());
}

// Whatever one flipped bit makes of it, it is either refused or a table of its own, with the invariant.
TEST(ReservationTable, No_flipped_bit_makes_a_table_that_is_not_one) {
  const std::string table = encode_reservations(two_units());
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < table.size() * 8; ++bit) {
    std::string flipped = table;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    const auto units = decode_reservations(flipped);
    if (!units.has_value()) {
      ++refused;
      continue;
    }
    EXPECT_EQ(encode_reservations(*units), flipped) << bit;
    EXPECT_NE(*units, two_units()) << bit;
  }
  EXPECT_GT(refused, 8u * 4) << "version, count and lengths at least";
}

TEST(ReservationTable, What_must_not_be_is_refused) {
  const std::string name_a = bytes({1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}) + "a";
  const std::string name_b = bytes({2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}) + "b";
  const auto one = [&](std::initializer_list<int> head, const std::string& registrations) {
    return decode_reservations(bytes({1, 1, 0}) + bytes(head) + registrations).has_value();
  };
  ASSERT_TRUE(one({0, 0, 1, 0, 0, 0, 1, 0, 2}, name_a + name_b));
  EXPECT_FALSE(one({0, 0, 1, 0, 0, 0, 1, 2, 2}, name_a + name_b)) << "a holder that is not registered";
  EXPECT_FALSE(one({0, 0, 1, 0, 0, 0, 1, 255, 2}, name_a + name_b)) << "a reservation without holder";
  EXPECT_FALSE(one({0, 0, 1, 0, 0, 0, 0, 0, 2}, name_a + name_b)) << "a holder without reservation";
  EXPECT_FALSE(one({0, 0, 1, 0, 0, 0, 7, 0, 2}, name_a + name_b)) << "one holder of an all-registrants type";
  EXPECT_FALSE(one({0, 0, 1, 0, 0, 0, 7, 255, 0}, "")) << "a reservation without registrations";
  EXPECT_FALSE(one({0, 0, 1, 0, 0, 0, 2, 0, 2}, name_a + name_b)) << "an obsolete type";
  EXPECT_FALSE(one({0, 1, 1, 0, 0, 0, 1, 0, 2}, name_a + name_b)) << "LUN 256";
  EXPECT_FALSE(one({0, 0, 1, 0, 0, 0, 1, 0, 2}, name_a + name_a)) << "a port twice";
  EXPECT_FALSE(one({0, 0, 0, 0, 0, 0, 0, 255, 0}, "")) << "a unit that was never registered with";
  EXPECT_FALSE(one({0, 0, 1, 0, 0, 0, 1, 0, 1}, bytes({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}) + "a")) << "key 0";
  EXPECT_FALSE(one({0, 0, 1, 0, 0, 0, 1, 0, 1}, bytes({1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}))) << "no name";
  EXPECT_FALSE(
      one({0, 0, 1, 0, 0, 0, 1, 0, 1}, bytes({1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 224}) + std::string(224, 'n')))
      << "a name that is too long";
  const std::string empty_unit = bytes({0, 0, 1, 0, 0, 0, 0, 255, 0});
  EXPECT_FALSE(decode_reservations(bytes({1, 2, 0}) + empty_unit + empty_unit).has_value()) << "a unit twice";
  EXPECT_FALSE(decode_reservations(bytes({1, 0, 0})).has_value()) << "no unit";
  EXPECT_FALSE(decode_reservations(bytes({2, 1, 0}) + empty_unit).has_value()) << "another version";
  std::string many = bytes({1, 1, 0}) + bytes({0, 0, 1, 0, 0, 0, 0, 255, 129});
  for (int isid = 0; isid < 129; ++isid) many += bytes({1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, isid, 1}) + "a";
  EXPECT_FALSE(decode_reservations(many).has_value()) << "more registrations than a unit takes";
}

}  // namespace replblk::scsi::test
