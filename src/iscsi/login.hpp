// The login phase, target's side, as a machine (RFC 7143 section 6 and 7.4, 11.12, 11.13): requests in, responses out.
// Not responsible for bytes on the wire, for time-outs, nor for sessions that exist: when the last stage is passed it
// says `ready`, and whoever owns the sessions calls accept() or refuse(), at once or much later (reinstatement waits).
// Called by connection. Invariant: nothing of the full feature phase happens before accept().
//
//   first ──► security(0) ──► operational(1) ──► ready ──accept()──► done
//     └──────────────────────────▲    │            └──refuse()──► failed
//   any error, or a target that may not serve ──► failed (a response with its status, then the connection is closed)
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "iscsi/negotiation.hpp"
#include "iscsi/pdu.hpp"
#include "iscsi/text_keys.hpp"

namespace replblk::iscsi {

/// RFC 7143 11.13.5: status class in the high byte, detail in the low one.
enum class LoginStatus : std::uint16_t {
  success = 0x0000,
  target_moved_temporarily = 0x0101,
  target_moved_permanently = 0x0102,
  initiator_error = 0x0200,
  authentication_failure = 0x0201,
  authorization_failure = 0x0202,
  not_found = 0x0203,
  target_removed = 0x0204,
  unsupported_version = 0x0205,
  too_many_connections = 0x0206,
  missing_parameter = 0x0207,
  cannot_include_in_session = 0x0208,
  session_type_not_supported = 0x0209,
  session_does_not_exist = 0x020a,
  invalid_during_login = 0x020b,
  target_error = 0x0300,
  service_unavailable = 0x0301,
  out_of_resources = 0x0302,
};
[[nodiscard]] std::string_view to_string(LoginStatus status) noexcept;

/// What a name stands for at this moment.
struct TargetVerdict {
  LoginStatus status = LoginStatus::not_found;  ///< success: log in here
  std::string_view alias;
  std::uint16_t portal_group_tag = 1;
  std::string_view redirect_address;  ///< with target_moved_*: TargetAddress of the answer (RFC 7143 13.8)
};

/// Answers the machine's one question about the world.
class TargetDirectory {
 public:
  [[nodiscard]] virtual TargetVerdict look_up(std::string_view target_name) const = 0;

 protected:
  ~TargetDirectory() = default;
};

/// A PDU to send. A text longer than 8192 bytes never arises (kTextPairsMax bounds it; see login.cpp).
struct LoginAnswer {
  LoginResponse response;  ///< numbers: only stat_sn and exp_cmd_sn are set; max_cmd_sn is the sender's matter
  std::string text;
};

class Login {
 public:
  enum class State : std::uint8_t { negotiating, ready, done, failed };

  Login(const TargetDirectory& directory, const NegotiationLimits& limits) noexcept
      : directory_(directory), negotiation_(limits) {}

  /// One Login Request with its whole data segment. Unless the state is then `ready`, `answer` is to be sent.
  void receive(const LoginRequest& request, ConstBytes segment, LoginAnswer& answer);
  /// In `ready`: the final response.
  [[nodiscard]] LoginAnswer accept(std::uint16_t tsih);
  /// With an address when it is to be logged in to elsewhere.
  [[nodiscard]] LoginAnswer refuse(const TargetVerdict& verdict);

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] LoginStatus status() const noexcept { return status_; }
  [[nodiscard]] SessionType session_type() const noexcept { return session_type_; }
  [[nodiscard]] const std::string& initiator_name() const noexcept { return initiator_name_; }
  [[nodiscard]] const std::string& target_name() const noexcept { return target_name_; }
  [[nodiscard]] std::uint64_t isid() const noexcept { return last_.isid; }
  [[nodiscard]] std::uint16_t tsih() const noexcept { return last_.tsih; }
  [[nodiscard]] std::uint16_t cid() const noexcept { return last_.cid; }
  /// The CmdSN that the first command has (RFC 7143 11.12.8).
  [[nodiscard]] std::uint32_t cmd_sn() const noexcept { return last_.cmd_sn; }
  [[nodiscard]] std::uint32_t next_stat_sn() const noexcept { return stat_sn_; }
  [[nodiscard]] SessionParameters parameters() const noexcept { return negotiation_.parameters(); }
  [[nodiscard]] Negotiation& negotiation() noexcept { return negotiation_; }

 private:
  [[nodiscard]] LoginAnswer fail_with(LoginStatus status);
  static constexpr std::uint8_t kSecurityStage = 0;
  static constexpr std::uint8_t kOperationalStage = 1;
  static constexpr std::uint8_t kFullFeatureStage = 3;

  [[nodiscard]] LoginStatus check_header(const LoginRequest& request) const noexcept;
  [[nodiscard]] LoginStatus take_pairs(std::string_view text, TextBuilder& reply);
  [[nodiscard]] LoginStatus take_pair(const TextPair& pair, TextBuilder& reply);
  [[nodiscard]] LoginStatus take_name(const TextPair& pair, std::string& name);
  [[nodiscard]] LoginStatus answer_auth_method(std::string_view offered, TextBuilder& reply);
  [[nodiscard]] LoginStatus check_first_request(TextBuilder& reply);
  [[nodiscard]] LoginAnswer make_answer(LoginStatus status);

  const TargetDirectory& directory_;
  Negotiation negotiation_;
  TextCollector collector_;
  LoginRequest last_;
  std::string initiator_name_;
  std::string target_name_;
  std::string pending_text_;  ///< of the final response, kept while it waits for accept()
  State state_ = State::negotiating;
  LoginStatus status_ = LoginStatus::success;
  SessionType session_type_ = SessionType::normal;
  std::uint8_t stage_ = kSecurityStage;
  std::uint32_t stat_sn_ = 0;
  bool is_first_pdu_ = true;
  bool is_first_text_ = true;
  bool has_session_type_ = false;
  bool has_auth_method_ = false;
};

}  // namespace replblk::iscsi
