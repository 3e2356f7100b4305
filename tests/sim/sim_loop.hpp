// The event loop of one process on the simulated time line, with the turn of ports/loop.hpp: completions and expired
// timers → deferred tasks until none is left → turn-end tasks → queued output. A turn takes a little time, so that what
// completes meanwhile is batched into the next one, as on a real loop; the process can also be made to hang.
// The host's clock runs at a rate of its own: what now() says and timers obey is the host's time; everything else is
// the time line's. One object per run of a process: after kill() nothing is called any more, whatever was armed,
// deferred or posted.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ports/loop.hpp"
#include "timeline.hpp"

namespace replblk::sim {

class SimLoop final : public ports::Loop {
 public:
  using Task = std::move_only_function<void()>;

  /// `clock_rate`: seconds of the host's clock in one second.
  SimLoop(Timeline& timeline, std::string name, double clock_rate = 1.0)
      : timeline_(timeline), name_(std::move(name)), clock_rate_(clock_rate) {}
  SimLoop(const SimLoop&) = delete;
  SimLoop& operator=(const SimLoop&) = delete;
  ~SimLoop() override;

  [[nodiscard]] Instant now() const noexcept override { return turn_time_; }
  /// What the host's clock shows, also while the process hangs.
  [[nodiscard]] Instant host_now() const noexcept { return host_time(timeline_.now()); }
  /// All simulated calendars are right, and the simulated world began on 1 January 2026.
  [[nodiscard]] std::uint64_t unix_ms() const noexcept override {
    return 1'767'225'600'000 + static_cast<std::uint64_t>(to_ms(turn_time_.time_since_epoch()));
  }
  void arm(ports::Timer& timer, Instant deadline) override;
  void cancel(ports::Timer& timer) noexcept override;
  void defer(ports::DeferredTask& task) noexcept override;
  void defer_to_turn_end(ports::DeferredTask& task) noexcept override;

  /// From the world: something completed; runs in the next turn.
  void post(Task task);
  /// Runs when this turn ends (or the next, from outside a turn): how streams hand over what they have queued.
  void at_output(Task task);
  /// The process is stopped (SIGSTOP, a starved machine) for this long.
  void hang(Duration duration);
  /// The process is gone.
  void kill() noexcept { is_alive_ = false; }
  [[nodiscard]] bool is_alive() const noexcept { return is_alive_; }
  [[nodiscard]] bool is_in_turn() const noexcept { return is_in_turn_; }
  /// Whose turn it is; null outside of turns. So that a line in the log can say which process wrote it.
  [[nodiscard]] static const SimLoop* running() noexcept { return running_; }
  [[nodiscard]] Timeline& timeline() noexcept { return timeline_; }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

 private:
  void wake_at(Instant when);
  [[nodiscard]] Instant host_time(Instant when) const noexcept;
  /// The first moment at which the host's clock shows at least that.
  [[nodiscard]] Instant when_host_shows(Instant time) const noexcept;
  void turn();
  void expire_timers();
  void run_deferred();

  static inline const SimLoop* running_ = nullptr;

  Timeline& timeline_;
  std::string name_;
  double clock_rate_;
  bool is_alive_ = true;
  bool is_in_turn_ = false;
  Instant turn_time_{seconds(1)};
  Instant busy_until_{};
  Instant wake_time_ = Instant::max();
  std::uint64_t wake_order_ = 0;
  std::uint64_t timer_order_ = 0;
  std::map<std::pair<Instant, std::uint64_t>, ports::Timer*> timers_;
  IntrusiveList<ports::DeferredTask, ports::DeferredTask> deferred_;
  IntrusiveList<ports::DeferredTask, ports::DeferredTask> turn_end_;
  std::vector<Task> posted_;
  std::vector<Task> outputs_;
  /// Events on the time line outlive this object; they hold this flag, not the object.
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
};

}  // namespace replblk::sim
