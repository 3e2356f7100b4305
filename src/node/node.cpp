#include "node/node.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "node/heartbeat_paths.hpp"
#include "node/reported_reasons.hpp"
#include "node/resource.hpp"
#include "version.hpp"

namespace replblk::node {

namespace {

/// Connections to 7789 that have not said which resource they mean.
constexpr std::size_t kUnnamedConnectionsMax = 16;
constexpr Duration kReopenLookInterval = seconds(1);
constexpr Duration kReopenPauseMin = seconds(5);
constexpr Duration kReopenPauseMax = seconds(600);

}  // namespace

class Node::Impl final : private ports::AcceptSink {
 public:
  Impl(ClusterConfig config, ports::World world, Uuid boot_id, std::vector<std::vector<VolumeDisks>> disks,
       std::vector<std::vector<ports::VirtualIp*>> virtual_ips, DiskOwner* disk_owner, ArbiterOwner* arbiter_owner)
      : config_(std::move(config)),
        world_(world),
        boot_id_(boot_id),
        incarnation_(world_.random.next_u64()),
        virtual_ips_(std::move(virtual_ips)),
        disk_owner_(disk_owner),
        arbiter_owner_(arbiter_owner),
        reopenings_(config_.resources.size()),
        heartbeat_paths_(config_, world_.datagrams),
        portal_(iscsi::PortalConfig{}, world_),
        reopen_timer_(Callback<void()>::to<&Impl::reopen_what_answers>(*this)),
        replace_task_(Callback<void()>::to<&Impl::replace_stopped>(*this)),
        sweep_task_(Callback<void()>::with(this, [](void* self) { static_cast<Impl*>(self)->retired_.clear(); })) {
    RB_ASSERT(disks.size() == config_.resources.size() && !config_.nodes.empty() && config_.nodes.size() <= 2);
    virtual_ips_.resize(disks.size());
    for (std::size_t index = 0; index < disks.size(); ++index)
      resources_.push_back(make_resource(index, std::move(disks[index])));
  }

  ~Impl() {
    world_.loop.cancel(reopen_timer_);
    listeners_.clear();
  }

  Result<void, std::string> start() {
    if (auto listening = listen_all(); !listening) return listening;
    if (auto opened = heartbeat_paths_.open(); !opened) {
      listeners_.clear();
      return opened;
    }
    for (const auto& resource : resources_) resource->start();
    if (disk_owner_ != nullptr) world_.loop.arm(reopen_timer_, world_.loop.now() + kReopenLookInterval);
    return {};
  }

  void stop(std::function<void()> done) {
    is_stopping_ = true;
    world_.loop.cancel(reopen_timer_);
    listeners_.clear();
    unnamed_.clear();
    portal_.drop_all("the daemon stops");
    struct Stopping {
      std::size_t pending;
      std::function<void()> done;
    };
    auto stopping = std::make_shared<Stopping>(Stopping{resources_.size() + 1, std::move(done)});
    const auto one_done = [stopping] {
      if (--stopping->pending == 0) stopping->done();
    };
    for (const auto& resource : resources_) resource->stop(one_done);
    one_done();
  }

  void request(const AdminRequest& request, std::function<void(AdminReply)> reply) {
    if (request.verb == AdminVerb::status) {
      AdminReply answer;
      answer.status = status();
      if (!request.resource.empty()) {
        std::erase_if(answer.status.resources, [&](const auto& resource) { return resource.name != request.resource; });
        if (answer.status.resources.empty()) answer = {AdminOutcome::failed, unknown(request.resource), {}};
      }
      reply(std::move(answer));
      return;
    }
    std::vector<Resource*> chosen;
    for (const auto& resource : resources_) {
      if (request.resource.empty() || resource->name() == request.resource) chosen.push_back(resource.get());
    }
    if (chosen.empty()) {
      reply({AdminOutcome::failed,
             request.resource.empty() ? "no resource is configured" : unknown(request.resource),
             {}});
      return;
    }
    // The worst outcome of all counts; every resource says its sentence.
    struct Gathering {
      std::size_t pending;
      AdminReply worst;
      std::function<void(AdminReply)> reply;
    };
    auto gathering = std::make_shared<Gathering>(Gathering{chosen.size(), {}, std::move(reply)});
    const auto gather = [gathering](AdminReply one) {
      AdminReply& worst = gathering->worst;
      worst.outcome = std::max(worst.outcome, one.outcome);
      if (!worst.message.empty() && !one.message.empty()) worst.message += '\n';
      worst.message += one.message;
      if (--gathering->pending == 0) gathering->reply(std::move(worst));
    };
    for (Resource* resource : chosen) dispatch(*resource, request, gather);
  }

