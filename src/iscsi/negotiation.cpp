#include "iscsi/negotiation.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace replblk::iscsi {

enum class Negotiation::KeyId : std::uint8_t {
  header_digest,
  data_digest,
  max_connections,
  initial_r2t,
  immediate_data,
  max_recv_data_segment_length,
  max_burst_length,
  first_burst_length,
  default_time2wait,
  default_time2retain,
  max_outstanding_r2t,
  data_pdu_in_order,
  data_sequence_in_order,
  error_recovery_level,
  if_marker,
  of_marker,
  marker_interval,
  task_reporting,
  protocol_level,
};

struct Negotiation::KeyRule {
  enum class Kind : std::uint8_t { digest, number, boolean, declaration, marker_interval, task_reporting };
  std::string_view name;
  KeyId id;
  Kind kind;
  Range range;              ///< number, declaration: what the standard allows
  bool is_for_normal_only;  ///< Irrelevant in a discovery session (RFC 7143 section 13, "Use" and "Irrelevant when")
};

const Negotiation::KeyRule Negotiation::kRules[] = {
    {"HeaderDigest", KeyId::header_digest, KeyRule::Kind::digest, {0, 0}, false},
    {"DataDigest", KeyId::data_digest, KeyRule::Kind::digest, {0, 0}, false},
    {"MaxConnections", KeyId::max_connections, KeyRule::Kind::number, {1, 65535}, true},
    {"InitialR2T", KeyId::initial_r2t, KeyRule::Kind::boolean, {0, 0}, true},
    {"ImmediateData", KeyId::immediate_data, KeyRule::Kind::boolean, {0, 0}, true},
    {"MaxRecvDataSegmentLength",
     KeyId::max_recv_data_segment_length,
     KeyRule::Kind::declaration,
     {512, 16777215},
     false},
    {"MaxBurstLength", KeyId::max_burst_length, KeyRule::Kind::number, {512, 16777215}, true},
    {"FirstBurstLength", KeyId::first_burst_length, KeyRule::Kind::number, {512, 16777215}, true},
    {"DefaultTime2Wait", KeyId::default_time2wait, KeyRule::Kind::number, {0, 3600}, false},
    {"DefaultTime2Retain", KeyId::default_time2retain, KeyRule::Kind::number, {0, 3600}, false},
    {"MaxOutstandingR2T", KeyId::max_outstanding_r2t, KeyRule::Kind::number, {1, 65535}, true},
    {"DataPDUInOrder", KeyId::data_pdu_in_order, KeyRule::Kind::boolean, {0, 0}, true},
    {"DataSequenceInOrder", KeyId::data_sequence_in_order, KeyRule::Kind::boolean, {0, 0}, true},
    {"ErrorRecoveryLevel", KeyId::error_recovery_level, KeyRule::Kind::number, {0, 2}, false},
    {"IFMarker", KeyId::if_marker, KeyRule::Kind::boolean, {0, 0}, false},
    {"OFMarker", KeyId::of_marker, KeyRule::Kind::boolean, {0, 0}, false},
    {"IFMarkInt", KeyId::marker_interval, KeyRule::Kind::marker_interval, {0, 0}, false},
    {"OFMarkInt", KeyId::marker_interval, KeyRule::Kind::marker_interval, {0, 0}, false},
    {"TaskReporting", KeyId::task_reporting, KeyRule::Kind::task_reporting, {0, 0}, true},
    {"iSCSIProtocolLevel", KeyId::protocol_level, KeyRule::Kind::number, {0, 31}, true},
};

const Negotiation::KeyRule* Negotiation::find_rule(std::string_view key) noexcept {
  for (const KeyRule& rule : kRules) {
    if (rule.name == key) return &rule;
  }
  return nullptr;
}

OfferVerdict Negotiation::offer(const TextPair& pair, NegotiationPhase phase, TextBuilder& answer) {
  const KeyRule* rule = find_rule(pair.key);
  if (rule == nullptr) {
    // RFC 7143 6.2: unknown keys are answered, whatever they are, except answers to keys that we never offered.
    if (pair.value != "NotUnderstood") answer.add(pair.key, "NotUnderstood");
    return OfferVerdict::taken;
  }
  if (phase == NegotiationPhase::full_feature && rule->id != KeyId::max_recv_data_segment_length) {
    // RFC 7143 section 13: all others are "LO", leading or login only.
    answer.add(pair.key, "Reject");
    return OfferVerdict::taken;
  }
  if (phase == NegotiationPhase::login && rule->kind != KeyRule::Kind::marker_interval) {
    const std::uint32_t bit = std::uint32_t{1} << static_cast<unsigned>(rule->id);
    if ((seen_keys_ & bit) != 0) return OfferVerdict::protocol_error;
    seen_keys_ |= bit;
  }
  if (session_type_ == SessionType::discovery && rule->is_for_normal_only) {
    answer.add(pair.key, "Irrelevant");
    return OfferVerdict::taken;
  }
  switch (rule->kind) {
    case KeyRule::Kind::digest:
      answer_digest(pair, rule->id == KeyId::header_digest ? agreed_.header_digest : agreed_.data_digest, answer);
      break;
    case KeyRule::Kind::number:
      answer_number(pair, *rule, answer);
      break;
    case KeyRule::Kind::boolean:
      answer_boolean(pair, *rule, answer);
      break;
    case KeyRule::Kind::declaration: {
      // 13.12: a declaration has no answer, so a bad one cannot be refused by value.
      const std::optional<std::uint32_t> value = parse_number(pair.value);
      if (!value || *value < rule->range.lowest || *value > rule->range.highest) return OfferVerdict::protocol_error;
      agreed_.initiator_recv_bytes = *value;
      break;
    }
    case KeyRule::Kind::marker_interval:
      answer.add(pair.key, "Reject");
      break;  // RFC 7143 13.25: obsoleted
    case KeyRule::Kind::task_reporting:
      answer.add(pair.key, "RFC3720");
      break;  // 13.23: the standard semantics
  }
  return OfferVerdict::taken;
}

