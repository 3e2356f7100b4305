// A volume in memory for tests of the transport: answers from the loop, or when told to while it is held.
// No gtest in here: the fuzzers and the by-hand target use it too. Invariant: a request is answered exactly once.
#pragma once

#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "blockdev/block_request.hpp"
#include "ports/loop.hpp"

namespace replblk::test {

class MemoryBackend final : public blockdev::BlockBackend {
 public:
  MemoryBackend(ports::Loop& loop, std::uint64_t size_bytes) : data(size_bytes), loop_(loop) {
    geometry_.size_bytes = size_bytes;
    geometry_.supports_discard = true;
  }
  [[nodiscard]] const blockdev::VolumeGeometry& geometry() const noexcept override { return geometry_; }

  void submit(blockdev::BlockRequest& request) noexcept override {
    pending_.push_back(&request);
    if (!is_held) loop_.defer(task_);
  }
  [[nodiscard]] std::size_t pending_count() const { return pending_.size(); }
  void complete_all() {
    while (!pending_.empty()) {
      blockdev::BlockRequest* request = pending_.front();
      pending_.pop_front();
      request->status = status;
      if (status == blockdev::BlockStatus::good) apply(*request);
      request->on_complete(*request);
    }
  }

  std::vector<std::byte> data;
  bool is_held = false;
  blockdev::BlockStatus status = blockdev::BlockStatus::good;

 private:
  void apply(blockdev::BlockRequest& request) {
    using blockdev::BlockOp;
    std::byte* place = data.data() + request.offset_bytes;
    switch (request.op) {
      case BlockOp::read:
        std::memcpy(request.data(), place, request.length_bytes);
        return;
      case BlockOp::write:
        std::memcpy(place, request.data(), request.length_bytes);
        return;
      case BlockOp::flush:
        return;
      case BlockOp::discard:
      case BlockOp::write_zeroes:
        std::memset(place, 0, request.length_bytes);
        return;
      case BlockOp::compare_and_write:
        for (std::size_t at = 0; at < request.length_bytes; ++at) {
          if (request.data()[at] == place[at]) continue;
          request.status = blockdev::BlockStatus::miscompare;
          request.miscompare_offset_bytes = static_cast<std::uint32_t>(at);
          return;
        }
        std::memcpy(place, request.data() + request.length_bytes, request.length_bytes);
        return;
    }
  }

  ports::Loop& loop_;
  blockdev::VolumeGeometry geometry_;
  std::deque<blockdev::BlockRequest*> pending_;
  ports::DeferredTask task_{Callback<void()>::to<&MemoryBackend::complete_all>(*this)};
};

}  // namespace replblk::test
