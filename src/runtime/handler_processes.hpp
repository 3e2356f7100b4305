// Runs handlers as processes, from a thread of its own: making a process and waiting for it can take as long as the
// disk takes that the shell is on, and no data may wait for that. Implements ports::Handlers. Not responsible for when
// what is run. Invariants: a process that outlives its time is killed with all of its group, and the answer does not
// wait until it has ended, which takes as long as a disk that it waits for; what still runs when the daemon ends goes
// on by itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <thread>

#include "ports/handlers.hpp"
#include "runtime/mailbox.hpp"

namespace replblk::runtime {

class HandlerProcesses final : public ports::Handlers {
 public:
  /// Calls that wait for the thread. More are refused (kNoAnswer), so that a storm of events ends somewhere.
  static constexpr std::size_t kWaitingMax = 64;
  /// Processes at once; more wait.
  static constexpr std::size_t kRunningMax = 8;
  /// Processes that were killed and do not end, which hold up nobody. With so many no other one is begun.
  static constexpr std::size_t kKilledMax = 64;

  explicit HandlerProcesses(Reactor& reactor);
  ~HandlerProcesses() override;

  void run(ports::HandlerCall call, Done done) override;

 private:
  struct Job {
    std::uint64_t id = 0;
    ports::HandlerCall call;
  };
  struct Answer {
    std::uint64_t id = 0;
    int exit_code = kNoAnswer;
    std::string problem;  ///< for the log, which the reactor's thread writes: at the end it closes it
  };
  class Worker;
  void on_answer(Answer& answer);

  Mailbox<Job> jobs_;
  Mailbox<Answer> answers_;
  std::map<std::uint64_t, Done> waiting_;
  std::uint64_t last_id_ = 0;
  std::jthread thread_;
};

}  // namespace replblk::runtime
