#include "iscsi_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/crc32c.hpp"

namespace replblk::sim {

using bench::Opcode;

namespace {

constexpr std::uint8_t kUnderflowBit = 0x02;  // byte 1 of a response or of Data-In with status
constexpr std::size_t kHeaderBytes = bench::kHeaderBytes;
constexpr std::uint32_t kReservedTag = bench::kReservedTag;

std::size_t padded(std::size_t length) { return (length + 3) & ~std::size_t{3}; }

ConstBytes header_bytes(const bench::Pdu& pdu) { return std::as_bytes(std::span(pdu.bytes)); }

void append_digest(std::vector<std::byte>& to, std::uint32_t crc) {
  std::byte digest[4];
  store_le<std::uint32_t>(digest, crc);
  to.insert(to.end(), digest, digest + 4);
}

}  // namespace

IscsiSession::IscsiSession(ports::Loop& loop, ports::Network& network, Seeded& random, const SessionOptions& options,
                           Owner& owner)
    : loop_(loop), network_(network), random_(random), options_(options), owner_(&owner) {
  late_timer_.expired = Callback<void()>::to<&IscsiSession::on_late_timer>(*this);
}

IscsiSession::~IscsiSession() { loop_.cancel(late_timer_); }

void IscsiSession::start(const ports::Endpoint& portal) {
  last_heard_ = loop_.now();
  stream_ = network_.connect(portal, "", *this);
}

void IscsiSession::violation(const std::string& sentence) {
  if (owner_ != nullptr) owner_->on_violation(options_.initiator_name + ": " + sentence);
}

void IscsiSession::end(const std::string& sentence) {
  if (stage_ == Stage::ended) return;
  stage_ = Stage::ended;
  loop_.cancel(late_timer_);
  if (stream_) stream_->abort();
  if (owner_ != nullptr) owner_->on_ended(*this, sentence);
}

void IscsiSession::on_closed(ports::StreamError error) { end(fmt::format("{}", ports::to_string(error))); }

Instant IscsiSession::oldest_sent() const noexcept {
  Instant oldest = Instant::max();
  for (const auto& [tag, task] : tasks_) oldest = std::min(oldest, task.sent_at);
  return oldest;
}

// ---- Login ----

void IscsiSession::on_connected() {
  stage_ = options_.skips_security_stage ? Stage::operational : Stage::security;
  send_login();
}

void IscsiSession::send_login() {
  const auto key = [this](std::string_view name, std::string_view value) {
    login_text_ += fmt::format("{}={}", name, value);
    login_text_.push_back('\0');
  };
  const bool is_first = !has_stat_sn_;
  login_text_.clear();
  if (is_first) {
    key("InitiatorName", options_.initiator_name);
    key("SessionType", "Normal");
    key("TargetName", options_.target_name);
  }
  Pdu pdu;
  pdu.bytes[0] = 0x43;
  if (stage_ == Stage::security) {
    key("AuthMethod", "None");
    pdu.bytes[1] = 0x81;  // T, CSG 0, NSG 1
  } else {
    key("HeaderDigest", options_.has_header_digest ? "CRC32C,None" : "None");
    key("DataDigest", options_.has_data_digest ? "CRC32C,None" : "None");
    key("InitialR2T", options_.wants_initial_r2t ? "Yes" : "No");
    key("ImmediateData", options_.wants_immediate_data ? "Yes" : "No");
    key("MaxRecvDataSegmentLength", std::to_string(options_.receive_segment_bytes));
    key("FirstBurstLength", std::to_string(options_.first_burst_bytes));
    key("MaxBurstLength", std::to_string(options_.burst_bytes));
    key("MaxOutstandingR2T", std::to_string(options_.outstanding_r2t));
    key("MaxConnections", "1");
    key("ErrorRecoveryLevel", "0");
    pdu.bytes[1] = 0x87;  // T, CSG 1, NSG 3
  }
  for (int index = 0; index < 6; ++index)
    pdu.bytes[static_cast<std::size_t>(8 + index)] = static_cast<std::uint8_t>(options_.isid >> (40 - 8 * index));
  pdu.set_u32(16, 0x10);
  pdu.set_u32(24, cmd_sn_);
  pdu.set_u32(28, exp_stat_sn_);
  send_pdu(pdu, as_bytes(login_text_));
}

void IscsiSession::on_login_response(const Pdu& pdu, ConstBytes data) {
  const std::uint8_t status_class = pdu.bytes[36];
  if (status_class != 0) {
    take_keys(data);
    if (status_class != 1) redirect_address_.clear();
    end(fmt::format("login status {:#04x}{:02x}", status_class, pdu.bytes[37]));
    return;
  }
  take_status_number(pdu, true);
  take_window(pdu);
  take_keys(data);
  if ((pdu.flags() & 0x80) == 0) {
    // RFC 7143 6.2: the target is not ready to leave the stage; nothing more to offer, so offer to leave again.
    Pdu again;
    again.bytes[0] = 0x43;
    again.bytes[1] = stage_ == Stage::security ? 0x81 : 0x87;
    std::copy_n(&pdu.bytes[8], 8, &again.bytes[8]);
    again.set_u32(16, 0x10);
    again.set_u32(24, cmd_sn_);
    again.set_u32(28, exp_stat_sn_);
    send_pdu(again, {});
    return;
  }
  if (stage_ == Stage::security) {
    stage_ = Stage::operational;
    send_login();
    return;
  }
  stage_ = Stage::full_feature;
  has_header_digest_ = options_.has_header_digest;
  has_data_digest_ = options_.has_data_digest;
  if (owner_ != nullptr) owner_->on_logged_in(*this);
}

void IscsiSession::take_keys(ConstBytes data) {
  std::string_view text = as_text(data);
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find('\0'));
    text.remove_prefix(std::min(text.size(), pair.size() + 1));
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view name = pair.substr(0, equals);
    const std::string_view value = pair.substr(equals + 1);
    std::uint32_t number = 0;
    std::from_chars(value.data(), value.data() + value.size(), number);
    if (name == "TargetAddress") redirect_address_ = value;
    if (name == "HeaderDigest") options_.has_header_digest = value == "CRC32C";
    if (name == "DataDigest") options_.has_data_digest = value == "CRC32C";
    if (name == "InitialR2T") initial_r2t_ = value == "Yes";
    if (name == "ImmediateData") immediate_data_ = value == "Yes";
    if (name == "MaxRecvDataSegmentLength") send_segment_bytes_ = number;
    if (name == "FirstBurstLength") first_burst_bytes_ = number;
    if (name == "MaxBurstLength") burst_bytes_ = number;
  }
}

