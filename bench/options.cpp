#include "options.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace replblk::bench {
namespace {

constexpr const char* kUsage =
    "iscsi_load --portal HOST:PORT --target IQN [options]\n"
    "  --lun N                    (0)\n"
    "  --workload W               randwrite randread seqwrite seqread (randread)\n"
    "  --block-size BYTES         (4096)\n"
    "  --queue-depth N            commands in flight per connection (1)\n"
    "  --connections N            sessions, each with one connection (1)\n"
    "  --seconds S --warm-up S    measured time (2), time before it (0.25)\n"
    "  --region BYTES             use only the first BYTES of the unit (all)\n"
    "  --seed N                   of the random offsets (1)\n"
    "  --sync-every-write         a write counts when a SYNCHRONIZE CACHE(10) after it is answered\n"
    "  --watch-pid PID            report this process's CPU time over the measured window (repeatable)\n"
    "  --login-only               retry until a login succeeds, print when, and stop\n"
    "  --login-timeout S          (10)\n"
    "  --max-recv-data BYTES --first-burst BYTES --max-burst BYTES   what the login offers\n"
    "  --initiator IQN\n";

[[noreturn]] void refuse(const std::string& text) {
  std::fprintf(stderr, "iscsi_load: %s\n%s", text.c_str(), kUsage);
  std::exit(2);
}

std::uint64_t parse_count(const std::string& name, const char* text, std::uint64_t min, std::uint64_t max) {
  char* end = nullptr;
  const std::uint64_t number = std::strtoull(text, &end, 10);
  if (*text == '\0' || *text == '-' || *end != '\0' || number < min || number > max) {
    refuse(name + " must be a number from " + std::to_string(min) + " to " + std::to_string(max) + ", not '" + text +
           "'");
  }
  return number;
}

std::uint32_t parse_u32(const std::string& name, const char* text, std::uint32_t min, std::uint32_t max) {
  return static_cast<std::uint32_t>(parse_count(name, text, min, max));
}

double parse_seconds(const std::string& name, const char* text) {
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  // An upper limit, so that a forgotten generator ends by itself.
  if (*text == '\0' || *end != '\0' || !(seconds >= 0.0) || seconds > 600.0) {
    refuse(name + " must be seconds from 0 to 600, not '" + text + "'");
  }
  return seconds;
}

Portal parse_portal(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == text.size()) {
    refuse("--portal must be HOST:PORT, not '" + text + "'");
  }
  std::string host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return Portal{.host = std::move(host), .port = text.substr(colon + 1)};
}

Workload parse_workload(const std::string& text) {
  for (const Workload workload :
       {Workload::random_write, Workload::random_read, Workload::sequential_write, Workload::sequential_read}) {
    if (text == to_string(workload)) {
      return workload;
    }
  }
  refuse("unknown workload '" + text + "'");
}

}  // namespace

const char* to_string(Workload workload) {
  switch (workload) {
    case Workload::random_write:
      return "randwrite";
    case Workload::random_read:
      return "randread";
    case Workload::sequential_write:
      return "seqwrite";
    case Workload::sequential_read:
      return "seqread";
  }
  std::abort();
}

Options parse_options(int argc, char** argv) {
  Options options;
  for (int index = 1; index < argc; ++index) {
    const std::string name = argv[index];
    if (name == "--help") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    }
    if (name == "--sync-every-write") {
      options.sync_every_write = true;
      continue;
    }
    if (name == "--login-only") {
      options.login_only = true;
      continue;
    }
    if (index + 1 == argc) {
      refuse("'" + name + "' is unknown or needs a value");
    }
    const char* value = argv[++index];
    if (name == "--portal") {
      options.portal = parse_portal(value);
    } else if (name == "--target") {
      options.target_name = value;
    } else if (name == "--initiator") {
      options.initiator_name = value;
    } else if (name == "--lun") {
      options.lun = parse_u32(name, value, 0, 0x3fff);
    } else if (name == "--workload") {
      options.workload = parse_workload(value);
    } else if (name == "--block-size") {
      options.block_bytes = parse_u32(name, value, 512, 8U << 20);
    } else if (name == "--queue-depth") {
      options.queue_depth = parse_u32(name, value, 1, 1024);
    } else if (name == "--connections") {
      options.connection_count = parse_u32(name, value, 1, 64);
    } else if (name == "--seconds") {
      options.seconds = parse_seconds(name, value);
    } else if (name == "--warm-up") {
      options.warm_up_seconds = parse_seconds(name, value);
    } else if (name == "--region") {
      options.region_bytes = parse_count(name, value, 0, ~std::uint64_t{0} >> 1);
    } else if (name == "--seed") {
      options.seed = parse_count(name, value, 0, ~std::uint64_t{0});
    } else if (name == "--watch-pid") {
      options.watched_pids.push_back(static_cast<int>(parse_u32(name, value, 1, 0x7fffffff)));
    } else if (name == "--login-timeout") {
      options.login_timeout_seconds = parse_seconds(name, value);
    } else if (name == "--max-recv-data") {
      options.max_recv_data_bytes = parse_u32(name, value, 512, 0xffffff);
    } else if (name == "--first-burst") {
      options.first_burst_bytes = parse_u32(name, value, 512, 0xffffff);
    } else if (name == "--max-burst") {
      options.max_burst_bytes = parse_u32(name, value, 512, 0xffffff);
    } else {
      refuse("unknown option '" + name + "'");
    }
  }
  if (options.portal.host.empty() || options.target_name.empty()) {
    refuse("--portal and --target are needed");
  }
  if (options.sync_every_write && !writes(options.workload)) {
    refuse("--sync-every-write goes with a writing workload");
  }
  if (options.first_burst_bytes > options.max_burst_bytes) {
    refuse("--first-burst is greater than --max-burst");  // RFC 7143 13.14
  }
  return options;
}

}  // namespace replblk::bench
