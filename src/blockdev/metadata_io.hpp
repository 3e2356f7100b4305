// One operation at a time on the device that holds a volume's metadata, with memory of its own: a save must not wait
// for pool buffers that are held by requests which wait for the save. Not responsible for what the bytes mean. Used by
// SuperblockPair and BitmapArea. Invariant: memory() is the kernel's while is_idle() is false.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.hpp"
#include "base/callback.hpp"
#include "ports/disk.hpp"

namespace replblk::blockdev {

/// Memory aligned to 4096, which every disk accepts.
struct AlignedFree {
  void operator()(std::byte* memory) const noexcept;
};
using AlignedMemory = std::unique_ptr<std::byte[], AlignedFree>;
[[nodiscard]] AlignedMemory make_aligned_memory(std::size_t size_bytes);  ///< zeroed

class MetadataIo {
 public:
  using Done = Callback<void(Result<void, ports::IoError>)>;
  static constexpr std::size_t kMemoryBytes = std::size_t{256}
                                              << 10;  ///< four superblock slots, or 64 pages of the bitmap

  explicit MetadataIo(ports::Disk& disk);
  ~MetadataIo();

  [[nodiscard]] MutableBytes memory() const noexcept { return {memory_.get(), kMemoryBytes}; }
  [[nodiscard]] std::uint64_t device_bytes() const noexcept { return disk_.geometry().size_bytes; }
  /// The front of memory() is filled or written.
  void read(std::uint64_t offset_bytes, std::size_t length_bytes, Done done) noexcept;
  void write(std::uint64_t offset_bytes, std::size_t length_bytes, Done done) noexcept;
  void flush(Done done) noexcept;
  [[nodiscard]] bool is_idle() const noexcept { return !is_busy_; }
  [[nodiscard]] std::uint64_t writes_count() const noexcept { return writes_count_; }
  [[nodiscard]] std::uint64_t errors_count() const noexcept { return errors_count_; }

 private:
  void submit(ports::DiskOpKind kind, std::uint64_t offset_bytes, std::size_t length_bytes, Done done) noexcept;
  void on_op_done(ports::DiskOp& op, Result<void, ports::IoError> result);

  ports::Disk& disk_;
  ports::DiskOp op_;
  Done done_;
  bool is_busy_ = false;
  AlignedMemory memory_;
  std::vector<AlignedMemory> quarantine_;  ///< of operations that timed out: the kernel may still touch it
  std::uint64_t writes_count_ = 0;
  std::uint64_t errors_count_ = 0;
};

}  // namespace replblk::blockdev
