#include "sim_disk.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/crc32c.hpp"

namespace replblk::sim {

namespace {
constexpr Duration kHungLookEvery = milliseconds(20);
constexpr std::uint64_t kPageBytes = 4096;
}  // namespace

Medium::Medium(Timeline& timeline, std::string name, ports::Disk::Geometry geometry, std::uint64_t growth_bytes)
    : timeline_(timeline),
      name_(std::move(name)),
      geometry_(geometry),
      first_bytes_(geometry.size_bytes),
      capacity_bytes_(geometry.size_bytes + growth_bytes),
      content_(static_cast<std::byte*>(std::calloc(1, capacity_bytes_))),
      stable_(static_cast<std::byte*>(std::calloc(1, capacity_bytes_))),
      touched_((capacity_bytes_ + kPageBytes - 1) / kPageBytes),
      stable_order_(capacity_bytes_ / kSectorBytes, 0) {
  RB_ASSERT(content_ != nullptr && stable_ != nullptr);
}

std::unique_ptr<std::byte[]> Medium::copy(const std::byte* bytes, std::uint64_t length_bytes) {
  if (bytes == nullptr) return nullptr;
  auto result = std::make_unique_for_overwrite<std::byte[]>(length_bytes);
  std::memcpy(result.get(), bytes, length_bytes);
  return result;
}

void Medium::touch(std::uint64_t offset_bytes, std::uint64_t length_bytes) noexcept {
  for (std::uint64_t at = offset_bytes / kPageBytes; at * kPageBytes < offset_bytes + length_bytes; ++at)
    touched_[at] = true;
}

void Medium::preset(std::uint64_t offset_bytes, ConstBytes bytes) noexcept {
  touch(offset_bytes, bytes.size());
  for (std::byte* medium : {content_.get(), stable_.get()})
    std::memcpy(medium + offset_bytes, bytes.data(), bytes.size());
}

void Medium::preset(const Medium& from, std::uint64_t begin_bytes, bool is_stable_only) noexcept {
  RB_ASSERT(from.geometry_.size_bytes == geometry_.size_bytes);
  const std::byte* source = (is_stable_only ? from.stable_ : from.content_).get();
  for (std::uint64_t at = begin_bytes / kPageBytes * kPageBytes; at < geometry_.size_bytes; at += kPageBytes) {
    if (!from.touched_[at / kPageBytes] && !touched_[at / kPageBytes]) continue;
    preset(at, {source + at, std::min(kPageBytes, geometry_.size_bytes - at)});
  }
}

void Medium::put_stable(const Write& write, std::uint64_t sector) noexcept {
  // A later write of this sector may be stable already: it was durable by itself.
  if (stable_order_[sector] > write.order) return;
  stable_order_[sector] = write.order;
  const std::uint64_t at = sector * kSectorBytes;
  if (write.bytes == nullptr) {
    std::memset(stable_.get() + at, 0, kSectorBytes);
  } else {
    std::memcpy(stable_.get() + at, write.bytes.get() + (at - write.offset_bytes), kSectorBytes);
  }
}

void Medium::write(std::uint64_t offset_bytes, std::uint64_t length_bytes, const std::byte* bytes, bool is_durable) {
  RB_ASSERT(offset_bytes % kSectorBytes == 0 && length_bytes % kSectorBytes == 0);
  RB_ASSERT(offset_bytes + length_bytes <= geometry_.size_bytes);
  touch(offset_bytes, length_bytes);
  if (bytes == nullptr) {
    std::memset(content_.get() + offset_bytes, 0, length_bytes);
  } else {
    std::memcpy(content_.get() + offset_bytes, bytes, length_bytes);
  }
  Write entry{++order_, offset_bytes, length_bytes, copy(bytes, length_bytes)};
  if (!is_durable) {
    volatile_.push_back(std::move(entry));
    return;
  }
  for (std::uint64_t sector = offset_bytes / kSectorBytes; sector < (offset_bytes + length_bytes) / kSectorBytes;
       ++sector) {
    put_stable(entry, sector);
  }
}

void Medium::make_stable(std::uint64_t mark) noexcept {
  while (!volatile_.empty() && volatile_.front().order <= mark) {
    const Write& write = volatile_.front();
    for (std::uint64_t at = write.offset_bytes; at < write.offset_bytes + write.length_bytes; at += kSectorBytes) {
      put_stable(write, at / kSectorBytes);
    }
    volatile_.pop_front();
  }
}

void Medium::leave_behind(std::uint64_t offset_bytes, std::uint64_t length_bytes, const std::byte* bytes,
                          bool is_durable) {
  Seeded& random = timeline_.random();
  if (random.chance(0.3)) return;
  if (length_bytes > 4096 && random.chance(0.3)) length_bytes = random.between(1, length_bytes / 4096) * 4096;
  const std::uint64_t key = ++order_;
  landing_.emplace(key, Write{key, offset_bytes, length_bytes, copy(bytes, length_bytes)});
  const Instant when = timeline_.now() + random.duration(Duration(0), kLandingTimeMax);
  quiet_at_ = std::max(quiet_at_, when);
  timeline_.at(when, [this, key, is_durable] { land(key, is_durable); });
}

void Medium::land(std::uint64_t key, bool is_durable) {
  const auto found = landing_.find(key);
  if (found == landing_.end()) return;  // The power went first.
  if (is_hung_) return timeline_.after(kHungLookEvery, [this, key, is_durable] { land(key, is_durable); });
  write(found->second.offset_bytes, found->second.length_bytes, found->second.bytes.get(), is_durable);
  landing_.erase(found);
}

void Medium::cut_power() {
  Seeded& random = timeline_.random();
  for (auto& [key, write] : landing_) {
    write.order = ++order_;
    volatile_.push_back(std::move(write));
  }
  landing_.clear();
  const std::uint64_t kind = random.below(4);
  const double kept = kind == 0 ? 0.0 : kind == 1 ? 0.5 : kind == 2 ? 0.9 : 0.02;
  timeline_.note("disk {}: power cut, {} volatile writes, each sector kept with probability {}", name_,
                 volatile_.size(), kept);
  for (const Write& write : volatile_) {
    for (std::uint64_t at = write.offset_bytes; at < write.offset_bytes + write.length_bytes; at += kSectorBytes) {
      if (random.chance(kept)) put_stable(write, at / kSectorBytes);
    }
  }
  for (const Write& write : volatile_) {
    std::memcpy(content_.get() + write.offset_bytes, stable_.get() + write.offset_bytes, write.length_bytes);
  }
  volatile_.clear();
  quiet_at_ = timeline_.now();
}

bool Medium::touches_defect(std::uint64_t offset_bytes, std::uint64_t length_bytes) const noexcept {
  return offset_bytes < defect_.offset_bytes + defect_.length_bytes &&
         defect_.offset_bytes < offset_bytes + length_bytes;
}

bool Medium::holds(ports::DiskOpKind kind, std::uint64_t offset_bytes, std::uint64_t length_bytes) const noexcept {
  return is_hung_ ||
         (kind == ports::DiskOpKind::read && defect_.holds_reads && touches_defect(offset_bytes, length_bytes));
}

bool Medium::fails(ports::DiskOpKind kind, std::uint64_t offset_bytes, std::uint64_t length_bytes) const noexcept {
  if (kind == ports::DiskOpKind::flush) return defect_.fails_flushes;
  return touches_defect(offset_bytes, length_bytes) &&
         (kind == ports::DiskOpKind::read ? defect_.fails_reads : defect_.fails_changes);
}

void Medium::write_in_part(std::uint64_t offset_bytes, std::uint64_t length_bytes, const std::byte* bytes) {
  for (std::uint64_t at = 0; at < length_bytes; at += kSectorBytes) {
    if (timeline_.random().chance(0.5)) continue;
    write(offset_bytes + at, kSectorBytes, bytes == nullptr ? nullptr : bytes + at, false);
  }
}

void SimDisk::submit(ports::DiskOp& op) noexcept {
  using enum ports::DiskOpKind;
  RB_ASSERT(op.on_done);
  const Geometry& geometry = geometry_;
  const bool has_data = op.kind == read || op.kind == write;
  if (op.kind != flush) {
    RB_ASSERT(op.length_bytes > 0 && op.offset_bytes <= geometry.size_bytes);
    RB_ASSERT(op.length_bytes <= geometry.size_bytes - op.offset_bytes);
  }
  if (has_data) {
    RB_ASSERT(op.memory != nullptr && op.length_bytes <= BufferPool::kBufferBytesMax);
    RB_ASSERT(op.offset_bytes % geometry.alignment_bytes == 0 && op.length_bytes % geometry.alignment_bytes == 0);
    RB_ASSERT(reinterpret_cast<std::uintptr_t>(op.memory) % geometry.alignment_bytes == 0);
  } else if (op.kind != flush) {
    RB_ASSERT(op.offset_bytes % geometry.logical_block_bytes == 0 &&
              op.length_bytes % geometry.logical_block_bytes == 0);
  }
  linked_.push_back(op);
  if (given_up_count_ > 0) return refuse(op, ports::IoError::timed_out);
  if (op.kind == flush && is_durability_lost_) return refuse(op, ports::IoError::io);
  const std::uint64_t id = next_id_++;
  const std::uint32_t crc = op.kind == write ? crc32c({op.memory, op.length_bytes}) : 0;
  in_flight_.emplace(id, InFlight{&op, op.kind, op.is_durable, op.offset_bytes, op.length_bytes, op.memory, crc,
                                  medium_.written_mark()});
  Timeline& timeline = loop_.timeline();
  Seeded& random = timeline.random();
  timeline.mix(static_cast<std::uint64_t>(op.kind) << 56 ^ op.offset_bytes << 16 ^ op.length_bytes);
  Duration latency =
      random.duration(model_.latency_min, op.kind == flush ? model_.flush_latency_max : model_.latency_max);
  if (model_.stall_probability > 0 && random.chance(model_.stall_probability)) {
    latency += random.duration(Duration(0), model_.stall_max);
  }
  latency += random.duration(Duration(0), medium_.slowness());
  timeline.after(latency, [this, exists = exists_, id] {
    if (*exists) finish(id);
  });
  if (model_.timeout == Duration{}) return;
  timeline.after(model_.timeout, [this, exists = exists_, id] {
    if (!*exists || !in_flight_.contains(id)) return;
    loop_.post([this, exists, id] {
      if (*exists) give_up(id);
    });
  });
}

bool SimDisk::take_effect(const InFlight& entry, bool is_failed) {
  using enum ports::DiskOpKind;
  const Geometry& geometry = medium_.geometry();
  switch (entry.kind) {
    case read:
      if (is_failed) {
        std::memset(entry.memory, 0xee, entry.length_bytes);
      } else {
        std::memcpy(entry.memory, medium_.content() + entry.offset_bytes, entry.length_bytes);
      }
      return true;
    case flush:
      if (!is_failed) medium_.make_stable(entry.mark);
      return true;
    case write:
      // ports/disk.hpp: the memory is the device's until on_done, and longer when it was given up.
      RB_ASSERT(crc32c({entry.memory, entry.length_bytes}) == entry.crc);
      break;
    case discard:
      if (!geometry.supports_discard || model_.refuses_zeroing) return false;
      break;
    case write_zeroes:
      if (!geometry.supports_write_zeroes || model_.refuses_zeroing) return false;
      break;
  }
  const std::byte* bytes = entry.kind == write ? entry.memory : nullptr;
  if (is_failed) {
    medium_.write_in_part(entry.offset_bytes, entry.length_bytes, bytes);
  } else {
    medium_.write(entry.offset_bytes, entry.length_bytes, bytes, entry.is_durable && entry.kind != discard);
  }
  return true;
}

void SimDisk::finish(std::uint64_t id) {
  using enum ports::DiskOpKind;
  const auto found = in_flight_.find(id);
  if (found == in_flight_.end()) return;
  if (medium_.holds(found->second.kind, found->second.offset_bytes, found->second.length_bytes)) {
    loop_.timeline().after(kHungLookEvery, [this, exists = exists_, id] {
      if (*exists) finish(id);
    });
    return;
  }
  InFlight& entry = found->second;
  const bool is_failed = medium_.fails(entry.kind, entry.offset_bytes, entry.length_bytes);
  const bool is_supported = take_effect(entry, is_failed);
  const bool is_error = is_failed && !medium_.is_full();
  if (is_error && (entry.kind == ports::DiskOpKind::flush || entry.is_durable)) is_durability_lost_ = true;
  if (entry.op == nullptr) {
    --given_up_count_;
    in_flight_.erase(found);
    return;
  }
  entry.is_done = true;
  // The content changed now; the process hears of it in its next turn, and may be dead by then.
  loop_.post([this, exists = exists_, id, is_supported, is_failed, is_full = medium_.is_full()] {
    if (!*exists) return;
    const auto done = in_flight_.find(id);
    if (done == in_flight_.end()) return;
    ports::DiskOp& finished = *done->second.op;
    in_flight_.erase(done);
    finished.unlink();
    Result<void, ports::IoError> result;
    if (is_failed)
      result = fail(is_full && finished.kind != flush && finished.kind != read ? ports::IoError::no_space
                                                                               : ports::IoError::io);
    if (!is_supported) result = fail(ports::IoError::not_supported);
    finished.on_done(finished, result);
  });
}

/// The process looks at its clock: what the device has done meanwhile counts all the same.
void SimDisk::give_up(std::uint64_t id) {
  const auto found = in_flight_.find(id);
  if (found == in_flight_.end() || found->second.is_done) return;
  ports::DiskOp& op = *std::exchange(found->second.op, nullptr);
  ++given_up_count_;
  op.unlink();
  op.on_done(op, fail(ports::IoError::timed_out));
}

/// Told in the same turn, as the daemon's disks do it.
void SimDisk::refuse(ports::DiskOp& op, ports::IoError error) {
  refused_.emplace_back(&op, error);
  loop_.defer(refused_task_);
}

void SimDisk::report_refused() {
  // Of those that are refused meanwhile, in the next round.
  for (std::size_t count = refused_.size(); count > 0; --count) {
    const auto [op, error] = refused_.front();
    refused_.pop_front();
    op->unlink();
    op->on_done(*op, fail(error));
  }
}

void SimDisk::leave(bool is_power_cut) {
  using enum ports::DiskOpKind;
  *exists_ = false;
  refused_task_.unlink();
  for (const auto& [op, error] : refused_) op->unlink();
  refused_.clear();
  for (auto& [id, entry] : in_flight_) {
    if (entry.op != nullptr) entry.op->unlink();
    const bool is_change = entry.kind == write || entry.kind == discard || entry.kind == write_zeroes;
    if (!is_change || entry.is_done) continue;
    if (entry.kind == discard && (!medium_.geometry().supports_discard || model_.refuses_zeroing)) continue;
    if (entry.kind == write_zeroes && (!medium_.geometry().supports_write_zeroes || model_.refuses_zeroing)) continue;
    const std::byte* bytes = entry.kind == write ? entry.memory : nullptr;
    if (is_power_cut) {
      medium_.write(entry.offset_bytes, entry.length_bytes, bytes, false);  // Volatile: the cut decides by sector.
    } else {
      medium_.leave_behind(entry.offset_bytes, entry.length_bytes, bytes, entry.is_durable);
    }
  }
  in_flight_.clear();
}

}  // namespace replblk::sim
