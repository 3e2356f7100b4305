#include "base/slot_pool.hpp"

#include <gtest/gtest.h>

namespace replblk {
namespace {

// A late completion that finds the slot's new tenant would complete somebody else's command.
TEST(SlotPool, Handle_of_a_released_slot_finds_nothing) {
  SlotPool<int> pool(1);
  int* first = pool.acquire();
  const SlotHandle handle = pool.handle(*first);
  EXPECT_EQ(pool.find(handle), first);
  EXPECT_EQ(pool.acquire(), nullptr);
  pool.release(*first);
  int* second = pool.acquire();
  EXPECT_EQ(pool.find(handle), nullptr);
  EXPECT_EQ(pool.find(pool.handle(*second)), second);
  pool.release(*second);
}

}  // namespace
}  // namespace replblk
