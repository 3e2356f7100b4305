// The login machine: any sequence of login requests. The input is PDUs one after the other, cut as the headers say.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "iscsi/login.hpp"

using namespace replblk;
using namespace replblk::iscsi;

namespace {

class Directory final : public TargetDirectory {
 public:
  [[nodiscard]] TargetVerdict look_up(std::string_view name) const override {
    if (name == "iqn.t") return {LoginStatus::success, "alias", 1, {}};
    if (name == "iqn.away") return {LoginStatus::target_moved_temporarily, {}, 1, "192.0.2.9:3260,1"};
    return {};
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ConstBytes bytes = std::as_bytes(std::span(data, size));
  const Directory directory;
  Login login(directory, NegotiationLimits{});
  while (login.state() == Login::State::negotiating && bytes.size() >= kBhsBytes) {
    Bhs bhs;
    std::memcpy(bhs.data(), bytes.data(), kBhsBytes);
    bytes = bytes.subspan(kBhsBytes);
    const std::size_t length = std::min<std::size_t>(data_segment_bytes(bhs), bytes.size());
    LoginAnswer answer;
    login.receive(decode_login_request(bhs), bytes.first(length), answer);
    bytes = bytes.subspan(length);
    if (login.state() == Login::State::ready) {
      if (login.initiator_name().empty()) std::abort();
      if (login.session_type() == SessionType::normal && login.target_name() != "iqn.t") std::abort();
      answer = (bhs[47] & std::byte{1}) != std::byte{0} ? login.refuse(LoginStatus::out_of_resources) : login.accept(7);
    }
    if (answer.text.size() > 8192 || answer.response.data_segment_bytes != answer.text.size()) std::abort();
    if (login.state() == Login::State::failed && answer.response.status_class == 0) std::abort();
  }
  return 0;
}
