#include "control/etcd_call.hpp"

#include <fmt/format.h>
#include <openssl/err.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <utility>

namespace replblk::control {

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
namespace ssl = asio::ssl;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using asio::ip::tcp;

// A record with etcd's envelope around it has less than 1 KiB.
constexpr std::size_t kBodyBytesMax = std::size_t{64} << 10;
constexpr std::uint32_t kHeaderBytesMax = 8192;

/// Written out by hand and parsed piece by piece: Beast's composed operations over both kinds of stream would take the
/// compiler minutes and gigabytes.
class EtcdCall : public std::enable_shared_from_this<EtcdCall> {
 public:
  EtcdCall(asio::io_context& io, std::shared_ptr<EtcdAccess> access, const ports::Endpoint& endpoint,
           EtcdRequest request, Clock::time_point deadline, EtcdCallHandler handler)
      : access_(std::move(access)),
        endpoint_(endpoint),
        request_(std::move(request)),
        deadline_(deadline),
        handler_(std::move(handler)),
        socket_(io),
        timer_(io) {
    if (access_->tls.has_value()) tls_.emplace(socket_, *access_->tls);
  }

  void start() {
    started_at_ = Clock::now();
    error_code error;
    const auto address = asio::ip::make_address(endpoint_.address, error);
    if (error) return give_up({.sentence = "is not an address"});
    timer_.expires_at(deadline_);
    timer_.async_wait([self = weak_from_this()](error_code cancelled) {
      const auto alive = self.lock();
      if (cancelled || !alive) return;
      alive->is_out_of_time_ = true;
      alive->hang_up();  // What is pending comes back with an error.
    });
    socket_.async_connect({address, endpoint_.port}, [self = shared_from_this()](error_code connect_error) {
      if (connect_error) return self->broken("cannot be connected to", connect_error);
      self->secure();
    });
  }

 private:
  void secure() {
    if (!tls_.has_value()) return authenticate_or_ask();
    const std::string& name = access_->server_name.empty() ? endpoint_.address : access_->server_name;
    tls_->set_verify_callback(ssl::host_name_verification(name));
    // RFC 6066 3: a name, never an address.
    if (!access_->server_name.empty())
      SSL_ctrl(tls_->native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
               const_cast<char*>(name.c_str()));
    tls_->async_handshake(ssl::stream_base::client, [self = shared_from_this()](error_code error) {
      if (error) return self->broken("TLS failed", error);
      self->authenticate_or_ask();
    });
  }

  void authenticate_or_ask() {
    if (!access_->user.empty() && access_->token.empty()) return authenticate();
    ask();
  }

  void authenticate() {
    is_token_new_ = true;
    exchange(token_request(access_->user, access_->password), {}, &EtcdCall::on_token);
  }

  void on_token(unsigned status, const std::string& body) {
    if (status != 200) {
      const EtcdRefusal refusal = decode_refusal(body);
      return give_up({.is_final = refusal.is_without_effect(),
                      .sentence = fmt::format("the user {} is refused: {}", access_->user, explain(status, refusal))});
    }
    auto token = decode_token(body);
    if (!token) return give_up({.sentence = std::move(token.error())});
    access_->token = std::move(*token);
    ask();
  }

  void ask() {
    is_sent_ = true;
    exchange(request_, access_->token, &EtcdCall::on_answer);
  }

  void on_answer(unsigned status, const std::string& body) {
    if (status == 200) return finish(body);
    const EtcdRefusal refusal = decode_refusal(body);
    if (refusal.is_token_stale() && !access_->user.empty()) {
      access_->token.clear();
      is_sent_ = false;
      if (!is_token_new_) return authenticate();
    }
    if (refusal.is_without_effect()) is_sent_ = false;
    give_up({.is_final = refusal.is_without_effect(), .sentence = explain(status, refusal)});
  }

  static std::string explain(unsigned status, const EtcdRefusal& refusal) {
    return refusal.code == 0 ? fmt::format("the answer is not etcd's (HTTP status {})", status) : refusal.message;
  }

  using Next = void (EtcdCall::*)(unsigned status, const std::string& body);
  using Done = std::function<void(error_code, std::size_t)>;

  void exchange(const EtcdRequest& request, const std::string& token, Next next) {
    next_ = next;
    input_bytes_ = 0;
    output_ = fmt::format(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}{}{}\r\n{}",
        request.target, ports::to_string(endpoint_), request.body.size(), token.empty() ? "" : "Authorization: ", token,
        token.empty() ? "" : "\r\n", request.body);
    parser_.emplace();
    parser_->body_limit(kBodyBytesMax);
    parser_->header_limit(kHeaderBytesMax);
    parser_->eager(true);
    const Done written = [self = shared_from_this()](error_code error, std::size_t) {
      if (error) return self->broken("the connection broke", error);
      self->read_some();
    };
    if (tls_.has_value()) {
      asio::async_write(*tls_, asio::buffer(output_), written);
    } else {
      asio::async_write(socket_, asio::buffer(output_), written);
    }
  }

