#include "load_connection.hpp"

#include <algorithm>
#include <cstring>

namespace replblk::bench {
namespace {

constexpr std::size_t kGatherMax = 1024;  // UIO_MAXIOV
constexpr std::uint8_t kRead10 = 0x28;
constexpr std::uint8_t kWrite10 = 0x2a;
constexpr std::uint8_t kRead16 = 0x88;
constexpr std::uint8_t kWrite16 = 0x8a;
constexpr std::uint8_t kSynchronizeCache10 = 0x35;
constexpr std::uint32_t kIndexBits = 10;  // options limit the queue depth to 1024

std::uint32_t pieces(std::uint32_t total, std::uint32_t piece) { return (total + piece - 1) / piece; }

}  // namespace

LoadConnection::LoadConnection(const InitiatorSession& session, const Options& options, std::uint32_t lba_bytes,
                               WorkloadCursor& cursor, Tally& tally)
    : negotiated_(session.negotiated()),
      numbers_(session.numbers()),
      wire_lun_(session.wire_lun()),
      socket_(session.socket()),
      block_bytes_(options.block_bytes),
      lba_bytes_(lba_bytes),
      writes_(writes(options.workload)),
      sync_every_write_(options.sync_every_write),
      cursor_(cursor),
      tally_(tally),
      slots_(options.queue_depth),
      ready_(options.queue_depth) {
  for (std::uint32_t index = 0; index < options.queue_depth; ++index) {
    ready_[index] = index;
  }
  ready_count_ = options.queue_depth;
  if (writes_) {
    // One PDU per piece, and one more wherever a burst ends early: after the unsolicited data and in each R2T.
    // A target may ask in smaller bursts than agreed; the limit below is generous and checked when used.
    data_out_per_slot_max_ = 8 + 2 * (pieces(block_bytes_, negotiated_.target_max_recv_data_bytes) +
                                      pieces(block_bytes_, negotiated_.max_burst_bytes));
    data_out_headers_.resize(std::size_t{data_out_per_slot_max_} * options.queue_depth);
  }
  const std::size_t iovecs = std::size_t{options.queue_depth} * (2 + 2 * data_out_per_slot_max_) + 4;
  queued_.reserve(iovecs);
  sending_.reserve(iovecs);
}

void LoadConnection::issue_ready(std::uint64_t now_ns) {
  // RFC 7143 4.2.2.1: a non-immediate command may be sent while CmdSN <= MaxCmdSN.
  while (ready_count_ > 0 && !serial_less(numbers_.max_cmd_sn, numbers_.cmd_sn)) {
    const std::uint32_t index = ready_[ready_head_];
    if (slots_[index].phase == Phase::idle && stopping_) {
      // Idle slots are only dropped from the ring; a queued sync still belongs to an operation under way.
      ready_head_ = (ready_head_ + 1) % ready_.size();
      --ready_count_;
      continue;
    }
    ready_head_ = (ready_head_ + 1) % ready_.size();
    --ready_count_;
    if (slots_[index].phase == Phase::sync_queued) {
      issue_sync(index);
    } else {
      issue_transfer(index, now_ns);
    }
  }
  if (stopping_ && in_flight_count_ == 0 && ready_count_ == 0 && !logout_queued_) {
    queue_logout();
  }
}

void LoadConnection::begin_command(Slot& slot, std::uint32_t index, std::uint8_t flags, std::uint32_t expected_bytes) {
  // The generation in the upper bits lets a response to an already finished command be noticed.
  const std::uint32_t generation = ((slot.task_tag >> kIndexBits) + 1) & 0xfffff;
  slot.task_tag = generation << kIndexBits | index;
  slot.received_bytes = 0;
  slot.data_sn = 0;
  slot.r2t_sn = 0;
  slot.data_out_count = 0;
  Pdu& command = slot.command;
  command.bytes.fill(0);
  command.bytes[0] = static_cast<std::uint8_t>(Opcode::scsi_command);
  command.bytes[1] = flags;
  store_u64(&command.bytes[8], wire_lun_);
  command.set_u32(16, slot.task_tag);
  command.set_u32(20, expected_bytes);
  command.set_u32(24, numbers_.cmd_sn++);
  command.set_u32(28, numbers_.exp_stat_sn);
  ++in_flight_count_;
}

void LoadConnection::issue_transfer(std::uint32_t index, std::uint64_t now_ns) {
  Slot& slot = slots_[index];
  slot.phase = Phase::transfer;
  slot.start_ns = now_ns;
  const std::uint64_t lba = cursor_.next_offset_bytes() / lba_bytes_;
  const std::uint32_t block_count = block_bytes_ / lba_bytes_;

  // Whole words, so that no data segment but the last of a burst needs padding (RFC 7143 11.1.4).
  const std::uint32_t first_burst = negotiated_.first_burst_bytes & ~3U;
  std::uint32_t immediate = 0;
  std::uint32_t unsolicited = 0;
  if (writes_) {
    if (negotiated_.immediate_data) {
      immediate = std::min({block_bytes_, first_burst, negotiated_.target_max_recv_data_bytes & ~3U});
    }
    if (!negotiated_.initial_r2t) {
      unsolicited = std::min(block_bytes_, first_burst) - immediate;
    }
  }
  // RFC 7143 11.3.1: F is clear exactly when unsolicited Data-Out PDUs follow.
  const unsigned direction = writes_ ? kWriteBit : kReadBit;
  const unsigned final = unsolicited == 0 ? kFinalBit : 0U;
  begin_command(slot, index, static_cast<std::uint8_t>(final | direction | kSimpleTask), block_bytes_);
  std::uint8_t* cdb = &slot.command.bytes[32];
  if (lba + block_count <= 0xffffffff && block_count <= 0xffff) {
    cdb[0] = writes_ ? kWrite10 : kRead10;
    store_u32(cdb + 2, static_cast<std::uint32_t>(lba));
    cdb[7] = static_cast<std::uint8_t>(block_count >> 8);
    cdb[8] = static_cast<std::uint8_t>(block_count);
  } else {
    cdb[0] = writes_ ? kWrite16 : kRead16;
    store_u64(cdb + 2, lba);
    store_u32(cdb + 10, block_count);
  }
  slot.command.set_data_length(immediate);
  queue(slot.command.bytes.data(), kHeaderBytes);
  if (writes_) {
    slot.data = cursor_.next_data();
    if (immediate > 0) {
      queue(slot.data, immediate);
    }
    if (unsolicited > 0) {
      queue_data_out(index, immediate, unsolicited, kReservedTag);
    }
  }
}

void LoadConnection::issue_sync(std::uint32_t index) {
  Slot& slot = slots_[index];
  slot.phase = Phase::sync;
  begin_command(slot, index, kFinalBit | kSimpleTask, 0);
  // SBC-3 5.22: LBA 0 and length 0 mean the whole medium, as file systems send it.
  slot.command.bytes[32] = kSynchronizeCache10;
  queue(slot.command.bytes.data(), kHeaderBytes);
}

void LoadConnection::queue_data_out(std::uint32_t index, std::uint32_t offset, std::uint32_t length,
                                    std::uint32_t transfer_tag) {
  Slot& slot = slots_[index];
  std::uint32_t data_sn = 0;
  while (length > 0) {
    if (slot.data_out_count == data_out_per_slot_max_) {
      fail("the target asks for one write in more than %u pieces", data_out_per_slot_max_);
    }
    const std::uint32_t piece = std::min(length, negotiated_.target_max_recv_data_bytes & ~3U);
    Pdu& header = data_out_headers_[std::size_t{index} * data_out_per_slot_max_ + slot.data_out_count++];
    header.bytes.fill(0);
    header.bytes[0] = static_cast<std::uint8_t>(Opcode::data_out);
    header.bytes[1] = piece == length ? kFinalBit : std::uint8_t{0};
    header.set_data_length(piece);
    store_u64(&header.bytes[8], wire_lun_);
    header.set_u32(16, slot.task_tag);
    header.set_u32(20, transfer_tag);
    header.set_u32(28, numbers_.exp_stat_sn);
    header.set_u32(36, data_sn++);
    header.set_u32(40, offset);
    queue(header.bytes.data(), kHeaderBytes);
    queue(slot.data + offset, piece);
    offset += piece;
    length -= piece;
  }
}

void LoadConnection::queue(const void* data, std::size_t length_bytes) {
  if (queued_.size() == queued_.capacity()) {
    fail("output queue overflow");
  }
  queued_.push_back(iovec{.iov_base = const_cast<void*>(data), .iov_len = length_bytes});
}

void LoadConnection::queue_logout() {
  logout_queued_ = true;
  logout_.bytes.fill(0);
  logout_.bytes[0] = static_cast<std::uint8_t>(Opcode::logout_request) | kImmediateBit;
  logout_.bytes[1] = kFinalBit;  // reason 0: close the session
  logout_.set_u32(16, 0x7fffffff);
  logout_.set_u32(24, numbers_.cmd_sn);
  logout_.set_u32(28, numbers_.exp_stat_sn);
  queue(logout_.bytes.data(), kHeaderBytes);
}

std::span<iovec> LoadConnection::next_gather() {
  if (sending_head_ == sending_.size()) {
    sending_.clear();
    sending_head_ = 0;
    std::swap(sending_, queued_);
  }
  const std::size_t count = std::min(kGatherMax, sending_.size() - sending_head_);
  send_in_flight_ = count > 0;
  return {sending_.data() + sending_head_, count};
}

void LoadConnection::sent(std::size_t length_bytes) {
  send_in_flight_ = false;
  while (length_bytes > 0) {
    iovec& front = sending_[sending_head_];
    const std::size_t taken = std::min(length_bytes, front.iov_len);
    front.iov_base = static_cast<char*>(front.iov_base) + taken;
    front.iov_len -= taken;
    length_bytes -= taken;
    if (front.iov_len == 0) {
      ++sending_head_;
    }
  }
}

void LoadConnection::receive(std::span<const std::uint8_t> bytes, std::uint64_t now_ns) {
  while (!bytes.empty()) {
    if (header_fill_ < kHeaderBytes) {
      const std::size_t taken = std::min(bytes.size(), kHeaderBytes - header_fill_);
      std::memcpy(incoming_.bytes.data() + header_fill_, bytes.data(), taken);
      bytes = bytes.subspan(taken);
      header_fill_ += taken;
      if (header_fill_ < kHeaderBytes) {
        return;
      }
      on_header(now_ns);
    }
    // Read data is not looked at: it has been copied to user space, as for any initiator, and that is all.
    const auto taken = static_cast<std::uint32_t>(std::min<std::size_t>(bytes.size(), body_remaining_));
    if (taken > 0 && incoming_.opcode() != Opcode::data_in && sense_fill_ < sizeof sense_) {
      const std::uint32_t kept =
          std::min<std::uint32_t>(taken, static_cast<std::uint32_t>(sizeof sense_) - sense_fill_);
      std::memcpy(sense_ + sense_fill_, bytes.data(), kept);
      sense_fill_ += kept;
    }
    bytes = bytes.subspan(taken);
    body_remaining_ -= taken;
    if (body_remaining_ == 0) {
      header_fill_ = 0;
      on_pdu_complete(now_ns);
    }
  }
}

void LoadConnection::on_header(std::uint64_t) {
  if (incoming_.ahs_words() != 0) {
    fail("PDU with an additional header segment, opcode 0x%02x", incoming_.bytes[0]);
  }
  // RFC 7143 13.12: no data segment is longer than we declared.
  if (incoming_.data_length() > negotiated_.own_max_recv_data_bytes) {
    fail("data segment of %u bytes, we declared %u", incoming_.data_length(), negotiated_.own_max_recv_data_bytes);
  }
  body_remaining_ = (incoming_.data_length() + 3) & ~3U;
  sense_fill_ = 0;
}

void LoadConnection::on_pdu_complete(std::uint64_t now_ns) {
  take_window(incoming_);
  switch (incoming_.opcode()) {
    case Opcode::data_in:
      on_data_in();
      if ((incoming_.flags() & kStatusBit) != 0) {
        on_status(now_ns);
      }
      return;
    case Opcode::scsi_response:
      if (incoming_.bytes[2] != 0) {
        fail("SCSI response code 0x%02x: the target failed", incoming_.bytes[2]);
      }
      on_status(now_ns);
      return;
    case Opcode::r2t:
      on_r2t();
      return;
    case Opcode::nop_in:
      on_nop_in();
      return;
    case Opcode::logout_response:
      if (!logout_queued_ || incoming_.bytes[2] != 0) {
        fail("logout response %u", incoming_.bytes[2]);
      }
      logged_out_ = true;
      return;
    case Opcode::reject:
      fail("the target rejected a PDU, reason 0x%02x", incoming_.bytes[2]);
    case Opcode::async_message:
      fail("asynchronous message, event %u", incoming_.bytes[36]);
    case Opcode::nop_out:
    case Opcode::scsi_command:
    case Opcode::login_request:
    case Opcode::data_out:
    case Opcode::logout_request:
    case Opcode::login_response:
      break;
  }
  fail("unexpected opcode 0x%02x", incoming_.bytes[0]);
}

void LoadConnection::on_data_in() {
  Slot& slot = slots_[slot_index_of(incoming_.task_tag())];
  const std::uint32_t length = incoming_.data_length();
  if (slot.phase != Phase::transfer || writes_) {
    fail("Data-In for a command that reads nothing");
  }
  // RFC 7143 11.7.5 and 13.19: DataSN counts from 0 and, with DataPDUInOrder, offsets are contiguous.
  if (incoming_.u32(36) != slot.data_sn || incoming_.u32(40) != slot.received_bytes ||
      length > block_bytes_ - slot.received_bytes) {
    fail("Data-In out of order: DataSN %u at %u + %u, expected DataSN %u at %u of %u", incoming_.u32(36),
         incoming_.u32(40), length, slot.data_sn, slot.received_bytes, block_bytes_);
  }
  ++slot.data_sn;
  slot.received_bytes += length;
}

void LoadConnection::on_r2t() {
  const std::uint32_t index = slot_index_of(incoming_.task_tag());
  Slot& slot = slots_[index];
  const std::uint32_t offset = incoming_.u32(40);
  const std::uint32_t length = incoming_.u32(44);
  if (slot.phase != Phase::transfer || !writes_ || incoming_.u32(36) != slot.r2t_sn || length == 0 ||
      length > negotiated_.max_burst_bytes || offset > block_bytes_ || length > block_bytes_ - offset) {
    fail("illegal R2T: R2TSN %u, %u bytes at %u", incoming_.u32(36), length, offset);
  }
  ++slot.r2t_sn;
  queue_data_out(index, offset, length, incoming_.transfer_tag());
}

void LoadConnection::on_status(std::uint64_t now_ns) {
  // RFC 7143 4.2.2.2: every status advances StatSN by one, none is missing on a connection that lives.
  if (incoming_.stat_sn() != numbers_.exp_stat_sn) {
    fail("StatSN %u, expected %u", incoming_.stat_sn(), numbers_.exp_stat_sn);
  }
  ++numbers_.exp_stat_sn;
  const std::uint32_t index = slot_index_of(incoming_.task_tag());
  Slot& slot = slots_[index];
  if (incoming_.bytes[3] != 0) {
    // RFC 7143 11.4.7.2: the sense data follows a two-byte length.
    fail("CDB opcode 0x%02x: SCSI status 0x%02x, sense key 0x%x asc 0x%02x ascq 0x%02x", slot.command.bytes[32],
         incoming_.bytes[3], sense_fill_ > 4 ? sense_[4] & 0xf : 0, sense_fill_ > 15 ? sense_[14] : 0,
         sense_fill_ > 15 ? sense_[15] : 0);
  }
  if ((incoming_.flags() & kResidualBits) != 0) {
    fail("CDB opcode 0x%02x: residual count %u, flags 0x%02x", slot.command.bytes[32], incoming_.u32(44),
         incoming_.flags());
  }
  if (slot.phase == Phase::transfer && !writes_ && slot.received_bytes != block_bytes_) {
    fail("read of %u bytes answered with %u", block_bytes_, slot.received_bytes);
  }
  --in_flight_count_;
  if (slot.phase == Phase::transfer && sync_every_write_) {
    slot.phase = Phase::sync_queued;
  } else {
    finish(index, now_ns);
    if (stopping_) {
      return;
    }
  }
  ready_[(ready_head_ + ready_count_) % ready_.size()] = index;
  ++ready_count_;
}

void LoadConnection::finish(std::uint32_t index, std::uint64_t now_ns) {
  Slot& slot = slots_[index];
  slot.phase = Phase::idle;
  if (tally_.measuring) {
    tally_.latency.record(now_ns - slot.start_ns);
    tally_.bytes += block_bytes_;
  }
}

void LoadConnection::on_nop_in() {
  // RFC 7143 11.19: with a target transfer tag the target wants an answer; it does not advance StatSN.
  if (incoming_.transfer_tag() == kReservedTag) {
    return;
  }
  if (nop_out_queued_ && (send_in_flight_ || !queued_.empty())) {
    return;  // The answer to the previous ping has not left yet; it will show that we live.
  }
  nop_out_queued_ = true;
  nop_out_.bytes.fill(0);
  nop_out_.bytes[0] = static_cast<std::uint8_t>(Opcode::nop_out) | kImmediateBit;
  nop_out_.bytes[1] = kFinalBit;
  store_u64(&nop_out_.bytes[8], load_u64(&incoming_.bytes[8]));
  nop_out_.set_u32(16, kReservedTag);
  nop_out_.set_u32(20, incoming_.transfer_tag());
  nop_out_.set_u32(24, numbers_.cmd_sn);
  nop_out_.set_u32(28, numbers_.exp_stat_sn);
  queue(nop_out_.bytes.data(), kHeaderBytes);
}

void LoadConnection::take_window(const Pdu& pdu) noexcept {
  // RFC 7143 4.2.2.1: ignore the pair when MaxCmdSN < ExpCmdSN - 1, and never let the window shrink.
  const std::uint32_t max_cmd_sn = pdu.max_cmd_sn();
  if (!serial_less(max_cmd_sn, pdu.exp_cmd_sn() - 1) && serial_less(numbers_.max_cmd_sn, max_cmd_sn)) {
    numbers_.max_cmd_sn = max_cmd_sn;
  }
}

std::uint32_t LoadConnection::slot_index_of(std::uint32_t task_tag) const {
  const std::uint32_t index = task_tag & ((1U << kIndexBits) - 1);
  if (index >= slots_.size() || slots_[index].task_tag != task_tag ||
      (slots_[index].phase != Phase::transfer && slots_[index].phase != Phase::sync)) {
    fail("the target answered task tag 0x%08x, which is not in flight", task_tag);
  }
  return index;
}

}  // namespace replblk::bench
