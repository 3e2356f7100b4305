#include "iscsi/pdu_reader.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "iscsi_fixture.hpp"

namespace replblk::iscsi {
namespace {

using Event = PduReader::Event;

struct Taken {
  Bhs bhs{};
  std::vector<std::byte> data;
};

/// Feeds `bytes` in pieces of `step`; the PDUs, and an empty vector after an error.
std::vector<Taken> read_all(PduReader& reader, ConstBytes bytes, std::size_t step) {
  std::vector<Taken> taken;
  std::vector<std::byte> place;
  while (!bytes.empty()) {
    ConstBytes piece = bytes.first(std::min(step, bytes.size()));
    bytes = bytes.subspan(piece.size());
    for (;;) {
      const Event event = reader.advance(piece);
      if (event == Event::need_more) break;
      if (event == Event::error) return {};
      if (event == Event::header) {
        place.assign(reader.data_bytes(), std::byte{0});
        reader.place(place);
      } else {
        taken.push_back({reader.bhs(), place});
      }
    }
    EXPECT_TRUE(piece.empty());
  }
  return taken;
}

// If it failed, a TCP segment boundary in the wrong place would break the session.
TEST(PduReader, Understands_a_stream_however_it_is_cut) {
  test::Initiator initiator;
  for (const bool has_digests : {false, true}) {
    initiator.has_header_digest = initiator.has_data_digest = has_digests;
    std::vector<std::byte> stream;
    for (const std::size_t length : {0u, 1u, 2u, 3u, 4u, 511u, 1000u}) {
      NopOut pdu;
      pdu.initiator_task_tag = static_cast<std::uint32_t>(length);
      const std::vector<std::byte> bytes = initiator.pack(encode(pdu), test::pattern(length, 1));
      stream.insert(stream.end(), bytes.begin(), bytes.end());
    }
    for (const std::size_t step : {std::size_t{1}, std::size_t{7}, std::size_t{49}, stream.size()}) {
      PduReader reader;
      reader.set_digests(has_digests, has_digests);
      const std::vector<Taken> taken = read_all(reader, stream, step);
      ASSERT_EQ(taken.size(), 7u) << step;
      for (const Taken& pdu : taken) {
        EXPECT_EQ(pdu.data, test::pattern(decode_nop_out(pdu.bhs).initiator_task_tag, 1));
      }
    }
  }
}

// If it failed, an additional header segment would be taken for data.
TEST(PduReader, Skips_additional_header_segments_and_digests_them) {
  test::Initiator initiator;
  Bhs bhs = encode(NopOut{});
  bhs[4] = std::byte{2};
  store_be24(bhs.data() + 5, 4);
  std::vector<std::byte> bytes(bhs.begin(), bhs.end());
  for (int count = 0; count < 8; ++count) bytes.push_back(std::byte{0xaa});
  std::byte digest[4];
  store_le(digest, crc32c(bytes));
  bytes.insert(bytes.end(), digest, digest + 4);
  const std::vector<std::byte> data = test::pattern(4, 9);
  bytes.insert(bytes.end(), data.begin(), data.end());
  PduReader reader;
  reader.set_digests(true, false);
  const std::vector<Taken> taken = read_all(reader, bytes, 5);
  ASSERT_EQ(taken.size(), 1u);
  EXPECT_EQ(taken[0].data, data);
}

// If it failed, corrupted data would reach the disk (RFC 7143 7.8).
TEST(PduReader, Finds_every_flipped_bit_under_digests) {
  test::Initiator initiator;
  initiator.has_header_digest = initiator.has_data_digest = true;
  const std::vector<std::byte> good = initiator.pack(encode(NopOut{}), test::pattern(6, 3));
  for (std::size_t at = 0; at < good.size(); ++at) {
    // The bytes of the lengths say how much comes: with them broken the reader may wait for more, but accepts nothing.
    std::vector<std::byte> bad = good;
    bad[at] ^= std::byte{0x10};
    PduReader reader;
    reader.set_digests(true, true);
    reader.set_data_bytes_max(1u << 24);
    EXPECT_TRUE(read_all(reader, bad, bad.size()).empty()) << at;
  }
}

// If it failed, a peer could send more than was declared, and memory would be sized by it.
TEST(PduReader, Refuses_a_data_segment_longer_than_declared) {
  PduReader reader;
  reader.set_data_bytes_max(512);
  Bhs bhs = encode(NopOut{});
  store_be24(bhs.data() + 5, 513);
  ConstBytes input(bhs);
  EXPECT_EQ(reader.advance(input), Event::error);
  EXPECT_EQ(reader.error(), PduReader::Error::data_too_long);
}

// If it failed, data that the kernel placed itself would not be checked or counted.
TEST(PduReader, Counts_bytes_that_were_received_directly) {
  test::Initiator initiator;
  initiator.has_data_digest = true;
  const std::vector<std::byte> data = test::pattern(1001, 5);
  const std::vector<std::byte> bytes = initiator.pack(encode(NopOut{}), data);
  PduReader reader;
  reader.set_digests(false, true);
  ConstBytes head = ConstBytes(bytes).first(kBhsBytes + 10);
  ASSERT_EQ(reader.advance(head), Event::header);
  std::vector<std::byte> place(1001);
  reader.place(place);
  EXPECT_EQ(reader.advance(head), Event::need_more);
  const MutableBytes room = reader.direct_room();
  ASSERT_EQ(room.size(), 991u);
  std::copy(data.begin() + 10, data.end(), room.begin());
  reader.direct_received(991);
  EXPECT_TRUE(reader.direct_room().empty());
  ConstBytes rest = ConstBytes(bytes).subspan(kBhsBytes + 1001);
  EXPECT_EQ(reader.advance(rest), Event::complete);
  EXPECT_EQ(place, data);
}

}  // namespace
}  // namespace replblk::iscsi
