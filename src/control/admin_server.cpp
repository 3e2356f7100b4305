#include "control/admin_server.hpp"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <csignal>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/log.hpp"
#include "control/admin_lock.hpp"
#include "control/wire.hpp"

namespace replblk::control {

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Protocol = asio::local::stream_protocol;

std::string framed(const node::AdminReply& reply) {
  const std::string body = encode_reply(reply);
  const auto length = encode_length(body.size());
  return std::string(length.begin(), length.end()) + body;
}

/// Removes a socket file that nobody listens on. The lock is held, so no daemon of ours does.
Result<void, std::string> remove_stale(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return {};
  if (!S_ISSOCK(status.st_mode))
    return fail(fmt::format("{}: is there already and is not a socket; remove it or change admin_socket", path));
  asio::io_context io;
  Protocol::socket probe(io);
  error_code error;
  probe.connect(Protocol::endpoint(path), error);
  if (!error) return fail(fmt::format("{}: another program listens on it; change admin_socket", path));
  if (::unlink(path.c_str()) != 0) return fail(fmt::format("{}: a stale socket that cannot be removed", path));
  return {};
}

}  // namespace

class AdminServer::Core : public std::enable_shared_from_this<AdminServer::Core> {
 public:
  Core(AdminServerOptions options, Post post, AdminLock lock)
      : options_(std::move(options)),
        post_(std::move(post)),
        lock_(std::move(lock)),
        acceptor_(io_),
        accept_pause_(io_) {}

  Result<void, std::string> listen() {
    if (auto removed = remove_stale(options_.socket_path); !removed) return removed;
    error_code error;
    acceptor_.open(Protocol(), error);
    // The mode is right from the first moment on: no other thread runs yet that could mind the mask.
    const mode_t mask = ::umask(0177);
    if (!error) acceptor_.bind(Protocol::endpoint(options_.socket_path), error);
    ::umask(mask);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) return fail(fmt::format("{}: cannot listen: {}", options_.socket_path, error.message()));
    is_bound_ = true;
    return {};
  }

  void run_thread() {
    // Signals are the reactor's: this thread inherits a mask with all of them.
    sigset_t all;
    sigset_t previous;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &previous);
    thread_ = std::thread([this] {
      ::pthread_setname_np(::pthread_self(), "control");
      accept();
      io_.run();
    });
    ::pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  }

  [[nodiscard]] asio::io_context& io() noexcept { return io_; }

  void stop() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
    if (is_bound_) ::unlink(options_.socket_path.c_str());
  }

 private:
  class Client;

  void accept();

  AdminServerOptions options_;
  Post post_;
  AdminLock lock_;
  std::size_t clients_count_ = 0;  // clients die with io_ and waiting_, below
  asio::io_context io_{1};
  Protocol::acceptor acceptor_;
  asio::steady_timer accept_pause_;
  std::thread thread_;
  std::set<std::shared_ptr<Client>> waiting_;  ///< the reactor has their request; nothing else keeps them
  bool is_bound_ = false;
};

/// One connection: read a request, have it answered, send the answer, again. Lives as long as something is pending on
/// it.
class AdminServer::Core::Client : public std::enable_shared_from_this<Client> {
 public:
  Client(Core& core, Protocol::socket socket) : core_(core), socket_(std::move(socket)), timer_(core.io_) {
    ++core_.clients_count_;
  }
  ~Client() { --core_.clients_count_; }

  void read_request() {
    limit(core_.options_.request_timeout, &Client::close);
    asio::async_read(socket_, asio::buffer(length_), [self = shared_from_this()](error_code error, std::size_t) {
      if (error) return self->close();
      const std::size_t length_bytes = decode_length(self->length_);
      if (length_bytes > kRequestBytesMax) {
        return self->refuse(
            fmt::format("a request of {} bytes is too long; at most {}", length_bytes, kRequestBytesMax));
      }
      self->request_.resize(length_bytes);
      asio::async_read(self->socket_, asio::buffer(self->request_), [self](error_code body_error, std::size_t) {
        if (body_error) return self->close();
        self->dispatch();
      });
    });
  }

  /// Says why in a reply, and hangs up after it.
  void refuse(std::string sentence) {
    send({.outcome = node::AdminOutcome::usage, .message = std::move(sentence), .status = {}}, After::close);
  }

 private:
  enum class After : std::uint8_t { next_request, close };

