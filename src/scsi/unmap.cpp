// UNMAP (SBC-3 5.37): all descriptors are checked before the first block is touched.
#include <algorithm>

#include "scsi/commands.hpp"
#include "scsi/limits.hpp"
#include "scsi/logical_unit.hpp"

namespace replblk::scsi::commands {

namespace {

constexpr std::size_t kHeaderBytes = 8;
constexpr std::size_t kDescriptorBytes = 16;

struct Descriptor {
  std::uint64_t lba = 0;
  std::uint64_t count = 0;
};

Descriptor descriptor_at(ConstBytes list, std::size_t index) noexcept {
  const std::byte* const at = &list[kHeaderBytes + index * kDescriptorBytes];
  return {load_be<std::uint64_t>(at), load_be<std::uint32_t>(at + 8)};
}

/// SBC-3 5.37.2: an incomplete descriptor at the end is ignored.
std::size_t descriptor_count(ConstBytes list) noexcept { return load_be<std::uint16_t>(&list[2]) / kDescriptorBytes; }

/// Submits the next piece, or finishes. step: descriptor; progress_bytes: what of it is submitted.
void submit_next(LogicalUnit& unit, Task& task) {
  const ConstBytes list = LogicalUnit::data_out(task);
  for (; task.step < descriptor_count(list); ++task.step, task.progress_bytes = 0) {
    const Descriptor descriptor = descriptor_at(list, task.step);
    const std::uint64_t total = descriptor.count * unit.block_bytes();
    if (task.progress_bytes == total) continue;
    task.request.op = blockdev::BlockOp::discard;
    task.request.is_fua = false;
    task.request.offset_bytes = descriptor.lba * unit.block_bytes() + task.progress_bytes;
    task.request.length_bytes = std::min(total - task.progress_bytes, kZeroPieceBytes);
    task.progress_bytes += task.request.length_bytes;
    unit.submit(task);
    return;
  }
  unit.finish(task);
}

}  // namespace

void plan_unmap(LogicalUnit& unit, Task& task) {
  if (!unit.geometry().supports_discard) {
    unit.reject(task, plain_sense(kInvalidOperationCode));
    return;
  }
  plan_allocation_7(unit, task);
}

void run_unmap(LogicalUnit& unit, Task& task) {
  if (task.transfer_length_bytes == 0) {  // SBC-3 5.37.1: no list, nothing to do.
    unit.finish(task);
    return;
  }
  const ConstBytes list = LogicalUnit::data_out(task);
  if (list.size() < kHeaderBytes || list.size() < task.transfer_length_bytes ||
      list.size() - kHeaderBytes < descriptor_count(list) * kDescriptorBytes) {
    unit.fail(task, plain_sense(kParameterListLengthError));
    return;
  }
  const std::size_t count = descriptor_count(list);
  if (count > kUnmapDescriptorsMax) {
    unit.fail(task, invalid_parameter_field(2));
    return;
  }
  std::uint64_t total = 0;
  const std::uint64_t blocks = unit.block_count();
  for (std::size_t index = 0; index < count; ++index) {
    const Descriptor descriptor = descriptor_at(list, index);
    if (descriptor.lba > blocks || descriptor.count > blocks - descriptor.lba) {
      unit.fail(task, sense_with_information(kLbaOutOfRange, std::max(descriptor.lba, blocks)));
      return;
    }
    total += descriptor.count;
    if (total > kUnmapBlocksMax) {
      unit.fail(task, invalid_parameter_field(static_cast<std::uint16_t>(kHeaderBytes + index * kDescriptorBytes + 8)));
      return;
    }
  }
  submit_next(unit, task);
}

void resume_unmap(LogicalUnit& unit, Task& task) { submit_next(unit, task); }

}  // namespace replblk::scsi::commands
