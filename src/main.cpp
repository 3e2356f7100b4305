// replblkd: the composition root. Arguments, the file, the log, the reactor, the disks, the node, the admin socket;
// then the reactor runs until a signal. Everything is made here, in this order, and goes in the opposite one.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/buffer_pool.hpp"
#include "base/log.hpp"
#include "control/admin_server.hpp"
#include "control/etcd_arbiter.hpp"
#include "control/log_sink.hpp"
#include "control/service_notify.hpp"
#include "node/config_file.hpp"
#include "node/node.hpp"
#include "runtime/disk_file.hpp"
#include "runtime/handler_processes.hpp"
#include "runtime/host_identity.hpp"
#include "runtime/mailbox.hpp"
#include "runtime/netlink_virtual_ip.hpp"
#include "runtime/ping_arbiter.hpp"
#include "runtime/reactor.hpp"
#include "runtime/signals.hpp"
#include "runtime/start_error.hpp"
#include "runtime/system_random.hpp"
#include "runtime/tcp_network.hpp"
#include "runtime/udp_datagrams.hpp"
#include "runtime/undo_files.hpp"

namespace {

using namespace replblk;

constexpr int kDone = 0;
constexpr int kUsage = 1;
constexpr int kNotStarted = 2;
constexpr int kStoppedTwice = 3;

constexpr std::size_t kAdminRequestsMax = 64;
// A predecessor that was killed holds its devices and ports until the kernel has finished its I/O.
constexpr seconds kPatience{15};
constexpr milliseconds kStartPause{100};

struct Arguments {
  std::string config_path = "/etc/replblk/node.conf";
  std::string node_name;
  bool is_check_only = false;
  LogLevel log_level = LogLevel::info;
};

struct AdminMail {
  node::AdminRequest request;
  control::AdminServer::Reply reply;
};

/// The disks of one node in the shape that Node wants, and their owners.
class Disks final : public node::DiskOwner {
 public:
  Disks(const node::ClusterConfig& config, runtime::Reactor& reactor)
      : config_(config), reactor_(reactor), owned_(config.resources.size()) {}

  [[nodiscard]] std::vector<std::vector<node::VolumeDisks>> open_all() {
    std::vector<std::vector<node::VolumeDisks>> all;
    for (std::size_t index = 0; index < config_.resources.size(); ++index) all.push_back(open(index, kPatience));
    return all;
  }
  /// While the node serves others nothing is waited for.
  [[nodiscard]] std::vector<node::VolumeDisks> open(std::size_t index) override { return open(index, Duration{}); }
  void close(std::size_t index) noexcept override { owned_[index].clear(); }

 private:
  std::vector<node::VolumeDisks> open(std::size_t index, Duration patience) {
    std::vector<node::VolumeDisks> volumes;
    for (const node::VolumeConfig& volume : config_.resources[index].volumes) {
      const node::DiskConfig& disk = volume.disks[config_.self];
      node::VolumeDisks& made = volumes.emplace_back();
      made.data = open(index, disk.path, disk, patience, made.reason);
      if (made.data == nullptr || disk.metadata_path.empty()) continue;
      made.metadata = open(index, disk.metadata_path, disk, patience, made.reason);
      if (made.metadata == nullptr) made.data = nullptr;
    }
    return volumes;
  }

  ports::Disk* open(std::size_t index, const std::string& path, const node::DiskConfig& disk_config, Duration patience,
                    std::string& reason) {
    const runtime::DiskOptions options{
        .path = path, .is_buffered = disk_config.io_mode == node::IoMode::buffered, .timeout = disk_config.timeout};
    auto disk = runtime::open_disk_when_free(options, reactor_, patience);
    if (!disk) {
      reason = disk.error();  // the resource logs and shows it
      return nullptr;
    }
    owned_[index].push_back(std::move(*disk));
    return owned_[index].back().get();
  }

  const node::ClusterConfig& config_;
  runtime::Reactor& reactor_;
  std::vector<std::vector<std::unique_ptr<ports::Disk>>> owned_;  ///< by resource
};

/// The virtual IPs of this node, likewise.
class VirtualIps {
 public:
  explicit VirtualIps(const node::ClusterConfig& config) {
    for (const node::ResourceConfig& resource : config.resources) {
      std::vector<ports::VirtualIp*>& made = made_.emplace_back();
      for (const node::VirtualIpConfig& ip : resource.virtual_ips) {
        addresses_.push_back(ip.address);
        owned_.push_back(runtime::make_virtual_ip({ip.address, ip.prefix_bits, ip.device}));
        made.push_back(owned_.back().get());
      }
    }
  }
  [[nodiscard]] const std::vector<std::vector<ports::VirtualIp*>>& made() const noexcept { return made_; }
  [[nodiscard]] const std::vector<std::string>& addresses() const noexcept { return addresses_; }

