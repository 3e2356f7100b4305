// What happened to data in the models of the protocol before its rules were as they are (protocol-review.md 4.1: T4, T8
// to T12, T14), step by step with two whole nodes up to the moment when a rule must hold. Who serves when: T1 to T7 and
// others, with the machine alone, in tests/unit/membership/counterexamples_test.cpp. Then what the simulator found and
// seldom meets.
#include <gtest/gtest.h>

#include <optional>

#include "iscsi_session.hpp"
#include "scripted_pair.hpp"
#include "sim_arbiter.hpp"

namespace replblk::sim {
namespace {

using blockdev::NodeIndex;

constexpr std::uint64_t kSeedsCount = 12;  // A power cut keeps all, some or none of what was volatile.
constexpr std::uint32_t kBlockBytes = 4096;
constexpr std::uint16_t kSectorsPerBlock = kBlockBytes / kSectorBytes;
constexpr std::uint8_t kUnitAttention = 6;
constexpr NodeIndex a = 0, b = 1;

/// An initiator that does what it is told, one command at a time. It never loses patience.
class Client final : public IscsiSession::Owner {
 public:
  explicit Client(SimFabric& fabric)
      : fabric_(fabric), loop_(fabric.timeline(), "client"), network_(fabric, loop_, "10.0.1.1") {}
  ~Client() { loop_.kill(); }

  [[nodiscard]] bool log_in(const SimHost& host) {
    for (int attempt = 0; attempt < 20; ++attempt) {
      if (try_to_log_in(host)) return true;
      fabric_.timeline().run_until(fabric_.timeline().now() + milliseconds(100));
    }
    return false;
  }
  [[nodiscard]] bool try_to_log_in(const SimHost& host) {
    SessionOptions options;
    options.initiator_name = "iqn.2026-11.org.example:client";
    options.target_name = kTargetName;
    options.isid = 0x400000000001;
    bool is_begun = false;
    loop_.post([&] {
      is_begun = true;
      session_ = std::make_unique<IscsiSession>(loop_, network_, fabric_.timeline().random(), options, *this);
      session_->start({host.address(), 3260});
    });
    run_until([&] { return is_begun && (session_->is_logged_in() || session_->has_ended()); });
    return session_->is_logged_in();
  }
  [[nodiscard]] bool is_logged_in() const { return session_->is_logged_in(); }
  /// Sends it and does not wait.
  void begin(const ScsiCommand& command) {
    reply_.reset();
    loop_.post([this, command] { session_->submit(0, command); });
  }
  [[nodiscard]] const std::optional<ScsiReply>& reply() const { return reply_; }
  [[nodiscard]] std::optional<ScsiReply> perform(const ScsiCommand& command) {
    for (int attempt = 0; attempt < 5; ++attempt) {
      begin(command);
      run_until([&] { return reply_.has_value() || session_->has_ended(); });
      if (!reply_ || reply_->sense_key != kUnitAttention) break;
    }
    return reply_;
  }
  [[nodiscard]] bool write(std::uint32_t block, std::uint64_t value) {
    const auto reply = perform(write_of(block, value));
    return reply && reply->status == 0;
  }
  [[nodiscard]] bool flush() {
    const auto reply = perform(flush_of());
    return reply && reply->status == 0;
  }
  [[nodiscard]] static ScsiCommand flush_of() {
    ScsiCommand command;
    command.cdb[0] = 0x35;
    return command;
  }
  [[nodiscard]] static ScsiCommand write_of(std::uint32_t block, std::uint64_t value) {
    return write_of_sectors(block * kSectorsPerBlock, kSectorsPerBlock, value);
  }
  [[nodiscard]] static ScsiCommand write_of_sectors(std::uint32_t first, std::uint16_t count, std::uint64_t value) {
    ScsiCommand command = transfer(0x2a, first, count);
    command.data_out.resize(std::size_t{count} * kSectorBytes);
    for (std::uint32_t at = 0; at < count; ++at)
      write_stamp(command.data_out.data() + std::size_t{at} * kSectorBytes, value, first + at);
    return command;
  }
  [[nodiscard]] static ScsiCommand read_of(std::uint32_t block) {
    ScsiCommand command = transfer(0x28, block * kSectorsPerBlock, kSectorsPerBlock);
    command.data_in_length_bytes = kBlockBytes;
    return command;
  }

  void on_logged_in(IscsiSession&) override {}
  void on_reply(IscsiSession&, std::uint64_t, const ScsiReply& reply) override { reply_ = reply; }
  void on_ended(IscsiSession&, const std::string&) override {}
  void on_violation(const std::string& sentence) override { ADD_FAILURE() << sentence; }

