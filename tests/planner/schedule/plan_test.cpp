#include "domain/plan.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "core/strict_json.h"
#include "domain/plan_index.h"
#include "planner/schedule/plan_file.h"
#include "planner/schedule/registry.h"
#include "planner/schedule/schedule_check.h"
#include "planner/search/partition.h"

namespace ecopipe {
namespace {

Json small() {
    return Json::parse(
        R"({"schema": "ecopipe.plan/1", "model": "m", "batch": 64, "micro_batches": 8, "schedule": "1f1b",
        "stages": [{"device": "hub", "first_layer": 0, "last_layer": 6, "in_flight": 3, "recompute": false},
                   {"device": "pi", "first_layer": 7, "last_layer": 9, "in_flight": 1, "recompute": true}]})");
}

std::string refusal(const std::function<void(Json&)>& change) {
    Json json = small();
    change(json);
    const auto plan = parse_plan(json.dump(), "plan.json");
    return plan ? "accepted" : plan.error().message;
}

TEST(Plan, AHandWrittenOneNeedsNoPrediction) {
    const auto plan = parse_plan(small().dump(), "plan.json");
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_FALSE(plan->predicted);
    EXPECT_EQ(PlanIndex(*plan).devices(), (std::vector<std::string>{"hub", "pi"}));
    EXPECT_EQ(plan_text(*parse_plan(plan_text(*plan), "again")), plan_text(*plan));
}

TEST(Plan, SomeOfAStagesLayersMayBeRecomputed) {
    const auto with = [](Json layers, bool recompute = true) {
        Json json = small();
        json["stages"][0]["recompute"] = recompute;
        json["stages"][0]["recompute_layers"] = std::move(layers);
        return json;
    };
    const auto segment = [](int first, int last) {
        return Json{{"first_layer", first}, {"last_layer", last}};
    };
    const auto refused = [](const Json& json) {
        const auto plan = parse_plan(json.dump(), "plan.json");
        return plan ? "accepted" : plan.error().message;
    };
    const auto plan = parse_plan(with({segment(0, 0), segment(1, 3), segment(5, 6)}).dump(), "p");
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_EQ(plan->stages[0].recomputed, (Segments{{0, 0}, {1, 3}, {5, 6}}));
    EXPECT_EQ(plan->stages[1].recomputed, (Segments{{7, 9}}));
    EXPECT_EQ(plan_text(*parse_plan(plan_text(*plan), "again")), plan_text(*plan));
    EXPECT_EQ(stage_lines(*plan).front(),
              "stage on hub: layers 0..6, 3 in flight, recomputing 0..0 1..3 5..6");
    EXPECT_EQ(stage_lines(*plan).back(), "stage on pi: layers 7..9, 1 in flight, recomputing");
    // All of them is what `recompute` alone says.
    const auto whole = parse_plan(with({segment(0, 6)}).dump(), "p");
    EXPECT_EQ(plan_text(*whole).find("recompute_layers"), std::string::npos);
    EXPECT_EQ(refused(with({segment(0, 3)}, false)),
              "plan.json: stages[0].recompute: expected true beside recompute_layers, found false");
    EXPECT_EQ(refused(with(Json::array())),
              "plan.json: stages[0].recompute_layers: expected some, found none");
    EXPECT_EQ(refused(with({segment(0, 3), segment(3, 4)})),
              "plan.json: stages[0].recompute_layers[1].first_layer: expected an integer from 4 "
              "to 6, found 3");
    EXPECT_EQ(refused(with({segment(2, 7)})),
              "plan.json: stages[0].recompute_layers[0].last_layer: expected an integer from 2 "
              "to 6, found 7");
    Json split = with({segment(0, 3)});
    split["schedule"] = "zb-h1";
    split["stages"][1]["recompute"] = false;
    EXPECT_EQ(refused(split),
              "plan.json: stages[0].recompute: expected false under zb-h1, found true");
}

TEST(Plan, OneThatNamesNoSingleDeviceIsWrittenAsItWasRead) {
    Json json = small();
    json["alternatives"] = {{"single_device_ms", 5420.5}};
    const auto plan = parse_plan(json.dump(), "plan.json");
    ASSERT_TRUE(plan) << plan.error().message;
    const auto again = parse_plan(plan_text(*plan), "again");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(plan_text(*again), plan_text(*plan));
    EXPECT_EQ(again->single_device->step_ms, 5420.5);
}

TEST(Plan, RefusesWhatWouldNotRunNamingThePlace) {
    EXPECT_EQ(refusal([](Json&) {}), "accepted");
    EXPECT_EQ(refusal([](Json& j) { j["stages"][1]["in_flight"] = 4; }),
              "plan.json: stages[1].in_flight: expected at most 3 (that of stage 0, hub), or the "
              "pipeline deadlocks; found 4 "
              "(stage 1, pi)");
    EXPECT_EQ(
        refusal([](Json& j) { j["stages"][0]["in_flight"] = 9, j["stages"][1]["in_flight"] = 12; }),
        "accepted");  // min(K, M)
    EXPECT_EQ(refusal([](Json& j) { j["stages"][1]["first_layer"] = 8; }),
              "plan.json: stages[1].first_layer: expected 7, found 8");
    EXPECT_EQ(refusal([](Json& j) { j["stages"][0]["first_layer"] = 1; }),
              "plan.json: stages[0].first_layer: expected 0, found 1");
    EXPECT_EQ(refusal([](Json& j) { j["stages"][1]["last_layer"] = 6; }),
              "plan.json: stages[1].last_layer: expected at least first_layer (7), found 6");
    EXPECT_EQ(
        refusal([](Json& j) { j["stages"][1]["device"] = "hub"; }),
        "plan.json: stages: expected a device of its own for every stage, found a device again");
    EXPECT_EQ(refusal([](Json& j) { j["schedule"] = "fast"; }),
              "plan.json: schedule: expected gpipe, 1f1b, interleaved, zb-h1, v-half or v-min (or "
              "actions in the "
              "stages), found 'fast'");
    EXPECT_EQ(refusal([](Json& j) { j["schedule"] = "zb-h1"; }),
              "plan.json: stages[1].recompute: expected false under zb-h1, found true");
    EXPECT_EQ(
        refusal([](Json& j) { j["stages"][0]["codec_forward"] = "int4"; }),
        "plan.json: stages[0].codec_forward: expected fp32, fp16, bf16 or int8, found 'int4'");
    EXPECT_EQ(refusal([](Json& j) { j["stages"] = Json::array(); }),
              "plan.json: stages: expected at least one stage, found none");
    for (const Json& bad : {Json(0), Json(-1), Json(1e308), Json("8"), Json(nullptr), Json(2.5)})
        for (const char* key : {"micro_batches", "batch"})
            EXPECT_EQ(
                refusal([&](Json& j) { j[key] = bad; }).find(std::string("plan.json: ") + key), 0U);
    EXPECT_NE(refusal([](Json& j) { j["predicted"] = {{"step_ms", -1}}; }), "accepted");
    EXPECT_NE(refusal([](Json& j) { j["surprise"] = 1; }), "accepted");
    EXPECT_FALSE(parse_plan(std::string(10 << 20, '['), "plan.json"));
    Json newer = small();
    newer["schema"] = "ecopipe.plan/2";
    EXPECT_EQ(parse_plan(newer.dump(), "p").error().code, ExitCode::kMismatch);
}

// hub and nas hold layers 0 to 6 together, pi and pc the rest.
Json shared() {
    Json json = small();
    json["sum_blocks"] = 4;
    json["stages"][0]["in_flight"] = 4;
    json["stages"][0]["blocks"] = {0, 1, 2};
    json["stages"][0]["twins"] = {{{"device", "nas"}, {"blocks", {3}}, {"in_flight", 2}}};
    json["stages"][1]["blocks"] = {0, 2};
    json["stages"][1]["twins"] = {
        {{"device", "pc"}, {"blocks", {3, 1}}, {"in_flight", 1}, {"peak_bytes", 7}}};
    return json;
}

std::string refusal_of_shared(const std::function<void(Json&)>& change) {
    Json json = shared();
    change(json);
    const auto plan = parse_plan(json.dump(), "plan.json");
    return plan ? "accepted" : plan.error().message;
}

TEST(Plan, SeveralDevicesHoldAStageEachWithItsBlocks) {
    const auto plan = parse_plan(shared().dump(), "plan.json");
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_EQ(plan_text(*parse_plan(plan_text(*plan), "again")), plan_text(*plan));
    EXPECT_EQ(plan->stages[1].twins[0].blocks, (std::vector<int>{1, 3}));
    EXPECT_EQ(predicted_peak_bytes(*plan, "pc"), 7U);
    const PlanIndex index(*plan);
    EXPECT_EQ(index.devices(), (std::vector<std::string>{"hub", "nas", "pi", "pc"}));
    EXPECT_EQ(index.owner_of(StageId{0}, 3), "nas");
    EXPECT_EQ(index.owner_of(StageId{0}, 4), "hub");
    EXPECT_EQ(index.owner_of(StageId{1}, 5), "pc");
    EXPECT_EQ(index.neighbours_of("hub"), (std::vector<std::string>{"nas", "pi", "pc"}));
    EXPECT_EQ(index.input_devices(7), std::vector<std::string>{"nas"});
    EXPECT_EQ(index.label_device(7), "pc");
    const std::vector<std::string> lines = stage_lines(*plan);
    ASSERT_EQ(lines.size(), 4U);
    EXPECT_EQ(lines[0], "stage on hub: layers 0..6, 4 in flight, sum blocks 0 1 2 of 4");
    EXPECT_EQ(lines[3], "stage on pc: layers 7..9, 1 in flight, sum blocks 1 3 of 4");
    for (int micro_batches = 1; micro_batches <= 8; ++micro_batches) {
        const auto lists = plan_actions(*plan, micro_batches);
        ASSERT_TRUE(lists) << lists.error().message;
        ASSERT_EQ(lists->size(), 4U);
        for (std::size_t d = 0; d < 4; ++d) {
            std::vector<int> forwards;
            for (const Action& action : (*lists)[d])
                if (action.kind == ActionKind::kForward) forwards.push_back(action.micro_batch);
            std::vector<int> own;
            for (int m = 0; m < micro_batches; ++m)
                if (index.owner_of(StageId{d < 2 ? 0U : 1U}, static_cast<std::uint32_t>(m)) ==
                    index.devices()[d])
                    own.push_back(m);
            EXPECT_EQ(forwards, own) << micro_batches << " of " << index.devices()[d];
        }
    }
}

TEST(Plan, RefusesHoldersThatWouldLeaveAMicroBatchOutOrHaveItTwice) {
    EXPECT_EQ(refusal_of_shared([](Json&) {}), "accepted");
    EXPECT_EQ(refusal_of_shared([](Json& j) { j["stages"][0]["twins"][0]["blocks"] = {2}; }),
              "plan.json: stages[0]: expected one device for sum block 2, found 2");
    EXPECT_EQ(refusal_of_shared([](Json& j) { j["stages"][0]["blocks"] = {0, 1}; }),
              "plan.json: stages[0]: expected one device for sum block 2, found 0");
    EXPECT_EQ(refusal_of_shared([](Json& j) { j["stages"][0]["twins"][0]["blocks"] = {3, 3}; }),
              "plan.json: stages[0]: expected one device for sum block 3, found 2");
    EXPECT_EQ(refusal_of_shared([](Json& j) { j["stages"][0]["twins"][0]["blocks"] = {4}; }),
              "plan.json: stages[0]: expected sum blocks below 4, found 4 of nas");
    EXPECT_EQ(
        refusal_of_shared([](Json& j) { j["stages"][0]["twins"][0]["blocks"] = Json::array(); }),
        "plan.json: stages[0]: expected a sum block for nas, found none");
    EXPECT_EQ(refusal_of_shared([](Json& j) { j["stages"][1]["twins"][0]["device"] = "hub"; }),
              "plan.json: stages[1]: expected every device once where stages have twins, found hub "
              "again");
    EXPECT_EQ(refusal_of_shared([](Json& j) { j["stages"][0].erase("blocks"); }),
              "plan.json: stages[0]: expected one device for sum block 3, found 2");
    EXPECT_EQ(refusal_of_shared([](Json& j) { j["sum_blocks"] = 3; }),
              "plan.json: sum_blocks: expected a power of two, at most micro_batches (8), found 3");
    EXPECT_EQ(refusal_of_shared([](Json& j) { j["micro_batches"] = 2; }),
              "plan.json: sum_blocks: expected a power of two, at most micro_batches (2), found 4");
    EXPECT_EQ(refusal_of_shared([](Json& j) { j["schedule"] = "interleaved"; }),
              "plan.json: schedule: expected a named one without slices where stages have twins, "
              "found 'interleaved'");
    EXPECT_EQ(refusal_of_shared([](Json& j) { j["schedule"] = "zb-h1"; }),
              "plan.json: stages[1].recompute: expected false under zb-h1, found true");
    // pi waits for the second that nas does, after the backward of its first, which pc keeps from
    // it.
    EXPECT_EQ(refusal_of_shared([](Json& j) {
                  j["stages"][1]["twins"][0]["in_flight"] = 4;
                  j["stages"][0]["twins"][0]["in_flight"] = 1;
              }),
              "plan.json: stages[0]: B1 of hub: expected an order in which every action can run, "
              "found a deadlock: in_flight of an earlier stage is too small");
}

TEST(Plan, InterleavedRepeatsDevicesInOneCyclicOrder) {
    const auto stages = [](std::initializer_list<const char*> devices) {
        Json out = Json::array();
        int layer = 0;
        for (const char* device : devices)
            out.push_back({{"device", device},
                           {"first_layer", layer},
                           {"last_layer", layer++},
                           {"in_flight", 2}});
        return out;
    };
    const auto with = [&](std::initializer_list<const char*> devices) {
        return refusal(
            [&](Json& j) { j["schedule"] = "interleaved", j["stages"] = stages(devices); });
    };
    EXPECT_EQ(with({"a", "b", "a", "b"}), "accepted");
    EXPECT_NE(with({"a", "b", "b", "a"}), "accepted");
    EXPECT_NE(with({"a", "b", "a"}), "accepted");
}

TEST(Plan, OwnActionsAreChecked) {
    const auto with = [](const char* first, const char* second) {
        return refusal([&](Json& j) {
            j["micro_batches"] = 2;
            j["schedule"] = "mine";
            j["stages"][0]["actions"] = first;
            if (second != nullptr) j["stages"][1]["actions"] = second;
        });
    };
    EXPECT_EQ(with("F0,F1,B0,B1", "F0,B0,F1,B1"), "accepted");
    EXPECT_EQ(with("F0,F1,B0,B1", nullptr),
              "plan.json: stages[1].actions: expected actions in every device's first stage or in "
              "none, found none");
    EXPECT_EQ(with("F0,F0,B0,B1", "F0,B0,F1,B1"),
              "plan.json: stages[0].actions: F0: expected once, found again");
    EXPECT_EQ(with("F0,F1,B0,B1", "F0,B0"),
              "plan.json: stages[1].actions: expected a forward and a backward of each of 2 "
              "micro-batches and 1 slices, found 2 "
              "actions");
    EXPECT_EQ(with("F0,B0,F1,B1", "F0,F1,B0,B1"),
              "plan.json: stages[0].actions: B0: expected an order in which every action can run, "
              "found a deadlock");
    EXPECT_EQ(with("F0,B0,F1,X1", "F0,B0,F1,B1")
                  .find("plan.json: stages[0].actions: action 4: expected F, B, I or W"),
              0U);
    EXPECT_EQ(with("F0,B0", "F0,B0"),
              "plan.json: stages[0].actions: expected actions of 2 micro-batches, found 1");
    EXPECT_EQ(with("F0,F1,B0,B1", "F0,I0,W0,F1,I1,W1"),
              "plan.json: stages[1].recompute: expected false with input and weight gradients "
              "apart, found true");
}

TEST(Plan, AShortLastBatchIsDrawnUpAnewOrLosesItsMissingActions) {
    Plan plan = *parse_plan(small().dump(), "plan.json");
    const auto whole = plan_actions(plan, 8);
    const auto brief = plan_actions(plan, 2);
    ASSERT_TRUE(whole && brief);
    EXPECT_EQ((*whole)[0], one_f_one_b_actions(8, 3));
    EXPECT_EQ(actions_csv((*brief)[0]), "F0,F1,B0,B1");
    EXPECT_EQ(actions_csv((*brief)[1]), "F0,B0,F1,B1");
    plan.micro_batches = 3;
    plan.stages[0].actions = "F0,F1,F2,B2,B0,B1";
    plan.stages[1].actions = "F0,F2,B2,F1,B0,B1";
    const auto own = plan_actions(plan, 2);
    ASSERT_TRUE(own) << own.error().message;
    EXPECT_EQ(actions_csv((*own)[0]), "F0,F1,B0,B1");
    EXPECT_EQ(actions_csv((*own)[1]), "F0,F1,B0,B1");
    EXPECT_FALSE(plan_actions(plan, 0));
    EXPECT_FALSE(plan_actions(plan, 4));
}

TEST(Plan, MicroBatchSizesDifferByAtMostOneLargerFirst) {
    EXPECT_EQ(micro_batch_sizes(10, 4), (std::vector<int>{3, 3, 2, 2}));
    EXPECT_EQ(micro_batch_sizes(3, 8), (std::vector<int>{1, 1, 1}));
    EXPECT_TRUE(micro_batch_sizes(0, 8).empty());
    for (int n = 1; n <= 17; ++n)
        for (int M = 1; M <= 9; ++M) {
            const auto sizes = micro_batch_sizes(n, M);
            int sum = 0;
            for (const int size : sizes) sum += size;
            EXPECT_EQ(sum, n);
            EXPECT_LE(sizes.front() - sizes.back(), 1);
            EXPECT_TRUE(std::is_sorted(sizes.rbegin(), sizes.rend()));
        }
}

TEST(ScheduleText, ComesBackAsItWasPrinted) {
    std::vector<ActionList> lists;
    for (int d = 0; d < 3; ++d) lists.push_back(kInterleaved.actions({7, d, 3, 2}));
    const auto text =
        parse_schedule("# interleaved\n\n" + schedule_csv(lists, Placement::cyclic(3, 2)), "s.csv");
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_EQ(text->devices, lists);
    EXPECT_EQ(text->places.front(), "line 3");
    EXPECT_EQ(parse_schedule(" F0 , B0 \r\n", "s.csv")->devices[0], kGpipe.actions({1}));
}

TEST(ScheduleText, SaysWhereStagesLie) {
    std::vector<ActionList> lists;
    for (int d = 0; d < 3; ++d) lists.push_back(kVHalf.actions({4, d, 3, 2}));
    const std::string csv = schedule_csv(lists, Placement::folded(3));
    EXPECT_EQ(csv.find("# place: 0,1,2,2,1,0\n"), 0U);
    const auto text = parse_schedule(csv, "s.csv");
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_EQ(text->devices, lists);
    EXPECT_EQ(text->placement, Placement::folded(3));
    EXPECT_EQ(check_schedule(*text, "s.csv")->place, Placement::folded(3));
    // The same lists on devices that take turns would wait for one another.
    EXPECT_FALSE(check_schedule(*parse_schedule(csv.substr(csv.find('\n')), "s.csv"), "s.csv"));
    // Any order, and unequal shares: three slices on one, one on the other.
    const auto three =
        parse_schedule("#place:0, 0 ,1,0\nF0,F0.1,F0.2,B0.2,B0.1,B0\nF0,B0\n", "s.csv");
    EXPECT_EQ(check_schedule(*three, "s.csv")->place, Placement::of({0, 0, 1, 0}));
    const auto problem = [](const std::string& place) {
        const auto result = parse_schedule("# place:" + place + "\nF0,B0\n", "s.csv");
        const auto facts = result ? check_schedule(*result, "s.csv")
                                  : fail(result.error().code, result.error().message);
        return facts ? std::string("valid") : facts.error().message;
    };
    EXPECT_EQ(problem("0"), "valid");
    for (const char* place : {"", "1", "0,2", "0,,1", "-1", "0 1", "0x"})
        EXPECT_EQ(problem(place).find("s.csv: line 1: place: expected the device of each of"), 0U)
            << problem(place);
    EXPECT_EQ(problem("0,1"), "s.csv: place: expected 1 devices, as many as have actions, found 2");
    EXPECT_NE(problem("0,0").find("expected a forward and a backward of each of 1 micro-batches"),
              std::string::npos)
        << problem("0,0");
}

TEST(ScheduleText, RefusesMalformedLines) {
    for (const char* text : {"F0,B0,", ",F0", "F0 B0", "F-1", "F+1", "F", "f0", "F0.", "F0.x",
                             "F0.64", "F99999", "F0x", "F1e3", "F0,,B0", "G0", "F0;B0", "\xff"}) {
        const auto result = parse_schedule(std::string("F0,B0\n") + text + "\n", "s.csv");
        ASSERT_FALSE(result) << text;
        EXPECT_EQ(result.error().message.find("s.csv: line 2: action "), 0U)
            << result.error().message;
    }
    for (const char* text : {"", "\n\n", "# nothing\n"})
        EXPECT_FALSE(parse_schedule(text, "s.csv"));
}

TEST(ScheduleCheck, FindsHolesDuplicatesWrongOrderAndDeadlock) {
    const auto problem = [](const char* csv) {
        const auto text = parse_schedule(csv, "s.csv");
        const auto facts = check_schedule(*text, "s.csv");
        return facts ? std::string("valid") : facts.error().message;
    };
    EXPECT_EQ(problem("F0,F1,B0,B1\nF0,B0,F1,B1\n"), "valid");
    EXPECT_EQ(problem("F0,F1,B0,B1\nF0,B0,F1,F1\n"),
              "s.csv: line 2: F1: expected once, found again");
    EXPECT_EQ(problem("F0,B0,B1,F1\nF0,B0,F1,B1\n"),
              "s.csv: line 1: B1: expected after its forward, found before it");
    EXPECT_EQ(problem("F0,W0,I0\n"),
              "s.csv: line 1: W0: expected after its input gradient, found before it");
    EXPECT_EQ(problem("F0,B0,I0,W0\n"), "s.csv: line 1: I0: expected B, or I and W, found both");
    EXPECT_EQ(problem("F0,I0,F1,B1\n"), "s.csv: line 1: expected W0, found nothing");
    EXPECT_EQ(problem("F0,F2,B0,B2,F3,B3\n"),
              "s.csv: line 1: expected a forward and a backward of each of 4 micro-batches and 1 "
              "slices, found 6 actions");
    EXPECT_EQ(problem("F0,F1,B0,B1\nF1,F0,B1,B0\n"), "valid");
    EXPECT_EQ(problem("F0,F1,B1,B0\nF0,B0,F1,B1\n"), "valid");
    EXPECT_EQ(
        problem("F0,B0,F1,B1\nF1,B1,F0,B0\n"),
        "s.csv: line 1: B0: expected an order in which every action can run, found a deadlock");
    EXPECT_EQ(problem("F65535,B65535\n")
                  .find("s.csv: line 1: expected a forward and a backward of each of 65536"),
              0U);
}

TEST(ScheduleCheck, SaysWhatChannelsMustHold) {
    const auto capacity = [](std::vector<ActionList> lists) {
        ScheduleText text{std::move(lists), {}};
        text.places.resize(text.devices.size(), "list");
        return check_schedule(text, "s")->channel_capacity;
    };
    EXPECT_EQ(capacity({one_f_one_b_actions(8, 2), one_f_one_b_actions(8, 1)}), 1);
    EXPECT_EQ(capacity({kGpipe.actions({8}), kGpipe.actions({8})}), 1);
    // Stage 0 sends eight before it takes a gradient; stage 1 gives a gradient after each:
    // something must hold seven.
    EXPECT_GT(capacity({kGpipe.actions({8}), one_f_one_b_actions(8, 1)}), 3);
}

// Random damage to valid schedules is found, or what remains is still valid by the simulator's own
// checks.
TEST(ScheduleCheck, SurvivesRandomDamage) {
    Rng rng(11);
    int refused = 0;
    for (int i = 0; i < 3000; ++i) {
        const int S = 1 + static_cast<int>(rng.below(4));
        const int M = 1 + static_cast<int>(rng.below(6));
        std::vector<ActionList> lists;
        for (int s = 0; s < S; ++s)
            lists.push_back(rng.below(2) == 0 ? kZbH1.actions({M, s, S, 1, std::min(S, M)})
                                              : one_f_one_b_actions(M, S - s));
        std::string csv = schedule_csv(lists, Placement::cyclic(S));
        const auto at = static_cast<std::size_t>(rng.below(csv.size()));
        const std::string alphabet = "FBIW0123456789,.\n# ";
        csv[at] = alphabet[static_cast<std::size_t>(rng.below(alphabet.size()))];
        const auto text = parse_schedule(csv, "s.csv");
        const auto facts = text ? check_schedule(*text, "s.csv")
                                : Result<ScheduleFacts>(fail(ExitCode::kBadFile, ""));
        refused += facts ? 0 : 1;
        if (!facts) continue;
        EXPECT_EQ(facts->place.devices(), static_cast<int>(text->devices.size()));
        EXPECT_GE(facts->channel_capacity, 1);
    }
    EXPECT_GT(refused, 1500);
}

}  // namespace
}  // namespace ecopipe