 private:
  std::vector<std::unique_ptr<ports::VirtualIp>> owned_;
  std::vector<std::vector<ports::VirtualIp*>> made_;
  std::vector<std::string> addresses_;
};

/// The arbiter that the file names, one connection for each resource.
class Arbiters final : public node::ArbiterOwner {
 public:
  Arbiters(const node::ClusterConfig& config, runtime::Reactor& reactor, ports::Network& network)
      : config_(config), reactor_(reactor), network_(network) {}

  /// The error is one sentence: a file that cannot be used.
  [[nodiscard]] Result<void, std::string> open(boost::asio::io_context& control) {
    const auto* etcd = std::get_if<node::EtcdConfig>(&config_.arbiter);
    if (etcd == nullptr) return {};
    auto made = control::EtcdArbiters::create(control, reactor_, config_.name, *etcd);
    if (!made) return fail(made.error());
    etcd_ = std::move(*made);
    return {};
  }
  [[nodiscard]] bool are_any() const noexcept {
    return !std::holds_alternative<node::NoArbiterConfig>(config_.arbiter);
  }
  [[nodiscard]] std::unique_ptr<ports::Arbiter> connect(std::size_t resource, ports::ArbiterSink& sink) override {
    if (etcd_ != nullptr) return etcd_->arbiter(config_.resources[resource].name, sink);
    const auto& ping = std::get<node::PingConfig>(config_.arbiter);
    return runtime::make_ping_arbiter(reactor_, network_, {ping.addresses, ping.timeout}, sink);
  }

 private:
  const node::ClusterConfig& config_;
  runtime::Reactor& reactor_;
  ports::Network& network_;
  std::unique_ptr<control::EtcdArbiters> etcd_;
};

/// protocol.md 3.5: what a full partition does is said before it happens.
void tell_arbiter(const node::ClusterConfig& config) {
  if (!config.is_pair()) return;
  if (std::holds_alternative<node::NoArbiterConfig>(config.arbiter)) {
    log_warning(
        "no arbiter is configured: when the nodes do not hear each other on any path both go on, and the copies split; "
        "the split is reported when they meet. `cluster.arbiter` names a third party that decides");
  } else if (std::holds_alternative<node::PingConfig>(config.arbiter)) {
    log_warning(
        "the arbiter pings: when the nodes do not hear each other and both reach its addresses, both go on, and the "
        "copies split; the split is reported when they meet");
  }
}

class Daemon {
 public:
  explicit Daemon(node::ClusterConfig config) : config_(std::move(config)), requests_(kAdminRequestsMax) {}

  /// Ends after a signal. The error is a sentence per line.
  Result<void, std::string> run(control::LogSink& log) {
    const Result<Uuid, std::string> boot_id = runtime::read_boot_id();
    if (!boot_id) return fail(boot_id.error());
    // First of all, since its lock tells whether another daemon of this node runs. Requests wait until there is a node.
    auto server = control::AdminServer::start({.socket_path = config_.admin_socket},
                                              [this](node::AdminRequest request, control::AdminServer::Reply reply) {
                                                return requests_.post({std::move(request), std::move(reply)});
                                              });
    if (!server) return fail(server.error());
    BufferPool buffers(std::size_t{config_.buffer_memory_mib} << 20);
    auto reactor = runtime::Reactor::create({.ring = {}, .buffers = &buffers});
    if (!reactor) return fail(reactor.error());
    reactor_ = reactor->get();
    const runtime::Signals signals(*reactor_, Callback<void(int)>::to<&Daemon::on_signal>(*this));
    const VirtualIps virtual_ips(config_);
    runtime::TcpNetwork network(*reactor_, virtual_ips.addresses());
    runtime::SystemRandom random;
    Disks disks(config_, *reactor_);
    runtime::HandlerProcesses handlers(*reactor_);
    runtime::SparseUndoFiles undo_files(*reactor_);
    runtime::UdpDatagrams datagrams(*reactor_);
    Arbiters arbiters(config_, *reactor_, network);
    if (auto opened = arbiters.open((*server)->io()); !opened) return fail(opened.error());
    tell_arbiter(config_);
    node::Node node(config_, {*reactor_, random, network, buffers, &handlers, &datagrams, &undo_files}, *boot_id,
                    disks.open_all(), virtual_ips.made(), &disks, arbiters.are_any() ? &arbiters : nullptr);
    if (auto started = start_when_ports_are_free(node); !started) return fail(started.error());
    node_ = &node;
    requests_.attach(*reactor_, Callback<void(AdminMail&)>::to<&Daemon::on_mail>(*this));
    log_info("replblkd {} runs as node {} of {}, process {}", REPLBLK_VERSION, config_.nodes[config_.self].name,
             config_.name, ::getpid());
    control::notify_service("READY=1");
    reactor_->run();
    requests_.detach();
    // Initiators that were told to come back are reset when the other node has the virtual IP, half a second later at
    // most.
    while (network.has_parting()) reactor_->run_turn(milliseconds(20));
    log_info("stopped");
    server->reset();
    log.finish();
    // Everything is durable and every connection has ended. A disk that hangs would hold its own closing up for ever,
    // so nothing is closed by hand: the kernel does it.
    std::_Exit(kDone);
  }