// ---- Bytes ----

void IscsiSession::send_pdu(Pdu pdu, ConstBytes data) {
  pdu.set_data_length(static_cast<std::uint32_t>(data.size()));
  std::vector<std::byte> bytes(header_bytes(pdu).begin(), header_bytes(pdu).end());
  if (has_header_digest_) append_digest(bytes, crc32c(header_bytes(pdu)));
  if (!data.empty()) {
    const std::size_t at = bytes.size();
    bytes.insert(bytes.end(), data.begin(), data.end());
    bytes.resize(at + padded(data.size()));
    if (has_data_digest_) append_digest(bytes, crc32c(ConstBytes(bytes).subspan(at)));
  }
  stream_->send(bytes);
}

void IscsiSession::on_receive(ConstBytes bytes) {
  last_heard_ = loop_.now();
  received_.insert(received_.end(), bytes.begin(), bytes.end());
  std::size_t at = 0;
  while (stage_ != Stage::ended && received_.size() - at >= kHeaderBytes) {
    Pdu pdu;
    std::memcpy(pdu.bytes.data(), received_.data() + at, kHeaderBytes);
    const std::size_t header = kHeaderBytes + (has_header_digest_ ? 4u : 0u);
    const std::size_t length = pdu.data_length();
    const std::size_t body = length == 0 ? 0 : padded(length) + (has_data_digest_ ? 4u : 0u);
    if (received_.size() - at < header + body) break;
    const ConstBytes whole = ConstBytes(received_).subspan(at, header + body);
    if (pdu.ahs_words() != 0) violation("an additional header segment that nobody asked for");
    if (has_header_digest_ &&
        load_le<std::uint32_t>(whole.data() + kHeaderBytes) != crc32c(whole.first(kHeaderBytes))) {
      violation("wrong header digest");
    }
    if (has_data_digest_ && length != 0 &&
        load_le<std::uint32_t>(whole.data() + header + padded(length)) !=
            crc32c(whole.subspan(header, padded(length)))) {
      violation("wrong data digest");
    }
    at += header + body;
    const std::vector<std::byte> data(whole.begin() + static_cast<std::ptrdiff_t>(header),
                                      whole.begin() + static_cast<std::ptrdiff_t>(header + length));
    on_pdu(pdu, data);
  }
  received_.erase(received_.begin(), received_.begin() + static_cast<std::ptrdiff_t>(at));
}

