#include "initiator_session.hpp"

#include "pdu.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

namespace replblk::bench {
namespace {

using Void = std::expected<void, std::string>;

constexpr int kBlockingTimeoutSeconds = 10;
constexpr std::uint8_t kOperationalToFullFeature = 1U << 2 | 3U;  // CSG 1, NSG 3
constexpr std::uint8_t kTransitBit = 0x80;
constexpr std::uint8_t kContinueBit = 0x40;
constexpr std::uint8_t kCheckCondition = 0x02;
constexpr std::uint32_t kLoginDataBytesMax = 8192;  // RFC 7143 13.12: the limit before the login is over

std::unexpected<std::string> failure(std::string text) { return std::unexpected(std::move(text)); }

std::string system_error(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

void append_key(std::string& text, std::string_view key, std::string_view value) {
  text.append(key).append("=").append(value).push_back('\0');
}

std::expected<std::uint32_t, std::string> parse_number(const std::string& key, const std::string& value) {
  char* end = nullptr;
  const unsigned long long number = std::strtoull(value.c_str(), &end, 0);
  // RFC 7143 13.12-13.14: all three lengths are 512 .. 2^24-1.
  if (value.empty() || *end != '\0' || number < 512 || number > 0xffffff) {
    return failure("target answered " + key + "=" + value + ", which is no legal length");
  }
  return static_cast<std::uint32_t>(number);
}

std::expected<bool, std::string> parse_flag(const std::string& key, const std::string& value) {
  if (value == "Yes") {
    return true;
  }
  if (value == "No") {
    return false;
  }
  return failure("target answered " + key + "=" + value);
}

}  // namespace

InitiatorSession::InitiatorSession(InitiatorSession&& other) noexcept { *this = std::move(other); }

InitiatorSession& InitiatorSession::operator=(InitiatorSession&& other) noexcept {
  if (this != &other) {
    if (socket_ >= 0) {
      ::close(socket_);
    }
    socket_ = std::exchange(other.socket_, -1);
    wire_lun_ = other.wire_lun_;
    negotiated_ = other.negotiated_;
    numbers_ = other.numbers_;
    next_task_tag_ = other.next_task_tag_;
  }
  return *this;
}

InitiatorSession::~InitiatorSession() {
  if (socket_ >= 0) {
    ::close(socket_);
  }
}

std::expected<InitiatorSession, std::string> InitiatorSession::connect(const LoginRequest& request) {
  InitiatorSession session;
  session.wire_lun_ = encode_lun(request.lun);
  if (auto opened = session.open_socket(request.portal); !opened) {
    return failure(opened.error());
  }
  if (auto logged_in = session.login(request); !logged_in) {
    return failure(logged_in.error());
  }
  return session;
}

Void InitiatorSession::open_socket(const Portal& portal) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int code = ::getaddrinfo(portal.host.c_str(), portal.port.c_str(), &hints, &found); code != 0) {
    return failure("portal " + portal.host + ":" + portal.port + ": " + ::gai_strerror(code));
  }
  socket_ = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int connected = socket_ < 0 ? -1 : ::connect(socket_, found->ai_addr, found->ai_addrlen);
  ::freeaddrinfo(found);
  if (connected < 0) {
    return failure(system_error("connect"));
  }
  const int on = 1;
  const timeval limit{.tv_sec = kBlockingTimeoutSeconds, .tv_usec = 0};
  // The time limit only guards the blocking phase; io_uring receives without it.
  if (::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
      ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0) {
    return failure(system_error("setsockopt"));
  }
  return {};
}

