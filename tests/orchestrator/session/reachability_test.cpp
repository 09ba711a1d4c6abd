#include "orchestrator/session/reachability.h"

#include <gtest/gtest.h>

#include <map>

namespace ecopipe {
namespace {

using Devices = std::set<std::string>;

// A step takes 100 ms over the speeds of those present; below a speed of 2 nothing holds the model.
StepOver over(std::map<std::string, double> speeds) {
    return [speeds = std::move(speeds)](const Devices& devices) -> std::optional<double> {
        double sum = 0;
        for (const std::string& device : devices) sum += speeds.at(device);
        return sum < 2 ? std::optional<double>() : 100 / sum;
    };
}

const StepOver kAlike = over({{"hub", 2}, {"a", 1}, {"b", 1}, {"c", 1}, {"d", 1}});
const Devices kKept{"@portal", "hub"};

TEST(WhomToLeaveOut, NobodyWithoutAPair) {
    EXPECT_EQ(whom_to_leave_out({}, {"hub", "a"}, kKept, kAlike), Devices{});
}

TEST(WhomToLeaveOut, OfTwoTheOneWithoutWhomAStepIsShorter) {
    const auto step = over({{"hub", 2}, {"a", 1}, {"b", 3}});
    EXPECT_EQ(whom_to_leave_out({{"a", "b"}}, {"hub", "a", "b"}, kKept, step), Devices{"a"});
    const auto other = over({{"hub", 2}, {"a", 3}, {"b", 1}});
    EXPECT_EQ(whom_to_leave_out({{"a", "b"}}, {"hub", "a", "b"}, kKept, other), Devices{"b"});
}

TEST(WhomToLeaveOut, NeverTheOneWithoutWhomThereIsNoPlan) {
    const auto step = over({{"hub", 0.5}, {"a", 1.6}, {"b", 0.4}});
    EXPECT_EQ(whom_to_leave_out({{"b", "a"}}, {"hub", "a", "b"}, kKept, step), Devices{"b"});
}

TEST(WhomToLeaveOut, TheOneThatSeveralCannotReachHoweverFastItIs) {
    const auto step = over({{"hub", 2}, {"a", 1}, {"b", 9}, {"c", 1}});
    EXPECT_EQ(whom_to_leave_out({{"a", "b"}, {"b", "c"}}, {"hub", "a", "b", "c"}, kKept, step),
              Devices{"b"});
}

TEST(WhomToLeaveOut, NeverThePortalsOwnDevice) {
    const auto step = over({{"hub", 2}, {"a", 9}, {"b", 1}});
    EXPECT_EQ(whom_to_leave_out({{"a", "hub"}}, {"hub", "a", "b"}, kKept, step), Devices{"a"});
    EXPECT_EQ(whom_to_leave_out({{"a", "hub"}, {"b", "hub"}}, {"hub", "a", "b"}, kKept, step),
              (Devices{"a", "b"}));
    // What the portal itself cannot reach goes, not whoever else said so.
    EXPECT_EQ(whom_to_leave_out({{"@portal", "b"}, {"a", "b"}}, {"hub", "a", "b"}, kKept, step),
              Devices{"b"});
    EXPECT_EQ(whom_to_leave_out({{"@portal", "hub"}}, {"hub", "a"}, kKept, step), Devices{});
}

TEST(WhomToLeaveOut, TwoHalvesThatDoNotSeeOneAnother) {
    const auto step = over({{"hub", 2}, {"a", 1}, {"b", 1}, {"c", 3}});
    // a and b on one side; c, which sees neither, on the other.
    EXPECT_EQ(whom_to_leave_out({{"a", "c"}, {"b", "c"}}, {"hub", "a", "b", "c"}, kKept, step),
              Devices{"c"});
    // Two pairs that have nothing to do with one another are both settled.
    EXPECT_EQ(whom_to_leave_out({{"a", "b"}, {"c", "d"}}, {"hub", "a", "b", "c", "d"}, kKept,
                                over({{"hub", 2}, {"a", 1}, {"b", 2}, {"c", 2}, {"d", 1}})),
              (Devices{"a", "d"}));
}

TEST(WhomToLeaveOut, OfEqualsTheOneThatIsDialled) {
    EXPECT_EQ(whom_to_leave_out({{"a", "b"}}, {"hub", "a", "b"}, kKept, kAlike), Devices{"b"});
    EXPECT_EQ(whom_to_leave_out({{"b", "a"}}, {"hub", "a", "b"}, kKept, kAlike), Devices{"a"});
    EXPECT_EQ(whom_to_leave_out({{"a", "b"}, {"b", "a"}}, {"hub", "a", "b"}, kKept, kAlike),
              Devices{"b"});
}

}  // namespace
}  // namespace ecopipe
