// replblk_membership_sim: runs MembershipWorlds.
//   --seeds N [--start S] [--seconds T] [--first]   N runs from seed S, for at most T seconds, until the first failure
//   --seed S [--trace]                              one run
// Exit code 1: a run failed; its line says how to replay it.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "sim/membership_world.hpp"

namespace {

struct Arguments {
  std::uint64_t start = 1;
  std::uint64_t count = 1000;
  double seconds_max = 1e9;
  bool is_first = false;
  bool is_traced = false;
};

/// A run simulates less than a minute and takes milliseconds.
constexpr unsigned kRunSecondsMax = 30;

char replay_command[128];

/// A failed assertion of the machine's, or events without end at one moment.
void on_signal(int) {
  std::fflush(stdout);
  if (::write(STDOUT_FILENO, replay_command, std::strlen(replay_command)) < 0) std::_Exit(2);
  std::_Exit(1);
}

bool read_arguments(int count, char** words, Arguments& arguments) {
  for (int index = 1; index < count; ++index) {
    const std::string_view word = words[index];
    const auto next = [&] { return index + 1 < count ? std::strtoull(words[++index], nullptr, 10) : 0; };
    if (word == "--seeds") {
      arguments.count = next();
    } else if (word == "--start") {
      arguments.start = next();
    } else if (word == "--seed") {
      arguments.start = next();
      arguments.count = 1;
    } else if (word == "--seconds") {
      arguments.seconds_max = static_cast<double>(next());
    } else if (word == "--first") {
      arguments.is_first = true;
    } else if (word == "--membership") {
      // So that a line that was printed can be given to tools/dev sim as it is.
    } else if (word == "--trace") {
      arguments.is_traced = true;
    } else {
      std::fprintf(stderr, "unknown argument %s\n", words[index]);
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int count, char** words) {
  Arguments arguments;
  if (!read_arguments(count, words, arguments)) return 2;
  std::signal(SIGABRT, on_signal);
  std::signal(SIGALRM, on_signal);
  const auto began = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(); };
  std::uint64_t runs = 0;
  std::uint64_t failed = 0;
  std::uint64_t changes = 0;
  std::uint64_t writes = 0;
  for (; runs < arguments.count && elapsed() < arguments.seconds_max; ++runs) {
    const std::uint64_t seed = arguments.start + runs;
    std::snprintf(replay_command, sizeof(replay_command), "tools/dev sim --seed %llu --membership\n",
                  static_cast<unsigned long long>(seed));
    alarm(kRunSecondsMax);
    const auto outcome = replblk::sim::MembershipWorld(seed, arguments.is_traced).run();
    changes += outcome.changes;
    writes += outcome.writes;
    if (outcome.failure.empty()) continue;
    ++failed;
    std::printf("%s\n%s", outcome.failure.c_str(), replay_command);
    if (arguments.is_first) {
      ++runs;
      break;
    }
  }
  std::printf("%llu runs, %llu failed; %llu changes, %llu writes; in %.1f s\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(failed), static_cast<unsigned long long>(changes),
              static_cast<unsigned long long>(writes), elapsed());
  return failed == 0 ? 0 : 1;
}
