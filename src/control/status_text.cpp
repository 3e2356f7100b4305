#include "control/status_text.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <iterator>

namespace replblk::control {

namespace {

using node::ResourceStatus;
using node::Status;
using node::VolumeStatus;

class Text {
 public:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... arguments) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(arguments)...);
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

/// DRBD's states above Established: a resynchronization or what leads to one.
bool is_above_established(const VolumeStatus& volume) {
  return !volume.replication_state.empty() && volume.replication_state != "Off" &&
         volume.replication_state != "Established";
}

/// A lone volume 0 goes without its number.
bool has_number(const ResourceStatus& resource, const VolumeStatus& volume, const StatusTextOptions& options) {
  return options.is_verbose || resource.volumes.size() != 1 || volume.volume != 0;
}

void add_device(Text& text, const ResourceStatus& resource, const VolumeStatus& volume,
                const StatusTextOptions& options) {
  text.add("  ");
  if (has_number(resource, volume, options)) text.add("volume:{} ", volume.volume);
  text.add("disk:{}", volume.disk_state);
  // No volume is Diskless by intention here.
  if (volume.disk_state == "Diskless" && (options.is_verbose || !options.is_terminal)) text.add(" client:no");
  if (options.is_verbose) {
    text.add(" backing_dev:{}", volume.backing_path.empty() ? "none" : volume.backing_path);
    text.add(" quorum:{}", resource.is_suspended ? "no" : "yes");
    text.add(" open:{}", resource.sessions.empty() ? "no" : "yes");
  } else if (resource.is_suspended) {
    text.add(" quorum:no");
  }
  if (options.has_statistics) {
    text.add(
        "\n      size:{} read:{} written:{} al-writes:{} bm-writes:{} upper-pending:{} lower-pending:{} "
        "al-suspended:no",
        volume.size_bytes / 1024, volume.read_bytes / 1024, volume.written_bytes / 1024, volume.activity_log_writes,
        volume.bitmap_page_writes, volume.upper_pending, volume.lower_pending);
  }
  text.add("\n");
}

void add_peer_device(Text& text, const ResourceStatus& resource, const VolumeStatus& volume,
                     const StatusTextOptions& options) {
  std::string_view separator = "    ";
  const auto add = [&](std::string_view key, std::string_view value) {
    text.add("{}{}:{}", separator, key, value);
    separator = " ";
  };
  if (has_number(resource, volume, options)) add("volume", fmt::to_string(volume.volume));
  if (options.is_verbose || is_above_established(volume)) {
    add("replication", volume.replication_state.empty() ? "Off" : volume.replication_state);
  }
  add("peer-disk", volume.peer_disk_state.empty() ? "DUnknown" : volume.peer_disk_state);
  if (volume.peer_disk_state == "Diskless" && (options.is_verbose || !options.is_terminal)) add("peer-client", "no");
  if (volume.is_syncing) add("done", fmt::format("{:.2f}", volume.percent_done));
  if (options.is_verbose || volume.resync_suspended != "no") add("resync-suspended", volume.resync_suspended);
  if (options.has_statistics) {
    text.add("\n        received:{} sent:{} out-of-sync:{} pending:{} unacked:{}", volume.received_bytes / 1024,
             volume.sent_bytes / 1024, volume.out_of_sync_bytes / 1024, volume.pending, volume.unacked);
    if (volume.is_syncing) {
      text.add(" dbdt1:{:.2f} eta:{}", static_cast<double>(volume.sync_rate_bytes_per_second) / (1024.0 * 1024.0),
               volume.sync_seconds_left);
    }
  }
  text.add("\n");
}

void add_connection(Text& text, const ResourceStatus& resource, const Status& status,
                    const StatusTextOptions& options) {
  const bool is_connected = resource.connection_state == "Connected";
  text.add("  {}", resource.peer_name);
  if (options.is_verbose) text.add(" node-id:{}", 1 - static_cast<int>(status.node_id));
  if (options.is_verbose || !is_connected) text.add(" connection:{}", resource.connection_state);
  if (options.is_verbose || is_connected)
    text.add(" role:{}", resource.peer_role.empty() ? "Unknown" : resource.peer_role);
  if (options.is_verbose) text.add(" tls:no congested:no");
  text.add("\n");
  if (!options.is_verbose && !options.has_statistics && !is_connected) return;
  for (const VolumeStatus& volume : resource.volumes) add_peer_device(text, resource, volume, options);
}

void add_resource(Text& text, const ResourceStatus& resource, const Status& status, const StatusTextOptions& options) {
  text.add("{}", resource.name);
  if (options.is_verbose) text.add(" node-id:{}", status.node_id);
  text.add(" role:{}", resource.role);
  // Commands are held until it is decided which node may serve: DRBD's word for it is quorum.
  if (options.is_verbose || resource.is_suspended) text.add(" suspended:{}", resource.is_suspended ? "quorum" : "no");
  if (options.is_verbose) text.add(" force-io-failures:no");
  if (options.is_verbose && options.has_statistics) text.add("\n    write-ordering:flush");
  text.add("\n");
  if (options.is_verbose) {
    for (const node::VirtualIpStatus& ip : resource.virtual_ips)
      text.add("  virtual-ip:{} state:{}\n", ip.name, ip.state);
    if (!resource.arbiter.empty()) text.add("  arbiter:{}\n", resource.arbiter);
    for (const node::HeartbeatPathStatus& path : resource.heartbeat_paths) {
      text.add("  heartbeat:{} heard:{} heard-by-peer:{}\n", path.name, path.is_heard ? "yes" : "no",
               path.is_heard_by_peer ? "yes" : "no");
    }
  }
  for (const VolumeStatus& volume : resource.volumes) add_device(text, resource, volume, options);
  if (!resource.peer_name.empty()) add_connection(text, resource, status, options);
}

}  // namespace

