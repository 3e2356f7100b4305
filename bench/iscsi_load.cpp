// iscsi_load: a lean iSCSI initiator that keeps a target busy and measures it. One process, one thread, one
// io_uring; prints one line of JSON. See bench/README.md.

#include "initiator_session.hpp"
#include "latency_histogram.hpp"
#include "load_connection.hpp"
#include "load_loop.hpp"
#include "options.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace replblk::bench {

void fail(const char* format, ...) {
  std::fputs("iscsi_load: ", stderr);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::exit(1);
}

namespace {

LoginRequest login_request(const Options& options, std::uint32_t session_number) {
  return LoginRequest{.portal = options.portal,
                      .target_name = options.target_name,
                      .initiator_name = options.initiator_name,
                      .lun = options.lun,
                      .session_number = session_number,
                      .max_recv_data_bytes = options.max_recv_data_bytes,
                      .first_burst_bytes = options.first_burst_bytes,
                      .max_burst_bytes = options.max_burst_bytes};
}

// A stuck target must not hang the caller: SIGALRM ends the process whatever the loop waits for.
void arm_watchdog(const Options& options) {
  struct sigaction action{};
  action.sa_handler = [](int) {
    constexpr char kText[] = "iscsi_load: the target does not answer: given up\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kText, sizeof kText - 1);
    ::_exit(3);
  };
  ::sigaction(SIGALRM, &action, nullptr);
  ::alarm(static_cast<unsigned>(options.seconds + options.warm_up_seconds) + 20);
}

int report_first_login(const Options& options) {
  const std::uint64_t begin_ns = monotonic_now_ns();
  const auto limit_ns = static_cast<std::uint64_t>(options.login_timeout_seconds * 1e9);
  std::uint64_t attempts = 0;
  for (;;) {
    ++attempts;
    const auto session = InitiatorSession::connect(login_request(options, 0));
    const std::uint64_t now_ns = monotonic_now_ns();
    if (session) {
      std::printf("{\"login_ms\": %.3f, \"attempts\": %llu, \"monotonic_ns\": %llu}\n",
                  static_cast<double>(now_ns - begin_ns) / 1e6, static_cast<unsigned long long>(attempts),
                  static_cast<unsigned long long>(now_ns));
      return 0;
    }
    if (now_ns - begin_ns > limit_ns) {
      fail("no login within %.1f s: %s", options.login_timeout_seconds, session.error().c_str());
    }
    ::usleep(1000);
  }
}

double microseconds(double ns) { return ns / 1000.0; }

void print_report(const Options& options, const Window& window, const Tally& tally, const Capacity& capacity,
                  const Negotiated& negotiated) {
  const double seconds = static_cast<double>(window.end_ns - window.begin_ns) / 1e9;
  const LatencyHistogram& latency = tally.latency;
  const auto operations = static_cast<double>(latency.count());
  const auto per_operation_us = [&](std::uint64_t begin_ns, std::uint64_t end_ns) {
    return operations > 0 ? microseconds(static_cast<double>(end_ns - begin_ns)) / operations : 0.0;
  };
  std::printf(
      "{\"workload\": \"%s\", \"block_bytes\": %u, \"queue_depth\": %u, \"connections\": %u, "
      "\"sync_every_write\": %s, \"seconds\": %.4f, ",
      to_string(options.workload), options.block_bytes, options.queue_depth, options.connection_count,
      options.sync_every_write ? "true" : "false", seconds);
  std::printf("\"operations\": %llu, \"bytes\": %llu, \"errors\": 0, \"iops\": %.1f, ",
              static_cast<unsigned long long>(latency.count()), static_cast<unsigned long long>(tally.bytes),
              operations / seconds);
  std::printf(
      "\"mean_us\": %.2f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"min_us\": %.2f, "
      "\"max_us\": %.2f, ",
      microseconds(latency.mean_ns()), microseconds(latency.percentile_ns(0.5)),
      microseconds(latency.percentile_ns(0.99)), microseconds(latency.percentile_ns(0.999)),
      microseconds(static_cast<double>(latency.min_ns())), microseconds(static_cast<double>(latency.max_ns())));
  std::uint64_t accounted_ns = window.cpu_end.own_ns - window.cpu_begin.own_ns;
  std::printf("\"own_cpu_us_per_op\": %.3f, \"watched_cpu_us_per_op\": [",
              per_operation_us(window.cpu_begin.own_ns, window.cpu_end.own_ns));
  for (std::size_t index = 0; index < options.watched_pids.size(); ++index) {
    const std::uint64_t begin_ns = window.cpu_begin.watched_ns[index];
    const std::uint64_t end_ns = window.cpu_end.watched_ns[index];
    accounted_ns += end_ns - begin_ns;
    std::printf("%s%.3f", index == 0 ? "" : ", ", per_operation_us(begin_ns, end_ns));
  }
  const double busy_ns = static_cast<double>(window.cpu_end.machine_busy_ns - window.cpu_begin.machine_busy_ns);
  const double irq_ns = static_cast<double>(window.cpu_end.machine_irq_ns - window.cpu_begin.machine_irq_ns);
  const double foreign_ns = busy_ns - static_cast<double>(accounted_ns);
  std::printf("], \"foreign_cpu_percent\": %.1f, \"irq_cpu_percent\": %.1f, ",
              (foreign_ns > 0 ? foreign_ns : 0.0) / (seconds * 1e7), irq_ns / (seconds * 1e7));
  std::printf(
      "\"unit_bytes\": %llu, \"lba_bytes\": %u, \"target_max_recv_data\": %u, \"first_burst\": %u, "
      "\"max_burst\": %u, \"immediate_data\": %s, \"initial_r2t\": %s}\n",
      static_cast<unsigned long long>(capacity.block_count * capacity.block_bytes), capacity.block_bytes,
      negotiated.target_max_recv_data_bytes, negotiated.first_burst_bytes, negotiated.max_burst_bytes,
      negotiated.immediate_data ? "true" : "false", negotiated.initial_r2t ? "true" : "false");
}

int run(const Options& options) {
  // Without it a sleeping thread may be woken up to 50 us late; there is one timer here, the watchdog.
  ::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  if (options.login_only) {
    return report_first_login(options);
  }
  arm_watchdog(options);
  std::vector<InitiatorSession> sessions;
  Capacity capacity;
  for (std::uint32_t number = 0; number < options.connection_count; ++number) {
    auto session = InitiatorSession::connect(login_request(options, number));
    if (!session) {
      fail("session %u: %s", number, session.error().c_str());
    }
    if (const auto ready = session->wait_until_ready(); !ready) {
      fail("session %u: %s", number, ready.error().c_str());
    }
    const auto found = session->read_capacity();
    if (!found) {
      fail("session %u: %s", number, found.error().c_str());
    }
    capacity = *found;
    sessions.push_back(std::move(*session));
  }
  const std::uint64_t unit_bytes = capacity.block_count * capacity.block_bytes;
  const std::uint64_t region_bytes = options.region_bytes == 0 ? unit_bytes : options.region_bytes;
  if (capacity.block_bytes == 0 || options.block_bytes % capacity.block_bytes != 0) {
    fail("--block-size %u is no multiple of the unit's block of %u bytes", options.block_bytes, capacity.block_bytes);
  }
  if (region_bytes > unit_bytes || region_bytes < options.block_bytes) {
    fail("--region %llu does not fit the unit of %llu bytes", static_cast<unsigned long long>(region_bytes),
         static_cast<unsigned long long>(unit_bytes));
  }
  if (region_bytes / options.block_bytes > 0xffffffff) {
    fail("--region holds more than 2^32 blocks; name a smaller one");
  }
  WorkloadCursor cursor(options.workload, options.block_bytes, region_bytes, options.seed);
  const auto tally = std::make_unique<Tally>();
  std::vector<std::unique_ptr<LoadConnection>> connections;
  for (const InitiatorSession& session : sessions) {
    connections.push_back(std::make_unique<LoadConnection>(session, options, capacity.block_bytes, cursor, *tally));
  }
  LoadLoop loop(options, std::move(connections), *tally);
  const Window window = loop.run();
  print_report(options, window, *tally, capacity, sessions.front().negotiated());
  if (tally->latency.count() == 0) {
    fail("no operation was completed within the window");
  }
  return 0;
}

}  // namespace
}  // namespace replblk::bench

int main(int argc, char** argv) { return replblk::bench::run(replblk::bench::parse_options(argc, argv)); }
