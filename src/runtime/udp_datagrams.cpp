#include "runtime/udp_datagrams.hpp"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/assert.hpp"
#include "runtime/error_map.hpp"
#include "runtime/event_source.hpp"
#include "runtime/socket.hpp"

namespace replblk::runtime {

namespace {

/// In one turn; the rest waits for the next one, so that a flood does not keep the loop.
constexpr std::size_t kBatch = 16;

/// By address alone: a port may be rewritten on the way.
bool has_address_of(const sockaddr_storage& from, const SocketAddress& expected) noexcept {
  if (from.ss_family != expected.storage.ss_family) return false;
  if (from.ss_family == AF_INET) {
    sockaddr_in left, right;
    std::memcpy(&left, &from, sizeof left);
    std::memcpy(&right, &expected.storage, sizeof right);
    return left.sin_addr.s_addr == right.sin_addr.s_addr;
  }
  sockaddr_in6 left, right;
  std::memcpy(&left, &from, sizeof left);
  std::memcpy(&right, &expected.storage, sizeof right);
  return std::memcmp(&left.sin6_addr, &right.sin6_addr, sizeof left.sin6_addr) == 0;
}

class UdpSocket final : public ports::DatagramSocket {
 public:
  UdpSocket(Reactor& reactor, int fd, const SocketAddress& remote, ports::DatagramSink& sink)
      : fd_(fd), remote_(remote), local_(local_endpoint(fd)), sink_(sink) {
    watch_.emplace(reactor, fd, Callback<void()>::to<&UdpSocket::receive>(*this));
  }
  UdpSocket(const UdpSocket&) = delete;
  UdpSocket& operator=(const UdpSocket&) = delete;
  ~UdpSocket() override {
    if (is_destroyed_ != nullptr) *is_destroyed_ = true;
    watch_.reset();
    ::close(fd_);
  }

  void send(ConstBytes bytes) noexcept override {
    RB_ASSERT(bytes.size() <= ports::kDatagramBytesMax);
    const ssize_t count =
        ::sendto(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL, remote_.get(), remote_.length);
    ++(count >= 0 ? counts_.sent : counts_.not_sent);
  }
  [[nodiscard]] const ports::DatagramCounts& counts() const noexcept override { return counts_; }
  [[nodiscard]] const ports::Endpoint& local() const noexcept override { return local_; }

 private:
  struct Slot {
    std::array<std::byte, ports::kDatagramBytesMax> bytes;
    sockaddr_storage from;
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(std::uint32_t))> control;
  };

  void receive() {
    std::array<Slot, kBatch> slots;
    std::array<iovec, kBatch> pieces;
    std::array<mmsghdr, kBatch> messages{};
    for (std::size_t index = 0; index < kBatch; ++index) {
      Slot& slot = slots[index];
      pieces[index] = {slot.bytes.data(), slot.bytes.size()};
      msghdr& message = messages[index].msg_hdr;
      message.msg_name = &slot.from;
      message.msg_namelen = sizeof slot.from;
      message.msg_iov = &pieces[index];
      message.msg_iovlen = 1;
      message.msg_control = slot.control.data();
      message.msg_controllen = slot.control.size();
    }
    // An error here (nothing there after all, or a device's that is reported once) leaves the next datagram to the next
    // turn: the watch is armed again by whoever called.
    const int count = ::recvmmsg(fd_, messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    bool is_destroyed = false;
    is_destroyed_ = &is_destroyed;
    for (int index = 0; index < count; ++index) {
      const auto at = static_cast<std::size_t>(index);
      note_overrun(messages[at].msg_hdr);
      if ((messages[at].msg_hdr.msg_flags & MSG_TRUNC) != 0 || !has_address_of(slots[at].from, remote_)) {
        ++counts_.unexpected;
        continue;
      }
      ++counts_.received;
      sink_.on_datagram({slots[at].bytes.data(), messages[at].msg_len});
      if (is_destroyed) return;
    }
    is_destroyed_ = nullptr;
  }

  void note_overrun(msghdr& message) noexcept {
    for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(&message, control)) {
      if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SO_RXQ_OVFL) continue;
      // The kernel's count goes round at 2^32.
      std::uint32_t total = 0;
      std::memcpy(&total, CMSG_DATA(control), sizeof total);
      counts_.overrun += total - static_cast<std::uint32_t>(counts_.overrun);
    }
  }

  const int fd_;
  const SocketAddress remote_;
  const ports::Endpoint local_;
  ports::DatagramSink& sink_;
  ports::DatagramCounts counts_;
  bool* is_destroyed_ = nullptr;  ///< of the receive() that runs
  std::optional<ReadableWatch> watch_;
};

}  // namespace

Result<std::unique_ptr<ports::DatagramSocket>, ports::ListenError> UdpDatagrams::open(const ports::DatagramPath& path,
                                                                                      ports::DatagramSink& sink) {
  const std::optional<SocketAddress> local = parse_address(path.local);
  const std::optional<SocketAddress> remote = parse_address(path.remote);
  if (!local || !remote || path.local.address.empty() || path.remote.address.empty() ||
      local->family() != remote->family())
    return fail(ports::ListenError::bad_address);
  const int fd = open_datagram_socket(*local);
  if (fd < 0) return fail(listen_error_from(-fd));
  return std::make_unique<UdpSocket>(reactor_, fd, *remote, sink);
}

}  // namespace replblk::runtime
