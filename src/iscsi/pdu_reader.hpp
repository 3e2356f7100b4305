// Takes PDUs out of a byte stream that is cut anywhere: header (BHS, AHS, header digest), then the data segment,
// straight to where its owner wants it, then padding and data digest (RFC 7143 11.2). Not responsible for what a PDU
// means nor for memory of the data. Called by connection (and by initiators of tests). Invariant: after Event::header
// the owner calls place() before it advances again; bytes beyond the place are checked and dropped. An error is final:
// at ErrorRecoveryLevel 0 the connection ends (RFC 7143 7.7, 7.8).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/bytes.hpp"
#include "iscsi/pdu.hpp"

namespace replblk::iscsi {

class PduReader {
 public:
  enum class Event : std::uint8_t { need_more, header, complete, error };
  enum class Error : std::uint8_t { none, header_digest, data_digest, data_too_long };

  void set_digests(bool header, bool data) noexcept {
    has_header_digest_ = header;
    has_data_digest_ = data;
  }
  /// The largest data segment that is accepted.
  void set_data_bytes_max(std::uint32_t bytes) noexcept { data_bytes_max_ = bytes; }

  /// Consumes from `input` until something is to be said. An empty input may still yield an event.
  [[nodiscard]] Event advance(ConstBytes& input) noexcept;

  /// Valid from Event::header to Event::complete.
  [[nodiscard]] const Bhs& bhs() const noexcept { return bhs_; }
  [[nodiscard]] std::uint32_t data_bytes() const noexcept { return data_bytes_; }
  void place(MutableBytes destination) noexcept;

  /// The rest of the place, when the next bytes of the stream belong there; otherwise empty.
  [[nodiscard]] MutableBytes direct_room() const noexcept;
  /// The next `count` bytes of the stream were stored in direct_room() by somebody else.
  void direct_received(std::size_t count) noexcept;

  [[nodiscard]] Error error() const noexcept { return error_; }

 private:
  enum class State : std::uint8_t { header, placing, data, trailer, failed };

  [[nodiscard]] bool fill_header(ConstBytes& input) noexcept;
  void take_data(ConstBytes bytes) noexcept;
  [[nodiscard]] std::size_t trailer_size() const noexcept;
  [[nodiscard]] Event fail(Error error) noexcept;

  Bhs bhs_{};
  std::array<std::byte, kAhsBytesMax + kDigestBytes> rest_{};  ///< AHS and header digest
  std::array<std::byte, 3 + kDigestBytes> trailer_{};          ///< padding and data digest
  MutableBytes place_;
  std::size_t filled_bytes_ = 0;  ///< of the header or the trailer
  std::uint32_t data_bytes_ = 0;
  std::uint32_t received_bytes_ = 0;  ///< of the data segment
  std::uint32_t data_crc_ = 0;
  std::uint32_t data_bytes_max_ = 8192;
  State state_ = State::header;
  Error error_ = Error::none;
  bool has_header_digest_ = false;
  bool has_data_digest_ = false;
};
[[nodiscard]] std::string_view to_string(PduReader::Error error) noexcept;

}  // namespace replblk::iscsi