Void InitiatorSession::login(const LoginRequest& request) {
  std::string keys;
  append_key(keys, "InitiatorName", request.initiator_name);
  append_key(keys, "TargetName", request.target_name);
  append_key(keys, "SessionType", "Normal");
  append_key(keys, "HeaderDigest", "None");
  append_key(keys, "DataDigest", "None");
  append_key(keys, "ErrorRecoveryLevel", "0");
  append_key(keys, "InitialR2T", "No");
  append_key(keys, "ImmediateData", "Yes");
  append_key(keys, "MaxConnections", "1");
  append_key(keys, "MaxOutstandingR2T", "1");
  append_key(keys, "MaxRecvDataSegmentLength", std::to_string(request.max_recv_data_bytes));
  append_key(keys, "FirstBurstLength", std::to_string(request.first_burst_bytes));
  append_key(keys, "MaxBurstLength", std::to_string(request.max_burst_bytes));
  append_key(keys, "DataPDUInOrder", "Yes");
  append_key(keys, "DataSequenceInOrder", "Yes");
  append_key(keys, "DefaultTime2Wait", "2");
  append_key(keys, "DefaultTime2Retain", "0");

  negotiated_.own_max_recv_data_bytes = request.max_recv_data_bytes;
  std::string answers;
  std::uint16_t session_handle = 0;
  bool first = true;
  // A target that asks more than a few rounds for one stage without a security phase is stuck.
  for (int round = 0; round < 8; ++round) {
    Pdu pdu;
    pdu.bytes[0] = static_cast<std::uint8_t>(Opcode::login_request) | kImmediateBit;
    pdu.bytes[1] = kTransitBit | kOperationalToFullFeature;
    pdu.set_data_length(static_cast<std::uint32_t>(keys.size()));
    // RFC 7143 11.12.5: ISID of type "random" (10b), our number in its qualifier.
    pdu.bytes[8] = 0x80;
    pdu.bytes[11] = static_cast<std::uint8_t>(::getpid() & 0xff);
    pdu.bytes[12] = static_cast<std::uint8_t>(request.session_number >> 8);
    pdu.bytes[13] = static_cast<std::uint8_t>(request.session_number);
    pdu.bytes[14] = static_cast<std::uint8_t>(session_handle >> 8);
    pdu.bytes[15] = static_cast<std::uint8_t>(session_handle);
    pdu.set_u32(16, 0);
    pdu.set_u32(24, numbers_.cmd_sn);
    pdu.set_u32(28, first ? 0 : numbers_.exp_stat_sn);
    keys.resize((keys.size() + 3) & ~std::size_t{3}, '\0');
    if (auto sent = send_all(pdu.bytes.data(), kHeaderBytes); !sent) {
      return sent;
    }
    if (auto sent = send_all(keys.data(), keys.size()); !sent) {
      return sent;
    }
    keys.clear();

    Pdu answer;
    if (auto received = receive_all(answer.bytes.data(), kHeaderBytes); !received) {
      return received;
    }
    if (answer.opcode() != Opcode::login_response || answer.data_length() > kLoginDataBytesMax) {
      return failure("the target answered the login with opcode " + std::to_string(answer.bytes[0]));
    }
    std::string text((answer.data_length() + 3) & ~3U, '\0');
    if (auto received = receive_all(text.data(), text.size()); !received) {
      return received;
    }
    text.resize(answer.data_length());
    if (answer.bytes[36] != 0 || answer.bytes[37] != 0) {
      return failure("login refused, status class " + std::to_string(answer.bytes[36]) + " detail " +
                     std::to_string(answer.bytes[37]));
    }
    if (!first && answer.stat_sn() != numbers_.exp_stat_sn) {
      return failure("login response out of sequence: StatSN " + std::to_string(answer.stat_sn()));
    }
    first = false;
    numbers_.exp_stat_sn = answer.stat_sn() + 1;
    numbers_.max_cmd_sn = answer.max_cmd_sn();
    answers += text;
    if ((answer.flags() & kContinueBit) == 0) {
      if (auto applied = apply_answers(answers, request); !applied) {
        return applied;
      }
      answers.clear();
    }
    if ((answer.flags() & kTransitBit) != 0) {
      session_handle = static_cast<std::uint16_t>(answer.bytes[14] << 8 | answer.bytes[15]);
      if (session_handle == 0) {
        return failure("the login ended with TSIH 0");
      }
      return {};
    }
  }
  return failure("the target never agreed to enter the full feature phase");
}

// RFC 7143 6.2: the answer to an offered list or number is the result for both sides; MaxRecvDataSegmentLength
// is declarative. We check that a result is one that our offer allows.
Void InitiatorSession::apply_answers(const std::string& text, const LoginRequest& request) {
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\0', begin), text.size());
    const std::string pair = text.substr(begin, end - begin);
    begin = end + 1;
    if (pair.empty()) {
      continue;
    }
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos) {
      return failure("the target sent a key without a value: " + pair);
    }
    const std::string key = pair.substr(0, equals);
    const std::string value = pair.substr(equals + 1);
    if (value == "Reject" || value == "NotUnderstood") {
      return failure("the target answered " + pair);
    }
    const auto number_at_most = [&](std::uint32_t& result, std::uint32_t offered) -> Void {
      const auto number = parse_number(key, value);
      if (!number) {
        return failure(number.error());
      }
      if (*number > offered) {
        return failure("the target answered " + pair + ", more than offered");
      }
      result = *number;
      return {};
    };
    const auto flag = [&](bool& result) -> Void {
      const auto parsed = parse_flag(key, value);
      if (!parsed) {
        return failure(parsed.error());
      }
      result = *parsed;
      return {};
    };
    Void applied{};
    if (key == "MaxRecvDataSegmentLength") {
      applied = number_at_most(negotiated_.target_max_recv_data_bytes, 0xffffff);
    } else if (key == "FirstBurstLength") {
      applied = number_at_most(negotiated_.first_burst_bytes, request.first_burst_bytes);
    } else if (key == "MaxBurstLength") {
      applied = number_at_most(negotiated_.max_burst_bytes, request.max_burst_bytes);
    } else if (key == "ImmediateData") {
      applied = flag(negotiated_.immediate_data);
    } else if (key == "InitialR2T") {
      applied = flag(negotiated_.initial_r2t);
    } else if ((key == "HeaderDigest" || key == "DataDigest") && value != "None") {
      return failure("the target answered " + pair + " to an offer of None");
    }
    if (!applied) {
      return applied;
    }
  }
  return {};
}

