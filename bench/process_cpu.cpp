#include "process_cpu.hpp"

#include "load_connection.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace replblk::bench {
namespace {

std::uint64_t to_ns(const timespec& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(time.tv_nsec);
}

void sample_machine(CpuSample& sample) {
  char text[512] = {};
  const int file = ::open("/proc/stat", O_RDONLY | O_CLOEXEC);
  if (file < 0 || ::read(file, text, sizeof text - 1) <= 0) {
    fail("/proc/stat: %s", std::strerror(errno));
  }
  ::close(file);
  unsigned long long user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0;
  if (std::sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait, &irq,
                  &softirq, &steal) != 8) {
    fail("/proc/stat does not begin with the machine's CPU times");
  }
  const auto tick_ns = 1'000'000'000ULL / static_cast<unsigned long long>(::sysconf(_SC_CLK_TCK));
  sample.machine_busy_ns = (user + nice + system + irq + softirq + steal) * tick_ns;
  sample.machine_irq_ns = (irq + softirq) * tick_ns;
}

}  // namespace

std::uint64_t monotonic_now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return to_ns(now);
}

CpuSample sample_cpu(std::span<const int> watched_pids) {
  CpuSample sample;
  timespec time{};
  for (const int pid : watched_pids) {
    // The process's own CPU clock rather than /proc/PID/stat: exact nanoseconds instead of 10 ms ticks, and the
    // same threads are in it.
    clockid_t clock{};
    if (const int error = ::clock_getcpuclockid(pid, &clock); error != 0) {
      fail("no CPU clock of process %d: %s", pid, std::strerror(error));
    }
    if (::clock_gettime(clock, &time) != 0) {
      fail("CPU clock of process %d: %s", pid, std::strerror(errno));
    }
    sample.watched_ns.push_back(to_ns(time));
  }
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  sample.own_ns = to_ns(time);
  sample_machine(sample);
  return sample;
}

}  // namespace replblk::bench
