#include "blockdev/metadata_io.hpp"

#include <cstring>
#include <new>

#include "base/assert.hpp"

namespace replblk::blockdev {

namespace {
constexpr std::align_val_t kAlignment{4096};
}

void AlignedFree::operator()(std::byte* memory) const noexcept { ::operator delete(memory, kAlignment); }

AlignedMemory make_aligned_memory(std::size_t size_bytes) {
  AlignedMemory memory(static_cast<std::byte*>(::operator new(size_bytes, kAlignment)));
  std::memset(memory.get(), 0, size_bytes);
  return memory;
}

MetadataIo::MetadataIo(ports::Disk& disk) : disk_(disk), memory_(make_aligned_memory(kMemoryBytes)) {
  op_.on_done = Callback<void(ports::DiskOp&, Result<void, ports::IoError>)>::to<&MetadataIo::on_op_done>(*this);
}

MetadataIo::~MetadataIo() { RB_ASSERT(is_idle()); }

void MetadataIo::read(std::uint64_t offset_bytes, std::size_t length_bytes, Done done) noexcept {
  submit(ports::DiskOpKind::read, offset_bytes, length_bytes, done);
}

void MetadataIo::write(std::uint64_t offset_bytes, std::size_t length_bytes, Done done) noexcept {
  ++writes_count_;
  submit(ports::DiskOpKind::write, offset_bytes, length_bytes, done);
}

void MetadataIo::flush(Done done) noexcept { submit(ports::DiskOpKind::flush, 0, 0, done); }

void MetadataIo::submit(ports::DiskOpKind kind, std::uint64_t offset_bytes, std::size_t length_bytes,
                        Done done) noexcept {
  RB_ASSERT(!is_busy_ && length_bytes <= kMemoryBytes);
  is_busy_ = true;
  done_ = done;
  op_.kind = kind;
  op_.offset_bytes = offset_bytes;
  op_.length_bytes = length_bytes;
  op_.memory = kind == ports::DiskOpKind::flush ? nullptr : memory_.get();
  disk_.submit(op_);
}

void MetadataIo::on_op_done(ports::DiskOp&, Result<void, ports::IoError> result) {
  is_busy_ = false;
  if (!result) {
    ++errors_count_;
    if (result.error() == ports::IoError::timed_out) {
      quarantine_.push_back(std::move(memory_));
      memory_ = make_aligned_memory(kMemoryBytes);
    }
  }
  const Done done = done_;
  done(result);
}

}  // namespace replblk::blockdev
