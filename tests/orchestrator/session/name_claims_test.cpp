#include "orchestrator/session/name_claims.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

using Verdict = NameClaims::Verdict;

Instant at_ms(int ms) { return Instant(std::chrono::milliseconds(ms)); }

// Its last answers may be under way when it is killed: they answer pings from before.
TEST(NameClaims, WhatWasAskedBeforeTheNewcomerSpokeProvesNothing) {
    NameClaims claims;
    EXPECT_EQ(claims.asked("pi", "new", at_ms(1000)), Verdict::kWait);
    claims.answered("pi", at_ms(999));
    EXPECT_EQ(claims.asked("pi", "new", at_ms(1200)), Verdict::kWait);
    claims.answered("hub", at_ms(1100));
    EXPECT_EQ(claims.asked("pi", "new", at_ms(1400)), Verdict::kWait);
}

TEST(NameClaims, AHolderThatAnswersKeepsItsName) {
    NameClaims claims;
    EXPECT_EQ(claims.asked("pi", "impostor", at_ms(1000)), Verdict::kWait);
    claims.answered("pi", at_ms(1000));
    EXPECT_EQ(claims.asked("pi", "impostor", at_ms(1200)), Verdict::kTaken);
}

TEST(NameClaims, EveryNewcomerIsWeighedAnew) {
    NameClaims claims;
    static_cast<void>(claims.asked("pi", "impostor", at_ms(1000)));
    claims.answered("pi", at_ms(1100));
    EXPECT_EQ(claims.asked("pi", "restarted", at_ms(2000)), Verdict::kWait);
    claims.answered("pi", at_ms(1900));
    EXPECT_EQ(claims.asked("pi", "restarted", at_ms(2200)), Verdict::kWait);
}

TEST(NameClaims, ANameThatWasGivenAnewIsClaimedAnew) {
    NameClaims claims;
    static_cast<void>(claims.asked("pi", "restarted", at_ms(1000)));
    claims.answered("pi", at_ms(1100));
    claims.settled("pi");
    EXPECT_EQ(claims.asked("pi", "restarted", at_ms(3000)), Verdict::kWait);
}

}  // namespace
}  // namespace ecopipe
