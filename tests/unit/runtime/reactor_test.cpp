#include "runtime/reactor.hpp"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

using ports::DeferredTask;
using ports::Timer;
using test::make_reactor;
using test::turn_until;

/// Appends its name to a journal when run; may then do more.
struct Step {
  Step(std::vector<std::string>& target, std::string text) : journal(target), name(std::move(text)) {}
  void run() {
    journal.push_back(name);
    if (then) then(*this);
  }
  std::vector<std::string>& journal;
  std::string name;
  DeferredTask task{Callback<void()>::to<&Step::run>(*this)};
  Timer timer{Callback<void()>::to<&Step::run>(*this)};
  Callback<void(Step&)> then;
};

struct NopOp {
  explicit NopOp(std::vector<std::string>& target) : journal(target) {}
  void on_completed(std::int32_t result) {
    last_result = result;
    journal.push_back("completion");
  }
  std::vector<std::string>& journal;
  std::int32_t last_result = 1;
  Op op{Callback<void(std::int32_t)>::to<&NopOp::on_completed>(*this), nullptr};
};

// If it failed, batching at the turn's end would miss work that the turn itself produced.
TEST(Reactor, A_turn_runs_completions_timers_deferred_turn_end_and_flushes_in_that_order) {
  auto reactor = make_reactor();
  std::vector<std::string> journal;
  NopOp nop(journal);
  Step deferred(journal, "deferred");
  Step more(journal, "deferred by deferred");
  Step turn_end(journal, "turn end");
  Step flush(journal, "flush");
  Step timer(journal, "timer");
  struct Context {
    Reactor& reactor;
    Step& more;
  } context{*reactor, more};
  deferred.then = Callback<void(Step&)>::with(&context, [](void* target, Step&) {
    auto& both = *static_cast<Context*>(target);
    both.reactor.defer(both.more.task);
  });
  reactor->defer_to_flush(flush.task);
  reactor->defer_to_turn_end(turn_end.task);
  reactor->defer(deferred.task);
  reactor->arm(timer.timer, reactor->now());
  io_uring_prep_nop(&reactor->prepare(nop.op));
  reactor->run_turn({});
  EXPECT_EQ(journal,
            (std::vector<std::string>{"completion", "timer", "deferred", "deferred by deferred", "turn end", "flush"}));
  EXPECT_EQ(nop.last_result, 0);
}

// If it failed, a batch that schedules the next batch would never let the loop reap.
TEST(Reactor, A_task_queued_from_the_turns_end_runs_in_the_next_turn_without_waiting) {
  auto reactor = make_reactor();
  std::vector<std::string> journal;
  Step again(journal, "again");
  again.then = Callback<void(Step&)>::with(reactor.get(), [](void* target, Step& self) {
    if (self.journal.size() < 2) static_cast<Reactor*>(target)->defer_to_turn_end(self.task);
  });
  reactor->defer_to_turn_end(again.task);
  reactor->run_turn({});
  EXPECT_EQ(journal.size(), 1u);
  const auto begin = std::chrono::steady_clock::now();
  reactor->run_turn(seconds(1));
  EXPECT_EQ(journal.size(), 2u);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(500));
}

// If it failed, a task scheduled by two events of one turn would do its work twice.
TEST(Reactor, A_queued_task_is_not_queued_twice_and_a_destroyed_one_is_forgotten) {
  auto reactor = make_reactor();
  std::vector<std::string> journal;
  Step twice(journal, "twice");
  {
    Step gone(journal, "gone");
    reactor->defer(gone.task);
  }
  reactor->defer(twice.task);
  reactor->defer(twice.task);
  reactor->run_turn({});
  EXPECT_EQ(journal, std::vector<std::string>{"twice"});
}

// If it failed, leases and retries would fire in the wrong order.
TEST(Reactor, Timers_expire_by_deadline_and_equal_ones_in_the_order_of_arming) {
  auto reactor = make_reactor();
  std::vector<std::string> journal;
  Step first(journal, "first"), second(journal, "second"), third(journal, "third"), never(journal, "never");
  const Instant base = reactor->now();
  reactor->arm(third.timer, base + milliseconds(4));
  reactor->arm(never.timer, base + milliseconds(1));
  reactor->arm(second.timer, base + milliseconds(1));  // Moved behind `first`, of the same deadline.
  reactor->arm(first.timer, base + milliseconds(2));
  reactor->arm(second.timer, base + milliseconds(2));
  reactor->cancel(never.timer);
  ASSERT_TRUE(turn_until(*reactor, [&] { return journal.size() == 3; }));
  EXPECT_EQ(journal, (std::vector<std::string>{"first", "second", "third"}));
  EXPECT_GE(reactor->now(), base + milliseconds(4));
  EXPECT_FALSE(third.timer.is_armed());
}

