#include "fl_server/round_machine.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

using namespace round_event;
using namespace round_action;

template <class Action>
std::vector<Action> all(const RoundActions& actions) {
    std::vector<Action> found;
    for (const RoundAction& action : actions)
        if (const auto* a = std::get_if<Action>(&action)) found.push_back(*a);
    return found;
}

class Rounds : public testing::Test {
  protected:
    RoundMachine machine_{
        {.rounds = 2, .min_clusters = 2, .round_timeout = std::chrono::seconds(10)}};
    Instant now_{std::chrono::seconds(100)};
};

TEST_F(Rounds, ARoundStartsWithEnoughClustersAndEndsWithAllAnswers) {
    EXPECT_TRUE(machine_.on(now_, Connected{"a"}).empty());
    EXPECT_EQ(all<SendTask>(machine_.on(now_, Connected{"b"})).size(), 2U);
    EXPECT_TRUE(machine_.on(now_, UpdateAdmitted{"a"}).empty());
    EXPECT_TRUE(machine_.on(now_, UpdateAdmitted{"a"}).empty());
    const auto closing = all<Aggregate>(machine_.on(now_, UpdateRejected{"b", "nan"}));
    ASSERT_EQ(closing.size(), 1U);
    EXPECT_EQ(closing[0].rejected.at("b"), "nan");
    EXPECT_EQ(all<SendTask>(machine_.on(now_, Aggregated{})).size(), 2U);
    EXPECT_EQ(machine_.round(), 2U);
    static_cast<void>(machine_.on(now_, UpdateAdmitted{"a"}));
    EXPECT_EQ(all<Aggregate>(machine_.on(now_, UpdateAdmitted{"b"})).size(), 1U);
    EXPECT_EQ(all<Finish>(machine_.on(now_, Aggregated{})).size(), 1U);
    EXPECT_TRUE(machine_.on(now_, Connected{"c"}).empty());
}

TEST_F(Rounds, TheDeadlineClosesWithWhatIsThere) {
    static_cast<void>(machine_.on(now_, Connected{"a"}));
    static_cast<void>(machine_.on(now_, Connected{"b"}));
    static_cast<void>(machine_.on(now_, UpdateAdmitted{"a"}));
    EXPECT_TRUE(machine_.on(now_ + std::chrono::seconds(9), Tick{}).empty());
    const auto closing = all<Aggregate>(machine_.on(now_ + std::chrono::seconds(10), Tick{}));
    ASSERT_EQ(closing.size(), 1U);
    EXPECT_EQ(closing[0].rejected.at("b"), "no update before the round's deadline");
}

TEST_F(Rounds, WithoutAnyUpdateTheRoundOpensAgain) {
    static_cast<void>(machine_.on(now_, Connected{"a"}));
    static_cast<void>(machine_.on(now_, Connected{"b"}));
    const auto actions = machine_.on(now_ + std::chrono::seconds(10), Tick{});
    EXPECT_EQ(all<Aggregate>(actions).size(), 0U);
    EXPECT_EQ(all<SendTask>(actions).size(), 2U);
    EXPECT_EQ(machine_.round(), 1U);
}

TEST_F(Rounds, OneThatComesBackGetsItsTaskAgainAndALateJoinerWaits) {
    static_cast<void>(machine_.on(now_, Connected{"a"}));
    static_cast<void>(machine_.on(now_, Connected{"b"}));
    static_cast<void>(machine_.on(now_, Disconnected{"b"}));
    EXPECT_EQ(all<SendTask>(machine_.on(now_, Connected{"b"})).size(), 1U);
    EXPECT_TRUE(machine_.on(now_, Connected{"late"}).empty());
    EXPECT_FALSE(machine_.expects_update_of("late"));
}

}  // namespace
}  // namespace ecopipe