 private:
  /// A ring that dies with its process holds its listeners for a moment longer.
  static Result<void, std::string> start_when_ports_are_free(node::Node& node) {
    auto started = node.start();
    for (int attempt = 1; !started && started.error().ends_with(to_string(ports::ListenError::address_in_use)) &&
                          attempt * kStartPause < kPatience;
         ++attempt) {
      if (attempt == 1) log_warning("{}; trying for 15 s", started.error());
      std::this_thread::sleep_for(kStartPause);
      started = node.start();
    }
    return started;
  }

  void on_mail(AdminMail& mail) { node_->request(mail.request, std::move(mail.reply)); }

  void on_signal(int number) {
    if (number == SIGHUP) return log_warning("SIGHUP is ignored: the configuration is read at start only");
    if (is_stopping_) {
      log_warning("signal {} again: exiting at once; the next start is like one after a crash", number);
      ::_exit(kStoppedTwice);
    }
    is_stopping_ = true;
    log_info("signal {}: stopping; the same again exits at once", number);
    control::notify_service("STOPPING=1");
    node_->stop([this] { reactor_->stop(); });
  }

  node::ClusterConfig config_;
  runtime::Mailbox<AdminMail> requests_;
  runtime::Reactor* reactor_ = nullptr;
  node::Node* node_ = nullptr;
  bool is_stopping_ = false;
};

/// All threads are made with these blocked: Signals takes them in the reactor.
void block_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, number);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "One node of a mirrored iSCSI target.\nExit codes: 0 stopped by a signal, 1 usage, 2 could not start, 3 stopped "
      "by a second "
      "signal.",
      "replblkd");
  const std::map<std::string, LogLevel> levels = {
      {"debug", LogLevel::debug}, {"info", LogLevel::info}, {"warning", LogLevel::warning}, {"error", LogLevel::error}};
  app.set_version_flag("--version", "replblkd " REPLBLK_VERSION);
  app.add_option("--config", arguments.config_path, "Configuration file")->capture_default_str();
  app.add_option("--node", arguments.node_name, "Name of this node in the file; default: the host name");
  app.add_flag("--check", arguments.is_check_only, "Check the configuration and exit");
  std::string level = "info";
  app.add_option("--log-level", level, "debug, info, warning or error")
      ->check(CLI::IsMember(&levels))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kUsage;
  }
  arguments.log_level = levels.at(level);
  auto config = node::load_config(
      {.path = arguments.config_path, .node_name = arguments.node_name, .host_name = runtime::host_name()});
  if (!config) {
    for (const std::string& sentence : config.error()) fmt::print(stderr, "{}\n", sentence);
    return kNotStarted;
  }
  if (arguments.is_check_only) {
    fmt::print("{}: good. This is node {}\n", arguments.config_path, config->nodes[config->self].name);
    return kDone;
  }
  block_signals();
  control::LogSink log(arguments.log_level);
  const auto daemon = std::make_unique<Daemon>(std::move(*config));
  if (auto ran = daemon->run(log); !ran) {
    log_error("{}", ran.error());
    return kNotStarted;
  }
  return kDone;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& problem) {
    fmt::print(stderr, "replblkd: {}\n", problem.what());
    return kNotStarted;
  }
}
