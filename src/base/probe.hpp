// Reach probes: RB_PROBE("name") at a rare branch says "the run has been here". A campaign of the simulator lists those
// that no run has reached: each is a hole in the simulator, or a branch that nobody needs. The observer is a weak
// symbol. replblk_sim defines it; the daemon does not, so that its address is a null constant from the link on: no
// state, and a probe costs one test of that constant, on a branch that is rare anyway. Not for paths that every request
// takes, and not in headers or templates (each place is one entry of a list that the linker makes).
#pragma once

namespace replblk {

struct ProbeSite {
  const char* name;
};

/// Defined by whoever wants to know.
[[gnu::weak]] void probe_reached(const ProbeSite& site) noexcept;

}  // namespace replblk

#define RB_PROBE(text)                                                                                     \
  do {                                                                                                     \
    static constinit const ::replblk::ProbeSite probe_site [[gnu::section("rb_probes"), gnu::used]]{text}; \
    if (::replblk::probe_reached != nullptr) ::replblk::probe_reached(probe_site);                         \
  } while (false)
