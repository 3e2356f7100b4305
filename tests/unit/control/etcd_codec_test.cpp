#include "control/etcd_codec.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace replblk::control {
namespace {

const Uuid kId = *parse_uuid("01234567-89ab-4cde-8f01-23456789abcd");
const ports::ArbiterRecord kRecord{kId, std::numeric_limits<std::uint64_t>::max(),    3, 255,
                                   7,   std::numeric_limits<std::uint64_t>::max() - 1};

// Broken if a term or nonce lost its low bits on the way: two generations would look like one.
TEST(EtcdCodec, A_record_comes_back_as_it_was_and_can_be_read_by_a_person) {
  EXPECT_EQ(decode_arbiter_record(encode_arbiter_record(kRecord)), kRecord);
  EXPECT_EQ(encode_arbiter_record({kId, 5, 2, 1, 4, 9}),
            R"({"format":1,"generation":{"nonce":"9","term":"4"},"id":"01234567-89ab-4cde-8f01-23456789abcd",)"
            R"("members":[1],"primary":1,"term":"5"})");
}

// Broken if something else under the key, or a later format, were taken for a record: its members would decide.
TEST(EtcdCodec, What_is_no_record_is_none) {
  const std::string good = encode_arbiter_record(kRecord);
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const std::string& bad :
       {std::string(), std::string("{}"), std::string("[]"), std::string("\xff\xfe"), good.substr(1),
        with("\"format\":1", "\"format\":2"), with("\"primary\":255", "\"primary\":256"), with("[0,1]", "[0,8]"),
        with("[0,1]", "[-1]"), with("[0,1]", "3"), with("18446744073709551615", "18446744073709551616"),
        with("18446744073709551615", "-1"), with("01234567-", "")})
    EXPECT_FALSE(decode_arbiter_record(bad)) << bad;
}

TEST(EtcdCodec, Questions_are_as_the_gateway_wants_them) {
  EXPECT_EQ(etcd_key("store1", "data"), "/replblk/store1/data");
  const EtcdRequest read = read_request("/replblk/s/r");
  EXPECT_EQ(read.target, "/v3/kv/range");
  EXPECT_EQ(read.body, R"({"key":"L3JlcGxibGsvcy9y","serializable":false})");
  const EtcdRequest replace = replace_request("k", 42, {kId, 5, 2, 1, 4, 9});
  EXPECT_EQ(replace.target, "/v3/kv/txn");
  EXPECT_TRUE(
      replace.body.starts_with(R"({"compare":[{"key":"aw==","mod_revision":"42","result":"EQUAL","target":"MOD"}],)"
                               R"("success":[{"request_put":{"key":"aw==","value":")"));
  EXPECT_EQ(token_request("a\"b", "p\\w").body, R"({"name":"a\"b","password":"p\\w"})");
}

constexpr std::string_view kHeader = R"("header":{"cluster_id":"1","member_id":"2","revision":"9","raft_term":"2"})";

std::string answer(std::string_view rest) { return "{" + std::string(kHeader) + std::string(rest) + "}"; }

