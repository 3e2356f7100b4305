// Handlers are real processes here: /bin/sh and what it finds.
#include "runtime/handler_processes.hpp"

#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

using test::make_reactor;
using test::turn_until;

class HandlerProcessesTest : public testing::Test {
 protected:
  HandlerProcessesTest() {
    std::string pattern = testing::TempDir() + "handlers-XXXXXX";
    RB_ASSERT(::mkdtemp(pattern.data()) != nullptr);
    folder = pattern;
  }
  ~HandlerProcessesTest() override { std::filesystem::remove_all(folder); }

  void run(const std::string& command, Duration timeout = seconds(10), std::vector<std::string> environment = {}) {
    const std::size_t number = answers.size();
    answers.emplace_back();
    environment.push_back("FOLDER=" + folder);
    handlers.run({"test", command, std::move(environment), timeout}, [this, number](int exit_code) {
      EXPECT_FALSE(answers[number].has_value()) << "answered twice";
      answers[number] = exit_code;
    });
  }
  [[nodiscard]] bool wait_for_all() {
    return turn_until(*reactor, [this] {
      return std::ranges::all_of(answers, [](const auto& answer) { return answer.has_value(); });
    });
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(folder + "/" + name).rdbuf();
    return text.str();
  }

  BufferPool pool{std::size_t{16} << 20};
  std::unique_ptr<Reactor> reactor = make_reactor({.ring = {}, .buffers = &pool});
  HandlerProcesses handlers{*reactor};
  std::string folder;
  std::vector<std::optional<int>> answers;
};

TEST_F(HandlerProcessesTest, The_exit_code_or_the_signal_is_the_answer) {
  run("exit 0");
  run("exit 3");
  run("kill -TERM $$");
  run("no-such-program-anywhere 2>/dev/null");
  ASSERT_TRUE(wait_for_all());
  EXPECT_EQ(answers[0], 0);
  EXPECT_EQ(answers[1], 3);
  EXPECT_EQ(answers[2], 128 + SIGTERM) << "the daemon blocks that signal, its handlers must not";
  EXPECT_EQ(answers[3], 127);
}

// A secret in the daemon's environment is nobody's business, and a script must find its tools.
TEST_F(HandlerProcessesTest, Gets_the_environment_that_was_given_and_no_other) {
  ::setenv("REPLBLK_TEST_SECRET", "x", 1);
  run("env | sort > $FOLDER/env; readlink /proc/self/fd/0 > $FOLDER/stdin", seconds(10), {"DRBD_RESOURCE=r 0"});
  ASSERT_TRUE(wait_for_all());
  const std::string environment = read("env");
  EXPECT_NE(environment.find("DRBD_RESOURCE=r 0\n"), std::string::npos);
  EXPECT_NE(environment.find("PATH=/sbin:/usr/sbin:/bin:/usr/bin\n"), std::string::npos);
  EXPECT_EQ(environment.find("REPLBLK_TEST_SECRET"), std::string::npos);
  EXPECT_EQ(read("stdin"), "/dev/null\n");
}

// A handler that hangs must not hold up anything, and neither must what it started.
TEST_F(HandlerProcessesTest, What_does_not_end_in_time_is_killed_with_all_that_it_started) {
  run("(sleep 2; touch $FOLDER/late) & sleep 60", milliseconds(300));
  run("exit 5");
  const Instant began = reactor->now();
  ASSERT_TRUE(wait_for_all());
  EXPECT_LT(reactor->now() - began, seconds(2));
  EXPECT_EQ(answers[0], ports::Handlers::kNoAnswer);
  EXPECT_EQ(answers[1], 5);
  const Instant later = reactor->now() + milliseconds(2500);
  ASSERT_TRUE(turn_until(*reactor, [&] { return reactor->now() >= later; }));
  EXPECT_FALSE(std::filesystem::exists(folder + "/late"));
}

/// Until it is destroyed the processes that it watches stay what they are when they are killed: for their parent they
/// have not ended, like those that wait for a disk.
class Watcher {
 public:
  explicit Watcher(const std::vector<pid_t>& watched) {
    int said[2];
    RB_ASSERT(::pipe(said) == 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      char is_good = 1;
      for (const pid_t pid : watched) is_good = is_good && ::ptrace(PTRACE_SEIZE, pid, 0, 0) == 0;
      static_cast<void>(::write(said[1], &is_good, 1));
      for (;;) ::pause();
    }
    char is_good = 0;
    RB_ASSERT(pid_ > 0 && ::read(said[0], &is_good, 1) == 1);
    is_good_ = is_good != 0;
    ::close(said[0]);
    ::close(said[1]);
  }
  ~Watcher() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] bool is_good() const noexcept { return is_good_; }

 private:
  pid_t pid_ = -1;
  bool is_good_ = false;
};

// A handler whose shell waits for a dead disk cannot be killed: the others must be run all the same, and it is reaped
// when it ends.
TEST_F(HandlerProcessesTest, What_cannot_be_killed_holds_up_nothing) {
  std::vector<pid_t> pids(HandlerProcesses::kRunningMax);
  for (std::size_t index = 0; index < pids.size(); ++index)
    run("echo $$ > $FOLDER/" + std::to_string(index) + "; exec sleep 60", seconds(1));
  ASSERT_TRUE(turn_until(*reactor, [&] {
    for (std::size_t index = 0; index < pids.size(); ++index) {
      const std::string text = read(std::to_string(index));
      if (!text.ends_with('\n')) return false;
      pids[index] = std::stoi(text);
    }
    return true;
  }));
  {
    const Watcher watcher(pids);
    if (!watcher.is_good()) GTEST_SKIP() << "needs the right to trace processes";
    run("exit 5");
    ASSERT_TRUE(wait_for_all());
    EXPECT_EQ(std::ranges::count(answers, std::optional(ports::Handlers::kNoAnswer)), answers.size() - 1);
    EXPECT_EQ(answers.back(), 5);
    run("exit 6");
    ASSERT_TRUE(wait_for_all());
    EXPECT_EQ(answers.back(), 6);
  }
  EXPECT_TRUE(turn_until(*reactor, [&] {
    return std::ranges::all_of(pids, [](pid_t pid) { return ::kill(pid, 0) != 0; });
  })) << "a zombie is left";
}

// A storm of events ends somewhere, and every call has its answer.
TEST_F(HandlerProcessesTest, More_than_can_wait_are_refused) {
  const std::size_t count = HandlerProcesses::kWaitingMax + 20;
  for (std::size_t index = 0; index < count; ++index) run("sleep 0.05");
  ASSERT_TRUE(wait_for_all());
  EXPECT_EQ(std::ranges::count(answers, std::optional(0)), HandlerProcesses::kWaitingMax);
  EXPECT_EQ(std::ranges::count(answers, std::optional(ports::Handlers::kNoAnswer)), 20);
}

}  // namespace
}  // namespace replblk::runtime
