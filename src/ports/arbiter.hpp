// The third party that decides when the nodes cannot talk (protocol.md 3.5). Implemented by control (etcd), by runtime
// (ping) and by the simulator. It keeps a record and knows no rule: who may claim, and with what, is decided by
// membership/claim. Questions carry a number that the answer repeats. An answer may be late, or never come; the change
// that it would have confirmed may have been made all the same, and may still be made long after the asker has given
// up. One thread; no callback is made from inside a call, and none after the Arbiter's destruction.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/uuid.hpp"

namespace replblk::ports {

/// One for each resource, changed by compare-and-swap only. Plain numbers: ports know no configuration.
struct ArbiterRecord {
  Uuid id;  ///< of the pair; made with it
  std::uint64_t term = 0;
  std::uint8_t members = 0;  ///< bit n: node n
  std::uint8_t primary = 255;
  std::uint64_t generation_term = 0;
  std::uint64_t generation_nonce = 0;
  friend bool operator==(const ArbiterRecord&, const ArbiterRecord&) = default;
};

/// What the record was when it was read. `revision` names this state of it: etcd's mod_revision.
struct ArbiterReading {
  std::uint64_t revision = 0;           ///< 0: there is no record
  std::optional<ArbiterRecord> record;  ///< nullopt: there is none, or what is there is none of ours
};

struct ArbiterFailure {
  /// The change that was asked for may have been made, or may still be: only reading tells. False: nothing came of it.
  bool may_take_effect = false;
  std::string sentence;  ///< what keeps the arbiter from answering
};

class ArbiterSink {
 public:
  virtual void on_arbiter_read(std::uint64_t number, const ArbiterReading& reading) = 0;
  /// The record was at `revision` and is now what was asked for; or it was not, and is untouched.
  virtual void on_arbiter_replaced(std::uint64_t number, bool is_replaced) = 0;
  /// The record is what overwrite() asked for, or of a higher term with the same members.
  virtual void on_arbiter_overwritten(std::uint64_t number) = 0;
  /// `ping`: whether any of the addresses answered.
  virtual void on_arbiter_probed(std::uint64_t number, bool is_reached) = 0;
  /// Instead of any of them.
  virtual void on_arbiter_failed(std::uint64_t number, const ArbiterFailure& failure) = 0;

 protected:
  ~ArbiterSink() = default;
};

class Arbiter {
 public:
  virtual ~Arbiter() = default;
  /// What was durable before this call is in the answer.
  virtual void read(std::uint64_t number) = 0;
  /// One transaction: replaces the record if it still is at `revision`; at 0 it is created if there is still none.
  virtual void replace(std::uint64_t number, std::uint64_t revision, const ArbiterRecord& record) = 0;
  /// A person forces a node: whatever the record is, also none or another pair's, it becomes this one, at a term that
  /// is at least `record.term` and not below what it was.
  virtual void overwrite(std::uint64_t number, const ArbiterRecord& record) = 0;
  /// `ping`: asks all addresses.
  virtual void probe(std::uint64_t number) = 0;
};

}  // namespace replblk::ports
