#include "orchestrator/view/run_view.h"

#include <gtest/gtest.h>

#include "orchestrator/view/live_table.h"
#include "orchestrator/view/view_document.h"

namespace ecopipe {
namespace {

Plan plan_of(const std::vector<StagePlan>& stages) {
    Plan plan;
    plan.schedule = "1f1b";
    plan.stages = stages;
    return plan;
}

StagePlan stage(const std::string& device, int first, int last) {
    StagePlan out;
    out.device = device;
    out.first_layer = first;
    out.last_layer = last;
    return out;
}

OrderedJson step_line(std::uint64_t step, double loss) {
    return {{"step", step},
            {"loss", loss},
            {"step_ms", 10.0},
            {"samples_per_s", 640.0},
            {"stages",
             {{{"device", "hub"},
               {"busy_ms", 8.0},
               {"wait_ms", 2.0},
               {"peak_bytes", 3U << 20},
               {"sent_bytes", 12500}},
              {{"device", "pi"},
               {"busy_ms", 5.0},
               {"wait_ms", 5.0},
               {"peak_bytes", 1U << 20},
               {"sent_bytes", 0}}}}};
}

class View : public testing::Test {
  protected:
    void SetUp() override {
        view_.begin("lenet5 on fashion-mnist");
        view_.expect_device("hub", 1024);
        view_.expect_device("pi", 512);
        view_.set_link("hub", "pi", 100, 0.5);
        view_.device_joined("hub", 999);
        view_.device_joined("pi", 999);
        view_.plan_in_force(plan_of({stage("hub", 0, 3), stage("pi", 4, 9), stage("hub", 10, 11)}),
                            "");
    }
    std::int64_t now_ms_ = 1000;
    RunView view_{[this] { return now_ms_; }};
};

TEST_F(View, ADeviceHasItsLayersItsShareAndItsRate) {
    now_ms_ = 5000;
    view_.metrics_line(step_line(1, 2.5));
    view_.progress(1, 100, 0.1, 640);
    const RunSnapshot run = view_.snapshot();
    EXPECT_EQ(run.state, RunState::kRunning);
    EXPECT_EQ(run.step_unix_ms, 5000);
    ASSERT_EQ(run.devices.size(), 2U);
    EXPECT_EQ(run.devices[0].layers, "0-3, 10-11");
    EXPECT_EQ(run.devices[0].budget_mib, 1024) << "the cluster file's, not what it reported";
    EXPECT_DOUBLE_EQ(run.devices[0].busy, 0.8);
    EXPECT_DOUBLE_EQ(run.devices[0].used_mib, 3);
    EXPECT_DOUBLE_EQ(run.devices[0].sent_mbps, 10);
    EXPECT_EQ(run.devices[1].state, "working");
    ASSERT_EQ(run.stages.size(), 3U);
    EXPECT_EQ(run.stages[0].mbps, 100);
    EXPECT_EQ(run.stages[2].mbps, 0) << "nothing comes after the last";
}

TEST_F(View, AFailureIsSeenBeforeTheNextStep) {
    const std::uint64_t before = view_.revision();
    view_.device_gone("pi", "its process was killed by signal 9");
    view_.failed("device pi (stage 1): gone");
    EXPECT_GT(view_.revision(), before);
    RunSnapshot run = view_.snapshot();
    EXPECT_EQ(run.state, RunState::kRecovering);
    EXPECT_EQ(run.devices[1].state, "lost");
    EXPECT_EQ(run.events.back().kind, "failure");
    view_.plan_in_force(plan_of({stage("hub", 0, 11)}), "pi is gone");
    run = view_.snapshot();
    EXPECT_EQ(run.state, RunState::kRunning);
    EXPECT_EQ(run.devices[0].layers, "0-11");
    EXPECT_EQ(run.devices[1].layers, "");
    EXPECT_EQ(run.devices[1].state, "lost");
    OrderedJson line = step_line(2, 2);
    line["event"] = {{{"kind", "lost"},
                      {"cause", "pi is gone"},
                      {"pause_ms", 512.0},
                      {"bytes_moved", 1 << 20},
                      {"replayed_from_step", 2}}};
    view_.metrics_line(line);
    EXPECT_EQ(view_.snapshot().events.back().text,
              "pi is gone: 512 ms pause, 1.0 MiB moved, on from step 2");
    view_.device_joined("pi", 1);
    view_.plan_in_force(plan_of({stage("hub", 0, 11)}), "pi joined");
    EXPECT_EQ(view_.snapshot().devices[1].state, "spare");
}

TEST_F(View, TheTimelineIsOnThePortalsClockAndBounded) {
    DeviceReport hub;
    hub.device = "hub";
    hub.clock_offset_ns = 1'000'000;
    hub.actions = {{'F', 0, 0, 5'000'000, 6'000'000}};
    DeviceReport pi;
    pi.device = "pi";
    pi.clock_offset_ns = -2'000'000;
    pi.actions = {{'B', 0, 0, 10'000'000, 13'000'000}};
    for (std::uint64_t step = 1; step <= 9; ++step) view_.trace(step, {hub, pi});
    RunSnapshot run = view_.snapshot();
    ASSERT_EQ(run.timeline.size(), RunView::kTimelineStepsMax);
    EXPECT_EQ(run.timeline.back().step, 9U);
    EXPECT_DOUBLE_EQ(run.timeline.back().lanes[0].second[0].start_ms, 0);
    EXPECT_DOUBLE_EQ(run.timeline.back().lanes[1].second[0].start_ms, 2);
    EXPECT_DOUBLE_EQ(run.timeline.back().length_ms, 5);
    hub.actions.assign(RunView::kTimelineActionsMax - 1, hub.actions.front());
    for (std::uint64_t step = 10; step <= 12; ++step) view_.trace(step, {hub, pi});
    EXPECT_EQ(view_.snapshot().timeline.size(), 1U);
}

TEST_F(View, AHundredThousandStepsStaySmall) {
    for (std::uint64_t step = 1; step <= 100000; ++step)
        view_.metrics_line(step_line(step, 1.0 / static_cast<double>(step)));
    for (int i = 0; i < 1000; ++i)
        view_.metrics_line({{"epoch", i}, {"split", "test"}, {"loss", 1.5}, {"accuracy", 0.5}});
    const RunSnapshot run = view_.snapshot();
    EXPECT_EQ(run.step, 100000U);
    EXPECT_LE(run.curves.at("loss").at("train").buckets().size(), 1000U);
    EXPECT_LE(run.events.size(), RunView::kEventsMax);
    const std::string document = view_document(run, 1).dump();
    EXPECT_LT(document.size(), 300U << 10);
    EXPECT_EQ(OrderedJson::parse(document)["curves"].size(), 2U);
}

TEST_F(View, StrangeLinesAreBoundedToo) {
    view_.metrics_line(OrderedJson::parse("[1]"));
    view_.metrics_line({{"step", "x"}, {"stages", {1, {{"device", 3}}}}});
    view_.metrics_line({{"step", -5}, {"loss", nullptr}, {"event", {{"kind", 1}}}});
    for (int i = 0; i < 300; ++i)
        view_.metrics_line(
            {{"epoch", 1}, {"split", "s" + std::to_string(i)}, {"k" + std::to_string(i), 1}});
    std::size_t series = 0;
    for (const auto& [name, all] : view_.snapshot().curves) series += all.size();
    EXPECT_LE(series, RunView::kSeriesMax);
}

TEST_F(View, TheSummaryReadsBack) {
    view_.metrics_line(step_line(7, 2.5));
    view_.metrics_line({{"epoch", 1.0}, {"split", "test"}, {"loss", 1.5}, {"accuracy", 0.8125}});
    view_.progress(7, 70, 1, 640);
    const RunSnapshot run = view_.snapshot();
    const OrderedJson summary = view_summary(run, 9000);
    EXPECT_FALSE(summary.contains("curves"));
    const RunSnapshot back = read_summary(OrderedJson::parse(summary.dump()));
    EXPECT_EQ(table_lines(back, 200, 50, 0), table_lines(run, 200, 50, 0));
    EXPECT_EQ(read_summary(OrderedJson::parse(R"({"devices":3,"events":[1],"step":-1})")).step, 0U);
}

TEST_F(View, TheTableFitsItsWindow) {
    view_.metrics_line(step_line(7, 2.5));
    view_.progress(7, 70, 1, 640);
    const RunSnapshot run = view_.snapshot();
    const auto wide = table_lines(run, 120, 40, 0);
    EXPECT_EQ(wide[0],
              "[###...........................] step 7/70  epoch 1.00  loss 2.5000  640 samples/s  "
              "0:00 left");
    EXPECT_EQ(wide[1], "device  layers       busy  waiting    MiB of budget    Mbit/s  state");
    EXPECT_EQ(wide[2], "hub     0-3, 10-11   80 %     20 %      3.0 of 1024      10.0  working");
    EXPECT_EQ(wide.back(), "00:00:01  plan        1f1b: hub 0-3, pi 4-9, hub 10-11");
    for (std::size_t columns : {0U, 1U, 7U, 40U})
        for (std::size_t rows : {0U, 1U, 2U, 3U, 5U}) {
            const auto lines = table_lines(run, columns, rows, 0);
            EXPECT_LE(lines.size(), rows);
            for (const std::string& line : lines) EXPECT_LE(line.size(), columns);
        }
    EXPECT_EQ(cut_to("\xC3\xA4\xC3\xB6x", 2), "\xC3\xA4\xC3\xB6");
}

}  // namespace
}  // namespace ecopipe
