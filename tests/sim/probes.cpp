#include "probes.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string_view>

#include "base/assert.hpp"
#include "base/probe.hpp"

// The linker makes these of the section's name.
extern const replblk::ProbeSite __start_rb_probes[];
extern const replblk::ProbeSite __stop_rb_probes[];

namespace replblk {

namespace {

std::atomic<std::uint64_t>* counts = nullptr;

std::size_t sites_count() { return static_cast<std::size_t>(__stop_rb_probes - __start_rb_probes); }

/// By name: a probe may stand at several places.
std::map<std::string_view, std::uint64_t> by_name() {
  std::map<std::string_view, std::uint64_t> result;
  for (std::size_t index = 0; index < sites_count(); ++index) {
    result[__start_rb_probes[index].name] += counts == nullptr ? 0 : counts[index].load(std::memory_order_relaxed);
  }
  return result;
}

}  // namespace

void probe_reached(const ProbeSite& site) noexcept {
  if (counts != nullptr) counts[&site - __start_rb_probes].fetch_add(1, std::memory_order_relaxed);
}

namespace sim {

void share_probes() {
  void* memory =
      mmap(nullptr, sites_count() * sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  RB_ASSERT(memory != MAP_FAILED);
  counts = static_cast<std::atomic<std::uint64_t>*>(memory);
}

std::string describe_probes() {
  const auto names = by_name();
  std::string never;
  std::size_t reached_count = 0;
  for (const auto& [name, count] : names) {
    if (count > 0) {
      ++reached_count;
    } else {
      never += fmt::format(" {}", name);
    }
  }
  return fmt::format("probes reached: {} of {}{}{}", reached_count, names.size(),
                     never.empty() ? "" : "; never:", never);
}

}  // namespace sim

}  // namespace replblk
