#include "runtime/netlink_virtual_ip.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/if_addr.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netpacket/packet.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/assert.hpp"
#include "runtime/descriptor.hpp"
#include "runtime/neighbour_frames.hpp"

namespace replblk::runtime {

namespace {

using ports::HardwareAddress;

constexpr std::uint16_t kTypeArp = 0x0806;
constexpr std::uint16_t kTypeIpv6 = 0x86dd;
/// An address with less left to live is this daemon's, or one that its predecessor was renewing: nobody else sets such.
constexpr std::uint32_t kLeaseSecondsMax = 3;

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const noexcept {
    Free(object);
  }
};
using NetlinkSocket = std::unique_ptr<nl_sock, Deleter<nl_socket_free>>;
using NetlinkAddress = std::unique_ptr<nl_addr, Deleter<nl_addr_put>>;
using Address = std::unique_ptr<rtnl_addr, Deleter<rtnl_addr_put>>;
using Link = std::unique_ptr<rtnl_link, Deleter<rtnl_link_put>>;
using Cache = std::unique_ptr<nl_cache, Deleter<nl_cache_free>>;

class NetlinkVirtualIp final : public ports::VirtualIp {
 public:
  explicit NetlinkVirtualIp(const VirtualIpOptions& options)
      : options_(options), name_(fmt::format("{}/{} on {}", options.address, options.prefix_bits, options.device)) {
    is_v6_ = options.address.find(':') != std::string::npos;
    bytes_.resize(is_v6_ ? 16 : 4);
    RB_ASSERT(::inet_pton(is_v6_ ? AF_INET6 : AF_INET, options.address.c_str(), bytes_.data()) == 1);
  }
  ~NetlinkVirtualIp() override { release(); }

  [[nodiscard]] const std::string& name() const noexcept override { return name_; }

  [[nodiscard]] std::vector<HardwareAddress> hardware_addresses() const override {
    std::vector<HardwareAddress> found;
    if (const auto own = hardware_address()) found.push_back(*own);
    const auto socket = connect();
    nl_cache* list = nullptr;
    if (!socket || rtnl_link_alloc_cache(socket->get(), AF_UNSPEC, &list) < 0) return found;
    const Cache cache(list);
    for (nl_object* object = nl_cache_get_first(list); object != nullptr; object = nl_cache_get_next(object)) {
      auto* link = reinterpret_cast<rtnl_link*>(object);
      // A port of a bridge or a bond answers for nothing by itself.
      const bool answers = (rtnl_link_get_flags(link) & IFF_UP) != 0 && rtnl_link_get_master(link) == 0;
      const auto address = address_of(link);
      if (answers && address && *address != HardwareAddress{}) found.push_back(*address);
    }
    return found;
  }

  [[nodiscard]] Result<void, std::string> check() override {
    const auto link = find_link();
    if (!link) return fail(link.error());
    const unsigned flags = rtnl_link_get_flags(link->get());
    if ((flags & IFF_UP) == 0)
      return fail(sentence("the device is down; set it up with `ip link set {} up`", options_.device));
    if ((flags & IFF_RUNNING) == 0) return fail(sentence("the device has no carrier: the cable or the switch"));
    if (!has_right(CAP_NET_ADMIN)) return fail(refused("set", -NLE_PERM));
    const nl_addr* hardware = rtnl_link_get_addr(link->get());
    const bool has_neighbours = hardware != nullptr && nl_addr_get_len(hardware) == HardwareAddress{}.bytes.size();
    if (has_neighbours && !has_right(CAP_NET_RAW)) return fail(mute());
    return check_foreign(0);
  }

  [[nodiscard]] Result<void, std::string> probe() override {
    const auto own = hardware_address();
    if (!own) return {};  // A device without Ethernet below it has no neighbours to ask.
    if (auto opened = open_packets(listening_, true); !opened) return opened;
    return send(listening_.get(), make_probe(*own, bytes_));
  }

  [[nodiscard]] std::optional<HardwareAddress> take_answer() override {
    if (listening_.get() < 0) return std::nullopt;
    const auto own = hardware_address();
    std::array<std::uint8_t, 256> frame;
    for (;;) {
      const ssize_t count = ::recv(listening_.get(), frame.data(), frame.size(), MSG_DONTWAIT);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return std::nullopt;
      if (!own) continue;
      const auto from = claimant({frame.data(), static_cast<std::size_t>(count)}, *own, bytes_, held_index_ == 0);
      if (!from) continue;
      const auto ours = hardware_addresses();
      if (std::ranges::find(ours, *from) == ours.end()) return from;
    }
  }

