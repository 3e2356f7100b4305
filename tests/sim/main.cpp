// replblk_sim: one run, or many, each from its seed and each in a process of its own (a failed assertion is a found bug
// like any other). First line of a run: seed, build, options. Last line on failure: the command that replays it. Last
// lines of many: which probes no run reached, and how many steps (executed events of the time line) were done in which
// time.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "probes.hpp"
#include "scenario.hpp"

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __sanitizer_set_death_callback(void (*callback)());
#endif

namespace {

using namespace replblk;
using namespace replblk::sim;

constexpr unsigned kRunSecondsMax = 120;  // of real time; a run takes about a second

struct Arguments {
  std::vector<std::uint64_t> seeds;
  std::uint32_t steps = 0;
  std::uint64_t seconds_max = UINT64_MAX;
  bool is_lite = false;
  bool is_tracing = false;
  bool ends_at_first = false;
};

/// What the processes of the runs tell the one that started them.
struct Totals {
  std::uint64_t steps_count = 0;
  std::uint64_t steps_count_min = UINT64_MAX;
  Duration recovery_max{};
};
Totals* totals = nullptr;

char replay_command[256];
Timeline* running_timeline = nullptr;

void say_replay() {
  std::fflush(stdout);
  if (::write(STDOUT_FILENO, replay_command, std::strlen(replay_command)) < 0) std::_Exit(1);
}

void on_signal(int signal) {
  static const char abort_text[] = "the daemon's code ended the process (above)\n";
  static const char alarm_text[] = "the run does not end: events without end at one moment?\n";
  const char* text = signal == SIGALRM ? alarm_text : abort_text;
  if (::write(STDOUT_FILENO, text, std::strlen(text)) < 0) std::_Exit(1);
  say_replay();
  std::_Exit(1);
}

void log_to_trace(LogLevel level, std::string_view line) {
  if (running_timeline == nullptr) return;
  const SimLoop* loop = SimLoop::running();
  running_timeline->note("{} {} {}", loop == nullptr ? "?" : loop->name(), level >= LogLevel::warning ? "!" : "-",
                         line);
}

bool run_one(std::uint64_t seed, const Arguments& arguments) {
  const RunOptions options = draw_options(seed, arguments.steps, arguments.is_lite);
  const std::string steps = arguments.steps == 0 ? "" : fmt::format(" --steps {}", arguments.steps);
  std::snprintf(replay_command, sizeof(replay_command), "replay: tools/dev sim --seed %llu%s%s\n",
                static_cast<unsigned long long>(seed), steps.c_str(), arguments.is_lite ? " --lite" : "");
#if defined(__SANITIZE_ADDRESS__)
  constexpr const char* kBuild = "debug (sanitizers)";
  __sanitizer_set_death_callback(say_replay);
#else
  constexpr const char* kBuild = "plain";
#endif
  std::signal(SIGABRT, on_signal);
  std::signal(SIGALRM, on_signal);
  alarm(kRunSecondsMax);
  fmt::print("seed {} build {}: {}\n", seed, kBuild, options.describe());
  std::fflush(stdout);
  set_log_sink(log_to_trace, LogLevel::info);
  Scenario scenario(options, arguments.is_tracing);
  running_timeline = &scenario.timeline();
  const RunOutcome outcome = scenario.run();
  running_timeline = nullptr;
  if (totals != nullptr) {
    totals->steps_count += outcome.events_count;
    totals->steps_count_min = std::min(totals->steps_count_min, outcome.events_count);
    totals->recovery_max = std::max(totals->recovery_max, outcome.recovery);
  }
  fmt::print("seed {} {} trace {:016x}: {}\n", seed, outcome.violation.empty() ? "held" : "FAILED", outcome.hash,
             outcome.summary);
  std::fflush(stdout);
  if (outcome.violation.empty()) return true;
  fmt::print("{}\n", outcome.violation);
  say_replay();
  return false;
}

bool run_in_child(std::uint64_t seed, const Arguments& arguments) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    const bool is_held = run_one(seed, arguments);
    std::fflush(stdout);
    std::_Exit(is_held ? 0 : 1);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) {
    std::perror("replblk_sim: cannot run a child");
    return false;
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int run_many(const Arguments& arguments) {
  void* memory = mmap(nullptr, sizeof(Totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  RB_ASSERT(memory != MAP_FAILED);
  totals = new (memory) Totals;
  share_probes();
  const auto started = std::chrono::steady_clock::now();
  const auto elapsed_seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  };
  std::vector<std::uint64_t> failed;
  std::size_t runs_count = 0;
  for (const std::uint64_t seed : arguments.seeds) {
    if (elapsed_seconds() >= static_cast<double>(arguments.seconds_max)) break;
    if (arguments.ends_at_first && !failed.empty()) break;
    ++runs_count;
    if (!run_in_child(seed, arguments)) failed.push_back(seed);
  }
  fmt::print("{}\n", describe_probes());
  fmt::print("{} runs, {} failed; {} steps, at least {} a run, slowest recovery {} ms; in {:.1f} s\n", runs_count,
             failed.size(), totals->steps_count, totals->steps_count_min, to_ms(totals->recovery_max),
             elapsed_seconds());
  for (const std::uint64_t seed : failed) {
    fmt::print("tools/dev sim --seed {}{}{}\n", seed,
               arguments.steps == 0 ? "" : fmt::format(" --steps {}", arguments.steps),
               arguments.is_lite ? " --lite" : "");
  }
  return failed.empty() ? 0 : 1;
}

/// "123  # why it is here": one seed a line.
bool read_seeds(const char* path, std::vector<std::uint64_t>& seeds) {
  std::ifstream file(path);
  if (!file) return false;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::uint64_t seed = 0;
    if (words >> seed) seeds.push_back(seed);
  }
  return true;
}

/// A quarter of a run would be page faults. glibc can be told to ask for huge pages only by the environment, before the
/// program begins.
void begin_with_huge_pages(char** argv) {
  constexpr const char* kName = "GLIBC_TUNABLES";
  if (std::getenv(kName) != nullptr) return;
  setenv(kName,
         "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296:"
         "glibc.malloc.top_pad=67108864",
         1);
  execv("/proc/self/exe", argv);  // If it cannot be: slower.
}

int usage() {
  std::fputs(
      "replblk_sim [--seed N | --seeds COUNT [--start N] | --seeds-file FILE] [--steps N] [--seconds N] [--first]"
      " [--lite] [--trace]\n"
      "  --seed N       one run\n"
      "  --seeds COUNT  that many, from --start N (default 1) on; goes on after a failure\n"
      "  --steps N      length of the safety phase, instead of what the seed draws\n"
      "  --seconds N    no run begins after that time\n"
      "  --first        ends at the first failure\n"
      "  --lite         no faults\n"
      "  --trace        print what happens\n",
      stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  begin_with_huge_pages(argv);
  Arguments arguments;
  std::uint64_t start = 1;
  std::uint64_t count = 0;
  for (int index = 1; index < argc; ++index) {
    const std::string_view name = argv[index];
    if (name == "--lite") {
      arguments.is_lite = true;
      continue;
    }
    if (name == "--first") {
      arguments.ends_at_first = true;
      continue;
    }
    if (name == "--trace") {
      arguments.is_tracing = true;
      continue;
    }
    if (index + 1 == argc) return usage();
    const std::string_view value = argv[++index];
    if (name == "--seeds-file") {
      if (!read_seeds(argv[index], arguments.seeds)) {
        std::perror(argv[index]);
        return 2;
      }
      continue;
    }
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc{} || end != value.data() + value.size()) return usage();
    if (name == "--seed") {
      arguments.seeds.push_back(number);
    } else if (name == "--seeds") {
      count = number;
    } else if (name == "--start") {
      start = number;
    } else if (name == "--steps") {
      arguments.steps = static_cast<std::uint32_t>(number);
    } else if (name == "--seconds") {
      arguments.seconds_max = number;
    } else {
      return usage();
    }
  }
  for (std::uint64_t index = 0; index < count; ++index) arguments.seeds.push_back(start + index);
  if (arguments.seeds.empty()) return usage();
  if (arguments.seeds.size() == 1) {
    const bool is_held = run_one(arguments.seeds.front(), arguments);
    std::fflush(stdout);
    std::_Exit(is_held ? 0 : 1);
  }
  return run_many(arguments);
}