// ---- Full feature phase ----

bool IscsiSession::has_window() const noexcept {
  return stage_ == Stage::full_feature && !bench::serial_less(max_cmd_sn_, cmd_sn_);
}

void IscsiSession::submit(std::uint16_t lun, ScsiCommand command) {
  RB_ASSERT(has_window());
  const std::uint32_t tag = next_tag_++;
  Task& task = tasks_[tag];
  task.lun = lun;
  task.sent_at = loop_.now();
  task.data_in.resize(command.data_in_length_bytes);
  task.command = std::move(command);
  const auto length = static_cast<std::uint32_t>(task.command.data_out.size());
  std::uint32_t sent = 0;
  std::uint32_t unsolicited = 0;
  if (length > 0) {
    // RFC 7143 4.2.5.2 (immediate) and 11.4.2: unsolicited data in all at most FirstBurstLength.
    if (immediate_data_) sent = std::min({length, first_burst_bytes_, send_segment_bytes_});
    if (!initial_r2t_) unsolicited = std::min(length, first_burst_bytes_) - sent;
    if (sent > 0 && random_.chance(0.2)) {
      if (initial_r2t_) sent = 0;  // Nobody has to send immediate data.
    }
  }
  Pdu pdu;
  pdu.bytes[0] = 0x01;
  pdu.bytes[1] = static_cast<std::uint8_t>((unsolicited == 0 ? 0x80 : 0) | (task.data_in.empty() ? 0 : 0x40) |
                                           (length > 0 ? 0x20 : 0) | 0x01);
  bench::store_u64(&pdu.bytes[8], bench::encode_lun(lun));
  pdu.set_u32(16, tag);
  pdu.set_u32(20, length > 0 ? length : static_cast<std::uint32_t>(task.data_in.size()));
  pdu.set_u32(24, cmd_sn_++);
  pdu.set_u32(28, exp_stat_sn_);
  std::copy(task.command.cdb.begin(), task.command.cdb.end(), pdu.bytes.begin() + 32);
  send_pdu(pdu, ConstBytes(task.command.data_out).first(sent));
  if (unsolicited > 0) send_data(tag, kReservedTag, sent, unsolicited);
}

void IscsiSession::ping() {
  Pdu pdu;
  pdu.bytes[0] = 0x40;
  pdu.bytes[1] = 0x80;
  pdu.set_u32(16, 0x80000000u | next_tag_);
  pdu.set_u32(20, kReservedTag);
  pdu.set_u32(24, cmd_sn_);
  pdu.set_u32(28, exp_stat_sn_);
  send_pdu(pdu, {});
}

void IscsiSession::send_data(std::uint32_t tag, std::uint32_t transfer_tag, std::uint32_t offset_bytes,
                             std::uint32_t length_bytes) {
  const auto found = tasks_.find(tag);
  if (found == tasks_.end()) return;  // Answered meanwhile (by an error).
  const Task& task = found->second;
  std::uint32_t data_sn = 0;
  while (length_bytes > 0) {
    const std::uint32_t count = std::min(length_bytes, send_segment_bytes_);
    Pdu pdu;
    pdu.bytes[0] = 0x05;
    pdu.bytes[1] = count == length_bytes ? 0x80 : 0;
    bench::store_u64(&pdu.bytes[8], bench::encode_lun(task.lun));
    pdu.set_u32(16, tag);
    pdu.set_u32(20, transfer_tag);
    pdu.set_u32(28, exp_stat_sn_);
    pdu.set_u32(36, data_sn++);
    pdu.set_u32(40, offset_bytes);
    send_pdu(pdu, ConstBytes(task.command.data_out).subspan(offset_bytes, count));
    offset_bytes += count;
    length_bytes -= count;
  }
}

