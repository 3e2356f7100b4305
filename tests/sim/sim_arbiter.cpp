#include "sim_arbiter.hpp"

#include <algorithm>
#include <utility>

namespace replblk::sim {

void SimArbiter::ask(std::function<Answer()> transaction) {
  if (!server_.is_reached_[node_]) return;
  Seeded& random = server_.random_;
  const bool is_late = server_.is_faulty_ && random.chance(0.15);
  const Duration way =
      is_late ? random.duration(milliseconds(500), seconds(6)) : random.duration(milliseconds(1), milliseconds(30));
  // What was asked for happens also when who asked is dead by then.
  server_.timeline_.after(
      way, [&server = server_, this, node = node_, exists = exists_, transaction = std::move(transaction)] {
        Answer answer = transaction();
        const bool is_lost = server.is_faulty_ && server.random_.chance(0.15);
        if (is_lost || !*exists || !server.is_reached_[node] || !loop_.is_alive()) return;
        const Duration back = server.random_.duration(milliseconds(1), milliseconds(30));
        server.timeline_.after(back, [this, exists, answer = std::move(answer)] {
          if (!*exists || !loop_.is_alive()) return;
          loop_.post([this, exists, answer] {
            if (*exists) answer(sink_);
          });
        });
      });
}

void SimArbiter::read(std::uint64_t number) {
  ask([&server = server_, number]() -> Answer {
    return [number, reading = ports::ArbiterReading{server.revision_, server.record_}](ports::ArbiterSink& sink) {
      sink.on_arbiter_read(number, reading);
    };
  });
}

void SimArbiter::replace(std::uint64_t number, std::uint64_t revision, const ports::ArbiterRecord& record) {
  ask([&server = server_, number, revision, record]() -> Answer {
    const bool is_replaced = server.revision_ == revision;
    if (is_replaced) {
      ++server.revision_;
      server.record_ = record;
      server.timeline_.note("arbiter: term {} members {}", record.term, record.members);
    }
    return [number, is_replaced](ports::ArbiterSink& sink) { sink.on_arbiter_replaced(number, is_replaced); };
  });
}

void SimArbiter::overwrite(std::uint64_t number, const ports::ArbiterRecord& record) {
  ask([&server = server_, number, record]() -> Answer {
    const std::uint64_t term = server.record_.has_value() ? server.record_->term : 0;
    ++server.revision_;
    server.record_ = record;
    server.record_->term = std::max(record.term, term);
    server.timeline_.note("arbiter: by force term {} members {}", record.term, record.members);
    return [number](ports::ArbiterSink& sink) { sink.on_arbiter_overwritten(number); };
  });
}

void SimArbiter::probe(std::uint64_t number) {
  ask([number]() -> Answer { return [number](ports::ArbiterSink& sink) { sink.on_arbiter_probed(number, true); }; });
}

}  // namespace replblk::sim
