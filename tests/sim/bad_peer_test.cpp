// A node whose peer is in a bad state: one that speaks garbage, another version, has another secret or name, belongs to
// other data. Whatever it is: a clear sentence in `status`, the same sentence once in the log, few attempts however
// long it lasts, and nothing written or served. Whole nodes in the simulated world against a peer that is played here.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "replication/peer_channel.hpp"
#include "sim_host.hpp"

namespace replblk::sim {
namespace {

using replication::ChannelEnd;
using replication::FrameHeader;
using replication::HandshakeIdentity;
using replication::Hello;
using replication::Introduction;
using replication::Message;
using replication::PeerChannel;

constexpr std::uint32_t kVersion = replication::kProtocolVersionMax;

std::vector<std::string>* log_lines = nullptr;

void keep_line(LogLevel, std::string_view line) {
  if (log_lines != nullptr) log_lines->emplace_back(line);
}

struct World {
  explicit World(std::uint32_t volumes_count = 1)
      : options(draw_options(1, 1, true)), timeline(1), fabric(timeline, options.network) {
    options.volumes_count = volumes_count;
    log_lines = &lines;
    set_log_sink(keep_line, LogLevel::info);
    for (blockdev::NodeIndex node = 0; node < 2; ++node) hosts[node] = std::make_unique<SimHost>(fabric, options, node);
  }
  ~World() { log_lines = nullptr; }
  void create(Uuid first = volume_uuid(1), Uuid second = volume_uuid(1)) {
    static_cast<void>(hosts[0]->create_metadata(first));
    static_cast<void>(hosts[1]->create_metadata(second));
  }
  static Uuid volume_uuid(int number) {
    Uuid uuid;
    uuid.bytes.fill(static_cast<std::byte>(number));
    return uuid;
  }
  void run(Duration duration) { timeline.run_until(timeline.now() + duration); }
  node::ResourceStatus status(std::size_t node) { return hosts[node]->node()->status().resources.front(); }
  std::size_t lines_with(std::string_view text) {
    return static_cast<std::size_t>(
        std::ranges::count_if(lines, [&](const std::string& line) { return line.find(text) != line.npos; }));
  }
  /// Neither the record nor a byte of data has changed, and nothing is served.
  void expect_untouched(std::size_t node, const std::vector<std::byte>& data) {
    EXPECT_TRUE(hosts[node]->persisted(false).generations.current.is_none());
    EXPECT_EQ(hosts[node]->persisted(false).configuration.term, 0u);
    EXPECT_FALSE(status(node).is_serving);
    EXPECT_TRUE(std::equal(data.begin(), data.end(), hosts[node]->data().content()));
  }
  std::vector<std::byte> data_of(std::size_t node) {
    const std::byte* content = hosts[node]->data().content();
    return {content, content + (1 << 20)};
  }

  RunOptions options;
  Timeline timeline;
  SimFabric fabric;
  std::array<std::unique_ptr<SimHost>, 2> hosts;
  std::vector<std::string> lines;
};

enum class Manner : std::uint8_t {
  garbage,
  closes,
  is_silent,
  other_version,
  other_secret,
  other_cluster,
  same_node,
  refuses,
  other_configuration,
  other_volume,
  garbage_after_proof,
  acknowledges_nothing_sent,
};

/// Node a as it should not be: takes b's connections on the replication port and answers each in its manner.
class BadPeer final : private ports::AcceptSink, private replication::PeerChannelObserver {
 public:
  BadPeer(World& world, Manner manner) : world_(world), manner_(manner) {
    listener_ = std::move(*network_.listen({kNodeAddress[0], 7789}, *this));
  }
  ~BadPeer() {
    channels_.clear();
    strangers_.clear();
    listener_.reset();
    network_.leave(false);
    loop_.kill();
  }
  [[nodiscard]] std::size_t attempts_count() const { return attempts_count_; }

