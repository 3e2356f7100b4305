// What happens when the buffer pool is exhausted: everything waits in order, nobody waits for ever.
#include <gtest/gtest.h>

#include "iscsi_fixture.hpp"

namespace replblk::iscsi::test {
namespace {

class MemoryTest : public IscsiTest {
 protected:
  MemoryTest() : IscsiTest({}, {}, std::size_t{4} << 20) {}
  std::string big_bursts() { return keys({"InitialR2T=No", "MaxBurstLength=8388608", "FirstBurstLength=262144"}); }

  Initiator& initiator = make_initiator();
};

// If it failed, an R2T would promise room that is not there, or never be sent.
TEST_F(MemoryTest, R2T_is_sent_when_the_buffer_is_there) {
  log_in_ready(initiator, 1, big_bursts());
  BufferRef all = buffers.acquire(BufferPool::kBufferBytesMax);
  ASSERT_TRUE(all);
  initiator.send(encode(initiator.write10(0, 8)));
  loop.run();
  EXPECT_TRUE(initiator.take_answers().empty());
  all.reset();
  loop.run();
  EXPECT_EQ(initiator.take_answer().opcode(), Opcode::r2t);
}

// If it failed, immediate data would be lost, or kept in memory without bound.
TEST_F(MemoryTest, Immediate_data_without_a_buffer_stops_the_connection_until_there_is_one) {
  log_in_ready(initiator, 1, big_bursts());
  BufferRef all = buffers.acquire(BufferPool::kBufferBytesMax);
  initiator.send(encode(initiator.write10(0, 8)), pattern(4096, 1));
  initiator.send(encode(initiator.write10(8, 8)), pattern(4096, 2));
  loop.run();
  EXPECT_TRUE(initiator.take_answers().empty());
  EXPECT_TRUE(initiator.wire.stream->is_paused());
  loop.advance(seconds(60));
  EXPECT_FALSE(initiator.wire.is_over()) << "we do not listen, so silence is not the initiator's fault";
  all.reset();
  loop.run();
  initiator.wire.deliver({});
  loop.run();
  unsigned good = 0;
  for (const Answer& answer : initiator.take_answers()) {
    if (answer.opcode() == Opcode::scsi_response && decode_scsi_response(answer.bhs).status == 0) ++good;
  }
  EXPECT_EQ(good, 2u);
  EXPECT_EQ(disk.data[4096 + 7], pattern(4096, 2)[7]);
}

// If it failed, a connection would wait for memory that only its own unread data can set free: for ever.
TEST_F(MemoryTest, A_connection_with_half_filled_buffers_answers_task_set_full_instead_of_stopping) {
  log_in_ready(initiator, 1, big_bursts());
  const ScsiCommand large = initiator.write10(0, 8192);  // 4 MiB: the whole pool.
  initiator.send(encode(large));
  loop.run();
  const R2t r2t = decode_r2t(initiator.take_answer().bhs);
  const std::vector<Answer> refused = exchange(initiator, initiator.write10(0, 8), pattern(4096, 1));
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(decode_scsi_response(refused[0].bhs).status, 0x28);
  DataOut pdu;
  pdu.initiator_task_tag = large.initiator_task_tag;
  pdu.target_transfer_tag = r2t.target_transfer_tag;
  const std::vector<std::byte> data = pattern(8192 * 512, 3);
  while (pdu.offset_bytes < data.size()) {
    pdu.is_final = pdu.offset_bytes + 262144 == data.size();
    initiator.send(encode(pdu), ConstBytes(data).subspan(pdu.offset_bytes, 262144));
    pdu.offset_bytes += 262144;
    ++pdu.data_sn;
  }
  loop.run();
  EXPECT_EQ(decode_scsi_response(initiator.take_answer().bhs).status, 0);
  EXPECT_EQ(disk.data[1000000], data[1000000]);
}

// If it failed, a session that ends while it waits for memory would be called back after its death.
TEST_F(MemoryTest, A_session_that_waits_for_memory_can_end) {
  log_in_ready(initiator, 1, big_bursts());
  BufferRef all = buffers.acquire(BufferPool::kBufferBytesMax);
  initiator.send(encode(initiator.write10(0, 8)));
  loop.run();
  Initiator& other = make_initiator();
  log_in_ready(other, 2, big_bursts());
  other.send(encode(other.write10(0, 8)), pattern(4096, 1));
  loop.run();
  initiator.wire.close_by_peer();
  other.wire.close_by_peer();
  all.reset();
  loop.run();
  EXPECT_TRUE(target->is_idle());
}

}  // namespace
}  // namespace replblk::iscsi::test
