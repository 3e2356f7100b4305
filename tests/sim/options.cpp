#include "options.hpp"

#include <algorithm>
#include <array>
#include <span>

namespace replblk::sim {

namespace {

/// Later ones are drawn from sequences of their own, so that older seeds stay what they are.
constexpr auto kFirstFaultsCount = static_cast<std::size_t>(Fault::hung_disk);
constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kMetadataBytes = 2 * kMiB;  // docs/ondisk_format.md: 1.2 MiB and the bitmap

InitiatorOptions draw_initiator(Seeded& random, std::uint32_t index, Sectors region) {
  InitiatorOptions options;
  SessionOptions& session = options.session;
  session.initiator_name = fmt::format("iqn.2026-11.org.example:initiator-{}", index);
  session.target_name = kTargetName;
  session.isid = 0x400001370000u + index;
  session.has_header_digest = random.chance(0.3);
  session.has_data_digest = random.chance(0.3);
  session.wants_initial_r2t = random.chance(0.5);
  session.wants_immediate_data = random.chance(0.7);
  session.skips_security_stage = random.chance(0.3);
  session.receive_segment_bytes = random.chance(0.5) ? 262144 : 8192;
  session.first_burst_bytes = random.chance(0.5) ? 65536 : 4096;
  session.burst_bytes = random.chance(0.5) ? 262144 : 65536;
  session.outstanding_r2t = static_cast<std::uint32_t>(random.between(1, 4));
  session.late_data_probability = random.chance(0.4) ? 0.05 : 0;
  session.late_data_max = random.duration(milliseconds(50), seconds(3));
  for (const char* address : kNodeAddress) options.portals.push_back({address, 3260});
  options.region = region;
  options.queue_depth = static_cast<std::uint32_t>(random.chance(0.3) ? random.between(9, 32) : random.between(1, 8));
  options.large_sectors_max = random.chance(0.3) ? 2048 : 256;
  options.gap_max = milliseconds(10) +
                    random.duration(milliseconds(5), milliseconds(40)) * options.queue_depth;  // Some hundred a second.
  options.read_share = random.chance(0.3) ? 0.7 : 0.3;
  options.flush_share = random.chance(0.2) ? 0.0 : random.chance(0.3) ? 0.2 : 0.04;
  options.fua_share = random.chance(0.5) ? 0.05 : 0.3;
  options.exotic_share = random.chance(0.3) ? 0.0 : 0.08;
  options.impatience_per_second = random.chance(0.4) ? 0.15 : 0;
  return options;
}

/// Each volume gets an initiator at least; none has more than one volume.
void spread_over_volumes(RunOptions& options, std::uint32_t volumes_count) {
  options.volumes_count = volumes_count;
  for (std::uint32_t index = 0; index < std::max<std::size_t>(volumes_count, options.initiators.size()); ++index) {
    if (index >= options.initiators.size()) {
      InitiatorOptions another = options.initiators.front();
      another.session.initiator_name = fmt::format("iqn.2026-11.org.example:initiator-{}", index);
      another.session.isid = 0x400001370000u + index;
      options.initiators.push_back(std::move(another));
    }
    InitiatorOptions& initiator = options.initiators[index];
    initiator.lun = static_cast<std::uint16_t>(index % volumes_count);
    initiator.base_sector = initiator.lun * options.volume_sectors();
    initiator.volume_sectors = options.volume_sectors();
    initiator.region.first += initiator.base_sector;
  }
}

/// From a sequence of its own: no other draw depends on it.
replication::SplitPolicies draw_policies(std::uint64_t seed) {
  using namespace replication;
  Seeded random(mix64(seed) ^ 0x73706c6974);
  SplitPolicies policies;
  if (random.chance(0.3)) return policies;
  policies.without_primary = static_cast<AfterSb0>(random.below(6));
  if (policies.without_primary == AfterSb0::discard_node)
    policies.discarded_node = static_cast<blockdev::NodeIndex>(random.below(2));
  policies.with_one_primary = static_cast<AfterSb1>(random.below(4));
  policies.with_two_primaries = static_cast<AfterSb2>(random.below(2));
  return policies;
}

/// Likewise. A run is without what would need to know whose disk does not answer at the moment.
void draw_hung_disks(RunOptions& options, std::uint64_t seed) {
  Seeded random(mix64(seed) ^ 0x68756e67);
  if (options.is_lite || options.has(Fault::split) || options.has_silent_difference || !random.chance(0.3)) return;
  options.weight[static_cast<std::size_t>(Fault::hung_disk)] = static_cast<double>(random.between(2, 10));
  // What only stalls answers in time.
  const bool is_short = random.chance(0.7) && options.disk.stall_probability == 0;
  if (random.chance(0.5)) options.disk_stall_timeout = random.duration(milliseconds(500), seconds(4));
  options.disk.timeout = is_short ? random.duration(milliseconds(600), seconds(3)) : seconds(8);
}

/// Without an arbiter a full partition is a split, which takes a run over: such runs have no other partition.
void draw_arbiter(RunOptions& options, std::uint64_t seed) {
  Seeded random(mix64(seed) ^ 0x61726269746572);
  constexpr std::array kPartitions{Fault::link_cut, Fault::one_way_cut, Fault::latency, Fault::hang, Fault::ambush};
  const bool can_part = std::ranges::any_of(kPartitions, [&](Fault fault) { return options.has(fault); });
  if (options.has(Fault::split)) {
    for (const Fault fault : kPartitions) options.weight[static_cast<std::size_t>(fault)] = 0;
    return;
  }
  options.has_arbiter = can_part || random.chance(0.5);
  options.has_arbiter_faults = options.has_arbiter && !options.is_lite && random.chance(0.4);
}

/// Likewise. A split has both nodes serve, each with the address.
void draw_virtual_ip(RunOptions& options, std::uint64_t seed) {
  Seeded random(mix64(seed) ^ 0x7669727475616c);
  options.has_virtual_ip = !options.has(Fault::split) && random.chance(0.5);
}

/// Likewise.
void draw_roles(RunOptions& options, std::uint64_t seed) {
  Seeded random(mix64(seed) ^ 0x726f6c6573);
  options.has_switchover_verb = random.chance(0.5);
  if (options.is_lite || options.has(Fault::split)) return;
  for (const Fault fault : {Fault::standby, Fault::maintenance}) {
    if (random.chance(0.2)) options.weight[static_cast<std::size_t>(fault)] = static_cast<double>(random.between(1, 6));
  }
}

/// Likewise.
void draw_full_disks(RunOptions& options, std::uint64_t seed) {
  Seeded random(mix64(seed) ^ 0x66756c6c);
  if (options.is_lite || options.has(Fault::split) || !random.chance(0.1)) return;
  options.weight[static_cast<std::size_t>(Fault::full_disk)] = static_cast<double>(random.between(4, 12));
}

/// Likewise. A few lost ones in a row are what a lease must bear; many are a cut path.
void draw_datagrams(RunOptions& options, std::uint64_t seed) {
  Seeded random(mix64(seed) ^ 0x6461746167);
  NetworkModel& network = options.network;
  network.datagram_seed = random.next();
  if (options.is_lite) return;
  if (random.chance(0.5)) network.datagram_loss_probability = random.chance(0.5) ? 0.02 : 0.25;
  if (random.chance(0.3)) network.datagram_double_probability = 0.05;
  if (random.chance(0.4)) network.datagram_late_probability = 0.05;
  network.datagram_late_max = random.duration(milliseconds(10), seconds(3));
}

/// Likewise. A split, and damage that a verify is to find, are compared with volumes of one size.
void draw_growth(RunOptions& options, std::uint64_t seed) {
  Seeded random(mix64(seed) ^ 0x67726f77);
  if (options.is_lite || options.has(Fault::split) || options.has_silent_difference || !random.chance(0.25)) return;
  options.weight[static_cast<std::size_t>(Fault::resize)] = static_cast<double>(random.between(2, 10));
  options.growth_bytes = random.between(32, random.chance(0.5) ? 40 : 512) * 4096;
}

}  // namespace

std::string_view to_string(Fault fault) noexcept {
  switch (fault) {
    case Fault::kill:
      return "kill";
    case Fault::power_cut:
      return "power_cut";
    case Fault::power_cut_both:
      return "power_cut_both";
    case Fault::stop:
      return "stop";
    case Fault::link_cut:
      return "link_cut";
    case Fault::one_way_cut:
      return "one_way_cut";
    case Fault::reset:
      return "reset";
    case Fault::initiator_cut:
      return "initiator_cut";
    case Fault::initiator_reset:
      return "initiator_reset";
    case Fault::latency:
      return "latency";
    case Fault::hang:
      return "hang";
    case Fault::switchover:
      return "switchover";
    case Fault::demote:
      return "demote";
    case Fault::disconnect:
      return "disconnect";
    case Fault::pause:
      return "pause";
    case Fault::verify:
      return "verify";
    case Fault::invalidate:
      return "invalidate";
    case Fault::read_error:
      return "read_error";
    case Fault::write_error:
      return "write_error";
    case Fault::flush_error:
      return "flush_error";
    case Fault::metadata_error:
      return "metadata_error";
    case Fault::ambush:
      return "ambush";
    case Fault::slow_disk:
      return "slow_disk";
    case Fault::split:
      return "split";
    case Fault::hung_disk:
      return "hung_disk";
    case Fault::resize:
      return "resize";
    case Fault::standby:
      return "standby";
    case Fault::maintenance:
      return "maintenance";
    case Fault::full_disk:
      return "full_disk";
  }
  RB_UNREACHABLE();
}

RunOptions draw_options(std::uint64_t seed, std::uint32_t steps, bool is_lite) {
  Seeded random(mix64(seed) ^
                0x6f7074696f6e73);  // Not the run's own sequence: an option added here changes no older draw there.
  RunOptions options;
  options.seed = seed;
  options.is_lite = is_lite;
  options.steps = steps != 0 ? steps : static_cast<std::uint32_t>(random.between(6, 24));
  if (!is_lite) {
    const double density = random.chance(0.5) ? 0.25 : 0.5;
    for (double& weight : std::span(options.weight).first(kFirstFaultsCount))
      weight = random.chance(density) ? static_cast<double>(random.between(1, 10)) : 0;
    // A disk that fails ends much of what else could happen: half of the runs are without.
    if (!random.chance(0.5)) {
      for (const Fault fault : {Fault::read_error, Fault::write_error, Fault::flush_error, Fault::metadata_error})
        options.weight[static_cast<std::size_t>(fault)] = 0;
    }
    // What most protects against is what happens in the middle of a change.
    if (random.chance(0.4))
      options.weight[static_cast<std::size_t>(Fault::ambush)] = static_cast<double>(random.between(5, 20));
    // A split takes a run over: only now and then, and then it is what the run is about.
    options.weight[static_cast<std::size_t>(Fault::split)] = random.chance(0.1) ? 5 : 0;
  }
  options.quiet_probability = is_lite ? 1.0 : random.chance(0.5) ? 0.2 : 0.5;
  options.step_max = random.duration(milliseconds(100), seconds(2));
  options.volume_bytes = (random.chance(0.8) ? 1 : random.between(2, 4)) * kMiB + kMetadataBytes;
  options.logical_block_bytes = random.chance(0.2) ? 4096 : 512;
  options.has_write_cache = random.chance(0.8);
  options.has_external_metadata = random.chance(0.3);
  options.supports_discard = random.chance(0.7);
  options.supports_write_zeroes = random.chance(0.7);
  options.alignment_bytes = random.chance(0.2) ? 4096 : options.logical_block_bytes;
  options.buffer_memory_mib = random.chance(0.2) ? 16 : 32;
  options.disk.refuses_zeroing = random.chance(0.1);
  options.disk.latency_max = random.chance(0.3) ? milliseconds(20) : microseconds(300);
  options.disk.flush_latency_max = random.chance(0.3) ? milliseconds(60) : milliseconds(3);
  if (!is_lite && random.chance(0.2)) {
    options.disk.stall_probability = 0.0005;
    options.disk.stall_max = random.chance(0.5) ? milliseconds(800) : seconds(4);
  }
  options.network.latency_max = random.chance(0.3) ? milliseconds(10) : microseconds(200);
  options.network.user_timeout = random.chance(0.5) ? seconds(10) : seconds(900);
  options.rate_max_bytes_per_second = random.chance(0.3) ? kMiB : 0;
  if (random.chance(0.5)) options.checksum = random.chance(0.5) ? node::ChecksumUse::always : node::ChecksumUse::never;
  if (!is_lite && random.chance(0.5)) {
    // The default margin is a tenth.
    for (double& rate : options.clock_rate) rate = 1.0 + 0.00001 * (static_cast<double>(random.below(9001)) - 4500.0);
  }
  const std::uint64_t sectors = (options.volume_bytes - kMetadataBytes) / kSectorBytes;
  const auto count = static_cast<std::uint32_t>(random.between(1, 3));
  const bool is_shared = random.chance(0.5);
  for (std::uint32_t index = 0; index < count; ++index) {
    const std::uint64_t part = sectors / count / 8 * 8;
    options.initiators.push_back(
        draw_initiator(random, index, is_shared ? Sectors{0, sectors / 8 * 8} : Sectors{index * part, part}));
  }
  options.activity_log.updates = random.chance(0.9);
  if (random.chance(0.9)) {
    // So few and small that extents leave the log all the time.
    options.activity_log.extent_shift = static_cast<std::uint8_t>(random.between(15, 16));
    const bool is_tiny = random.chance(0.3) && options.disk.flush_latency_max < milliseconds(10);
    options.activity_log.extents = static_cast<std::uint32_t>(is_tiny ? random.between(1, 3) : random.between(5, 9));
  }
  // A disk that stalls for longer than peer_timeout would end the connection, and with it the verify.
  options.has_silent_difference = random.chance(0.25) && options.disk.stall_probability == 0;
  // A split voids one side's registrations, and its initiators cannot know.
  if (random.chance(0.5) && !options.has(Fault::split)) {
    for (InitiatorOptions& initiator : options.initiators)
      initiator.reservation_share = random.chance(0.5) ? 0.02 : 0.1;
  }
  if (options.has(Fault::split)) options.split_policies = draw_policies(seed);
  draw_growth(options, seed);
  Seeded more(mix64(seed) ^ 0x766f6c756d6573);
  // What a split and silent damage are compared with knows one volume.
  const bool may_spread = !is_lite && !options.has(Fault::split) && !options.has_silent_difference;
  if (may_spread && more.chance(0.35)) spread_over_volumes(options, static_cast<std::uint32_t>(more.between(2, 3)));
  draw_hung_disks(options, seed);
  options.has_undo = options.has(Fault::split) && Seeded(mix64(seed) ^ 0x756e646f).chance(0.7);
  draw_roles(options, seed);
  draw_full_disks(options, seed);
  draw_virtual_ip(options, seed);
  draw_datagrams(options, seed);
  draw_arbiter(options, seed);
  options.has_handlers = !is_lite && Seeded(mix64(seed) ^ 0x68616e646c65).chance(0.15);
  return options;
}

std::string RunOptions::describe() const {
  std::string text = fmt::format(
      "steps {} volumes {} of {} KiB block {} write_cache {} {} metadata discard {} zeroes {}{} alignment {} memory {} "
      "MiB",
      steps, volumes_count, volume_bytes >> 10, logical_block_bytes, has_write_cache ? "on" : "off",
      has_external_metadata ? "external" : "internal", supports_discard, supports_write_zeroes,
      disk.refuses_zeroing ? " but refused" : "", alignment_bytes, buffer_memory_mib);
  text += fmt::format(
      "; disk {}/{} us stall {} timeout {} ms stall timeout {} ms; net {} us timeout {} s; clocks {} {}; resync {} B/s "
      "checksum {}; step "
      "{} ms quiet {};",
      disk.latency_max.count() / 1000, disk.flush_latency_max.count() / 1000, disk.stall_probability,
      to_ms(disk.timeout), to_ms(disk_stall_timeout), network.latency_max.count() / 1000,
      to_ms(network.user_timeout) / 1000, clock_rate[0], clock_rate[1], rate_max_bytes_per_second,
      static_cast<int>(checksum), to_ms(step_max), quiet_probability);
  text += activity_log.updates
              ? fmt::format(" log {} of {} KiB;", activity_log.extents, (1u << activity_log.extent_shift) >> 10)
              : " no log;";
  text += fmt::format(" datagrams lost {} doubled {} late {} {} ms;", network.datagram_loss_probability,
                      network.datagram_double_probability, network.datagram_late_probability,
                      to_ms(network.datagram_late_max));
  if (has_virtual_ip) text += " virtual IP;";
  text += has_arbiter ? has_arbiter_faults ? " faulty arbiter;" : " arbiter;" : " no arbiter;";
  if (has_silent_difference) text += " silent difference;";
  if (has_handlers) text += " handlers;";
  if (has_undo) text += " undo;";
  if (growth_bytes > 0) text += fmt::format(" grows by {} KiB;", growth_bytes >> 10);
  for (std::size_t index = 0; index < kFaultCount; ++index) {
    if (weight[index] > 0) text += fmt::format(" {}={}", to_string(static_cast<Fault>(index)), weight[index]);
  }
  if (has(Fault::split)) {
    text +=
        fmt::format("; after_sb {}{} {} {}", to_string(split_policies.without_primary),
                    split_policies.discarded_node == blockdev::kNoNode ? "" : kNodeName[split_policies.discarded_node],
                    to_string(split_policies.with_one_primary), to_string(split_policies.with_two_primaries));
  }
  for (const InitiatorOptions& initiator : initiators) {
    text += fmt::format("; initiator {}+{} depth {} gap {} ms impatience {} late {} reservations {}",
                        initiator.region.first, initiator.region.count, initiator.queue_depth, to_ms(initiator.gap_max),
                        initiator.impatience_per_second, initiator.session.late_data_probability,
                        initiator.reservation_share);
  }
  return text;
}

}  // namespace replblk::sim
