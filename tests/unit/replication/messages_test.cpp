#include "replication/messages.hpp"

#include <gtest/gtest.h>

#include "replication/frame.hpp"

namespace replblk::replication {
namespace {

template <class T>
T round_trip(const T& message) {
  const auto decoded = decode(as_bytes(encode(message)));
  EXPECT_TRUE(decoded.has_value());
  return std::get<T>(*decoded);
}

// A field that is lost on the way changes the plan on one side only.
TEST(Messages, Introduction_arrives_whole) {
  Introduction message;
  message.shared_fields = {"a=1", "b=2"};
  VolumeIntroduction volume;
  volume.uuid.bytes[3] = std::byte{9};
  volume.size_bytes = 1u << 30;
  volume.logical_block_bytes = 512;
  volume.bitmap_block_bytes = 4096;
  volume.has_dirty_blocks = true;
  volume.dirty_bytes = 12288;
  volume.dirty_ranges = {{0, 4096}, {65536, 8192}};
  message.volumes = {volume};
  message.configuration = {5, 3, 1};
  message.seen = 6;
  message.pair_id.bytes[15] = std::byte{3};
  message.generations = {{5, 1}, {4, 2}, {{3, 3}, {2, 4}}};
  message.is_inconsistent = message.is_crashed_primary = message.survived_connected = message.is_sync_paused = true;
  message.discards_data = message.was_primary_at_parting = true;
  message.alone_since_ms = 7;
  message.hardware_addresses = {{{2, 0, 0, 0, 0, 1}}, {{2, 0, 0, 0, 0, 9}}};
  const Introduction back = round_trip(message);
  EXPECT_TRUE(back.discards_data && back.was_primary_at_parting);
  EXPECT_EQ(back.alone_since_ms, 7u);
  EXPECT_EQ(back.hardware_addresses, message.hardware_addresses);
  EXPECT_EQ(back.shared_fields, message.shared_fields);
  EXPECT_EQ(back.volumes, message.volumes);
  EXPECT_EQ(back.configuration, message.configuration);
  EXPECT_EQ(back.seen, 6u);
  EXPECT_EQ(back.pair_id, message.pair_id);
  EXPECT_EQ(back.generations, message.generations);
  EXPECT_TRUE(back.is_inconsistent && back.is_crashed_primary && back.survived_connected && back.is_sync_paused);
  EXPECT_FALSE(back.is_outdated || back.may_have_lost_cache || back.is_primary);
}

TEST(Messages, Proposal_and_acknowledgement_arrive_whole) {
  const std::string table("t\0\xff", 3);
  const Proposal back = round_trip(Proposal{{9, 3, blockdev::kNoNode}, {{8, 1}, {}, {{7, 2}}}, table});
  EXPECT_EQ(back.configuration, (blockdev::Configuration{9, 3, blockdev::kNoNode}));
  EXPECT_EQ(back.generations, (blockdev::GenerationSet{{8, 1}, {}, {{7, 2}}}));
  EXPECT_EQ(back.reservations, table);
  EXPECT_EQ(round_trip(ProposalAck{77}).term, 77u);
}

TEST(Messages, Resize_and_its_reply_arrive_whole) {
  const Resize asked = round_trip(Resize{ResizeStep::grow, {1 << 20, 2 << 20}});
  EXPECT_EQ(asked.step, ResizeStep::grow);
  EXPECT_EQ(asked.sizes_bytes, (std::vector<std::uint64_t>{1 << 20, 2 << 20}));
  const ResizeReply answer = round_trip(ResizeReply{ResizeStep::measure, {5}, "no\x01"});
  EXPECT_EQ(answer.step, ResizeStep::measure);
  EXPECT_EQ(answer.sizes_bytes, (std::vector<std::uint64_t>{5}));
  EXPECT_EQ(answer.failure, "no?");
}

TEST(Messages, Invalidate_arrives) { static_cast<void>(round_trip(Invalidate{})); }

TEST(Messages, Pause_arrives) {
  EXPECT_TRUE(round_trip(SyncPause{true}).is_paused);
  EXPECT_FALSE(round_trip(SyncPause{false}).is_paused);
}

TEST(Messages, Progress_and_a_request_for_a_verify_arrive_whole) {
  SyncProgress progress;
  progress.activity = SyncProgress::Activity::verify;
  progress.volumes = {{4, 3, 2, 1}, {8, 7, 6, 5}};
  const SyncProgress back = round_trip(progress);
  EXPECT_EQ(back.activity, SyncProgress::Activity::verify);
  EXPECT_EQ(back.volumes, progress.volumes);
  const VerifyRequest request = round_trip(VerifyRequest{5, 9, true});
  EXPECT_EQ(request.start_bytes, 5u);
  EXPECT_EQ(request.stop_bytes, 9u);
  EXPECT_TRUE(request.is_repair);
  // Nothing to compare; more left than there is.
  EXPECT_FALSE(decode(as_bytes(encode(VerifyRequest{9, 9, false}))).has_value());
  progress.volumes = {{3, 4, 0, 0}};
  EXPECT_FALSE(decode(as_bytes(encode(progress))).has_value());
}

// The largest table must fit one control frame (docs/peer_protocol.md 1).
TEST(Messages, Reservations_and_acknowledgement_arrive_whole) {
  const std::string table(blockdev::ResourceRecord::kReservationsBytesMax, '\xfe');
  const Reservations back = round_trip(Reservations{UINT64_MAX, table});
  EXPECT_EQ(back.number, UINT64_MAX);
  EXPECT_EQ(back.table, table);
  EXPECT_EQ(round_trip(ReservationsAck{3}).number, 3u);
  Proposal proposal{{9, 3, 1}, {{8, 1}, {}, {}}, table};
  proposal.generations.history.resize(blockdev::GenerationSet::kHistoryCountMax, {UINT64_MAX, UINT64_MAX});
  EXPECT_LE(encode(proposal).size(), kControlBytesMax);
}

TEST(Messages, What_cannot_be_is_refused) {
  EXPECT_FALSE(decode(as_bytes("not protobuf at all")).has_value());
  EXPECT_FALSE(decode({}).has_value());
  Hello short_nonce;
  short_nonce.nonce = "short";
  EXPECT_FALSE(decode(as_bytes(encode(short_nonce))).has_value());
  // Broken if somebody without the secret could write lines of its own into the log.
  Hello two_lines;
  two_lines.nonce = std::string(kNonceBytes, 'n');
  EXPECT_TRUE(decode(as_bytes(encode(two_lines))).has_value());
  two_lines.node = "a\nall is well";
  EXPECT_FALSE(decode(as_bytes(encode(two_lines))).has_value());
  EXPECT_EQ(round_trip(Refusal{"no\x1b[2J\nway", true}).reason, "no?[2J?way");
  // A primary that is no member.
  EXPECT_FALSE(decode(as_bytes(encode(Proposal{{9, 1, 1}, {}, {}}))).has_value());
  EXPECT_FALSE(decode(as_bytes(encode(Proposal{{9, 7, 1}, {}, {}}))).has_value());
  Proposal long_history{{9, 3, 1}, {}, {}};
  long_history.generations.history.resize(33);
  EXPECT_FALSE(decode(as_bytes(encode(long_history))).has_value());
  Introduction many_ranges;
  many_ranges.volumes.resize(2);
  for (VolumeIntroduction& volume : many_ranges.volumes) volume.dirty_ranges.resize(kDirtyRangesMax / 2 + 1);
  EXPECT_FALSE(decode(as_bytes(encode(many_ranges))).has_value());
}

}  // namespace
}  // namespace replblk::replication
