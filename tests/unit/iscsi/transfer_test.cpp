#include "iscsi/transfer.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace replblk::iscsi {
namespace {

SessionParameters parameters(bool initial_r2t, std::uint32_t first_burst, std::uint32_t max_burst,
                             std::uint16_t r2t = 1) {
  SessionParameters made;
  made.initial_r2t = initial_r2t;
  made.first_burst_bytes = first_burst;
  made.max_burst_bytes = max_burst;
  made.max_outstanding_r2t = r2t;
  return made;
}
DataOut data_out(std::uint32_t data_sn, std::uint32_t offset, std::uint32_t length, bool is_final) {
  DataOut pdu;
  pdu.data_sn = data_sn;
  pdu.offset_bytes = offset;
  pdu.data_segment_bytes = length;
  pdu.is_final = is_final;
  return pdu;
}

// If it failed, a large write would be asked for wrongly and hang or tear.
TEST(DataOutTransfer, Asks_burst_by_burst_for_what_did_not_come_unasked) {
  DataOutTransfer transfer;
  ASSERT_TRUE(transfer.start({10000, 10000, 2000, true}, parameters(false, 4000, 4096)));
  EXPECT_FALSE(transfer.next_r2t()) << "unsolicited data is still coming";
  EXPECT_TRUE(transfer.receive_unsolicited(data_out(0, 2000, 1000, false)));
  EXPECT_TRUE(transfer.receive_unsolicited(data_out(1, 3000, 1000, true)));
  EXPECT_EQ(transfer.next_r2t(), (R2tGrant{0, 4000, 4096}));
  EXPECT_FALSE(transfer.next_r2t()) << "MaxOutstandingR2T is 1";
  EXPECT_TRUE(transfer.receive_solicited(data_out(0, 4000, 4000, false), 0));
  EXPECT_TRUE(transfer.receive_solicited(data_out(1, 8000, 96, true), 0));
  EXPECT_FALSE(transfer.is_complete());
  EXPECT_EQ(transfer.next_r2t(), (R2tGrant{1, 8096, 1904}));
  EXPECT_TRUE(transfer.receive_solicited(data_out(0, 8096, 1904, true), 1));
  EXPECT_TRUE(transfer.is_complete());
  EXPECT_FALSE(transfer.is_spoiled());
  EXPECT_FALSE(transfer.next_r2t());
}

// If it failed, two R2Ts would ask for the same bytes, or the second's data would be refused.
TEST(DataOutTransfer, Keeps_several_r2t_outstanding_in_order) {
  DataOutTransfer transfer;
  ASSERT_TRUE(transfer.start({3000, 3000, 0, false}, parameters(true, 512, 1024, 2)));
  EXPECT_EQ(transfer.next_r2t(), (R2tGrant{0, 0, 1024}));
  EXPECT_EQ(transfer.next_r2t(), (R2tGrant{1, 1024, 1024}));
  EXPECT_FALSE(transfer.next_r2t());
  EXPECT_FALSE(DataOutTransfer(transfer).receive_solicited(data_out(0, 1024, 1024, true), 1)) << "out of order";
  EXPECT_TRUE(transfer.receive_solicited(data_out(0, 0, 1024, true), 0));
  EXPECT_EQ(transfer.next_r2t(), (R2tGrant{2, 2048, 952}));
}

// If it failed, an initiator could write outside what it was asked for.
TEST(DataOutTransfer, Refuses_what_was_not_negotiated_or_asked_for) {
  DataOutTransfer transfer;
  EXPECT_FALSE(transfer.start({8192, 8192, 5000, false}, parameters(false, 4096, 8192)))
      << "immediate data > FirstBurstLength";
  EXPECT_FALSE(transfer.start({512, 512, 1024, false}, parameters(false, 4096, 8192))) << "more than was announced";
  EXPECT_FALSE(transfer.start({8192, 8192, 0, true}, parameters(true, 4096, 8192))) << "unsolicited with InitialR2T";
  SessionParameters no_immediate = parameters(false, 4096, 8192);
  no_immediate.immediate_data = false;
  EXPECT_FALSE(transfer.start({8192, 8192, 512, false}, no_immediate));

  ASSERT_TRUE(transfer.start({8192, 8192, 0, true}, parameters(false, 4096, 8192)));
  EXPECT_FALSE(DataOutTransfer(transfer).receive_unsolicited(data_out(0, 512, 512, false))) << "a hole";
  EXPECT_FALSE(DataOutTransfer(transfer).receive_unsolicited(data_out(0, 0, 4097, true))) << "beyond FirstBurstLength";
  EXPECT_FALSE(DataOutTransfer(transfer).receive_unsolicited(data_out(0, 0, 4096, false))) << "no F at the end";
  EXPECT_FALSE(DataOutTransfer(transfer).receive_solicited(data_out(0, 0, 512, false), 0)) << "nothing was asked for";

  ASSERT_TRUE(transfer.start({8192, 8192, 0, false}, parameters(true, 4096, 4096)));
  ASSERT_TRUE(transfer.next_r2t());
  EXPECT_FALSE(DataOutTransfer(transfer).receive_solicited(data_out(0, 0, 4097, true), 0)) << "beyond the burst";
  EXPECT_FALSE(DataOutTransfer(transfer).receive_solicited(data_out(0, 0, 512, true), 0)) << "F before the end";
  EXPECT_FALSE(DataOutTransfer(transfer).receive_solicited(data_out(0, 0, 4096, false), 0)) << "no F at the end";
  EXPECT_FALSE(DataOutTransfer(transfer).receive_solicited(data_out(0, 0xffffff00, 512, false), 0)) << "offset wraps";
  EXPECT_FALSE(DataOutTransfer(transfer).receive_unsolicited(data_out(0, 0, 512, true))) << "nothing may come unasked";
}

// If it failed, a lost Data-Out PDU would go unnoticed into a GOOD status.
TEST(DataOutTransfer, A_wrong_DataSN_spoils_the_command) {
  DataOutTransfer transfer;
  ASSERT_TRUE(transfer.start({1024, 1024, 0, true}, parameters(false, 4096, 8192)));
  EXPECT_TRUE(transfer.receive_unsolicited(data_out(0, 0, 512, false)));
  EXPECT_TRUE(transfer.receive_unsolicited(data_out(0, 512, 512, true)));
  EXPECT_TRUE(transfer.is_complete());
  EXPECT_TRUE(transfer.is_spoiled());
}

// If it failed, an initiator would get larger PDUs or bursts than it can take.
TEST(DataInCutter, Respects_segment_and_burst_limits) {
  SessionParameters limits = parameters(false, 4096, 10000);
  limits.initiator_recv_bytes = 8192;
  DataInCutter cutter(25000, limits);
  std::vector<DataInSegment> segments;
  while (!cutter.is_done()) segments.push_back(cutter.next());
  EXPECT_EQ(segments, (std::vector<DataInSegment>{{0, 8192, false, false},
                                                  {8192, 1808, true, false},
                                                  {10000, 8192, false, false},
                                                  {18192, 1808, true, false},
                                                  {20000, 5000, true, true}}));
}

// If it failed, an initiator would trust bytes that never came.
TEST(Residual, Says_how_expectation_and_command_differ) {
  EXPECT_EQ(residual_of(512, 512), Residual{});
  EXPECT_EQ(residual_of(512, 1024), (Residual{true, false, 512}));
  EXPECT_EQ(residual_of(1024, 512), (Residual{false, true, 512}));
}

}  // namespace
}  // namespace replblk::iscsi