  [[nodiscard]] Status status() const {
    Status status;
    status.node_name = config_.nodes[config_.self].name;
    status.node_id = config_.self;
    status.version = kVersion;
    for (const auto& resource : resources_) status.resources.push_back(resource->status());
    return status;
  }

  [[nodiscard]] const std::vector<std::unique_ptr<Resource>>& resources() const { return resources_; }

 private:
  /// A connection to 7789 until its Hello names a resource.
  struct Unnamed final : replication::PeerChannelObserver {
    Impl* node = nullptr;
    std::unique_ptr<replication::PeerChannel> channel;
    void on_proven() override { RB_UNREACHABLE(); }
    void on_message(const replication::Message& message) override {
      node->named(*this, std::get<replication::Hello>(message));
    }
    void on_operation(const replication::FrameHeader&, BufferRef) override { RB_UNREACHABLE(); }
    void on_acknowledge(std::uint64_t, replication::OperationStatus) override { RB_UNREACHABLE(); }
    void on_bitmap_page(const replication::FrameHeader&, ConstBytes) override { RB_UNREACHABLE(); }
    void on_checksums(const replication::FrameHeader&, ConstBytes) override { RB_UNREACHABLE(); }
    void on_heartbeat_frame(ConstBytes) override { RB_UNREACHABLE(); }
    void on_channel_ended(replication::ChannelEnd, const std::string& reason) override {
      node->unnamed_ended(*this, reason);
    }
  };

  static std::string unknown(const std::string& name) {
    return fmt::format("resource {} is not in the configuration", name);
  }

  std::unique_ptr<Resource> make_resource(std::size_t index, std::vector<VolumeDisks> disks) {
    auto resource = std::make_unique<Resource>(config_, config_.resources[index], world_, portal_, boot_id_,
                                               incarnation_, std::move(disks), virtual_ips_[index], heartbeat_paths_);
    if (arbiter_owner_ != nullptr) resource->set_arbiter(arbiter_owner_->connect(index, resource->arbiter_sink()));
    return resource;
  }

  /// A device that hung and has answered everything is opened again by itself. Each time later than the last: a copy
  /// that comes and goes costs the initiators a pause each time.
  void reopen_what_answers() {
    const Instant now = world_.loop.now();
    world_.loop.arm(reopen_timer_, now + kReopenLookInterval);
    for (std::size_t index = 0; index < resources_.size(); ++index) {
      Reopening& one = reopenings_[index];
      if (!resources_[index]->is_reopenable()) {
        one.due = Instant::max();
      } else if (one.due == Instant::max()) {
        one.due = now + one.pause;
        resources_[index]->announce_reopening(one.pause);
      } else if (now >= one.due) {
        one = {std::min(one.pause * 2, kReopenPauseMax), Instant::max()};
        log_info("resource {}: the disk answers again: it is opened", resources_[index]->name());
        replace(*resources_[index], true, [](const AdminReply& reply) {
          if (reply.outcome != AdminOutcome::done) log_error("{}", reply.message);
        });
      }
    }
  }

  [[nodiscard]] std::size_t index_of(const Resource& resource) const {
    const auto place = std::ranges::find(resources_, &resource, &std::unique_ptr<Resource>::get);
    return static_cast<std::size_t>(place - resources_.begin());
  }

  // ---- attach and detach: the resource is stopped, and another one takes its place -------------------------------

  void replace(Resource& resource, bool attaches, const AdminReplyCallback& reply) {
    const auto refuse = [&](const std::string& why) {
      reply({AdminOutcome::refused, fmt::format("{}: {}", resource.name(), why), {}});
    };
    if (disk_owner_ == nullptr) return refuse("this daemon cannot open disks while it runs");
    if (is_stopping_ || resource.is_down()) return refuse("the resource is being taken down");
    if (const std::string why = attaches ? resource.why_no_attach() : resource.why_no_detach(); !why.empty())
      return refuse(why);
    resource.stop([this, index = index_of(resource), attaches, reply] {
      // Not here: this is the resource's own callback.
      stopped_.push_back({index, attaches, reply});
      world_.loop.defer(replace_task_);
    });
  }

