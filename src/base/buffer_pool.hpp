// Page-aligned data buffers out of one region that the runtime registers with the kernel. A buddy allocator:
// sizes are powers of two from 4 KiB to 4 MiB. Buffers are counted references, not copied by accident: share()
// says where a second holder (disk, peer connection, initiator connection) begins. One thread only.
// Not responsible for system calls: the runtime registers region() with its ring.
// The region is all there is: acquire() returns an empty reference when nothing fits; wait() is told when memory comes
// back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.hpp"
#include "base/callback.hpp"
#include "base/intrusive_list.hpp"

namespace replblk {

class BufferPool;

/// A counted reference to a pool buffer. Move-only; the last one gives the buffer back.
class BufferRef {
 public:
  BufferRef() = default;
  BufferRef(BufferRef&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), page_(other.page_), capacity_bytes_(other.capacity_bytes_) {}
  BufferRef& operator=(BufferRef&& other) noexcept;
  BufferRef(const BufferRef&) = delete;
  BufferRef& operator=(const BufferRef&) = delete;
  ~BufferRef() { reset(); }

  explicit operator bool() const noexcept { return pool_ != nullptr; }
  [[nodiscard]] std::byte* data() const noexcept;
  /// What was asked for, rounded up to the size class.
  [[nodiscard]] std::size_t capacity_bytes() const noexcept { return pool_ == nullptr ? 0 : capacity_bytes_; }
  [[nodiscard]] MutableBytes bytes(std::size_t offset, std::size_t length) const noexcept;
  /// A second reference to the same buffer.
  [[nodiscard]] BufferRef share() const noexcept;
  void reset() noexcept;

 private:
  friend class BufferPool;
  BufferPool* pool_ = nullptr;
  std::uint32_t page_ = 0;
  std::uint32_t capacity_bytes_ = 0;
};

/// Somebody who waits for memory; called once, from release(), in the order of waiting. It must not be called back
/// into a state where it has died: destroy or cancel() it first.
class BufferWaiter : public IntrusiveNode<BufferWaiter> {
 public:
  std::size_t length_bytes = 0;
  Callback<void(BufferRef)> on_buffer;
};

class BufferPool {
 public:
  static constexpr std::size_t kPageBytes = 4096;
  static constexpr std::size_t kBufferBytesMax = std::size_t{4} << 20;

  /// `size_bytes` is rounded up to a multiple of kBufferBytesMax.
  explicit BufferPool(std::size_t size_bytes);
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool();

  /// An uninitialised buffer of at least `length_bytes` (1..kBufferBytesMax), or an empty reference when none is
  /// free or others have been waiting longer.
  [[nodiscard]] BufferRef acquire(std::size_t length_bytes) noexcept;
  /// Like acquire, and when nothing is free `waiter.on_buffer` is called later. Returns the buffer at once if it can.
  [[nodiscard]] BufferRef acquire_or_wait(BufferWaiter& waiter) noexcept;
  void cancel(BufferWaiter& waiter) noexcept { waiter.unlink(); }

  [[nodiscard]] MutableBytes region() const noexcept { return {region_, size_bytes_}; }
  [[nodiscard]] std::size_t free_bytes() const noexcept { return free_bytes_; }

 private:
  friend class BufferRef;
  static constexpr std::size_t kOrderCount = 11;  // 4 KiB << 10 = 4 MiB
  static constexpr std::uint32_t kNone = UINT32_MAX;
  struct Page {
    std::uint32_t next = kNone;
    std::uint32_t previous = kNone;
    std::uint32_t reference_count = 0;
    std::uint8_t order = 0;
    bool is_free_head = false;
  };

  [[nodiscard]] BufferRef take(std::size_t length_bytes) noexcept;
  void push_free(std::uint32_t page, std::size_t order) noexcept;
  void remove_free(std::uint32_t page, std::size_t order) noexcept;
  void release(std::uint32_t page) noexcept;
  void serve_waiters() noexcept;

  std::size_t size_bytes_;
  std::byte* region_;
  std::vector<Page> pages_;
  std::uint32_t free_heads_[kOrderCount];
  std::size_t free_bytes_ = 0;
  IntrusiveList<BufferWaiter, BufferWaiter> waiters_;
  bool is_serving_ = false;
};

}  // namespace replblk
