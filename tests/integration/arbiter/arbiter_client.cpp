// A node's side of an arbiter as a program, for arbiter_test.py: takes one command a line on standard input and prints
// one answer a line. Ends with its input.
//   read                           record TERM MEMBERS PRIMARY at REVISION | no record at REVISION
//   replace REVISION TERM MEMBERS  replaced | not replaced
//   overwrite TERM MEMBERS         overwritten
//   claim SELF TERM SEEN           granted TERM | refused TERM MEMBERS | no record | another came first
// and to each also: failed, nothing happened: SENTENCE | failed, may have happened: SENTENCE
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <sstream>
#include <thread>

#include "base/log.hpp"
#include "control/etcd_arbiter.hpp"
#include "membership/claim.hpp"
#include "runtime/event_source.hpp"

namespace replblk {
namespace {

class Client final : ports::ArbiterSink {
 public:
  Client(runtime::Reactor& reactor, control::EtcdArbiters& arbiters, const Uuid& id)
      : reactor_(reactor),
        id_(id),
        arbiter_(arbiters.arbiter("r0", *this)),
        input_(std::in_place, reactor, STDIN_FILENO, Callback<void()>::to<&Client::on_input>(*this)) {}

 private:
  void on_input() {
    char bytes[4096];
    const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (count <= 0) {
      input_.reset();
      return reactor_.stop();
    }
    text_.append(bytes, static_cast<std::size_t>(count));
    for (std::size_t end = text_.find('\n'); end != text_.npos; end = text_.find('\n')) {
      const std::string line = text_.substr(0, end);
      text_.erase(0, end + 1);
      run(line);
    }
  }

  void run(const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    std::uint64_t first = 0, second = 0, third = 0;
    words >> verb >> first >> second >> third;
    claimant_.reset();
    if (verb == "read") {
      arbiter_->read(++number_);
    } else if (verb == "replace") {
      arbiter_->replace(++number_, first, record(second, third));
    } else if (verb == "overwrite") {
      arbiter_->overwrite(++number_, record(first, second));
    } else if (verb == "claim") {
      claimant_.emplace();
      self_ = static_cast<blockdev::NodeIndex>(first);
      claimant_->configuration = {second, 3, 0};
      claimant_->seen = third;
      claimant_->pair_id = id_;
      arbiter_->read(++number_);
    } else {
      say("unknown command");
    }
  }

  [[nodiscard]] ports::ArbiterRecord record(std::uint64_t term, std::uint64_t members) const {
    return {id_, term, static_cast<std::uint8_t>(members), static_cast<std::uint8_t>(members == 2), term, 7};
  }

  void on_arbiter_read(std::uint64_t number, const ports::ArbiterReading& reading) override {
    expect(number);
    if (!claimant_) {
      if (!reading.record) return say(fmt::format("no record at {}", reading.revision));
      const auto& found = *reading.record;
      return say(fmt::format("record {} {} {} at {}", found.term, found.members, found.primary, reading.revision));
    }
    const auto judgement = membership::judge_claim(*claimant_, self_, reading.record);
    switch (judgement.verdict) {
      case membership::ClaimVerdict::no_record:
        return say("no record");
      case membership::ClaimVerdict::refused:
        return say(fmt::format("refused {} {}", judgement.configuration.term, judgement.configuration.members));
      case membership::ClaimVerdict::grantable:
        claimant_->configuration.term = judgement.term;
        return arbiter_->replace(++number_, reading.revision, record(judgement.term, 1u << self_));
    }
  }
  void on_arbiter_replaced(std::uint64_t number, bool is_replaced) override {
    expect(number);
    if (!claimant_) return say(is_replaced ? "replaced" : "not replaced");
    say(is_replaced ? fmt::format("granted {}", claimant_->configuration.term) : "another came first");
  }
  void on_arbiter_overwritten(std::uint64_t number) override {
    expect(number);
    say("overwritten");
  }
  void on_arbiter_probed(std::uint64_t, bool) override { say("a probe that nobody asked for"); }
  void on_arbiter_failed(std::uint64_t number, const ports::ArbiterFailure& failure) override {
    expect(number);
    say(fmt::format("failed, {}: {}", failure.may_take_effect ? "may have happened" : "nothing happened",
                    failure.sentence));
  }

  void expect(std::uint64_t number) {
    if (number != number_) say(fmt::format("the answer to question {}, and {} was the last", number, number_));
  }
  static void say(const std::string& line) {
    std::puts(line.c_str());
    std::fflush(stdout);
  }

  runtime::Reactor& reactor_;
  const Uuid id_;
  std::unique_ptr<ports::Arbiter> arbiter_;
  std::optional<runtime::ReadableWatch> input_;
  std::string text_;
  std::uint64_t number_ = 0;
  std::optional<blockdev::ResourceRecord> claimant_;
  blockdev::NodeIndex self_ = 0;
};

int run(int argc, char** argv) {
  node::EtcdConfig config;
  std::vector<std::uint16_t> ports;
  std::string id = "01234567-89ab-4cde-8f01-23456789abcd";
  std::uint32_t timeout_ms = 1000;
  CLI::App app("a node's side of an arbiter");
  app.add_option("--port", ports, "of an endpoint on 127.0.0.1")->required();
  app.add_flag("--tls", config.has_tls);
  app.add_option("--ca", config.ca_file);
  app.add_option("--cert", config.cert_file);
  app.add_option("--key", config.key_file);
  app.add_option("--server-name", config.server_name);
  app.add_option("--user", config.user);
  app.add_option("--password", config.password);
  app.add_option("--timeout-ms", timeout_ms);
  app.add_option("--id", id, "of the pair");
  CLI11_PARSE(app, argc, argv);
  for (const std::uint16_t port : ports) config.endpoints.push_back({"127.0.0.1", port});
  config.timeout = milliseconds(timeout_ms);
  auto reactor = runtime::Reactor::create({});
  if (!reactor) return std::fprintf(stderr, "%s\n", reactor.error().c_str()), 2;
  boost::asio::io_context io(1);
  auto work = boost::asio::make_work_guard(io);
  auto arbiters = control::EtcdArbiters::create(io, **reactor, "store1", config);
  if (!arbiters) return std::printf("%s\n", arbiters.error().c_str()), 2;
  std::thread control([&io] { io.run(); });
  {
    const Client client(**reactor, **arbiters, *parse_uuid(id));
    (*reactor)->run();
  }
  arbiters->reset();
  work.reset();
  io.stop();
  control.join();
  return 0;
}

}  // namespace
}  // namespace replblk

int main(int argc, char** argv) { return replblk::run(argc, argv); }
