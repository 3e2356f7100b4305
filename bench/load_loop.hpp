// Drives the connections of one run over one io_uring in one thread: a turn waits for completions, hands bytes
// to the connections, and sends what they have gathered, with one system call. Not responsible for the iSCSI
// protocol (LoadConnection) nor for the report (main). Invariant: per connection at most one receive and one
// send are in flight.
#pragma once

#include "load_connection.hpp"
#include "process_cpu.hpp"

#include <memory>
#include <vector>

namespace replblk::bench {

struct Window {
  std::uint64_t begin_ns = 0;
  std::uint64_t end_ns = 0;
  CpuSample cpu_begin;
  CpuSample cpu_end;
};

class LoadLoop {
 public:
  LoadLoop(const Options& options, std::vector<std::unique_ptr<LoadConnection>> connections, Tally& tally);
  LoadLoop(const LoadLoop&) = delete;
  LoadLoop& operator=(const LoadLoop&) = delete;
  ~LoadLoop();

  // Warm-up, measured window, drain and logout of every connection.
  [[nodiscard]] Window run();

 private:
  struct Ring;
  struct Lane;

  void follow_schedule(std::uint64_t now_ns);
  void pump(Lane& lane, std::uint64_t now_ns);
  void complete(std::uint64_t user_data, std::int32_t result, std::uint64_t now_ns);

  enum class Stage { warm_up, measuring, draining };

  const Options& options_;
  Tally& tally_;
  std::unique_ptr<Ring> ring_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  Stage stage_ = Stage::warm_up;
  std::uint64_t start_ns_ = 0;
  Window window_;
};

}  // namespace replblk::bench
