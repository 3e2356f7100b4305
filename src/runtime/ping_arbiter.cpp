#include "runtime/ping_arbiter.hpp"

#include <fmt/format.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>

#include "base/assert.hpp"
#include "base/bytes.hpp"
#include "runtime/event_source.hpp"
#include "runtime/socket.hpp"

namespace replblk::runtime {

namespace {

/// Of one address within the time-out: a lost packet or two decide nothing.
constexpr int kRounds = 4;

constexpr std::size_t kEchoHeaderBytes = 8;  // RFC 792, RFC 4443 4.1: type, code, checksum, identifier, sequence
constexpr std::size_t kTokenBytes = 16;
using Echo = std::array<std::byte, kEchoHeaderBytes + kTokenBytes>;
using Token = std::array<std::byte, kTokenBytes>;

/// RFC 1071. The kernel fills it in for all sockets but raw IPv4 ones.
std::uint16_t checksum(ConstBytes bytes) noexcept {
  std::uint32_t sum = 0;
  for (std::size_t index = 0; index + 1 < bytes.size(); index += 2) sum += load_be<std::uint16_t>(&bytes[index]);
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

class AddressProbe {
 public:
  AddressProbe() = default;
  AddressProbe(const AddressProbe&) = delete;
  AddressProbe& operator=(const AddressProbe&) = delete;
  virtual ~AddressProbe() = default;
  /// Asks, also again. False: this process cannot; errno says why.
  [[nodiscard]] virtual bool ask() = 0;
};

class IcmpProbe final : public AddressProbe {
 public:
  IcmpProbe(Reactor& reactor, const SocketAddress& remote, const Token& token, Callback<void()> on_reached)
      : reactor_(reactor), remote_(remote), token_(token), on_reached_(on_reached) {}
  ~IcmpProbe() override {
    watch_.reset();
    if (fd_ >= 0) ::close(fd_);
  }

  [[nodiscard]] bool ask() override {
    if (fd_ < 0 && !open()) return false;
    // connect(): the kernel then drops what comes from elsewhere. Again each time, since there may be a route now. No
    // route is no answer, as on the way.
    if (::connect(fd_, remote_.get(), remote_.length) != 0) return true;
    Echo echo{};
    echo[0] = static_cast<std::byte>(is_v6() ? ICMP6_ECHO_REQUEST : ICMP_ECHO);
    store_be<std::uint16_t>(&echo[4], static_cast<std::uint16_t>(::getpid()));
    store_be<std::uint16_t>(&echo[6], ++sequence_);
    std::memcpy(&echo[kEchoHeaderBytes], token_.data(), token_.size());
    store_be<std::uint16_t>(&echo[2], checksum(echo));
    static_cast<void>(::send(fd_, echo.data(), echo.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
    return true;
  }

 private:
  [[nodiscard]] bool is_v6() const noexcept { return remote_.family() == AF_INET6; }

  bool open() {
    const int protocol = is_v6() ? static_cast<int>(IPPROTO_ICMPV6) : static_cast<int>(IPPROTO_ICMP);
    // The first kind is open to the groups in net.ipv4.ping_group_range, the second to CAP_NET_RAW.
    for (const int type : {SOCK_DGRAM, SOCK_RAW}) {
      fd_ = ::socket(remote_.family(), type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
      if (fd_ < 0) continue;
      has_ip_header_ = type == SOCK_RAW && !is_v6();
      watch_.emplace(reactor_, fd_, Callback<void()>::to<&IcmpProbe::receive>(*this));
      return true;
    }
    return false;
  }

  void receive() {
    std::array<std::byte, 256> packet;
    // A raw socket hears all of the host's ICMP from that address: not more than some in one turn.
    for (int left = 16; left > 0; --left) {
      const ssize_t count = ::recv(fd_, packet.data(), packet.size(), MSG_DONTWAIT);
      if (count < 0 && errno == EAGAIN) return;
      if (count < 0) continue;  // What a router said of an earlier echo.
      if (is_reply({packet.data(), static_cast<std::size_t>(count)})) return on_reached_();
    }
  }

  [[nodiscard]] bool is_reply(ConstBytes packet) const noexcept {
    if (has_ip_header_) {
      if (packet.empty()) return false;
      const std::size_t header = (std::to_integer<std::size_t>(packet.front()) & 0x0f) * 4;
      if (packet.size() < header) return false;
      packet = packet.subspan(header);
    }
    const auto type = static_cast<std::byte>(is_v6() ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY);
    return packet.size() == sizeof(Echo) && packet.front() == type &&
           std::memcmp(&packet[kEchoHeaderBytes], token_.data(), token_.size()) == 0;
  }

  Reactor& reactor_;
  const SocketAddress remote_;
  const Token token_;
  const Callback<void()> on_reached_;
  int fd_ = -1;
  bool has_ip_header_ = false;
  std::uint16_t sequence_ = 0;
  std::optional<ReadableWatch> watch_;
};

class TcpProbe final : public AddressProbe, private ports::StreamSink {
 public:
  TcpProbe(ports::Network& network, const ports::Endpoint& remote, Callback<void()> on_reached)
      : network_(network), remote_(remote), on_reached_(on_reached) {}

  [[nodiscard]] bool ask() override {
    if (stream_ != nullptr && !is_closed_) return true;  // The kernel asks again by itself.
    is_closed_ = false;
    stream_ = network_.connect(remote_, "", *this);
    return true;
  }

 private:
  void on_connected() override { on_reached_(); }
  void on_receive(ConstBytes) override {}
  void on_closed(ports::StreamError) override { is_closed_ = true; }

  ports::Network& network_;
  const ports::Endpoint remote_;
  const Callback<void()> on_reached_;
  std::unique_ptr<ports::Stream> stream_;
  bool is_closed_ = false;
};

class PingArbiter final : public ports::Arbiter {
 public:
  PingArbiter(Reactor& reactor, ports::Network& network, const PingOptions& options, ports::ArbiterSink& sink)
      : reactor_(reactor),
        network_(network),
        options_(options),
        sink_(sink),
        timer_(Callback<void()>::to<&PingArbiter::next_round>(*this)),
        done_(Callback<void()>::to<&PingArbiter::tell_reached>(*this)) {
    RB_ASSERT(!options_.addresses.empty());
  }
  ~PingArbiter() override { reactor_.cancel(timer_); }

  void read(std::uint64_t) override { remembers_nothing(); }
  void replace(std::uint64_t, std::uint64_t, const ports::ArbiterRecord&) override { remembers_nothing(); }
  void overwrite(std::uint64_t, const ports::ArbiterRecord&) override { remembers_nothing(); }

  void probe(std::uint64_t number) override {
    done_.unlink();
    probes_.clear();
    number_ = number;
    rounds_count_ = 0;
    problem_.clear();
    // Replies to earlier probes, and to those of other processes, have other tokens.
    Token token{};
    store_le<std::uint64_t>(&token[0], static_cast<std::uint64_t>(reactor_.now().time_since_epoch().count()));
    store_le<std::uint64_t>(&token[8], reinterpret_cast<std::uintptr_t>(this) ^ ++probes_count_);
    const auto on_reached = Callback<void()>::to<&PingArbiter::on_reached>(*this);
    for (const ports::Endpoint& address : options_.addresses) {
      if (address.port != 0) {
        probes_.push_back(std::make_unique<TcpProbe>(network_, address, on_reached));
      } else {
        const std::optional<SocketAddress> remote = parse_address(address);
        RB_ASSERT(remote.has_value());  // The configuration has only numeric ones.
        probes_.push_back(std::make_unique<IcmpProbe>(reactor_, *remote, token, on_reached));
      }
    }
    next_round();
  }

 private:
  [[noreturn]] static void remembers_nothing() {
    assertion_failed("addresses that are pinged remember nothing", __FILE__, __LINE__);
  }

  void next_round() {
    if (rounds_count_ == kRounds) return tell_not_reached();
    ++rounds_count_;
    for (const auto& probe : probes_) {
      if (!probe->ask() && problem_.empty()) problem_ = std::strerror(errno);
    }
    reactor_.arm(timer_, reactor_.now() + options_.timeout / kRounds);
  }

  /// From inside a probe, which ends after its callback.
  void on_reached() {
    reactor_.cancel(timer_);
    reactor_.defer(done_);
  }
  void tell_reached() {
    probes_.clear();
    sink_.on_arbiter_probed(number_, true);
  }
  void tell_not_reached() {
    probes_.clear();
    if (problem_.empty()) return sink_.on_arbiter_probed(number_, false);
    sink_.on_arbiter_failed(
        number_,
        {false, fmt::format("ping: no ICMP echo can be sent: {}; the daemon needs CAP_NET_RAW, or its group in "
                            "net.ipv4.ping_group_range",
                            problem_)});
  }

  Reactor& reactor_;
  ports::Network& network_;
  const PingOptions options_;
  ports::ArbiterSink& sink_;
  ports::Timer timer_;
  ports::DeferredTask done_;
  std::vector<std::unique_ptr<AddressProbe>> probes_;
  std::uint64_t number_ = 0;
  std::uint64_t probes_count_ = 0;
  int rounds_count_ = 0;
  std::string problem_;
};

}  // namespace

std::unique_ptr<ports::Arbiter> make_ping_arbiter(Reactor& reactor, ports::Network& network, const PingOptions& options,
                                                  ports::ArbiterSink& sink) {
  return std::make_unique<PingArbiter>(reactor, network, options, sink);
}

}  // namespace replblk::runtime
