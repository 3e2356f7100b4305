// Opening a backing file or device: the claim, the geometry and what it supports, found without changing its data.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <new>
#include <optional>
#include <thread>

#include "base/log.hpp"
#include "runtime/descriptor.hpp"
#include "runtime/disk_file.hpp"
#include "runtime/start_error.hpp"

namespace replblk::runtime {

namespace {

using Geometry = ports::Disk::Geometry;

constexpr milliseconds kRetryPause{100};

constexpr std::uint32_t kSectorBytes = 512;
constexpr std::uint32_t kPageBytes = 4096;

/// A number from the device's queue directory in sysfs; a partition's is its parent's.
std::optional<std::uint64_t> read_queue_value(dev_t device, const char* name) {
  const std::string base = fmt::format("/sys/dev/block/{}:{}", major(device), minor(device));
  for (const char* directory : {"queue", "../queue"}) {
    const Descriptor file(::open(fmt::format("{}/{}/{}", base, directory, name).c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) continue;
    char text[32] = {};
    if (::read(file.get(), text, sizeof text - 1) <= 0) return std::nullopt;
    return std::strtoull(text, nullptr, 10);
  }
  return std::nullopt;
}

/// Excludes every other program that asks: another replblkd and qemu take such locks.
bool lock_whole_file(int fd) noexcept {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool can_read_aligned(int fd, std::uint32_t alignment_bytes) {
  void* memory = ::operator new(kPageBytes, std::align_val_t{kPageBytes});
  auto* target = static_cast<std::byte*>(memory) + (alignment_bytes % kPageBytes);
  const ssize_t count = ::pread(fd, target, alignment_bytes, alignment_bytes);
  ::operator delete(memory, std::align_val_t{kPageBytes});
  return count >= 0;
}

/// The alignment that O_DIRECT demands of a file, or 0 when the file system does not say or refuses.
std::uint32_t direct_alignment(int fd, const struct statx& status) {
  if ((status.stx_mask & STATX_DIOALIGN) != 0) {
    return std::max({status.stx_dio_mem_align, status.stx_dio_offset_align});
  }
  // tmpfs, NFS and network file systems do not say; a read that does not fit is refused with EINVAL.
  return can_read_aligned(fd, kSectorBytes) ? kSectorBytes : kPageBytes;
}

bool accepts_punch_beyond_end(int fd, std::uint64_t end_bytes) noexcept {
  // Beyond the end there is nothing to lose; an unable file system says EOPNOTSUPP first.
  return ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(end_bytes), kPageBytes) == 0;
}

bool accepts_zeroing_beyond_end(int fd, std::uint64_t end_bytes, off_t size) noexcept {
  if (::fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(end_bytes), kPageBytes) != 0) {
    return false;
  }
  // Gives the block that was allocated beyond the end back; the size stays.
  return ::ftruncate(fd, size) == 0;
}

int measure_file(int fd, const struct stat& status, const DiskOptions& options, Geometry& geometry) {
  if (options.is_buffered) {
    geometry.alignment_bytes = 1;
  } else {
    struct statx extended{};
    if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) != 0) return errno;
    geometry.alignment_bytes = direct_alignment(fd, extended);
    if (geometry.alignment_bytes == 0) return EINVAL;  // O_DIRECT would be ignored here.
    geometry.alignment_bytes = std::max(geometry.alignment_bytes, kSectorBytes);
  }
  geometry.logical_block_bytes = geometry.alignment_bytes > kSectorBytes ? kPageBytes : kSectorBytes;
  const auto preferred = static_cast<std::uint32_t>(std::min<blksize_t>(status.st_blksize, 65536));
  geometry.physical_block_bytes =
      std::has_single_bit(preferred) ? std::max(preferred, geometry.logical_block_bytes) : kPageBytes;
  const auto size = static_cast<std::uint64_t>(status.st_size);
  geometry.size_bytes = size / geometry.logical_block_bytes * geometry.logical_block_bytes;
  const std::uint64_t end = (size + kPageBytes - 1) / kPageBytes * kPageBytes;
  geometry.supports_discard = accepts_punch_beyond_end(fd, end);
  geometry.supports_write_zeroes = accepts_zeroing_beyond_end(fd, end, status.st_size);
  geometry.is_rotational = read_queue_value(status.st_dev, "rotational").value_or(0) != 0;
  return 0;
}

