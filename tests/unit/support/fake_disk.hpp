// A ports::Disk in memory for unit tests, with a volatile cache and power cuts. Operations wait until run() or
// complete_next(); their effect happens then, so a test decides the order. Not a simulator of time.
//
// Fault model: a write lands in the cache when it completes. A flush makes durable all that was in the cache when it
// was submitted; is_durable writes are durable at completion. power_cut() keeps, drops or tears each write that is not
// durable, and each write that was submitted and not completed, at 512-byte boundaries, independently and by the seed;
// operations in flight are never completed. What is durable never changes. `fault` makes an operation fail without
// effect.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <optional>
#include <random>
#include <vector>

#include "ports/disk.hpp"

namespace replblk::test {

class FakeDisk final : public ports::Disk {
 public:
  /// A disk with this content, all durable.
  FakeDisk(Geometry geometry, std::vector<std::byte> image)
      : geometry_(geometry), durable_(image), cached_(std::move(image)) {
    RB_ASSERT(durable_.size() == geometry.size_bytes);
  }
  explicit FakeDisk(Geometry geometry) : FakeDisk(geometry, std::vector<std::byte>(geometry.size_bytes)) {}
  /// A disk of any size that nobody reads or writes beyond its first `content_bytes`.
  [[nodiscard]] static FakeDisk hollow(Geometry geometry, std::uint64_t content_bytes) {
    const std::uint64_t size_bytes = geometry.size_bytes;
    geometry.size_bytes = content_bytes;
    return FakeDisk(geometry, size_bytes);
  }
  ~FakeDisk() override { forget_queued(); }

  [[nodiscard]] const Geometry& geometry() const noexcept override { return geometry_; }
  [[nodiscard]] std::size_t unreturned_count() const noexcept override { return unreturned; }
  void submit(ports::DiskOp& op) noexcept override {
    if (op.kind == ports::DiskOpKind::read || op.kind == ports::DiskOpKind::write) {
      const auto address = reinterpret_cast<std::uintptr_t>(op.memory);
      RB_ASSERT(op.offset_bytes % geometry_.alignment_bytes == 0 && op.length_bytes % geometry_.alignment_bytes == 0 &&
                address % geometry_.alignment_bytes == 0);
    }
    if (op.kind == ports::DiskOpKind::discard || op.kind == ports::DiskOpKind::write_zeroes) {
      RB_ASSERT(op.offset_bytes % geometry_.logical_block_bytes == 0 &&
                op.length_bytes % geometry_.logical_block_bytes == 0);
    }
    RB_ASSERT(op.kind == ports::DiskOpKind::flush || (op.length_bytes > 0 && op.length_bytes <= geometry_.size_bytes &&
                                                      op.offset_bytes <= geometry_.size_bytes - op.length_bytes));
    queue_.push_back({&op, unsynced_count_});
    ++submitted_count;
  }

  /// Completes what is queued, and what that brings, in order.
  void run() {
    while (complete_next()) {
    }
  }
  /// The oldest; false when nothing is queued.
  bool complete_next() { return complete(0); }
  bool complete(std::size_t index) {
    if (index >= queue_.size()) return false;
    const Queued queued = queue_[index];
    queue_.erase(queue_.begin() + static_cast<std::ptrdiff_t>(index));
    ++completed_count;
    log.push_back({queued.op->kind, queued.op->offset_bytes, queued.op->length_bytes, queued.op->is_durable});
    const Result<void, ports::IoError> result = apply(queued);
    queued.op->on_done(*queued.op, result);
    return true;
  }
  [[nodiscard]] std::size_t queued_count() const { return queue_.size(); }
  [[nodiscard]] const ports::DiskOp& queued(std::size_t index) const { return *queue_[index].op; }

  /// Decides for each operation, when it would take effect, whether it fails instead.
  std::function<std::optional<ports::IoError>(const ports::DiskOp&)> fault;
  std::size_t unreturned = 0;  ///< what unreturned_count() says

  /// What is on the medium if the power goes now: see the fault model.
  [[nodiscard]] std::vector<std::byte> image_after_power_cut(std::uint64_t seed) const {
    std::mt19937_64 random(seed);
    std::vector<std::byte> image = durable_;
    const auto keep_some = [&](std::uint64_t offset_bytes, const std::byte* from, std::size_t length_bytes) {
      const auto choice = random() % 3;
      for (std::size_t at = 0; at < length_bytes; at += 512) {
        const bool is_kept = choice == 0 || (choice == 1 && random() % 2 == 0);
        if (is_kept)
          std::memcpy(image.data() + offset_bytes + at, from + at, std::min<std::size_t>(512, length_bytes - at));
      }
    };
    for (const Unsynced& write : unsynced_) keep_some(write.offset_bytes, write.bytes.data(), write.bytes.size());
    for (const Queued& queued : queue_) {
      if (queued.op->kind == ports::DiskOpKind::write)
        keep_some(queued.op->offset_bytes, queued.op->memory, queued.op->length_bytes);
    }
    return image;
  }
  /// The machine loses power. Operations in flight are forgotten (their owners must die with the power).
  void power_cut(std::uint64_t seed) {
    durable_ = image_after_power_cut(seed);
    cached_ = durable_;
    unsynced_.clear();
    forget_queued();
  }
  /// Power stays; only the process is gone.
  void forget_queued() { queue_.clear(); }

