// The table of persistent reservations that a superblock or the peer holds: refused, or given back byte for byte.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "scsi/reservation_table.hpp"

using namespace replblk;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view table(reinterpret_cast<const char*>(data), size);
  const auto units = scsi::decode_reservations(table);
  if (units.has_value() && scsi::encode_reservations(*units) != table) std::abort();
  return 0;
}