// Broken if an answer that is not etcd's counted as "no record", or as a record.
TEST(EtcdCodec, Readings_are_understood_or_refused) {
  const auto absent = decode_reading(answer(""), "k");
  ASSERT_TRUE(absent);
  EXPECT_EQ(absent->revision, 0u);
  EXPECT_FALSE(absent->record);
  const auto foreign =
      decode_reading(answer(R"(,"kvs":[{"key":"aw==","mod_revision":"7","value":"aGVsbG8="}],"count":"1")"), "k");
  ASSERT_TRUE(foreign);
  EXPECT_EQ(foreign->revision, 7u);
  EXPECT_FALSE(foreign->record);
  const std::string put = replace_request("k", 0, kRecord).body;
  const std::size_t at = put.find("\"value\":");
  const auto good = decode_reading(
      answer(R"(,"kvs":[{"key":"aw==","mod_revision":"8",)" + put.substr(at, put.find('}', at) - at) + "}]"), "k");
  ASSERT_TRUE(good);
  EXPECT_EQ(good->revision, 8u);
  EXPECT_EQ(good->record, kRecord);
  for (const std::string& bad :
       {std::string(), std::string("{}"), std::string("nonsense"), std::string("null"), std::string(R"({"header":1})"),
        std::string(R"({"header":{"revision":"0"}})"), answer(R"(,"kvs":{})"), answer(R"(,"kvs":[])"),
        answer(R"(,"kvs":[{"key":"aw==","value":"aGVsbG8="}])"),
        answer(R"(,"kvs":[{"key":"aw==","mod_revision":"7","value":"a"}])"),
        answer(R"(,"kvs":[{"key":"bA==","mod_revision":"7","value":"aGVsbG8="}])"),
        answer(R"(,"kvs":[{"key":"aw==","mod_revision":"7","value":"!!!!"}])"),
        answer(R"(,"kvs":[{"key":"aw==","mod_revision":"7"},{"key":"aw=="}])")})
    EXPECT_FALSE(decode_reading(bad, "k")) << bad;
}

TEST(EtcdCodec, Outcomes_of_a_transaction_are_understood_or_refused) {
  EXPECT_TRUE(*decode_replaced(answer(R"(,"succeeded":true,"responses":[])")));
  EXPECT_FALSE(*decode_replaced(answer("")));
  EXPECT_FALSE(*decode_replaced(answer(R"(,"succeeded":false)")));
  for (const std::string& bad :
       {std::string("{}"), std::string(R"({"succeeded":true})"), answer(R"(,"succeeded":"true")"), std::string("")})
    EXPECT_FALSE(decode_replaced(bad)) << bad;
}

// Broken if a claim that was turned away counted as one that may still come about, or the other way round.
TEST(EtcdCodec, Refusals_tell_whether_anything_can_have_happened) {
  const auto refusal = [](int code, std::string_view message) {
    return decode_refusal(R"({"error":")" + std::string(message) + R"(","message":")" + std::string(message) +
                          R"(","code":)" + std::to_string(code) + "}");
  };
  EXPECT_TRUE(refusal(16, "etcdserver: invalid auth token").is_token_stale());
  EXPECT_TRUE(refusal(3, "etcdserver: revision of auth store is old").is_token_stale());
  EXPECT_FALSE(refusal(3, "etcdserver: authentication failed, invalid user ID or password").is_token_stale());
  EXPECT_FALSE(refusal(7, "etcdserver: permission denied").is_token_stale());
  for (const int code : {3, 7, 9, 12, 16}) EXPECT_TRUE(refusal(code, "x").is_without_effect()) << code;
  for (const int code : {1, 2, 4, 5, 8, 10, 11, 13, 14, 15})
    EXPECT_FALSE(refusal(code, "x").is_without_effect()) << code;
  EXPECT_EQ(refusal(14, "etcdserver: request timed out").message, "etcdserver: request timed out");
  for (const std::string_view bad :
       {"", "{}", "<html>", R"({"code":"x","message":"y"})", R"({"code":3})", R"({"code":99,"message":"y"})"}) {
    EXPECT_EQ(decode_refusal(bad).code, 0) << bad;
    EXPECT_FALSE(decode_refusal(bad).is_without_effect()) << bad;
  }
}

TEST(EtcdCodec, Tokens_fit_into_a_header) {
  EXPECT_EQ(*decode_token(answer(R"(,"token":"abc.7")")), "abc.7");
  for (const std::string& bad : {std::string("{}"), answer(""), answer(R"(,"token":"")"),
                                 answer(R"(,"token":"a\r\nHost: x")"), std::string(R"({"token":"abc"})")})
    EXPECT_FALSE(decode_token(bad)) << bad;
}

}  // namespace
}  // namespace replblk::control
