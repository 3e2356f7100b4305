#include "iscsi/transfer.hpp"

#include "base/assert.hpp"

namespace replblk::iscsi {

bool DataOutTransfer::start(const Start& start, const SessionParameters& parameters) noexcept {
  RB_ASSERT(start.wanted_bytes <= start.expected_bytes);
  *this = DataOutTransfer{};
  wanted_bytes_ = start.wanted_bytes;
  received_bytes_ = start.immediate_bytes;
  unsolicited_end_ = std::min(parameters.first_burst_bytes, start.expected_bytes);
  max_burst_bytes_ = parameters.max_burst_bytes;
  max_outstanding_r2t_ = parameters.max_outstanding_r2t;
  is_unsolicited_open_ = start.unsolicited_follows;
  solicited_begin_ = received_bytes_;
  if (start.immediate_bytes > 0 && !parameters.immediate_data) return false;
  // 13.14: immediate data counts towards FirstBurstLength, and no more comes than was announced.
  if (start.immediate_bytes > unsolicited_end_) return false;
  // 11.3.1: with InitialR2T=Yes nothing follows unasked; F stays 0 only when something is left to send.
  if (start.unsolicited_follows && (parameters.initial_r2t || start.expected_bytes <= start.immediate_bytes))
    return false;
  return true;
}

bool DataOutTransfer::receive_unsolicited(const DataOut& pdu) noexcept {
  if (!is_unsolicited_open_ || pdu.offset_bytes != received_bytes_) return false;
  if (pdu.data_segment_bytes > unsolicited_end_ - received_bytes_) return false;
  take(pdu);
  if (pdu.is_final) {
    is_unsolicited_open_ = false;
    solicited_begin_ = received_bytes_;
    next_data_sn_ = 0;
  } else if (received_bytes_ == unsolicited_end_) {
    return false;  // 11.7.1: the last PDU of a sequence has F set, and nothing can follow this one.
  }
  return true;
}

bool DataOutTransfer::receive_solicited(const DataOut& pdu, std::uint32_t r2t_sn) noexcept {
  if (r2t_sn != current_r2t_ || r2t_sn >= r2t_count_) return false;
  if (pdu.offset_bytes != received_bytes_) return false;
  const std::uint32_t end = burst_end(r2t_sn);
  if (pdu.data_segment_bytes > end - received_bytes_) return false;
  take(pdu);
  if (pdu.is_final != (received_bytes_ == end)) return false;
  if (pdu.is_final) {
    // 11.7.5: each R2T's sequence is numbered from 0.
    ++current_r2t_;
    next_data_sn_ = 0;
  }
  return true;
}

void DataOutTransfer::take(const DataOut& pdu) noexcept {
  if (pdu.data_sn != next_data_sn_) is_spoiled_ = true;
  received_bytes_ += pdu.data_segment_bytes;
  next_data_sn_ = pdu.data_sn + 1;
}

std::optional<R2tGrant> DataOutTransfer::next_r2t() noexcept {
  if (is_unsolicited_open_ || r2t_count_ - current_r2t_ >= max_outstanding_r2t_) return std::nullopt;
  const std::uint32_t begin = r2t_count_ == 0 ? solicited_begin_ : burst_end(r2t_count_ - 1);
  if (begin >= wanted_bytes_) return std::nullopt;
  const R2tGrant grant{r2t_count_, begin, burst_end(r2t_count_) - begin};
  ++r2t_count_;
  return grant;
}

std::uint32_t DataOutTransfer::burst_end(std::uint32_t r2t_sn) const noexcept {
  const std::uint64_t end = solicited_begin_ + (std::uint64_t{r2t_sn} + 1) * max_burst_bytes_;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(end, wanted_bytes_));
}

}  // namespace replblk::iscsi