 private:
  static ScsiCommand transfer(std::uint8_t code, std::uint32_t sector, std::uint16_t sectors_count) {
    ScsiCommand command;
    command.cdb[0] = code;
    store_be(reinterpret_cast<std::byte*>(&command.cdb[2]), sector);
    store_be(reinterpret_cast<std::byte*>(&command.cdb[7]), sectors_count);
    return command;
  }
  template <class Condition>
  void run_until(Condition is_done) {
    const Instant limit = fabric_.timeline().now() + seconds(10);
    while (!is_done() && fabric_.timeline().now() < limit && fabric_.timeline().step()) {
    }
  }

  SimFabric& fabric_;
  SimLoop loop_;
  SimNetwork network_;
  std::unique_ptr<IscsiSession> session_;
  std::optional<ScsiReply> reply_;
};

/// A pair in sync, with node a Primary and a client that is logged in there.
struct Story : ScriptedPair {
  explicit Story(std::uint64_t seed, const std::function<void(RunOptions&)>& edit = {})
      : ScriptedPair(seed, edit), arbiter(timeline, seed), client(fabric) {
    options.logical_block_bytes = options.alignment_bytes = kSectorBytes;
    options.has_undo = true;
    for (const auto& host : hosts) host->set_arbiter(&arbiter);
    begin({}, {});
    run(seconds(1));
    request(a, {.verb = node::AdminVerb::primary, .resource = {}, .is_forced = true});
    heal();
    EXPECT_TRUE(client.log_in(*hosts[a]));
  }
  template <class Condition>
  void wait_for(const char* what, Condition is_so, Duration step = milliseconds(1)) {
    const Instant limit = timeline.now() + seconds(60);
    while (!is_so() && timeline.now() < limit) run(step);
    EXPECT_TRUE(is_so()) << what;
  }
  /// Whoever has power and no daemon gets one; then both must be members.
  void heal() {
    cut(false);
    for (const auto& host : hosts) {
      if (!host->is_powered()) host->restore_power();
      if (!host->is_running()) host->start();
    }
    wait_for("both are members again", [&] { return is_established(); });
  }
  /// Node a, cut off, has the value 101 in block 8, where 100 was flushed: never answered, and b serves.
  void lose_role_with_a_write_under_way() {
    EXPECT_TRUE(client.write(8, 100));
    EXPECT_TRUE(client.flush());
    cut(true);
    arbiter.set_reached(a, false);
    client.begin(Client::write_of(8, 101));
    wait_for("b takes over", [&] { return serves(b); });
    EXPECT_EQ(value(a, 8), 101u);
  }
  void lose_power(NodeIndex node) { hosts[node]->cut_power(); }
  bool serves(NodeIndex node) {
    const auto view = hosts[node]->inspect();
    return view && view->is_serving && !view->is_frozen;
  }
  std::optional<std::uint64_t> value(NodeIndex node, std::uint32_t block) {
    const std::uint64_t sector = std::uint64_t{block} * kSectorsPerBlock;
    return read_stamp(hosts[node]->data().content() + sector * kSectorBytes, sector);
  }
  void expect_both(std::uint32_t block, std::uint64_t wanted, const char* why) {
    EXPECT_EQ(value(a, block), wanted) << why;
    EXPECT_EQ(value(b, block), wanted) << why;
    const std::uint64_t bytes = kDataBytes;
    EXPECT_EQ(std::memcmp(hosts[a]->data().content(), hosts[b]->data().content(), bytes), 0)
        << "the copies differ: " << why;
  }

