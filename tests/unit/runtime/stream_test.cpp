#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <random>

#include "runtime/start_error.hpp"
#include "runtime/tcp_network.hpp"
#include "test_loop.hpp"

namespace replblk::runtime {
namespace {

using ports::AcceptSink;
using ports::DirectTarget;
using ports::Endpoint;
using ports::ListenError;
using ports::Stream;
using ports::StreamError;
using ports::StreamSink;
using test::make_reactor;
using test::pattern;
using test::turn_for;
using test::turn_until;

/// Keeps what it receives and notes what happens.
struct Peer final : StreamSink {
  void on_connected() override { is_connected = true; }
  void on_receive(ConstBytes bytes) override {
    ++callback_count;
    received.insert(received.end(), bytes.begin(), bytes.end());
    chunk_bytes_max = std::max(chunk_bytes_max, bytes.size());
    if (then) then(*this);
  }
  void on_send_room() override { ++send_room_count; }
  void on_closed(StreamError error) override {
    ++callback_count;
    EXPECT_FALSE(closed.has_value());
    closed = error;
    if (then) then(*this);
  }
  std::unique_ptr<Stream> stream;
  std::vector<std::byte> received;
  std::optional<StreamError> closed;
  bool is_connected = false;
  int callback_count = 0;
  int send_room_count = 0;
  std::size_t chunk_bytes_max = 0;
  Callback<void(Peer&)> then;
};

struct Acceptor final : AcceptSink {
  explicit Acceptor(StreamSink* sink_of_next = nullptr) : next(sink_of_next) {}
  void on_accept(std::unique_ptr<Stream> stream) override {
    if (next == nullptr) return;
    stream->set_sink(*next);
    accepted = std::move(stream);
  }
  StreamSink* next;
  std::unique_ptr<Stream> accepted;
};

/// A reactor, a network and one connection between `client` and `server`.
class StreamTest : public testing::Test {
 protected:
  void connect() {
    auto made = network.listen({.address = "127.0.0.1", .port = 0}, acceptor);
    ASSERT_TRUE(made.has_value());
    listener = std::move(*made);
    client.stream = network.connect(listener->local(), "", client);
    ASSERT_TRUE(turn_until(*reactor, [&] { return client.is_connected && acceptor.accepted != nullptr; }));
    server.stream = std::move(acceptor.accepted);
  }
  /// A plain socket connected to our listener, for what only a foreign end can do.
  int connect_raw() {
    auto made = network.listen({.address = "127.0.0.1", .port = 0}, acceptor);
    EXPECT_TRUE(made.has_value());
    listener = std::move(*made);
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(listener->local().port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_TRUE(turn_until(*reactor, [&] { return acceptor.accepted != nullptr; }));
    server.stream = std::move(acceptor.accepted);
    return fd;
  }

  BufferPool pool{std::size_t{64} << 20};
  std::unique_ptr<Reactor> reactor = make_reactor();
  TcpNetwork network{*reactor};
  Peer client;
  Peer server;
  Acceptor acceptor{&server};
  std::unique_ptr<ports::Listener> listener;
};

/// Sends back whatever comes, and stops reading while the way back is full.
struct Echo final : StreamSink {
  void on_receive(ConstBytes bytes) override {
    stream->send(bytes);
    if (stream->queued_bytes() > Stream::kQueueHighBytes) {
      stream->pause_receive();
      ++pause_count;
    }
  }
  void on_send_room() override { stream->resume_receive(); }
  void on_closed(StreamError) override { is_closed = true; }
  std::unique_ptr<Stream> stream;
  int pause_count = 0;
  bool is_closed = false;
};

// If it failed, data would be lost, doubled or reordered under load and back-pressure.
TEST_F(StreamTest, Echoed_random_data_comes_back_whole_under_back_pressure) {
  Echo echo;
  acceptor.next = &echo;
  auto made = network.listen({.address = "127.0.0.1", .port = 0}, acceptor);
  ASSERT_TRUE(made.has_value());
  client.stream = network.connect((*made)->local(), "", client);
  ASSERT_TRUE(turn_until(*reactor, [&] { return client.is_connected && acceptor.accepted != nullptr; }));
  echo.stream = std::move(acceptor.accepted);

  std::mt19937 random(11);
  const std::vector<std::byte> sent = pattern(std::size_t{48} << 20, 1);
  client.received.reserve(sent.size());
  std::size_t position = 0;
  bool is_reading = false;
  client.stream->pause_receive();
  while (position < sent.size()) {
    if (client.stream->queued_bytes() <= Stream::kQueueHighBytes) {
      const std::size_t wanted = random() % 4 == 0 ? random() % 200'000 + 1 : random() % 300 + 1;
      const std::size_t length = std::min(sent.size() - position, wanted);
      const ConstBytes piece{sent.data() + position, length};
      BufferRef buffer = random() % 2 == 0 ? pool.acquire(length + 7) : BufferRef();
      if (buffer) {
        std::ranges::copy(piece, buffer.data() + 7);
        client.stream->send(std::move(buffer), 7, length);
      } else {
        client.stream->send(piece);
      }
      position += length;
      if (random() % 16 != 0) continue;
    } else {
      // The client does not read until the way back has filled up, and in bursts from then on.
      is_reading = !is_reading && echo.pause_count > 0;
      is_reading ? client.stream->resume_receive() : client.stream->pause_receive();
      for (int turn = 0; turn < 20; ++turn) reactor->run_turn(milliseconds(1));
    }
    reactor->run_turn({});
  }
  client.stream->resume_receive();
  ASSERT_TRUE(turn_until(*reactor, [&] { return client.received.size() == sent.size(); }));
  EXPECT_TRUE(client.received == sent);
  EXPECT_GT(echo.pause_count, 0) << "the test did not reach back-pressure";
  EXPECT_LE(client.chunk_bytes_max, std::size_t{256} << 10);
  EXPECT_EQ(pool.free_bytes(), pool.region().size());
}

/// Frames of [u32 length][payload], the payload wanted directly in a pool buffer.
struct FrameReader final : StreamSink {
  explicit FrameReader(BufferPool& buffer_pool) : pool(buffer_pool) {}
  void on_receive(ConstBytes bytes) override {
    EXPECT_EQ(offered_bytes, 0u) << "bytes of the target came by on_receive";
    while (!bytes.empty()) {
      if (is_in_payload()) {
        const std::size_t count = std::min(bytes.size(), payload_bytes - payload_done);
        std::ranges::copy(bytes.first(count), payload.data() + payload_done);
        bytes = bytes.subspan(count);
        advance(count);
        continue;
      }
      header[header_done++] = bytes[0];
      bytes = bytes.subspan(1);
      if (header_done < header.size()) continue;
      payload_bytes = load_le<std::uint32_t>(header.data());
      payload_done = 0;
      payload = pool.acquire(payload_bytes);
    }
  }
  DirectTarget direct_target() override {
    offered_bytes = is_in_payload() ? payload_bytes - payload_done : 0;
    if (!is_in_payload()) return {};
    return {.buffer = payload.share(), .offset_bytes = payload_done, .length_bytes = payload_bytes - payload_done};
  }
  void on_direct(std::size_t count) override {
    direct_bytes += count;
    offered_bytes -= count;
    advance(count);
  }
  void on_closed(StreamError) override {}
  void advance(std::size_t count) {
    payload_done += count;
    ASSERT_LE(payload_done, payload_bytes);
    if (payload_done < payload_bytes) return;
    const MutableBytes whole = payload.bytes(0, payload_bytes);
    received.insert(received.end(), whole.begin(), whole.end());
    header_done = 0;
    payload.reset();
  }
  [[nodiscard]] bool is_in_payload() const { return header_done == header.size(); }

