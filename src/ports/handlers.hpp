// Programs of the administrator's that are told of events (DRBD's handlers). Implemented by runtime (processes) and by
// the simulator. Outside the data path: run() only hands the call over. Invariant: `done` is called once, from the
// loop, in a later turn, also when the program cannot be run or does not end in time.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/time.hpp"

namespace replblk::ports {

struct HandlerCall {
  std::string name;                      ///< for the log
  std::string command;                   ///< for /bin/sh -c
  std::vector<std::string> environment;  ///< "NAME=value"; what is not named here is not inherited
  Duration timeout{};                    ///< after it the program, and what it started, is killed
};

class Handlers {
 public:
  /// What the program answered: its exit code (128 + number after a signal), or kNoAnswer.
  using Done = std::function<void(int exit_code)>;
  static constexpr int kNoAnswer = -1;  ///< it could not be run, or did not end in time

  virtual ~Handlers() = default;
  virtual void run(HandlerCall call, Done done) = 0;
};

}  // namespace replblk::ports
