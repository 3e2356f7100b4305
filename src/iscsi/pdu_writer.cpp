#include "iscsi/pdu_writer.hpp"

#include <array>
#include <cstring>

#include "base/crc32c.hpp"
#include "ports/stream.hpp"

namespace replblk::iscsi {

namespace {

constexpr std::size_t kHeaderBytesMax = kBhsBytes + kDigestBytes;
constexpr std::size_t kTrailerBytesMax = 3 + kDigestBytes;

}  // namespace

std::size_t PduWriter::put_header(Bhs& bhs, std::size_t data_bytes, std::byte* to) const noexcept {
  store_be24(bhs.data() + 5, static_cast<std::uint32_t>(data_bytes));
  std::memcpy(to, bhs.data(), kBhsBytes);
  if (!has_header_digest_) return kBhsBytes;
  store_le(to + kBhsBytes, crc32c(bhs));
  return kHeaderBytesMax;
}

std::size_t PduWriter::put_trailer(ConstBytes data, std::byte* to) const noexcept {
  if (data.empty()) return 0;
  const std::size_t padding = padding_bytes(data.size());
  std::memset(to, 0, padding);
  if (!has_data_digest_) return padding;
  store_le(to + padding, crc32c(ConstBytes(to, padding), crc32c(data)));
  return padding + kDigestBytes;
}

void PduWriter::send(Bhs bhs, ConstBytes data) {
  std::array<std::byte, kHeaderBytesMax + kOnePieceBytesMax + kTrailerBytesMax> piece;
  std::size_t size = put_header(bhs, data.size(), piece.data());
  if (data.size() <= kOnePieceBytesMax) {
    if (!data.empty()) std::memcpy(piece.data() + size, data.data(), data.size());
    size += data.size();
  } else {
    stream_.send(ConstBytes(piece).first(size));
    stream_.send(data);
    size = 0;
  }
  size += put_trailer(data, piece.data() + size);
  if (size > 0) stream_.send(ConstBytes(piece).first(size));
}

void PduWriter::send(Bhs bhs, BufferRef buffer, std::size_t offset_bytes, std::size_t length_bytes) {
  std::array<std::byte, kHeaderBytesMax> header;
  stream_.send(ConstBytes(header).first(put_header(bhs, length_bytes, header.data())));
  std::array<std::byte, kTrailerBytesMax> trailer;
  const std::size_t trailer_size = put_trailer(buffer.bytes(offset_bytes, length_bytes), trailer.data());
  stream_.send(std::move(buffer), offset_bytes, length_bytes);
  if (trailer_size > 0) stream_.send(ConstBytes(trailer).first(trailer_size));
}

void PduWriter::abort_after(Bhs bhs, Duration wait) noexcept {
  std::array<std::byte, kHeaderBytesMax> header;
  stream_.abort_after(ConstBytes(header).first(put_header(bhs, 0, header.data())), wait);
}

}  // namespace replblk::iscsi
