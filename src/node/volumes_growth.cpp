#include "node/volumes_growth.hpp"

#include <fmt/format.h>

#include <utility>

#include "base/assert.hpp"

namespace replblk::node {

using blockdev::Store;
using IoDone = Callback<void(Result<void, ports::IoError>)>;

void VolumesGrowth::set_stores(const std::vector<Store*>& stores) {
  ones_.clear();
  for (Store* store : stores) {
    auto one = std::make_unique<One>();
    one->all = this;
    one->store = store;
    one->index = ones_.size();
    ones_.push_back(std::move(one));
  }
  rooms_bytes_.assign(ones_.size(), 0);
}

std::vector<std::uint64_t> VolumesGrowth::sizes_bytes() const {
  std::vector<std::uint64_t> sizes;
  for (const auto& one : ones_) sizes.push_back(one->store->geometry().size_bytes);
  return sizes;
}

void VolumesGrowth::begin(std::string what, Done done) {
  RB_ASSERT(!is_busy() && !ones_.empty());
  pending_count_ = ones_.size();
  what_ = std::move(what);
  failure_.clear();
  done_ = std::move(done);
}

void VolumesGrowth::measure(Done done) {
  begin({}, std::move(done));
  for (const auto& one : ones_) {
    one->store->claim_room(Callback<void(Result<std::uint64_t, std::string>)>::to<&One::on_room>(*one));
  }
}

void VolumesGrowth::zero(const std::vector<std::uint64_t>& sizes_bytes, Done done) {
  begin("what is new cannot be zeroed", std::move(done));
  for (const auto& one : ones_) one->store->zero_room(sizes_bytes[one->index], IoDone::to<&One::on_done>(*one));
}

void VolumesGrowth::grow(const std::vector<std::uint64_t>& sizes_bytes, bool is_equal, Done done) {
  begin("the new size cannot be recorded", std::move(done));
  for (const auto& one : ones_) one->store->grow(sizes_bytes[one->index], is_equal, IoDone::to<&One::on_done>(*one));
}

void VolumesGrowth::stop() noexcept {
  for (const auto& one : ones_) one->store->stop_zeroing();
}

void VolumesGrowth::One::on_room(Result<std::uint64_t, std::string> room) {
  if (room) all->rooms_bytes_[index] = *room;
  all->one_done(index, room ? std::string{} : room.error());
}

void VolumesGrowth::One::on_done(Result<void, ports::IoError> result) {
  all->one_done(index, result ? std::string{} : fmt::format("{}: {}", all->what_, ports::to_string(result.error())));
}

void VolumesGrowth::one_done(std::size_t index, const std::string& failure) {
  RB_ASSERT(pending_count_ > 0);
  if (!failure.empty() && failure_.empty()) failure_ = fmt::format("volume {}: {}", index, failure);
  if (--pending_count_ > 0) return;
  std::exchange(done_, {})(failure_);
}

}  // namespace replblk::node
