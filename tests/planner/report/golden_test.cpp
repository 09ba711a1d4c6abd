// Plans that must not change by accident. After a change that means to: ECOPIPE_UPDATE_GOLDEN=1
// writes them anew.

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/files.h"
#include "planner/report/gantt.h"
#include "planner/report/plan_report.h"
#include "planner/report/what_if.h"
#include "planner/schedule/plan_file.h"
#include "planner/search/partition.h"
#include "planner/simulate/plan_timeline.h"
#include "tests/planner/data.h"

namespace ecopipe {
namespace {

void expect_golden(const std::string& name, const std::string& text) {
    const std::string path = planner_data() + "golden/" + name;
    if (std::getenv("ECOPIPE_UPDATE_GOLDEN") != nullptr) {
        ASSERT_TRUE(write_file_atomically(path, text));
        return;
    }
    const auto golden = read_file(path, 1 << 20);
    ASSERT_TRUE(golden) << golden.error().message;
    EXPECT_EQ(text, *golden) << path;
}

Plan planned(const char* cluster_name, const char* schedule, int micro_batches) {
    const auto cluster = read_cluster(planner_data() + cluster_name);
    EXPECT_TRUE(cluster);
    const auto profiles = read_profiles(*cluster, {planner_data() + "hub.json"});
    EXPECT_TRUE(profiles);
    PlanRequest request;
    request.micro_batches = micro_batches;
    EXPECT_TRUE(use_schedule(request, schedule));
    auto plan = search_plan(*cluster, *profiles, request);
    EXPECT_TRUE(plan) << (plan ? "" : plan.error().message);
    return plan ? *plan : Plan{};
}

TEST(Golden, Plans) {
    expect_golden("home_auto.json", plan_text(planned("home.yaml", "auto", 8)));
    expect_golden("home_1f1b.json", plan_text(planned("home.yaml", "1f1b", 16)));
    expect_golden("home_gpipe.json", plan_text(planned("home.yaml", "gpipe", 16)));
    expect_golden("home_zb_h1.json", plan_text(planned("home.yaml", "zb-h1", 16)));
    expect_golden("home_interleaved.json", plan_text(planned("home.yaml", "interleaved", 16)));
    expect_golden("tight_1f1b.json", plan_text(planned("tight.yaml", "1f1b", 64)));
    expect_golden("home_own.json",
                  plan_text(planned("home.yaml", (planner_data() + "own.csv").c_str(), 0)));
}

TEST(Golden, ReportAndPictures) {
    const auto cluster = read_cluster(planner_data() + "tight.yaml");
    ASSERT_TRUE(cluster);
    const auto profiles = read_profiles(*cluster, {planner_data() + "hub.json"});
    PlanRequest request;
    request.micro_batches = 16;
    request.schedule = "1f1b";
    request.batch = 16;
    auto plan = search_plan(*cluster, *profiles, request);
    ASSERT_TRUE(plan) << plan.error().message;
    const auto rows = what_if_rows(*cluster, *profiles, request, *plan);
    ASSERT_TRUE(rows);
    plan->what_if = *rows;
    const auto played = play_plan(*cluster, *profiles, *plan, "plan");
    ASSERT_TRUE(played);
    expect_golden("tight_report.txt", plan_report(*plan, *played, {}));
    expect_golden("tight.svg", gantt_svg({{"tight", &played->costs, &played->timeline}}));
    expect_golden("tight_trace.json", chrome_trace(played->costs, played->timeline));
}

}  // namespace
}  // namespace ecopipe
