// null_target: answers every command at once and stores nothing. With it as the contender, bench/run measures the
// generator, the loopback and the kernel: the ceiling of every other row. A thread for each connection, writes only as
// immediate data, no checks: it is a yardstick, not a target.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "pdu.hpp"

namespace replblk::bench {
namespace {

constexpr std::uint32_t kLbaBytes = 512;
constexpr std::uint64_t kUnitBlocks = std::uint64_t{1} << 31;  // 1 TiB
constexpr std::uint32_t kWindow = 1024;
constexpr std::size_t kStreamBytes = 4U << 20;  // holds the longest PDU and a queue of others
// The literal's own end closes the last key.
constexpr char kKeys[] =
    "MaxRecvDataSegmentLength=262144\0FirstBurstLength=262144\0MaxBurstLength=1048576\0InitialR2T=No\0ImmediateData="
    "Yes";

[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "null_target: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

class NullConnection {
 public:
  explicit NullConnection(int socket) : socket_(socket), incoming_(kStreamBytes) { outgoing_.reserve(kStreamBytes); }

  void serve() {
    std::size_t fill = 0;
    for (;;) {
      const ssize_t received = ::recv(socket_, incoming_.data() + fill, incoming_.size() - fill, 0);
      if (received <= 0) {
        return;
      }
      fill += static_cast<std::size_t>(received);
      std::size_t begin = 0;
      outgoing_.clear();
      for (;;) {
        Pdu pdu;
        if (fill - begin < kHeaderBytes) {
          break;
        }
        std::memcpy(pdu.bytes.data(), incoming_.data() + begin, kHeaderBytes);
        const std::size_t whole = kHeaderBytes + ((pdu.data_length() + 3) & ~3U);
        if (fill - begin < whole) {
          break;
        }
        begin += whole;
        answer(pdu);
      }
      std::memmove(incoming_.data(), incoming_.data() + begin, fill - begin);
      fill -= begin;
      if (!send_answers()) {
        return;
      }
    }
  }

 private:
  void answer(const Pdu& pdu) {
    switch (pdu.opcode()) {
      case Opcode::login_request: {
        exp_cmd_sn_ = pdu.u32(24);
        const std::size_t at = reply(pdu, Opcode::login_response, 0x87, sizeof kKeys);
        std::memcpy(&outgoing_[at + kHeaderBytes], kKeys, sizeof kKeys);
        outgoing_[at + 15] = 1;  // TSIH
        return;
      }
      case Opcode::logout_request:
        reply(pdu, Opcode::logout_response, kFinalBit, 0);
        return;
      case Opcode::scsi_command:
        ++exp_cmd_sn_;
        answer_command(pdu);
        return;
      case Opcode::nop_out:
      case Opcode::data_out:
      case Opcode::nop_in:
      case Opcode::scsi_response:
      case Opcode::login_response:
      case Opcode::data_in:
      case Opcode::logout_response:
      case Opcode::r2t:
      case Opcode::async_message:
      case Opcode::reject:
        return;
    }
  }

  void answer_command(const Pdu& pdu) {
    constexpr std::uint8_t kDataWithStatus = kFinalBit | kStatusBit;
    const bool is_read = (pdu.flags() & kReadBit) != 0;
    if (pdu.bytes[32] == 0x9e) {
      const std::size_t at = reply(pdu, Opcode::data_in, kDataWithStatus, 32);
      store_u64(&outgoing_[at + kHeaderBytes], kUnitBlocks - 1);
      store_u32(&outgoing_[at + kHeaderBytes + 8], kLbaBytes);
    } else if (is_read) {
      reply(pdu, Opcode::data_in, kDataWithStatus, pdu.u32(20));
    } else {
      reply(pdu, Opcode::scsi_response, kFinalBit, 0);
    }
  }

  std::size_t reply(const Pdu& pdu, Opcode opcode, std::uint8_t flags, std::size_t data_bytes) {
    const std::size_t at = outgoing_.size();
    // The data is whatever the buffer holds; only the header is cleared.
    outgoing_.resize(at + kHeaderBytes + ((data_bytes + 3) & ~std::size_t{3}));
    Pdu header;
    header.bytes[0] = static_cast<std::uint8_t>(opcode);
    header.bytes[1] = flags;
    header.set_data_length(static_cast<std::uint32_t>(data_bytes));
    header.set_u32(16, pdu.task_tag());
    header.set_u32(24, stat_sn_++);
    header.set_u32(28, exp_cmd_sn_);
    header.set_u32(32, exp_cmd_sn_ + kWindow - 1);
    std::memcpy(&outgoing_[at], header.bytes.data(), kHeaderBytes);
    return at;
  }

  bool send_answers() {
    std::size_t done = 0;
    while (done < outgoing_.size()) {
      const ssize_t sent = ::send(socket_, outgoing_.data() + done, outgoing_.size() - done, MSG_NOSIGNAL);
      if (sent <= 0) {
        return false;
      }
      done += static_cast<std::size_t>(sent);
    }
    return true;
  }

  int socket_;
  std::vector<std::uint8_t> incoming_;
  std::vector<std::uint8_t> outgoing_;
  std::uint32_t stat_sn_ = 1;
  std::uint32_t exp_cmd_sn_ = 0;
};

int run(std::uint16_t port) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = ::htons(port);
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  sockaddr generic{};
  std::memcpy(&generic, &address, sizeof generic);
  if (listener < 0 || ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
      ::bind(listener, &generic, sizeof generic) < 0 || ::listen(listener, 4) < 0) {
    give_up("listen");
  }
  for (;;) {
    const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) {
      give_up("accept");
    }
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // The process's CPU clock, which the generator reads, has every thread in it.
    std::thread([socket] {
      NullConnection(socket).serve();
      ::close(socket);
    }).detach();
  }
}

}  // namespace
}  // namespace replblk::bench

int main(int argc, char** argv) {
  const long port = argc == 2 ? std::strtol(argv[1], nullptr, 10) : 0;
  if (port < 1 || port > 65535) {
    std::fputs("null_target PORT\n", stderr);
    return 2;
  }
  return replblk::bench::run(static_cast<std::uint16_t>(port));
}