  void end_probing() noexcept override { listening_.reset(); }

  [[nodiscard]] Result<void, std::string> hold(Duration lifetime) override {
    const int index = static_cast<int>(::if_nametoindex(options_.device.c_str()));
    if (index == 0) return fail(sentence("there is no such device"));
    if (auto checked = check_foreign(index); !checked) return checked;
    const auto socket = connect();
    if (!socket) return fail(socket.error());
    const Address address = make_address(index);
    const auto lifetime_s = static_cast<std::uint32_t>(std::chrono::duration_cast<seconds>(lifetime).count());
    RB_ASSERT(lifetime_s >= 1);
    rtnl_addr_set_valid_lifetime(address.get(), lifetime_s);
    rtnl_addr_set_preferred_lifetime(address.get(), lifetime_s);
    // Probing is ours; the kernel's own would keep the address tentative for a second.
    if (is_v6_) rtnl_addr_set_flags(address.get(), IFA_F_NODAD);
    if (const int error = rtnl_addr_add(socket->get(), address.get(), NLM_F_CREATE | NLM_F_REPLACE); error < 0)
      return fail(refused("set", error));
    held_index_ = index;
    return {};
  }

  [[nodiscard]] Result<void, std::string> announce() override {
    const auto own = hardware_address();
    if (!own) return {};
    Descriptor sending;
    if (auto opened = open_packets(sending, false); !opened) return opened;
    for (const Frame& frame : make_announcements(*own, bytes_)) {
      if (auto sent = send(sending.get(), frame); !sent) return sent;
    }
    return {};
  }

  void release() noexcept override {
    end_probing();
    if (held_index_ == 0) return;
    const int index = std::exchange(held_index_, 0);
    const auto foreign = find_foreign(index);
    const auto socket = connect();
    // The kernel takes away by itself what is this node's.
    if (!foreign || *foreign != 0 || !socket) return;
    static_cast<void>(rtnl_addr_delete(socket->get(), make_address(index).get(), 0));
  }

 private:
  template <class... Args>
  [[nodiscard]] std::string sentence(fmt::format_string<Args...> text, Args&&... args) const {
    return fmt::format("virtual IP {}: {}", name_, fmt::format(text, std::forward<Args>(args)...));
  }
  [[nodiscard]] std::string refused(std::string_view what, int error) const {
    if (error == -NLE_PERM) return sentence("it may not be {}: the daemon needs CAP_NET_ADMIN", what);
    return sentence("it cannot be {}: {}", what, nl_geterror(error));
  }

  [[nodiscard]] std::string mute() const {
    return sentence("neighbours cannot be asked or told: the daemon needs CAP_NET_RAW");
  }
  /// In force for this thread. Where that is not to be learned, what is tried will tell.
  [[nodiscard]] static bool has_right(unsigned capability) noexcept {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
    if (::syscall(SYS_capget, &header, sets.data()) != 0) return true;
    return (sets[capability / 32].effective >> capability % 32 & 1) != 0;
  }

  [[nodiscard]] Result<NetlinkSocket, std::string> connect() const {
    NetlinkSocket socket(nl_socket_alloc());
    RB_ASSERT(socket != nullptr);
    if (const int error = nl_connect(socket.get(), NETLINK_ROUTE); error < 0)
      return fail(sentence("no netlink socket: {}", nl_geterror(error)));
    return socket;
  }

  /// Of Ethernet; nullopt: the device has none.
  [[nodiscard]] static std::optional<HardwareAddress> address_of(rtnl_link* link) {
    const nl_addr* address = rtnl_link_get_addr(link);
    HardwareAddress found;
    if (address == nullptr || nl_addr_get_len(address) != found.bytes.size()) return std::nullopt;
    std::memcpy(found.bytes.data(), nl_addr_get_binary_addr(address), found.bytes.size());
    return found;
  }
  [[nodiscard]] std::optional<HardwareAddress> hardware_address() const {
    const auto link = find_link();
    return link ? address_of(link->get()) : std::nullopt;
  }

  [[nodiscard]] Result<Link, std::string> find_link() const {
    const auto socket = connect();
    if (!socket) return fail(socket.error());
    rtnl_link* link = nullptr;
    if (const int error = rtnl_link_get_kernel(socket->get(), 0, options_.device.c_str(), &link); error < 0)
      return fail(error == -NLE_NODEV || error == -NLE_OBJ_NOTFOUND ? sentence("there is no such device")
                                                                    : refused("looked at", error));
    return Link(link);
  }

