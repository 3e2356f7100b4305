// One logged-in iSCSI session with one connection, in blocking calls: connect, login with its own key
// negotiation, and the few SCSI commands that a run needs before the load starts (TEST UNIT READY, READ
// CAPACITY). Not responsible for the load itself: LoadConnection takes over the socket and the numbers
// afterwards. Errors are text for a human. Invariant: after connect() succeeded the sequence numbers are those
// of RFC 7143 for the next PDU.
#pragma once

#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <vector>

namespace replblk::bench {

struct Portal {
  std::string host;
  std::string port;
};

struct LoginRequest {
  Portal portal;
  std::string target_name;
  std::string initiator_name;
  std::uint32_t lun = 0;
  std::uint32_t session_number = 0;  // goes into the ISID: two equal ones would reinstate each other
  std::uint32_t max_recv_data_bytes = 0;
  std::uint32_t first_burst_bytes = 0;
  std::uint32_t max_burst_bytes = 0;
};

// What both sides agreed on; limits in bytes. RFC 7143 13.
struct Negotiated {
  std::uint32_t target_max_recv_data_bytes = 8192;  // RFC 7143 13.12: the default when not declared
  std::uint32_t own_max_recv_data_bytes = 8192;
  std::uint32_t first_burst_bytes = 65536;
  std::uint32_t max_burst_bytes = 262144;
  bool immediate_data = true;
  bool initial_r2t = true;
};

struct SequenceNumbers {
  std::uint32_t cmd_sn = 1;
  std::uint32_t exp_stat_sn = 0;
  std::uint32_t max_cmd_sn = 0;
};

struct Capacity {
  std::uint64_t block_count = 0;
  std::uint32_t block_bytes = 0;
};

class InitiatorSession {
 public:
  InitiatorSession() = default;
  InitiatorSession(InitiatorSession&& other) noexcept;
  InitiatorSession& operator=(InitiatorSession&& other) noexcept;
  InitiatorSession(const InitiatorSession&) = delete;
  InitiatorSession& operator=(const InitiatorSession&) = delete;
  ~InitiatorSession();

  [[nodiscard]] static std::expected<InitiatorSession, std::string> connect(const LoginRequest& request);

  // Repeats TEST UNIT READY until the unit attentions of a fresh session are used up.
  [[nodiscard]] std::expected<void, std::string> wait_until_ready();
  [[nodiscard]] std::expected<Capacity, std::string> read_capacity();

  [[nodiscard]] int socket() const noexcept { return socket_; }
  [[nodiscard]] const Negotiated& negotiated() const noexcept { return negotiated_; }
  [[nodiscard]] const SequenceNumbers& numbers() const noexcept { return numbers_; }
  [[nodiscard]] std::uint64_t wire_lun() const noexcept { return wire_lun_; }

 private:
  struct CommandResult {
    std::uint8_t status = 0;
    std::vector<std::uint8_t> data;
  };

  [[nodiscard]] std::expected<void, std::string> open_socket(const Portal& portal);
  [[nodiscard]] std::expected<void, std::string> login(const LoginRequest& request);
  [[nodiscard]] std::expected<void, std::string> apply_answers(const std::string& text, const LoginRequest& request);
  [[nodiscard]] std::expected<CommandResult, std::string> command(std::span<const std::uint8_t> cdb,
                                                                  std::uint32_t data_in_bytes);
  [[nodiscard]] std::expected<void, std::string> send_all(const void* data, std::size_t length_bytes);
  [[nodiscard]] std::expected<void, std::string> receive_all(void* data, std::size_t length_bytes);

  int socket_ = -1;
  std::uint64_t wire_lun_ = 0;
  Negotiated negotiated_;
  SequenceNumbers numbers_;
  std::uint32_t next_task_tag_ = 1;
};

}  // namespace replblk::bench
