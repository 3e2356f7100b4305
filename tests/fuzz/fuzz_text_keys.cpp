// Text segments and the negotiation behind them. The first byte says where the text is cut into two segments.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "iscsi/negotiation.hpp"
#include "iscsi/text_keys.hpp"

using namespace replblk;
using namespace replblk::iscsi;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ConstBytes bytes = std::as_bytes(std::span(data + 1, size - 1));
  const std::size_t cut = std::min<std::size_t>(data[0], bytes.size());
  TextCollector collector;
  if (!collector.append(bytes.first(cut)) || !collector.append(bytes.subspan(cut))) return 0;
  const auto pairs = parse_text(collector.text());
  if (!pairs) return 0;
  for (const NegotiationPhase phase : {NegotiationPhase::login, NegotiationPhase::full_feature}) {
    Negotiation negotiation{NegotiationLimits{}};
    negotiation.set_session_type((data[0] & 1) != 0 ? SessionType::discovery : SessionType::normal);
    TextBuilder answer;
    for (const TextPair& pair : *pairs) {
      if (negotiation.offer(pair, phase, answer) == OfferVerdict::protocol_error) break;
    }
    // Each answer is a key of at most 63 bytes, a short value, and two separators.
    if (answer.text().size() > kTextPairsMax * (kKeyNameBytesMax + 24)) std::abort();
    const SessionParameters parameters = negotiation.parameters();
    if (parameters.initiator_recv_bytes < 512 || parameters.max_burst_bytes < 512 ||
        parameters.first_burst_bytes > parameters.max_burst_bytes || parameters.max_outstanding_r2t == 0) {
      std::abort();
    }
  }
  return 0;
}
