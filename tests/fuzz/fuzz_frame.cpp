// The peer protocol: frame headers as a connection brings them, and the control messages in them. What is accepted is
// given back byte for byte (headers), or means the same when it is encoded and decoded again (messages). A header's
// checksum is made right first, or nothing would get past it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/crc32c.hpp"
#include "replication/frame.hpp"
#include "replication/messages.hpp"

using namespace replblk;
using namespace replblk::replication;

namespace {

void check_message(ConstBytes bytes) {
  const auto message = decode(bytes);
  if (!message) return;
  const std::string encoded = encode(*message);
  const auto again = decode(std::as_bytes(std::span(encoded)));
  if (!again || again->index() != message->index() || encode(*again) != encoded) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ConstBytes bytes = std::as_bytes(std::span(data, size));
  while (bytes.size() >= kFrameHeaderBytes) {
    FrameHeaderBytes header;
    std::memcpy(header.data(), bytes.data(), header.size());
    bytes = bytes.subspan(header.size());
    store_le(&header[60], crc32c(ConstBytes(header).first(60)));
    const auto frame = decode_frame_header(header);
    if (!frame) return 0;
    if (encode_frame_header(*frame) != header) std::abort();
    if (frame->type == FrameType::control && frame->payload_length_bytes > kControlBytesMax) std::abort();
    const ConstBytes payload = bytes.first(std::min<std::size_t>(frame->payload_length_bytes, bytes.size()));
    bytes = bytes.subspan(payload.size());
    if (frame->type == FrameType::control) check_message(payload);
  }
  return 0;
}
