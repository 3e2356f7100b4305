#include "base/intrusive_list.hpp"

#include <gtest/gtest.h>

namespace replblk {
namespace {

struct Item : IntrusiveNode<> {
  explicit Item(int number) : value(number) {}
  int value;
};

TEST(IntrusiveList, Keeps_order_through_unlink_and_splice) {
  Item a(1), b(2), c(3), d(4);
  IntrusiveList<Item> list, other;
  list.push_back(a);
  list.push_back(b);
  list.push_front(c);
  other.push_back(d);
  a.unlink();
  list.splice_back(other);
  EXPECT_TRUE(other.empty());
  EXPECT_EQ(list.pop_front()->value, 3);
  EXPECT_EQ(list.pop_front()->value, 2);
  EXPECT_EQ(list.pop_front()->value, 4);
  EXPECT_EQ(list.pop_front(), nullptr);
}

}  // namespace
}  // namespace replblk
