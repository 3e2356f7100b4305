#include "sim_initiator.hpp"

#include <algorithm>

#include "stamp.hpp"

namespace replblk::sim {

namespace {

constexpr Duration kTick = milliseconds(500);
constexpr Duration kPingAfter = seconds(2);
constexpr std::size_t kGhostsMax = 3;
constexpr std::uint32_t kNotReadyMax = 5;
constexpr std::uint32_t kSweepSectors = 2048;

constexpr std::uint8_t kGood = 0x00;
constexpr std::uint8_t kCheckCondition = 0x02;
constexpr std::uint8_t kBusy = 0x08;
constexpr std::uint8_t kReservationConflict = 0x18;
constexpr std::uint8_t kTaskSetFull = 0x28;
constexpr std::uint8_t kNotReady = 0x2;
constexpr std::uint8_t kMediumError = 0x3;
constexpr std::uint8_t kDataProtect = 0x7;
constexpr std::uint8_t kWriteProtected = 0x27;     ///< ASC; with qualifier 07h: space allocation failed
constexpr std::uint8_t kParametersChanged = 0x2a;  ///< ASC
constexpr std::uint8_t kUnitAttention = 0x6;
constexpr std::uint8_t kMiscompare = 0xe;

// SPC-4 6.16.2; WRITE EXCLUSIVE - REGISTRANTS ONLY lets the other initiators read, and write as long as they register.
enum class ReserveAction : std::uint8_t { register_key = 0, reserve, release, register_and_ignore = 6 };
constexpr std::uint8_t kReservationType = 5;
constexpr std::uint32_t kFullStatusBytes = 8192;

}  // namespace

SimInitiator::SimInitiator(SimFabric& fabric, std::string host, Oracle& oracle, InitiatorOptions options, Hooks hooks)
    : fabric_(fabric),
      loop_(fabric.timeline(), host),
      network_(fabric, loop_, host),
      random_(fabric.timeline().random()),
      oracle_(oracle),
      options_(std::move(options)),
      hooks_(std::move(hooks)) {
  retry_timer_.expired = Callback<void()>::with(this, [](void* self) {
    auto& initiator = *static_cast<SimInitiator*>(self);
    if (initiator.is_retrying_ready_ && initiator.session_ && initiator.session_->is_logged_in()) {
      initiator.send_ready();
    } else if (!initiator.session_) {
      initiator.connect();
    }
  });
  tick_timer_.expired = Callback<void()>::to<&SimInitiator::on_tick>(*this);
  gap_timer_.expired = Callback<void()>::with(this, [](void* self) {
    auto& initiator = *static_cast<SimInitiator*>(self);
    initiator.slots_waiting_ = 0;
    initiator.pump();
  });
}

SimInitiator::~SimInitiator() {
  loop_.kill();
  network_.leave(false);
  loop_.cancel(retry_timer_);
  loop_.cancel(tick_timer_);
  loop_.cancel(gap_timer_);
  session_.reset();
  ghosts_.clear();
}

void SimInitiator::start() {
  loop_.post([this] {
    loop_.arm(tick_timer_, loop_.now() + kTick);
    connect();
  });
}

void SimInitiator::set_load(bool is_on) {
  is_load_on_ = is_on;
  if (is_on) loop_.post([this] { pump(); });
}

void SimInitiator::read_everything(std::function<void()> done) {
  sweep_done_ = std::move(done);
  sweep_next_ = options_.region.first;
  loop_.post([this] { pump(); });
}

// ---- Connections ----

void SimInitiator::connect() {
  RB_ASSERT(!session_);
  std::erase_if(ghosts_, [](const auto& ghost) { return ghost->has_ended(); });
  session_ = std::make_unique<IscsiSession>(loop_, network_, random_, options_.session, *this);
  session_->start(options_.portals[portal_]);
}

void SimInitiator::retry_later(Duration delay) {
  if (!retry_timer_.is_armed()) loop_.arm(retry_timer_, loop_.now() + delay);
}

void SimInitiator::drop(const Pending& pending) {
  switch (pending.kind) {
    case Kind::read:
      oracle_.drop_read(pending.oracle_op);
      break;
    case Kind::compare_and_write:
      oracle_.drop_read(pending.oracle_read);
      [[fallthrough]];
    case Kind::write:
      oracle_.lose_write(pending.oracle_op);
      lost_.push_back(pending.oracle_op);
      ++counters_.writes_lost;
      break;
    case Kind::reserve:
      reservation_.lost();
      [[fallthrough]];
    case Kind::reservation_status:
      is_reservation_out_ = false;
      break;
    case Kind::ready:
    case Kind::capacity:
    case Kind::flush:
      break;
  }
}

void SimInitiator::forget_pending() {
  is_ready_ = false;
  is_retrying_ready_ = false;
  loop_.cancel(retry_timer_);
  for (const auto& [cookie, pending] : pending_) drop(pending);
  pending_.clear();
  is_capacity_out_ = false;
  if (sweep_done_) sweep_next_ = options_.region.first;
}

/// Leaves the connection as a ghost and logs in anew: what an initiator's error recovery looks like to the target.
void SimInitiator::give_up(const std::string& why) {
  if (!session_) return;
  fabric_.timeline().note("{}: gives its connection up: {}", name(), why);
  session_->abandon();
  if (ghosts_.size() >= kGhostsMax) ghosts_.erase(ghosts_.begin());
  ghosts_.push_back(std::move(session_));
  ++counters_.ghosts;
  forget_pending();
  retry_later(random_.duration(microseconds(100), milliseconds(200)));
}

void SimInitiator::on_ended(IscsiSession& session, const std::string& sentence) {
  if (&session != session_.get()) return;
  fabric_.timeline().note("{}: connection to {} ended: {}", name(), ports::to_string(options_.portals[portal_]),
                          sentence);
  const std::string redirected = session.redirect_address();
  session_->abandon();
  ghosts_.push_back(std::move(session_));  // Destroyed later: this is its own callback.
  const std::size_t left = std::exchange(portal_, (portal_ + 1) % options_.portals.size());
  forget_pending();
  if (redirected.empty()) {
    retry_later(random_.duration(milliseconds(10), milliseconds(500)));
    return;
  }
  ++counters_.redirects;
  const auto at =
      std::ranges::find(options_.portals, redirected, [](const auto& one) { return ports::to_string(one); });
  if (at == options_.portals.end() || at == options_.portals.begin() + static_cast<std::ptrdiff_t>(left)) {
    hooks_.on_violation(
        fmt::format("{}: a login at {} is sent to {}", name(), ports::to_string(options_.portals[left]), redirected));
    return;
  }
  portal_ = static_cast<std::size_t>(at - options_.portals.begin());
  retry_later(milliseconds(1));
}

void SimInitiator::on_violation(const std::string& sentence) { hooks_.on_violation(sentence); }

void SimInitiator::on_logged_in(IscsiSession& session) {
  if (&session != session_.get()) return;
  ++counters_.logins;
  not_ready_count_ = 0;
  fabric_.timeline().note("{}: logged in at {}", name(), ports::to_string(options_.portals[portal_]));
  send_ready();
}

void SimInitiator::send_ready() {
  is_retrying_ready_ = false;
  submit({}, {});
}

/// The new session works: nothing of the old ones may take effect from here on (protocol.md 4).
void SimInitiator::on_ready() {
  for (const Oracle::OpId op : lost_) oracle_.close_lost(op);
  lost_.clear();
  ask_capacity();
  // Not when this is because of a capacity that was asked for again while commands were in flight.
  if (options_.reservation_share > 0 && !is_reservation_out_) issue_reservation_status(false);
}

void SimInitiator::ask_capacity() {
  is_capacity_out_ = true;
  Pending pending;
  pending.kind = Kind::capacity;
  ScsiCommand command;
  command.cdb[0] = 0x9e;  // READ CAPACITY(16)
  command.cdb[1] = 0x10;
  command.cdb[13] = 32;
  command.data_in_length_bytes = 32;
  submit(pending, std::move(command));
}

void SimInitiator::on_tick() {
  loop_.arm(tick_timer_, loop_.now() + kTick);
  if (!session_) return;
  const Instant now = loop_.now();
  if (!session_->is_logged_in()) {
    if (now - session_->last_heard() > seconds(6)) session_->abort_connection("no answer to the login");
    return;
  }
  const Instant oldest = session_->oldest_sent();
  if (oldest != Instant::max() && now - oldest > options_.command_timeout) {
    portal_ = (portal_ + 1) % options_.portals.size();
    give_up("a command got no answer");
    return;
  }
  if (now - session_->last_heard() > kPingAfter) session_->ping();
  if (now - session_->last_heard() > options_.command_timeout) {
    session_->abort_connection("no sign of life");
    return;
  }
  if (options_.impatience_per_second > 0 && random_.chance(options_.impatience_per_second * 0.5))
    give_up("out of impatience");
}

// ---- Commands ----

void SimInitiator::submit(Pending pending, ScsiCommand command) {
  command.cookie = next_cookie_;
  pending.is_registered = reservation_.is_settled() && reservation_.own().key != 0;
  pending.reservation_changes_count = reservation_.changes_count();
  pending_.emplace(next_cookie_++, std::move(pending));
  session_->submit(options_.lun, std::move(command));
}

void SimInitiator::pump() {
  if (!is_ready_) return;
  if (sweep_done_) {
    issue_sweep();
    return;
  }
  if (!is_load_on_) return;
  while (is_ready_ && pending_.size() + slots_waiting_ < options_.queue_depth && session_->has_window()) issue();
}

Sectors SimInitiator::draw_sectors() {
  if (has_grown() && random_.chance(0.3)) {
    const std::uint64_t first = options_.base_sector + options_.grown_from;
    const std::uint64_t count = random_.between(1, 2) * 8;
    return {first + random_.below((capacity_sectors_ - options_.grown_from - count) / 8 + 1) * 8, count};
  }
  const std::uint64_t blocks = options_.region.count / block_sectors_;
  std::uint64_t count = random_.chance(0.05) ? random_.between(1, options_.large_sectors_max / block_sectors_)
                                             : random_.between(1, 16 / block_sectors_);
  if (random_.chance(0.3)) count = 8 / block_sectors_;
  count = std::min(count, blocks);
  // A small hot range makes overlaps, and rewrites of what is being resynced.
  const std::uint64_t span =
      random_.chance(0.6) ? std::min<std::uint64_t>(blocks - count, 64 / block_sectors_ + 1) : blocks - count;
  return {options_.region.first + random_.below(span + 1) * block_sectors_, count * block_sectors_};
}

void SimInitiator::issue() {
  const Sectors sectors = draw_sectors();
  if (options_.reservation_share > 0 && !is_reservation_out_ && random_.chance(options_.reservation_share)) {
    issue_reservation();
  } else if (random_.chance(options_.flush_share)) {
    issue_flush();
  } else if (random_.chance(options_.read_share)) {
    issue_read(sectors, false);
  } else if (random_.chance(options_.exotic_share)) {
    switch (random_.below(3)) {
      case 0:
        issue_write(sectors, true, false);
        break;
      case 1:
        if (can_unmap_) {
          // Whole 4 KiB blocks: the granularity that a device may round to.
          const std::uint64_t first = sectors.first / 8 * 8;
          if (first >= options_.region.first && first + 8 <= options_.region.first + options_.region.count)
            issue_write({first, 8}, true, true);
        }
        break;
      default:
        issue_compare_and_write();
        break;
    }
  } else {
    issue_write(sectors, false, false);
  }
  // Most slots pause after a command, so that there are moments with little and with much in flight.
  if (random_.chance(0.7)) {
    ++slots_waiting_;
    if (!gap_timer_.is_armed()) loop_.arm(gap_timer_, loop_.now() + random_.duration(Duration(0), options_.gap_max));
  }
}

void SimInitiator::issue_read(Sectors sectors, bool is_sweep) {
  Pending pending;
  pending.kind = Kind::read;
  pending.sectors = sectors;
  pending.is_sweep = is_sweep;
  pending.oracle_op = oracle_.begin_read(sectors);
  ScsiCommand command;
  command.cdb[0] = 0x88;  // READ(16)
  bench::store_u64(&command.cdb[2], lba_of(sectors.first));
  bench::store_u32(&command.cdb[10], static_cast<std::uint32_t>(sectors.count / block_sectors_));
  command.data_in_length_bytes = static_cast<std::uint32_t>(sectors.count * kSectorBytes);
  submit(pending, std::move(command));
}

void SimInitiator::issue_write(Sectors sectors, bool is_zero, bool is_unmap) {
  const bool is_fua = !is_zero && random_.chance(options_.fua_share);
  const std::uint64_t value = is_zero ? 0 : hooks_.next_value();
  Pending pending;
  pending.kind = Kind::write;
  pending.sectors = sectors;
  pending.oracle_op = oracle_.begin_write(sectors, value, is_fua);
  pending.is_fua = is_fua;
  ScsiCommand command;
  const std::uint64_t lba = lba_of(sectors.first);
  const auto blocks = static_cast<std::uint32_t>(sectors.count / block_sectors_);
  if (is_unmap) {
    command.cdb[0] = 0x42;  // UNMAP, one descriptor
    command.cdb[8] = 24;
    command.data_out.resize(24);
    command.data_out[1] = std::byte{22};
    command.data_out[3] = std::byte{16};
    store_be<std::uint64_t>(command.data_out.data() + 8, lba);
    store_be<std::uint32_t>(command.data_out.data() + 16, blocks);
  } else {
    command.cdb[0] = is_zero ? 0x93 : 0x8a;  // WRITE SAME(16), WRITE(16)
    if (is_fua) command.cdb[1] = 0x08;
    bench::store_u64(&command.cdb[2], lba);
    bench::store_u32(&command.cdb[10], blocks);
    command.data_out.resize((is_zero ? block_sectors_ : sectors.count) * kSectorBytes);
    if (!is_zero) {
      for (std::uint64_t index = 0; index < sectors.count; ++index) {
        write_stamp(command.data_out.data() + index * kSectorBytes, value, sectors.first + index);
      }
    }
  }
  submit(pending, std::move(command));
}

void SimInitiator::issue_compare_and_write() {
  if (last_block_.empty()) return;
  const Sectors sectors{last_block_sector_, block_sectors_};
  const std::uint64_t value = hooks_.next_value();
  Pending pending;
  pending.kind = Kind::compare_and_write;
  pending.sectors = sectors;
  pending.compare = last_block_;
  pending.oracle_read = oracle_.begin_read(sectors);
  pending.oracle_op = oracle_.begin_write(sectors, value, false);
  ScsiCommand command;
  command.cdb[0] = 0x89;  // COMPARE AND WRITE, one block
  bench::store_u64(&command.cdb[2], lba_of(sectors.first));
  command.cdb[13] = 1;
  command.data_out = last_block_;
  command.data_out.resize(2 * last_block_.size());
  for (std::uint64_t index = 0; index < sectors.count; ++index) {
    write_stamp(command.data_out.data() + last_block_.size() + index * kSectorBytes, value, sectors.first + index);
  }
  last_block_.clear();
  submit(pending, std::move(command));
}

void SimInitiator::issue_flush() {
  Pending pending;
  pending.kind = Kind::flush;
  pending.oracle_op = oracle_.begin_flush();
  ScsiCommand command;
  command.cdb[0] = 0x91;  // SYNCHRONIZE CACHE(16), whole medium
  submit(pending, std::move(command));
}

void SimInitiator::issue_sweep() {
  std::uint64_t end = options_.region.first + options_.region.count;
  if (has_grown()) {
    const std::uint64_t grown_first = options_.base_sector + options_.grown_from;
    if (sweep_next_ < end) {
      end = std::min(end, grown_first);
    } else {
      sweep_next_ = std::max(sweep_next_, grown_first);
      end = options_.base_sector + capacity_sectors_;
    }
  }
  if (sweep_next_ >= end) {
    if (!pending_.empty()) return;
    if (sweep_next_ == end && options_.reservation_share > 0) {
      ++sweep_next_;
      issue_reservation_status(true);
      return;
    }
    std::exchange(sweep_done_, nullptr)();
    return;
  }
  if (!pending_.empty() || !session_->has_window()) return;
  const Sectors sectors{sweep_next_, std::min<std::uint64_t>(kSweepSectors, end - sweep_next_)};
  sweep_next_ += sectors.count;
  issue_read(sectors, true);
}

void SimInitiator::issue_reservation() {
  if (!reservation_.is_settled() || random_.chance(0.4)) {
    issue_reservation_status(false);
    return;
  }
  const OwnReservation own = reservation_.own();
  OwnReservation wanted = own;
  ReserveAction action = random_.chance(0.5) ? ReserveAction::register_key : ReserveAction::register_and_ignore;
  if (own.key != 0 && random_.chance(0.1)) {
    wanted = {};
  } else if (own.key != 0 && random_.chance(0.6)) {
    action = own.is_holder ? ReserveAction::release : ReserveAction::reserve;
    wanted.is_holder = !own.is_holder;
  } else {
    wanted.key = next_key_++;
  }
  reservation_.begin(wanted);
  is_reservation_out_ = true;
  Pending pending;
  pending.kind = Kind::reserve;
  ScsiCommand command;
  command.cdb[0] = 0x5f;
  command.cdb[1] = static_cast<std::uint8_t>(action);
  command.cdb[2] = kReservationType;
  command.cdb[8] = 24;
  command.data_out.resize(24);
  store_be<std::uint64_t>(command.data_out.data(), own.key);
  store_be<std::uint64_t>(command.data_out.data() + 8, wanted.key);
  submit(pending, std::move(command));
}

void SimInitiator::issue_reservation_status(bool is_sweep) {
  is_reservation_out_ = true;
  Pending pending;
  pending.kind = Kind::reservation_status;
  pending.is_sweep = is_sweep;
  ScsiCommand command;
  command.cdb[0] = 0x5e;
  command.cdb[1] = 0x03;  // READ FULL STATUS
  command.cdb[7] = kFullStatusBytes >> 8;
  command.data_in_length_bytes = kFullStatusBytes;
  command.may_be_short = true;
  submit(pending, std::move(command));
}

/// RESERVATION CONFLICT is no failure: another initiator holds it, and this one cannot be sure that it is registered.
bool SimInitiator::may_conflict(const Pending& pending) const {
  switch (pending.kind) {
    case Kind::write:
    case Kind::flush:
    case Kind::compare_and_write:
      return options_.reservation_share > 0 &&
             !(pending.is_registered && pending.reservation_changes_count == reservation_.changes_count());
    case Kind::reserve:
      return reservation_.wants_to_hold();
    case Kind::ready:
    case Kind::capacity:
    case Kind::read:
    case Kind::reservation_status:
      return false;
  }
  RB_UNREACHABLE();
}

void SimInitiator::on_reply(IscsiSession& session, std::uint64_t cookie, const ScsiReply& reply) {
  if (&session != session_.get()) return;
  const auto found = pending_.find(cookie);
  RB_ASSERT(found != pending_.end());
  const Pending pending = std::move(found->second);
  pending_.erase(found);
  complete(pending, reply);
  if (session_) pump();
}

void SimInitiator::complete(const Pending& pending, const ScsiReply& reply) {
  const bool is_transient =
      reply.status == kBusy || reply.status == kTaskSetFull ||
      (reply.status == kCheckCondition && (reply.sense_key == kUnitAttention || reply.sense_key == kNotReady));
  if (pending.kind == Kind::ready) {
    if (reply.status == kGood) {
      on_ready();
    } else if (++not_ready_count_ > kNotReadyMax) {
      session_->abort_connection("never ready");
    } else {
      is_retrying_ready_ = true;
      retry_later(random_.duration(microseconds(100), milliseconds(300)));
    }
    return;
  }
  if (pending.kind == Kind::reserve || pending.kind == Kind::reservation_status) is_reservation_out_ = false;
  if (reply.status != kGood) {
    const bool is_conflict = reply.status == kReservationConflict && may_conflict(pending);
    const bool is_miscompare =
        pending.kind == Kind::compare_and_write && reply.status == kCheckCondition && reply.sense_key == kMiscompare;
    const bool is_disk_error =
        reply.status == kCheckCondition && reply.sense_key == kMediumError && hooks_.may_fail && hooks_.may_fail();
    const bool is_full = reply.status == kCheckCondition && reply.sense_key == kDataProtect &&
                         reply.sense_code == kWriteProtected && hooks_.may_be_full && hooks_.may_be_full();
    if (is_disk_error || is_full) ++counters_.disk_errors;
    if (!is_transient && !is_miscompare && !is_conflict && !is_disk_error && !is_full) {
      hooks_.on_violation(
          fmt::format("{}: command kind {} at sector {}+{} failed with status {:#x}, sense {:#x}/{:#04x}", name(),
                      static_cast<int>(pending.kind), pending.sectors.first, pending.sectors.count, reply.status,
                      reply.sense_key, reply.sense_code));
    }
    const bool is_told = reply.sense_key == kUnitAttention && reply.sense_code == kParametersChanged;
    if (options_.grown_from != 0 && is_told && !is_capacity_out_) ask_capacity();
    if (pending.kind == Kind::capacity) {
      // Another initiator's change of reservations came between: from the beginning.
      is_retrying_ready_ = true;
      retry_later(random_.duration(microseconds(100), milliseconds(300)));
      return;
    }
    if (pending.kind == Kind::reserve) reservation_.refused();
    if (pending.kind == Kind::read) oracle_.drop_read(pending.oracle_op);
    if (pending.kind == Kind::compare_and_write) oracle_.drop_read(pending.oracle_read);
    if (pending.kind == Kind::write || pending.kind == Kind::compare_and_write) {
      oracle_.refuse_write(pending.oracle_op);
    }
    if (pending.is_sweep) sweep_next_ = options_.region.first;
    return;
  }
  // What says nothing of data needs no mandate: capacity and reservations are answered from the unit's own state.
  const bool is_about_data =
      pending.kind != Kind::capacity && pending.kind != Kind::reserve && pending.kind != Kind::reservation_status;
  if (is_about_data) hooks_.on_data_answered(options_.portals[portal_].address);
  switch (pending.kind) {
    case Kind::capacity: {
      const std::uint32_t block_bytes = load_be<std::uint32_t>(reply.data_in.data() + 8);
      block_sectors_ = block_bytes / kSectorBytes;
      // SBC-3 5.16: LBPME and LBPRZ, unmapped blocks read as zeroes.
      can_unmap_ = (std::to_integer<unsigned>(reply.data_in[14]) & 0xc0) == 0xc0;
      is_ready_ = true;
      is_capacity_out_ = false;
      const std::uint64_t sectors = (load_be<std::uint64_t>(reply.data_in.data()) + 1) * block_sectors_;
      if (sectors + options_.base_sector < options_.region.first + options_.region.count)
        hooks_.on_violation(fmt::format("{}: capacity shrank to {} sectors", name(), sectors));
      if (sectors < capacity_sectors_)
        hooks_.on_violation(
            fmt::format("{}: capacity shrank to {} sectors from {}", name(), sectors, capacity_sectors_));
      capacity_sectors_ = sectors;
      break;
    }
    case Kind::read: {
      ++counters_.reads;
      const std::string sentence = oracle_.end_read(pending.oracle_op, reply.data_in);
      if (!sentence.empty())
        hooks_.on_violation(
            fmt::format("{}: I3: read {}+{}: {}", name(), pending.sectors.first, pending.sectors.count, sentence));
      if (random_.chance(0.2)) {
        last_block_.assign(reply.data_in.begin(), reply.data_in.begin() + block_sectors_ * kSectorBytes);
        last_block_sector_ = pending.sectors.first;
      }
      break;
    }
    case Kind::compare_and_write: {
      const std::string sentence = oracle_.end_read(pending.oracle_read, pending.compare);
      if (!sentence.empty())
        hooks_.on_violation(fmt::format("{}: I3: COMPARE AND WRITE matched what is not there: {}", name(), sentence));
      [[fallthrough]];
    }
    case Kind::write:
      ++counters_.writes_answered;
      oracle_.end_write(pending.oracle_op);
      hooks_.on_write_answered(options_.lun, pending.sectors, pending.is_fua);
      break;
    case Kind::flush:
      ++counters_.flushes;
      hooks_.on_flush_answered(oracle_.end_flush(pending.oracle_op, {options_.base_sector, options_.volume_sectors}));
      break;
    case Kind::reserve:
      ++counters_.reservations;
      reservation_.answered();
      hooks_.on_reservation_answered(name(), options_.session.isid, reservation_.own());
      break;
    case Kind::reservation_status: {
      const std::string sentence = reservation_.found(find_own(reply.data_in, name(), options_.session.isid));
      if (!sentence.empty()) hooks_.on_violation(fmt::format("{}: P3: reservations: {}", name(), sentence));
      break;
    }
    case Kind::ready:
      break;
  }
}

}  // namespace replblk::sim
