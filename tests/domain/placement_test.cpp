#include "domain/placement.h"

#include <gtest/gtest.h>

#include "domain/plan.h"

namespace ecopipe {
namespace {

// Every stage is a slice of its device, and the device's stages ascend.
void expect_sound(const Placement& place) {
    int stages = 0;
    for (int device = 0; device < place.devices(); ++device)
        for (int slice = 0; slice < place.slices(device); ++slice, ++stages) {
            const int stage = place.stage(device, slice);
            EXPECT_EQ(place.device(stage), device);
            EXPECT_EQ(place.slice(stage), slice);
            EXPECT_TRUE(slice == 0 || stage > place.stage(device, slice - 1));
        }
    EXPECT_EQ(stages, place.stages());
}

TEST(Placement, SaysWhoHasWhat) {
    for (int devices = 1; devices <= 5; ++devices) {
        for (int slices = 1; slices <= 3; ++slices) {
            const Placement turns = Placement::cyclic(devices, slices);
            expect_sound(turns);
            std::vector<int> order;
            for (int stage = 0; stage < turns.stages(); ++stage) order.push_back(stage % devices);
            EXPECT_EQ(Placement::of(order), turns);
        }
        const Placement folded = Placement::folded(devices);
        expect_sound(folded);
        EXPECT_EQ(folded.device(0), folded.device(folded.stages() - 1));
        EXPECT_EQ(folded.is_cyclic(), devices == 1);
    }
    EXPECT_TRUE(Placement::cyclic(3).one_each());
    const Placement any = Placement::of({7, 7, 2, 7});
    expect_sound(any);
    EXPECT_EQ(any.slices(0), 3);
    EXPECT_EQ(any.stage(1, 0), 2);
}

TEST(Placement, OfAPlanGoesByItsDevices) {
    Plan plan;
    for (const char* device : {"hub", "pi", "pi", "hub"}) {
        StagePlan stage;
        stage.device = device;
        plan.stages.push_back(stage);
    }
    EXPECT_EQ(placement_of(plan), Placement::folded(2));
    // Each holder is one by itself.
    plan.stages.resize(2);
    plan.sum_blocks = 2;
    plan.stages[0].blocks = {0};
    StageHolder twin;
    twin.device = "laptop";
    twin.blocks = {1};
    plan.stages[0].twins = {twin};
    EXPECT_EQ(placement_of(plan), Placement::cyclic(3));
}

}  // namespace
}  // namespace ecopipe
