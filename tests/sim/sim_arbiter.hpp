// An arbiter in memory that both hosts ask (SimArbiterServer), and one process's connection to it (SimArbiter:
// ports::Arbiter). It behaves as etcd does seen from outside.
//
// The fault model: a node does not reach it for a while; an answer comes late, or is lost though the change was made; a
// claim commits long after it was asked for. All chance comes from a sequence of its own. Not modelled: an arbiter that
// loses its record (then only a person decides), or that shows an old one.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "blockdev/record.hpp"
#include "ports/arbiter.hpp"
#include "seeded.hpp"
#include "sim_loop.hpp"

namespace replblk::sim {

class SimArbiterServer {
 public:
  SimArbiterServer(Timeline& timeline, std::uint64_t seed) : timeline_(timeline), random_(seed) {}

  void set_reached(blockdev::NodeIndex node, bool is_reached) noexcept { is_reached_[node] = is_reached; }
  void set_faulty(bool is_faulty) noexcept { is_faulty_ = is_faulty; }
  void heal() noexcept {
    is_faulty_ = false;
    is_reached_ = {true, true};
  }
  [[nodiscard]] const std::optional<ports::ArbiterRecord>& record() const noexcept { return record_; }

 private:
  friend class SimArbiter;
  Timeline& timeline_;
  Seeded random_;
  std::uint64_t revision_ = 1;
  std::optional<ports::ArbiterRecord> record_;
  std::array<bool, 2> is_reached_{true, true};
  bool is_faulty_ = false;
};

class SimArbiter final : public ports::Arbiter {
 public:
  SimArbiter(SimArbiterServer& server, SimLoop& loop, blockdev::NodeIndex node, ports::ArbiterSink& sink)
      : server_(server), loop_(loop), node_(node), sink_(sink) {}
  ~SimArbiter() override { *exists_ = false; }
  void read(std::uint64_t number) override;
  void replace(std::uint64_t number, std::uint64_t revision, const ports::ArbiterRecord& record) override;
  void overwrite(std::uint64_t number, const ports::ArbiterRecord& record) override;
  void probe(std::uint64_t number) override;

 private:
  using Answer = std::function<void(ports::ArbiterSink&)>;
  /// `transaction` happens at the server, and its answer here, each if nothing is in the way.
  void ask(std::function<Answer()> transaction);

  SimArbiterServer& server_;
  SimLoop& loop_;
  blockdev::NodeIndex node_;
  ports::ArbiterSink& sink_;
  std::shared_ptr<bool> exists_ = std::make_shared<bool>(true);
};

}  // namespace replblk::sim