  BufferPool& pool;
  std::array<std::byte, 4> header{};
  std::size_t header_done = 0;
  std::size_t payload_bytes = 0;
  std::size_t payload_done = 0;
  std::size_t direct_bytes = 0;
  std::size_t offered_bytes = 0;
  BufferRef payload;
  std::vector<std::byte> received;
};

// If it failed, payloads would land shifted in the buffer that goes to the disk.
TEST_F(StreamTest, Direct_targets_get_exactly_their_bytes_for_any_chunking_and_pauses) {
  FrameReader reader(pool);
  acceptor.next = &reader;
  auto made = network.listen({.address = "127.0.0.1", .port = 0}, acceptor);
  ASSERT_TRUE(made.has_value());
  client.stream = network.connect((*made)->local(), "", client);
  ASSERT_TRUE(turn_until(*reactor, [&] { return acceptor.accepted != nullptr && client.is_connected; }));

  std::mt19937 random(23);
  std::vector<std::byte> wire;
  std::vector<std::byte> expected;
  for (int frame = 0; frame < 120; ++frame) {
    const auto length = static_cast<std::uint32_t>(random() % 10 == 0 ? random() % 3'000'000 + 1 : random() % 9000 + 1);
    const std::vector<std::byte> payload = pattern(length, static_cast<std::uint64_t>(frame));
    std::byte header[4];
    store_le<std::uint32_t>(header, length);
    wire.insert(wire.end(), header, header + 4);
    wire.insert(wire.end(), payload.begin(), payload.end());
    expected.insert(expected.end(), payload.begin(), payload.end());
  }
  for (std::size_t position = 0; position < wire.size();) {
    const std::size_t wanted = random() % 3 == 0 ? random() % 700'000 + 1 : random() % 5000 + 1;
    const std::size_t length = std::min(wire.size() - position, wanted);
    client.stream->send(ConstBytes(wire.data() + position, length));
    position += length;
    if (random() % 5 == 0) acceptor.accepted->pause_receive();
    reactor->run_turn({});
    if (random() % 2 == 0) acceptor.accepted->resume_receive();
    while (client.stream->queued_bytes() > Stream::kQueueHighBytes) {
      acceptor.accepted->resume_receive();
      reactor->run_turn(milliseconds(10));
    }
  }
  acceptor.accepted->resume_receive();
  ASSERT_TRUE(turn_until(*reactor, [&] { return reader.received.size() == expected.size(); }));
  EXPECT_TRUE(reader.received == expected);
  EXPECT_GT(reader.direct_bytes, expected.size() / 4) << "most of the large payloads should have come directly";
}

// If it failed, the bytes after a long target's first part would arrive before its second.
TEST_F(StreamTest, A_target_longer_than_one_receive_is_filled_to_its_end_first) {
  FrameReader reader(pool);
  acceptor.next = &reader;
  connect();
  std::vector<std::byte> expected;
  for (std::uint64_t frame = 0; frame < 8; ++frame) {
    const std::vector<std::byte> payload = pattern(std::size_t{4} << 20, frame);
    std::byte header[4];
    store_le<std::uint32_t>(header, static_cast<std::uint32_t>(payload.size()));
    expected.insert(expected.end(), payload.begin(), payload.end());
    // The first frames widen the kernel's window; a pause then lets more than one receive's worth gather there.
    // The receive that is armed already takes the header alone, so that the next one has the whole target ahead.
    client.stream->send(header);
    ASSERT_TRUE(turn_until(*reactor, [&] { return reader.is_in_payload(); }));
    server.stream->pause_receive();
    client.stream->send(payload);
    turn_for(*reactor, milliseconds(frame < 4 ? 0 : 50));
    server.stream->resume_receive();
    ASSERT_TRUE(turn_until(*reactor, [&] { return reader.received.size() == expected.size(); }));
  }
  EXPECT_TRUE(reader.received == expected);
}

// If it failed, a session would be cleaned up as crashed although the peer ended it, or the other way round.
TEST_F(StreamTest, A_FIN_is_closed_by_peer_and_a_RST_is_reset) {
  const int orderly = connect_raw();
  ASSERT_EQ(::send(orderly, "bye", 3, 0), 3);
  ::close(orderly);
  ASSERT_TRUE(turn_until(*reactor, [&] { return server.closed.has_value(); }));
  EXPECT_EQ(server.closed, StreamError::closed_by_peer);
  EXPECT_EQ(as_text(server.received), "bye");

  server.closed.reset();
  const int rude = connect_raw();
  const linger none{.l_onoff = 1, .l_linger = 0};
  ASSERT_EQ(::setsockopt(rude, SOL_SOCKET, SO_LINGER, &none, sizeof none), 0);
  ::close(rude);
  ASSERT_TRUE(turn_until(*reactor, [&] { return server.closed.has_value(); }));
  EXPECT_EQ(server.closed, StreamError::reset);
}

// If it failed, a reset noticed by the send first would be taken for an orderly end.
TEST_F(StreamTest, A_RST_while_sending_and_receiving_is_reset) {
  const int rude = connect_raw();
  const std::vector<std::byte> much = pattern(std::size_t{20} << 20, 3);
  server.stream->send(much);
  turn_for(*reactor, milliseconds(20));
  EXPECT_GT(server.stream->queued_bytes(), 0u);
  ::close(rude);  // With unread data in its receive buffer: the kernel sends RST.
  ASSERT_TRUE(turn_until(*reactor, [&] { return server.closed.has_value(); }));
  EXPECT_EQ(server.closed, StreamError::reset);
}

// If it failed, the last answers before a logout would be lost.
TEST_F(StreamTest, Close_sends_what_is_queued_and_then_FIN_although_the_stream_is_destroyed) {
  connect();
  const std::vector<std::byte> last_words = pattern(std::size_t{6} << 20, 5);
  client.stream->send(last_words);
  client.stream->close();
  client.stream.reset();
  server.stream->send(as_bytes("arrives after close and is dropped"));
  ASSERT_TRUE(turn_until(*reactor, [&] { return server.closed.has_value(); }));
  EXPECT_EQ(server.closed, StreamError::closed_by_peer);
  EXPECT_TRUE(server.received == last_words);
  EXPECT_EQ(client.callback_count, 0);
}

// If it failed, a destroyed session would be called.
TEST_F(StreamTest, Nothing_is_called_after_abort_and_the_other_end_sees_reset) {
  connect();
  server.stream->send(as_bytes("on its way"));
  client.stream->send(pattern(100'000, 1));
  client.stream->abort();
  ASSERT_TRUE(turn_until(*reactor, [&] { return server.closed.has_value(); }));
  EXPECT_EQ(server.closed, StreamError::reset);
  turn_for(*reactor, milliseconds(20));
  EXPECT_EQ(client.callback_count, 0);
  client.stream->send(as_bytes("ignored"));
  client.stream->close();
  client.stream->abort();
  turn_for(*reactor, milliseconds(5));
  EXPECT_EQ(client.callback_count, 0);
}

// If it failed, initiators would wait for their time after a reset before they come to the other node.
TEST_F(StreamTest, Last_words_arrive_before_the_reset) {
  const int fd = connect_raw();
  server.stream->abort_after(as_bytes("gone"), Duration(0));
  char bytes[16];
  const timeval limit{.tv_sec = 2, .tv_usec = 0};
  ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  ASSERT_EQ(::recv(fd, bytes, sizeof bytes, 0), 4);
  EXPECT_EQ(std::string_view(bytes, 4), "gone");
  turn_for(*reactor, milliseconds(5));
  EXPECT_EQ(::recv(fd, bytes, sizeof bytes, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
  ::close(fd);
}

// If it failed, an initiator would come back before the address that it knows has moved.
TEST_F(StreamTest, The_reset_comes_later_when_it_is_to_and_nobody_is_called_meanwhile) {
  const int fd = connect_raw();
  server.stream->abort_after(as_bytes("gone"), milliseconds(100));
  server.stream.reset();
  ASSERT_EQ(::send(fd, "more", 4, MSG_NOSIGNAL), 4);
  turn_for(*reactor, milliseconds(50));
  char bytes[16];
  EXPECT_EQ(::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), 4);
  EXPECT_EQ(::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  turn_for(*reactor, milliseconds(100));
  EXPECT_EQ(::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_TRUE(server.received.empty());
  ::close(fd);
}

// If it failed, an initiator would wait for half a second though the address has moved already, or be reset though its
// own has not.
TEST_F(StreamTest, The_reset_comes_at_once_when_the_address_has_moved) {
  const int fd = connect_raw();
  server.stream->abort_after(as_bytes("gone"), seconds(60));
  server.stream.reset();
  char bytes[16];
  network.reset_parting("127.0.0.99");
  turn_for(*reactor, milliseconds(5));
  EXPECT_EQ(::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), 4);
  EXPECT_TRUE(network.has_parting());
  network.reset_parting("127.0.0.1");
  turn_for(*reactor, milliseconds(5));
  EXPECT_FALSE(network.has_parting());
  EXPECT_EQ(::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, ECONNRESET);
  ::close(fd);
}

// If it failed, they would be taken for the rest of something else.
TEST_F(StreamTest, Last_words_are_not_said_while_other_bytes_wait) {
  const int fd = connect_raw();
  server.stream->send(as_bytes("not sent yet"));
  server.stream->abort_after(as_bytes("gone"), Duration(0));
  turn_for(*reactor, milliseconds(5));
  char bytes[16];
  EXPECT_EQ(::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, ECONNRESET);
  ::close(fd);
}

// If it failed, a sink that ends its connection on bad input would crash the daemon.
TEST_F(StreamTest, A_stream_may_be_destroyed_from_its_own_callbacks) {
  connect();
  server.then = Callback<void(Peer&)>::with(nullptr, [](void*, Peer& self) { self.stream.reset(); });
  client.then = server.then;
  client.stream->send(as_bytes("poison"));
  ASSERT_TRUE(turn_until(*reactor, [&] { return client.closed.has_value(); }));
  EXPECT_EQ(server.callback_count, 1);
  EXPECT_EQ(client.closed, StreamError::reset);
  EXPECT_EQ(client.stream, nullptr);
}

// If it failed, the kernel would receive into a buffer that belongs to somebody else by then.
TEST_F(StreamTest, A_direct_target_is_held_until_the_kernel_has_given_it_back) {
  FrameReader reader(pool);
  acceptor.next = &reader;
  connect();
  std::byte header[4];
  store_le<std::uint32_t>(header, 1 << 20);
  client.stream->send(header);
  ASSERT_TRUE(turn_until(*reactor, [&] { return reader.is_in_payload(); }));
  turn_for(*reactor, milliseconds(5));  // The receive into the payload is armed now.
  server.stream.reset();
  reader.payload.reset();
  EXPECT_LT(pool.free_bytes(), pool.region().size());
  ASSERT_TRUE(turn_until(*reactor, [&] { return pool.free_bytes() == pool.region().size(); }));
}

// If it failed, a sender would wait for ever after back-pressure, or be woken at every send.
TEST_F(StreamTest, Send_room_is_told_once_after_the_queue_was_high) {
  const int fd = connect_raw();
  server.stream->send(pattern(100'000, 1));
  server.stream->send(pattern(Stream::kQueueHighBytes + 1, 2));
  std::vector<char> sink(1 << 20);
  std::size_t total = 0;
  while (total < 100'000 + Stream::kQueueHighBytes + 1) {
    const ssize_t count = ::recv(fd, sink.data(), sink.size(), MSG_DONTWAIT);
    if (count > 0) total += static_cast<std::size_t>(count);
    reactor->run_turn(milliseconds(1));
  }
  turn_for(*reactor, milliseconds(5));
  EXPECT_EQ(server.send_room_count, 1);
  EXPECT_EQ(server.stream->queued_bytes(), 0u);
  ::close(fd);
}

// If it failed, pool memory would be pinned by connections that are gone.
TEST_F(StreamTest, An_aborted_connection_gives_queued_buffers_back) {
  const int fd = connect_raw();
  for (int count = 0; count < 12; ++count)
    server.stream->send(pool.acquire(std::size_t{1} << 20), 0, std::size_t{1} << 20);
  turn_for(*reactor, milliseconds(10));
  EXPECT_LT(pool.free_bytes(), pool.region().size());
  server.stream->abort();
  ASSERT_TRUE(turn_until(*reactor, [&] { return pool.free_bytes() == pool.region().size(); }));
  ::close(fd);
}

/// Waits for memory and, when it comes, does the worst.
struct Impatient {
  enum class Mode { send, destroy, destroy_aborted };
  void on_buffer(BufferRef buffer) {
    buffer.reset();
    ++count;
    if (mode != Mode::send) {
      stream.reset();
    } else {
      for (int piece = 0; piece < 100; ++piece) {
        stream->send(as_bytes("between"));
        if (BufferRef more = pool.acquire(4096)) stream->send(std::move(more), 0, 4096);
      }
    }
  }
  BufferPool& pool;
  std::unique_ptr<Stream>& stream;
  Mode mode = Mode::send;
  int count = 0;
  BufferWaiter waiter;
};

// If it failed, memory pressure would corrupt the send queue or free a connection in mid-work (seen by ASan).
TEST_F(StreamTest, A_waiter_for_memory_may_send_on_or_destroy_the_stream_that_gives_it_back) {
  for (const auto mode : {Impatient::Mode::send, Impatient::Mode::destroy, Impatient::Mode::destroy_aborted}) {
    BufferPool small(std::size_t{4} << 20);
    const int fd = connect_raw();
    Impatient impatient{.pool = small, .stream = server.stream, .mode = mode, .waiter = {}};
    impatient.waiter.length_bytes = 4096;
    impatient.waiter.on_buffer = Callback<void(BufferRef)>::to<&Impatient::on_buffer>(impatient);
    for (int piece = 0; piece < 64; ++piece) server.stream->send(small.acquire(65536), 0, 65536);
    ASSERT_FALSE(small.acquire_or_wait(impatient.waiter));
    if (mode == Impatient::Mode::destroy_aborted) {
      reactor->run_turn({});  // A send is in flight; nothing has come back.
      server.stream->abort();
    }
    std::vector<char> sink(1 << 20);
    const auto is_drained = [&] {
      while (::recv(fd, sink.data(), sink.size(), MSG_DONTWAIT) > 0) {
      }
      return impatient.count == 1 && small.free_bytes() == small.region().size();
    };
    ASSERT_TRUE(turn_until(*reactor, is_drained));
    server.stream.reset();
    turn_for(*reactor, milliseconds(5));
    ::close(fd);
  }
}

// If it failed, paused bytes would be lost or delivered early.
TEST_F(StreamTest, Paused_bytes_wait_for_resume) {
  connect();
  turn_for(*reactor, milliseconds(2));
  server.stream->pause_receive();
  client.stream->send(as_bytes("early"));
  turn_for(*reactor, milliseconds(20));
  EXPECT_EQ(server.callback_count, 0);
  server.stream->resume_receive();
  EXPECT_EQ(server.callback_count, 0) << "called from inside the user's call";
  ASSERT_TRUE(turn_until(*reactor, [&] { return server.received.size() == 5; }));
}

// If it failed, a node would misreport why its peer is away.
TEST_F(StreamTest, Connect_failures_are_told_apart) {
  {
    auto made = network.listen({.address = "127.0.0.1", .port = 0}, acceptor);
    ASSERT_TRUE(made.has_value());
    listener = std::move(*made);
  }
  const Endpoint gone = listener->local();
  listener.reset();
  turn_for(*reactor, milliseconds(5));
  const auto outcome = [this](const Endpoint& remote, std::string_view local) {
    Peer peer;
    peer.stream = network.connect(remote, local, peer);
    EXPECT_EQ(peer.callback_count, 0) << "called from inside connect()";
    EXPECT_TRUE(turn_until(*reactor, [&] { return peer.closed.has_value(); }));
    return peer.closed;
  };
  EXPECT_EQ(outcome(gone, ""), StreamError::refused);
  EXPECT_EQ(outcome(gone, "127.0.0.1"), StreamError::refused);
  EXPECT_EQ(outcome(gone, "192.0.2.77"), StreamError::unreachable);
  EXPECT_EQ(outcome({.address = "not-an-address", .port = 1}, ""), StreamError::unreachable);
  EXPECT_EQ(outcome({.address = "", .port = 1}, ""), StreamError::unreachable);
}

// If it failed, a link to a host that drops packets would hang for two minutes.
TEST_F(StreamTest, A_silent_host_times_out_after_five_seconds) {
  // A listener whose backlog is full drops SYNs, as a dead host does.
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(fd, 0), 0);
  ASSERT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const Endpoint remote{.address = "127.0.0.1", .port = ntohs(address.sin_port)};
  Peer filler;
  filler.stream = network.connect(remote, "", filler);
  ASSERT_TRUE(turn_until(*reactor, [&] { return filler.is_connected; }));
  const Instant begin = reactor->now();
  Peer late;
  late.stream = network.connect(remote, "", late);
  ASSERT_TRUE(turn_until(*reactor, [&] { return late.closed.has_value(); }));
  EXPECT_EQ(late.closed, StreamError::timed_out);
  EXPECT_GE(reactor->now() - begin, seconds(5));
  EXPECT_LT(reactor->now() - begin, seconds(7));
  ::close(fd);
}

// If it failed, the operator would not learn which port is taken, or a restart could not bind.
TEST_F(StreamTest, A_listener_says_why_it_cannot_listen_and_frees_its_port) {
  auto first = network.listen({.address = "127.0.0.1", .port = 0}, acceptor);
  ASSERT_TRUE(first.has_value());
  const Endpoint taken = (*first)->local();
  const auto second = network.listen(taken, acceptor);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error(), ListenError::address_in_use);
  const std::string sentence = describe_listen_failure(taken, second.error());
  EXPECT_NE(sentence.find(ports::to_string(taken)), std::string::npos) << sentence;
  EXPECT_NE(sentence.find("taken by another process"), std::string::npos) << sentence;

  EXPECT_EQ(network.listen({.address = "192.0.2.77", .port = 0}, acceptor).error(), ListenError::address_not_here);
  EXPECT_EQ(network.listen({.address = "localhost", .port = 0}, acceptor).error(), ListenError::bad_address);
  first->reset();
  const auto again = network.listen(taken, acceptor);
  EXPECT_TRUE(again.has_value()) << "the port is free as soon as the listener is destroyed";
}

// If it failed, `address` in status would differ from what the operator configured.
TEST_F(StreamTest, A_listener_on_all_addresses_takes_IPv4_and_IPv6_and_names_them_as_themselves) {
  auto made = network.listen({.address = "", .port = 0}, acceptor);
  ASSERT_TRUE(made.has_value());
  for (const char* host : {"127.0.0.1", "::1"}) {
    Peer peer;
    peer.stream = network.connect({.address = host, .port = (*made)->local().port}, "", peer);
    ASSERT_TRUE(
        turn_until(*reactor, [&] { return (peer.is_connected || peer.closed) && (acceptor.accepted || peer.closed); }));
    if (peer.closed && std::string_view(host) == "::1") GTEST_SKIP() << "no IPv6 here";
    EXPECT_EQ(acceptor.accepted->remote().address, host);
    EXPECT_EQ(acceptor.accepted->local().address, host);
    EXPECT_EQ(acceptor.accepted->remote(), peer.stream->local());
    acceptor.accepted.reset();
  }
}

// If it failed, a refused initiator would hang instead of trying the next portal.
TEST_F(StreamTest, A_stream_destroyed_in_on_accept_refuses_the_client) {
  acceptor.next = nullptr;
  auto made = network.listen({.address = "127.0.0.1", .port = 0}, acceptor);
  ASSERT_TRUE(made.has_value());
  client.stream = network.connect((*made)->local(), "", client);
  ASSERT_TRUE(turn_until(*reactor, [&] { return client.closed.has_value(); }));
  EXPECT_EQ(client.closed, StreamError::reset);
}

// If it failed, a shutdown under load would leak or touch freed memory (seen by ASan).
TEST_F(StreamTest, A_network_is_destroyed_with_receives_sends_and_closes_in_flight) {
  auto own = std::make_unique<TcpNetwork>(*reactor);
  auto made = own->listen({.address = "127.0.0.1", .port = 0}, acceptor);
  ASSERT_TRUE(made.has_value());
  Peer near;
  near.stream = own->connect((*made)->local(), "", near);
  ASSERT_TRUE(turn_until(*reactor, [&] { return near.is_connected && acceptor.accepted != nullptr; }));
  acceptor.accepted->pause_receive();
  near.stream->send(pool.acquire(std::size_t{4} << 20), 0, std::size_t{4} << 20);
  turn_for(*reactor, milliseconds(5));
  near.stream->close();
  near.stream.reset();
  acceptor.accepted.reset();
  made->reset();
  own.reset();
  EXPECT_EQ(pool.free_bytes(), pool.region().size());
}

// If it failed, a busy connection would hold the loop and starve the others.
TEST_F(StreamTest, One_turn_delivers_at_most_one_chunk_per_connection) {
  const int fd = connect_raw();
  const std::vector<std::byte> much = pattern(1 << 20, 9);
  std::size_t sent = 0;
  while (server.received.size() < much.size()) {
    while (sent < much.size()) {
      const ssize_t count = ::send(fd, much.data() + sent, much.size() - sent, MSG_DONTWAIT);
      if (count <= 0) break;
      sent += static_cast<std::size_t>(count);
    }
    const int before = server.callback_count;
    reactor->run_turn(milliseconds(50));
    ASSERT_LE(server.callback_count, before + 1);
  }
  EXPECT_TRUE(server.received == much);
  ::close(fd);
}

}  // namespace
}  // namespace replblk::runtime