  void replace_stopped() {
    for (const Stopped& stopped : std::exchange(stopped_, {})) {
      std::unique_ptr<Resource>& place = resources_[stopped.index];
      const std::string name = place->name();
      if (is_stopping_) {
        stopped.reply({AdminOutcome::refused, name + ": the daemon is being stopped", {}});
        continue;
      }
      if (!place->is_quiet() || !place->why_disks_must_stay().empty()) {
        stopped.reply({AdminOutcome::failed,
                       name + ": the old disk has not given back what it was asked: only a restart of the daemon helps",
                       {}});
        continue;
      }
      place.reset();
      disk_owner_->close(stopped.index);
      std::vector<VolumeDisks> disks(config_.resources[stopped.index].volumes.size());
      if (stopped.attaches) {
        disks = disk_owner_->open(stopped.index);
      } else {
        for (VolumeDisks& one : disks) one.reason = "detached by the administrator; `replblkctl attach` opens it again";
      }
      place = make_resource(stopped.index, std::move(disks));
      place->start();
      stopped.reply({AdminOutcome::done,
                     name + (stopped.attaches ? ": the disks are being opened; see `status`" : ": detached"),
                     {}});
    }
  }

  void dispatch(Resource& resource, const AdminRequest& request, const AdminReplyCallback& reply) {
    switch (request.verb) {
      case AdminVerb::attach:
      case AdminVerb::detach:
        reopenings_[index_of(resource)] = {};
        replace(resource, request.verb == AdminVerb::attach, reply);
        return;
      case AdminVerb::primary:
        resource.make_primary(request.is_forced, reply);
        return;
      case AdminVerb::secondary:
        resource.make_secondary(reply);
        return;
      case AdminVerb::connect:
        resource.connect(request.discards_data, reply);
        return;
      case AdminVerb::disconnect:
        resource.disconnect(reply);
        return;
      case AdminVerb::down:
        if (resource.is_down()) return reply({AdminOutcome::done, resource.name() + ": already down", {}});
        resource.stop([reply, name = resource.name()] { reply({AdminOutcome::done, name + ": down", {}}); });
        return;
      case AdminVerb::pause_sync:
        resource.pause_sync(reply);
        return;
      case AdminVerb::resume_sync:
        resource.resume_sync(reply);
        return;
      case AdminVerb::invalidate:
        resource.invalidate(reply);
        return;
      case AdminVerb::invalidate_remote:
        resource.invalidate_remote(reply);
        return;
      case AdminVerb::resize:
        resource.resize(reply);
        return;
      case AdminVerb::switchover:
        resource.switch_over(reply);
        return;
      case AdminVerb::standby:
      case AdminVerb::unstandby:
        resource.set_standby(request.verb == AdminVerb::standby, reply);
        return;
      case AdminVerb::maintenance_on:
      case AdminVerb::maintenance_off:
        resource.set_maintenance(request.verb == AdminVerb::maintenance_on, reply);
        return;
      case AdminVerb::verify:
        resource.verify(request, reply);
        return;
      case AdminVerb::status:
        break;
    }
    RB_UNREACHABLE();
  }

  Result<void, std::string> listen_all() {
    listeners_.clear();
    std::vector<ports::Endpoint> portals;
    for (const ResourceConfig& resource : config_.resources) {
      std::vector<std::string> addresses = resource.target.portal_addresses;
      if (addresses.empty()) addresses.emplace_back();
      for (const std::string& address : addresses) {
        const ports::Endpoint portal{address, resource.target.port};
        if (std::ranges::find(portals, portal) == portals.end()) portals.push_back(portal);
      }
    }
    for (const ports::Endpoint& portal : portals) {
      if (auto done = listen(portal, portal_, "iSCSI portal"); !done) return done;
    }
    if (!config_.is_pair()) return {};
    return listen({config_.nodes[config_.self].address, config_.replication_port}, *this, "replication");
  }

  Result<void, std::string> listen(const ports::Endpoint& local, ports::AcceptSink& sink, std::string_view what) {
    auto listener = world_.network.listen(local, sink);
    if (!listener) {
      listeners_.clear();
      return fail(fmt::format("{}: cannot listen on {}: {}", what, to_string(local), to_string(listener.error())));
    }
    listeners_.push_back(std::move(*listener));
    return {};
  }

