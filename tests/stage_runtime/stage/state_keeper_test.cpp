#include "stage_runtime/stage/state_keeper.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

NamedTensor tensor(const std::string& name) {
    return {name, HostTensor::allocate(DType::kF32, {2})};
}

TEST(StateKeeper, ALayerIsThereWhenAllItsTensorsAre) {
    StateKeeper keeper;
    EXPECT_FALSE(keeper.add(3, 1, 1, 2, tensor("b")));
    EXPECT_FALSE(keeper.find(3, 1));
    EXPECT_FALSE(keeper.add(3, 1, 1, 2, tensor("b")));  // twice is once
    EXPECT_FALSE(keeper.add(3, 1, 0, 3, tensor("a")));  // of another set
    EXPECT_FALSE(keeper.add(3, 1, 7, 2, tensor("a")));
    EXPECT_TRUE(keeper.add(3, 1, 0, 2, tensor("a")));
    ASSERT_TRUE(keeper.find(3, 1));
    EXPECT_EQ(keeper.find(3, 1)->front().name, "a");
    EXPECT_FALSE(keeper.find(4, 1));  // another step is another state
    EXPECT_EQ(keeper.bytes(), 16U);
}

TEST(StateKeeper, GoingBackForgetsWhatIsNewerAndWhatIsNotWhole) {
    StateKeeper keeper;
    keeper.put(3, 0, {tensor("a")});
    keeper.put(5, 0, {tensor("a")});
    EXPECT_FALSE(keeper.add(3, 1, 0, 2, tensor("b")));
    keeper.rewind_to(3);
    EXPECT_TRUE(keeper.find(3, 0));
    EXPECT_FALSE(keeper.find(5, 0));
    EXPECT_FALSE(keeper.add(3, 1, 1, 2, tensor("c")));  // begins anew
    EXPECT_TRUE(keeper.add(3, 1, 0, 2, tensor("b")));
}

TEST(StateKeeper, ANewerRecoveryPointFreesTheOlder) {
    StateKeeper keeper;
    keeper.put(3, 0, {tensor("a")});
    keeper.put(5, 0, {tensor("a")});
    keeper.drop_before(5);
    EXPECT_FALSE(keeper.find(3, 0));
    EXPECT_TRUE(keeper.find(5, 0));
}

}  // namespace
}  // namespace ecopipe
