#include "control/etcd_codec.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

namespace replblk::control {

namespace {

using Json = nlohmann::json;

// gRPC status codes.
constexpr int kInvalidArgument = 3;
constexpr int kPermissionDenied = 7;
constexpr int kFailedPrecondition = 9;
constexpr int kUnimplemented = 12;
constexpr int kUnauthenticated = 16;

constexpr int kRecordFormat = 1;

std::string to_base64(std::string_view bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int count =
      ::EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                        reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(count));
  return text;
}

std::optional<std::string> from_base64(const std::string& text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::string bytes(text.size() / 4 * 3, '\0');
  const int count =
      ::EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                        reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (count < 0 || static_cast<std::size_t>(count) != bytes.size()) return std::nullopt;
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  bytes.resize(bytes.size() - padding);
  return bytes;
}

/// An object, or a null for everything else.
Json parse(std::string_view body) {
  Json json = Json::parse(body, nullptr, false);
  return json.is_object() ? json : Json();
}

/// The member of an object, or a null.
const Json& member(const Json& json, const char* name) {
  static const Json kNull;
  if (!json.is_object()) return kNull;
  const auto found = json.find(name);
  return found == json.end() ? kNull : *found;
}

std::string text_of(const Json& json) { return json.is_string() ? json.get<std::string>() : std::string(); }

/// 64-bit numbers come as strings; small ones may come as numbers.
std::optional<std::uint64_t> number_of(const Json& json) {
  if (json.is_number_unsigned()) return json.get<std::uint64_t>();
  const std::string text = text_of(json);
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Every answer of etcd's has a header with a revision.
bool is_from_etcd(const Json& json) { return number_of(member(member(json, "header"), "revision")).value_or(0) > 0; }

constexpr const char* kNotUnderstood = "the answer is not etcd's";

}  // namespace

std::string etcd_key(std::string_view cluster, std::string_view resource) {
  return fmt::format("/replblk/{}/{}", cluster, resource);
}

EtcdRequest read_request(std::string_view key) {
  // Not serializable: a member that is behind, or cut off from the others, must not answer by itself.
  return {"/v3/kv/range", Json{{"key", to_base64(key)}, {"serializable", false}}.dump()};
}

EtcdRequest replace_request(std::string_view key, std::uint64_t revision, const ports::ArbiterRecord& record) {
  const std::string encoded_key = to_base64(key);
  const Json compare = {
      {"key", encoded_key}, {"target", "MOD"}, {"result", "EQUAL"}, {"mod_revision", std::to_string(revision)}};
  const Json put = {{"key", encoded_key}, {"value", to_base64(encode_arbiter_record(record))}};
  const Json success = {{"request_put", put}};
  return {"/v3/kv/txn", Json{{"compare", Json::array({compare})}, {"success", Json::array({success})}}.dump()};
}

EtcdRequest token_request(std::string_view user, std::string_view password) {
  return {"/v3/auth/authenticate",
          Json{{"name", user}, {"password", password}}.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

Result<ports::ArbiterReading, std::string> decode_reading(std::string_view body, std::string_view key) {
  const Json json = parse(body);
  if (!is_from_etcd(json)) return fail(kNotUnderstood);
  ports::ArbiterReading reading;
  const Json& pairs = member(json, "kvs");
  if (pairs.is_null()) return reading;
  if (!pairs.is_array() || pairs.size() != 1) return fail(kNotUnderstood);
  const Json& pair = pairs.front();
  const auto revision = number_of(member(pair, "mod_revision"));
  const auto found_key = from_base64(text_of(member(pair, "key")));
  const auto value = from_base64(text_of(member(pair, "value")));
  if (revision.value_or(0) == 0 || found_key != std::string(key) || !value) return fail(kNotUnderstood);
  reading.revision = *revision;
  reading.record = decode_arbiter_record(*value);
  return reading;
}

Result<bool, std::string> decode_replaced(std::string_view body) {
  const Json json = parse(body);
  if (!is_from_etcd(json)) return fail(kNotUnderstood);
  const Json& succeeded = member(json, "succeeded");
  if (succeeded.is_null()) return false;  // protobuf's JSON leaves out what is false.
  if (!succeeded.is_boolean()) return fail(kNotUnderstood);
  return succeeded.get<bool>();
}

Result<std::string, std::string> decode_token(std::string_view body) {
  const Json json = parse(body);
  std::string token = text_of(member(json, "token"));
  // It goes into a header line.
  const bool is_good = !token.empty() && token.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos;
  if (!is_good || !member(json, "header").is_object()) return fail(kNotUnderstood);
  return token;
}

EtcdRefusal decode_refusal(std::string_view body) {
  const Json json = parse(body);
  const auto code = number_of(member(json, "code"));
  std::string message = text_of(member(json, "message"));
  if (message.empty()) message = text_of(member(json, "error"));
  if (code.value_or(0) == 0 || *code > kUnauthenticated || message.empty()) return {};
  return {static_cast<int>(*code), std::move(message)};
}

bool EtcdRefusal::is_token_stale() const {
  return code == kUnauthenticated ||
         (code == kInvalidArgument && message.find("revision of auth store is old") != std::string::npos);
}

bool EtcdRefusal::is_without_effect() const noexcept {
  return code == kInvalidArgument || code == kPermissionDenied || code == kFailedPrecondition ||
         code == kUnimplemented || code == kUnauthenticated;
}

std::string encode_arbiter_record(const ports::ArbiterRecord& record) {
  Json members = Json::array();
  for (unsigned node = 0; node < 8; ++node) {
    if ((record.members >> node & 1) != 0) members.push_back(node);
  }
  return Json{{"format", kRecordFormat},
              {"id", to_string(record.id)},
              {"term", std::to_string(record.term)},
              {"members", members},
              {"primary", record.primary},
              {"generation",
               {{"term", std::to_string(record.generation_term)}, {"nonce", std::to_string(record.generation_nonce)}}}}
      .dump();
}

std::optional<ports::ArbiterRecord> decode_arbiter_record(std::string_view text) {
  const Json json = parse(text);
  if (number_of(member(json, "format")) != kRecordFormat) return std::nullopt;
  const auto id = parse_uuid(text_of(member(json, "id")));
  const auto term = number_of(member(json, "term"));
  const auto primary = number_of(member(json, "primary"));
  const Json& members = member(json, "members");
  const auto generation_term = number_of(member(member(json, "generation"), "term"));
  const auto generation_nonce = number_of(member(member(json, "generation"), "nonce"));
  if (!id || !term || !primary || *primary > std::numeric_limits<std::uint8_t>::max() || !members.is_array() ||
      !generation_term || !generation_nonce)
    return std::nullopt;
  ports::ArbiterRecord record{*id, *term, 0, static_cast<std::uint8_t>(*primary), *generation_term, *generation_nonce};
  for (const Json& node : members) {
    const auto index = number_of(node);
    if (!index || *index > 7) return std::nullopt;
    record.members = static_cast<std::uint8_t>(record.members | 1u << *index);
  }
  return record;
}

}  // namespace replblk::control
