#include "base/buffer_pool.hpp"

#include <bit>
#include <new>

namespace replblk {

namespace {

std::size_t order_for(std::size_t length_bytes) noexcept {
  const std::size_t pages = (length_bytes + BufferPool::kPageBytes - 1) / BufferPool::kPageBytes;
  return static_cast<std::size_t>(std::bit_width(pages - 1));
}

}  // namespace

BufferRef& BufferRef::operator=(BufferRef&& other) noexcept {
  if (this != &other) {
    reset();
    pool_ = std::exchange(other.pool_, nullptr);
    page_ = other.page_;
    capacity_bytes_ = other.capacity_bytes_;
  }
  return *this;
}

std::byte* BufferRef::data() const noexcept {
  RB_ASSERT(pool_ != nullptr);
  return pool_->region_ + std::size_t{page_} * BufferPool::kPageBytes;
}

MutableBytes BufferRef::bytes(std::size_t offset, std::size_t length) const noexcept {
  RB_ASSERT(offset <= capacity_bytes() && length <= capacity_bytes() - offset);
  return {data() + offset, length};
}

BufferRef BufferRef::share() const noexcept {
  RB_ASSERT(pool_ != nullptr);
  BufferRef second;
  second.pool_ = pool_;
  second.page_ = page_;
  second.capacity_bytes_ = capacity_bytes_;
  ++pool_->pages_[page_].reference_count;
  return second;
}

void BufferRef::reset() noexcept {
  if (pool_ == nullptr) return;
  std::exchange(pool_, nullptr)->release(page_);
}

BufferPool::BufferPool(std::size_t size_bytes)
    : size_bytes_((size_bytes + kBufferBytesMax - 1) / kBufferBytesMax * kBufferBytesMax),
      region_(static_cast<std::byte*>(::operator new(size_bytes_, std::align_val_t{kBufferBytesMax}))),
      pages_(size_bytes_ / kPageBytes) {
  RB_ASSERT(size_bytes_ > 0);
  for (std::uint32_t& head : free_heads_) head = kNone;
  for (std::size_t page = pages_.size(); page > 0; page -= std::size_t{1} << (kOrderCount - 1)) {
    push_free(static_cast<std::uint32_t>(page - (std::size_t{1} << (kOrderCount - 1))), kOrderCount - 1);
  }
  free_bytes_ = size_bytes_;
}

BufferPool::~BufferPool() {
  // A buffer that outlives its pool would be written by the kernel into freed memory.
  RB_ASSERT(free_bytes_ == size_bytes_);
  ::operator delete(region_, std::align_val_t{kBufferBytesMax});
}

BufferRef BufferPool::acquire(std::size_t length_bytes) noexcept {
  if (!waiters_.empty()) return {};
  return take(length_bytes);
}

BufferRef BufferPool::acquire_or_wait(BufferWaiter& waiter) noexcept {
  BufferRef buffer = acquire(waiter.length_bytes);
  if (!buffer) waiters_.push_back(waiter);
  return buffer;
}

BufferRef BufferPool::take(std::size_t length_bytes) noexcept {
  RB_ASSERT(length_bytes > 0 && length_bytes <= kBufferBytesMax);
  const std::size_t wanted = order_for(length_bytes);
  std::size_t order = wanted;
  while (order < kOrderCount && free_heads_[order] == kNone) ++order;
  if (order == kOrderCount) return {};
  const std::uint32_t page = free_heads_[order];
  remove_free(page, order);
  while (order > wanted) {
    --order;
    push_free(page + (std::uint32_t{1} << order), order);
  }
  pages_[page].order = static_cast<std::uint8_t>(wanted);
  pages_[page].reference_count = 1;
  free_bytes_ -= kPageBytes << wanted;
  BufferRef buffer;
  buffer.pool_ = this;
  buffer.page_ = page;
  buffer.capacity_bytes_ = static_cast<std::uint32_t>(kPageBytes << wanted);
  return buffer;
}

void BufferPool::push_free(std::uint32_t page, std::size_t order) noexcept {
  Page& entry = pages_[page];
  entry.is_free_head = true;
  entry.order = static_cast<std::uint8_t>(order);
  entry.previous = kNone;
  entry.next = free_heads_[order];
  if (entry.next != kNone) pages_[entry.next].previous = page;
  free_heads_[order] = page;
}

void BufferPool::remove_free(std::uint32_t page, std::size_t order) noexcept {
  Page& entry = pages_[page];
  RB_ASSERT(entry.is_free_head && entry.order == order);
  entry.is_free_head = false;
  if (entry.previous != kNone) {
    pages_[entry.previous].next = entry.next;
  } else {
    free_heads_[order] = entry.next;
  }
  if (entry.next != kNone) pages_[entry.next].previous = entry.previous;
}

void BufferPool::release(std::uint32_t page) noexcept {
  Page& entry = pages_[page];
  RB_ASSERT(entry.reference_count > 0);
  if (--entry.reference_count > 0) return;
  std::size_t order = entry.order;
  free_bytes_ += kPageBytes << order;
  while (order + 1 < kOrderCount) {
    const std::uint32_t buddy = page ^ (std::uint32_t{1} << order);
    if (!pages_[buddy].is_free_head || pages_[buddy].order != order) break;
    remove_free(buddy, order);
    page = page < buddy ? page : buddy;
    ++order;
  }
  push_free(page, order);
  serve_waiters();
}

void BufferPool::serve_waiters() noexcept {
  if (is_serving_) return;  // A waiter that drops its buffer at once must not recurse.
  is_serving_ = true;
  while (BufferWaiter* waiter = waiters_.front()) {
    BufferRef buffer = take(waiter->length_bytes);
    if (!buffer) break;
    waiter->unlink();
    waiter->on_buffer(std::move(buffer));
  }
  is_serving_ = false;
}

}  // namespace replblk
