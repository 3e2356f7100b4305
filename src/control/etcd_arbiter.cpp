#include "control/etcd_arbiter.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <functional>
#include <map>
#include <utility>
#include <variant>
#include <vector>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "control/etcd_call.hpp"
#include "control/etcd_codec.hpp"
#include "runtime/mailbox.hpp"

namespace replblk::control {

namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

/// Of one resource. The machine has few questions out: a claim, a start's, a person's.
constexpr std::size_t kQuestionsMax = 16;
/// More than all resources of a daemon may have out.
constexpr std::size_t kAnswersMax = 2048;
/// A record that changes under a person's hand each time is fought over by others.
constexpr int kConflictsMax = 5;

struct Replaced {
  bool is_replaced = false;
};
struct Overwritten {};

struct Answer {
  std::uint64_t arbiter = 0;
  std::uint64_t number = 0;
  std::variant<ports::ArbiterReading, Replaced, Overwritten, ports::ArbiterFailure> what;
};
using Answers = runtime::Mailbox<Answer>;

struct Read {};
struct Replace {
  std::uint64_t revision = 0;
  ports::ArbiterRecord record;
};
struct Overwrite {
  ports::ArbiterRecord record;
};

struct Question {
  std::uint64_t arbiter = 0;
  std::uint64_t number = 0;
  std::string key;
  std::variant<Read, Replace, Overwrite> what;
};

/// What the control thread has. Kept by the questions that are under way.
struct Core {
  asio::io_context& io;
  std::shared_ptr<EtcdAccess> access;
  std::vector<ports::Endpoint> endpoints;
  Clock::duration timeout;
  std::shared_ptr<Answers> answers;
  std::size_t preferred = 0;  ///< the endpoint that answered last
};

/// One question over all endpoints. Lives until it is answered.
class Inquiry : public std::enable_shared_from_this<Inquiry> {
 public:
  Inquiry(std::shared_ptr<Core> core, Question question) : core_(std::move(core)), question_(std::move(question)) {}

  void start() {
    deadline_ = Clock::now() + core_->timeout;
    if (const auto* replace = std::get_if<Replace>(&question_.what)) {
      write(replace->revision, replace->record);
    } else {
      read();
    }
  }

 private:
  /// Takes the body of an answer; false: it is not understood.
  using Understand = std::function<bool(const std::string& body)>;

  void read() {
    ask(read_request(question_.key), Change::none, [this](const std::string& body) {
      auto reading = decode_reading(body, question_.key);
      if (!reading) return false;
      if (reading->revision != 0 && !reading->record)
        log_warning("etcd: what is stored under {} is no record of replblk's", question_.key);
      if (const auto* overwrite = std::get_if<Overwrite>(&question_.what)) {
        write_over(*reading, overwrite->record);
      } else {
        answer(*reading);
      }
      return true;
    });
  }

  void write_over(const ports::ArbiterReading& reading, ports::ArbiterRecord record) {
    if (reading.record) {
      const ports::ArbiterRecord& found = *reading.record;
      const bool is_there = found.id == record.id && found.term >= record.term && found.members == record.members &&
                            found.primary == record.primary;
      if (is_there) return answer(Overwritten{});
      record.term = std::max(record.term, found.term);
    }
    write(reading.revision, record);
  }

  void write(std::uint64_t revision, const ports::ArbiterRecord& record) {
    ask(replace_request(question_.key, revision, record), Change::wanted, [this](const std::string& body) {
      const auto replaced = decode_replaced(body);
      if (!replaced) return false;
      if (!std::holds_alternative<Overwrite>(question_.what)) {
        answer(Replaced{*replaced});
      } else if (*replaced) {
        answer(Overwritten{});
      } else if (++conflicts_ < kConflictsMax) {
        read();
      } else {
        answer(ports::ArbiterFailure{false, "etcd: others change the record at the same time"});
      }
      return true;
    });
  }

  enum class Change : std::uint8_t { none, wanted };

  void ask(EtcdRequest request, Change change, Understand understand) {
    request_ = std::move(request);
    change_ = change;
    understand_ = std::move(understand);
    first_ = core_->preferred;
    tried_ = 0;
    failures_.clear();
    try_next();
  }

  void try_next() {
    const std::size_t left = core_->endpoints.size() - tried_;
    const Clock::time_point now = Clock::now();
    if (left == 0 || now >= deadline_) return give_up(false);
    const std::size_t index = (first_ + tried_++) % core_->endpoints.size();
    call_etcd(core_->io, core_->access, core_->endpoints[index], request_,
              now + (deadline_ - now) / static_cast<Clock::rep>(left),
              [self = shared_from_this(), index](Result<std::string, EtcdCallFailure> outcome) {
                self->on_outcome(index, std::move(outcome));
              });
  }

  void on_outcome(std::size_t index, Result<std::string, EtcdCallFailure> outcome) {
    if (outcome) {
      core_->preferred = index;
      // It may ask the next thing.
      const Understand understand = std::exchange(understand_, {});
      if (understand(*outcome)) return;
      understand_ = understand;
      outcome = fail(EtcdCallFailure{
          true, false, fmt::format("{}: the answer is not etcd's", ports::to_string(core_->endpoints[index]))});
    }
    const EtcdCallFailure& failure = outcome.error();
    failures_ += (failures_.empty() ? "" : "; ") + failure.sentence;
    if (!failure.is_final) core_->preferred = (index + 1) % core_->endpoints.size();
    const bool is_unknown = change_ == Change::wanted && failure.may_take_effect;
    // What may have been made must not be asked for a second time: the second answer would be no.
    if (is_unknown || failure.is_final) return give_up(is_unknown);
    try_next();
  }

