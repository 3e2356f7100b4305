// Puts parameter data together, big-endian, front to back, in a buffer that is known to be large enough.
// Not responsible for truncation to an allocation length: LogicalUnit::answer() does that.
// Used by the commands. Invariant: never writes past its buffer (asserted); bytes that are skipped are zero.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <string_view>

#include "base/bytes.hpp"

namespace replblk::scsi {

class DataWriter {
 public:
  explicit DataWriter(MutableBytes out) noexcept : out_(out) {}

  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  template <std::unsigned_integral T>
  DataWriter& be(T value) noexcept {
    store_be(take(sizeof(T)), value);
    return *this;
  }
  DataWriter& u8(unsigned value) noexcept {
    *take(1) = static_cast<std::byte>(value);
    return *this;
  }
  DataWriter& zeroes(std::size_t count) noexcept {
    std::fill_n(take(count), count, std::byte{0});
    return *this;
  }
  DataWriter& text(std::string_view text) noexcept {
    std::copy_n(as_bytes(text).begin(), text.size(), take(text.size()));
    return *this;
  }
  /// Left-aligned ASCII field, filled with spaces (SPC-4 4.3.1).
  DataWriter& ascii(std::string_view value, std::size_t width) noexcept {
    const std::string_view head = value.substr(0, width);
    text(head);
    std::fill_n(take(width - head.size()), width - head.size(), std::byte{' '});
    return *this;
  }
  /// Overwrites a length field that was written before.
  template <std::unsigned_integral T>
  void patch(std::size_t at, T value) noexcept {
    RB_ASSERT(at + sizeof(T) <= size_);
    store_be(out_.data() + at, value);
  }

 private:
  std::byte* take(std::size_t count) noexcept {
    RB_ASSERT(count <= out_.size() - size_);
    std::byte* const place = out_.data() + size_;
    size_ += count;
    return place;
  }

  MutableBytes out_;
  std::size_t size_ = 0;
};

}  // namespace replblk::scsi
