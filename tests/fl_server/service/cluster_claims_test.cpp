#include "fl_server/service/cluster_claims.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

using Answer = ClusterClaims::Answer;

Instant at_s(double s) { return Instant{} + from_ms(s * 1000); }

TEST(ClusterClaims, AHolderThatGoesOnAnsweringKeepsItsNameAndASilentOneIsWaitedFor) {
    ClusterClaims claims(from_ms(10'000));
    // The holder's last words may come after the newcomer's first.
    for (double now = 100; now < 110; now += 0.5)
        EXPECT_EQ(claims.claim("a", 7, at_s(now), at_s(std::min(now, 101.0))), Answer::kWait);
    EXPECT_EQ(claims.claim("a", 7, at_s(110), at_s(110)), Answer::kWait) << "at the limit";
    EXPECT_EQ(claims.claim("a", 7, at_s(110.2), at_s(110.1)), Answer::kRefuse);
}

TEST(ClusterClaims, EveryClaimantWaitsAnew) {
    ClusterClaims claims(from_ms(10'000));
    EXPECT_EQ(claims.claim("a", 7, at_s(100), at_s(100)), Answer::kWait);
    EXPECT_EQ(claims.claim("b", 7, at_s(111), at_s(111)), Answer::kWait) << "another name";
    EXPECT_EQ(claims.claim("a", 8, at_s(111), at_s(111)), Answer::kWait) << "another process";
    EXPECT_EQ(claims.claim("a", 8, at_s(122), at_s(122)), Answer::kWait) << "it was away";
    EXPECT_EQ(claims.claim("a", 8, at_s(131), at_s(131)), Answer::kWait);
    claims.settle("a");
    EXPECT_EQ(claims.claim("a", 8, at_s(133), at_s(133)), Answer::kWait) << "the name was free";
}

}  // namespace
}  // namespace ecopipe
