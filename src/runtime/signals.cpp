#include "runtime/signals.hpp"

#include <sys/signalfd.h>
#include <unistd.h>

namespace replblk::runtime {

Signals::Signals(Reactor& reactor, Callback<void(int)> on_signal) : on_signal_(on_signal) {
  sigset_t wanted;
  sigemptyset(&wanted);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&wanted, number);
  RB_ASSERT(pthread_sigmask(SIG_BLOCK, &wanted, &former_mask_) == 0);
  fd_ = ::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
  RB_ASSERT(fd_ >= 0);
  // Polled and read by hand: in 6.1 a ring read of a signalfd would block in a worker thread, which does not see
  // signals that are directed at one thread.
  watch_ = std::make_unique<ReadableWatch>(reactor, fd_, Callback<void()>::to<&Signals::read_signals>(*this));
}

Signals::~Signals() {
  watch_.reset();
  ::close(fd_);
  pthread_sigmask(SIG_SETMASK, &former_mask_, nullptr);
}

void Signals::read_signals() {
  signalfd_siginfo information{};
  while (::read(fd_, &information, sizeof information) == static_cast<ssize_t>(sizeof information)) {
    on_signal_(static_cast<int>(information.ssi_signo));
  }
}

}  // namespace replblk::runtime
