// The rules of one command's data transfer as machines: which Data-Out may come next and what is asked for by R2T
// (RFC 7143 11.7, 11.8), and how Data-In is cut into PDUs (11.7.1).
// Not responsible for memory, PDUs on the wire or SCSI. Called by session. Data comes in order (DataPDUInOrder and
// DataSequenceInOrder are Yes), so one offset says all. Invariant: received_bytes() never exceeds the expected length.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "iscsi/negotiation.hpp"
#include "iscsi/pdu.hpp"

namespace replblk::iscsi {

struct R2tGrant {
  std::uint32_t r2t_sn = 0;
  std::uint32_t offset_bytes = 0;
  std::uint32_t length_bytes = 0;
  friend bool operator==(const R2tGrant&, const R2tGrant&) = default;
};

class DataOutTransfer {
 public:
  struct Start {
    std::uint32_t expected_bytes = 0;  ///< what the initiator would send: ExpectedDataTransferLength, 0 without W
    std::uint32_t wanted_bytes = 0;    ///< what the command needs of it, ≤ expected_bytes
    std::uint32_t immediate_bytes = 0;
    bool unsolicited_follows = false;  ///< F = 0 in the command
  };
  /// False when the command breaks what was negotiated (RFC 7143 11.3.1, 13.10, 13.11, 13.14).
  [[nodiscard]] bool start(const Start& start, const SessionParameters& parameters) noexcept;

  /// False: a wrong offset, length or F bit, after which nothing that follows can be placed: the connection ends.
  /// A wrong DataSN says that a PDU was lost or doubled: the data goes on, and the command fails (is_spoiled).
  [[nodiscard]] bool receive_unsolicited(const DataOut& pdu) noexcept;
  /// `r2t_sn`: as named by the PDU's Target Transfer Tag.
  [[nodiscard]] bool receive_solicited(const DataOut& pdu, std::uint32_t r2t_sn) noexcept;

  /// The next R2T to send now, as long as MaxOutstandingR2T allows; counts as sent.
  [[nodiscard]] std::optional<R2tGrant> next_r2t() noexcept;
  [[nodiscard]] bool is_complete() const noexcept { return !is_unsolicited_open_ && received_bytes_ >= wanted_bytes_; }
  /// RFC 7143 7.9: a sequence error; the task is to be terminated when its data has all come.
  [[nodiscard]] bool is_spoiled() const noexcept { return is_spoiled_; }
  [[nodiscard]] std::uint32_t wanted_bytes() const noexcept { return wanted_bytes_; }
  [[nodiscard]] std::uint32_t received_bytes() const noexcept { return received_bytes_; }
  [[nodiscard]] std::uint32_t r2t_count() const noexcept { return r2t_count_; }

 private:
  void take(const DataOut& pdu) noexcept;
  [[nodiscard]] std::uint32_t burst_end(std::uint32_t r2t_sn) const noexcept;

  std::uint32_t wanted_bytes_ = 0;
  std::uint32_t received_bytes_ = 0;
  std::uint32_t unsolicited_end_ = 0;  ///< at most so far may unsolicited data reach
  std::uint32_t solicited_begin_ = 0;  ///< where the first R2T begins; all but the last ask for MaxBurstLength
  std::uint32_t max_burst_bytes_ = 0;
  std::uint32_t r2t_count_ = 0;    ///< R2Ts sent; the next one's R2TSN
  std::uint32_t current_r2t_ = 0;  ///< the one whose data comes now
  std::uint32_t next_data_sn_ = 0;
  std::uint16_t max_outstanding_r2t_ = 1;
  bool is_unsolicited_open_ = false;
  bool is_spoiled_ = false;
};

struct DataInSegment {
  std::uint32_t offset_bytes = 0;
  std::uint32_t length_bytes = 0;
  bool ends_sequence = false;  ///< F bit: MaxBurstLength is reached, or all is sent
  bool is_last = false;
  friend bool operator==(const DataInSegment&, const DataInSegment&) = default;
};

/// Cuts `total_bytes` (> 0) into segments.
class DataInCutter {
 public:
  DataInCutter(std::uint32_t total_bytes, const SessionParameters& parameters) noexcept
      : total_bytes_(total_bytes),
        segment_bytes_max_(parameters.initiator_recv_bytes),
        max_burst_bytes_(parameters.max_burst_bytes) {}

  [[nodiscard]] bool is_done() const noexcept { return offset_bytes_ == total_bytes_; }
  [[nodiscard]] DataInSegment next() noexcept {
    const std::uint32_t burst_left = max_burst_bytes_ - (offset_bytes_ % max_burst_bytes_);
    const std::uint32_t length = std::min({segment_bytes_max_, burst_left, total_bytes_ - offset_bytes_});
    const DataInSegment segment{offset_bytes_, length, length == burst_left || offset_bytes_ + length == total_bytes_,
                                offset_bytes_ + length == total_bytes_};
    offset_bytes_ += length;
    return segment;
  }

 private:
  std::uint32_t total_bytes_;
  std::uint32_t segment_bytes_max_;
  std::uint32_t max_burst_bytes_;
  std::uint32_t offset_bytes_ = 0;
};

/// What the initiator made ready against what the command moved (RFC 7143 11.4.5).
[[nodiscard]] inline Residual residual_of(std::uint32_t expected_bytes, std::uint32_t intended_bytes) noexcept {
  if (intended_bytes > expected_bytes) return {true, false, intended_bytes - expected_bytes};
  if (intended_bytes < expected_bytes) return {false, true, expected_bytes - intended_bytes};
  return {};
}

}  // namespace replblk::iscsi