std::expected<InitiatorSession::CommandResult, std::string> InitiatorSession::command(std::span<const std::uint8_t> cdb,
                                                                                      std::uint32_t data_in_bytes) {
  const std::uint32_t task_tag = next_task_tag_++;
  Pdu pdu;
  pdu.bytes[0] = static_cast<std::uint8_t>(Opcode::scsi_command);
  pdu.bytes[1] = static_cast<std::uint8_t>(kFinalBit | (data_in_bytes > 0 ? kReadBit : 0U) | kSimpleTask);
  store_u64(&pdu.bytes[8], wire_lun_);
  pdu.set_u32(16, task_tag);
  pdu.set_u32(20, data_in_bytes);
  pdu.set_u32(24, numbers_.cmd_sn++);
  pdu.set_u32(28, numbers_.exp_stat_sn);
  std::copy(cdb.begin(), cdb.end(), pdu.bytes.begin() + 32);
  if (auto sent = send_all(pdu.bytes.data(), kHeaderBytes); !sent) {
    return failure(sent.error());
  }
  CommandResult result;
  for (;;) {
    Pdu answer;
    if (auto received = receive_all(answer.bytes.data(), kHeaderBytes); !received) {
      return failure(received.error());
    }
    std::vector<std::uint8_t> data((answer.data_length() + 3) & ~3U);
    if (auto received = receive_all(data.data(), data.size()); !received) {
      return failure(received.error());
    }
    data.resize(answer.data_length());
    if (answer.task_tag() != task_tag) {
      return failure("unexpected PDU, opcode " + std::to_string(answer.bytes[0]));
    }
    if (serial_less(numbers_.max_cmd_sn, answer.max_cmd_sn())) {
      numbers_.max_cmd_sn = answer.max_cmd_sn();
    }
    const bool is_data = answer.opcode() == Opcode::data_in;
    if (is_data) {
      result.data.insert(result.data.end(), data.begin(), data.end());
      if ((answer.flags() & kStatusBit) == 0) {
        continue;
      }
    } else if (answer.opcode() != Opcode::scsi_response || answer.bytes[2] != 0) {
      return failure("command answered by opcode " + std::to_string(answer.bytes[0]) + " response " +
                     std::to_string(answer.bytes[2]));
    }
    if (answer.stat_sn() != numbers_.exp_stat_sn) {
      return failure("response out of sequence: StatSN " + std::to_string(answer.stat_sn()));
    }
    ++numbers_.exp_stat_sn;
    result.status = answer.bytes[3];
    return result;
  }
}

Void InitiatorSession::wait_until_ready() {
  // A fresh session may have several unit attentions queued (power on, inquiry data changed, ...).
  std::uint8_t status = 0;
  for (int attempt = 0; attempt < 16; ++attempt) {
    const std::uint8_t test_unit_ready[6] = {};
    const auto result = command(test_unit_ready, 0);
    if (!result) {
      return failure(result.error());
    }
    status = result->status;
    if (status == 0) {
      return {};
    }
    if (status != kCheckCondition) {
      break;
    }
  }
  return failure("the unit is not ready, SCSI status " + std::to_string(status));
}

std::expected<Capacity, std::string> InitiatorSession::read_capacity() {
  constexpr std::uint32_t kAnswerBytes = 32;
  std::uint8_t read_capacity_16[16] = {0x9e, 0x10};
  read_capacity_16[13] = kAnswerBytes;
  const auto result = command(read_capacity_16, kAnswerBytes);
  if (!result) {
    return failure(result.error());
  }
  if (result->status != 0 || result->data.size() < 12) {
    return failure("READ CAPACITY(16): SCSI status " + std::to_string(result->status) + ", " +
                   std::to_string(result->data.size()) + " bytes");
  }
  return Capacity{.block_count = load_u64(result->data.data()) + 1, .block_bytes = load_u32(result->data.data() + 8)};
}

Void InitiatorSession::send_all(const void* data, std::size_t length_bytes) {
  const char* at = static_cast<const char*>(data);
  while (length_bytes > 0) {
    const ssize_t sent = ::send(socket_, at, length_bytes, MSG_NOSIGNAL);
    if (sent <= 0) {
      return failure(system_error("send"));
    }
    at += sent;
    length_bytes -= static_cast<std::size_t>(sent);
  }
  return {};
}

Void InitiatorSession::receive_all(void* data, std::size_t length_bytes) {
  char* at = static_cast<char*>(data);
  while (length_bytes > 0) {
    const ssize_t received = ::recv(socket_, at, length_bytes, 0);
    if (received == 0) {
      return failure("the target closed the connection");
    }
    if (received < 0) {
      return failure(system_error("recv"));
    }
    at += received;
    length_bytes -= static_cast<std::size_t>(received);
  }
  return {};
}

}  // namespace replblk::bench
