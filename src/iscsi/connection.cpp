#include "iscsi/connection.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "iscsi/session.hpp"

namespace replblk::iscsi {

namespace {

/// A ping is echoed up to this much; longer ones are cut (RFC 7143 11.19.3 lets the target bound it).
constexpr std::size_t kPingBytesMax = 65536;
/// From here on a receive of its own into the place of the data is cheaper than a copy.
constexpr std::size_t kDirectBytesMin = 8192;
/// The tag of an unfinished text exchange; there is at most one on a connection (RFC 7143 11.10.4).
constexpr std::uint32_t kTextTransferTag = 1;
/// The tag that our pings carry; any value but the reserved one (RFC 7143 11.19.2).
constexpr std::uint32_t kPingTransferTag = 2;
/// A discovery session says one thing after the other.
constexpr std::uint32_t kDiscoveryDepth = 8;

}  // namespace

Connection::Connection(std::unique_ptr<ports::Stream> stream, ports::World& world, LoginHost& host,
                       ConnectionOwner& owner, const ConnectionTimers& timers, const NegotiationLimits& limits)
    : world_(world),
      host_(host),
      owner_(&owner),
      stream_(std::move(stream)),
      timers_(timers),
      recv_bytes_max_(limits.max_recv_data_segment_bytes),
      writer_(*stream_),
      login_(host, limits),
      timer_(Callback<void()>::to<&Connection::timer_expired>(*this)),
      continue_task_(Callback<void()>::to<&Connection::continue_receiving>(*this)) {
  reader_.set_data_bytes_max(kTextBytesMax);
  stream_->set_sink(*this);
  world_.loop.arm(timer_, world_.loop.now() + timers_.login_timeout);
}

Connection::~Connection() { world_.loop.cancel(timer_); }

// ---- bytes in

void Connection::on_receive(ConstBytes bytes) {
  if (phase_ == Phase::over) return;
  last_heard_ = world_.loop.now();
  if (is_blocked() || !stash_.empty()) {
    keep_rest(bytes);
    return;
  }
  process(bytes);
  keep_rest(bytes);
}

void Connection::keep_rest(ConstBytes rest) {
  if (phase_ == Phase::over || rest.empty()) return;
  if (phase_ == Phase::waiting_for_admission) {
    // The stream is not paused then, so that the initiator's end is noticed; but it has nothing to say.
    fail("data before the login was answered");
    return;
  }
  stash_.insert(stash_.end(), rest.begin(), rest.end());
}

ports::DirectTarget Connection::direct_target() {
  if (phase_ != Phase::full_feature || is_blocked() || !receive_buffer_ || !stash_.empty()) return {};
  const MutableBytes room = reader_.direct_room();
  if (room.size() < kDirectBytesMin) return {};
  return {receive_buffer_.share(), static_cast<std::size_t>(room.data() - receive_buffer_.data()), room.size()};
}

void Connection::on_direct(std::size_t count) {
  if (phase_ == Phase::over) return;
  last_heard_ = world_.loop.now();
  reader_.direct_received(count);
  ConstBytes nothing;
  process(nothing);
}

void Connection::process(ConstBytes& input) {
  while (!is_blocked() && (phase_ == Phase::login || phase_ == Phase::full_feature)) {
    switch (reader_.advance(input)) {
      case PduReader::Event::need_more:
        return;
      case PduReader::Event::header:
        begin_pdu();
        break;
      case PduReader::Event::complete:
        end_pdu();
        if (phase_ != Phase::over && stream_->queued_bytes() > ports::Stream::kQueueHighBytes) {
          // An initiator that sends commands but does not read answers must not make the queue grow.
          waits_for_room_ = true;
        }
        break;
      case PduReader::Event::error:
        fail(to_string(reader_.error()));
        break;
    }
  }
  if (phase_ != Phase::over && is_blocked() && !is_receiving_paused_) {
    is_receiving_paused_ = true;
    stream_->pause_receive();
  }
}

void Connection::continue_receiving() {
  if (phase_ == Phase::over || is_blocked()) return;
  std::vector<std::byte> kept;
  kept.swap(stash_);
  ConstBytes input = kept;
  process(input);
  keep_rest(input);
  if (phase_ != Phase::over && !is_blocked() && is_receiving_paused_) {
    is_receiving_paused_ = false;
    stream_->resume_receive();
  }
}

void Connection::on_send_room() {
  if (!waits_for_room_) return;
  waits_for_room_ = false;
  world_.loop.defer(continue_task_);
}

void Connection::on_closed(ports::StreamError error) {
  if (phase_ != Phase::over) end(to_string(error));
}

// ---- PDUs in

void Connection::begin_pdu() {
  is_pdu_ignored_ = false;
  receive_buffer_.reset();
  scratch_.clear();
  if (phase_ == Phase::full_feature) {
    begin_full_feature_pdu();
    return;
  }
  if (opcode_of(reader_.bhs()) != Opcode::login_request) {
    // RFC 7143 6.3: nothing but Login Requests before the full feature phase.
    fail("the first PDU is not a login request");
    return;
  }
  place_scratch(kTextBytesMax);
}

void Connection::begin_full_feature_pdu() {
  const Bhs& bhs = reader_.bhs();
  const bool immediate = is_immediate(bhs);
  // CmdSN stands at the same place in every request that has one (RFC 7143 11.2.2).
  const std::uint32_t cmd_sn = load_be<std::uint32_t>(bhs.data() + 24);
  switch (opcode_of(bhs)) {
    case Opcode::scsi_command:
      if (session_ != nullptr && admit_request(immediate, cmd_sn)) {
        take_placement(session_->begin_command(decode_scsi_command(bhs)));
        return;
      }
      break;
    case Opcode::data_out:
      if (session_ != nullptr) {
        take_placement(session_->begin_data_out(decode_data_out(bhs)));
        return;
      }
      break;
    case Opcode::nop_out:
      // 11.18.3: an answer to our ping has no tag of its own, is immediate, and uses no CmdSN.
      if (decode_nop_out(bhs).initiator_task_tag == kReservedTag || admit_request(immediate, cmd_sn)) {
        place_scratch(kPingBytesMax);
        return;
      }
      break;
    case Opcode::text_request:
      if (reader_.data_bytes() > kTextBytesMax) {
        fail("text request is too long");
      } else if (admit_request(immediate, cmd_sn)) {
        place_scratch(kTextBytesMax);
        return;
      }
      break;
    case Opcode::task_management_request:
    case Opcode::logout_request:
      static_cast<void>(admit_request(immediate, cmd_sn));
      break;
    case Opcode::login_request:
    case Opcode::snack_request:
    case Opcode::nop_in:
    case Opcode::scsi_response:
    case Opcode::task_management_response:
    case Opcode::login_response:
    case Opcode::text_response:
    case Opcode::data_in:
    case Opcode::logout_response:
    case Opcode::r2t:
    case Opcode::async_message:
    case Opcode::reject:
    default:  // Any of the six-bit codes may come.
      break;
  }
  if (phase_ != Phase::over) reader_.place({});
}

bool Connection::admit_request(bool immediate, std::uint32_t cmd_sn) {
  if (immediate) return true;
  switch (window_->receive(cmd_sn)) {
    case CommandWindow::Verdict::in_order:
      return true;
    case CommandWindow::Verdict::ignore:
      // 4.2.2.1: silently.
      is_pdu_ignored_ = true;
      return false;
    case CommandWindow::Verdict::gap:
      fail("a command is missing before this one");
      return false;
  }
  RB_UNREACHABLE();
}

void Connection::take_placement(Placement placement) {
  if (phase_ == Phase::over) return;
  switch (placement.kind) {
    case Placement::Kind::here:
      if (placement.buffer && placement.length_bytes > 0) {
        reader_.place(placement.buffer.bytes(placement.offset_bytes, placement.length_bytes));
        receive_buffer_ = std::move(placement.buffer);
      } else {
        reader_.place({});
      }
      return;
    case Placement::Kind::wait:
      waits_for_memory_ = true;
      return;
    case Placement::Kind::fail:
      fail("the transfer breaks the rules that were negotiated");
      return;
  }
  RB_UNREACHABLE();
}

void Connection::place_waiting(Placement placement) {
  RB_ASSERT(waits_for_memory_);
  waits_for_memory_ = false;
  take_placement(std::move(placement));
  world_.loop.defer(continue_task_);
}

void Connection::place_scratch(std::size_t bytes_max) {
  scratch_.resize(std::min<std::size_t>(reader_.data_bytes(), bytes_max));
  reader_.place(scratch_);
}

void Connection::end_pdu() {
  receive_buffer_.reset();
  if (phase_ == Phase::login) {
    end_login_request();
    return;
  }
  if (is_pdu_ignored_) return;
  switch (opcode_of(reader_.bhs())) {
    case Opcode::nop_out:
      end_nop_out();
      return;
    case Opcode::text_request:
      end_text_request();
      return;
    case Opcode::logout_request:
      end_logout();
      return;
    case Opcode::scsi_command:
      if (session_ == nullptr) break;
      session_->end_command();
      return;
    case Opcode::data_out:
      if (session_ == nullptr) break;
      session_->end_data_out();
      return;
    case Opcode::task_management_request:
      if (session_ == nullptr) break;
      session_->manage(decode_task_management_request(reader_.bhs()));
      return;
    case Opcode::snack_request:
      // 11.16: no SNACK at ErrorRecoveryLevel 0.
      send_reject(RejectReason::snack_reject);
      return;
    case Opcode::login_request:
      send_reject(RejectReason::protocol_error);
      finish("login request in the full feature phase");
      return;
    case Opcode::nop_in:
    case Opcode::scsi_response:
    case Opcode::task_management_response:
    case Opcode::login_response:
    case Opcode::text_response:
    case Opcode::data_in:
    case Opcode::logout_response:
    case Opcode::r2t:
    case Opcode::async_message:
    case Opcode::reject:
    default:  // Any of the six-bit codes may come.
      break;
  }
  send_reject(RejectReason::command_not_supported);
}

// ---- login

void Connection::end_login_request() {
  LoginAnswer answer;
  login_.receive(decode_login_request(reader_.bhs()), scratch_, answer);
  switch (login_.state()) {
    case Login::State::negotiating:
      send_login_answer(answer);
      return;
    case Login::State::ready:
      // The initiator's own time-out bounds the wait for an old session to drain; ours ends here.
      world_.loop.cancel(timer_);
      if (login_.session_type() == SessionType::discovery) {
        // 4.4.3: a discovery session has a handle, too; nothing refers to it.
        answer = login_.accept(1);
        enter_full_feature(kDiscoveryDepth);
        send_login_answer(answer);
        reader_.set_digests(parameters_.header_digest, parameters_.data_digest);
        writer_.set_digests(parameters_.header_digest, parameters_.data_digest);
        world_.loop.arm(timer_, world_.loop.now() + timers_.discovery_idle_timeout);
        return;
      }
      phase_ = Phase::waiting_for_admission;
      host_.login_ready(*this);
      return;
    case Login::State::failed:
      log_info("login of \"{}\" from {} to \"{}\" refused: {}", login_.initiator_name(), to_string(remote()),
               login_.target_name(), to_string(login_.status()));
      send_login_answer(answer);
      finish("login refused");
      return;
    case Login::State::done:
      RB_UNREACHABLE();
  }
  RB_UNREACHABLE();
}

void Connection::accept(Session& session, ConnectionOwner& owner, std::uint16_t tsih, std::uint32_t depth) {
  RB_ASSERT(phase_ == Phase::waiting_for_admission);
  session_ = &session;
  owner_ = &owner;
  LoginAnswer answer = login_.accept(tsih);
  enter_full_feature(depth);
  send_login_answer(answer);
  // Digests hold from the first PDU of the full feature phase (RFC 7143 13.1).
  reader_.set_digests(parameters_.header_digest, parameters_.data_digest);
  writer_.set_digests(parameters_.header_digest, parameters_.data_digest);
  arm_keepalive();
}

void Connection::refuse(const TargetVerdict& verdict) {
  RB_ASSERT(phase_ == Phase::waiting_for_admission);
  LoginAnswer answer = login_.refuse(verdict);
  log_info("login of \"{}\" from {} to \"{}\" refused: {}", login_.initiator_name(), to_string(remote()),
           login_.target_name(), to_string(verdict.status));
  send_login_answer(answer);
  finish("login refused");
}

void Connection::enter_full_feature(std::uint32_t depth) {
  phase_ = Phase::full_feature;
  parameters_ = login_.parameters();
  stat_sn_ = login_.next_stat_sn();
  window_.emplace(login_.cmd_sn(), depth);
  reader_.set_data_bytes_max(recv_bytes_max_);
  last_heard_ = world_.loop.now();
}

void Connection::send_login_answer(LoginAnswer& answer) {
  if (window_) answer.response.numbers.max_cmd_sn = window_->max_cmd_sn();
  writer_.send(encode(answer.response), as_bytes(answer.text));
}

// ---- text, NOP, logout

void Connection::end_text_request() {
  const TextRequest pdu = decode_text_request(reader_.bhs());
  if (pdu.target_transfer_tag == kTextTransferTag && !text_out_.empty()) {
    send_text_chunk(pdu);  // 11.10: an empty request fetches the rest of a long answer.
    return;
  }
  text_out_.clear();
  text_out_sent_ = 0;
  if (pdu.target_transfer_tag == kReservedTag) text_in_.clear();
  if (!text_in_.append(scratch_)) {
    fail("text request is too long");
    return;
  }
  TextBuilder answer;
  if (!pdu.continues) {
    const std::string text(text_in_.text());
    text_in_.clear();
    const Result<std::vector<TextPair>, TextError> pairs = parse_text(text);
    if (!pairs) {
      fail(to_string(pairs.error()));
      return;
    }
    for (const TextPair& pair : *pairs) {
      if (pair.key == "SendTargets") {
        host_.answer_send_targets(*this, pair.value, answer);
      } else if (login_.negotiation().offer(pair, NegotiationPhase::full_feature, answer) ==
                 OfferVerdict::protocol_error) {
        send_reject(RejectReason::protocol_error);
        return;
      }
    }
    parameters_.initiator_recv_bytes = login_.parameters().initiator_recv_bytes;
  }
  text_out_ = answer.take();
  send_text_chunk(pdu);
}

void Connection::send_text_chunk(const TextRequest& pdu) {
  const std::size_t length = std::min<std::size_t>(text_out_.size() - text_out_sent_, parameters_.initiator_recv_bytes);
  const ConstBytes chunk = as_bytes(text_out_).subspan(text_out_sent_, length);
  text_out_sent_ += length;
  TextResponse response;
  response.continues = text_out_sent_ < text_out_.size();
  // 11.11.1: final only in answer to a final request, and when all is said.
  response.is_final = !response.continues && pdu.is_final && !pdu.continues;
  response.lun = pdu.lun;
  response.initiator_task_tag = pdu.initiator_task_tag;
  response.target_transfer_tag = response.is_final ? kReservedTag : kTextTransferTag;
  response.numbers = next_numbers();
  writer_.send(encode(response), chunk);
  if (!response.continues) {
    text_out_.clear();
    text_out_sent_ = 0;
  }
}

void Connection::end_nop_out() {
  const NopOut pdu = decode_nop_out(reader_.bhs());
  if (pdu.initiator_task_tag == kReservedTag) return;  // The answer to our ping: last_heard_ has noted it.
  // 11.19: the echo has the request's tag and data, as much as fits what the initiator takes.
  NopIn answer;
  answer.lun = 0;
  answer.initiator_task_tag = pdu.initiator_task_tag;
  answer.numbers = next_numbers();
  const std::size_t length = std::min<std::size_t>(scratch_.size(), parameters_.initiator_recv_bytes);
  writer_.send(encode(answer), ConstBytes(scratch_).first(length));
}

void Connection::end_logout() {
  const LogoutRequest pdu = decode_logout_request(reader_.bhs());
  // 11.14.1: 2 is for recovery levels that we do not negotiate; there is one connection, so 0 and 1 mean the same.
  const bool is_known_connection = pdu.reason == 0 || pdu.cid == login_.cid();
  if (pdu.reason >= 2 || !is_known_connection) {
    LogoutResponse response;
    response.response = pdu.reason >= 2 ? 2 : 1;
    response.initiator_task_tag = pdu.initiator_task_tag;
    response.numbers = next_numbers();
    writer_.send(encode(response));
    return;
  }
  if (session_ == nullptr || session_->logout(pdu)) complete_logout(pdu);
}

void Connection::complete_logout(const LogoutRequest& pdu) {
  LogoutResponse response;
  response.initiator_task_tag = pdu.initiator_task_tag;
  response.numbers = next_numbers();
  response.time2wait_s = parameters_.time2wait_s;
  response.time2retain_s = parameters_.time2retain_s;
  writer_.send(encode(response));
  finish("logged out");
}

// ---- PDUs out

SequenceNumbers Connection::next_numbers() noexcept {
  SequenceNumbers numbers = current_numbers();
  ++stat_sn_;
  return numbers;
}

SequenceNumbers Connection::current_numbers() const noexcept {
  return {stat_sn_, window_->exp_cmd_sn(), window_->max_cmd_sn()};
}

void Connection::send_reject(RejectReason reason) {
  Reject reject;
  reject.reason = static_cast<std::uint8_t>(reason);
  reject.numbers = next_numbers();
  // 11.17: the data segment is the header of the PDU that was rejected.
  writer_.send(encode(reject), reader_.bhs());
}

void Connection::announce_window() {
  // 11.19.2: a NOP-In without tags asks for nothing and carries the numbers.
  NopIn pdu;
  pdu.numbers = current_numbers();
  writer_.send(encode(pdu));
}

// ---- time and end

void Connection::arm_keepalive() { world_.loop.arm(timer_, last_heard_ + timers_.nop_interval); }

void Connection::timer_expired() {
  const Instant now = world_.loop.now();
  if (phase_ == Phase::login) {
    fail("login timed out");
    return;
  }
  if (session_ == nullptr) {
    if (last_heard_ + timers_.discovery_idle_timeout <= now) {
      fail("discovery session is idle");
    } else {
      world_.loop.arm(timer_, last_heard_ + timers_.discovery_idle_timeout);
    }
    return;
  }
  if (waits_for_memory_) last_heard_ = now;  // We are the ones that do not listen.
  if (last_heard_ + timers_.nop_interval > now) {
    is_ping_out_ = false;
    arm_keepalive();
    return;
  }
  if (is_ping_out_) {
    const bool was_answered = last_heard_ > ping_sent_at_;
    // A ping behind a long queue that the initiator is still taking is late, not lost.
    const bool is_draining = stream_->queued_bytes() < queued_at_ping_;
    if (!was_answered && !is_draining) {
      fail("no answer to NOP-In");
      return;
    }
    queued_at_ping_ = stream_->queued_bytes();
    if (!was_answered) {
      world_.loop.arm(timer_, now + timers_.nop_timeout);
      return;
    }
  }
  NopIn ping;
  ping.target_transfer_tag = kPingTransferTag;
  ping.numbers = current_numbers();
  writer_.send(encode(ping));
  is_ping_out_ = true;
  ping_sent_at_ = now;
  queued_at_ping_ = stream_->queued_bytes();
  world_.loop.arm(timer_, now + timers_.nop_timeout);
}

void Connection::fail(std::string_view reason) {
  if (phase_ == Phase::over) return;
  stream_->abort();
  end(reason);
}

void Connection::drop(std::string_view reason, Duration wait) {
  if (phase_ != Phase::full_feature) return fail(reason);
  AsyncMessage message;
  message.event = static_cast<std::uint8_t>(AsyncEvent::drops_connection);
  message.parameter1 = login_.cid();
  message.numbers = next_numbers();
  writer_.abort_after(encode(message), wait);
  end(reason);
}

void Connection::finish(std::string_view reason) {
  if (phase_ == Phase::over) return;
  stream_->close();
  end(reason);
}

void Connection::end(std::string_view reason) {
  phase_ = Phase::over;
  world_.loop.cancel(timer_);
  continue_task_.unlink();
  receive_buffer_.reset();
  stash_.clear();
  owner_->connection_ended(*this, reason);
}

}  // namespace replblk::iscsi
