#include "iscsi/pdu_reader.hpp"

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "base/crc32c.hpp"

namespace replblk::iscsi {

namespace {

/// Moves up to `wanted` bytes from the front of `input`.
std::size_t move_bytes(ConstBytes& input, std::byte* to, std::size_t wanted) noexcept {
  const std::size_t count = std::min(wanted, input.size());
  if (count > 0) std::memcpy(to, input.data(), count);
  input = input.subspan(count);
  return count;
}

}  // namespace

std::string_view to_string(PduReader::Error error) noexcept {
  switch (error) {
    case PduReader::Error::none:
      return "none";
    case PduReader::Error::header_digest:
      return "header digest is wrong";
    case PduReader::Error::data_digest:
      return "data digest is wrong";
    case PduReader::Error::data_too_long:
      return "data segment is longer than was declared";
  }
  RB_UNREACHABLE();
}

PduReader::Event PduReader::advance(ConstBytes& input) noexcept {
  switch (state_) {
    case State::header:
      if (!fill_header(input)) return Event::need_more;
      if (has_header_digest_) {
        const std::size_t ahs = ahs_bytes(bhs_);
        // The digest covers BHS and AHS, and travels in the CRC's own byte order (RFC 7143 13.1 and appendix A).
        const std::uint32_t crc = crc32c(ConstBytes(rest_).first(ahs), crc32c(bhs_));
        if (crc != load_le<std::uint32_t>(rest_.data() + ahs)) return fail(Error::header_digest);
      }
      data_bytes_ = data_segment_bytes(bhs_);
      if (data_bytes_ > data_bytes_max_) return fail(Error::data_too_long);
      filled_bytes_ = 0;
      received_bytes_ = 0;
      data_crc_ = 0;
      place_ = {};
      state_ = State::placing;
      return Event::header;
    case State::placing:
      RB_UNREACHABLE();
    case State::data: {
      const ConstBytes bytes = input.first(std::min<std::size_t>(input.size(), data_bytes_ - received_bytes_));
      input = input.subspan(bytes.size());
      if (received_bytes_ < place_.size() && !bytes.empty()) {
        std::memcpy(place_.data() + received_bytes_, bytes.data(),
                    std::min(bytes.size(), place_.size() - received_bytes_));
      }
      take_data(bytes);
      if (received_bytes_ < data_bytes_) return Event::need_more;
      state_ = State::trailer;
      [[fallthrough]];
    }
    case State::trailer: {
      const std::size_t size = trailer_size();
      filled_bytes_ += move_bytes(input, trailer_.data() + filled_bytes_, size - filled_bytes_);
      if (filled_bytes_ < size) return Event::need_more;
      if (has_data_digest_ && data_bytes_ > 0) {
        // The data digest covers the padding too (RFC 7143 11.2.3).
        const std::size_t padding = padding_bytes(data_bytes_);
        const std::uint32_t crc = crc32c(ConstBytes(trailer_).first(padding), data_crc_);
        if (crc != load_le<std::uint32_t>(trailer_.data() + padding)) return fail(Error::data_digest);
      }
      filled_bytes_ = 0;
      state_ = State::header;
      return Event::complete;
    }
    case State::failed:
      return Event::error;
  }
  RB_UNREACHABLE();
}

bool PduReader::fill_header(ConstBytes& input) noexcept {
  if (filled_bytes_ < kBhsBytes) {
    filled_bytes_ += move_bytes(input, bhs_.data() + filled_bytes_, kBhsBytes - filled_bytes_);
    if (filled_bytes_ < kBhsBytes) return false;
  }
  const std::size_t size = kBhsBytes + ahs_bytes(bhs_) + (has_header_digest_ ? kDigestBytes : 0);
  if (filled_bytes_ < size) {
    filled_bytes_ += move_bytes(input, rest_.data() + (filled_bytes_ - kBhsBytes), size - filled_bytes_);
  }
  return filled_bytes_ == size;
}

void PduReader::place(MutableBytes destination) noexcept {
  RB_ASSERT(state_ == State::placing);
  place_ = destination.first(std::min<std::size_t>(destination.size(), data_bytes_));
  state_ = State::data;
}

MutableBytes PduReader::direct_room() const noexcept {
  if (state_ != State::data || received_bytes_ >= place_.size()) return {};
  return place_.subspan(received_bytes_);
}

void PduReader::direct_received(std::size_t count) noexcept {
  const MutableBytes room = direct_room();
  RB_ASSERT(count <= room.size());
  take_data(room.first(count));
}

void PduReader::take_data(ConstBytes bytes) noexcept {
  if (has_data_digest_) data_crc_ = crc32c(bytes, data_crc_);
  received_bytes_ += static_cast<std::uint32_t>(bytes.size());
}

std::size_t PduReader::trailer_size() const noexcept {
  if (data_bytes_ == 0) return 0;
  return padding_bytes(data_bytes_) + (has_data_digest_ ? kDigestBytes : 0);
}

PduReader::Event PduReader::fail(Error error) noexcept {
  state_ = State::failed;
  error_ = error;
  return Event::error;
}

}  // namespace replblk::iscsi