  /// What a read returns now.
  [[nodiscard]] std::vector<std::byte>& bytes() { return cached_; }
  [[nodiscard]] std::vector<std::byte>& durable_bytes() { return durable_; }
  /// Overwrites what is there, cache and medium: damage, or preparation.
  void poke(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
    std::memcpy(cached_.data() + offset_bytes, bytes.data(), bytes.size());
    std::memcpy(durable_.data() + offset_bytes, bytes.data(), bytes.size());
  }
  void flip_bit(std::uint64_t offset_bytes, unsigned bit) {
    cached_[offset_bytes] ^= static_cast<std::byte>(1u << bit);
    durable_[offset_bytes] ^= static_cast<std::byte>(1u << bit);
  }
  void resize(std::uint64_t size_bytes) {
    geometry_.size_bytes = size_bytes;
    cached_.resize(size_bytes);
    durable_.resize(size_bytes);
  }

  struct Logged {
    ports::DiskOpKind kind;
    std::uint64_t offset_bytes;
    std::uint64_t length_bytes;
    bool is_durable;
    friend bool operator==(const Logged&, const Logged&) = default;
  };
  std::vector<Logged> log;  ///< in order of completion
  std::uint64_t submitted_count = 0;
  std::uint64_t completed_count = 0;

 private:
  struct Queued {
    ports::DiskOp* op;
    std::uint64_t unsynced_before;  ///< flush: how many cached writes it covers
  };
  struct Unsynced {
    std::uint64_t offset_bytes;
    std::vector<std::byte> bytes;
  };

  Result<void, ports::IoError> apply(const Queued& queued) {
    ports::DiskOp& op = *queued.op;
    if (fault) {
      if (const auto error = fault(op)) return fail(*error);
    }
    RB_ASSERT(op.kind == ports::DiskOpKind::flush || op.offset_bytes + op.length_bytes <= cached_.size());
    switch (op.kind) {
      case ports::DiskOpKind::read:
        std::memcpy(op.memory, cached_.data() + op.offset_bytes, op.length_bytes);
        return {};
      case ports::DiskOpKind::write:
        store(op, {op.memory, op.memory + op.length_bytes});
        return {};
      case ports::DiskOpKind::flush:
        sync(queued.unsynced_before);
        return {};
      case ports::DiskOpKind::discard:
        if (!geometry_.supports_discard) return fail(ports::IoError::not_supported);
        store(op, std::vector<std::byte>(op.length_bytes));
        return {};
      case ports::DiskOpKind::write_zeroes:
        if (!geometry_.supports_write_zeroes) return fail(ports::IoError::not_supported);
        store(op, std::vector<std::byte>(op.length_bytes));
        return {};
    }
    RB_UNREACHABLE();
  }
  void store(const ports::DiskOp& op, std::vector<std::byte> bytes) {
    std::memcpy(cached_.data() + op.offset_bytes, bytes.data(), bytes.size());
    if (op.is_durable && op.kind != ports::DiskOpKind::discard) {
      // Durable at once; older cached writes below it are superseded when they reach the medium, as on a disk.
      for (Unsynced& older : unsynced_) overlay(older, op.offset_bytes, bytes);
      std::memcpy(durable_.data() + op.offset_bytes, bytes.data(), bytes.size());
      return;
    }
    unsynced_.push_back({op.offset_bytes, std::move(bytes)});
    ++unsynced_count_;
  }
  static void overlay(Unsynced& older, std::uint64_t offset_bytes, const std::vector<std::byte>& bytes) {
    const std::uint64_t begin = std::max(older.offset_bytes, offset_bytes);
    const std::uint64_t end = std::min(older.offset_bytes + older.bytes.size(), offset_bytes + bytes.size());
    if (begin < end)
      std::memcpy(older.bytes.data() + (begin - older.offset_bytes), bytes.data() + (begin - offset_bytes),
                  end - begin);
  }
  /// The first writes of the cache, as many as there were when the flush was submitted, become durable.
  void sync(std::uint64_t unsynced_before) {
    const std::uint64_t first = unsynced_count_ - unsynced_.size();
    for (std::uint64_t n = first; n < unsynced_before; ++n) {
      const Unsynced& write = unsynced_.front();
      std::memcpy(durable_.data() + write.offset_bytes, write.bytes.data(), write.bytes.size());
      unsynced_.pop_front();
    }
  }

  FakeDisk(Geometry geometry, std::uint64_t size_bytes) : FakeDisk(geometry) { geometry_.size_bytes = size_bytes; }

  Geometry geometry_;
  std::vector<std::byte> durable_;
  std::vector<std::byte> cached_;
  std::deque<Unsynced> unsynced_;
  std::uint64_t unsynced_count_ = 0;  ///< writes that ever went into the cache
  std::deque<Queued> queue_;
};

}  // namespace replblk::test
