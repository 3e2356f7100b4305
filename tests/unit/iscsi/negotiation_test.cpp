#include "iscsi/negotiation.hpp"

#include <gtest/gtest.h>

namespace replblk::iscsi {
namespace {

struct Case {
  std::string_view key;
  std::string_view offered;
  std::string_view answered;  ///< empty: no answer
};

// If it failed, both sides would go on with different parameters: lost data or a dropped connection at the first write.
TEST(Negotiation, Each_offer_has_the_answer_of_the_standard) {
  const Case cases[] = {
      {"HeaderDigest", "CRC32C,None", "CRC32C"},
      {"HeaderDigest", "None,CRC32C", "None"},
      {"DataDigest", "X-md5,CRC32C", "CRC32C"},
      {"DataDigest", "X-md5", "Reject"},
      {"MaxConnections", "8", "1"},
      {"MaxConnections", "0", "Reject"},
      {"InitialR2T", "No", "No"},
      {"InitialR2T", "Yes", "Yes"},
      {"InitialR2T", "no", "Reject"},
      {"ImmediateData", "Yes", "Yes"},
      {"ImmediateData", "No", "No"},
      {"MaxRecvDataSegmentLength", "65536", ""},
      {"MaxBurstLength", "16776192", "16776192"},
      {"MaxBurstLength", "16777215", "16776192"},
      {"MaxBurstLength", "511", "Reject"},
      {"FirstBurstLength", "1048576", "262144"},
      {"FirstBurstLength", "0x10000", "65536"},
      {"DefaultTime2Wait", "0", "0"},
      {"DefaultTime2Wait", "20", "20"},
      {"DefaultTime2Retain", "20", "0"},
      {"MaxOutstandingR2T", "1", "1"},
      {"MaxOutstandingR2T", "64", "8"},
      {"DataPDUInOrder", "No", "Yes"},
      {"DataSequenceInOrder", "No", "Yes"},
      {"ErrorRecoveryLevel", "2", "0"},
      {"ErrorRecoveryLevel", "3", "Reject"},
      {"IFMarker", "Yes", "No"},
      {"OFMarkInt", "2048~65535", "Reject"},
      {"TaskReporting", "FastAbort", "RFC3720"},
      {"iSCSIProtocolLevel", "2", "1"},
      {"X-com.example.foo", "bar", "NotUnderstood"},
      {"Nonsense", "Yes", "NotUnderstood"},
      {"Nonsense", "NotUnderstood", ""},
  };
  for (const Case& one : cases) {
    Negotiation negotiation{NegotiationLimits{}};
    TextBuilder answer;
    EXPECT_EQ(negotiation.offer({one.key, one.offered}, NegotiationPhase::login, answer), OfferVerdict::taken);
    TextBuilder expected;
    if (!one.answered.empty()) expected.add(one.key, one.answered);
    EXPECT_EQ(answer.text(), expected.text()) << one.key << "=" << one.offered;
  }
}

// If it failed, an initiator that offers nothing would get what it does not know of.
TEST(Negotiation, What_is_not_offered_has_the_standards_default) {
  const SessionParameters parameters = Negotiation{NegotiationLimits{}}.parameters();
  EXPECT_TRUE(parameters.initial_r2t);
  EXPECT_TRUE(parameters.immediate_data);
  EXPECT_FALSE(parameters.header_digest || parameters.data_digest);
  EXPECT_EQ(parameters.initiator_recv_bytes, 8192u);
  EXPECT_EQ(parameters.max_burst_bytes, 262144u);
  EXPECT_EQ(parameters.first_burst_bytes, 65536u);
  EXPECT_EQ(parameters.max_outstanding_r2t, 1u);
}

// If it failed, more unsolicited data would be taken than a burst may hold (RFC 7143 13.14).
TEST(Negotiation, First_burst_never_exceeds_max_burst) {
  Negotiation negotiation{NegotiationLimits{}};
  TextBuilder answer;
  (void)negotiation.offer({"FirstBurstLength", "65536"}, NegotiationPhase::login, answer);
  (void)negotiation.offer({"MaxBurstLength", "4096"}, NegotiationPhase::login, answer);
  EXPECT_EQ(negotiation.parameters().first_burst_bytes, 4096u);
}

// If it failed, a peer could change its mind about a key that was already applied.
TEST(Negotiation, A_key_that_comes_twice_is_a_protocol_error) {
  Negotiation negotiation{NegotiationLimits{}};
  TextBuilder answer;
  (void)negotiation.offer({"ImmediateData", "Yes"}, NegotiationPhase::login, answer);
  EXPECT_EQ(negotiation.offer({"ImmediateData", "No"}, NegotiationPhase::login, answer), OfferVerdict::protocol_error);
  EXPECT_EQ(negotiation.offer({"MaxRecvDataSegmentLength", "0"}, NegotiationPhase::login, answer),
            OfferVerdict::protocol_error);
}

// If it failed, discovery would hang on keys that mean nothing there, or session keys would change under a running
// session.
TEST(Negotiation, Keys_out_of_place_are_irrelevant_or_rejected) {
  Negotiation discovery{NegotiationLimits{}};
  discovery.set_session_type(SessionType::discovery);
  TextBuilder answer;
  (void)discovery.offer({"MaxBurstLength", "65536"}, NegotiationPhase::login, answer);
  EXPECT_EQ(answer.take(), std::string("MaxBurstLength=Irrelevant\0", 26));
  Negotiation normal{NegotiationLimits{}};
  (void)normal.offer({"MaxBurstLength", "65536"}, NegotiationPhase::full_feature, answer);
  EXPECT_EQ(answer.take(), std::string("MaxBurstLength=Reject\0", 22));
  (void)normal.offer({"MaxRecvDataSegmentLength", "4096"}, NegotiationPhase::full_feature, answer);
  EXPECT_EQ(normal.parameters().initiator_recv_bytes, 4096u);
}

}  // namespace
}  // namespace replblk::iscsi
