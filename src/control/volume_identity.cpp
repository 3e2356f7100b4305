#include "control/volume_identity.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "base/assert.hpp"

namespace replblk::control {

namespace {

/// RFC 9562: version in the high half of byte 6, variant 10 in the top of byte 8.
Uuid make_uuid(std::array<unsigned char, 32> from, unsigned version) {
  from[6] = static_cast<unsigned char>((from[6] & 0x0fu) | version << 4);
  from[8] = static_cast<unsigned char>((from[8] & 0x3fu) | 0x80u);
  Uuid uuid;
  for (std::size_t index = 0; index < uuid.bytes.size(); ++index)
    uuid.bytes[index] = static_cast<std::byte>(from[index]);
  return uuid;
}

}  // namespace

Uuid derive_volume_uuid(const node::ClusterConfig& config, const node::ResourceConfig& resource, std::uint16_t lun) {
  RB_ASSERT(!config.secret.empty());
  // Each part with its length before it: no two lists of parts have one text.
  std::string text;
  const std::string number = fmt::to_string(lun);
  for (const std::string_view part :
       {std::string_view("replblk volume 1"), std::string_view(config.name), std::string_view(resource.name),
        std::string_view(resource.target.iqn), std::string_view(number), std::string_view(config.secret)}) {
    text += fmt::format("{}:{}", part.size(), part);
  }
  std::array<unsigned char, 32> digest{};
  unsigned length = 0;
  RB_ASSERT(EVP_Digest(text.data(), text.size(), digest.data(), &length, EVP_sha256(), nullptr) == 1 &&
            length == digest.size());
  return make_uuid(digest, 8);  // 8: made by a rule of one's own
}

Uuid random_volume_uuid() {
  std::array<unsigned char, 32> bytes{};
  RB_ASSERT(RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) == 1);
  return make_uuid(bytes, 4);
}

}  // namespace replblk::control