  void read_some() {
    const Done received = [self = shared_from_this()](error_code error, std::size_t count) {
      self->on_received(error, count);
    };
    const auto room = asio::buffer(input_.data() + input_bytes_, input_.size() - input_bytes_);
    if (tls_.has_value()) {
      tls_->async_read_some(room, received);
    } else {
      socket_.async_read_some(room, received);
    }
  }

  void on_received(error_code error, std::size_t count) {
    input_bytes_ += count;
    error_code parse_error;
    if (input_bytes_ > 0) {
      const std::size_t used = parser_->put(asio::buffer(input_.data(), input_bytes_), parse_error);
      std::copy(input_.begin() + static_cast<std::ptrdiff_t>(used),
                input_.begin() + static_cast<std::ptrdiff_t>(input_bytes_), input_.begin());
      input_bytes_ -= used;
    }
    if (parse_error == http::error::need_more) parse_error = {};
    // An answer without a length ends with the connection.
    if (error == asio::error::eof && !parse_error && !parser_->is_done() && parser_->got_some()) {
      error_code ignored;
      parser_->put_eof(ignored);
    }
    if (parse_error) return broken("no answer", parse_error);
    if (parser_->is_done()) return (this->*next_)(parser_->get().result_int(), parser_->get().body());
    if (error) return broken("no answer", error);
    if (input_bytes_ == input_.size()) return give_up({.sentence = "no answer: a header line is too long"});
    read_some();
  }

  void broken(std::string_view what, error_code error) {
    if (is_out_of_time_) {
      const auto waited = std::chrono::round<std::chrono::milliseconds>(deadline_ - started_at_);
      return give_up({.sentence = fmt::format("no answer within {} ms", waited.count())});
    }
    give_up({.sentence = fmt::format("{}: {}", what, error.message())});
  }

  void give_up(EtcdCallFailure failure) {
    failure.may_take_effect = is_sent_;
    failure.sentence = fmt::format("{}: {}", ports::to_string(endpoint_), failure.sentence);
    hang_up();
    std::exchange(handler_, {})(fail(std::move(failure)));
  }

  void finish(std::string body) {
    hang_up();
    std::exchange(handler_, {})(std::move(body));
  }

  void hang_up() {
    error_code ignored;
    timer_.cancel();
    socket_.close(ignored);
  }

  std::shared_ptr<EtcdAccess> access_;
  const ports::Endpoint endpoint_;
  const EtcdRequest request_;
  const Clock::time_point deadline_;
  Clock::time_point started_at_{};
  EtcdCallHandler handler_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  std::optional<ssl::stream<tcp::socket&>> tls_;
  std::string output_;
  std::array<char, kHeaderBytesMax> input_{};
  std::size_t input_bytes_ = 0;
  std::optional<http::response_parser<http::string_body>> parser_;
  Next next_ = nullptr;
  bool is_out_of_time_ = false;
  bool is_token_new_ = false;
  bool is_sent_ = false;  ///< the question itself, and nothing is known of it
};

}  // namespace

Result<std::shared_ptr<EtcdAccess>, std::string> make_etcd_access(const node::EtcdConfig& config) {
  auto access = std::make_shared<EtcdAccess>();
  access->user = config.user;
  access->password = config.password;
  access->server_name = config.server_name;
  if (!config.has_tls) return access;
  ssl::context& tls = access->tls.emplace(ssl::context::tls_client);
  error_code error;
  const auto refuse = [&](std::string_view key, std::string_view path) {
    return fail(fmt::format("cluster.arbiter.etcd.tls.{}: {}: {}", key, path, error.message()));
  };
  // OpenSSL 3.0's default, said here since etcd decides who serves.
  SSL_CTX_set_min_proto_version(tls.native_handle(), TLS1_2_VERSION);
  tls.set_verify_mode(ssl::verify_peer, error);
  if (config.ca_file.empty()) {
    tls.set_default_verify_paths(error);
    if (error) return refuse("ca_file", "the system's authorities");
  } else if (tls.load_verify_file(config.ca_file, error)) {
    return refuse("ca_file", config.ca_file);
  }
  if (!config.cert_file.empty()) {
    if (tls.use_certificate_chain_file(config.cert_file, error)) return refuse("cert_file", config.cert_file);
    if (tls.use_private_key_file(config.key_file, ssl::context::pem, error)) return refuse("key_file", config.key_file);
    if (SSL_CTX_check_private_key(tls.native_handle()) != 1) {
      ERR_clear_error();
      return fail(fmt::format("cluster.arbiter.etcd.tls.key_file: {} is not the key of the certificate in {}",
                              config.key_file, config.cert_file));
    }
  }
  return access;
}

void call_etcd(asio::io_context& io, std::shared_ptr<EtcdAccess> access, const ports::Endpoint& endpoint,
               EtcdRequest request, Clock::time_point deadline, EtcdCallHandler handler) {
  std::make_shared<EtcdCall>(io, std::move(access), endpoint, std::move(request), deadline, std::move(handler))
      ->start();
}

}  // namespace replblk::control