  SimArbiterServer arbiter;
  Client client;
};

class Counterexample : public ::testing::TestWithParam<std::uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Seeds, Counterexample, ::testing::Range(std::uint64_t{1}, kSeedsCount + 1));

TEST_P(Counterexample, T4_a_read_waits_for_the_write_that_is_not_on_both) {
  Story story(GetParam());
  ASSERT_TRUE(story.client.write(3, 100));
  story.cut(true);
  story.client.begin(Client::write_of(3, 101));
  story.run(milliseconds(100));
  ASSERT_EQ(story.value(a, 3), 101u) << "the disk of a has it";
  ASSERT_FALSE(story.client.reply()) << "b has not";
  // The lease of a has not run out: it may answer reads of other blocks.
  Client reader(story.fabric);
  story.client.begin(Client::read_of(3));
  story.run(milliseconds(200));
  EXPECT_FALSE(story.client.reply()) << "a read returned what the other copy may never have";
  story.heal();
}

TEST_P(Counterexample, T8_what_the_peers_cache_lost_while_it_was_away_is_copied_again) {
  Story story(GetParam());
  ASSERT_TRUE(story.client.write(5, 100));
  story.cut(true);
  story.lose_power(b);
  story.wait_for("a goes on alone",
                 [&] { return story.serves(a) && story.hosts[a]->inspect()->record->configuration.is_sole(a); });
  story.heal();
  story.expect_both(5, 100, "answered while both were members");
}

TEST_P(Counterexample, T9_a_demoted_node_that_loses_power_has_forgotten_nothing) {
  Story story(GetParam());
  ASSERT_TRUE(story.client.write(6, 100));
  story.request(a, {.verb = node::AdminVerb::secondary, .resource = {}});
  story.lose_power(a);
  story.run(seconds(3));
  story.heal();
  story.expect_both(6, 100, "answered while both were members");
}

TEST_P(Counterexample, T10_a_resynced_block_that_the_targets_cache_lost_is_copied_again) {
  for (const int wait_ms : {0, 1, 3, 10, 30}) {
    Story story(GetParam());
    story.hosts[b]->kill();
    ASSERT_TRUE(story.client.write(7, 100));
    story.hosts[b]->start();
    story.wait_for("the block is at b", [&] { return story.value(b, 7) == 100u; });
    story.run(milliseconds(wait_ms));
    story.lose_power(b);
    story.run(seconds(2));
    story.heal();
    story.expect_both(7, 100, "written while b was away");
  }
}

TEST_P(Counterexample, T11_the_bits_of_a_demoted_node_outlive_the_source_that_has_merged_them) {
  for (const int wait_ms : {0, 2, 10, 40}) {
    Story story(GetParam());
    story.lose_role_with_a_write_under_way();
    story.cut(false);
    story.arbiter.set_reached(a, true);
    story.wait_for("the resync of a begins", [&] {
      const auto view = story.hosts[a]->inspect();
      return view && (view->phase == node::LinkPhase::target_syncing || view->phase == node::LinkPhase::established);
    });
    story.run(milliseconds(wait_ms));
    story.lose_power(b);
    story.run(seconds(2));
    story.heal();
    story.expect_both(8, 100, "flushed, and what only a had was never answered");
  }
}

TEST_P(Counterexample, T12_the_source_has_flushed_what_it_copied_before_the_peer_is_a_member) {
  Story story(GetParam());
  story.hosts[b]->kill();
  ASSERT_TRUE(story.client.write(9, 100));
  story.hosts[a]->kill();  // Its extents become bits, and its activity log is empty.
  story.hosts[a]->start();
  story.heal();
  story.lose_power(a);
  story.wait_for("b serves alone", [&] { return story.serves(b); });
  story.heal();
  story.expect_both(9, 100, "written before b was a member again");
}

TEST_P(Counterexample, T14_the_copy_that_kept_its_cache_is_the_source) {
  Story story(GetParam());
  ASSERT_TRUE(story.client.write(10, 100));
  story.lose_power(a);
  story.hosts[b]->kill();  // An upgrade: its kernel, and with it the device's cache, lives on.
  story.run(milliseconds(200));
  story.heal();
  story.expect_both(10, 100, "answered while both were members");
}

TEST_P(Counterexample, what_has_no_room_in_part_of_a_block_is_made_even_whole) {
  Story story(GetParam());
  ASSERT_TRUE(story.client.write(11, 100));
  Defect defect;
  defect.length_bytes = ScriptedPair::kDataBytes;
  defect.fails_changes = defect.is_full = true;
  story.hosts[a]->data().set_defect(defect);
  const auto reply = story.client.perform(Client::write_of_sectors(11 * kSectorsPerBlock + 1, 3, 101));
  ASSERT_TRUE(reply);
  constexpr std::uint8_t kDataProtect = 7;
  EXPECT_EQ(reply->sense_key, kDataProtect);
  story.run(seconds(3));
  story.expect_both(11, 100, "what was refused is nowhere");
  EXPECT_EQ(story.status(a).volumes.front().out_of_sync_bytes, 0u);
}

// In a resync: who is to serve alone waits for all requests first. A paused one, since it would copy the block again.
TEST_P(Counterexample, what_was_made_even_before_the_peer_lost_power_does_not_count_after_it) {
  Story story(GetParam());
  Medium& disk = story.hosts[a]->data();
  const auto is_syncing = [&] {
    const auto view = story.hosts[a]->inspect();
    return view && view->phase == node::LinkPhase::source_syncing;
  };
  const auto lose_peer_and_have_it_back = [&] {
    story.lose_power(b);
    story.wait_for("the connection has ended",
                   [&] { return story.hosts[a]->inspect()->phase == node::LinkPhase::none; });
    story.hosts[b]->restore_power();
    story.hosts[b]->start();
    story.wait_for("the resync runs", is_syncing);
  };
  story.request(a, {.verb = node::AdminVerb::pause_sync, .resource = {}});
  lose_peer_and_have_it_back();
  ASSERT_TRUE(story.client.write(11, 99));
  ASSERT_TRUE(story.client.flush());
  ASSERT_TRUE(story.client.write(11, 100));
  Defect defect;
  defect.length_bytes = ScriptedPair::kDataBytes;
  defect.fails_changes = defect.is_full = true;
  disk.set_defect(defect);
  // Then the block is made even in pieces of three sectors, of which the second cannot be read for a while.
  const std::uint64_t mark = story.hosts[b]->data().written_mark();
  story.client.begin(Client::write_of_sectors(11 * kSectorsPerBlock + 1, 3, 101));
  const auto has_first_piece = [&] { return story.hosts[b]->data().written_mark() == mark + 2; };
  story.wait_for("the peer has it and the first piece", has_first_piece, microseconds(5));
  defect.holds_reads = true;
  disk.set_defect(defect);
  story.run(milliseconds(20));
  ASSERT_TRUE(has_first_piece()) << "and no more";
  lose_peer_and_have_it_back();
  ASSERT_FALSE(story.client.reply()) << "it is still being made even";
  disk.heal();
  story.wait_for("it is answered", [&] { return story.client.reply().has_value(); });
  ASSERT_TRUE(story.client.flush());
  story.request(a, {.verb = node::AdminVerb::resume_sync, .resource = {}});
  story.heal();
  story.run(seconds(3));
  story.expect_both(11, 100, "what was refused is nowhere");
}

// As T11: who goes on where it was cut off ignores the target's bits, so it must have had them on disk.
TEST_P(Counterexample, a_resync_that_goes_on_after_a_restart_has_the_bits_of_its_target) {
  Story story(GetParam());
  story.lose_role_with_a_write_under_way();
  story.request(b, {.verb = node::AdminVerb::pause_sync, .resource = {}});
  story.cut(false);
  story.arbiter.set_reached(a, true);
  story.wait_for(
      "b has recorded that it has a's bits", [&] { return story.hosts[b]->persisted(true).merged_term != 0; },
      microseconds(50));
  story.lose_power(b);
  story.run(seconds(2));
  story.heal();
  story.expect_both(8, 100, "flushed, and what only a had was never answered");
}

// What was copied need not be copied again because a daemon was upgraded: the first sync of a large disk takes days.
TEST_P(Counterexample, a_full_resync_goes_on_after_either_node_was_started_again) {
  for (const NodeIndex restarted : {a, b}) {
    Story story(GetParam());
    story.lose_power(b);
    story.hosts[b]->restore_power();
    static_cast<void>(story.hosts[b]->create_metadata(story.uuid()));
    story.options.rate_max_bytes_per_second = 64 << 10;
    story.hosts[a]->kill();
    story.hosts[a]->start();
    story.hosts[b]->start();
    const auto is_syncing = [&] {
      const auto view = story.hosts[a]->inspect();
      return view && view->phase == node::LinkPhase::source_syncing;
    };
    const auto left_bytes = [&] { return story.status(a).volumes.front().out_of_sync_bytes; };
    story.wait_for("the resync runs", is_syncing);
    const std::uint64_t whole_bytes = left_bytes();
    story.wait_for("half is copied", [&] { return left_bytes() <= whole_bytes / 2; });
    story.run(seconds(2));
    ASSERT_TRUE(is_syncing());
    story.hosts[restarted]->kill();
    story.run(seconds(1));
    story.hosts[restarted]->start();
    story.wait_for("the resync runs again", is_syncing);
    EXPECT_LE(left_bytes(), whole_bytes / 2);
    story.heal();
    EXPECT_EQ(story.sectors_of(b, a), ScriptedPair::kDataBytes / kSectorBytes);
  }
}

// With an arbiter that remembers, whoever is alone at a lower term gives way as soon as it hears of the other one: that
// must be the copy that the person did not choose, and what it wrote is kept.
TEST_P(Counterexample, who_was_forced_is_above_a_peer_that_started_alone_again_and_again) {
  Story story(GetParam());
  ASSERT_TRUE(story.client.write(10, 100));
  ASSERT_TRUE(story.client.flush());
  story.cut(true);
  ASSERT_TRUE(story.client.write(10, 101));
  for (int count = 0; count < 4; ++count) {
    story.hosts[a]->kill();
    story.hosts[a]->start();
    story.wait_for("a serves alone", [&] { return story.serves(a); });
  }
  story.request(b, {.verb = node::AdminVerb::primary, .resource = {}, .is_forced = true});
  story.wait_for("b serves", [&] { return story.serves(b); });
  ASSERT_TRUE(story.client.log_in(*story.hosts[b]));
  ASSERT_TRUE(story.client.write(10, 102));
  story.cut(false);
  story.wait_for("a gives way", [&] { return !story.serves(a); });
  EXPECT_TRUE(story.serves(b));
  story.wait_for("the split is found", [&] { return story.status(a).connection_state == "StandAlone"; });
  story.request(a, {.verb = node::AdminVerb::connect, .resource = {}, .discards_data = true});
  EXPECT_EQ(story.replies[a].outcome, node::AdminOutcome::done) << story.replies[a].message;
  story.request(b, {.verb = node::AdminVerb::connect, .resource = {}});
  story.heal();
  story.wait_for("b still serves", [&] { return story.serves(b); });
  story.expect_both(10, 102, "written to the copy that a person chose");
  const auto keeps = [](const auto& file) {
    return read_stamp(file.second.data() + 10 * kBlockBytes, 10 * kSectorsPerBlock) == 101u;
  };
  EXPECT_TRUE(std::ranges::any_of(story.hosts[a]->undo_files(), keeps)) << "what a had written is lost for good";
}

// The person who forced b could not know of a, and a, which comes back cut off from b, cannot know of b but by the
// arbiter.
TEST_P(Counterexample, who_was_dead_when_its_peer_was_forced_serves_nothing_until_a_person_says_so) {
  using Verbs = std::vector<node::AdminVerb>;
  // What a person may try before force; `secondary` takes the node's name out of its record.
  for (const Verbs& tried :
       {Verbs{node::AdminVerb::primary}, Verbs{node::AdminVerb::secondary, node::AdminVerb::primary}}) {
    Story story(GetParam());
    ASSERT_TRUE(story.client.write(10, 100));
    story.cut(true);
    ASSERT_TRUE(story.client.write(10, 101));
    story.hosts[a]->kill();
    story.request(b, {.verb = node::AdminVerb::primary, .resource = {}, .is_forced = true});
    story.wait_for("b serves", [&] { return story.serves(b); });
    story.hosts[a]->start();
    story.run(seconds(10));
    EXPECT_FALSE(story.serves(a));
    EXPECT_NE(story.status(a).role_reason.find("names the peer"), std::string::npos) << story.status(a).role_reason;
    for (const auto verb : tried) {
      story.request(a, {.verb = verb, .resource = {}});
      story.run(seconds(10));
      EXPECT_FALSE(story.serves(a));
    }
    story.hosts[b]->kill();
    story.request(a, {.verb = node::AdminVerb::primary, .resource = {}, .is_forced = true});
    story.wait_for("a serves by force", [&] { return story.serves(a); });
  }
}

// Nothing is written, so that the activity log covers nothing. The peer's copy has rotted in one block.
TEST_P(Counterexample, what_a_verify_found_outlives_a_crash) {
  enum class End { complete, running, early };
  for (const End end : {End::complete, End::running, End::early}) {
    SCOPED_TRACE(static_cast<int>(end));
    Story story(GetParam());
    std::byte bytes[kSectorBytes];
    write_stamp(bytes, 999, std::uint64_t{13} * kSectorsPerBlock);
    story.hosts[b]->data().preset(std::uint64_t{13} * kBlockBytes, bytes);
    const auto report = [&] { return story.status(a).volumes.front().verify; };
    const auto ask = [&](node::AdminVerb verb) {
      story.hosts[a]->ask({.verb = verb, .resource = {}}, [](const node::AdminReply&) {});
    };
    if (end == End::complete) {
      ask(node::AdminVerb::verify);
      story.wait_for("all is compared", [&] { return report().is_complete; }, microseconds(10));
    } else {
      // Beside an initiator the pieces are small, and the last ones can be held up.
      ASSERT_TRUE(story.client.perform(Client::read_of(0)));
      ask(node::AdminVerb::verify);
      for (int count = 0; count < 10000 && report().differing_bytes == 0; ++count)
        ASSERT_TRUE(story.client.perform(Client::read_of(0)));
      Defect defect;
      defect.offset_bytes = ScriptedPair::kDataBytes - kBlockBytes;
      defect.length_bytes = kBlockBytes;
      defect.holds_reads = true;
      story.hosts[a]->data().set_defect(defect);
    }
    if (end == End::running) story.run(milliseconds(1500));
    if (end == End::early) {
      ask(node::AdminVerb::disconnect);
      story.run(milliseconds(100));
    }
    EXPECT_EQ(report().is_running, end == End::running);
    EXPECT_EQ(report().is_complete, end == End::complete);
    story.lose_power(a);
    story.hosts[a]->data().heal();
    story.heal();
    story.expect_both(13, story.value(b, 13).value_or(0), "it was in the resync set");
  }
}

// The peer has flushed it, the own device has not: what tells of it then is the activity log alone, which has one slot.
TEST_P(Counterexample, a_refused_durable_write_is_not_taken_for_durable) {
  Story story(GetParam(), [](RunOptions& options) {
    options.has_external_metadata = true;  // Its flushes are not those of the data.
    options.activity_log = {.extents = 1, .updates = true, .extent_shift = 15};
  });
  ASSERT_TRUE(story.client.write(11, 100));
  ASSERT_TRUE(story.client.flush());
  Medium& disk = story.hosts[a]->data();
  Defect defect;
  defect.length_bytes = ScriptedPair::kDataBytes;
  defect.fails_changes = defect.is_full = true;
  disk.set_defect(defect);
  ScsiCommand write = Client::write_of(11, 101);
  constexpr std::uint8_t kFua = 0x08;
  write.cdb[1] |= kFua;
  ASSERT_TRUE(story.client.perform(write));
  disk.heal();
  disk.hang();
  story.client.begin(Client::flush_of());
  story.wait_for("the peer has flushed", [&] { return story.status(a).volumes.front().out_of_sync_bytes == 0; });
  story.client.begin(Client::write_of(200, 102));
  story.run(milliseconds(50));
  story.lose_power(a);
  disk.heal();
  story.heal();
  story.expect_both(200, story.value(b, 200).value_or(0), "it was refused");
}

// Broken if nobody were told, or if what was said outlived what it is about.
TEST_P(Counterexample, what_the_only_copy_failed_is_said_until_there_are_two) {
  Story story(GetParam());
  story.hosts[b]->kill();
  ASSERT_TRUE(story.client.write(15, 100));
  Defect defect;
  defect.length_bytes = ScriptedPair::kDataBytes;
  defect.fails_changes = true;
  story.hosts[a]->data().set_defect(defect);
  EXPECT_FALSE(story.client.write(15, 101));
  const auto reason = [&] { return story.status(a).volumes.front().disk_reason; };
  EXPECT_NE(reason().find("failed a write or a flush"), std::string::npos) << reason();
  EXPECT_TRUE(story.serves(a));
  story.hosts[a]->data().heal();
  ASSERT_TRUE(story.client.write(15, 102));
  story.heal();
  EXPECT_EQ(reason(), "");
  story.expect_both(15, 102, "answered by the only copy");
}

// Otherwise an arbiter that is away at that moment turns a planned stop into an outage.
TEST_P(Counterexample, who_stops_in_order_lets_the_other_one_serve_without_an_arbiter) {
  for (const NodeIndex stopped : {a, b}) {
    Story story(GetParam());
    ASSERT_TRUE(story.client.write(12, 100));
    for (const NodeIndex node : {a, b}) story.arbiter.set_reached(node, false);
    bool is_stopped = false;
    story.hosts[stopped]->stop([&] { is_stopped = true; });
    story.wait_for("it has stopped", [&] { return is_stopped; });
    const NodeIndex other = 1 - stopped;
    story.run(milliseconds(20));
    ASSERT_TRUE(story.serves(other)) << (stopped == a ? "the Primary" : "the Secondary") << " was stopped";
    ASSERT_TRUE(story.client.log_in(*story.hosts[other]));
    EXPECT_TRUE(story.client.write(12, 101));
    story.heal();
    story.expect_both(12, 101, "answered while one was stopped");
  }
}

/// Its device loses what was written to one superblock since `before`, and damages the other one: what is left is old.
void make_record_old(SimHost& host, const std::vector<std::byte>& before) {
  constexpr std::uint64_t kSlot = blockdev::kSuperblockSlotBytes;
  Medium& metadata = host.metadata();
  metadata.preset(0, {before.data(), kSlot});
  const std::byte damaged = metadata.content()[kSlot] ^ std::byte{1};
  metadata.preset(kSlot, {&damaged, 1});
}

// protocol.md 3.1, 3.7. Broken if a node whose record is an old one, and whose device shows it, took itself for a
// member, or for the only one, though it has given way since: the arbiter knows nothing of what the two agreed upon.
TEST_P(Counterexample, a_node_that_may_have_forgotten_that_it_gave_way_serves_nothing_by_itself) {
  for (const bool was_sole : {false, true}) {
    SCOPED_TRACE(was_sole);
    Story story(GetParam(), [](RunOptions& options) { options.has_external_metadata = true; });
    const auto superblocks = [&] {
      const std::byte* bytes = story.hosts[b]->metadata().content();
      return std::vector<std::byte>(bytes, bytes + 2 * blockdev::kSuperblockSlotBytes);
    };
    if (was_sole) {
      story.hosts[a]->kill();
      story.wait_for("b goes on alone", [&] { return story.serves(b); });
    }
    const std::vector<std::byte> before = superblocks();
    story.heal();
    if (was_sole) {
      story.request(b, {.verb = node::AdminVerb::secondary, .resource = {}});
      story.request(a, {.verb = node::AdminVerb::primary, .resource = {}});
    }
    story.wait_for("a serves", [&] { return story.serves(a); });
    story.request(a, {.verb = node::AdminVerb::disconnect, .resource = {}});
    story.wait_for("a goes on alone",
                   [&] { return story.serves(a) && story.hosts[a]->inspect()->record->configuration.is_sole(a); });
    ASSERT_TRUE(story.client.log_in(*story.hosts[a]));
    ASSERT_TRUE(story.client.write(14, 100));
    ASSERT_TRUE(story.client.flush());
    for (const NodeIndex node : {a, b}) story.hosts[node]->kill();
    story.run(seconds(1));
    make_record_old(*story.hosts[b], before);
    story.hosts[b]->start();
    const Instant limit = story.timeline.now() + seconds(30);
    while (story.timeline.now() < limit) {
      story.run(milliseconds(10));
      ASSERT_FALSE(story.serves(b));
    }
    EXPECT_NE(story.status(b).volumes.front().disk_reason.find("the record may be an old one"), std::string::npos);
    EXPECT_NE(story.status(b).volumes.front().disk_reason.find("the device has lost"), std::string::npos);
    // Nor does it at the next start, when nothing is to be seen of it any more.
    story.hosts[b]->kill();
    story.run(seconds(1));
    story.hosts[b]->start();
    story.run(seconds(10));
    EXPECT_FALSE(story.serves(b));
    EXPECT_NE(story.status(b).volumes.front().disk_reason.find("the record may be an old one"), std::string::npos);
    story.heal();
    story.expect_both(14, 100, "written while b had given way");
    EXPECT_EQ(story.status(b).volumes.front().disk_reason, "");
    EXPECT_FALSE(story.hosts[b]->persisted(true).may_be_older);
  }
}

/// Node b serves, with a block to copy to a, which is back; b's disk has the defect meanwhile.
struct StuckStory : Story {
  explicit StuckStory(const Defect& defect) : Story(1) {
    hosts[a]->kill();
    wait_for("b takes over", [&] { return serves(b); });
    EXPECT_TRUE(client.log_in(*hosts[b]));
    EXPECT_TRUE(client.write(7, 100));
    hosts[b]->data().set_defect(defect);
    hosts[a]->start();
    wait_for("the resync begins", [&] { return is_syncing(); });
  }
  bool is_syncing() { return hosts[b]->inspect()->phase == node::LinkPhase::source_syncing; }
  /// How long that is, or is not, so from now on.
  Duration wait_while(bool is_syncing_now) {
    const Instant begun = timeline.now();
    wait_for("the resync ends or begins", [&] { return is_syncing() != is_syncing_now; });
    return timeline.now() - begun;
  }
  void expect_sentence() {
    const std::string sentence = "the resync made no progress for 30 s";
    EXPECT_NE(status(b).volumes.front().replication_reason.find(sentence), std::string::npos);
    EXPECT_NE(status(b).connection_reason.find(sentence), std::string::npos) << status(b).connection_reason;
    EXPECT_NE(status(a).connection_reason.find(sentence), std::string::npos) << status(a).connection_reason;
  }
  void expect_end() {
    hosts[b]->data().heal();
    heal();
    expect_both(7, 100, "written while a was away");
    EXPECT_EQ(status(b).volumes.front().replication_reason, "");
  }
  static void expect_limit(Duration lasted) {
    EXPECT_GE(lasted, seconds(29));
    EXPECT_LE(lasted, seconds(31));
  }
};

// protocol.md 6, P6. Broken if a resync that cannot go on were waited for without an end or a word, or tried hot.
TEST(StuckResync, One_that_cannot_read_ends_with_a_sentence_and_comes_back_ever_later) {
  Defect defect;
  defect.length_bytes = ScriptedPair::kDataBytes;
  defect.fails_reads = true;
  StuckStory story(defect);
  EXPECT_EQ(story.status(b).volumes.front().replication_reason, "");
  for (const Duration pause : {seconds(2), seconds(4), seconds(8), seconds(10), seconds(10)}) {
    StuckStory::expect_limit(story.wait_while(true));
    story.run(milliseconds(10));
    story.expect_sentence();
    const Duration paused = story.wait_while(false);
    EXPECT_GE(paused, pause - milliseconds(20));
    EXPECT_LE(paused, pause + milliseconds(500));
  }
  EXPECT_TRUE(story.serves(b));
  story.expect_end();
}

TEST(StuckResync, One_whose_disk_hangs_ends_with_a_sentence_and_goes_on_when_the_disk_does) {
  Defect defect;
  defect.length_bytes = ScriptedPair::kDataBytes;
  defect.holds_reads = true;
  StuckStory story(defect);
  StuckStory::expect_limit(story.wait_while(true));
  story.run(milliseconds(10));
  story.expect_sentence();
  story.run(seconds(60));
  // What the disk has is waited for before the nodes meet again.
  EXPECT_FALSE(story.is_syncing());
  EXPECT_FALSE(story.status(b).connection_reason.empty());
  story.expect_end();
}

// Without a virtual IP nothing else tells an initiator to look elsewhere: its pings are answered.
TEST_P(Counterexample, initiators_of_a_primary_that_reaches_nobody_find_the_one_that_serves) {
  Story story(GetParam());
  ASSERT_TRUE(story.client.write(13, 100));
  story.cut(true);
  story.arbiter.set_reached(a, false);
  const Instant cut_at = story.timeline.now();
  story.client.begin(Client::write_of(13, 101));
  story.wait_for("a lets its initiator go", [&] { return !story.client.is_logged_in(); });
  EXPECT_LE(story.timeline.now() - cut_at, milliseconds(1350));
  EXPECT_FALSE(story.client.reply());
  EXPECT_TRUE(story.serves(b)) << "earlier it would find nobody";
  const Instant asked_at = story.timeline.now();
  EXPECT_FALSE(story.client.try_to_log_in(*story.hosts[a]));
  EXPECT_LE(story.timeline.now() - asked_at, milliseconds(50)) << "refused at once, not kept waiting for a role";
  ASSERT_TRUE(story.client.log_in(*story.hosts[b]));
  ASSERT_TRUE(story.client.write(13, 102));
  EXPECT_LE(story.timeline.now() - cut_at, milliseconds(1600));
  story.arbiter.set_reached(a, true);
  story.heal();
  story.expect_both(13, 102, "what a held is not made good");
}

// Nobody serves until the arbiter is back; then everything is as it was, and what was held comes before what is new.
TEST_P(Counterexample, a_primary_that_let_its_initiators_go_takes_them_back_when_it_may_go_on) {
  Story story(GetParam());
  ASSERT_TRUE(story.client.write(14, 100));
  for (const NodeIndex node : {a, b}) story.arbiter.set_reached(node, false);
  story.lose_power(b);
  story.client.begin(Client::write_of(14, 101));
  story.wait_for("a lets its initiator go", [&] { return !story.client.is_logged_in(); });
  story.run(seconds(20));
  EXPECT_FALSE(story.client.try_to_log_in(*story.hosts[a]));
  story.arbiter.set_reached(a, true);
  story.wait_for("a goes on", [&] { return story.serves(a); });
  ASSERT_TRUE(story.client.log_in(*story.hosts[a]));
  ASSERT_TRUE(story.client.write(14, 102));
  story.arbiter.set_reached(b, true);
  story.heal();
  story.expect_both(14, 102, "answered last");
}

TEST_P(Counterexample, a_freeze_that_ends_in_time_costs_no_initiator_its_session) {
  for (const bool is_silent : {false, true}) {
    Story story(GetParam());
    ASSERT_TRUE(story.client.write(15, 100));
    is_silent ? story.lose_power(b) : story.hosts[b]->kill();
    story.client.begin(Client::write_of(15, 101));
    story.wait_for("it is answered", [&] { return story.client.reply() || !story.client.is_logged_in(); });
    ASSERT_TRUE(story.client.reply()) << "over the same connection";
    EXPECT_EQ(story.client.reply()->status, 0);
    story.heal();
    story.expect_both(15, 101, "answered");
  }
}

}  // namespace
}  // namespace replblk::sim
