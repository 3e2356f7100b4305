// One virtual IP as a lease (protocol.md 3.8): looks whether somebody else has it, sets it with a lifetime, renews it
// while the mandate holds, announces it on a schedule, gives it up. A machine over ports::VirtualIp and a timer. Not
// responsible for when the mandate holds: whoever serves calls hold(), set_frozen() and release(), and answers
// may_hold. Invariant: the address is renewed only between hold() and release() and not while frozen, so it outlives
// the right to serve by no more than kLifetime and the kernel's grain, whatever becomes of the process.
//
//   absent ──probe()──► probing ──► absent
//   absent ──hold()──► probing (unless that was done just now) ──► held ──release()──► absent
//   absent ──take_over()──► held, and the network is asked meanwhile
//   held or probing ◄──► failed (the device went down, another host has the address, …: tried again each
//   kRetryInterval) held ──set_frozen(true) for kFrozenMax──► given up until set_frozen(false)
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"
#include "ports/loop.hpp"
#include "ports/virtual_ip.hpp"

namespace replblk::membership {

class VirtualIpHolder {
 public:
  static constexpr Duration kLifetime = seconds(2);
  static constexpr Duration kRenewInterval = milliseconds(500);
  static constexpr Duration kRetryInterval = seconds(1);
  static constexpr Duration kFrozenMax = seconds(1);
  /// Until whoever serves has noticed that the mandate is gone.
  static constexpr Duration kMandatePause = milliseconds(50);
  /// Two probes, and time for the answer to the second.
  static constexpr Duration kProbeInterval = milliseconds(100);
  static constexpr int kProbesCount = 2;
  /// What a probe has found holds for this long.
  static constexpr Duration kProbeValidity = seconds(1);

  enum class State : std::uint8_t { absent, probing, held, failed };
  using ProbeDone = std::function<void(Result<void, std::string>)>;

  /// `may_hold`: the mandate, asked before each setting and renewal: a process that was stopped comes to this timer
  /// before anybody has told it that the peer serves.
  VirtualIpHolder(ports::Loop& loop, ports::VirtualIp& port, std::function<bool()> may_hold);
  VirtualIpHolder(const VirtualIpHolder&) = delete;
  VirtualIpHolder& operator=(const VirtualIpHolder&) = delete;
  /// release() first.
  ~VirtualIpHolder();

  /// The hardware addresses of the peer's devices: its kernel may keep the address for a lifetime after its daemon was
  /// killed, and is not a conflict.
  void set_peer(std::vector<ports::HardwareAddress> peer) { peer_ = std::move(peer); }
  /// Before this node takes the role: could the address be held, and does nobody but the peer have it? `done` is called
  /// once, never from inside the call; the error is a sentence, also when release() ends the probe. Only while absent.
  void probe(ProbeDone done);
  /// Is the device fit for it? Before anybody needs it reason() says what is in the way.
  [[nodiscard]] bool look();
  /// The node serves: probes if need be, sets, announces and renews.
  void hold();
  /// The same for an address that the peer had and gave up just now, by agreement: no other host has it, as far as is
  /// known, and initiators are on their way. It is set at once, and given up should the network say otherwise.
  void take_over();
  /// While frozen the address is not renewed; after kFrozenMax it is given up.
  void set_frozen(bool is_frozen);
  /// At once.
  void release();

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] const std::string& name() const noexcept { return port_.name(); }
  /// Why it is failed, or would be by the last look(); empty otherwise.
  [[nodiscard]] const std::string& reason() const noexcept { return reason_; }

 private:
  void on_timer();
  void start_probing();
  void probe_again();
  /// Of everybody but the peer.
  [[nodiscard]] Result<void, std::string> take_answers();
  void end_probe(Result<void, std::string> result);
  void ask_meanwhile(Instant now);
  void give_up();
  void try_hold();
  void set();
  void renew(Instant now);
  void announce_if_due(Instant now);
  void fail(std::string sentence);
  void arm_next();

  ports::Loop& loop_;
  ports::VirtualIp& port_;
  std::function<bool()> may_hold_;
  ports::Timer timer_;
  State state_ = State::absent;
  std::string reason_;
  bool is_wanted_ = false;
  bool is_frozen_ = false;
  Instant frozen_since_{};
  Instant renew_at_{};
  Instant announce_at_{};
  std::optional<Instant> ask_at_;  ///< the next question about an address that is held already
  std::size_t announcements_count_ = 0;
  int probes_left_ = 0;
  Instant probe_valid_until_{};
  std::vector<ports::HardwareAddress> peer_;
  ProbeDone probe_done_;
};

}  // namespace replblk::membership
