#include "timeline.hpp"

#include <algorithm>
#include <cstdio>

namespace replblk::sim {

void Timeline::at(Instant when, Event event) {
  heap_.push_back({std::max(when, now_), order_++, std::move(event)});
  std::push_heap(heap_.begin(), heap_.end(), later);
}

bool Timeline::step() {
  if (heap_.empty()) return false;
  std::pop_heap(heap_.begin(), heap_.end(), later);
  Entry entry = std::move(heap_.back());
  heap_.pop_back();
  now_ = entry.when;
  ++steps_count_;
  mix(static_cast<std::uint64_t>(now_.time_since_epoch().count()));
  entry.event();
  return true;
}

void Timeline::run_until(Instant when) {
  while (!heap_.empty() && heap_.front().when <= when) step();
  now_ = std::max(now_, when);
}

std::string Timeline::stamp() const {
  const std::int64_t us = std::chrono::duration_cast<microseconds>(now_.time_since_epoch() - seconds(1)).count();
  return fmt::format("{:4d}.{:06d}", us / 1000000, us % 1000000);
}

void Timeline::write_line(std::string_view line) {
  for (const char character : line) hash_ = (hash_ ^ static_cast<unsigned char>(character)) * 0x100000001b3u;
  if (is_printing_) fmt::print("{} {}\n", stamp(), line);
}

}  // namespace replblk::sim
