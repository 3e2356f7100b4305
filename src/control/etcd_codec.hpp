// What is said to etcd's JSON gateway (v3.4 and newer) and what it answers, as text. Pure functions; the answers are
// not trusted to be etcd's: what is not understood is an error, never an empty record. The record is stored as JSON
// that a person can read with `etcdctl get`; 64-bit numbers travel as strings, as protobuf's JSON has them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "ports/arbiter.hpp"

namespace replblk::control {

struct EtcdRequest {
  std::string target;  ///< path of the URL
  std::string body;
};

[[nodiscard]] std::string etcd_key(std::string_view cluster, std::string_view resource);
[[nodiscard]] EtcdRequest read_request(std::string_view key);
[[nodiscard]] EtcdRequest replace_request(std::string_view key, std::uint64_t revision,
                                          const ports::ArbiterRecord& record);
[[nodiscard]] EtcdRequest token_request(std::string_view user, std::string_view password);

/// The errors are what is wrong with the answer.
[[nodiscard]] Result<ports::ArbiterReading, std::string> decode_reading(std::string_view body, std::string_view key);
[[nodiscard]] Result<bool, std::string> decode_replaced(std::string_view body);
[[nodiscard]] Result<std::string, std::string> decode_token(std::string_view body);

struct EtcdRefusal {
  int code = 0;  ///< gRPC's status code; 0: the body is none of etcd's
  std::string message;
  /// The token has expired, or the users have changed since it was given: a new one may do.
  [[nodiscard]] bool is_token_stale() const;
  /// It was turned away before it could have changed anything.
  [[nodiscard]] bool is_without_effect() const noexcept;
};
/// Of an answer that is not 200.
[[nodiscard]] EtcdRefusal decode_refusal(std::string_view body);

[[nodiscard]] std::string encode_arbiter_record(const ports::ArbiterRecord& record);
[[nodiscard]] std::optional<ports::ArbiterRecord> decode_arbiter_record(std::string_view text);

}  // namespace replblk::control
