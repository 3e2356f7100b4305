// One iSCSI connection of a simulated initiator: login, command window, immediate and unsolicited data, R2T, Data-In,
// digests, NOP. Written apart from src/iscsi on purpose (with bench/pdu.hpp's header access): two implementations check
// each other. Strict: whatever the target does against RFC 7143 is reported as a violation. Knows nothing of stamps.
// Its owner hears of each command at most once; not at all after abandon() or destruction.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/pdu.hpp"
#include "ports/world.hpp"
#include "seeded.hpp"

namespace replblk::sim {

struct SessionOptions {
  std::string initiator_name;
  std::string target_name;
  std::uint64_t isid = 0;
  bool has_header_digest = false;
  bool has_data_digest = false;
  bool wants_initial_r2t = true;
  bool wants_immediate_data = true;
  bool skips_security_stage = false;
  std::uint32_t receive_segment_bytes = 65536;
  std::uint32_t first_burst_bytes = 65536;
  std::uint32_t burst_bytes = 262144;
  std::uint32_t outstanding_r2t = 1;
  double late_data_probability = 0;  ///< of a Data-Out burst to be sent only after up to late_data_max
  Duration late_data_max = seconds(2);
};

struct ScsiCommand {
  std::array<std::uint8_t, 16> cdb{};
  std::vector<std::byte> data_out;
  std::uint32_t data_in_length_bytes = 0;
  bool may_be_short = false;  ///< GOOD may come with less Data-In, the residual says how much less
  std::uint64_t cookie = 0;   ///< the owner's
};

struct ScsiReply {
  std::uint8_t status = 0;
  std::uint8_t sense_key = 0;
  std::uint8_t sense_code = 0;        ///< ASC
  std::uint32_t underflow_bytes = 0;  ///< of what was asked for
  std::vector<std::byte> data_in;
};

class IscsiSession final : public ports::StreamSink {
 public:
  class Owner {
   public:
    virtual void on_logged_in(IscsiSession& session) = 0;
    virtual void on_reply(IscsiSession& session, std::uint64_t cookie, const ScsiReply& reply) = 0;
    /// The connection ended, or the login was refused; `sentence` says how. Commands without answer stay without.
    virtual void on_ended(IscsiSession& session, const std::string& sentence) = 0;
    virtual void on_violation(const std::string& sentence) = 0;

   protected:
    ~Owner() = default;
  };

  IscsiSession(ports::Loop& loop, ports::Network& network, Seeded& random, const SessionOptions& options, Owner& owner);
  ~IscsiSession();
  void start(const ports::Endpoint& portal);

  /// After the end: where the target sent the login instead; empty: nowhere.
  [[nodiscard]] const std::string& redirect_address() const noexcept { return redirect_address_; }
  [[nodiscard]] bool is_logged_in() const noexcept { return stage_ == Stage::full_feature; }
  [[nodiscard]] bool has_window() const noexcept;
  /// Takes effect at the end of the turn. Only with has_window().
  void submit(std::uint16_t lun, ScsiCommand command);
  void ping();
  /// The owner has given it up: it goes on as a ghost (answers R2T, late) and tells nobody.
  void abandon() noexcept { owner_ = nullptr; }
  [[nodiscard]] bool has_ended() const noexcept { return stage_ == Stage::ended; }
  [[nodiscard]] std::size_t in_flight_count() const noexcept { return tasks_.size(); }
  [[nodiscard]] Instant oldest_sent() const noexcept;
  [[nodiscard]] Instant last_heard() const noexcept { return last_heard_; }
  void abort_connection(const std::string& sentence) { end(sentence); }

  void on_connected() override;
  void on_receive(ConstBytes bytes) override;
  void on_closed(ports::StreamError error) override;

 private:
  using Pdu = bench::Pdu;
  enum class Stage : std::uint8_t { connecting, security, operational, full_feature, ended };
  struct Task {
    ScsiCommand command;
    std::uint16_t lun = 0;
    Instant sent_at{};
    std::vector<std::byte> data_in;
    std::uint32_t received_bytes = 0;
    std::uint32_t next_data_sn = 0;
    std::uint32_t next_r2t_sn = 0;
  };
  struct LateData {
    std::uint32_t tag;
    std::uint32_t transfer_tag;
    std::uint32_t offset_bytes;
    std::uint32_t length_bytes;
    Instant due;
  };

  void send_pdu(Pdu pdu, ConstBytes data);
  void send_login();
  void on_login_response(const Pdu& pdu, ConstBytes data);
  void take_keys(ConstBytes data);
  void on_pdu(const Pdu& pdu, ConstBytes data);
  void on_data_in(const Pdu& pdu, ConstBytes data);
  void on_response(const Pdu& pdu, ConstBytes data);
  void on_r2t(const Pdu& pdu);
  void send_data(std::uint32_t tag, std::uint32_t transfer_tag, std::uint32_t offset_bytes, std::uint32_t length_bytes);
  void finish(std::uint32_t tag, const ScsiReply& reply);
  void take_status_number(const Pdu& pdu, bool advances);
  void take_window(const Pdu& pdu);
  void violation(const std::string& sentence);
  void end(const std::string& sentence);
  void on_late_timer();

  ports::Loop& loop_;
  ports::Network& network_;
  Seeded& random_;
  SessionOptions options_;
  Owner* owner_;
  Stage stage_ = Stage::connecting;
  std::unique_ptr<ports::Stream> stream_;
  std::vector<std::byte> received_;
  std::string login_text_;
  std::string redirect_address_;
  Instant last_heard_{};
  std::map<std::uint32_t, Task> tasks_;
  std::vector<LateData> late_;
  ports::Timer late_timer_;
  std::uint32_t next_tag_ = 1;
  std::uint32_t cmd_sn_ = 1;
  std::uint32_t max_cmd_sn_ = 0;
  std::uint32_t exp_stat_sn_ = 0;
  bool has_stat_sn_ = false;
  bool has_header_digest_ = false;
  bool has_data_digest_ = false;
  // Negotiated, RFC 7143 13.
  bool initial_r2t_ = true;
  bool immediate_data_ = true;
  std::uint32_t send_segment_bytes_ = 8192;
  std::uint32_t first_burst_bytes_ = 65536;
  std::uint32_t burst_bytes_ = 262144;
};

}  // namespace replblk::sim