void IscsiSession::take_status_number(const Pdu& pdu, bool advances) {
  if (!has_stat_sn_) {
    has_stat_sn_ = true;
    exp_stat_sn_ = pdu.stat_sn();
  }
  if (pdu.stat_sn() != exp_stat_sn_) {
    violation(fmt::format("opcode {:#x} carries StatSN {} where {} is due (RFC 7143 4.2.2.2)", pdu.bytes[0] & 0x3f,
                          pdu.stat_sn(), exp_stat_sn_));
  }
  if (advances) ++exp_stat_sn_;
}

void IscsiSession::take_window(const Pdu& pdu) {
  // RFC 7143 4.2.2.1: a MaxCmdSN that would close the window is ignored.
  if (max_cmd_sn_ == 0 || bench::serial_less(max_cmd_sn_, pdu.max_cmd_sn())) max_cmd_sn_ = pdu.max_cmd_sn();
}

void IscsiSession::on_pdu(const Pdu& pdu, ConstBytes data) {
  if (stage_ == Stage::security || stage_ == Stage::operational) {
    if (pdu.opcode() != Opcode::login_response) {
      violation(fmt::format("opcode {:#x} during login", pdu.bytes[0]));
      end("protocol error");
      return;
    }
    on_login_response(pdu, data);
    return;
  }
  take_window(pdu);
  switch (pdu.opcode()) {
    case Opcode::scsi_response:
      on_response(pdu, data);
      return;
    case Opcode::data_in:
      on_data_in(pdu, data);
      return;
    case Opcode::r2t:
      on_r2t(pdu);
      return;
    case Opcode::nop_in: {
      take_status_number(pdu, pdu.task_tag() != kReservedTag);
      if (pdu.transfer_tag() == kReservedTag) return;
      Pdu answer;
      answer.bytes[0] = 0x40;
      answer.bytes[1] = 0x80;
      std::copy_n(&pdu.bytes[8], 8, &answer.bytes[8]);
      answer.set_u32(16, kReservedTag);
      answer.set_u32(20, pdu.transfer_tag());
      answer.set_u32(24, cmd_sn_);
      answer.set_u32(28, exp_stat_sn_);
      send_pdu(answer, {});
      return;
    }
    case Opcode::async_message:
      end("asynchronous message");
      return;
    case Opcode::reject:
      violation(fmt::format("Reject, reason {:#x}", pdu.bytes[2]));
      end("rejected");
      return;
    case Opcode::nop_out:
    case Opcode::scsi_command:
    case Opcode::login_request:
    case Opcode::data_out:
    case Opcode::logout_request:
    case Opcode::login_response:
    case Opcode::logout_response:
      break;
  }
  violation(fmt::format("unexpected opcode {:#x}", pdu.bytes[0]));
  end("protocol error");
}

void IscsiSession::on_data_in(const Pdu& pdu, ConstBytes data) {
  const auto found = tasks_.find(pdu.task_tag());
  if (found == tasks_.end()) {
    violation(fmt::format("Data-In for tag {:#x}, which is not outstanding", pdu.task_tag()));
    return;
  }
  Task& task = found->second;
  if (pdu.u32(36) != task.next_data_sn++) violation("DataSN out of order (RFC 7143 11.7.5)");
  const std::uint32_t offset = pdu.u32(40);
  if (offset != task.received_bytes || offset + data.size() > task.data_in.size() ||
      data.size() > options_.receive_segment_bytes) {
    violation(fmt::format("Data-In of {} bytes at {} where {} of {} are received", data.size(), offset,
                          task.received_bytes, task.data_in.size()));
    end("protocol error");
    return;
  }
  std::copy(data.begin(), data.end(), task.data_in.begin() + offset);
  task.received_bytes += static_cast<std::uint32_t>(data.size());
  if ((pdu.flags() & bench::kStatusBit) == 0) return;
  take_status_number(pdu, true);
  ScsiReply reply;
  reply.status = pdu.bytes[3];
  if ((pdu.flags() & kUnderflowBit) != 0) reply.underflow_bytes = pdu.u32(44);
  finish(pdu.task_tag(), reply);
}

