// replblkctl: the administrator's command. Arguments, the file, and one question to the daemon; create-md and
// check-config do their work here, without a daemon.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "control/admin_client.hpp"
#include "control/create_md.hpp"
#include "control/status_text.hpp"
#include "node/config_file.hpp"
#include "runtime/host_identity.hpp"

namespace {

using namespace replblk;

// The exit codes of DRBD's tools, and one for "not in this state".
constexpr int kDone = 0;
constexpr int kUsage = 1;
constexpr int kBadConfig = 10;
constexpr int kRefused = 11;
constexpr int kFailed = 20;

constexpr Duration kAnswerTimeout = seconds(150);  // longer than the daemon's own limit

struct Arguments {
  std::string config_path = "/etc/replblk/node.conf";
  std::string node_name;
  std::string resource;
  bool is_forced = false;
  std::uint64_t start_bytes = 0;
  std::uint64_t stop_bytes = UINT64_MAX;
  std::string repair_from;
  bool discards_data = false;
  std::string volume_uuid;
  std::uint64_t size_bytes = 0;
  bool is_json = false;
  bool is_verbose = false;
  bool has_statistics = false;
};

void print(std::FILE* stream, std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  if (!text.empty()) fmt::print(stream, "{}\n", text);
}

bool has_resource(const node::ClusterConfig& config, std::string_view name) {
  for (const node::ResourceConfig& resource : config.resources) {
    if (resource.name == name) return true;
  }
  return name.empty();
}

int check_config(const Arguments& arguments, const node::ClusterConfig& config) {
  fmt::print("{}: good. This is node {} ({} of {}); {} resource{}, admin socket {}\n", arguments.config_path,
             config.nodes[config.self].name, config.self + 1, config.nodes.size(), config.resources.size(),
             config.resources.size() == 1 ? "" : "s", config.admin_socket);
  return kDone;
}

int create_md(const Arguments& arguments, const node::ClusterConfig& config) {
  control::CreateMdOptions options{.resource = arguments.resource,
                                   .is_forced = arguments.is_forced,
                                   .volume_uuid = {},
                                   .size_bytes = arguments.size_bytes};
  if (!arguments.volume_uuid.empty()) {
    options.volume_uuid = parse_uuid(arguments.volume_uuid);
    if (!options.volume_uuid || options.volume_uuid->is_none()) {
      fmt::print(stderr, "--volume-uuid: \"{}\" is not a UUID such as 01234567-89ab-cdef-0123-456789abcdef\n",
                 arguments.volume_uuid);
      return kUsage;
    }
  }
  // A disk that a daemon has open is claimed, and refused; one that it has let go of (`detach`) is not.
  const control::CreateMdReport report = control::create_metadata(config, options);
  for (const std::string& line : report.made) print(stdout, line);
  for (const std::string& line : report.problems) print(stderr, line);
  switch (report.outcome) {
    case control::CreateMdOutcome::done:
      return kDone;
    case control::CreateMdOutcome::refused:
      return kRefused;
    case control::CreateMdOutcome::failed:
      return kFailed;
  }
  return kFailed;
}

int ask(const Arguments& arguments, const node::ClusterConfig& config, node::AdminVerb verb) {
  const auto reply = control::ask_daemon(config.admin_socket,
                                         {.verb = verb,
                                          .resource = arguments.resource,
                                          .is_forced = arguments.is_forced,
                                          .discards_data = arguments.discards_data,
                                          .start_bytes = arguments.start_bytes,
                                          .stop_bytes = arguments.stop_bytes,
                                          .repair_from = arguments.repair_from},
                                         kAnswerTimeout);
  if (!reply) {
    print(stderr, reply.error());
    return kFailed;
  }
  if (verb == node::AdminVerb::status && reply->outcome == node::AdminOutcome::done) {
    if (arguments.is_json) {
      print(stdout, control::status_json(reply->status));
      return kDone;
    }
    print(stdout, control::status_text(reply->status, {.is_verbose = arguments.is_verbose,
                                                       .has_statistics = arguments.has_statistics,
                                                       .is_terminal = ::isatty(STDOUT_FILENO) == 1}));
    std::fflush(stdout);
    print(stderr, control::status_reasons(reply->status));
  }
  print(reply->outcome == node::AdminOutcome::done ? stdout : stderr, reply->message);
  return static_cast<int>(reply->outcome);
}

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "Administers the replblk daemon of this node.\nExit codes: 0 done, 1 usage, 10 invalid configuration, 11 refused "
      "in the "
      "present state, 20 failed.",
      "replblkctl");
  app.set_version_flag("--version", "replblkctl " REPLBLK_VERSION);
  app.fallthrough();
  app.require_subcommand(1);
  app.add_option("--config", arguments.config_path, "Configuration file")->capture_default_str();
  app.add_option("--node", arguments.node_name, "Name of this node in the file; default: the host name");

  const auto add_verb = [&](const char* name, const char* description) {
    CLI::App* verb = app.add_subcommand(name, description);
    verb->add_option("resource", arguments.resource, "Name of a resource; default: all");
    return verb;
  };
  CLI::App* create = add_verb(
      "create-md", "Lay fresh metadata on this node's disks (which the daemon must not have open: see detach)");
  create->add_flag("--force", arguments.is_forced, "Even over a file system, a partition table or an older volume");
  create->add_option("--volume-uuid", arguments.volume_uuid,
                     "Identity of the volume instead of the derived one; the same on both nodes");
  create
      ->add_option("--size", arguments.size_bytes,
                   "Bytes that initiators get, as the peer's copy has; default: all that the disk has room for")
      ->transform(CLI::AsSizeValue(false));
  CLI::App* check = app.add_subcommand("check-config", "Check the configuration file, whole");
  CLI::App* status = add_verb("status", "Show roles, disks and connections, as drbdadm does");
  status->add_flag("--json", arguments.is_json, "As JSON, with DRBD's keys");
  status->add_flag("-v,--verbose", arguments.is_verbose, "Also what is normal");
  status->add_flag("-s,--statistics", arguments.has_statistics, "Sizes and counters");
  CLI::App* primary = add_verb("primary", "Make this node serve");
  primary->add_flag("--force", arguments.is_forced,
                    "Although the copy here may be stale, or the peer may serve: what was not copied is lost");
  CLI::App* verify = add_verb("verify", "Compare the two copies while they serve; `status` shows progress and result");
  verify
      ->add_option("--start", arguments.start_bytes,
                   "First byte of each volume to compare; K, M, G, T are powers of 1024")
      ->transform(CLI::AsSizeValue(false));
  verify->add_option("--stop", arguments.stop_bytes, "The byte before which to stop; default: the end")
      ->transform(CLI::AsSizeValue(false));
  verify->add_option("--repair", arguments.repair_from,
                     "Afterwards overwrite what differs with the copy of this node: local, peer or a name");
  CLI::App* connect = add_verb("connect", "Connect to the peer, and keep trying");
  connect->add_flag("--discard-my-data", arguments.discards_data,
                    "After a split brain: what was written here since the nodes parted is given up");
  const std::vector<std::pair<CLI::App*, node::AdminVerb>> asked = {
      {status, node::AdminVerb::status},
      {primary, node::AdminVerb::primary},
      {verify, node::AdminVerb::verify},
      {add_verb("secondary", "Make this node stop to serve"), node::AdminVerb::secondary},
      {connect, node::AdminVerb::connect},
      {add_verb("disconnect", "Disconnect from the peer, and stay so"), node::AdminVerb::disconnect},
      {add_verb("pause-sync", "Hold resynchronizations back until resume-sync on this node"),
       node::AdminVerb::pause_sync},
      {add_verb("resume-sync", "Take this node's pause away"), node::AdminVerb::resume_sync},
      {add_verb("invalidate", "Overwrite the whole copy of this node, a Secondary, with the peer's"),
       node::AdminVerb::invalidate},
      {add_verb("invalidate-remote", "Overwrite the whole copy of the peer, a Secondary, with this node's"),
       node::AdminVerb::invalidate_remote},
      {add_verb("switchover",
                "Give the role of Primary to the peer, whose copy is UpToDate: initiators see a short pause"),
       node::AdminVerb::switchover},
      {add_verb("standby", "This node takes no role, and gives its own to the peer, until unstandby here"),
       node::AdminVerb::standby},
      {add_verb("unstandby", "This node may take a role again"), node::AdminVerb::unstandby},
      {add_verb("maintenance-on", "No role moves by itself, on either node, until maintenance-off here"),
       node::AdminVerb::maintenance_on},
      {add_verb("maintenance-off", "The role moves by itself again"), node::AdminVerb::maintenance_off},
      {add_verb("resize", "Make the volumes as large as their devices on both nodes are now, while they serve"),
       node::AdminVerb::resize},
      {add_verb("detach", "Let go of this node's disks, of a Secondary whose peer has everything: to replace them"),
       node::AdminVerb::detach},
      {add_verb("attach", "Open this node's disks again: after detach, a failure, or create-md on a new one"),
       node::AdminVerb::attach},
      {add_verb("down", "Stop to serve, disconnect and let go of the disks"), node::AdminVerb::down},
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kUsage;
  }
  if (arguments.resource == "all") arguments.resource.clear();

  const auto config = node::load_config(
      {.path = arguments.config_path, .node_name = arguments.node_name, .host_name = runtime::host_name()});
  if (!config) {
    for (const std::string& sentence : config.error()) print(stderr, sentence);
    return kBadConfig;
  }
  if (!has_resource(*config, arguments.resource)) {
    fmt::print(stderr, "{}: there is no resource \"{}\" in {}\n", app.get_subcommands().front()->get_name(),
               arguments.resource, arguments.config_path);
    return kBadConfig;
  }
  if (arguments.start_bytes >= arguments.stop_bytes) {
    fmt::print(stderr, "verify: --start {} is not below --stop {}\n", arguments.start_bytes, arguments.stop_bytes);
    return kUsage;
  }
  if (check->parsed()) return check_config(arguments, *config);
  if (create->parsed()) return create_md(arguments, *config);
  for (const auto& [verb, meaning] : asked) {
    if (verb->parsed()) return ask(arguments, *config, meaning);
  }
  return kUsage;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& problem) {
    fmt::print(stderr, "replblkctl: {}\n", problem.what());
    return kFailed;
  }
}
