#include "iscsi/command_window.hpp"

#include <gtest/gtest.h>

namespace replblk::iscsi {
namespace {

using Verdict = CommandWindow::Verdict;

// If it failed, a repeated or premature command would be executed (RFC 7143 4.2.2.1 wants silence).
TEST(CommandWindow, Ignores_what_lies_outside) {
  CommandWindow window(0xfffffffe, 4);
  EXPECT_EQ(window.max_cmd_sn(), 1u);
  EXPECT_EQ(window.receive(0xfffffffd), Verdict::ignore);
  EXPECT_EQ(window.receive(2), Verdict::ignore);
  EXPECT_EQ(window.receive(0), Verdict::gap);
  EXPECT_EQ(window.receive(0xfffffffe), Verdict::in_order);
  EXPECT_EQ(window.receive(0xfffffffe), Verdict::ignore);
  EXPECT_EQ(window.receive(0xffffffff), Verdict::in_order);
  EXPECT_EQ(window.receive(0), Verdict::in_order);
  EXPECT_EQ(window.exp_cmd_sn(), 1u);
}

// If it failed, an initiator would send more commands than there are places, or fewer than it may.
TEST(CommandWindow, Promises_exactly_the_free_places_and_never_takes_a_promise_back) {
  CommandWindow window(10, 2);
  std::uint32_t highest = window.max_cmd_sn();
  for (int step = 0; step < 2; ++step) {
    EXPECT_EQ(window.receive(window.exp_cmd_sn()), Verdict::in_order);
    window.occupy();
    EXPECT_GE(window.max_cmd_sn(), highest);
    highest = window.max_cmd_sn();
  }
  EXPECT_TRUE(window.is_closed());
  EXPECT_EQ(window.max_cmd_sn() + 1, window.exp_cmd_sn());
  EXPECT_EQ(window.receive(window.exp_cmd_sn()), Verdict::ignore);
  window.release();
  EXPECT_EQ(window.receive(window.exp_cmd_sn()), Verdict::in_order);
}

// If it failed, a command whose abort was answered "complete" would be executed after all (RFC 7143 11.6.1).
TEST(CommandWindow, A_command_that_was_aborted_before_it_came_is_skipped) {
  CommandWindow window(10, 8);
  EXPECT_FALSE(window.mark_received(9));
  EXPECT_TRUE(window.mark_received(11));
  EXPECT_EQ(window.receive(11), Verdict::ignore);
  EXPECT_EQ(window.receive(10), Verdict::in_order);
  EXPECT_EQ(window.exp_cmd_sn(), 12u);
  EXPECT_TRUE(window.mark_received(12));
  EXPECT_EQ(window.exp_cmd_sn(), 13u);
}

}  // namespace
}  // namespace replblk::iscsi
