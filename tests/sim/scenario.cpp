#include "scenario.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <set>

#include "base/crc32c.hpp"
#include "stamp.hpp"

namespace replblk::sim {

using blockdev::NodeIndex;

namespace {

constexpr Duration kSlice = milliseconds(5);
constexpr Duration kSliceInAmbush = milliseconds(1);
constexpr Duration kLookEvery = milliseconds(200);
constexpr Duration kQuietMax = milliseconds(400);
constexpr Duration kAnswerEchoMax = milliseconds(100);
constexpr Duration kTurnPauseMax = milliseconds(300);
constexpr Duration kKeptMax = seconds(1);
constexpr Duration kQuickNetworkMax = milliseconds(1);
constexpr int kSplitTriesMax = 20;
constexpr std::uint64_t kEventsMin = 10'000;
constexpr std::uint64_t kPresetValueA = 1;
/// A request that a disk failed is answered within this time.
constexpr Duration kErrorEchoMax = seconds(10);

}  // namespace

Scenario::Scenario(RunOptions options, bool is_tracing)
    : options_(std::move(options)), timeline_(options_.seed), fabric_(timeline_, options_.network) {
  timeline_.set_printing(is_tracing);
}

Scenario::~Scenario() = default;

void Scenario::fail(const std::string& sentence) {
  if (!violation_.empty()) return;
  violation_ = fmt::format("{} {}", timeline_.stamp(), sentence);
  timeline_.note("VIOLATION: {}", sentence);
}

RunOutcome Scenario::run() {
  prepare();
  safety();
  if (violation_.empty() && is_split_) finish_split();
  if (violation_.empty() && !is_split_) liveness();
  RunOutcome outcome;
  outcome.violation = violation_;
  // What is on the disks is part of what happened.
  for (const auto& host : hosts_) {
    for (std::size_t volume = 0; volume < host->volumes_count(); ++volume)
      timeline_.mix(crc32c({host->data(volume).content(), host->data(volume).geometry().size_bytes}));
  }
  outcome.hash = timeline_.hash();
  outcome.events_count = timeline_.steps_count();
  outcome.recovery = recovery_;
  SimInitiator::Counters total;
  for (const auto& initiator : initiators_) {
    const SimInitiator::Counters& one = initiator->counters();
    total.writes_answered += one.writes_answered;
    total.writes_lost += one.writes_lost;
    total.reads += one.reads;
    total.flushes += one.flushes;
    total.reservations += one.reservations;
    total.logins += one.logins;
    total.redirects += one.redirects;
    total.ghosts += one.ghosts;
    total.disk_errors += one.disk_errors;
  }
  outcome.summary = fmt::format(
      "writes {} lost {} reads {} flushes {} reservations {} logins {} redirects {} ghosts {} disk errors {} "
      "comparisons {} cache "
      "losses "
      "{} splits {} refusals {} events {};",
      total.writes_answered, total.writes_lost, total.reads, total.flushes, total.reservations, total.logins,
      total.redirects, total.ghosts, total.disk_errors, comparisons_, losses_, splits_,
      administrator_->refusals_count(), timeline_.steps_count());
  if (mended_ > 0) outcome.summary += " mended a silent difference;";
  for (std::size_t index = 0; index < kFaultCount; ++index) {
    if (injected_[index] > 0)
      outcome.summary += fmt::format(" {}×{}", to_string(static_cast<Fault>(index)), injected_[index]);
  }
  return outcome;
}

/// The mandate of now: what SimLan measures against.
std::string Scenario::check_virtual_ip() {
  if (lan_ == nullptr) return {};
  for (const auto& host : hosts_) {
    if (host->holds_mandate()) lan_->note_mandate(host->index());
  }
  return lan_->violation();
}

/// The address is where the mandate is, and the network knows.
bool Scenario::is_virtual_ip_settled() const {
  if (lan_ == nullptr) return true;
  return std::ranges::all_of(hosts_, [&](const auto& host) {
    const NodeIndex node = host->index();
    return lan_->holds(node) == host->holds_mandate() && (!lan_->holds(node) || lan_->announced_by() == node);
  });
}

// ---- Making the pair ----

void Scenario::prepare() {
  Seeded& random = timeline_.random();
  for (NodeIndex node = 0; node < 2; ++node) hosts_[node] = std::make_unique<SimHost>(fabric_, options_, node);
  if (options_.has_arbiter) {
    arbiter_ = std::make_unique<SimArbiterServer>(timeline_, mix64(options_.seed) ^ 0x61726269);
    arbiter_->set_faulty(options_.has_arbiter_faults);
    for (const auto& host : hosts_) host->set_arbiter(arbiter_.get());
  }
  if (options_.has_virtual_ip) {
    lan_ = std::make_unique<SimLan>(timeline_);
    for (const auto& host : hosts_) host->set_lan(lan_.get());
  }
  const auto first = static_cast<NodeIndex>(random.below(2));
  // Devices are not empty when they come: each holds old data of its own.
  const std::uint64_t sectors_count = options_.volumes_count * options_.volume_sectors();
  oracle_ = std::make_unique<Oracle>(sectors_count, options_.has_write_cache);
  for (NodeIndex node = 0; node < 2; ++node) {
    for (std::uint64_t sector = 0; sector < sectors_count; sector += 64) {
      if (!random.chance(0.5)) continue;
      const std::uint64_t value = kPresetValueA + node;
      for (std::uint64_t index = sector; index < std::min(sector + 64, sectors_count); ++index) {
        std::byte bytes[kSectorBytes];
        write_stamp(bytes, value, index);
        hosts_[node]
            ->data(index / options_.volume_sectors())
            .preset(index % options_.volume_sectors() * kSectorBytes, bytes);
        if (node == first) oracle_->preset(index, value);
      }
    }
  }
  std::uint64_t usable = 0;
  for (std::size_t volume = 0; volume < options_.volumes_count; ++volume) {
    Uuid uuid;
    random.fill(uuid.bytes);
    usable = hosts_[0]->create_metadata(uuid, {}, volume);
    if (hosts_[1]->create_metadata(uuid, {}, volume) != usable)
      fail("create-md gave two equal devices different usable sizes");
  }
  checkers_ = std::make_unique<Checkers>(std::array<SimHost*, 2>{hosts_[0].get(), hosts_[1].get()}, *oracle_);
  checkers_->set_data_bytes(usable);
  // What a volume grows by reads as zeroes, whatever the devices held there.
  for (std::uint64_t sector = 0; options_.growth_bytes > 0 && sector < sectors_count; ++sector) {
    if (sector % options_.volume_sectors() * kSectorBytes >= usable) oracle_->preset(sector, 0);
  }
  if (options_.has_disk_errors()) checkers_->set_disk_errors();
  administrator_ =
      std::make_unique<Administrator>(timeline_, std::array<SimHost*, 2>{hosts_[0].get(), hosts_[1].get()}, *checkers_);
  administrator_->make_first_primary(first);
  if (options_.has_switchover_verb) administrator_->switch_over_by_name();
  for (std::size_t index = 0; index < options_.initiators.size(); ++index) {
    InitiatorOptions initiator = options_.initiators[index];
    if (options_.growth_bytes > 0) initiator.grown_from = usable / kSectorBytes;
    RB_ASSERT((initiator.region.first - initiator.base_sector + initiator.region.count) * kSectorBytes <= usable);
    SimInitiator::Hooks hooks;
    hooks.next_value = [this] { return next_value_++; };
    hooks.on_violation = [this](const std::string& sentence) {
      if (!is_split_) fail(sentence);
    };
    hooks.on_write_answered = [this](std::uint16_t, Sectors sectors, bool is_durable) {
      for (const auto& host : hosts_) {
        const auto view = host->inspect();
        if (view && host->holds_mandate() && view->record->configuration.is_pair())
          answered_by_both_ = oracle_->begin_flush();
      }
      std::string sentence = checkers_->check_answered(sectors);
      if (sentence.empty() && (is_durable || !options_.has_write_cache)) {
        std::vector<std::uint64_t> each(sectors.count);
        std::iota(each.begin(), each.end(), sectors.first);
        sentence = checkers_->check_durable(each);
      }
      if (!sentence.empty()) fail(sentence);
    };
    hooks.on_flush_answered = [this](const std::vector<std::uint64_t>& sectors) {
      const std::string sentence = checkers_->check_durable(sectors);
      if (!sentence.empty()) fail(sentence);
    };
    hooks.on_reservation_answered = [this](const std::string& name, std::uint64_t isid, const OwnReservation& own) {
      const std::string sentence = checkers_->check_reservation_answered(name, isid, own);
      if (!sentence.empty()) fail(sentence);
    };
    hooks.on_data_answered = [this](const std::string& address) { check_not_frozen(address); };
    // Connected to a peer that is whole, no initiator sees that a disk fails.
    hooks.may_fail = [this] {
      return timeline_.now() <= disk_errors_until_ &&
             (timeline_.now() <= both_fail_until_ || timeline_.now() <= last_apart_ + kErrorEchoMax);
    };
    hooks.may_be_full = [this] { return timeline_.now() <= disk_errors_until_; };
    initiators_.push_back(std::make_unique<SimInitiator>(fabric_, fmt::format("10.0.1.{}", index + 1), *oracle_,
                                                         std::move(initiator), std::move(hooks)));
  }
  for (const auto& host : hosts_) host->start();
  let_run(milliseconds(100));
  for (const auto& initiator : initiators_) {
    initiator->set_load(true);
    initiator->start();
  }
  if (random.chance(0.6)) {
    const Instant limit = timeline_.now() + seconds(120);
    while (violation_.empty() && !checkers_->is_established()) {
      let_run(milliseconds(100));
      if (timeline_.now() > limit) fail("I9: the first full sync did not finish in 120 s: " + describe_state());
    }
  }
  for (const auto& host : hosts_) host->let_handlers_refuse(true);
}

// ---- Time ----

void Scenario::let_run(Duration duration) {
  const Instant end = timeline_.now() + duration;
  while (violation_.empty() && timeline_.now() < end) {
    start_due_hosts();
    heal_due();
    const bool is_ambush_laid =
        timeline_.now() < growth_ambush_until_ ||
        std::ranges::any_of(ambush_until_, [&](Instant until) { return timeline_.now() < until; });
    timeline_.run_until(std::min(end, timeline_.now() + (is_ambush_laid ? kSliceInAmbush : kSlice)));
    checkers_->observe();
    if (!checkers_->is_established()) last_apart_ = timeline_.now();
    for (const auto& host : hosts_) {
      const auto view = host->inspect();
      // What was not recorded, or could not be, is not acted upon.
      if (view && !view->is_recording && !view->is_copy_failed) note_parting(host->index(), *view->record);
    }
    spring_ambush();
    spring_growth_ambush();
    for (const std::string& sentence :
         {checkers_->check_roles(), checkers_->check_verify(), check_virtual_ip(), check_none_kept()}) {
      if (!sentence.empty()) fail(sentence);
    }
    if (timeline_.now() >= next_look_) {
      next_look_ = timeline_.now() + kLookEvery;
      if (!is_split_) administrator_->look();
    }
  }
}

void Scenario::start_due_hosts() {
  for (NodeIndex node = 0; node < 2; ++node) {
    SimHost& host = *hosts_[node];
    // A careful administrator keeps a dead node down while its peer is being promoted.
    if (timeline_.now() < start_at_[node] || host.is_running() || administrator_->is_busy()) continue;
    if (!host.is_powered()) host.restore_power();
    if (timeline_.now() < host.quiet_at()) continue;
    const std::string sentence = checkers_->check_records();
    if (!sentence.empty()) fail(sentence);
    start_at_[node] = Instant::max();
    host.start();
  }
}

/// protocol.md 3.2: a frozen node answers nothing. What it answered before may still be under way for a moment; for
/// long over a slow network, and to an initiator that was cut off.
void Scenario::check_not_frozen(const std::string& address) {
  if (options_.has(Fault::initiator_cut) || options_.network.latency_max > kQuickNetworkMax) return;
  const NodeIndex node = address == hosts_[0]->address() ? 0 : 1;
  const auto view = hosts_[node]->inspect();
  if (view && view->frozen_since && hosts_[node]->loop().host_now() - *view->frozen_since > kAnswerEchoMax)
    fail(fmt::format("3.2: {} is frozen and answers", kNodeName[node]));
}

/// docs/membership.md: a node that does not hear that the other one serves lets its initiators go. What is late is
/// heard late.
std::string Scenario::check_none_kept() {
  const bool is_quick = options_.network.latency_max <= kQuickNetworkMax && !options_.has(Fault::latency) &&
                        options_.network.datagram_late_probability == 0;
  for (const NodeIndex node : {NodeIndex{0}, NodeIndex{1}}) {
    const auto view = hosts_[node]->inspect();
    const bool is_kept = is_quick && !is_split_ && view && view->is_serving && !hosts_[node]->holds_mandate() &&
                         hosts_[blockdev::other_node(node)]->holds_mandate();
    // A process that hangs has no turns.
    if (!is_kept || hosts_[node]->loop().host_now() - hosts_[node]->loop().now() > kTurnPauseMax) {
      kept_since_[node] = Instant::max();
      continue;
    }
    kept_since_[node] = std::min(kept_since_[node], timeline_.now());
    if (timeline_.now() - kept_since_[node] > kKeptMax)
      return fmt::format("3.8: {} keeps its initiators, and {} serves", kNodeName[node],
                         kNodeName[blockdev::other_node(node)]);
  }
  return {};
}

/// The windows in which a change is under way are short; faults that are drawn by the clock seldom meet them.
void Scenario::spring_ambush() {
  for (NodeIndex node = 0; node < 2; ++node) {
    SimHost& host = *hosts_[node];
    if (timeline_.now() >= ambush_until_[node] || host.is_stopping()) continue;
    const auto view = host.inspect();
    if (!view) continue;
    const bool is_in_change = view->is_frozen || view->is_recording || view->phase == node::LinkPhase::adding ||
                              view->phase == node::LinkPhase::agreeing ||
                              view->record->seen > view->record->configuration.term;
    Seeded& random = timeline_.random();
    if (is_in_change && ambush_springs_at_[node] == Instant::max())
      ambush_springs_at_[node] = timeline_.now() + random.duration(Duration(0), milliseconds(4));
    if (timeline_.now() < ambush_springs_at_[node]) continue;
    ambush_until_[node] = {};
    ambush_springs_at_[node] = Instant::max();
    timeline_.note("ambush: {}", kNodeName[node]);
    // Mostly long enough for the administrator to decide for the other one.
    take_down(host, random.duration(random.chance(0.7) ? seconds(1) : milliseconds(1), seconds(6)), random.chance(0.5));
  }
}

/// Between the growth of one copy and of the other.
void Scenario::spring_growth_ambush() {
  if (timeline_.now() >= growth_ambush_until_) return;
  const auto left = hosts_[0]->inspect();
  const auto right = hosts_[1]->inspect();
  if (!left || !right || hosts_[0]->is_stopping() || hosts_[1]->is_stopping()) return;
  const auto differs = [](const auto* one, const auto* other) {
    return one->geometry().size_bytes != other->geometry().size_bytes;
  };
  if (std::ranges::equal(left->stores(), right->stores(), std::not_fn(differs))) return;
  growth_ambush_until_ = {};
  timeline_.note("ambush: one copy is larger");
  Seeded& random = timeline_.random();
  if (random.chance(0.5)) {
    fabric_.reset_connections(hosts_[0]->address(), hosts_[1]->address(), random.chance(0.3));
  } else {
    take_down(*hosts_[random.below(2)], random.duration(milliseconds(1), seconds(6)), random.chance(0.5));
  }
}

void Scenario::heal_due() {
  while (!heals_.empty() && heals_.begin()->first <= timeline_.now()) {
    const std::function<void()> heal = std::move(heals_.begin()->second);
    heals_.erase(heals_.begin());
    heal();
  }
}

void Scenario::heal_later(Duration delay, std::function<void()> heal) {
  heals_.emplace(timeline_.now() + delay, std::move(heal));
}

void Scenario::pause_and_compare() {
  std::string sentence = checkers_->check_remembered();
  if (!sentence.empty()) fail(sentence);
  for (const auto& initiator : initiators_) initiator->set_load(false);
  const Instant limit = timeline_.now() + kQuietMax;
  bool was_compared = false;
  while (violation_.empty() && !was_compared && timeline_.now() < limit) {
    let_run(milliseconds(20));
    if (!std::ranges::all_of(initiators_, [](const auto& initiator) { return initiator->has_nothing_in_flight(); }))
      continue;
    sentence = checkers_->check_copies(was_compared);
    if (!sentence.empty()) fail(sentence);
  }
  comparisons_ += was_compared ? 1 : 0;
  sentence = checkers_->check_records();
  if (!sentence.empty()) fail(sentence);
  for (const auto& initiator : initiators_) initiator->set_load(true);
}

// ---- Faults ----

void Scenario::safety() {
  // A quiet run goes on until it has seen something.
  for (std::uint32_t count = 0; violation_.empty() && !is_split_; ++count) {
    if (count >= options_.steps && timeline_.steps_count() >= kEventsMin) break;
    step();
  }
  // A split is what such a run is about.
  for (int count = 0; options_.has(Fault::split) && violation_.empty() && !is_split_ && count < kSplitTriesMax;
       ++count) {
    inject(Fault::split);
    let_run(seconds(1));
  }
}

void Scenario::step() {
  Seeded& random = timeline_.random();
  if (!random.chance(options_.quiet_probability)) {
    double total = 0;
    for (const double weight : options_.weight) total += weight;
    double draw = total * static_cast<double>(random.below(1'000'000)) * 1e-6;
    for (std::size_t index = 0; index < kFaultCount; ++index) {
      if (options_.weight[index] > 0 && (draw -= options_.weight[index]) < 0) {
        inject(static_cast<Fault>(index));
        break;
      }
    }
  }
  let_run(random.duration(milliseconds(1), options_.step_max));
  if (random.chance(0.4)) pause_and_compare();
}

void Scenario::cut_power(SimHost& host) {
  const NodeIndex node = host.index();
  SimHost& other = *hosts_[blockdev::other_node(node)];
  host.cut_power();
  // What it was recording is there now, or is not.
  const blockdev::ResourceRecord left = host.persisted(true);
  note_parting(node, left);
  // May answered, unflushed data be lost with this cache (protocol.md P1)? Not while another whole copy keeps it.
  const auto view = other.inspect();
  blockdev::Configuration higher;
  const bool is_one = replication::pick_higher(
      left.configuration, view ? view->record->configuration : other.persisted(false).configuration, higher);
  const bool is_kept = is_one && higher.has_member(other.index()) && !checkers_->has_lost_cache(other.index());
  checkers_->lost_cache(node);
  if (is_kept) return;
  ++losses_;
  timeline_.note("no whole copy kept its cache: what was not flushed may be lost");
  oracle_->forget_volatile();
  if (is_one && higher.is_sole(node)) checkers_->keeps_what_is_left(node);
}

void Scenario::note_parting(NodeIndex node, const blockdev::ResourceRecord& record) {
  const bool has_parted = was_pair_[node] && record.configuration.is_sole(node);
  was_pair_[node] = record.configuration.is_pair();
  if (!has_parted || is_split_) return;
  const std::string sentence = checkers_->check_parted(node, oracle_->end_flush(answered_by_both_));
  if (!sentence.empty()) fail(sentence);
}

void Scenario::take_down(SimHost& host, Duration off_time, bool is_power_cut) {
  if (is_power_cut) {
    if (!host.is_powered()) return;
    cut_power(host);
  } else {
    if (!host.is_running()) return;
    host.kill();
  }
  start_at_[host.index()] = timeline_.now() + off_time;
}

void Scenario::stop(SimHost& host, Duration off_time) {
  if (!host.is_running() || host.is_stopping()) return;
  host.stop([this, node = host.index(), off_time] { start_at_[node] = timeline_.now() + off_time; });
}

void Scenario::inject(Fault fault) {
  Seeded& random = timeline_.random();
  SimHost& host = *hosts_[random.below(2)];
  SimHost& other = *hosts_[blockdev::other_node(host.index())];
  const std::string& here = host.address();
  const std::string& there = other.address();
  const Duration off_time = random.chance(0.6) ? random.duration(milliseconds(1), milliseconds(500))
                                               : random.duration(milliseconds(500), seconds(12));
  const Duration cut_time =
      random.chance(0.5) ? random.duration(milliseconds(10), seconds(2)) : random.duration(seconds(2), seconds(15));
  const std::string initiator = fmt::format("10.0.1.{}", random.between(1, initiators_.size()));
  timeline_.note("fault: {} {}", to_string(fault), kNodeName[host.index()]);
  ++injected_[static_cast<std::size_t>(fault)];
  switch (fault) {
    case Fault::kill:
      take_down(host, off_time, false);
      break;
    case Fault::power_cut:
      take_down(host, off_time, true);
      // The other one's device keeps everything, but its daemon ends too before anybody decides.
      if (random.chance(0.3)) {
        let_run(random.duration(Duration(0), milliseconds(300)));
        random.chance(0.5) ? take_down(other, random.duration(milliseconds(1), seconds(5)), false)
                           : stop(other, random.duration(milliseconds(1), seconds(5)));
      }
      break;
    case Fault::power_cut_both:
      take_down(host, off_time, true);
      let_run(random.duration(Duration(0), random.chance(0.7) ? milliseconds(5) : milliseconds(500)));
      take_down(other, random.duration(milliseconds(1), seconds(5)), true);
      break;
    case Fault::stop:
      stop(host, off_time);
      break;
    case Fault::link_cut:
      fabric_.link(here, there).is_cut = fabric_.link(there, here).is_cut = true;
      // The node alone is cut off, not from its initiators. Drawn apart, so that all else stays as it is.
      if (arbiter_ != nullptr && Seeded(mix64(options_.seed) ^ injected_[static_cast<std::size_t>(fault)]).chance(0.4))
        arbiter_->set_reached(host.index(), false);
      heal_later(cut_time, [this, &here, &there, node = host.index()] {
        fabric_.link(here, there).is_cut = fabric_.link(there, here).is_cut = false;
        if (arbiter_ != nullptr) arbiter_->set_reached(node, true);
      });
      break;
    case Fault::one_way_cut:
      fabric_.link(here, there).is_cut = true;
      heal_later(cut_time, [this, &here, &there] { fabric_.link(here, there).is_cut = false; });
      break;
    case Fault::reset:
      fabric_.reset_connections(here, there, random.chance(0.3));
      break;
    case Fault::initiator_cut:
      fabric_.link(here, initiator).is_cut = true;
      if (random.chance(0.7)) fabric_.link(initiator, here).is_cut = true;
      heal_later(cut_time, [this, &here, initiator] {
        fabric_.link(here, initiator).is_cut = fabric_.link(initiator, here).is_cut = false;
      });
      break;
    case Fault::initiator_reset:
      fabric_.reset_connections(here, initiator, random.chance(0.3));
      break;
    case Fault::latency:
      fabric_.link(here, there).extra_latency = random.duration(milliseconds(1), milliseconds(400));
      heal_later(cut_time, [this, &here, &there] { fabric_.link(here, there).extra_latency = {}; });
      break;
    case Fault::hang:
      if (host.is_running())
        host.loop().hang(random.duration(milliseconds(10), random.chance(0.5)   ? milliseconds(500)
                                                           : random.chance(0.8) ? seconds(5)
                                                                                : seconds(30)));
      break;
    case Fault::switchover:
      administrator_->want_switchover();
      break;
    case Fault::disconnect:
      if (!host.is_running() || administrator_->is_busy()) break;
      administrator_->want_disconnect(host.index());
      heal_later(cut_time, [this] { administrator_->want_connect(); });
      break;
    case Fault::pause:
      administrator_->pause_sync(host.index());
      heal_later(cut_time, [this] { administrator_->resume_sync(); });
      break;
    case Fault::verify:
      administrator_->verify(host.index());
      break;
    case Fault::invalidate:
      administrator_->invalidate(host.index(), random.chance(0.5));
      break;
    case Fault::read_error:
    case Fault::write_error:
    case Fault::full_disk:
    case Fault::flush_error:
    case Fault::metadata_error:
      break_disk(fault, host, cut_time);
      break;
    case Fault::hung_disk:
      hang_disk(host, cut_time);
      break;
    case Fault::ambush: {
      const auto there_view = other.inspect();
      const bool is_other_primary = there_view && there_view->is_primary && random.chance(0.6);
      ambush_until_[is_other_primary ? other.index() : host.index()] = timeline_.now() + seconds(10);
      if (random.chance(0.4)) {
        fabric_.reset_connections(here, there, random.chance(0.3));
      } else if (random.chance(0.6)) {
        // What was under way to the peer does not arrive, and the node dies while it decides to go on alone.
        fabric_.link(here, there).is_cut = fabric_.link(there, here).is_cut = true;
        heal_later(cut_time + seconds(3), [this, &here, &there] {
          fabric_.link(here, there).is_cut = fabric_.link(there, here).is_cut = false;
        });
      }
      break;
    }
    case Fault::slow_disk:
      for (std::size_t volume = 0; volume < host.volumes_count(); ++volume) {
        host.data(volume).set_slowness(random.duration(milliseconds(1), milliseconds(300)));
        host.metadata(volume).set_slowness(random.duration(milliseconds(1), milliseconds(300)));
      }
      heal_later(cut_time, [&host] { host.heal_devices(); });
      break;
    case Fault::demote:
      administrator_->want_secondary();
      break;
    case Fault::standby:
      administrator_->standby(host.index());
      heal_later(cut_time, [this] { administrator_->end_standby_and_maintenance(); });
      break;
    case Fault::maintenance:
      administrator_->maintenance(host.index());
      heal_later(cut_time, [this] { administrator_->end_standby_and_maintenance(); });
      break;
    case Fault::resize:
      grow_devices(random.chance(0.7) ? 1.0 : 0.5);
      administrator_->resize(host.index());
      if (random.chance(0.5)) growth_ambush_until_ = timeline_.now() + seconds(2);
      break;
    case Fault::split: {
      if (!checkers_->is_established() || host.is_stopping() || other.is_stopping()) break;
      // Who serves when they part would depend on who is quicker.
      if (administrator_->is_busy()) break;
      if (timeline_.steps_count() < kEventsMin || (!is_primary(0) && !is_primary(1))) break;
      is_split_ = true;
      ++splits_;
      ambush_until_ = {};
      checkers_->set_split(true);
      split_primary_ = is_primary(0) ? 0 : 1;
      // What would have healed later heals now: the split is trouble enough.
      heals_.clear();
      for (const auto& one : hosts_) mend_disks(*one);
      fabric_.link(here, there).is_cut = fabric_.link(there, here).is_cut = true;
      break;
    }
  }
}

/// Of each volume and node with this probability: one may be forgotten, and come later.
void Scenario::grow_devices(double probability) {
  for (const auto& host : hosts_) {
    for (std::size_t volume = 0; volume < host->volumes_count(); ++volume) {
      if (timeline_.random().chance(probability)) host->grow_devices(volume);
    }
  }
}

/// Devices that grew on both nodes, and a person who asks until it is done: every volume is larger, and every initiator
/// knows.
void Scenario::finish_growth() {
  timeline_.note("all devices grow");
  grow_devices(1);
  const std::uint64_t wanted = checkers_->data_bytes() + options_.growth_bytes;
  const auto is_done = [&] {
    for (const auto& host : hosts_) {
      for (std::size_t volume = 0; volume < host->volumes_count(); ++volume) {
        if (host->volume_bytes(volume) != wanted) return false;
      }
    }
    return std::ranges::all_of(initiators_,
                               [&](const auto& initiator) { return initiator->capacity_bytes() == wanted; });
  };
  const Instant limit = timeline_.now() + kConvergeMax;
  while (violation_.empty() && !(is_done() && has_converged())) {
    for (const auto& host : hosts_) administrator_->resize(host->index());
    let_run(seconds(1));
    for (const auto& host : hosts_) mend_disks(*host);
    if (timeline_.now() > limit) fail("I9: the volumes do not grow: " + describe_state());
  }
}

void Scenario::expect_disk_errors(const SimHost& host, Duration how_long) {
  const Instant until = timeline_.now() + how_long + kErrorEchoMax;
  disk_errors_until_ = std::max(disk_errors_until_, until);
  fails_until_[host.index()] = std::max(fails_until_[host.index()], until);
  if (timeline_.now() <= fails_until_[blockdev::other_node(host.index())])
    both_fail_until_ = std::max(both_fail_until_, std::min(until, fails_until_[blockdev::other_node(host.index())]));
}

void Scenario::hang_disk(SimHost& host, Duration how_long) {
  Seeded& random = timeline_.random();
  const std::size_t volume = random.below(host.volumes_count());
  expect_disk_errors(host, how_long + options_.disk.timeout);
  random.chance(0.7) ? host.data(volume).hang() : host.metadata(volume).hang();
  // A person who does not know that the disk still hangs is refused, and nothing waits for it.
  if (random.chance(0.4)) {
    heal_later(options_.disk.timeout + how_long / 2, [this, &host] { administrator_->attach(host.index()); });
  }
  heal_later(how_long, [this, &host] {
    host.heal_devices();
    heal_later(milliseconds(100), [this, &host] { mend_disks(host); });
  });
}

void Scenario::break_disk(Fault fault, SimHost& host, Duration how_long) {
  Seeded& random = timeline_.random();
  expect_disk_errors(host, how_long);
  const std::uint64_t data_bytes = checkers_->data_bytes();
  const std::size_t volume = random.below(host.volumes_count());
  Defect defect;
  if (fault == Fault::metadata_error) {
    const bool is_external = options_.has_external_metadata;
    defect.offset_bytes = is_external ? 0 : host.volume_bytes(volume);
    defect.length_bytes = host.metadata(volume).geometry().size_bytes - defect.offset_bytes;
    defect.fails_changes = true;
    host.metadata(volume).set_defect(defect);
    heal_later(how_long, [this, &host] { mend_disks(host); });
    return;
  }
  const bool is_hot = random.chance(0.7);  // Where initiators write most.
  defect.offset_bytes = random.below(is_hot ? 64 : data_bytes / kSectorBytes) * kSectorBytes;
  defect.length_bytes = random.between(1, random.chance(0.5) ? 8 : 512) * kSectorBytes;
  defect.length_bytes = std::min(defect.length_bytes, data_bytes - defect.offset_bytes);
  defect.fails_reads = fault == Fault::read_error;
  defect.fails_changes = fault == Fault::write_error || fault == Fault::full_disk;
  defect.is_full = fault == Fault::full_disk || (defect.fails_changes && random.chance(0.4));
  if (fault == Fault::full_disk && random.chance(0.5)) {
    defect.offset_bytes = 0;
    defect.length_bytes = data_bytes;
  }
  defect.fails_flushes = fault == Fault::flush_error;
  host.data(volume).set_defect(defect);
  heal_later(how_long, [this, &host] { mend_disks(host); });
}

/// A node whose metadata failed, or that could not open its volume, does nothing until it is started again with a
/// device that works; the only copy goes on without flushes. A person does what `status` says.
void Scenario::mend_disks(SimHost& host) {
  host.heal_devices();
  if (!host.is_running() || host.is_stopping() || host.node() == nullptr) return;
  const node::Status status = host.node()->status();
  const auto needs_attach = [](const node::VolumeStatus& volume) {
    return volume.disk_state == "Failed" || volume.disk_reason.contains("replblkctl attach");
  };
  if (std::ranges::none_of(status.resources.front().volumes, needs_attach)) return;
  if (timeline_.random().chance(0.5)) {
    administrator_->attach(host.index());
  } else {
    take_down(host, milliseconds(100), false);
  }
}

// ---- The end ----

bool Scenario::has_converged() {
  if (!checkers_->is_established()) return false;
  int serving = 0;
  for (const auto& host : hosts_) {
    const auto view = host->inspect();
    serving += view->is_serving && !view->is_frozen ? 1 : 0;
    const node::Status status = host->node()->status();  // Named: the loop below would outlive a temporary.
    // A secondary that does not know whom to send initiators to refuses them.
    const node::Status other = hosts_[blockdev::other_node(host->index())]->node()->status();
    if (status.resources.front().peer_role != other.resources.front().role) return false;
    for (const node::VolumeStatus& volume : status.resources.front().volumes) {
      if (volume.disk_state != "UpToDate" || volume.peer_disk_state != "UpToDate" ||
          volume.replication_state != "Established" || volume.out_of_sync_bytes > 0)
        return false;
    }
  }
  return serving == 1 && is_virtual_ip_settled() &&
         std::ranges::all_of(initiators_, [](const auto& initiator) { return initiator->is_ready(); });
}

std::string Scenario::describe_state() {
  std::string text;
  if (!is_virtual_ip_settled())
    text += fmt::format("\n  virtual IP: a {}, b {}, last announced by {}", lan_->holds(0), lan_->holds(1),
                        lan_->announced_by());
  for (const auto& host : hosts_) {
    text += fmt::format("\n  {}: ", kNodeName[host->index()]);
    if (!host->is_running() || host->node() == nullptr) {
      text += host->is_powered() ? "not running" : "without power";
      continue;
    }
    const node::ResourceStatus resource = host->node()->status().resources.front();
    text += fmt::format("{} ({}) {} ({}), term {} members {}{}", resource.role, resource.role_reason,
                        resource.connection_state, resource.connection_reason, resource.term, resource.members,
                        resource.is_suspended ? ", suspended: " + resource.suspended_reason : "");
    for (const node::VolumeStatus& volume : resource.volumes) {
      text += fmt::format("; disk {} ({}) replication {} peer {} out of sync {}", volume.disk_state, volume.disk_reason,
                          volume.replication_state, volume.peer_disk_state, volume.out_of_sync_bytes);
    }
    if (const auto view = host->inspect()) {
      text +=
          fmt::format("; phase {} quiet {} generation {}/{} base {}/{}", static_cast<int>(view->phase), view->is_quiet,
                      view->record->generations.current.term, view->record->generations.current.nonce,
                      view->record->generations.base.term, view->record->generations.base.nonce);
    }
  }
  for (const auto& initiator : initiators_) {
    text += fmt::format("\n  {}: {}{}", initiator->name(), initiator->is_ready() ? "ready" : "not logged in",
                        initiator->is_idle() ? "" : ", busy");
  }
  return text;
}

void Scenario::liveness() {
  timeline_.note("liveness: everything is healed");
  heals_.clear();
  ambush_until_ = {};
  fabric_.heal_all();
  if (arbiter_ != nullptr) arbiter_->heal();
  for (const auto& host : hosts_) host->let_handlers_refuse(false);
  for (NodeIndex node = 0; node < 2; ++node) {
    mend_disks(*hosts_[node]);
    if (!hosts_[node]->is_running() && start_at_[node] == Instant::max()) start_at_[node] = timeline_.now();
  }
  administrator_->want_connect();
  administrator_->resume_sync();
  administrator_->end_standby_and_maintenance();
  const Instant healed = timeline_.now();
  const Instant limit = healed + kConvergeMax;
  Instant next_connect = timeline_.now() + seconds(5);
  while (violation_.empty() && !has_converged()) {
    if (timeline_.now() >= next_connect) {
      administrator_->want_connect();
      administrator_->resume_sync();
      administrator_->end_standby_and_maintenance();
      next_connect = timeline_.now() + seconds(5);
    }
    let_run(milliseconds(250));
    for (const auto& host : hosts_) mend_disks(*host);  // A failure may come to light late.
    if (timeline_.now() > limit) fail("I9: all is healed and the pair does not come back: " + describe_state());
  }
  recovery_ = timeline_.now() - healed;
  let_run(milliseconds(300));
  if (options_.growth_bytes > 0) finish_growth();
  for (const auto& initiator : initiators_) initiator->set_load(false);
  std::size_t sweeping = initiators_.size();
  for (const auto& initiator : initiators_) initiator->read_everything([&sweeping] { --sweeping; });
  const Instant sweep_limit = timeline_.now() + seconds(60);
  while (violation_.empty() && (sweeping > 0 || !has_converged())) {
    let_run(milliseconds(100));
    if (timeline_.now() >= next_connect) {
      // A daemon that hung may carry out the administrator's `disconnect` only now.
      administrator_->want_connect();
      administrator_->end_standby_and_maintenance();
      administrator_->resume_sync();
      next_connect = timeline_.now() + seconds(5);
    }
    if (timeline_.now() > sweep_limit) fail("I9: the final reads do not come back: " + describe_state());
  }
  if (!violation_.empty()) {
    for (const auto& initiator : initiators_) initiator->read_everything({});
    return;
  }
  let_run(milliseconds(300));
  bool was_compared = false;
  for (const std::string& sentence :
       {checkers_->check_copies(was_compared), checkers_->check_identical(), checkers_->check_records()}) {
    if (!sentence.empty()) fail(sentence);
  }
  comparisons_ += was_compared ? 1 : 0;
  if (violation_.empty()) verify_everything();
  if (violation_.empty() && options_.has_silent_difference) silent_difference();
}

void Scenario::verify_and_wait(NodeIndex node, const std::string& repair_from) {
  node::AdminRequest request;
  request.verb = node::AdminVerb::verify;
  request.repair_from = repair_from;
  bool is_begun = false;
  const auto ask = [&] {
    hosts_[node]->ask(request, [this, &is_begun](const node::AdminReply& reply) {
      timeline_.note("verify: {}", reply.message);
      is_begun = is_begun || reply.outcome == node::AdminOutcome::done;
    });
  };
  const auto is_running = [this] {
    bool result = false;
    for (const auto& host : hosts_) {
      const auto view = host->inspect();
      result = result || !view || view->is_repairing ||
               std::ranges::any_of(view->verifies(), [](const auto* verify) { return verify->is_running(); });
    }
    return result;
  };
  // One that the administrator began may still run: it is waited for.
  const Instant limit = timeline_.now() + seconds(120);
  while (violation_.empty() && !is_begun) {
    ask();
    let_run(milliseconds(500));
    if (timeline_.now() > limit) fail("I9: no verify begins: " + describe_state());
  }
  // Whom the request was passed on to has begun by now, too.
  while (violation_.empty() && is_running()) {
    let_run(milliseconds(50));
    if (timeline_.now() > limit) fail("I9: a verify does not end: " + describe_state());
  }
}

void Scenario::verify_everything() {
  timeline_.note("verify of everything");
  // What a write changes between the two reads of a range is no difference. A disk that stalls for longer than
  // peer_timeout ends the connection, and with it the verify.
  const bool has_load = timeline_.random().chance(0.5) && options_.disk.stall_probability == 0;
  for (const auto& initiator : initiators_) initiator->set_load(has_load);
  // A switchover that was wanted late ends a verify: again then.
  for (int attempt = 0; attempt < 5 && violation_.empty(); ++attempt) {
    verify_and_wait(static_cast<NodeIndex>(timeline_.random().below(2)), "");
    for (const auto& host : hosts_) {
      const auto view = host->inspect();
      if (!view || !view->is_primary) continue;
      if (!std::ranges::all_of(view->verifies(), [](const auto* verify) { return verify->report().is_complete; }))
        continue;
      // Whatever disks failed before: they all work, and everything was made good.
      for (const auto* verify : view->verifies()) {
        const std::uint64_t found = verify->report().differences.bytes();
        if (found > 0) fail(fmt::format("P5: the verify of everything found {} differing bytes", found));
      }
      return come_to_rest();
    }
  }
  fail("P5: no verify of everything completes: " + describe_state());
}

/// Nothing on the way from the initiators to the disks can see this damage: verify must, and mend it.
/// The load ends, and what is in flight: also what an initiator gave up just now comes back from the disks.
void Scenario::come_to_rest() {
  for (const auto& initiator : initiators_) initiator->set_load(false);
  const auto is_quiet = [this] {
    return std::ranges::all_of(initiators_, [](const auto& initiator) { return initiator->has_nothing_in_flight(); }) &&
           std::ranges::all_of(hosts_, [](const auto& host) {
             const auto now = host->inspect();
             return now && now->is_quiet;
           });
  };
  const Instant limit = timeline_.now() + seconds(60);
  do {
    let_run(seconds(1));
    if (timeline_.now() > limit) fail("I9: nothing comes to rest: " + describe_state());
  } while (violation_.empty() && !is_quiet());
}

/// A whole resync mends what nobody has in a resync set.
void Scenario::overwrite(NodeIndex damaged) {
  const bool is_asked_there = timeline_.random().chance(0.5);
  const NodeIndex asked = is_asked_there ? damaged : blockdev::other_node(damaged);
  const auto before = hosts_[damaged]->inspect()->record->configuration.term;
  const Instant limit = timeline_.now() + seconds(120);
  const auto is_over = [&] {
    const auto view = hosts_[damaged]->inspect();
    return view && view->record->configuration.term > before && has_converged();
  };
  Instant next_request = timeline_.now();
  while (violation_.empty() && !is_over()) {
    const auto view = hosts_[damaged]->inspect();
    if (timeline_.now() >= next_request && view && view->record->configuration.term == before) {
      administrator_->invalidate(asked, !is_asked_there);
      next_request = timeline_.now() + seconds(2);
    }
    let_run(milliseconds(100));
    if (timeline_.now() > limit) fail("I9: an invalidated copy is not synchronised: " + describe_state());
  }
}

void Scenario::silent_difference() {
  Seeded& random = timeline_.random();
  administrator_->rest();  // Whose copy is damaged, and whose mends it, is what it is now.
  NodeIndex primary = 0;
  for (NodeIndex node = 0; node < 2; ++node) {
    if (const auto view = hosts_[node]->inspect(); view && view->is_primary) primary = node;
  }
  const NodeIndex damaged = blockdev::other_node(primary);
  constexpr std::uint64_t kBlock = 4096;
  const std::uint64_t size = checkers_->data_bytes();
  std::set<std::uint64_t> blocks;
  for (std::uint64_t count = random.between(1, 6); count > 0; --count)
    blocks.insert(random.below(size / kBlock) * kBlock);
  if (random.chance(0.3)) blocks.insert((size - 1) / kBlock * kBlock);
  for (const std::uint64_t block : blocks) {
    Medium& medium = hosts_[damaged]->data();
    const std::uint64_t at = block + random.below(std::min(kBlock, size - block) / kSectorBytes) * kSectorBytes;
    std::byte bytes[kSectorBytes];
    std::memcpy(bytes, medium.content() + at, kSectorBytes);
    bytes[random.below(kSectorBytes)] ^= std::byte{1};
    medium.preset(at, bytes);
  }
  timeline_.note("silent difference in {} blocks of {}", blocks.size(), kNodeName[damaged]);
  checkers_->expect_differences(true);
  const bool has_load = random.chance(0.5);
  for (const auto& initiator : initiators_) initiator->set_load(has_load);
  if (random.chance(0.3)) {
    // Nobody has looked for it: only a resync of everything mends it.
    overwrite(damaged);
    come_to_rest();
    if (const std::string sentence = checkers_->check_identical(); violation_.empty() && !sentence.empty())
      fail("after the copy was invalidated: " + sentence);
    return;
  }
  const auto is_equal = [&](std::uint64_t block) {
    return std::memcmp(hosts_[0]->data().content() + block, hosts_[1]->data().content() + block,
                       std::min(kBlock, size - block)) == 0;
  };
  verify_and_wait(static_cast<NodeIndex>(random.below(2)), "");
  come_to_rest();
  if (!violation_.empty()) return;
  const auto view = hosts_[primary]->inspect();
  const replication::DifferenceList& found = view->verifies().front()->report().differences;
  std::uint64_t damaged_bytes = 0;
  for (const std::uint64_t block : blocks) {
    const std::uint64_t length = std::min(kBlock, size - block);
    damaged_bytes += length;
    if (!is_equal(block) && !view->stores().front()->dirty().is_dirty(block, length))
      fail(fmt::format("I5: verify did not put the damaged block at {} into the resync set", block));
  }
  if (!has_load && found.bytes() != damaged_bytes) {
    fail(fmt::format("verify reports {} differing bytes, and {} were damaged", found.bytes(), damaged_bytes));
  }
  for (const auto& initiator : initiators_) initiator->set_load(has_load);
  const NodeIndex asked = static_cast<NodeIndex>(random.below(2));
  verify_and_wait(asked, random.chance(0.5) ? kNodeName[primary] : asked == primary ? "local" : "peer");
  come_to_rest();
  if (const auto after = hosts_[primary]->inspect();
      violation_.empty() && (!after || !after->stores().front()->dirty().is_clean())) {
    fail("the repair left dirty blocks: " + describe_state());
  }
  if (const std::string sentence = checkers_->check_identical(); violation_.empty() && !sentence.empty()) {
    fail("after the repair: " + sentence);
  }
  ++mended_;
}

}  // namespace replblk::sim