 private:
  /// Answers whatever it is told with garbage.
  struct Babbler final : ports::StreamSink {
    explicit Babbler(std::unique_ptr<ports::Stream> accepted) : stream(std::move(accepted)) { stream->set_sink(*this); }
    void on_connected() override {}
    void on_receive(ConstBytes) override { stream->send(as_bytes(std::string(200, 'x'))); }
    ports::DirectTarget direct_target() override { return {}; }
    void on_direct(std::size_t) override {}
    void on_closed(ports::StreamError) override {}
    std::unique_ptr<ports::Stream> stream;
  };
  void on_accept(std::unique_ptr<ports::Stream> stream) override {
    ++attempts_count_;
    if (manner_ == Manner::garbage) {
      strangers_.push_back(std::make_unique<Babbler>(std::move(stream)));
      return;
    }
    channels_.push_back(std::make_unique<PeerChannel>(ports_, replication::ChannelTimes{},
                                                      static_cast<replication::PeerChannelObserver&>(*this)));
    channels_.back()->accept(std::move(stream));
  }
  void on_message(const Message& message) override {
    const auto* hello = std::get_if<Hello>(&message);
    if (hello == nullptr) return;
    PeerChannel& channel = *channels_.back();
    HandshakeIdentity identity{"sim", "a", "b", "r0", "a secret of the simulation", std::string(32, 'n'), 7};
    if (manner_ == Manner::is_silent) return;
    if (manner_ == Manner::closes) return channel.end();
    if (manner_ == Manner::refuses) return channel.end(replication::Refusal{"the peer has other plans", false});
    if (manner_ == Manner::other_version) {
      Hello answer{7, 9, 0, "sim", "a", "b", "r0", identity.nonce, 7};
      return channel.send(answer);
    }
    if (manner_ == Manner::other_cluster) {
      return channel.send(Hello{kVersion, kVersion, 0, "another", "a", "b", "r0", identity.nonce, 7});
    }
    if (manner_ == Manner::same_node)
      return channel.send(Hello{kVersion, kVersion, 0, "sim", "b", "a", "r0", identity.nonce, 7});
    if (manner_ == Manner::other_secret) identity.secret = "a secret of somebody else";
    channel.answer_hello(identity, *hello);
  }
  void on_proven() override {
    PeerChannel& channel = *channels_.back();
    Introduction intro;
    intro.shared_fields = make_cluster_config(world_.options, 0).shared_fields;
    if (manner_ == Manner::other_configuration) intro.shared_fields = {"resource[0].volume[0].lun=7"};
    replication::VolumeIntroduction volume;
    volume.uuid = World::volume_uuid(2);
    intro.volumes = {volume};
    FrameHeader header;
    if (manner_ == Manner::garbage_after_proof) {
      header.type = replication::FrameType::control;
      return channel.send(header, as_bytes(std::string(100, 'x')));
    }
    if (manner_ == Manner::acknowledges_nothing_sent) {
      header.type = replication::FrameType::acknowledge;
      return channel.send(header, as_bytes(std::string(16, '\0')));
    }
    channel.send(intro);
  }
  void on_operation(const FrameHeader&, BufferRef) override {}
  void on_acknowledge(std::uint64_t, replication::OperationStatus) override {}
  void on_bitmap_page(const FrameHeader&, ConstBytes) override {}
  void on_checksums(const FrameHeader&, ConstBytes) override {}
  void on_heartbeat_frame(ConstBytes) override {}
  void on_channel_ended(ChannelEnd, const std::string&) override {}