int measure_device(int fd, const struct stat& status, const DiskOptions& options, Geometry& geometry) {
  int logical = 0;
  unsigned physical = 0;
  std::uint64_t size = 0;
  if (::ioctl(fd, BLKSSZGET, &logical) != 0 || ::ioctl(fd, BLKPBSZGET, &physical) != 0 ||
      ::ioctl(fd, BLKGETSIZE64, &size) != 0) {
    return errno;
  }
  geometry.size_bytes = size;
  geometry.logical_block_bytes = static_cast<std::uint32_t>(logical);
  geometry.physical_block_bytes = std::max(physical, geometry.logical_block_bytes);
  geometry.alignment_bytes = options.is_buffered ? 1 : geometry.logical_block_bytes;
  // A hole is punched by the device's own write-zeroes command with unmapping; there is no way to try it without
  // losing data, so ask the queue limits. A device that can't discard would write the zeroes: nothing gained.
  const bool has_write_zeroes = read_queue_value(status.st_rdev, "write_zeroes_max_bytes").value_or(0) != 0;
  geometry.supports_discard =
      has_write_zeroes && read_queue_value(status.st_rdev, "discard_max_bytes").value_or(0) != 0;
  geometry.supports_write_zeroes = true;  // The block layer writes zeroes itself where the device can't.
  geometry.is_rotational = read_queue_value(status.st_rdev, "rotational").value_or(0) != 0;
  return 0;
}

Backing backing_of(int fd) noexcept {
  struct statfs file_system{};
  if (::fstatfs(fd, &file_system) != 0) return Backing::storage;
  return file_system.f_type == TMPFS_MAGIC || file_system.f_type == RAMFS_MAGIC ? Backing::memory : Backing::storage;
}

std::string fail_sentence(const DiskOptions& options, int error_number) {
  return describe_disk_failure({.path = options.path, .error_number = error_number, .is_direct = !options.is_buffered});
}

}  // namespace

Result<std::unique_ptr<DiskFile>, std::string> open_disk(const DiskOptions& options, Reactor& reactor) {
  struct stat status{};
  if (::stat(options.path.c_str(), &status) != 0) return fail(fail_sentence(options, errno));
  const bool is_device = S_ISBLK(status.st_mode);
  if (!is_device && !S_ISREG(status.st_mode)) return fail(fail_sentence(options, ENOTBLK));

  // O_EXCL on a block device is the kernel's claim: refused while it is mounted or another program claims it.
  const int flags = O_RDWR | O_CLOEXEC | (options.is_buffered ? 0 : O_DIRECT) | (is_device ? O_EXCL : 0);
  Descriptor file(::open(options.path.c_str(), flags));
  if (file.get() < 0) return fail(fail_sentence(options, errno));
  if (::fstat(file.get(), &status) != 0) return fail(fail_sentence(options, errno));
  if (S_ISBLK(status.st_mode) != is_device) return fail(fail_sentence(options, EBUSY));
  if (!is_device && !lock_whole_file(file.get())) return fail(fail_sentence(options, errno));

  Geometry geometry;
  const int error = is_device ? measure_device(file.get(), status, options, geometry)
                              : measure_file(file.get(), status, options, geometry);
  if (error != 0) return fail(fail_sentence(options, error));
  if (geometry.size_bytes == 0) {
    return fail(fmt::format("disk {}: has no room for a single block; {}", options.path,
                            is_device ? "insert or attach its medium" : "give it a size (truncate -s 10G)"));
  }
  log_info("disk {}: {} bytes, blocks {}/{}, {}, discard {}, write zeroes {}", options.path, geometry.size_bytes,
           geometry.logical_block_bytes, geometry.physical_block_bytes, options.is_buffered ? "buffered" : "direct",
           geometry.supports_discard ? "yes" : "no", geometry.supports_write_zeroes ? "yes" : "no");
  const Backing backing = is_device ? Backing::storage : backing_of(file.get());
  return std::make_unique<DiskFile>(reactor, file.release(), geometry, backing, options.in_flight_max, options.timeout);
}

Result<std::unique_ptr<DiskFile>, std::string> open_disk_when_free(const DiskOptions& options, Reactor& reactor,
                                                                   Duration patience) {
  auto disk = open_disk(options, reactor);
  for (Duration waited{}; !disk && says_in_use(disk.error()) && waited < patience; waited += kRetryPause) {
    if (waited == Duration{}) log_warning("{}; trying for {} s", disk.error(), patience / seconds(1));
    std::this_thread::sleep_for(kRetryPause);
    disk = open_disk(options, reactor);
  }
  return disk;
}

}  // namespace replblk::runtime