  void dispatch() {
    const std::optional<node::AdminRequest> request = decode_request(request_);
    if (!request) return refuse("the request is not understood; are replblkctl and replblkd of one version?");
    const std::uint64_t number = ++number_;
    limit(core_.options_.answer_timeout, &Client::give_up);
    // The reactor may answer after this server is gone, so it holds the core weakly and only from its own thread in.
    auto reply = [core = core_.weak_from_this(), self = weak_from_this(), number](node::AdminReply answer) {
      const std::shared_ptr<Core> alive = core.lock();
      if (!alive) return;
      asio::post(alive->io_, [self, number, answer = std::move(answer)] {
        if (const std::shared_ptr<Client> client = self.lock()) client->answer(number, answer);
      });
    };
    core_.waiting_.insert(shared_from_this());
    if (!core_.post_(*request, std::move(reply))) {
      answer(
          number,
          {.outcome = node::AdminOutcome::failed, .message = "too many requests are waiting; try again", .status = {}});
    }
  }

  void answer(std::uint64_t number, const node::AdminReply& reply) {
    const std::shared_ptr<Client> self = shared_from_this();
    if (number != number_ || core_.waiting_.erase(self) == 0) return;  // late: give_up() has answered
    send(reply, After::next_request);
  }

  void give_up() {
    answer(number_, {.outcome = node::AdminOutcome::failed,
                     .message = fmt::format(
                         "no answer within {} s: the daemon is busy or its disks are stuck; what was asked for may "
                         "still happen (see status)",
                         std::chrono::duration_cast<seconds>(core_.options_.answer_timeout).count()),
                     .status = {}});
  }

  void send(const node::AdminReply& reply, After after) {
    limit(core_.options_.request_timeout, &Client::close);
    reply_ = framed(reply);
    asio::async_write(socket_, asio::buffer(reply_), [self = shared_from_this(), after](error_code error, std::size_t) {
      if (error || after == After::close) return self->close();
      self->read_request();
    });
  }

  void limit(Duration duration, void (Client::*expired)()) {
    timer_.expires_after(std::chrono::duration_cast<std::chrono::steady_clock::duration>(duration));
    timer_.async_wait([self = weak_from_this(), expired](error_code error) {
      if (error) return;
      if (const std::shared_ptr<Client> client = self.lock()) (*client.*expired)();
    });
  }

  void close() {
    error_code ignored;
    timer_.cancel();
    socket_.close(ignored);
  }

  Core& core_;
  Protocol::socket socket_;
  asio::steady_timer timer_;
  std::array<unsigned char, kLengthBytes> length_{};
  std::string request_;
  std::string reply_;
  std::uint64_t number_ = 0;
};

void AdminServer::Core::accept() {
  acceptor_.async_accept([this](error_code error, Protocol::socket socket) {
    if (error) {
      // Out of descriptors, most likely: not again at once.
      log_warning("admin socket: cannot accept: {}", error.message());
      accept_pause_.expires_after(std::chrono::seconds(1));
      accept_pause_.async_wait([this](error_code cancelled) {
        if (!cancelled) accept();
      });
      return;
    }
    const bool is_full = clients_count_ >= options_.clients_max;
    const auto client = std::make_shared<Client>(*this, std::move(socket));
    if (is_full) {
      client->refuse(fmt::format("{} clients are connected already; try again", options_.clients_max));
    } else {
      client->read_request();
    }
    accept();
  });
}

AdminServer::AdminServer(std::shared_ptr<Core> core) : core_(std::move(core)) {}

Result<std::unique_ptr<AdminServer>, std::string> AdminServer::start(AdminServerOptions options, Post post) {
  try {
    Result<AdminLock, std::string> lock = AdminLock::acquire(options.socket_path);
    if (!lock) return fail(lock.error());
    auto core = std::make_shared<Core>(std::move(options), std::move(post), std::move(*lock));
    if (auto listening = core->listen(); !listening) return fail(listening.error());
    core->run_thread();
    return std::unique_ptr<AdminServer>(new AdminServer(std::move(core)));
  } catch (const std::exception& problem) {
    return fail(fmt::format("the admin socket cannot be served: {}", problem.what()));
  }
}

AdminServer::~AdminServer() { core_->stop(); }

asio::io_context& AdminServer::io() noexcept { return core_->io(); }

}  // namespace replblk::control
