// Errors of start-up as an operator meets them: produced by the kernel in a forked child, not invented here.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

#include "base/log.hpp"
#include "runtime/error_map.hpp"
#include "runtime/start_error.hpp"
#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

using ports::IoError;
using ports::ListenError;
using ports::StreamError;

/// Runs `body` in a child and returns what it wrote.
template <class Body>
std::string in_child(Body body) {
  int ends[2];
  if (::pipe(ends) != 0) return "no pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string text = body();
    [[maybe_unused]] const ssize_t written = ::write(ends[1], text.data(), text.size());
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char piece[4096];
  for (ssize_t count = 0; (count = ::read(ends[0], piece, sizeof piece)) > 0;)
    text.append(piece, static_cast<std::size_t>(count));
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  return text;
}

void refuse_io_uring_setup(unsigned error_number) {
  sock_filter program[] = {
      {.code = BPF_LD | BPF_W | BPF_ABS, .jt = 0, .jf = 0, .k = offsetof(seccomp_data, nr)},
      {.code = BPF_JMP | BPF_JEQ | BPF_K, .jt = 0, .jf = 1, .k = SYS_io_uring_setup},
      {.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = SECCOMP_RET_ERRNO | error_number},
      {.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = SECCOMP_RET_ALLOW},
  };
  const sock_fprog filter{.len = sizeof program / sizeof program[0], .filter = program};
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

std::string start_error_under(unsigned error_number) {
  return in_child([error_number]() -> std::string {
    refuse_io_uring_setup(error_number);
    const auto made = Reactor::create({});
    return made ? "made" : made.error();
  });
}

// If it failed, a daemon in a container would die with "Operation not permitted" and nothing to go by.
TEST(StartError, A_forbidden_or_missing_io_uring_is_said_clearly) {
  EXPECT_NE(start_error_under(EPERM).find("io_uring is forbidden: a seccomp filter"), std::string::npos)
      << start_error_under(EPERM);
  EXPECT_NE(start_error_under(ENOSYS).find("run kernel 6.1 or newer"), std::string::npos) << start_error_under(ENOSYS);
  const std::string by_sysctl = describe_ring_failure(EPERM, 2);
  EXPECT_NE(by_sysctl.find("kernel.io_uring_disabled is 2"), std::string::npos) << by_sysctl;
  EXPECT_NE(describe_ring_failure(ENOMEM, 0).find("LimitMEMLOCK"), std::string::npos);
}

std::string last_warning;

// If it failed, a low memlock limit would stop the daemon, or silently cost CPU.
TEST(StartError, A_low_locked_memory_limit_is_a_warning_and_the_reactor_works_without) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become a user without CAP_IPC_LOCK";
  const std::string text = in_child([]() -> std::string {
    const rlimit low{.rlim_cur = 64 << 10, .rlim_max = 64 << 10};
    if (::setrlimit(RLIMIT_MEMLOCK, &low) != 0) return "no limit";
    constexpr uid_t kNobody = 65534;
    if (::setresuid(kNobody, kNobody, kNobody) != 0) return "no other user";
    set_log_sink(
        [](LogLevel level, std::string_view line) {
          if (level == LogLevel::warning) last_warning = line;
        },
        LogLevel::warning);
    BufferPool pool(std::size_t{16} << 20);
    const auto made = Reactor::create({.ring = {}, .buffers = &pool});
    if (!made) return made.error();
    if ((*made)->has_registered_buffers()) return "registered";
    (*made)->run_turn({});
    return last_warning;
  });
  EXPECT_EQ(
      text,
      "the locked-memory limit (64 KiB) is too low to register 16 MiB of I/O buffers; running without, about a tenth "
      "more CPU per I/O; set LimitMEMLOCK=infinity in the service (or ulimit -l) to register them");
}

// If it failed, some errno would reach the layers above as the wrong family.
TEST(ErrorMap, Every_errno_maps_to_the_family_that_its_meaning_belongs_to) {
  int known = 0;
  for (int number = 1; number < 4096; ++number) {
    if (::strerrorname_np(number) != nullptr) ++known;
    const bool is_space = number == ENOSPC || number == EDQUOT;
    const bool is_unsupported = number == EOPNOTSUPP || number == ENOSYS;
    const bool is_access = number == EACCES || number == EPERM || number == EROFS || number == EBADF;
    const IoError io = is_space         ? IoError::no_space
                       : is_unsupported ? IoError::not_supported
                       : is_access      ? IoError::access
                                        : IoError::io;
    EXPECT_EQ(io_error_from(number), io) << number;

    EXPECT_EQ(stream_error_from(number), number == ETIMEDOUT ? StreamError::timed_out : StreamError::reset) << number;

    const StreamError connect = number == ECONNREFUSED                      ? StreamError::refused
                                : number == ETIMEDOUT                       ? StreamError::timed_out
                                : (number == ECONNRESET || number == EPIPE) ? StreamError::reset
                                                                            : StreamError::unreachable;
    EXPECT_EQ(connect_error_from(number), connect) << number;

    const ListenError listen = number == EADDRINUSE                            ? ListenError::address_in_use
                               : (number == EADDRNOTAVAIL || number == ENODEV) ? ListenError::address_not_here
                               : (number == EACCES || number == EPERM)         ? ListenError::access_denied
                                                                               : ListenError::other;
    EXPECT_EQ(listen_error_from(number), listen) << number;
    EXPECT_EQ(is_transient(number), number == EINTR || number == EAGAIN) << number;
    const std::string sentence = describe_disk_failure({.path = "/dev/x", .error_number = number, .is_direct = false});
    EXPECT_TRUE(sentence.starts_with("disk /dev/x: ") && sentence.find("; ") != std::string::npos) << sentence;
    EXPECT_EQ(says_in_use(sentence), number == EBUSY || number == EAGAIN) << sentence;
  }
  EXPECT_GT(known, 130);
}

}  // namespace
}  // namespace replblk::runtime