std::string status_text(const Status& status, const StatusTextOptions& options) {
  Text text;
  bool is_first = true;
  for (const ResourceStatus& resource : status.resources) {
    if (!is_first) text.add("\n");
    is_first = false;
    add_resource(text, resource, status, options);
  }
  return text.take();
}

std::string calendar_text(std::uint64_t unix_ms) {
  if (unix_ms == 0) return {};
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(unix_ms / 1000)));
}

namespace {

/// "volume 0: 8192 bytes in 0+4096, 65536+4096, …"
std::string changes_text(const node::ChangesStatus& changes) {
  std::string text = fmt::format("volume {}: {} bytes", changes.volume, changes.changed_bytes);
  std::string_view separator = " at ";
  for (const blockdev::ByteRange& range : changes.ranges) {
    text += fmt::format("{}{}+{}", separator, range.offset_bytes, range.length_bytes);
    separator = ", ";
  }
  if (!changes.are_all_ranges) text += ", and more";
  return text;
}

}  // namespace

std::string status_reasons(const Status& status) {
  Text text;
  for (const ResourceStatus& resource : status.resources) {
    const auto add = [&](std::string_view state, std::string_view reason) {
      if (!reason.empty()) text.add("{}: {}: {}\n", resource.name, state, reason);
    };
    add("role " + resource.role, resource.role_reason);
    if (resource.is_suspended) add("suspended", resource.suspended_reason);
    for (const node::VirtualIpStatus& ip : resource.virtual_ips) add("virtual IP " + ip.state, ip.reason);
    for (const node::HeartbeatPathStatus& path : resource.heartbeat_paths) add("heartbeat " + path.name, path.reason);
    for (const VolumeStatus& volume : resource.volumes) {
      add(fmt::format("volume {} disk {}", volume.volume, volume.disk_state), volume.disk_reason);
      add(fmt::format("volume {} replication {}", volume.volume, volume.replication_state), volume.replication_reason);
      add(fmt::format("volume {} verify", volume.volume), volume.verify.reason);
    }
    add("connection " + resource.connection_state, resource.connection_reason);
    for (const node::SplitSideStatus& side : resource.split) {
      const std::string since = calendar_text(side.alone_since_ms);
      std::string changes = fmt::format("{} ({}), alone since {}, has changed", side.node_name,
                                        side.is_primary ? "Primary" : "Secondary", since.empty() ? "?" : since);
      std::string_view separator = " ";
      for (const node::ChangesStatus& volume : side.volumes) {
        changes += fmt::format("{}{}", separator, changes_text(volume));
        separator = "; ";
      }
      add("split brain", changes);
    }
  }
  return text.take();
}

}  // namespace replblk::control
