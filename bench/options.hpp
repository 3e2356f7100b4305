// The command line of iscsi_load. Not responsible for checking what the target can do. Called once by main.
// Invariant: a returned Options is complete and within the stated limits; a wrong command line ends the
// process with a sentence and code 2.
#pragma once

#include "initiator_session.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace replblk::bench {

enum class Workload { random_write, random_read, sequential_write, sequential_read };

constexpr bool writes(Workload workload) {
  return workload == Workload::random_write || workload == Workload::sequential_write;
}
constexpr bool sequential(Workload workload) {
  return workload == Workload::sequential_write || workload == Workload::sequential_read;
}
[[nodiscard]] const char* to_string(Workload workload);

struct Options {
  Portal portal;
  std::string target_name;
  std::string initiator_name = "iqn.2026-11.org.replblk:iscsi-load";
  std::uint32_t lun = 0;
  Workload workload = Workload::random_read;
  std::uint32_t block_bytes = 4096;
  std::uint32_t queue_depth = 1;       // commands in flight per connection
  std::uint32_t connection_count = 1;  // each is a session of its own
  double seconds = 2.0;
  double warm_up_seconds = 0.25;
  std::uint64_t region_bytes = 0;  // 0: the whole unit
  std::uint64_t seed = 1;
  bool sync_every_write = false;
  bool login_only = false;
  double login_timeout_seconds = 10.0;
  std::uint32_t max_recv_data_bytes = 262144;
  std::uint32_t first_burst_bytes = 262144;
  std::uint32_t max_burst_bytes = 1048576;
  std::vector<int> watched_pids;  // processes whose CPU time is taken at both ends of the window
};

[[nodiscard]] Options parse_options(int argc, char** argv);

}  // namespace replblk::bench
