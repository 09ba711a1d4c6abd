#include "core/step_number.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

TEST(StepNumber, IsReadAsRoundAndStep) {
    EXPECT_EQ(step_text(1), "step 1");
    EXPECT_EQ(step_text((1U << 24U) - 1), "step 16777215");
    EXPECT_EQ(step_text(round_key(5) + 32), "round 5, step 32");
    EXPECT_EQ(step_text(round_key(5, 3) + 32), "round 5, step 32");
    EXPECT_EQ(step_text(round_key(0, 3) + 32), "round 0, step 32");
}

}  // namespace
}  // namespace ecopipe