  World& world_;
  Manner manner_;
  SimLoop loop_{world_.timeline, "bad"};
  SimNetwork network_{world_.fabric, loop_, kNodeAddress[0]};
  BufferPool buffers_{1 << 20};
  ports::World ports_{loop_, world_.timeline.random(), network_, buffers_};
  std::vector<std::unique_ptr<PeerChannel>> channels_;
  std::vector<std::unique_ptr<Babbler>> strangers_;
  std::unique_ptr<ports::Listener> listener_;
  std::size_t attempts_count_ = 0;
};

struct Case {
  Manner manner;
  std::string_view sentence;
};

// Broken if a refused plan were retried hot (DRBD once did so 13 times a second), or nobody were told why.
TEST(BadPeer, Whatever_it_does_is_told_once_and_tried_again_ever_more_slowly) {
  const std::vector<Case> cases = {
      {Manner::garbage, "wrong magic: the other side does not speak this protocol"},
      {Manner::closes, "the peer ended the connection in the handshake without a reason"},
      {Manner::is_silent, "the peer did not finish the handshake in time"},
      {Manner::other_version, "no common protocol version: b speaks 6 to 6, a speaks 7 to 9"},
      {Manner::other_secret, "the shared secret differs: secret_file must have the same content on both nodes"},
      {Manner::other_cluster, "cluster name: b belongs to \"sim\", a to \"another\""},
      {Manner::same_node, "both nodes are configured as \"b\": start each with its own name"},
      {Manner::refuses, "the peer has other plans"},
      {Manner::other_configuration, "the configuration files differ: resource[0].volume[0].write_cache"},
      {Manner::other_volume, "these are not two copies of one volume"},
      {Manner::garbage_after_proof, "a control message that cannot be understood"},
      {Manner::acknowledges_nothing_sent, "the peer acknowledged an operation that is not out"},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(std::string(bad.sentence));
    World world;
    world.create();
    const std::vector<std::byte> data = world.data_of(1);
    BadPeer peer(world, bad.manner);
    world.hosts[1]->start();
    world.run(seconds(60));
    EXPECT_LE(peer.attempts_count(), 10u);
    EXPECT_GE(peer.attempts_count(), 4u);
    const std::size_t first_minute = peer.attempts_count();
    world.run(seconds(120));
    EXPECT_LE(peer.attempts_count() - first_minute, 13u);  // At most every 10 s.
    EXPECT_GE(peer.attempts_count() - first_minute, 6u);   // But for ever.
    EXPECT_NE(world.status(1).connection_state, "Connected");
    EXPECT_NE(world.status(1).connection_reason.find(bad.sentence), std::string::npos)
        << world.status(1).connection_reason;
    EXPECT_EQ(world.lines_with(bad.sentence), 1u);
    world.expect_untouched(1, data);
    world.hosts[1]->kill();
  }
}

// Broken if a peer that has come to its senses had to wait, or the old reason stayed.
TEST(BadPeer, A_peer_that_is_mended_is_joined_within_the_bound_and_the_next_failure_begins_anew) {
  World world;
  world.create();
  {
    BadPeer peer(world, Manner::other_secret);
    world.hosts[1]->start();
    world.run(seconds(60));
  }
  world.hosts[0]->start();
  world.run(seconds(12));
  EXPECT_EQ(world.status(1).connection_state, "Connected");
  EXPECT_EQ(world.status(1).connection_reason, "");
  EXPECT_EQ(world.status(0).connection_reason, "");
  world.hosts[0]->kill();
  {
    BadPeer peer(world, Manner::other_secret);
    world.run(seconds(6));
    EXPECT_GE(peer.attempts_count(), 2u);
    EXPECT_EQ(world.lines_with("the shared secret differs"), 2u);
  }
  world.hosts[1]->kill();
}

/// Two real nodes, one of them with a mistake in its file.
struct Pair : World {
  explicit Pair(std::function<void(node::ClusterConfig&)> edit, Uuid second = volume_uuid(1)) {
    create(volume_uuid(1), second);
    hosts[1]->set_config_edit(std::move(edit));
    for (const auto& host : hosts) host->start();
    run(seconds(90));
  }
  ~Pair() {
    for (const auto& host : hosts) host->kill();
  }
  void expect_said(std::string_view here, std::string_view there) {
    EXPECT_NE(status(0).connection_reason.find(here), std::string::npos) << status(0).connection_reason;
    EXPECT_NE(status(1).connection_reason.find(there), std::string::npos) << status(1).connection_reason;
    for (const std::size_t node : {0u, 1u}) {
      EXPECT_NE(status(node).connection_state, "Connected");
      EXPECT_FALSE(status(node).is_serving);
      EXPECT_EQ(hosts[node]->persisted(false).configuration.term, 0u);
    }
  }
};

TEST(BadPeer, Two_nodes_with_different_secrets_both_say_so) {
  Pair pair([](node::ClusterConfig& config) { config.secret = "another secret of sixteen"; });
  pair.expect_said("the shared secret differs", "the shared secret differs");
  EXPECT_LE(pair.lines_with("the shared secret differs"), 2u);
}

TEST(BadPeer, Two_nodes_with_volumes_of_different_resources_both_say_so) {
  Pair pair({}, World::volume_uuid(2));
  pair.expect_said("these are not two copies of one volume", "these are not two copies of one volume");
  EXPECT_EQ(pair.lines_with("these are not two copies of one volume"), 2u);
}

// Broken if the wrong disk of one volume were taken for a copy because the other volumes' are right.
TEST(BadPeer, Volumes_of_two_pairs_in_one_node_are_all_left_alone) {
  World world(2);
  blockdev::ResourceRecord record;
  record.configuration = {7, 1, 0};
  record.seen = 7;
  record.generations.current = {7, 1};
  record.pair_id.bytes[0] = std::byte{1};
  static_cast<void>(world.hosts[0]->create_metadata(World::volume_uuid(1), record, 0));
  record.pair_id.bytes[0] = std::byte{2};
  static_cast<void>(world.hosts[0]->create_metadata(World::volume_uuid(2), record, 1));
  const auto before = world.hosts[0]->persisted(false);
  world.hosts[0]->start();
  world.run(seconds(10));
  EXPECT_FALSE(world.status(0).is_serving);
  for (const node::VolumeStatus& volume : world.status(0).volumes)
    EXPECT_NE(volume.disk_reason.find("volumes 0 and 1 hold copies of two pairs"), std::string::npos);
  EXPECT_EQ(world.lines_with("hold copies of two pairs"), 1u);
  EXPECT_EQ(world.hosts[0]->persisted(false), before);
  world.hosts[0]->kill();
}

TEST(BadPeer, Two_nodes_that_are_configured_as_the_same_node_both_say_so) {
  Pair pair([](node::ClusterConfig& config) { config.nodes[1].name = "a"; });
  pair.expect_said("both nodes are configured as \"a\"", "both nodes are configured as \"a\"");
}

TEST(BadPeer, A_node_that_lists_the_nodes_the_other_way_round_is_told) {
  World world;
  world.create();
  // Node a believes to stand second too: both connect, neither takes connections.
  world.hosts[0]->set_config_edit([](node::ClusterConfig& config) {
    std::swap(config.nodes[0], config.nodes[1]);
    config.self = 1;
  });
  for (const auto& host : world.hosts) host->start();
  world.run(seconds(90));
  for (const std::size_t node : {0u, 1u}) {
    EXPECT_NE(world.status(node).connection_reason.find("their files list the nodes differently"), std::string::npos)
        << world.status(node).connection_reason;
  }
  EXPECT_LE(world.lines_with("their files list the nodes differently"), 4u);
  for (const auto& host : world.hosts) host->kill();
}

TEST(BadPeer, A_resource_that_the_other_node_does_not_have_is_named_on_both) {
  World world;
  world.create();
  world.hosts[0]->set_config_edit([](node::ClusterConfig& config) { config.resources.front().name = "r1"; });
  for (const auto& host : world.hosts) host->start();
  world.run(seconds(60));
  EXPECT_NE(world.status(1).connection_reason.find("resource \"r0\" is not in the configuration of a"),
            std::string::npos)
      << world.status(1).connection_reason;
  EXPECT_EQ(world.lines_with("resource \"r0\" is not in the configuration of a"), 2u);
  for (const auto& host : world.hosts) host->kill();
}

/// A stranger that connects to the replication port of node a again and again.
struct Stranger final : ports::StreamSink {
  explicit Stranger(World& world_) : world(world_) {}
  ~Stranger() {
    network.leave(false);
    loop.kill();
  }
  void knock() {
    stream = network.connect({kNodeAddress[0], 7789}, "", *this);
    world.run(milliseconds(50));
  }
  void on_connected() override { stream->send(as_bytes(std::string(200, '?'))); }
  void on_receive(ConstBytes) override {}
  ports::DirectTarget direct_target() override { return {}; }
  void on_direct(std::size_t) override {}
  void on_closed(ports::StreamError) override { ++closed_count; }
  World& world;
  SimLoop loop{world.timeline, "stranger"};
  SimNetwork network{world.fabric, loop, "10.0.0.9"};
  std::unique_ptr<ports::Stream> stream;
  std::size_t closed_count = 0;
};

// Broken if anybody who reaches the port could fill the log.
TEST(BadPeer, A_stranger_who_speaks_garbage_is_hung_up_on_and_named_once) {
  World world;
  world.create();
  const std::vector<std::byte> data = world.data_of(0);
  world.hosts[0]->start();
  world.run(seconds(1));
  {
    Stranger stranger(world);
    for (int count = 0; count < 100; ++count) stranger.knock();
    EXPECT_EQ(stranger.closed_count, 100u);
    EXPECT_EQ(world.lines_with("a connection from 10.0.0.9 to the replication port was refused"), 1u);
    EXPECT_NE(world.status(0).connection_reason.find("a connection from 10.0.0.9"), std::string::npos);
    world.expect_untouched(0, data);
    stranger.stream.reset();
  }
  world.hosts[1]->start();
  world.run(seconds(3));
  EXPECT_EQ(world.status(0).connection_state, "Connected");
  EXPECT_EQ(world.status(0).connection_reason, "");
  for (const auto& host : world.hosts) host->kill();
}

}  // namespace
}  // namespace replblk::sim