  void give_up(bool may_take_effect) {
    answer(ports::ArbiterFailure{may_take_effect, "etcd: " + (failures_.empty() ? "no time was left" : failures_)});
  }

  template <class What>
  void answer(What what) {
    if (!core_->answers->post({question_.arbiter, question_.number, std::move(what)}))
      log_error("etcd: an answer is lost, since the reactor takes none");
  }

  std::shared_ptr<Core> core_;
  const Question question_;
  Clock::time_point deadline_;
  EtcdRequest request_;
  Change change_ = Change::none;
  Understand understand_;
  std::size_t first_ = 0;
  std::size_t tried_ = 0;
  int conflicts_ = 0;
  std::string failures_;
};

}  // namespace

/// The reactor's side.
class EtcdArbiters::Impl {
 public:
  Impl(std::shared_ptr<Core> core, runtime::Reactor& reactor, std::string cluster)
      : core_(std::move(core)), cluster_(std::move(cluster)), answers_(core_->answers), io_(core_->io) {
    answers_->attach(reactor, Callback<void(Answer&)>::to<&Impl::on_answer>(*this));
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    RB_ASSERT(arbiters_.empty());
    answers_->detach();
  }

  [[nodiscard]] std::unique_ptr<ports::Arbiter> make(const std::string& resource, ports::ArbiterSink& sink) {
    return std::make_unique<EtcdArbiter>(*this, etcd_key(cluster_, resource), sink);
  }

 private:
  class EtcdArbiter final : public ports::Arbiter {
   public:
    EtcdArbiter(Impl& owner, std::string key, ports::ArbiterSink& sink)
        : owner_(owner), id_(++owner.last_id_), key_(std::move(key)), sink_(sink) {
      owner_.arbiters_[id_] = this;
    }
    ~EtcdArbiter() override { owner_.arbiters_.erase(id_); }

    void read(std::uint64_t number) override { ask(number, Read{}); }
    void replace(std::uint64_t number, std::uint64_t revision, const ports::ArbiterRecord& record) override {
      ask(number, Replace{revision, record});
    }
    void overwrite(std::uint64_t number, const ports::ArbiterRecord& record) override {
      ask(number, Overwrite{record});
    }
    void probe(std::uint64_t) override { assertion_failed("etcd has no addresses to probe", __FILE__, __LINE__); }

    void on_answer(Answer& answer) {
      RB_ASSERT(questions_count_ > 0);
      --questions_count_;
      if (auto* reading = std::get_if<ports::ArbiterReading>(&answer.what)) {
        sink_.on_arbiter_read(answer.number, *reading);
      } else if (const auto* replaced = std::get_if<Replaced>(&answer.what)) {
        sink_.on_arbiter_replaced(answer.number, replaced->is_replaced);
      } else if (std::holds_alternative<Overwritten>(answer.what)) {
        sink_.on_arbiter_overwritten(answer.number);
      } else {
        sink_.on_arbiter_failed(answer.number, std::get<ports::ArbiterFailure>(answer.what));
      }
    }

   private:
    template <class What>
    void ask(std::uint64_t number, What what) {
      ++questions_count_;
      if (questions_count_ > kQuestionsMax) {
        RB_ASSERT(
            owner_.answers_->post({id_, number, ports::ArbiterFailure{false, "etcd: too many questions are out"}}));
        return;
      }
      asio::post(owner_.io_, [core = owner_.core_, question = Question{id_, number, key_, std::move(what)}]() mutable {
        std::make_shared<Inquiry>(std::move(core), std::move(question))->start();
      });
    }

    Impl& owner_;
    const std::uint64_t id_;
    const std::string key_;
    ports::ArbiterSink& sink_;
    std::size_t questions_count_ = 0;
  };

  void on_answer(Answer& answer) {
    const auto found = arbiters_.find(answer.arbiter);
    if (found != arbiters_.end()) found->second->on_answer(answer);
  }

  std::shared_ptr<Core> core_;
  const std::string cluster_;
  std::shared_ptr<Answers> answers_;
  asio::io_context& io_;
  std::map<std::uint64_t, EtcdArbiter*> arbiters_;
  std::uint64_t last_id_ = 0;
};

EtcdArbiters::EtcdArbiters(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EtcdArbiters::~EtcdArbiters() = default;

Result<std::unique_ptr<EtcdArbiters>, std::string> EtcdArbiters::create(asio::io_context& io, runtime::Reactor& reactor,
                                                                        std::string cluster,
                                                                        const node::EtcdConfig& config) {
  RB_ASSERT(!config.endpoints.empty());
  auto access = make_etcd_access(config);
  if (!access) return fail(std::move(access.error()));
  auto core = std::make_shared<Core>(Core{.io = io,
                                          .access = std::move(*access),
                                          .endpoints = config.endpoints,
                                          .timeout = config.timeout,
                                          .answers = std::make_shared<Answers>(kAnswersMax)});
  auto impl = std::make_unique<Impl>(std::move(core), reactor, std::move(cluster));
  return std::unique_ptr<EtcdArbiters>(new EtcdArbiters(std::move(impl)));
}

std::unique_ptr<ports::Arbiter> EtcdArbiters::arbiter(const std::string& resource, ports::ArbiterSink& sink) {
  return impl_->make(resource, sink);
}

}  // namespace replblk::control
