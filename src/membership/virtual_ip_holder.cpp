#include "membership/virtual_ip_holder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "base/probe.hpp"

namespace replblk::membership {

namespace {

/// protocol.md 3.8: after the first one, the pause before each further announcement; the last one for good.
constexpr std::array<Duration, 8> kAnnouncementPauses = {milliseconds(100), milliseconds(100), milliseconds(100),
                                                         milliseconds(100), seconds(1),        seconds(5),
                                                         seconds(30),       seconds(60)};

}  // namespace

VirtualIpHolder::VirtualIpHolder(ports::Loop& loop, ports::VirtualIp& port, std::function<bool()> may_hold)
    : loop_(loop),
      port_(port),
      may_hold_(std::move(may_hold)),
      timer_(Callback<void()>::to<&VirtualIpHolder::on_timer>(*this)) {}

VirtualIpHolder::~VirtualIpHolder() {
  RB_ASSERT(!is_wanted_);
  loop_.cancel(timer_);
}

// ---- before the role is taken ----------------------------------------------------------------------------------

void VirtualIpHolder::probe(ProbeDone done) {
  RB_ASSERT(!is_wanted_ && state_ == State::absent);
  probe_done_ = std::move(done);
  start_probing();
}

void VirtualIpHolder::start_probing() {
  state_ = State::probing;
  ask_at_.reset();
  probes_left_ = kProbesCount;
  loop_.arm(timer_, loop_.now());
}

Result<void, std::string> VirtualIpHolder::take_answers() {
  while (const auto answer = port_.take_answer()) {
    if (std::ranges::find(peer_, *answer) != peer_.end()) {
      RB_PROBE("virtual_ip_still_at_the_peer");
      continue;
    }
    return replblk::fail(fmt::format(
        "the virtual IP {} is in use by {}: another host has it, or a resource agent of another cluster sets it",
        port_.name(), to_string(*answer)));
  }
  return {};
}

void VirtualIpHolder::probe_again() {
  if (auto checked = port_.check(); !checked) return end_probe(std::move(checked));
  if (auto free = take_answers(); !free) return end_probe(std::move(free));
  if (probes_left_-- == 0) return end_probe({});
  if (auto sent = port_.probe(); !sent) return end_probe(std::move(sent));
  loop_.arm(timer_, loop_.now() + kProbeInterval);
}

void VirtualIpHolder::end_probe(Result<void, std::string> result) {
  port_.end_probing();
  loop_.cancel(timer_);
  state_ = State::absent;
  if (result) probe_valid_until_ = loop_.now() + kProbeValidity;
  if (probe_done_) std::exchange(probe_done_, nullptr)(result);
  // Whoever was told may have changed everything.
  if (!is_wanted_ || is_frozen_ || state_ != State::absent) return;
  if (!result) return fail(std::move(result.error()));
  set();
}

bool VirtualIpHolder::look() {
  auto checked = port_.check();
  if (is_wanted_ || state_ != State::absent) return checked.has_value();
  std::string reason = checked ? std::string() : std::move(checked.error());
  if (reason != reason_ && !reason.empty()) log_warning("{}: this node could not be Primary with it", reason);
  reason_ = std::move(reason);
  return reason_.empty();
}

// ---- while the node serves -------------------------------------------------------------------------------------

void VirtualIpHolder::hold() {
  if (is_wanted_) return;
  is_wanted_ = true;
  is_frozen_ = false;
  reason_.clear();
  if (state_ != State::probing) try_hold();
}

void VirtualIpHolder::take_over() {
  if (is_wanted_) return;
  const bool is_asked = state_ == State::probing || loop_.now() < probe_valid_until_;
  if (!is_asked) {
    RB_PROBE("virtual_ip_taken_over");
    probes_left_ = kProbesCount;
    probe_valid_until_ = loop_.now() + kProbeInterval * kProbesCount;
    ask_at_ = loop_.now();
  }
  hold();
}

/// The first question goes out before the address is announced; the kernel does not hear its own.
void VirtualIpHolder::ask_meanwhile(Instant now) {
  if (!ask_at_ || now < *ask_at_) return;
  auto free = take_answers();
  if (free && probes_left_-- > 0) {
    free = port_.probe();
    ask_at_ = now + kProbeInterval;
    if (free) return;
  }
  ask_at_.reset();
  if (free) return port_.end_probing();
  RB_PROBE("virtual_ip_taken_over_in_vain");
  probe_valid_until_ = {};
  give_up();
  fail(std::move(free.error()));
}

void VirtualIpHolder::set_frozen(bool is_frozen) {
  if (!is_wanted_ || is_frozen == is_frozen_) return;
  is_frozen_ = is_frozen;
  if (is_frozen) {
    frozen_since_ = loop_.now();
    arm_next();
  } else if (state_ == State::held) {
    renew(loop_.now());
    arm_next();
  } else if (state_ != State::probing) {
    try_hold();
  }
}

void VirtualIpHolder::release() {
  is_wanted_ = false;
  if (state_ == State::probing) end_probe(replblk::fail(std::string("given up")));
  loop_.cancel(timer_);
  if (state_ == State::held) log_info("virtual IP {}: given up", port_.name());
  state_ = State::absent;
  reason_.clear();
  give_up();
}

void VirtualIpHolder::give_up() {
  ask_at_.reset();
  port_.end_probing();
  port_.release();
}

void VirtualIpHolder::try_hold() {
  if (loop_.now() >= probe_valid_until_) return start_probing();
  set();
}

void VirtualIpHolder::set() {
  if (!may_hold_()) {
    state_ = State::absent;
    return loop_.arm(timer_, loop_.now() + kMandatePause);
  }
  auto held = port_.check();
  if (held) held = port_.hold(kLifetime);
  if (!held) return fail(std::move(held.error()));
  log_info("virtual IP {}: set", port_.name());
  state_ = State::held;
  reason_.clear();
  renew_at_ = loop_.now() + kRenewInterval;
  announcements_count_ = 0;
  announce_at_ = loop_.now();
  ask_meanwhile(loop_.now());
  announce_if_due(loop_.now());
  arm_next();
}

void VirtualIpHolder::renew(Instant now) {
  if (!may_hold_()) {
    renew_at_ = now + kMandatePause;
    return;
  }
  auto held = port_.check();
  if (held) held = port_.hold(kLifetime);
  if (!held) return fail(std::move(held.error()));
  renew_at_ = now + kRenewInterval;
}

void VirtualIpHolder::announce_if_due(Instant now) {
  if (state_ != State::held || now < announce_at_) return;
  // One that cannot be sent (a queue is full, the device goes down) is followed by others.
  static_cast<void>(port_.announce());
  const std::size_t index = std::min(announcements_count_, kAnnouncementPauses.size() - 1);
  announce_at_ = now + kAnnouncementPauses[index];
  ++announcements_count_;
}

void VirtualIpHolder::fail(std::string sentence) {
  if (state_ != State::failed || sentence != reason_) log_error("{}; trying again each second", sentence);
  state_ = State::failed;
  reason_ = std::move(sentence);
  loop_.arm(timer_, loop_.now() + kRetryInterval);
}

void VirtualIpHolder::arm_next() {
  if (state_ != State::held) return;
  const Instant due = std::min({renew_at_, announce_at_, ask_at_.value_or(renew_at_)});
  loop_.arm(timer_, is_frozen_ ? frozen_since_ + kFrozenMax : due);
}

void VirtualIpHolder::on_timer() {
  const Instant now = loop_.now();
  if (state_ == State::probing) return probe_again();
  RB_ASSERT(is_wanted_);
  if (is_frozen_) {
    if (state_ != State::held) return;  // set_frozen(false) tries again.
    RB_PROBE("virtual_ip_given_up_while_frozen");
    log_warning("virtual IP {}: given up, since this node may not serve for the moment", port_.name());
    give_up();
    state_ = State::absent;
    return;
  }
  if (state_ != State::held) return try_hold();
  ask_meanwhile(now);
  if (state_ == State::held && now >= renew_at_) renew(now);
  announce_if_due(now);
  arm_next();
}

}  // namespace replblk::membership
