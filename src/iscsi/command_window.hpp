// The CmdSN window of a session (RFC 7143 4.2.2.1) as a machine: which commands are taken, in which order, and how
// many more the initiator may send. One connection a session, so commands arrive in CmdSN order or never.
// Not responsible for the commands themselves; the session says when a place in its queue is taken and given back.
// Invariant: max_cmd_sn() never goes back, and never promises a place that is not there.
#pragma once

#include <bitset>
#include <cstdint>

namespace replblk::iscsi {

/// Serial number arithmetic (RFC 1982): a before b.
[[nodiscard]] constexpr bool is_before(std::uint32_t a, std::uint32_t b) noexcept {
  return static_cast<std::int32_t>(a - b) < 0;
}

class CommandWindow {
 public:
  enum class Verdict {
    in_order,  ///< execute it now
    ignore,    ///< outside the window, a duplicate, or aborted before it came: drop it silently
    gap,       ///< inside, but one before it is missing: on one connection it never comes
  };

  CommandWindow(std::uint32_t first_cmd_sn, std::uint32_t depth) noexcept : exp_cmd_sn_(first_cmd_sn), depth_(depth) {}

  /// A request that is not immediate. in_order advances ExpCmdSN.
  [[nodiscard]] Verdict receive(std::uint32_t cmd_sn) noexcept {
    skip_aborted();
    if (is_before(cmd_sn, exp_cmd_sn_) || is_before(max_cmd_sn(), cmd_sn)) return Verdict::ignore;
    if (cmd_sn != exp_cmd_sn_) return is_marked(cmd_sn) ? Verdict::ignore : Verdict::gap;
    ++exp_cmd_sn_;
    skip_aborted();
    return Verdict::in_order;
  }
  /// A command that came by receive() holds a place until its answer is sent. Immediate commands hold none.
  void occupy() noexcept { ++occupied_; }
  void release() noexcept { --occupied_; }

  /// RFC 7143 11.6.1: an aborted command that has not come counts as received. False when it cannot come any more.
  [[nodiscard]] bool mark_received(std::uint32_t cmd_sn) noexcept {
    if (is_before(cmd_sn, exp_cmd_sn_) || is_before(max_cmd_sn(), cmd_sn)) return false;
    if (!is_marked(cmd_sn)) ++aborted_count_;
    aborted_.set(cmd_sn % kMarks);
    skip_aborted();
    return true;
  }

  [[nodiscard]] std::uint32_t exp_cmd_sn() const noexcept { return exp_cmd_sn_; }
  [[nodiscard]] std::uint32_t max_cmd_sn() const noexcept { return exp_cmd_sn_ + (depth_ - occupied_) - 1; }
  [[nodiscard]] bool is_closed() const noexcept { return occupied_ == depth_; }

 private:
  static constexpr std::uint32_t kMarks = 1024;  ///< more than any depth

  [[nodiscard]] bool is_marked(std::uint32_t cmd_sn) const noexcept { return aborted_.test(cmd_sn % kMarks); }
  void skip_aborted() noexcept {
    while (aborted_count_ > 0 && is_marked(exp_cmd_sn_)) {
      aborted_.reset(exp_cmd_sn_ % kMarks);
      --aborted_count_;
      ++exp_cmd_sn_;
    }
  }

  std::uint32_t exp_cmd_sn_;
  std::uint32_t depth_;
  std::uint32_t occupied_ = 0;
  std::uint32_t aborted_count_ = 0;
  std::bitset<kMarks> aborted_;
};

}  // namespace replblk::iscsi
