// CPU time at one moment: of this process, of watched processes, and of the whole machine. Not responsible for
// turning two samples into a report. The load loop takes one at each end of the measured window. Invariant:
// a watched process's time includes all its threads, living and ended, io_uring workers too, in nanoseconds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace replblk::bench {

struct CpuSample {
  std::uint64_t own_ns = 0;
  std::vector<std::uint64_t> watched_ns;
  std::uint64_t machine_busy_ns = 0;  // all CPUs, from the scheduler tick: 10 ms steps
  std::uint64_t machine_irq_ns = 0;   // the part of it spent in interrupts, charged to no process
};

[[nodiscard]] std::uint64_t monotonic_now_ns();
[[nodiscard]] CpuSample sample_cpu(std::span<const int> watched_pids);

}  // namespace replblk::bench
