// What can go wrong before a daemon serves, said in one sentence: what failed, why, what to do about it.
// Not for errors of a running node: those are enums of the ports. Called by this folder's open functions and by main.
// Invariant: every sentence names the object (path, port, limit) and ends with the remedy.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "ports/stream.hpp"

namespace replblk::runtime {

/// Why no ring could be set up. `io_uring_disabled` is the value of sysctl kernel.io_uring_disabled, -1 if there is
/// none.
[[nodiscard]] std::string describe_ring_failure(int error_number, int io_uring_disabled);
[[nodiscard]] int read_io_uring_disabled() noexcept;

/// Why the pool's memory could not be registered (the daemon runs without).
[[nodiscard]] std::string describe_region_failure(int error_number, std::size_t region_bytes, std::size_t limit_bytes);

[[nodiscard]] std::string describe_listen_failure(const ports::Endpoint& local, ports::ListenError error);

struct DiskOpenFailure {
  std::string_view path;
  int error_number = 0;
  bool is_direct = false;  ///< O_DIRECT was asked for
};
[[nodiscard]] std::string describe_disk_failure(const DiskOpenFailure& failure);
/// True for the one failure that passes by itself (a predecessor that is still exiting): worth some retries.
[[nodiscard]] bool says_in_use(std::string_view sentence) noexcept;

}  // namespace replblk::runtime
