// Datagrams (UDP): one socket for each path between the two nodes. Implemented by runtime and by the simulator.
// A datagram arrives whole, or not at all, or late, or twice, or after one that was sent later; nobody is told which.
// Who sent it is not proved either: membership::HeartbeatSession authenticates, and tells new from old.
// Calls and callbacks happen on one thread. No call waits, and no callback is made from inside a call of the user's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "ports/stream.hpp"

namespace replblk::ports {

/// What passes every IPv6 link unfragmented (RFC 8200 5: 1280 bytes, less the headers of IP and UDP).
inline constexpr std::size_t kDatagramBytesMax = 1232;

/// Both ends, of one family; neither address is empty. No two paths of a node have the same local end.
struct DatagramPath {
  Endpoint local;
  Endpoint remote;
};

/// Since the socket was opened.
struct DatagramCounts {
  std::uint64_t sent = 0;        ///< given to the kernel
  std::uint64_t not_sent = 0;    ///< the kernel did not take it: no such address or route at the moment, or no room
  std::uint64_t received = 0;    ///< given to the sink
  std::uint64_t overrun = 0;     ///< dropped by this node's kernel, since the process did not read in time
  std::uint64_t unexpected = 0;  ///< dropped: from another address than the path's, or too long
  friend bool operator==(const DatagramCounts&, const DatagramCounts&) = default;
};

class DatagramSink {
 public:
  /// `bytes` are valid during the call. The socket may be destroyed in it.
  virtual void on_datagram(ConstBytes bytes) = 0;

 protected:
  ~DatagramSink() = default;
};

/// No callback comes after its destruction.
class DatagramSocket {
 public:
  virtual ~DatagramSocket() = default;
  /// To the path's other end, at most kDatagramBytesMax. What cannot go now is dropped and counted, never queued: the
  /// next one says the same, and newer.
  virtual void send(ConstBytes bytes) noexcept = 0;
  [[nodiscard]] virtual const DatagramCounts& counts() const noexcept = 0;
  [[nodiscard]] virtual const Endpoint& local() const noexcept = 0;
};

class Datagrams {
 public:
  virtual ~Datagrams() = default;
  /// A local address that is not on this node yet (a link that is still down) is no error: what is sent is dropped
  /// until it is there.
  [[nodiscard]] virtual Result<std::unique_ptr<DatagramSocket>, ListenError> open(const DatagramPath& path,
                                                                                  DatagramSink& sink) = 0;
};

}  // namespace replblk::ports