  void on_accept(std::unique_ptr<ports::Stream> stream) override {
    if (unnamed_.size() >= kUnnamedConnectionsMax) return;  // Dropped: the dialer tries again.
    auto unnamed = std::make_unique<Unnamed>();
    unnamed->node = this;
    const replication::ChannelTimes times{config_.ping_interval, config_.ping_timeout, seconds(5)};
    unnamed->channel = std::make_unique<replication::PeerChannel>(world_, times, *unnamed);
    unnamed->channel->accept(std::move(stream));
    unnamed_.push_back(std::move(unnamed));
  }

  void named(Unnamed& unnamed, const replication::Hello& hello) {
    const std::string& self = config_.nodes[config_.self].name;
    if (config_.self != 0) {
      refuse(unnamed,
             fmt::format("{} stands second in its configuration file, so it connects and takes no connections; "
                         "\"{}\" does the same: their files list the nodes differently",
                         self, hello.node));
      return;
    }
    for (const auto& resource : resources_) {
      if (resource->name() != hello.resource) continue;
      std::unique_ptr<replication::PeerChannel> channel = std::move(unnamed.channel);
      retire(unnamed);
      resource->accept(std::move(channel), hello);
      return;
    }
    refuse(unnamed, fmt::format("resource \"{}\" is not in the configuration of {}", hello.resource, self));
  }

  void refuse(Unnamed& unnamed, const std::string& reason) {
    unnamed.channel->end(replication::Refusal{reason, false});
    unnamed_ended(unnamed, reason);
  }

  void unnamed_ended(Unnamed& unnamed, const std::string& reason) {
    const std::string sentence = fmt::format("a connection from {} to the replication port was refused: {}",
                                             unnamed.channel->remote_host(), reason);
    if (reported_.is_new(sentence)) log_warning("{}", sentence);
    for (const auto& resource : resources_) resource->note_stranger(sentence);
    retire(unnamed);
  }

  void retire(Unnamed& unnamed) {
    const auto found = std::ranges::find_if(unnamed_, [&](const auto& one) { return one.get() == &unnamed; });
    RB_ASSERT(found != unnamed_.end());
    retired_.push_back(std::move(*found));
    unnamed_.erase(found);
    world_.loop.defer(sweep_task_);
  }

  struct Stopped {
    std::size_t index = 0;
    bool attaches = false;
    AdminReplyCallback reply;
  };

  ClusterConfig config_;
  ports::World world_;
  Uuid boot_id_;
  std::uint64_t incarnation_;
  std::vector<std::vector<ports::VirtualIp*>> virtual_ips_;
  DiskOwner* disk_owner_;
  ArbiterOwner* arbiter_owner_;
  bool is_stopping_ = false;
  struct Reopening {
    Duration pause = kReopenPauseMin;
    Instant due = Instant::max();
  };
  std::vector<Reopening> reopenings_;  ///< by resource
  std::vector<Stopped> stopped_;       ///< resources whose disks are to be replaced
  HeartbeatPaths heartbeat_paths_;
  iscsi::Portal portal_;
  std::vector<std::unique_ptr<Resource>> resources_;
  std::vector<std::unique_ptr<ports::Listener>> listeners_;
  std::vector<std::unique_ptr<Unnamed>> unnamed_;
  std::vector<std::unique_ptr<Unnamed>> retired_;
  ReportedReasons reported_;  ///< of connections that named no resource
  ports::Timer reopen_timer_;
  ports::DeferredTask replace_task_;
  ports::DeferredTask sweep_task_;
};

Node::Node(ClusterConfig config, ports::World world, Uuid boot_id, std::vector<std::vector<VolumeDisks>> disks,
           std::vector<std::vector<ports::VirtualIp*>> virtual_ips, DiskOwner* disk_owner, ArbiterOwner* arbiter_owner)
    : impl_(std::make_unique<Impl>(std::move(config), world, boot_id, std::move(disks), std::move(virtual_ips),
                                   disk_owner, arbiter_owner)) {}
Node::~Node() = default;

Result<void, std::string> Node::start() { return impl_->start(); }
void Node::stop(std::function<void()> done) { impl_->stop(std::move(done)); }
void Node::request(const AdminRequest& request, std::function<void(AdminReply)> reply) {
  impl_->request(request, std::move(reply));
}
Status Node::status() const { return impl_->status(); }
const Resource& Node::resource(std::size_t index) const { return *impl_->resources()[index]; }

}  // namespace replblk::node