// If it failed, one timer that re-arms itself for "now" would hang the loop, or a cancelled one would still fire.
TEST(Reactor, A_timer_may_rearm_itself_and_cancel_another_from_its_callback) {
  auto reactor = make_reactor();
  std::vector<std::string> journal;
  Step victim(journal, "victim");
  Step killer(journal, "killer");
  struct Context {
    Reactor& reactor;
    Timer& victim;
  } context{*reactor, victim.timer};
  killer.then = Callback<void(Step&)>::with(&context, [](void* target, Step& self) {
    auto& both = *static_cast<Context*>(target);
    both.reactor.cancel(both.victim);
    both.reactor.arm(self.timer, both.reactor.now());
  });
  reactor->arm(killer.timer, reactor->now());
  reactor->arm(victim.timer, reactor->now());
  reactor->run_turn({});
  EXPECT_EQ(journal, std::vector<std::string>{"killer"});
  reactor->run_turn(seconds(1));
  EXPECT_EQ(journal, (std::vector<std::string>{"killer", "killer"}));
  reactor->cancel(killer.timer);
}

// If it failed, the heap would lose or misorder timers under churn.
TEST(TimerHeap, Random_arming_and_cancelling_keeps_every_timer_in_order) {
  std::mt19937 random(7);
  TimerHeap heap;
  std::vector<Timer> timers(500);
  for (int round = 0; round < 20'000; ++round) {
    Timer& timer = timers[random() % timers.size()];
    if (random() % 3 == 0) {
      heap.cancel(timer);
    } else {
      heap.arm(timer, Instant(Duration(random() % 1000)));
    }
  }
  const auto armed = std::count_if(timers.begin(), timers.end(), [](const Timer& timer) { return timer.is_armed(); });
  ASSERT_GT(armed, 100);
  long popped = 0;
  std::pair<Instant, std::uint64_t> previous{};
  while (Timer* timer = heap.pop_due(Instant(Duration(1000)), heap.next_order())) {
    EXPECT_LE(previous, std::pair(timer->deadline_, timer->order_));
    previous = {timer->deadline_, timer->order_};
    ++popped;
  }
  EXPECT_EQ(popped, armed);
  EXPECT_TRUE(heap.empty());
}

// If it failed, more work than the submission queue holds would be lost or deadlock.
TEST(Reactor, Ten_thousand_operations_at_once_all_complete) {
  auto reactor = make_reactor({.ring = {.submission_entries = 256, .completion_entries = 1024}});
  std::vector<std::string> journal;
  std::vector<std::unique_ptr<NopOp>> nops;
  for (int count = 0; count < 10'000; ++count) {
    nops.push_back(std::make_unique<NopOp>(journal));
    io_uring_prep_nop(&reactor->prepare(nops.back()->op));
  }
  ASSERT_TRUE(turn_until(*reactor, [&] { return journal.size() == 10'000; }));
}

// If it failed, the kernel would write into freed memory after a shutdown.
TEST(Reactor, Its_destructor_cancels_and_waits_for_what_is_in_flight) {
  std::vector<std::string> journal;
  NopOp stuck(journal);
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  char byte = 0;
  {
    auto reactor = make_reactor();
    io_uring_prep_read(&reactor->prepare(stuck.op), pipe_ends[0], &byte, 1, 0);
    reactor->run_turn({});
    EXPECT_TRUE(stuck.op.is_in_flight);
  }
  EXPECT_FALSE(stuck.op.is_in_flight);
  EXPECT_EQ(stuck.last_result, -ECANCELED);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

// If it failed, an idle daemon would burn a CPU or oversleep its deadlines.
TEST(Reactor, Waits_until_the_next_deadline_and_not_longer) {
  auto reactor = make_reactor();
  std::vector<std::string> journal;
  Step timer(journal, "timer");
  const Instant begin = reactor->now();
  reactor->arm(timer.timer, begin + milliseconds(30));
  int turns = 0;
  while (journal.empty()) {
    reactor->run_turn(seconds(5));
    ++turns;
  }
  EXPECT_GE(reactor->now() - begin, milliseconds(30));
  EXPECT_LT(reactor->now() - begin, milliseconds(800));
  EXPECT_LE(turns, 4);
}

}  // namespace
}  // namespace replblk::runtime
