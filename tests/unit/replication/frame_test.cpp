#include "replication/frame.hpp"

#include <gtest/gtest.h>

#include "base/crc32c.hpp"

namespace replblk::replication {
namespace {

FrameHeader write_header() {
  FrameHeader header;
  header.type = FrameType::write;
  header.is_durable = true;
  header.volume = 3;
  header.payload_length_bytes = 4096;
  header.payload_crc = 0x12345678;
  header.offset_bytes = 0x1122334455667000;
  header.length_bytes = 4096;
  header.sequence = 0x0102030405060708;
  header.term = 42;
  return header;
}

void reseal(FrameHeaderBytes& bytes) { store_le(&bytes[60], crc32c(ConstBytes(bytes).first(60))); }

TEST(Frame, Header_round_trips_as_docs_say) {
  const FrameHeaderBytes bytes = encode_frame_header(write_header());
  EXPECT_EQ(as_text(ConstBytes(bytes).first(4)), "RBF1");
  EXPECT_EQ(bytes[4], std::byte{2});
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[40]), 42u);
  const auto decoded = decode_frame_header(bytes);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(*decoded, write_header());
}

// A flipped bit that passes would write data to another place or volume.
TEST(Frame, Every_flipped_bit_of_a_header_is_detected) {
  const FrameHeaderBytes good = encode_frame_header(write_header());
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    FrameHeaderBytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    EXPECT_FALSE(decode_frame_header(bad).has_value()) << bit;
  }
}

TEST(Frame, What_a_type_does_not_allow_is_refused_although_the_checksum_is_right) {
  const auto decode_with = [](auto change) {
    FrameHeader header = write_header();
    change(header);
    return decode_frame_header(encode_frame_header(header));
  };
  EXPECT_EQ(decode_with([](FrameHeader& h) { h.payload_length_bytes = 512; }).error(), FrameError::length);
  EXPECT_EQ(decode_with([](FrameHeader& h) { h.payload_length_bytes = 0, h.length_bytes = 0; }).error(),
            FrameError::length);
  EXPECT_EQ(decode_with([](FrameHeader& h) { h.payload_length_bytes = 8u << 20, h.length_bytes = 8u << 20; }).error(),
            FrameError::length);
  EXPECT_EQ(decode_with([](FrameHeader& h) { h.type = FrameType::ping; }).error(), FrameError::length);
  EXPECT_EQ(decode_with([](FrameHeader& h) { h.type = FrameType::acknowledge, h.payload_length_bytes = 15; }).error(),
            FrameError::length);
  EXPECT_EQ(decode_with([](FrameHeader& h) {
              h.type = FrameType::discard, h.payload_length_bytes = 0, h.length_bytes = 100;
            }).error(),
            FrameError::length);
  // Checksums: one entry of 16 bytes at least, 1024 at most; a request carries nothing and covers something.
  const auto decode_checksums = [&](std::uint32_t payload) {
    return decode_with([payload](FrameHeader& h) { h.type = FrameType::checksums, h.payload_length_bytes = payload; });
  };
  EXPECT_TRUE(decode_checksums(16).has_value());
  EXPECT_TRUE(decode_checksums(16 * 1024).has_value());
  for (const std::uint32_t payload : {0u, 8u, 24u, 16u * 1025}) {
    EXPECT_EQ(decode_checksums(payload).error(), FrameError::length) << payload;
  }
  const auto decode_request = [&](std::uint32_t payload, std::uint64_t length) {
    return decode_with([=](FrameHeader& h) {
      h.type = FrameType::checksum_request, h.payload_length_bytes = payload, h.length_bytes = length;
    });
  };
  EXPECT_TRUE(decode_request(0, 4u << 20).has_value());
  EXPECT_EQ(decode_request(0, 0).error(), FrameError::length);
  EXPECT_EQ(decode_request(0, 100).error(), FrameError::length);
  EXPECT_EQ(decode_request(0, (4u << 20) + 512).error(), FrameError::length);
  EXPECT_EQ(decode_request(4096, 4096).error(), FrameError::length);
  const auto decode_read = [&](FrameType type, std::uint32_t payload, std::uint64_t length) {
    return decode_with(
        [=](FrameHeader& h) { h.type = type, h.payload_length_bytes = payload, h.length_bytes = length; });
  };
  EXPECT_TRUE(decode_read(FrameType::read_request, 0, 4u << 20).has_value());
  EXPECT_EQ(decode_read(FrameType::read_request, 0, (4u << 20) + 512).error(), FrameError::length);
  EXPECT_EQ(decode_read(FrameType::read_request, 512, 512).error(), FrameError::length);
  EXPECT_TRUE(decode_read(FrameType::read_data, 4096, 4096).has_value());
  EXPECT_EQ(decode_read(FrameType::read_data, 4096, 8192).error(), FrameError::length);
  const auto decode_heartbeat = [&](std::uint32_t payload) {
    return decode_with(
        [=](FrameHeader& h) { h.type = FrameType::heartbeat, h.payload_length_bytes = payload, h.length_bytes = 0; });
  };
  EXPECT_TRUE(decode_heartbeat(272).has_value());
  EXPECT_EQ(decode_heartbeat(256).error(), FrameError::length);
  FrameHeaderBytes bytes = encode_frame_header(write_header());
  bytes[4] = std::byte{17};
  reseal(bytes);
  EXPECT_EQ(decode_frame_header(bytes).error(), FrameError::type);
  bytes = encode_frame_header(write_header());
  bytes[5] = std::byte{2};
  reseal(bytes);
  EXPECT_EQ(decode_frame_header(bytes).error(), FrameError::flags);
  bytes = encode_frame_header(write_header());
  bytes[50] = std::byte{1};
  reseal(bytes);
  EXPECT_EQ(decode_frame_header(bytes).error(), FrameError::reserved);
}

}  // namespace
}  // namespace replblk::replication
