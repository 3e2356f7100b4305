// One question to one etcd endpoint: connect, TLS, a token if there is a user, the request, the answer. A connection of
// its own each time: questions come when nodes lose each other and hardly ever else, and on a connection kept for that
// hour nobody could say whether a claim was lost or made. Runs on the control thread; keeps itself alive until its one
// answer, which comes before the deadline.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "control/etcd_codec.hpp"
#include "node/config.hpp"

namespace replblk::control {

/// What all calls of a daemon share.
struct EtcdAccess {
  std::string user;  ///< empty: without authentication
  std::string password;
  std::string server_name;                       ///< empty: the endpoint's address
  std::optional<boost::asio::ssl::context> tls;  ///< none: plain HTTP
  std::string token;                             ///< of the last authentication; empty: none yet
};
/// Reads the files that the configuration names. The error is one sentence.
[[nodiscard]] Result<std::shared_ptr<EtcdAccess>, std::string> make_etcd_access(const node::EtcdConfig& config);

struct EtcdCallFailure {
  bool may_take_effect = false;  ///< the request was sent, and what became of it is not known
  bool is_final = false;         ///< another endpoint would say the same: the user, the password, the rights
  std::string sentence;
};

using EtcdCallHandler = std::function<void(Result<std::string, EtcdCallFailure>)>;  ///< the body of a 200
void call_etcd(boost::asio::io_context& io, std::shared_ptr<EtcdAccess> access, const ports::Endpoint& endpoint,
               EtcdRequest request, std::chrono::steady_clock::time_point deadline, EtcdCallHandler handler);

}  // namespace replblk::control
