// The protobuf record inside a superblock (docs/ondisk_format.md 3; proto/metadata.proto): the resource's name and its
// ResourceRecord, to bytes and back. The only place of this folder that knows protobuf. Bytes that were not written by
// encode_record are refused, or give some record; never more than memory of their own size.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "blockdev/record.hpp"

namespace replblk::blockdev {

struct NamedRecord {
  std::string resource_name;
  ResourceRecord record;
};

[[nodiscard]] std::vector<std::byte> encode_record(std::string_view resource_name, const ResourceRecord& record);
[[nodiscard]] std::optional<NamedRecord> decode_record(ConstBytes bytes);

}  // namespace replblk::blockdev
