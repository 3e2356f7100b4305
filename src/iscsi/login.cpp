#include "iscsi/login.hpp"

#include "base/assert.hpp"

namespace replblk::iscsi {

namespace {

/// RFC 7143 4.2.7.1: iSCSI names have at most 223 bytes.
constexpr std::size_t kNameBytesMax = 223;
/// The default MaxRecvDataSegmentLength bounds login PDUs until both have declared more (RFC 7143 13.12).
constexpr std::size_t kAnswerBytesMax = 8192;

void put_text(LoginAnswer& answer, std::string text) {
  answer.text = std::move(text);
  answer.response.data_segment_bytes = static_cast<std::uint32_t>(answer.text.size());
}

}  // namespace

std::string_view to_string(LoginStatus status) noexcept {
  switch (status) {
    case LoginStatus::success:
      return "success";
    case LoginStatus::target_moved_temporarily:
      return "target moved temporarily";
    case LoginStatus::target_moved_permanently:
      return "target moved permanently";
    case LoginStatus::initiator_error:
      return "initiator error";
    case LoginStatus::authentication_failure:
      return "authentication failure";
    case LoginStatus::authorization_failure:
      return "authorization failure";
    case LoginStatus::not_found:
      return "target not found";
    case LoginStatus::target_removed:
      return "target removed";
    case LoginStatus::unsupported_version:
      return "unsupported version";
    case LoginStatus::too_many_connections:
      return "too many connections";
    case LoginStatus::missing_parameter:
      return "missing parameter";
    case LoginStatus::cannot_include_in_session:
      return "cannot be included in the session";
    case LoginStatus::session_type_not_supported:
      return "session type not supported";
    case LoginStatus::session_does_not_exist:
      return "session does not exist";
    case LoginStatus::invalid_during_login:
      return "invalid request during login";
    case LoginStatus::target_error:
      return "target error";
    case LoginStatus::service_unavailable:
      return "service unavailable";
    case LoginStatus::out_of_resources:
      return "out of resources";
  }
  RB_UNREACHABLE();
}

void Login::receive(const LoginRequest& request, ConstBytes segment, LoginAnswer& answer) {
  RB_ASSERT(state_ == State::negotiating);
  const LoginStatus header_status = check_header(request);
  if (is_first_pdu_) {
    stage_ = request.current_stage;
    stat_sn_ = request.exp_stat_sn;
  }
  last_ = request;
  if (header_status != LoginStatus::success) {
    answer = fail_with(header_status);
    return;
  }
  is_first_pdu_ = false;
  if (!collector_.append(segment)) {
    answer = fail_with(LoginStatus::initiator_error);
    return;
  }
  if (request.continues) {
    // 7.2: a text that goes on is answered by an empty response, and taken when it is whole.
    answer = make_answer(LoginStatus::success);
    return;
  }
  TextBuilder reply;
  const std::string text(collector_.text());
  collector_.clear();
  const LoginStatus status = take_pairs(text, reply);
  if (status != LoginStatus::success) {
    answer = fail_with(status);
    // 11.13.5: a redirection names the new address in its text.
    if (status == LoginStatus::target_moved_temporarily || status == LoginStatus::target_moved_permanently) {
      put_text(answer, reply.take());
    }
    return;
  }
  if (stage_ == kOperationalStage) negotiation_.declare(reply);
  if (reply.text().size() > kAnswerBytesMax) {
    answer = fail_with(LoginStatus::initiator_error);
    return;
  }
  if (request.transit && request.next_stage == kFullFeatureStage) {
    pending_text_ = reply.take();
    state_ = State::ready;
    return;
  }
  answer = make_answer(LoginStatus::success);
  put_text(answer, reply.take());
  if (request.transit) {
    answer.response.transit = true;
    answer.response.next_stage = request.next_stage;
    stage_ = request.next_stage;
  }
}

LoginStatus Login::check_header(const LoginRequest& request) const noexcept {
  // 11.12.4, 11.12.5: version 0 is the only one there is.
  if (request.version_min > 0) return LoginStatus::unsupported_version;
  if (request.current_stage != kSecurityStage && request.current_stage != kOperationalStage) {
    return LoginStatus::initiator_error;
  }
  if (!is_first_pdu_) {
    if (request.current_stage != stage_) return LoginStatus::initiator_error;
    // 11.12.6, 11.12.7: ISID, TSIH and CID are the same in the whole login.
    if (request.isid != last_.isid || request.tsih != last_.tsih || request.cid != last_.cid) {
      return LoginStatus::initiator_error;
    }
  }
  // 11.12.2: with C set, T must not be.
  if (request.continues && request.transit) return LoginStatus::initiator_error;
  if (request.transit) {
    // 7.3: stages go forward only, and 2 is reserved.
    const bool is_forward = request.next_stage > request.current_stage &&
                            (request.next_stage == kOperationalStage || request.next_stage == kFullFeatureStage);
    if (!is_forward) return LoginStatus::initiator_error;
  }
  return LoginStatus::success;
}

LoginStatus Login::take_pairs(std::string_view text, TextBuilder& reply) {
  const Result<std::vector<TextPair>, TextError> pairs = parse_text(text);
  if (!pairs) return LoginStatus::initiator_error;
  if (is_first_text_) {
    // What depends on the session type may stand before it in the text.
    for (const TextPair& pair : *pairs) {
      if (pair.key != "SessionType") continue;
      if (has_session_type_) return LoginStatus::initiator_error;
      has_session_type_ = true;
      if (pair.value != "Normal" && pair.value != "Discovery") return LoginStatus::session_type_not_supported;
      session_type_ = pair.value == "Discovery" ? SessionType::discovery : SessionType::normal;
      negotiation_.set_session_type(session_type_);
    }
  }
  for (const TextPair& pair : *pairs) {
    const LoginStatus status = take_pair(pair, reply);
    if (status != LoginStatus::success) return status;
  }
  if (is_first_text_) {
    is_first_text_ = false;
    return check_first_request(reply);
  }
  return LoginStatus::success;
}

LoginStatus Login::take_pair(const TextPair& pair, TextBuilder& reply) {
  if (pair.key == "SessionType") return is_first_text_ ? LoginStatus::success : LoginStatus::initiator_error;
  if (pair.key == "InitiatorName") return take_name(pair, initiator_name_);
  if (pair.key == "TargetName") return take_name(pair, target_name_);
  if (pair.key == "InitiatorAlias") return LoginStatus::success;
  if (pair.key == "AuthMethod") return answer_auth_method(pair.value, reply);
  return negotiation_.offer(pair, NegotiationPhase::login, reply) == OfferVerdict::taken ? LoginStatus::success
                                                                                         : LoginStatus::initiator_error;
}

LoginStatus Login::take_name(const TextPair& pair, std::string& name) {
  // 13.4, 13.5: declared once, in the first request.
  if (!is_first_text_ || !name.empty() || pair.value.empty() || pair.value.size() > kNameBytesMax) {
    return LoginStatus::initiator_error;
  }
  name = pair.value;
  return LoginStatus::success;
}

LoginStatus Login::answer_auth_method(std::string_view offered, TextBuilder& reply) {
  // 7.4: security is negotiated in its own stage, once.
  if (stage_ != kSecurityStage || has_auth_method_) return LoginStatus::initiator_error;
  has_auth_method_ = true;
  while (!offered.empty()) {
    const std::size_t comma = offered.find(',');
    if (offered.substr(0, comma) == "None") {
      reply.add("AuthMethod", "None");
      return LoginStatus::success;
    }
    offered = comma == std::string_view::npos ? std::string_view{} : offered.substr(comma + 1);
  }
  return LoginStatus::authentication_failure;
}

LoginStatus Login::check_first_request(TextBuilder& reply) {
  // 13.4, 13.5: the first request names the initiator, and the target unless it is for discovery.
  if (initiator_name_.empty()) return LoginStatus::missing_parameter;
  if (session_type_ == SessionType::discovery) {
    // A discovery session is never a second connection of another session.
    return last_.tsih == 0 ? LoginStatus::success : LoginStatus::session_does_not_exist;
  }
  if (target_name_.empty()) return LoginStatus::missing_parameter;
  const TargetVerdict target = directory_.look_up(target_name_);
  if (target.status != LoginStatus::success) {
    if (!target.redirect_address.empty()) reply.add("TargetAddress", target.redirect_address);
    return target.status;
  }
  // 13.9: in the first response of a session with a named target.
  if (!target.alias.empty()) reply.add("TargetAlias", target.alias);
  reply.add("TargetPortalGroupTag", std::uint64_t{target.portal_group_tag});
  return LoginStatus::success;
}

LoginAnswer Login::accept(std::uint16_t tsih) {
  RB_ASSERT(state_ == State::ready);
  state_ = State::done;
  LoginAnswer answer = make_answer(LoginStatus::success);
  put_text(answer, std::move(pending_text_));
  answer.response.transit = true;
  answer.response.next_stage = kFullFeatureStage;
  // 11.13.3: the final response of a new session carries the handle that the target chose.
  answer.response.tsih = tsih;
  return answer;
}

LoginAnswer Login::refuse(const TargetVerdict& verdict) {
  LoginAnswer answer = fail_with(verdict.status);
  if (!verdict.redirect_address.empty()) {
    TextBuilder text;
    text.add("TargetAddress", verdict.redirect_address);
    put_text(answer, text.take());
  }
  return answer;
}

LoginAnswer Login::fail_with(LoginStatus status) {
  state_ = State::failed;
  status_ = status;
  return make_answer(status);
}

LoginAnswer Login::make_answer(LoginStatus status) {
  LoginAnswer answer;
  LoginResponse& response = answer.response;
  response.current_stage = last_.current_stage;
  response.isid = last_.isid;
  response.tsih = last_.tsih;
  response.initiator_task_tag = last_.initiator_task_tag;
  response.numbers.stat_sn = stat_sn_++;
  response.numbers.exp_cmd_sn = last_.cmd_sn;
  response.numbers.max_cmd_sn = last_.cmd_sn;
  response.status_class = static_cast<std::uint8_t>(static_cast<std::uint16_t>(status) >> 8);
  response.status_detail = static_cast<std::uint8_t>(static_cast<std::uint16_t>(status));
  return answer;
}

}  // namespace replblk::iscsi
