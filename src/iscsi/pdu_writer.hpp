// Puts PDUs onto a stream: header, header digest, data segment, padding, data digest (RFC 7143 11.2).
// Small ones are handed over in one piece, payloads in pool buffers by reference. Sets DataSegmentLength itself.
// Not responsible for numbering. Called by connection and session. Invariant: a PDU is queued whole or not at all.
#pragma once

#include <cstddef>

#include "base/buffer_pool.hpp"
#include "base/bytes.hpp"
#include "base/time.hpp"
#include "iscsi/pdu.hpp"

namespace replblk::ports {
class Stream;
}

namespace replblk::iscsi {

class PduWriter {
 public:
  explicit PduWriter(ports::Stream& stream) noexcept : stream_(stream) {}
  void set_digests(bool header, bool data) noexcept {
    has_header_digest_ = header;
    has_data_digest_ = data;
  }

  void send(Bhs bhs, ConstBytes data = {});
  /// The data segment is `length_bytes` of `buffer`, which is held until it has left.
  void send(Bhs bhs, BufferRef buffer, std::size_t offset_bytes, std::size_t length_bytes);
  /// The stream is aborted; this goes first, and `wait` passes in between, if nothing else waits to be sent.
  void abort_after(Bhs bhs, Duration wait) noexcept;

 private:
  /// Below this, copying into one piece costs less than one more part of the gathered send.
  static constexpr std::size_t kOnePieceBytesMax = 1024;

  /// BHS and header digest at `to`; returns their length.
  [[nodiscard]] std::size_t put_header(Bhs& bhs, std::size_t data_bytes, std::byte* to) const noexcept;
  /// Padding and data digest at `to`; returns their length.
  [[nodiscard]] std::size_t put_trailer(ConstBytes data, std::byte* to) const noexcept;

  ports::Stream& stream_;
  bool has_header_digest_ = false;
  bool has_data_digest_ = false;
};

}  // namespace replblk::iscsi