void Negotiation::answer_digest(const TextPair& pair, bool& result, TextBuilder& answer) {
  // 13.1: a list in the initiator's order of preference; the first that we know is chosen.
  std::string_view list = pair.value;
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    const std::string_view choice = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
    if (choice == "CRC32C" || choice == "None") {
      result = choice == "CRC32C";
      answer.add(pair.key, choice);
      return;
    }
  }
  answer.add(pair.key, "Reject");
}

void Negotiation::answer_number(const TextPair& pair, const KeyRule& rule, TextBuilder& answer) {
  const std::optional<std::uint32_t> offered = parse_number(pair.value);
  if (!offered || *offered < rule.range.lowest || *offered > rule.range.highest) {
    answer.add(pair.key, "Reject");
    return;
  }
  std::uint32_t result = 0;
  switch (rule.id) {
    case KeyId::max_connections:
      result = 1;
      break;
    case KeyId::max_burst_length:
      result = agreed_.max_burst_bytes = std::min(*offered, limits_.max_burst_bytes);
      break;
    case KeyId::first_burst_length:
      result = agreed_.first_burst_bytes = std::min(*offered, limits_.first_burst_bytes);
      break;
    case KeyId::default_time2wait:  // 13.15: the larger of the two; ours is 0, so that the initiator decides
      result = *offered;
      agreed_.time2wait_s = static_cast<std::uint16_t>(result);
      break;
    case KeyId::default_time2retain:  // 13.16: the smaller; a session ends with its connection, nothing is retained
      result = agreed_.time2retain_s = 0;
      break;
    case KeyId::max_outstanding_r2t:
      result = std::min<std::uint32_t>(*offered, limits_.max_outstanding_r2t);
      agreed_.max_outstanding_r2t = static_cast<std::uint16_t>(result);
      break;
    case KeyId::error_recovery_level:
      result = 0;
      break;
    case KeyId::protocol_level:
      result = std::min<std::uint32_t>(*offered, 1);
      break;  // 13.24: 1 is RFC 7143
    case KeyId::header_digest:
    case KeyId::data_digest:
    case KeyId::initial_r2t:
    case KeyId::immediate_data:
    case KeyId::max_recv_data_segment_length:
    case KeyId::data_pdu_in_order:
    case KeyId::data_sequence_in_order:
    case KeyId::if_marker:
    case KeyId::of_marker:
    case KeyId::marker_interval:
    case KeyId::task_reporting:
      RB_UNREACHABLE();
  }
  answer.add(pair.key, std::uint64_t{result});
}

void Negotiation::answer_boolean(const TextPair& pair, const KeyRule& rule, TextBuilder& answer) {
  if (pair.value != "Yes" && pair.value != "No") {
    answer.add(pair.key, "Reject");
    return;
  }
  const bool offered = pair.value == "Yes";
  bool result = false;
  // Our own value: InitialR2T No (OR), ImmediateData Yes (AND), both orders Yes (OR), markers No (AND).
  if (rule.id == KeyId::initial_r2t) {
    result = agreed_.initial_r2t = offered;
  } else if (rule.id == KeyId::immediate_data) {
    result = agreed_.immediate_data = offered;
  } else if (rule.id == KeyId::data_pdu_in_order || rule.id == KeyId::data_sequence_in_order) {
    result = true;
  }
  answer.add(pair.key, result ? "Yes" : "No");
}

void Negotiation::declare(TextBuilder& answer) {
  if (is_declared_) return;
  is_declared_ = true;
  answer.add("MaxRecvDataSegmentLength", std::uint64_t{limits_.max_recv_data_segment_bytes});
}

SessionParameters Negotiation::parameters() const noexcept {
  SessionParameters parameters = agreed_;
  parameters.first_burst_bytes = std::min(parameters.first_burst_bytes, parameters.max_burst_bytes);
  return parameters;
}

}  // namespace replblk::iscsi
