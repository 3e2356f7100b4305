#include "control/admin_server.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <thread>

#include "control/admin_client.hpp"
#include "control/admin_lock.hpp"
#include "control/wire.hpp"

namespace replblk::control {
namespace {

/// A client that does what it should not.
class RawClient {
 public:
  explicit RawClient(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());
    const timeval limit{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;
  ~RawClient() { ::close(fd_); }

  void send(std::string_view bytes) const { ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  /// All that comes until the server hangs up.
  [[nodiscard]] std::string receive_all() const {
    std::string all;
    char buffer[4096];
    for (ssize_t count = 0; (count = ::recv(fd_, buffer, sizeof buffer, 0)) > 0;)
      all.append(buffer, static_cast<std::size_t>(count));
    return all;
  }
  [[nodiscard]] std::optional<node::AdminReply> receive_reply() const {
    std::string all = receive_all();
    return all.size() < kLengthBytes ? std::nullopt : decode_reply(std::string_view(all).substr(kLengthBytes));
  }

 private:
  int fd_;
};

class AdminServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "replblk-admin-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ / "run" / "control.sock";
  }
  void TearDown() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  AdminServerOptions options() const {
    AdminServerOptions options;
    options.socket_path = path_;
    options.clients_max = 4;
    options.request_timeout = milliseconds(300);
    options.answer_timeout = milliseconds(300);
    return options;
  }
  /// A reactor that answers at once, from the calling thread.
  static bool echo(const node::AdminRequest& request, const AdminServer::Reply& reply) {
    reply({.outcome = node::AdminOutcome::done,
           .message = request.resource + (request.is_forced ? "!" : ""),
           .status = {}});
    return true;
  }
  void start(AdminServer::Post post = echo) {
    auto server = AdminServer::start(options(), std::move(post));
    ASSERT_TRUE(server) << server.error();
    server_ = std::move(*server);
  }
  [[nodiscard]] Result<node::AdminReply, std::string> ask(const std::string& resource = "data") const {
    return ask_daemon(path_, {.verb = node::AdminVerb::primary, .resource = resource, .is_forced = true}, seconds(10));
  }

  std::filesystem::path directory_;
  std::string path_;
  std::unique_ptr<AdminServer> server_;
};

TEST_F(AdminServerTest, Request_reaches_the_reactor_and_its_answer_comes_back) {
  start();
  const auto reply = ask();
  ASSERT_TRUE(reply) << reply.error();
  EXPECT_EQ(reply->message, "data!");
}

// Whoever may talk to the socket may promote: it is the owner's alone.
TEST_F(AdminServerTest, Socket_is_the_owners_and_is_gone_afterwards) {
  start();
  struct stat status{};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0600u);
  server_.reset();
  EXPECT_NE(::stat(path_.c_str(), &status), 0);
}

TEST_F(AdminServerTest, Second_daemon_is_refused_and_a_socket_left_by_a_crash_is_not_in_the_way) {
  start();
  const auto second = AdminServer::start(options(), echo);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error(),
            "process " + std::to_string(::getpid()) + " is using " + path_ +
                ": a replblkd of this node runs already; stop it, or give this one another admin_socket");
  EXPECT_TRUE(ask());
  server_.reset();
  // What kill -9 leaves: a socket file without a listener.
  const int left = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, path_.size());
  ASSERT_EQ(::bind(left, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ::close(left);
  start();
  EXPECT_TRUE(ask());
}

TEST_F(AdminServerTest, File_that_is_no_socket_is_not_removed) {
  std::filesystem::create_directory(directory_ / "run");
  std::ofstream(path_) << "precious";
  const auto server = AdminServer::start(options(), echo);
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error(), path_ + ": is there already and is not a socket; remove it or change admin_socket");
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(AdminServerTest, Listener_of_another_program_is_not_pushed_aside) {
  std::filesystem::create_directory(directory_ / "run");
  const int other = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, path_.size());
  ASSERT_EQ(::bind(other, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(other, 1), 0);
  const auto server = AdminServer::start(options(), echo);
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error(), path_ + ": another program listens on it; change admin_socket");
  ::close(other);
}

TEST_F(AdminServerTest, Directory_that_is_missing_or_forbidden_is_explained) {
  AdminServerOptions deep = options();
  deep.socket_path = directory_ / "a" / "b" / "c.sock";
  const auto server = AdminServer::start(deep, echo);
  ASSERT_FALSE(server);
  EXPECT_EQ(
      server.error(),
      deep.socket_path +
          ".lock: cannot be made: No such file or directory; is the directory of admin_socket there, and writable for "
          "this user?");
}

TEST_F(AdminServerTest, Garbage_and_oversized_requests_get_a_sentence_and_a_hang_up) {
  start();
  const RawClient http(path_);
  http.send("GET / HTTP/1.1\r\n\r\n");
  const auto oversized = http.receive_reply();
  ASSERT_TRUE(oversized);
  EXPECT_EQ(oversized->outcome, node::AdminOutcome::usage);
  EXPECT_EQ(oversized->message, "a request of 1195725856 bytes is too long; at most 4096");

  const RawClient garbage(path_);
  garbage.send(std::string_view("\0\0\0\3\xff\xff\xff", 7));
  const auto reply = garbage.receive_reply();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->message, "the request is not understood; are replblkctl and replblkd of one version?");
  EXPECT_TRUE(ask());
}

