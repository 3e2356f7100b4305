#include "runtime/signature_probe.hpp"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "runtime/start_error.hpp"

namespace replblk::runtime {

namespace {

std::uint64_t lookup_offset(blkid_probe probe, const char* name) {
  const char* text = nullptr;
  return blkid_probe_lookup_value(probe, name, &text, nullptr) == 0 ? std::strtoull(text, nullptr, 10) : 0;
}

void collect(blkid_probe probe, std::vector<Signature>& found) {
  // A result is of one chain: a superblock (TYPE) or a partition table (PTTYPE).
  const char* type = nullptr;
  if (blkid_probe_lookup_value(probe, "TYPE", &type, nullptr) == 0) {
    found.push_back({type, lookup_offset(probe, "SBMAGIC_OFFSET")});
  } else if (blkid_probe_lookup_value(probe, "PTTYPE", &type, nullptr) == 0) {
    found.push_back({type, lookup_offset(probe, "PTMAGIC_OFFSET")});
  }
}

}  // namespace

Result<std::vector<Signature>, std::string> probe_signatures(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(describe_disk_failure({.path = path, .error_number = errno}));
  blkid_probe probe = blkid_new_probe();
  std::vector<Signature> found;
  int step = -1;
  if (probe != nullptr && blkid_probe_set_device(probe, fd, 0, 0) == 0) {
    blkid_probe_enable_superblocks(probe, 1);
    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_TYPE);
    blkid_probe_enable_partitions(probe, 1);
    blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC);
    while ((step = blkid_do_probe(probe)) == 0) collect(probe, found);
  }
  blkid_free_probe(probe);
  ::close(fd);
  // 1: nothing more; below 0: the device could not be read.
  if (step < 0)
    return fail(fmt::format("disk {}: cannot be searched for foreign signatures; check that it can be read", path));
  return found;
}

Result<std::vector<Signature>, std::string> probe_signatures(int fd) {
  return probe_signatures(fmt::format("/proc/self/fd/{}", fd));
}

}  // namespace replblk::runtime