  /// The address, with what identifies it.
  [[nodiscard]] Address make_address(int index) const {
    const NetlinkAddress local(nl_addr_build(is_v6_ ? AF_INET6 : AF_INET, bytes_.data(), bytes_.size()));
    RB_ASSERT(local != nullptr);
    nl_addr_set_prefixlen(local.get(), static_cast<int>(options_.prefix_bits));
    Address address(rtnl_addr_alloc());
    RB_ASSERT(address != nullptr);
    rtnl_addr_set_ifindex(address.get(), index);
    RB_ASSERT(rtnl_addr_set_local(address.get(), local.get()) == 0);
    return address;
  }

  /// Without a lifetime: for ever.
  [[nodiscard]] static bool is_lease(rtnl_addr* address) {
    return (rtnl_addr_get_flags(address) & IFA_F_PERMANENT) == 0 &&
           rtnl_addr_get_valid_lifetime(address) <= kLeaseSecondsMax;
  }

  /// The address is on the device with the index that is answered, by somebody else's hand; 0: it is not. Looks at the
  /// device `only`; 0: at all.
  [[nodiscard]] Result<int, std::string> find_foreign(int only) const {
    const auto socket = connect();
    if (!socket) return fail(socket.error());
    nl_cache* list = nullptr;
    if (const int error = rtnl_addr_alloc_cache(socket->get(), &list); error < 0)
      return fail(refused("looked at", error));
    const Cache cache(list);
    for (nl_object* object = nl_cache_get_first(list); object != nullptr; object = nl_cache_get_next(object)) {
      auto* address = reinterpret_cast<rtnl_addr*>(object);
      const nl_addr* local = rtnl_addr_get_local(address);
      if (local == nullptr || nl_addr_get_len(local) != bytes_.size() ||
          std::memcmp(nl_addr_get_binary_addr(local), bytes_.data(), bytes_.size()) != 0)
        continue;
      const int index = rtnl_addr_get_ifindex(address);
      if (!is_lease(address) && (only == 0 || index == only)) return index;
    }
    return 0;
  }

  /// The same as a sentence. Also on the device where this node had it: what it did not renew in
  /// time, because it stood still, the kernel has taken away, and anybody may have set since.
  [[nodiscard]] Result<void, std::string> check_foreign(int only) const {
    const auto index = find_foreign(only);
    if (!index) return fail(index.error());
    std::array<char, IF_NAMESIZE> device{};
    if (*index == 0 || ::if_indextoname(static_cast<unsigned>(*index), device.data()) == nullptr) return {};
    return fail(
        sentence("the address is on {} already, set by somebody else, and is not taken away from there: remove it with "
                 "`ip addr del` and from what sets it at start-up",
                 device.data()));
  }

  Result<void, std::string> open_packets(Descriptor& into, bool is_receiving) {
    if (into.get() >= 0) return {};
    const std::uint16_t type = htons(is_v6_ ? kTypeIpv6 : kTypeArp);
    const int fd = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, is_receiving ? type : 0);
    if (fd < 0) return fail(errno == EPERM ? mute() : sentence("no packet socket: {}", std::strerror(errno)));
    into.reset(fd);
    sockaddr_ll here{};
    here.sll_family = AF_PACKET;
    here.sll_protocol = is_receiving ? type : 0;
    here.sll_ifindex = static_cast<int>(::if_nametoindex(options_.device.c_str()));
    if (here.sll_ifindex == 0 || ::bind(fd, reinterpret_cast<const sockaddr*>(&here), sizeof here) != 0) {
      into.reset();
      return fail(sentence("the device cannot be listened to: {}", std::strerror(errno)));
    }
    return {};
  }

  [[nodiscard]] Result<void, std::string> send(int fd, const Frame& frame) const {
    if (::send(fd, frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return {};
    return fail(sentence("a frame cannot be sent: {}", std::strerror(errno)));
  }

  VirtualIpOptions options_;
  std::string name_;
  bool is_v6_ = false;
  IpBytes bytes_;
  Descriptor listening_;
  int held_index_ = 0;  ///< of the device that hold() has set the address on; 0: none
};

}  // namespace

std::unique_ptr<ports::VirtualIp> make_virtual_ip(const VirtualIpOptions& options) {
  return std::make_unique<NetlinkVirtualIp>(options);
}

}  // namespace replblk::runtime
