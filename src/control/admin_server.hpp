// Serves the admin socket from its own thread (the control thread): takes requests from replblkctl, hands them to the
// reactor through `post`, and sends the answers back. Decides nothing. Made by main.
// Clients are not trusted to be well: each has a bounded request, a time limit and a place among clients_max.
// Invariant: every request that was read whole gets exactly one reply, be it that the reactor did not answer.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "base/time.hpp"
#include "node/admin.hpp"

namespace boost::asio {
class io_context;
}

namespace replblk::control {

struct AdminServerOptions {
  std::string socket_path;
  std::size_t clients_max = 32;
  Duration request_timeout = seconds(10);  ///< a client is silent, or does not take its answer
  Duration answer_timeout = seconds(120);  ///< the reactor does not answer: a demotion may wait for slow disks
};

class AdminServer {
 public:
  /// Called once, from any thread.
  using Reply = std::function<void(node::AdminReply)>;
  /// Called on the control thread. False when the mailbox is full: then `Reply` is never called.
  using Post = std::function<bool(node::AdminRequest, Reply)>;

  /// Takes the lock and the socket (mode 0600) and starts the thread. The error is one sentence.
  [[nodiscard]] static Result<std::unique_ptr<AdminServer>, std::string> start(AdminServerOptions options, Post post);
  AdminServer(const AdminServer&) = delete;
  AdminServer& operator=(const AdminServer&) = delete;
  /// Ends the thread and removes the socket. Replies that come later go nowhere.
  ~AdminServer();
  /// Of the control thread, for what else lives there. Ends with this object.
  [[nodiscard]] boost::asio::io_context& io() noexcept;

 private:
  class Core;
  explicit AdminServer(std::shared_ptr<Core> core);
  std::shared_ptr<Core> core_;
};

}  // namespace replblk::control
