// One disk operation of a test and its end. Checks that it ends once.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>

#include "ports/disk.hpp"

namespace replblk::runtime::test {

struct Request {
  explicit Request(ports::DiskOpKind kind, std::uint64_t offset_bytes = 0, std::uint64_t length_bytes = 0) {
    op.kind = kind;
    op.offset_bytes = offset_bytes;
    op.length_bytes = length_bytes;
    op.on_done = Callback<void(ports::DiskOp&, Result<void, ports::IoError>)>::to<&Request::on_done>(*this);
  }
  void on_done(ports::DiskOp& done, Result<void, ports::IoError> outcome) {
    EXPECT_EQ(&done, &op);
    EXPECT_FALSE(result.has_value()) << "completed twice";
    result = outcome;
  }
  ports::DiskOp op;
  std::optional<Result<void, ports::IoError>> result;
};

}  // namespace replblk::runtime::test