void IscsiSession::on_response(const Pdu& pdu, ConstBytes data) {
  take_status_number(pdu, true);
  ScsiReply reply;
  reply.status = pdu.bytes[3];
  if (pdu.bytes[2] != 0) reply.status = 0xff;  // Target failure: not a SCSI status.
  if ((pdu.flags() & kUnderflowBit) != 0) reply.underflow_bytes = pdu.u32(44);
  if (data.size() >= 2 + 14) {
    const bool is_descriptor = (std::to_integer<unsigned>(data[2]) & 0x7e) == 0x72;
    reply.sense_key = std::to_integer<std::uint8_t>(data[is_descriptor ? 3 : 4]) & 0x0f;
    reply.sense_code = std::to_integer<std::uint8_t>(data[is_descriptor ? 4 : 14]);
  }
  finish(pdu.task_tag(), reply);
}

void IscsiSession::finish(std::uint32_t tag, const ScsiReply& reply) {
  const auto found = tasks_.find(tag);
  if (found == tasks_.end()) {
    violation(fmt::format("an answer for tag {:#x}, which is not outstanding", tag));
    return;
  }
  Task task = std::move(found->second);
  tasks_.erase(found);
  std::erase_if(late_, [tag](const LateData& late) { return late.tag == tag; });
  ScsiReply whole = reply;
  const std::uint32_t missing_bytes = task.command.may_be_short ? reply.underflow_bytes : 0;
  if (reply.status == 0 && std::uint64_t{task.received_bytes} + missing_bytes != task.data_in.size()) {
    violation(fmt::format("GOOD after {} of {} bytes of Data-In, residual {}", task.received_bytes, task.data_in.size(),
                          reply.underflow_bytes));
  }
  if (task.command.may_be_short) task.data_in.resize(task.received_bytes);
  whole.data_in = std::move(task.data_in);
  if (owner_ != nullptr) owner_->on_reply(*this, task.command.cookie, whole);
}

void IscsiSession::on_r2t(const Pdu& pdu) {
  take_status_number(pdu, false);
  const auto found = tasks_.find(pdu.task_tag());
  if (found == tasks_.end()) {
    violation(fmt::format("R2T for tag {:#x}, which is not outstanding", pdu.task_tag()));
    return;
  }
  Task& task = found->second;
  const std::uint32_t offset = pdu.u32(40);
  const std::uint32_t length = pdu.u32(44);
  if (pdu.u32(36) != task.next_r2t_sn++) violation("R2TSN out of order (RFC 7143 11.8.3)");
  if (length == 0 || length > burst_bytes_ || std::uint64_t{offset} + length > task.command.data_out.size()) {
    violation(fmt::format("R2T for {} bytes at {} of {}", length, offset, task.command.data_out.size()));
    end("protocol error");
    return;
  }
  // RFC 7143 13.19 DataSequenceInOrder=Yes: behind a late burst of the same task every later one is late too.
  Instant due{};
  for (const LateData& late : late_) {
    if (late.tag == pdu.task_tag()) due = std::max(due, late.due);
  }
  if (due == Instant{} && options_.late_data_probability > 0 && random_.chance(options_.late_data_probability)) {
    due = loop_.now() + random_.duration(milliseconds(1), options_.late_data_max);
  }
  if (due != Instant{}) {
    late_.push_back({pdu.task_tag(), pdu.transfer_tag(), offset, length, due});
    if (!late_timer_.is_armed() || late_timer_.deadline() > due) loop_.arm(late_timer_, due);
    return;
  }
  send_data(pdu.task_tag(), pdu.transfer_tag(), offset, length);
}

void IscsiSession::on_late_timer() {
  std::vector<LateData> waiting;
  waiting.swap(late_);
  Instant next = Instant::max();
  for (const LateData& late : waiting) {
    if (late.due <= loop_.now()) {
      send_data(late.tag, late.transfer_tag, late.offset_bytes, late.length_bytes);
    } else {
      next = std::min(next, late.due);
      late_.push_back(late);
    }
  }
  if (next != Instant::max()) loop_.arm(late_timer_, next);
}

}  // namespace replblk::sim