// A client that stops in the middle must not hold a place for ever.
TEST_F(AdminServerTest, Slow_client_is_cut_off) {
  start();
  const RawClient silent(path_);
  const RawClient half(path_);
  half.send(std::string_view("\0\0\0\12ab", 6));
  EXPECT_EQ(silent.receive_all(), "");
  EXPECT_EQ(half.receive_all(), "");
  EXPECT_TRUE(ask());
}

TEST_F(AdminServerTest, Clients_beyond_the_limit_are_told_and_places_come_back) {
  start();
  {
    const RawClient a(path_), b(path_), c(path_), d(path_);
    const RawClient fifth(path_);
    const auto reply = fifth.receive_reply();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->message, "4 clients are connected already; try again");
  }
  Result<node::AdminReply, std::string> reply = ask();
  for (int attempt = 0; attempt < 100 && reply && reply->message != "data!"; ++attempt) {
    std::this_thread::sleep_for(milliseconds(10));
    reply = ask();
  }
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->message, "data!");
}

TEST_F(AdminServerTest, Full_mailbox_and_silent_reactor_are_answered_for) {
  start([](const node::AdminRequest&, const AdminServer::Reply&) { return false; });
  EXPECT_EQ(ask()->message, "too many requests are waiting; try again");
  EXPECT_EQ(ask()->outcome, node::AdminOutcome::failed);
  server_.reset();

  std::mutex mutex;
  std::vector<AdminServer::Reply> kept;
  start([&](const node::AdminRequest&, const AdminServer::Reply& reply) {
    const std::lock_guard lock(mutex);
    kept.push_back(reply);
    return true;
  });
  const auto reply = ask();
  ASSERT_TRUE(reply) << reply.error();
  EXPECT_EQ(reply->outcome, node::AdminOutcome::failed);
  EXPECT_TRUE(reply->message.starts_with("no answer within")) << reply->message;
  // The reactor answers late, and once more after the server is gone.
  const std::lock_guard lock(mutex);
  kept.at(0)({.outcome = node::AdminOutcome::done, .message = "late", .status = {}});
  server_.reset();
  kept.at(0)({.outcome = node::AdminOutcome::done, .message = "later", .status = {}});
}

// Broken if a client that is turned away before it has sent its request were told that the daemon has ended.
TEST_F(AdminServerTest, A_client_that_is_refused_hears_why_whenever_it_sends) {
  AdminServerOptions none = options();
  none.clients_max = 0;
  auto server = AdminServer::start(none, echo);
  ASSERT_TRUE(server) << server.error();
  server_ = std::move(*server);
  for (int number = 0; number < 300; ++number) {
    const auto reply = ask();
    ASSERT_TRUE(reply) << reply.error();
    ASSERT_EQ(reply->outcome, node::AdminOutcome::usage);
  }
}

// The answer comes from the reactor's thread, and clients come and go: run this under a sanitizer.
TEST_F(AdminServerTest, Many_clients_each_get_their_own_answer_from_another_thread) {
  std::vector<std::jthread> reactors;
  std::mutex mutex;
  start([&](const node::AdminRequest& request, const AdminServer::Reply& reply) {
    const std::lock_guard lock(mutex);
    reactors.emplace_back([request, reply] { static_cast<void>(echo(request, reply)); });
    return true;
  });
  std::vector<std::future<int>> clients;
  for (int client = 0; client < 4; ++client) {
    clients.push_back(std::async(std::launch::async, [this, client] {
      int good = 0;
      for (int number = 0; number < 50; ++number) {
        const std::string name = "r" + std::to_string(client) + "-" + std::to_string(number);
        Result<node::AdminReply, std::string> reply = ask(name);
        // The place of this client's last connection may not be free yet.
        while (reply && reply->message.ends_with("try again")) reply = ask(name);
        EXPECT_TRUE(reply) << reply.error();
        good += reply && reply->message == name + "!" ? 1 : 0;
      }
      return good;
    }));
  }
  for (std::future<int>& client : clients) EXPECT_EQ(client.get(), 50);
  server_.reset();
}

// Under a leak checker: a request that the reactor never answers must not outlive the server.
TEST_F(AdminServerTest, Server_can_end_while_a_request_is_with_the_reactor) {
  std::promise<void> arrived;
  start([&](const node::AdminRequest&, const AdminServer::Reply&) {
    arrived.set_value();
    return true;
  });
  auto client = std::async(std::launch::async, [this] { return ask(); });
  arrived.get_future().wait();
  server_.reset();
  const auto reply = client.get();
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error(), "replblkd closed " + path_ + " without an answer: it has ended; see its log");
}

TEST_F(AdminServerTest, Daemon_that_does_not_run_is_named_with_its_socket) {
  const auto reply = ask();
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error(), "replblkd does not run on this node: nobody listens on " + path_ +
                               "; start it, or check --config and --node");
}

}  // namespace
}  // namespace replblk::control
