#include "runtime/handler_processes.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "base/log.hpp"

extern "C" {
#include <sys/pidfd.h>  // glibc 2.36 forgets to say so itself
}

namespace replblk::runtime {

namespace {

// Each call has one answer; the refused ones of a storm of events have theirs at once.
constexpr std::size_t kAnswersMax = 65536;
// How long a process that was killed and waits for a disk may be left unseen when it ends at last.
constexpr auto kReapInterval = std::chrono::seconds(1);

using Clock = std::chrono::steady_clock;

// What DRBD's helper gets.
constexpr const char* kPlainEnvironment[] = {"HOME=/", "TERM=linux", "PATH=/sbin:/usr/sbin:/bin:/usr/bin"};

/// A process in a group of its own, with /dev/null to read, no signal blocked, and the daemon's output. -1: errno.
pid_t spawn(ports::HandlerCall& call) {
  std::string shell = "/bin/sh";
  std::string option = "-c";
  char* const arguments[] = {shell.data(), option.data(), call.command.data(), nullptr};
  std::vector<std::string> plain(std::begin(kPlainEnvironment), std::end(kPlainEnvironment));
  std::vector<char*> environment;
  for (std::string& one : plain) environment.push_back(one.data());
  for (std::string& one : call.environment) environment.push_back(one.data());
  environment.push_back(nullptr);

  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t files;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_init(&files);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, shell.c_str(), &files, &attributes, arguments, environment.data());
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (error == 0) return pid;
  errno = error;
  return -1;
}

int exit_code_of(const siginfo_t& info) { return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status; }

}  // namespace

/// The thread: starts what is asked for, and waits for all of it at once.
class HandlerProcesses::Worker {
 public:
  Worker(Mailbox<Job>& jobs, Mailbox<Answer>& answers) : jobs_(jobs), answers_(answers) {}

  void loop(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::vector<pollfd> watched{{jobs_.descriptor(), POLLIN, 0}};
      for (const Running& one : running_) watched.push_back({one.pidfd, POLLIN, 0});
      ::poll(watched.data(), watched.size(), poll_ms());
      if (stop.stop_requested()) return;
      jobs_.drain_event();
      while (auto job = jobs_.take()) queue_.push_back(std::move(*job));
      std::erase_if(killed_, [](pid_t pid) { return ::waitpid(pid, nullptr, WNOHANG) != 0; });
      std::erase_if(running_, [this](const Running& one) { return is_over(one); });
      while (!queue_.empty() && running_.size() < kRunningMax) {
        start(queue_.front());
        queue_.pop_front();
      }
    }
  }

 private:
  struct Running {
    std::uint64_t id;
    std::string name;
    pid_t pid;
    int pidfd;
    Clock::time_point deadline;
  };

  [[nodiscard]] int poll_ms() const {
    if (running_.empty() && killed_.empty()) return -1;
    Clock::time_point next = Clock::now() + (killed_.empty() ? std::chrono::seconds(60) : kReapInterval);
    for (const Running& one : running_) next = std::min(next, one.deadline);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
  }

  void start(Job& job) {
    if (killed_.size() >= kKilledMax) {
      return answer({job.id, kNoAnswer,
                     fmt::format("handler {}: not run: {} earlier ones were killed and have not ended: does their disk "
                                 "answer?",
                                 job.call.name, killed_.size())});
    }
    const pid_t pid = spawn(job.call);
    const int pidfd = pid < 0 ? -1 : ::pidfd_open(pid, 0);
    if (pidfd < 0) {
      const std::string problem = fmt::format("handler {}: cannot be run: {}", job.call.name, std::strerror(errno));
      if (pid >= 0) {
        kill(pid);
      }
      return answer({job.id, kNoAnswer, problem});
    }
    running_.push_back({job.id, job.call.name, pid, pidfd, Clock::now() + job.call.timeout});
  }

  /// With its group. One that waits for a disk ends when that answers, if ever: nobody waits for it, but it is reaped.
  void kill(pid_t pid) {
    ::kill(-pid, SIGKILL);
    killed_.push_back(pid);
  }

  bool is_over(const Running& one) {
    siginfo_t info{};
    Answer ended{one.id, kNoAnswer, {}};
    if (::waitid(P_PIDFD, static_cast<id_t>(one.pidfd), &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0) {
      ended.exit_code = exit_code_of(info);
    } else if (Clock::now() >= one.deadline) {
      ended.problem = fmt::format("handler {}: does not end in time and is killed", one.name);
      kill(one.pid);
    } else {
      return false;
    }
    ::close(one.pidfd);
    answer(std::move(ended));
    return true;
  }

  void answer(Answer answer) {
    // The box has room for all that can be waited for.
    static_cast<void>(answers_.post(std::move(answer)));
  }

  Mailbox<Job>& jobs_;
  Mailbox<Answer>& answers_;
  std::deque<Job> queue_;
  std::vector<Running> running_;
  std::vector<pid_t> killed_;  ///< not reaped yet
};

HandlerProcesses::HandlerProcesses(Reactor& reactor)
    : jobs_(kWaitingMax),
      answers_(kAnswersMax),
      thread_([this](const std::stop_token& stop) { Worker(jobs_, answers_).loop(stop); }) {
  answers_.attach(reactor, Callback<void(Answer&)>::to<&HandlerProcesses::on_answer>(*this));
}

HandlerProcesses::~HandlerProcesses() {
  answers_.detach();
  thread_.request_stop();
  // Wakes the thread; what it takes with that it does not begin.
  static_cast<void>(jobs_.post({}));
}

void HandlerProcesses::run(ports::HandlerCall call, Done done) {
  const std::uint64_t id = ++last_id_;
  const std::string name = call.name;
  waiting_.emplace(id, std::move(done));
  if (waiting_.size() <= kWaitingMax && jobs_.post({id, std::move(call)})) return;
  static_cast<void>(answers_.post(
      {id, kNoAnswer, fmt::format("handler {}: not run: {} others are still waited for", name, waiting_.size() - 1)}));
}

void HandlerProcesses::on_answer(Answer& answer) {
  if (!answer.problem.empty()) log_error("{}", answer.problem);
  const auto found = waiting_.find(answer.id);
  const Done done = std::move(found->second);
  waiting_.erase(found);
  if (done) done(answer.exit_code);
}

}  // namespace replblk::runtime
