#include "core/control_groups.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "core/files.h"
#include "tests/support/process.h"

namespace ecopipe {
namespace {

class ControlGroups : public testing::Test {
  protected:
    void put(const std::string& file, const std::string& text) {
        const std::filesystem::path path = directory_ / file;
        std::filesystem::create_directories(path.parent_path());
        ASSERT_TRUE(write_file_atomically(path, text));
    }
    test::TemporaryDirectory directory_;
    const ControlGroupPlaces places_{directory_ / "own", directory_ / "groups",
                                     directory_ / "pressure"};
};

TEST_F(ControlGroups, WithoutAnyThereIsNoLimit) {
    EXPECT_EQ(free_in_control_groups(places_), UINT64_MAX);
    EXPECT_EQ(memory_pressure(places_), 0);
}

TEST_F(ControlGroups, TheTightestOfThoseAroundCounts) {
    put("own", "1:cpu:/elsewhere\n0::/user/job\n");
    put("groups/user/memory.max", "1000000\n");
    put("groups/user/memory.current", "700000\n");
    put("groups/user/memory.stat", "anon 500000\ninactive_file 100000\nactive_file 50000\n");
    put("groups/user/job/memory.max", "max\n");
    put("groups/user/job/memory.current", "600000\n");
    EXPECT_EQ(free_in_control_groups(places_), 400000U);  // unused page cache is free
    put("groups/user/job/memory.max", "650000\n");
    EXPECT_EQ(free_in_control_groups(places_), 50000U);
    put("groups/user/job/memory.max", "100\n");
    EXPECT_EQ(free_in_control_groups(places_), 0U);
}

// A container's own view: its group is the root.
TEST_F(ControlGroups, TheRootMayHaveALimit) {
    put("own", "0::/\n");
    put("groups/memory.max", "5000\n");
    put("groups/memory.current", "1000\n");
    EXPECT_EQ(free_in_control_groups(places_), 4000U);
}

TEST_F(ControlGroups, VersionOneHasOtherNames) {
    put("own", "8:pids:/\n4:memory:/job\n0::/\n");
    put("groups/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("groups/memory/memory.usage_in_bytes", "123\n");
    put("groups/memory/job/memory.limit_in_bytes", "9000\n");
    put("groups/memory/job/memory.usage_in_bytes", "8000\n");
    put("groups/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 500\n");
    EXPECT_EQ(free_in_control_groups(places_), 1500U);
}

TEST_F(ControlGroups, PressureIsTheGroupsElseTheMachines) {
    put("own", "0::/job\n");
    put("pressure", "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0 total=0\n");
    EXPECT_DOUBLE_EQ(memory_pressure(places_), 12.5);
    put("groups/job/memory.pressure", "some avg10=0.25 avg60=0.00 avg300=0.00 total=1\n");
    EXPECT_DOUBLE_EQ(memory_pressure(places_), 0.25);
    put("groups/job/memory.pressure", "nothing of the kind");
    EXPECT_DOUBLE_EQ(memory_pressure(places_), 12.5);
}

}  // namespace
}  // namespace ecopipe
