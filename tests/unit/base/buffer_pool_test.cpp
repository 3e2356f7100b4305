#include "base/buffer_pool.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace replblk {
namespace {

// Two holders of one page would overwrite each other's data on its way to the disk.
TEST(BufferPool, Buffers_never_overlap_and_all_memory_comes_back) {
  BufferPool pool(std::size_t{16} << 20);
  std::mt19937 random(7);
  std::vector<BufferRef> held;
  std::set<std::byte*> pages;
  for (int step = 0; step < 20000; ++step) {
    if (random() % 2 == 0) {
      const std::size_t wanted = std::size_t{1} << (random() % 23);
      BufferRef buffer = pool.acquire(wanted);
      if (!buffer) continue;
      ASSERT_GE(buffer.capacity_bytes(), wanted);
      for (std::size_t offset = 0; offset < buffer.capacity_bytes(); offset += BufferPool::kPageBytes) {
        ASSERT_TRUE(pages.insert(buffer.data() + offset).second);
      }
      held.push_back(std::move(buffer));
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      for (std::size_t offset = 0; offset < held.back().capacity_bytes(); offset += BufferPool::kPageBytes) {
        pages.erase(held.back().data() + offset);
      }
      held.pop_back();
    }
  }
  held.clear();
  EXPECT_EQ(pool.free_bytes(), std::size_t{16} << 20);
  for (int index = 0; index < 4; ++index) held.push_back(pool.acquire(BufferPool::kBufferBytesMax));
  for (const BufferRef& buffer : held) EXPECT_TRUE(buffer);
}

// A shared buffer that returned with its first holder would be reused while the peer's send still reads it.
TEST(BufferPool, Shared_buffer_returns_with_its_last_reference) {
  BufferPool pool(BufferPool::kBufferBytesMax);
  BufferRef first = pool.acquire(BufferPool::kBufferBytesMax);
  BufferRef second = first.share();
  first.reset();
  EXPECT_FALSE(pool.acquire(1));
  second.reset();
  EXPECT_TRUE(pool.acquire(1));
}

// A large request that small ones keep overtaking would wait for ever.
TEST(BufferPool, Waiters_are_served_in_order_and_not_overtaken) {
  BufferPool pool(BufferPool::kBufferBytesMax);
  BufferRef all = pool.acquire(BufferPool::kBufferBytesMax);
  struct Owner {
    BufferRef got;
    void on_buffer(BufferRef buffer) { got = std::move(buffer); }
  } owner;
  BufferWaiter waiter;
  waiter.length_bytes = BufferPool::kBufferBytesMax;
  waiter.on_buffer = Callback<void(BufferRef)>::to<&Owner::on_buffer>(owner);
  EXPECT_FALSE(pool.acquire_or_wait(waiter));
  EXPECT_FALSE(pool.acquire(1));
  all.reset();
  EXPECT_TRUE(owner.got);
}

}  // namespace
}  // namespace replblk
