// Negotiation of the operational keys of RFC 7143 section 13, target's side, as a machine: one offer in, one answer
// out. Not responsible for stages, names and security (login) nor for SendTargets (portal). Called by login and, for
// declarations in the full feature phase, by the connection.
// Invariant: parameters() holds exactly what both sides have agreed upon so far; what was never offered has its
// default.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "iscsi/text_keys.hpp"

namespace replblk::iscsi {

/// What this target is ready for.
struct NegotiationLimits {
  std::uint32_t max_recv_data_segment_bytes = 262144;  ///< declared; the same size that open-iscsi and LIO send
  std::uint32_t first_burst_bytes = 262144;            ///< open-iscsi's default offer
  std::uint32_t max_burst_bytes = 16776192;            ///< open-iscsi's default offer
  std::uint16_t max_outstanding_r2t = 8;
};

/// The outcome. The initial values are the defaults of RFC 7143 section 13, valid where a key is not negotiated.
struct SessionParameters {
  bool header_digest = false;
  bool data_digest = false;
  bool initial_r2t = true;
  bool immediate_data = true;
  std::uint32_t initiator_recv_bytes = 8192;  ///< its MaxRecvDataSegmentLength: the most that one PDU to it carries
  std::uint32_t max_burst_bytes = 262144;
  std::uint32_t first_burst_bytes = 65536;
  std::uint16_t max_outstanding_r2t = 1;
  std::uint16_t time2wait_s = 2;
  std::uint16_t time2retain_s = 0;
};

enum class NegotiationPhase : std::uint8_t { login, full_feature };
enum class SessionType : std::uint8_t { normal, discovery };

enum class OfferVerdict : std::uint8_t {
  taken,           ///< an answer was added where the key wants one
  protocol_error,  ///< the login or the text exchange is to be ended: a key came twice, or with a forbidden value
};

class Negotiation {
 public:
  explicit Negotiation(const NegotiationLimits& limits) noexcept : limits_(limits) {}

  void set_session_type(SessionType type) noexcept { session_type_ = type; }

  /// One pair from the initiator. Unknown keys are answered NotUnderstood, refused values Reject.
  [[nodiscard]] OfferVerdict offer(const TextPair& pair, NegotiationPhase phase, TextBuilder& answer);
  /// Our own declarations, once, when the operational stage answers first.
  void declare(TextBuilder& answer);

  /// With the relations between keys applied (FirstBurstLength ≤ MaxBurstLength).
  [[nodiscard]] SessionParameters parameters() const noexcept;

 private:
  struct Range {
    std::uint32_t lowest;
    std::uint32_t highest;
  };
  enum class KeyId : std::uint8_t;
  struct KeyRule;
  static const KeyRule kRules[];

  [[nodiscard]] static const KeyRule* find_rule(std::string_view key) noexcept;
  void answer_digest(const TextPair& pair, bool& result, TextBuilder& answer);
  void answer_number(const TextPair& pair, const KeyRule& rule, TextBuilder& answer);
  void answer_boolean(const TextPair& pair, const KeyRule& rule, TextBuilder& answer);

  NegotiationLimits limits_;
  SessionParameters agreed_;
  SessionType session_type_ = SessionType::normal;
  std::uint32_t seen_keys_ = 0;  ///< a bit per KeyId: a key is negotiated once (RFC 7143 6.3)
  bool is_declared_ = false;
};

}  // namespace replblk::iscsi
