#include "checkers.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "scsi/reservation_table.hpp"
#include "stamp.hpp"

namespace replblk::sim {

using node::LinkPhase;

namespace {

constexpr std::uint64_t kBlockBytes = 4096;

bool is_source(LinkPhase phase) {
  return phase == LinkPhase::source_preparing || phase == LinkPhase::source_syncing || phase == LinkPhase::adding;
}

}  // namespace

bool Checkers::is_established() {
  for (SimHost* host : hosts_) {
    const auto view = host->inspect();
    if (!view || view->phase != LinkPhase::established || !view->record->configuration.is_pair()) return false;
  }
  return true;
}

void Checkers::observe() {
  if (is_established()) has_lost_cache_ = {};
}

std::string Checkers::check_roles() {
  int serving = 0;
  for (SimHost* host : hosts_) {
    const auto view = host->inspect();
    if (!view) continue;
    const blockdev::ResourceRecord& record = *view->record;
    const bool is_whole = !record.is_inconsistent && !record.is_outdated && !record.generations.current.is_none();
    if (view->is_serving && !is_whole)
      return fmt::format("I8: {} serves a copy that is Inconsistent or Outdated", kNodeName[host->index()]);
    if (is_source(view->phase) && !is_whole) {
      return fmt::format("I8: {} is the source of a resync with a copy that is Inconsistent or Outdated",
                         kNodeName[host->index()]);
    }
    if (host->holds_mandate()) ++serving;
  }
  if (serving > 1 && !is_split_) return "I1: both nodes hold the mandate";
  return {};
}

std::string Checkers::check_answered(Sectors sectors) {
  if (is_split_) return {};
  for (SimHost* host : hosts_) {
    const auto view = host->inspect();
    if (!view || !host->holds_mandate()) continue;  // One that hangs may not know yet that it lost it.
    for (SimHost* copy : hosts_) {
      if (!view->record->configuration.has_member(copy->index()) || has_lost_cache_[copy->index()]) continue;
      for (std::uint64_t sector = sectors.first; sector < sectors.first + sectors.count; ++sector) {
        const std::string sentence = oracle_.check_copy(sector, copy->content(sector));
        if (!sentence.empty()) {
          return fmt::format("I2: an answered write is not in the copy of {}, a member of term {}: {}",
                             kNodeName[copy->index()], view->record->configuration.term, sentence);
        }
      }
    }
  }
  return {};
}

std::string Checkers::check_reservation_answered(const std::string& initiator_name, std::uint64_t isid,
                                                 const OwnReservation& own) {
  if (is_split_) return {};
  const scsi::NexusInfo port{initiator_name, isid};
  for (SimHost* host : hosts_) {
    const auto view = host->inspect();
    if (!view || !host->holds_mandate()) continue;  // One that hangs may not know yet that it lost it.
    for (SimHost* copy : hosts_) {
      if (!view->record->configuration.has_member(copy->index())) continue;
      const auto units = scsi::decode_reservations(copy->persisted(true).reservations);
      if (!units.has_value()) return fmt::format("{}'s table of reservations is malformed", kNodeName[copy->index()]);
      OwnReservation kept;
      for (const scsi::UnitReservation& unit : *units) {
        const auto state = unit.reservation.state();
        const auto found =
            std::ranges::find(state.registrations, port, &scsi::PersistentReservation::Registration::port);
        if (found == state.registrations.end()) continue;
        kept = {found->key, unit.reservation.is_holder(port)};
      }
      if (kept == own) continue;
      return fmt::format("I2: {} has {:#x}/{} of {} in its record, a member of term {}, where {:#x}/{} was answered",
                         kNodeName[copy->index()], kept.key, kept.is_holder, initiator_name,
                         view->record->configuration.term, own.key, own.is_holder);
    }
  }
  return {};
}

std::string Checkers::check_durable(const std::vector<std::uint64_t>& sectors) {
  if (is_split_ || are_differences_expected_) return {};
  for (SimHost* host : hosts_) {
    const auto view = host->inspect();
    if (!view || !host->holds_mandate()) continue;  // One that hangs may not know yet that it lost it.
    for (SimHost* copy : hosts_) {
      if (!view->record->configuration.has_member(copy->index()) || has_lost_cache_[copy->index()]) continue;
      for (const std::uint64_t sector : sectors) {
        const std::string sentence = oracle_.check_durable(sector, copy->stable(sector));
        if (!sentence.empty()) {
          return fmt::format(
              "P2: a flush was answered and a power cut now would undo what it covers in the copy of {}: {}",
              kNodeName[copy->index()], sentence);
        }
      }
    }
  }
  return {};
}

std::string Checkers::check_parted(blockdev::NodeIndex node, const std::vector<std::uint64_t>& sectors) {
  if (is_split_ || has_lost_cache_[node]) return {};
  for (const std::uint64_t sector : sectors) {
    const std::string sentence = oracle_.check_durable(sector, hosts_[node]->stable(sector));
    if (!sentence.empty()) {
      return fmt::format("P1: {} is the only member, and a power cut now would undo what both had answered: {}",
                         kNodeName[node], sentence);
    }
  }
  return {};
}

std::string Checkers::check_copies(bool& was_compared) {
  was_compared = false;
  if (is_split_) return {};
  const auto left = hosts_[0]->inspect();
  const auto right = hosts_[1]->inspect();
  if (!left || !right || !left->is_quiet || !right->is_quiet) return {};
  if (left->is_copy_failed || right->is_copy_failed) return {};  // What it holds counts for nothing.
  // Just created: nothing is known of either copy, and nothing serves.
  if (left->record->generations.current.is_none() && right->record->generations.current.is_none()) return {};
  if (left->record->generations.current.is_none() || right->record->generations.current.is_none()) {
    return {};  // The full sync that row 2 demands has not begun: its set is every block.
  }
  const bool is_pair = is_established();
  // One of them has not noticed yet that the other was away: what may be lost there joins its set when it does.
  const auto is_one_established = [](const auto& view) { return view->phase == LinkPhase::established; };
  if (is_one_established(left) != is_one_established(right)) return {};
  if (is_pair && (left->is_primary || right->is_primary) && left->record->reservations != right->record->reservations)
    return "I4: the tables of persistent reservations of two members differ, and none is on its way";
  was_compared = true;
  for (std::size_t volume = 0; volume < hosts_[0]->volumes_count(); ++volume) {
    const blockdev::DirtyBitmap* dirty[2] = {&left->stores()[volume]->dirty(), &right->stores()[volume]->dirty()};
    const std::byte* bytes[2] = {hosts_[0]->data(volume).content(), hosts_[1]->data(volume).content()};
    const std::uint64_t size =
        std::min(left->stores()[volume]->geometry().size_bytes, right->stores()[volume]->geometry().size_bytes);
    for (std::uint64_t at = 0; at < size; at += kBlockBytes) {
      const std::uint64_t count = std::min(kBlockBytes, size - at);
      if (std::memcmp(bytes[0] + at, bytes[1] + at, count) == 0) continue;
      if (is_pair)
        return fmt::format(
            "I4: block at {} of volume {} differs between the copies of two members, and nothing is in flight", at,
            volume);
      if (!dirty[0]->is_dirty(at, count) && !dirty[1]->is_dirty(at, count)) {
        return fmt::format(
            "I5: block at {} of volume {} differs between the copies and is in no resync set (phases {} and {})", at,
            volume, static_cast<int>(left->phase), static_cast<int>(right->phase));
      }
    }
  }
  return {};
}

std::string Checkers::check_remembered() {
  if (is_split_ || are_differences_expected_) return {};
  const blockdev::GenerationSet one = hosts_[0]->persisted(true).generations;
  const blockdev::GenerationSet two = hosts_[1]->persisted(true).generations;
  // Other generations than these are resynced whole, or not at all.
  const bool is_by_bits = one.current == two.current || one.base == two.current || two.base == one.current;
  if (!is_by_bits || one.current.is_none() || two.current.is_none()) return {};
  for (std::size_t volume = 0; volume < hosts_[0]->volumes_count(); ++volume) {
    // Opening what a later start would find is dear: only when something differs.
    std::array<std::optional<PersistedRecord>, 2> persisted;
    const auto is_remembered = [&](std::uint64_t at, std::uint64_t count) {
      for (std::size_t node = 0; node < 2; ++node) {
        if (!persisted[node]) persisted[node] = hosts_[node]->persisted_with_bits(true, volume);
        if (persisted[node]->dirty.is_dirty(at, count)) return true;
      }
      return false;
    };
    const Medium& left = hosts_[0]->data(volume);
    const Medium& right = hosts_[1]->data(volume);
    const std::uint64_t size = common_bytes(volume);
    for (std::uint64_t at = 0; at < size; at += kBlockBytes) {
      const std::uint64_t count = std::min(kBlockBytes, size - at);
      const auto is_same = [&](const std::byte* one_side, const std::byte* other_side) {
        return std::memcmp(one_side + at, other_side + at, count) == 0;
      };
      if (is_same(left.content(), right.content()) && is_same(left.content(), left.stable()) &&
          is_same(right.content(), right.stable()))
        continue;
      if (!is_remembered(at, count))
        return fmt::format("I5: block at {} of volume {} may differ after a crash, and neither device remembers it", at,
                           volume);
    }
  }
  return {};
}

/// While the volumes grow one copy may be larger.
std::uint64_t Checkers::common_bytes(std::size_t volume) const {
  return std::min(hosts_[0]->volume_bytes(volume), hosts_[1]->volume_bytes(volume));
}

std::string Checkers::check_verify() {
  // A range that a disk cannot read counts as different, and a write that one disk failed is.
  if (is_split_ || are_differences_expected_ || has_disk_errors_) return {};
  for (SimHost* host : hosts_) {
    const auto view = host->inspect();
    if (!view) continue;
    for (const replication::Verify* verify : view->verifies()) {
      const replication::DifferenceList& found = verify->report().differences;
      if (found.bytes() == 0) continue;
      return fmt::format("P5: a verify driven by {} found {} differing bytes in {} ranges, the first at {}",
                         kNodeName[host->index()], found.bytes(), found.ranges_count(),
                         found.listed().front().offset_bytes);
    }
  }
  return {};
}

std::string Checkers::check_records() {
  std::array<blockdev::ResourceRecord, 2> records;
  for (SimHost* host : hosts_) {
    // What is stable now can be what a start after a power cut finds.
    const blockdev::ResourceRecord record = host->persisted(true);
    const std::size_t index = host->index();
    if (record.configuration.term < term_[index] || record.seen < seen_[index]) {
      return fmt::format("I6: {}'s persisted term or seen went down: {}/{} after {}/{}", kNodeName[index],
                         record.configuration.term, record.seen, term_[index], seen_[index]);
    }
    term_[index] = record.configuration.term;
    seen_[index] = record.seen;
    records[index] = record;
  }
  for (const SimHost* host : hosts_) {
    const blockdev::ResourceRecord& mine = records[host->index()];
    const blockdev::ResourceRecord& theirs = records[blockdev::other_node(host->index())];
    if (mine.configuration.term == 0 || mine.configuration.is_sole(host->index())) continue;
    if (theirs.seen < mine.configuration.term) {
      return fmt::format(
          "I7: {} holds a configuration of term {} that it did not decide alone, and its peer has seen {} only",
          kNodeName[host->index()], mine.configuration.term, theirs.seen);
    }
  }
  return {};
}

std::string Checkers::check_identical() {
  for (std::size_t volume = 0; volume < hosts_[0]->volumes_count(); ++volume) {
    const std::byte* bytes[2] = {hosts_[0]->data(volume).content(), hosts_[1]->data(volume).content()};
    const std::uint64_t base = hosts_[0]->first_sector(volume);
    const std::uint64_t size = hosts_[0]->volume_bytes(volume);
    if (hosts_[1]->volume_bytes(volume) != size)
      return fmt::format("the copies of volume {} have {} and {} bytes at the end", volume, size,
                         hosts_[1]->volume_bytes(volume));
    for (std::uint64_t at = 0; at < size; at += kSectorBytes) {
      if (std::memcmp(bytes[0] + at, bytes[1] + at, kSectorBytes) == 0) continue;
      const std::uint64_t sector = base + at / kSectorBytes;
      return fmt::format("P5: the copies differ in sector {} at the end: a has {:#x}, b has {:#x}", sector,
                         read_stamp(bytes[0] + at, sector).value_or(UINT64_MAX),
                         read_stamp(bytes[1] + at, sector).value_or(UINT64_MAX));
    }
  }
  return {};
}

}  // namespace replblk::sim
