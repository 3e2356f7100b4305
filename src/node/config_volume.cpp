#include "node/config_checker.hpp"

#include <fmt/format.h>

namespace replblk::node {

VolumeConfig ConfigChecker::check_volume(const ConfigSection& section) {
  VolumeConfig made;
  if (section.has("lun")) {
    made.lun = static_cast<std::uint16_t>(section.number("lun", 0, 255));
  } else {
    section.missing("lun", "the logical unit number, 0 to 255");
  }
  made.write_cache = section.flag("write_cache");
  made.logical_block_bytes = section.number("logical_block_size");
  if (made.logical_block_bytes != 512 && made.logical_block_bytes != 4096) {
    section.complain("logical_block_size", fmt::format("{} is not possible", made.logical_block_bytes), "512 or 4096");
  }
  std::set<std::size_t> covered;
  for (int index = 0; index < section.count("disk"); ++index) {
    const ConfigSection disk = section.child("disk", index);
    const std::optional<std::size_t> node = check_on(disk);
    if (node && !covered.insert(*node).second) {
      disk.complain("on", fmt::format("{} is used twice", in_quotes(disk.text("on"))),
                    "each node has one copy of a volume");
    }
    const DiskConfig checked = check_disk(disk, node);
    if (node && *node < made.disks.size()) made.disks[*node] = checked;
  }
  for (std::size_t node = 0; node < config_.nodes.size(); ++node) {
    if (!covered.contains(node)) {
      section.missing("disk", fmt::format("node {} has no copy of this volume; each node has one",
                                          in_quotes(config_.nodes[node].name)));
    }
  }
  return made;
}

DiskConfig ConfigChecker::check_disk(const ConfigSection& section, std::optional<std::size_t> node) {
  DiskConfig made;
  made.io_mode = section.word("io_mode") == "buffered" ? IoMode::buffered : IoMode::direct;
  if (section.number("timeout_ms") == 0) {
    made.timeout = {};
  } else {
    made.timeout = milliseconds(section.number("timeout_ms", 1000, 600000));
  }
  made.stall_timeout =
      section.number("stall_timeout_ms") == 0 ? Duration{} : section.milliseconds_of("stall_timeout_ms", 500, 60000);
  if (section.has("path")) {
    made.path = check_path(section, "path");
    claim_path(section, "path", made.path, node);
  } else {
    section.missing("path", "the absolute path of the backing device or file");
  }
  if (section.has("metadata_path")) {
    made.metadata_path = check_path(section, "metadata_path");
    claim_path(section, "metadata_path", made.metadata_path, node);
  }
  return made;
}

void ConfigChecker::claim_path(const ConfigSection& section, const char* key, const std::string& path,
                               std::optional<std::size_t> node) {
  if (path.empty() || !node) return;
  const auto [place, is_new] = disk_uses_.try_emplace({*node, path}, section.key(key));
  if (!is_new) {
    section.complain(key,
                     fmt::format("{} is used twice on node {} (also by {})", in_quotes(path),
                                 in_quotes(config_.nodes[*node].name), place->second),
                     "a device or file holds one thing");
  }
}

}  // namespace replblk::node
