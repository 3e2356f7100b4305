#include "node/undo_copy.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/assert.hpp"

namespace replblk::node {

namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;

}  // namespace

UndoCopy::UndoCopy(ports::Loop& loop, ports::UndoFiles& files, std::vector<Source> sources, bool is_whole)
    : loop_(loop),
      files_(files),
      sources_(std::move(sources)),
      is_whole_(is_whole),
      memory_(blockdev::make_aligned_memory(kPieceBytes)),
      proceed_task_(Callback<void()>::to<&UndoCopy::proceed>(*this)) {
  op_.on_done = Callback<void(ports::DiskOp&, IoResult)>::to<&UndoCopy::on_op_done>(*this);
  for (const Source& source : sources_) {
    total_bytes_ += is_whole_ ? source.store->geometry().size_bytes : source.store->dirty().dirty_bytes();
  }
}

UndoCopy::~UndoCopy() { RB_ASSERT(!is_running()); }

void UndoCopy::start(Done done) {
  RB_ASSERT(!is_running() && !sources_.empty());
  done_ = std::move(done);
  begin_volume();
}

void UndoCopy::begin_volume() {
  const Source& source = sources_[volume_];
  auto file = files_.create(source.path, source.store->geometry().size_bytes);
  if (!file) return finish(file.error());
  file_ = std::move(*file);
  from_bytes_ = 0;
  next();
}

void UndoCopy::next() {
  if (is_stopped_) return finish("it was stopped");
  const Source& source = sources_[volume_];
  const std::uint64_t size_bytes = source.store->geometry().size_bytes;
  std::optional<blockdev::ByteRange> range;
  if (!is_whole_) {
    range = source.store->dirty().next_dirty(from_bytes_, kPieceBytes);
  } else if (from_bytes_ < size_bytes) {
    range = blockdev::ByteRange{from_bytes_, std::min(kPieceBytes, size_bytes - from_bytes_)};
  }
  if (!range) {
    op_.kind = ports::DiskOpKind::flush;
    return file_->disk().submit(op_);
  }
  op_.kind = ports::DiskOpKind::read;
  op_.offset_bytes = range->offset_bytes;
  op_.length_bytes = std::min(range->length_bytes, kPieceBytes);
  from_bytes_ = op_.offset_bytes + op_.length_bytes;
  op_.memory = memory_.get();
  source.disk->submit(op_);
}

void UndoCopy::on_op_done(ports::DiskOp&, IoResult result) {
  result_ = result;
  loop_.defer(proceed_task_);
}

void UndoCopy::proceed() {
  const bool is_read = op_.kind == ports::DiskOpKind::read;
  if (!result_) {
    const std::string where = is_read ? "the copy cannot be read" : sources_[volume_].path;
    return finish(fmt::format("{}: {}", where, ports::to_string(result_.error())));
  }
  if (op_.kind == ports::DiskOpKind::flush) {
    if (auto kept = file_->keep(); !kept) return finish(kept.error());
    file_.reset();
    if (++volume_ < sources_.size()) return begin_volume();
    is_complete_ = true;
    return finish({});
  }
  const auto is_zero = [](std::byte one) { return one == std::byte{0}; };
  const bool is_hole = is_whole_ && std::all_of(op_.memory, op_.memory + op_.length_bytes, is_zero);
  if (is_read && !is_hole) {
    op_.kind = ports::DiskOpKind::write;
    return file_->disk().submit(op_);
  }
  kept_bytes_ += op_.length_bytes;
  next();
}

void UndoCopy::finish(std::string failure) {
  // A device that has not given an operation back still has the memory: both stay here.
  if (unreturned_count() == 0) file_.reset();
  std::exchange(done_, nullptr)(std::move(failure));
}

}  // namespace replblk::node
