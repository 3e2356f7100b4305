// The third party that decides when the nodes cannot talk (protocol.md 3.5). Implemented by control (etcd), by runtime
// (ping) and by the simulator. It keeps a record and knows no rule: who may claim, and with what, is decided by
// membership/claim. Questions carry a number that the answer repeats. An answer may be late, or never come; the change
// that it would have confirmed may have been made all the same, and may still be made long after the asker has given
// up.
#pragma once

#include <cstdint>
#include <optional>

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
  std::uint64_t revision = 0;
  std::optional<ArbiterRecord> record;  ///< nullopt: there is none
};

class ArbiterSink {
 public:
  virtual void on_arbiter_read(std::uint64_t number, const ArbiterReading& reading) = 0;
  /// The record was at `revision` and is now what was asked for; or it was not, and is untouched.
  virtual void on_arbiter_replaced(std::uint64_t number, bool is_replaced) = 0;
  /// `ping`: whether any of the addresses answered.
  virtual void on_arbiter_probed(std::uint64_t number, bool is_reached) = 0;

 protected:
  ~ArbiterSink() = default;
};

class Arbiter {
 public:
  virtual ~Arbiter() = default;
  virtual void read(std::uint64_t number) = 0;
  /// One transaction: replaces the record if it still is at `revision`.
  virtual void replace(std::uint64_t number, std::uint64_t revision, const ArbiterRecord& record) = 0;
  /// A person forces a node: whatever the record is, its term becomes at least `record.term`.
  virtual void overwrite(const ArbiterRecord& record) = 0;
  /// `ping`: asks all addresses.
  virtual void probe(std::uint64_t number) = 0;
};

}  // namespace replblk::ports
