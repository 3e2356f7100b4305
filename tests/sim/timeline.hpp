// The one simulated time line: events ordered by (time, order of scheduling), a generator, and the trace whose hash
// says whether two runs were the same run. Everything in the simulator hangs here. Knows nothing of hosts, disks or
// networks. Invariant: time never goes back, and nothing but this queue and this generator decides an order.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.hpp"
#include "seeded.hpp"

namespace replblk::sim {

class Timeline {
 public:
  using Event = std::move_only_function<void()>;

  explicit Timeline(std::uint64_t seed) : random_(seed) {}
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  [[nodiscard]] Instant now() const noexcept { return now_; }
  [[nodiscard]] Seeded& random() noexcept { return random_; }

  void at(Instant when, Event event);
  void after(Duration delay, Event event) { at(now_ + delay, std::move(event)); }
  /// Runs the next event. False: there is none.
  bool step();
  void run_until(Instant when);
  [[nodiscard]] std::uint64_t steps_count() const noexcept { return steps_count_; }

  /// A fact of the run: hashed always, printed when tracing.
  template <class... Args>
  void note(fmt::format_string<Args...> format, Args&&... arguments) {
    write_line(fmt::format(format, std::forward<Args>(arguments)...));
  }
  /// A cheap fact for the hash alone.
  void mix(std::uint64_t value) noexcept { hash_ = mix64(hash_ ^ value); }
  [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }
  void set_printing(bool is_printing) noexcept { is_printing_ = is_printing; }
  /// "   12.345678": seconds since the run began.
  [[nodiscard]] std::string stamp() const;

 private:
  struct Entry {
    Instant when;
    std::uint64_t order;
    Event event;
  };
  static bool later(const Entry& left, const Entry& right) noexcept {
    return left.when != right.when ? left.when > right.when : left.order > right.order;
  }
  void write_line(std::string_view line);

  Seeded random_;
  Instant now_{seconds(1)};
  std::uint64_t order_ = 0;
  std::uint64_t steps_count_ = 0;
  std::uint64_t hash_ = 0;
  bool is_printing_ = false;
  std::vector<Entry> heap_;
};

}  // namespace replblk::sim
