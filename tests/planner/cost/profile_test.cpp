#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/strict_json.h"
#include "planner/cost/cost_model.h"
#include "planner/cost/cost_predictor.h"
#include "planner/cost/model_profile.h"
#include "planner/cost/resolved_profiles.h"
#include "planner/schedule/plan_file.h"
#include "planner/search/partition.h"
#include "tests/planner/data.h"

namespace ecopipe {
namespace {

ModelProfile data_profile(const char* name) {
    auto profile = read_profile(planner_data() + name);
    EXPECT_TRUE(profile) << (profile ? "" : profile.error().message);
    return *profile;
}

Json two_layers() {
    return Json::parse(
        R"({"schema": "ecopipe.profile/1", "model": "m", "device": "hub", "threads": 1, "input": [1, 8, 8],
        "num_classes": 10, "input_bytes_per_sample": 256, "optimizer_slots": 1, "layers": [
        {"name": "0", "parameter_bytes": 100, "output_bytes_per_sample": 10, "stash_bytes_per_sample": 20, "update_ms": 0.1,
         "timing": [{"micro_batch": 2, "forward_ms": 1, "backward_ms": 2}, {"micro_batch": 8, "forward_ms": 4, "backward_ms": 5}]},
        {"name": "1", "parameter_bytes": 0, "output_bytes_per_sample": 10, "stash_bytes_per_sample": 20, "update_ms": 0,
         "timing": [{"micro_batch": 2, "forward_ms": 1, "backward_ms": 2}, {"micro_batch": 8, "forward_ms": 4, "backward_ms": 5}]}]})");
}

// The same two layers as a graph: the first one's value goes to the second and to the loss.
Json graph() {
    Json json = two_layers();
    json["values"] = Json::parse(
        R"([{"producer": -1, "consumers": [0], "bytes_per_sample": 200, "gradient": true},
            {"producer": -1, "consumers": [0, 1], "bytes_per_sample": 56, "gradient": false},
            {"producer": 0, "consumers": [1, 2], "bytes_per_sample": 7},
            {"producer": 1, "consumers": [2], "bytes_per_sample": 3}])");
    return json;
}

// The error after one value, at a JSON pointer, was replaced (null: removed).
Error refusal(const char* pointer, const Json& value) {
    Json json = two_layers();
    json[Json::json_pointer(pointer)] = value;
    const auto result = parse_profile(json.dump(), "p.json");
    return result ? Error{ExitCode::kDone, "accepted"} : result.error();
}

TEST(Profile, ComesBackAsItWasWritten) {
    for (const char* name : {"hub.json", "pi.json", "pi_partial.json"}) {
        const ModelProfile profile = data_profile(name);
        const std::string text = profile_text(profile);
        const auto again = parse_profile(text, "again");
        ASSERT_TRUE(again) << again.error().message;
        EXPECT_EQ(profile_text(*again), text);
    }
    Json joined = two_layers();
    joined["layers"][1]["joined_to_previous"] = true;
    EXPECT_TRUE(parse_profile(joined.dump(), "p")->layers[1].joined_to_previous);
}

TEST(Profile, OfAGraphComesBackWithItsValues) {
    const auto profile = parse_profile(graph().dump(), "p.json");
    ASSERT_TRUE(profile) << profile.error().message;
    ASSERT_TRUE(profile->is_graph());
    const std::string text = profile_text(*profile);
    const auto again = parse_profile(text, "again");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->values, profile->values);
    EXPECT_EQ(profile_text(*again), text);
    const ValueGraph flow = again->flow();
    EXPECT_FALSE(flow.is_chain());
    EXPECT_EQ(flow.values()[1].output, 1);
    EXPECT_FALSE(flow.values()[1].has_gradient);
    EXPECT_EQ(flow.arguments_of(1), (std::vector<int>{1, 2}));
    EXPECT_EQ(flow.arguments_of(2), (std::vector<int>{2, 3}));
    EXPECT_TRUE(parse_profile(two_layers().dump(), "p.json")->flow().is_chain());
    EXPECT_EQ(profile_text(*parse_profile(two_layers().dump(), "p")).find("values"),
              std::string::npos);
}

TEST(Profile, RefusesValuesThatAreNoGraphOfItsLayers) {
    const auto expect = [](const char* pointer, const Json& value, const std::string& place) {
        Json json = graph();
        json[Json::json_pointer(pointer)] = value;
        const auto result = parse_profile(json.dump(), "p.json");
        ASSERT_FALSE(result) << pointer;
        EXPECT_EQ(result.error().message.find("p.json: " + place), 0U)
            << pointer << ": " << result.error().message;
    };
    expect("/values", Json::array(), "values");
    expect("/values", 3, "values");
    expect("/values/0/producer", 0, "values[0].producer");   // there is an input
    expect("/values/2/producer", 1, "values[2].producer");   // a layer without a value
    expect("/values/3/producer", -1, "values[3].producer");  // not in order
    expect("/values/3/producer", 2, "values[3].producer");   // no such layer
    expect("/values/3/producer", -2, "values[3].producer");
    expect("/values/3/producer", 0, "values");                     // the last layer makes nothing
    expect("/values/2/consumers", {0, 2}, "values[2].consumers");  // before it is made
    expect("/values/2/consumers", {2, 1}, "values[2].consumers");  // not ascending
    expect("/values/2/consumers", {1, 1}, "values[2].consumers");
    expect("/values/2/consumers", {1, 3}, "values[2].consumers[1]");  // behind the loss
    expect("/values/2/consumers", Json::array(), "values[2].consumers");
    expect("/values/3/bytes_per_sample", -1, "values[3].bytes_per_sample");
    expect("/values/3/bytes_per_sample", 1e308, "values[3].bytes_per_sample");
    expect("/values/3/gradient", 1, "values[3].gradient");
    expect("/values/3/surprise", 1, "values[3].surprise");
    expect("/partial", true, "values");
    Json longer = graph();
    longer["layers"].push_back(longer["layers"][1]);
    longer["layers"][2]["name"] = "2";
    longer["values"].push_back({{"producer", 2}, {"consumers", {3}}, {"bytes_per_sample", 1}});
    EXPECT_TRUE(parse_profile(longer.dump(), "p.json"));
    Json crowd = graph();
    for (int i = 0; i < 64; ++i) crowd["values"].push_back(crowd["values"][3]);
    EXPECT_EQ(parse_profile(crowd.dump(), "p.json").error().message,
              "p.json: values[67].producer: expected at most 64 values of layer 1");
    crowd["values"].erase(4);
    EXPECT_TRUE(parse_profile(crowd.dump(), "p.json"));
}

// Layers 0 and 1 beside one another, 2 behind 1, 3 joins: with 1 trained, 0 has no backward though
// it stands first, and 2 has one though it is frozen.
TEST(Profile, OfAGraphRunsBackwardWhatComesBehindSomethingTrained) {
    Json json = two_layers();
    json["layers"] = Json::array();
    for (const char* name : {"0", "1", "2", "3"}) {
        Json layer = two_layers()["layers"][0];
        layer["name"] = name;
        json["layers"].push_back(layer);
    }
    json["values"] = Json::parse(
        R"([{"producer": -1, "consumers": [0, 1], "bytes_per_sample": 1},
            {"producer": 0, "consumers": [3], "bytes_per_sample": 2},
            {"producer": 1, "consumers": [2], "bytes_per_sample": 3},
            {"producer": 2, "consumers": [3], "bytes_per_sample": 4},
            {"producer": 3, "consumers": [4], "bytes_per_sample": 5}])");
    ModelProfile profile = *parse_profile(json.dump(), "p.json");
    const ModelProfile open = profile;
    ASSERT_TRUE(profile.train_only({0, 100, 0, 0}));
    for (const std::size_t layer : {0U, 1U, 2U, 3U}) {
        const bool runs = layer != 0;
        EXPECT_EQ(profile.layers[layer].timing[0].backward_ms, runs ? 2 : 0) << layer;
        EXPECT_EQ(profile.layers[layer].stash_bytes_per_sample, runs ? 20 : 0) << layer;
        EXPECT_EQ(profile.layers[layer].update_ms > 0, layer == 1) << layer;
        EXPECT_EQ(profile.layers[layer].timing[0].forward_ms, 1);
        EXPECT_EQ(profile.flow().runs_backward(static_cast<int>(layer)), runs) << layer;
    }
    ModelProfile whole = open;
    ASSERT_TRUE(whole.train_only({100, 100, 100, 100}));
    EXPECT_EQ(profile_text(whole), profile_text(open));
}

// Four equal layers; the first two of a run that trains only the last two.
TEST(Profile, FrozenLayersCostNoBackwardNoGradientAndNoOptimiserMemory) {
    Json json = two_layers();
    json["layers"] = Json::array();
    for (const char* name : {"0", "1", "2", "3"}) {
        Json layer = two_layers()["layers"][0];
        layer["name"] = name;
        json["layers"].push_back(layer);
    }
    auto cluster = parse_cluster(
        "name: c\nportal: a\nportal_address: 10.0.0.1\ndevices:\n  - {name: a, memory_mib: 64, "
        "speed: 1}\n"
        "  - {name: b, memory_mib: 64, speed: 1}\ndefault_link: {mbps: 8, latency_ms: 1}\n",
        "c.yaml");
    ASSERT_TRUE(cluster) << cluster.error().message;
    const auto model_of = [&](const ModelProfile& profile) {
        return CostModel::make(*cluster, *resolve_profiles(*cluster, {profile}), 8, 4).value();
    };
    ModelProfile profile = *parse_profile(json.dump(), "p.json");
    const CostModel open = model_of(profile);
    ASSERT_TRUE(profile.train_only({0, 0, 60, 100}));
    EXPECT_EQ(profile.first_trainable_layer(), 2);
    EXPECT_EQ(profile_text(*parse_profile(profile_text(profile), "again")), profile_text(profile));
    const CostModel frozen = model_of(profile);
    // Cut after the first, the second and the third layer.
    for (const int last : {0, 1, 2}) {
        const std::vector<StageSpan> stages{{0, 0, last, false}, {1, last + 1, 3, false}};
        const Transfer back = frozen.pipeline(stages, Placement::cyclic(2)).backward[0];
        EXPECT_EQ(back.occupy_ms + back.latency_ms > 0, last == 2) << last;
        PipelineCosts again;
        frozen.pipeline_into(stages, again);
        EXPECT_EQ(again.backward[0].occupy_ms, back.occupy_ms);
        EXPECT_EQ(again.backward[0].latency_ms, back.latency_ms);
        EXPECT_GT(open.pipeline(stages, Placement::cyclic(2)).backward[0].occupy_ms, 0);
        EXPECT_EQ(frozen.pipeline(stages, Placement::cyclic(2)).forward[0].occupy_ms,
                  open.pipeline(stages, Placement::cyclic(2)).forward[0].occupy_ms);
    }
    EXPECT_EQ(frozen.stage_cost({0, 0, 1, false}).backward_ms, 0);
    EXPECT_EQ(frozen.stage_cost({0, 0, 1, false}).update_ms, 0);
    EXPECT_EQ(frozen.stage_cost({0, 2, 3, false}).backward_ms,
              open.stage_cost({0, 2, 3, false}).backward_ms);
    // Parameters, and for what is trained a gradient and one slot; nothing kept for backward.
    EXPECT_EQ(open.stage_memory({0, 0, 3, false}).fixed, 400 * 3);
    EXPECT_EQ(frozen.stage_memory({0, 0, 3, false}).fixed, 400 + 160 * 2);
    EXPECT_EQ(frozen.stage_memory({0, 0, 1, false}).in_flight, 0);
    // What was measured frozen tells nothing of the backward of a run that trains it.
    EXPECT_EQ(profile.train_only({100, 0, 60, 100}).error().code, ExitCode::kBadFile);
    EXPECT_TRUE(profile.train_only({0, 0, 60, 100}));
}

// Of a layer with 100 bytes of parameters an optimiser that factors keeps 24.
TEST(Profile, WhatAnOptimiserKeepsMayBeLessThanAParametersSize) {
    ModelProfile profile = *parse_profile(two_layers().dump(), "p.json");
    const std::string measured = profile_text(profile);
    const auto slots = static_cast<std::uint64_t>(profile.optimizer_slots);
    const std::vector<std::uint64_t> as_measured{slots * profile.layers[0].parameter_bytes,
                                                 slots * profile.layers[1].parameter_bytes};
    profile.optimize_with(0, {24, 0});
    EXPECT_EQ(profile.layers[0].optimizer_bytes, 24U);
    EXPECT_EQ(profile.layers[1].optimizer_bytes, std::nullopt);
    const std::string text = profile_text(profile);
    EXPECT_EQ(profile_text(*parse_profile(text, "again")), text);
    const auto cluster = parse_cluster(
        "name: c\nportal: a\nportal_address: 10.0.0.1\ndevices:\n  - {name: a, memory_mib: 64, "
        "speed: 1}\ndefault_link: {mbps: 8, latency_ms: 1}\n",
        "c.yaml");
    const auto moments = [&] {
        return CostModel::make(*cluster, *resolve_profiles(*cluster, {profile}), 8, 4)
            .value()
            .stage_bytes({0, 0, 1, false}, {})
            .moments;
    };
    EXPECT_EQ(moments(), 24);
    ModelProfile half = profile;
    ASSERT_TRUE(half.train_only({profile.layers[0].parameter_bytes / 2, 0}));
    EXPECT_EQ(half.layers[0].optimizer_bytes, 12U);
    profile.optimize_with(static_cast<int>(slots), as_measured);
    EXPECT_EQ(profile_text(profile), measured);
}

TEST(Profile, RefusesWhatIsHostileOrAbsurdWithItsPlace) {
    const auto expect = [](const char* pointer, const Json& value, const std::string& place) {
        const Error error = refusal(pointer, value);
        EXPECT_EQ(error.code, ExitCode::kBadFile) << pointer;
        EXPECT_EQ(error.message.find("p.json: " + place), 0U) << pointer << ": " << error.message;
        EXPECT_EQ(error.message.find('\n'), std::string::npos);
    };
    expect("/layers/0/trainable_parameter_bytes", 101, "layers[0].trainable_parameter_bytes");
    expect("/layers/0/timing/0/forward_ms", -1, "layers[0].timing[0].forward_ms");
    expect("/layers/0/timing/0/forward_ms", 1e308, "layers[0].timing[0].forward_ms");
    expect("/layers/0/timing/0/forward_ms", "NaN", "layers[0].timing[0].forward_ms");
    expect("/layers/0/timing/0/forward_ms", nullptr, "layers[0].timing[0].forward_ms");
    expect("/layers/0/timing/0/micro_batch", 0, "layers[0].timing[0].micro_batch");
    expect("/layers/0/timing/0/micro_batch", 2.5, "layers[0].timing[0].micro_batch");
    expect("/layers/0/timing/1/micro_batch", 2, "layers[0].timing[1].micro_batch");
    expect("/layers/0/timing/1/micro_batch", 1, "layers[0].timing[1].micro_batch");
    expect("/layers/0/timing", Json::array(), "layers[0].timing");
    expect("/layers/0/timing/0/input_gradient_ms", 1, "layers[0].timing[0].weight_gradient_ms");
    expect("/layers/1/parameter_bytes", -4, "layers[1].parameter_bytes");
    expect("/layers/1/parameter_bytes", 18446744073709551615ULL, "layers[1].parameter_bytes");
    expect("/layers/1/stash_bytes_per_sample", 1e308, "layers[1].stash_bytes_per_sample");
    expect("/layers/1/name", "0", "layers[1].name");
    expect("/layers/1/name", "", "layers[1].name");
    expect("/layers/1/surprise", 1, "layers[1].surprise");
    expect("/layers/0/joined_to_previous", true, "layers[0].joined_to_previous");
    expect("/layers", Json::array(), "layers");
    expect("/layers", 3, "layers");
    expect("/optimizer_slots", 1000, "optimizer_slots");
    expect("/process_mib", -1, "process_mib");
    expect("/input", {1, -3}, "input[1]");
    expect("/device", 7, "device");
    expect("/partial", "yes", "partial");
    expect("/schema", 1, "schema");
    expect("/schema", "ecopipe.plan/1", "schema");
}

TEST(Profile, RefusesAnotherVersionAsAMismatch) {
    EXPECT_EQ(refusal("/schema", "ecopipe.profile/2").code, ExitCode::kMismatch);
    EXPECT_EQ(refusal("/schema", "ecopipe.profile/0").code, ExitCode::kMismatch);
}

TEST(Profile, RefusesTextsThatAreNoProfile) {
    for (const std::string& text :
         {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("7"),
          std::string(10 << 20, '['), std::string(10 << 20, '{'),
          std::string("{\"schema\":NaN}")}) {
        const auto result = parse_profile(text, "p.json");
        ASSERT_FALSE(result);
        EXPECT_EQ(result.error().message.find("p.json: "), 0U);
    }
    EXPECT_FALSE(read_profile("/nonexistent/profile.json"));
    EXPECT_FALSE(read_profile("/"));
}

TEST(Profile, TimesAreLinearBetweenMeasuredSizesAndNothingOutside) {
    const ModelProfile profile = *parse_profile(two_layers().dump(), "p");
    const LayerProfile& layer = profile.layers[0];
    EXPECT_FALSE(timing_at(layer, 1));
    EXPECT_DOUBLE_EQ(timing_at(layer, 2)->forward_ms, 1);
    EXPECT_DOUBLE_EQ(timing_at(layer, 4)->forward_ms, 2);
    EXPECT_DOUBLE_EQ(timing_at(layer, 5)->backward_ms, 3.5);
    EXPECT_DOUBLE_EQ(timing_at(layer, 8)->backward_ms, 5);
    EXPECT_FALSE(timing_at(layer, 9));
}

Cluster cluster_of(const char* devices) {
    auto cluster =
        parse_cluster(fmt::format("name: c\nportal: hub\nportal_address: 127.0.0.1\ndevices: {}\n"
                                  "default_link: {{mbps: 100, latency_ms: 1}}\n",
                                  devices),
                      "c.yaml");
    EXPECT_TRUE(cluster) << (cluster ? "" : cluster.error().message);
    return *cluster;
}

TEST(Profile, ASizeOutsideWhatWasMeasuredIsRefusedNamingIt) {
    const ModelProfile profile = *parse_profile(two_layers().dump(), "p.json");
    const Cluster cluster = cluster_of("[{name: hub, memory_mib: 100}]");
    PlanRequest request;
    request.batch = 64;
    request.micro_batches = 4;
    const auto plan = search_plan(cluster, {profile}, request);
    ASSERT_FALSE(plan);
    EXPECT_EQ(plan.error().message,
              "p.json: layer '0': timing: expected micro-batches of 16 samples within those "
              "measured (2 to 8); measure 16 too");
    request.micro_batches = 0;  // auto keeps to what was measured
    const auto chosen = search_plan(cluster, {profile}, request);
    ASSERT_TRUE(chosen) << chosen.error().message;
    EXPECT_EQ(chosen->micro_batches, 8);
}

TEST(Profiles, MustAgreeOnTheModel) {
    const Cluster cluster =
        cluster_of("[{name: hub, memory_mib: 100}, {name: pi, memory_mib: 100}]");
    const ModelProfile hub = *parse_profile(two_layers().dump(), "hub.json");
    const auto problem = [&](auto&& change) {
        Json json = two_layers();
        json["device"] = "pi";
        change(json);
        const auto result =
            resolve_profiles(cluster, {hub, *parse_profile(json.dump(), "pi.json")});
        return result ? std::string("accepted") : result.error().message;
    };
    EXPECT_EQ(problem([](Json&) {}), "accepted");
    EXPECT_EQ(problem([](Json& j) { j["layers"].erase(1); }),
              "pi.json: layers: expected 2 as in hub.json (or \"partial\": true), found 1");
    EXPECT_EQ(problem([](Json& j) { j["model"] = "other"; }),
              "pi.json: model: expected m as in hub.json, found other");
    EXPECT_EQ(problem([](Json& j) { j["layers"][1]["name"] = "x"; }),
              "pi.json: layers[1].name: expected '1' as in hub.json, found 'x'");
    EXPECT_NE(problem([](Json& j) {
                  j["layers"][1]["parameter_bytes"] = 7;
              }).find("pi.json: layers[1].parameter_bytes"),
              std::string::npos);
    EXPECT_EQ(problem([](Json& j) { j["values"] = graph()["values"]; }),
              "pi.json: values: expected those of hub.json, found others");
    EXPECT_NE(problem([](Json& j) { j["optimizer_slots"] = 2; }).find("pi.json: optimizer_slots"),
              std::string::npos);
    EXPECT_NE(problem([](Json& j) {
                  j["device"] = "hub";
              }).find("pi.json: device: expected one profile of 'hub' with threads 1"),
              std::string::npos);
    EXPECT_FALSE(resolve_profiles(cluster, {}));
}

TEST(Profiles, OtherThreadCountsOfADeviceAreForTheSingleDeviceAlone) {
    Json two = two_layers();
    two["threads"] = 2;
    for (auto& layer : two["layers"])
        for (const char* key : {"forward_ms", "backward_ms"})
            layer["timing"][0][key] = layer["timing"][0][key].get<double>() / 1.6;
    const std::vector<ModelProfile> profiles = {*parse_profile(two_layers().dump(), "one.json"),
                                                *parse_profile(two.dump(), "two.json")};
    const char* text = "[{name: hub, memory_mib: 100}, {name: pi, memory_mib: 100, speed: 1}]";
    PlanRequest request;
    request.batch = 4;
    request.micro_batches = 2;
    const auto plan = search_plan(cluster_of(text), profiles, request);
    ASSERT_TRUE(plan) << plan.error().message;
    ASSERT_TRUE(plan->single_device);
    EXPECT_EQ(plan->single_device->device, "hub");
    EXPECT_EQ(plan->single_device->threads, 2);
    const auto one = search_plan(cluster_of(text), {profiles[0]}, request);
    ASSERT_TRUE(one);
    EXPECT_EQ(one->single_device->threads, 1);
    EXPECT_LT(plan->single_device->step_ms, one->single_device->step_ms);
    EXPECT_EQ(plan->predicted->step_ms, one->predicted->step_ms);
    // A device that computes with two threads is planned with what two measured.
    const auto resolved =
        resolve_profiles(cluster_of("[{name: hub, memory_mib: 100, threads: 2}]"), profiles);
    ASSERT_TRUE(resolved);
    EXPECT_EQ(resolved->of_device[0].profile, 1U);
    ASSERT_EQ(resolved->other_threads.size(), 1U);
    EXPECT_EQ(resolved->other_threads[0].profile, 0U);
    EXPECT_EQ(plan_text(*parse_plan(plan_text(*plan), "again")), plan_text(*plan));
}

TEST(Profiles, ADeviceUsesItsOwnElseTheFirstAtItsSpeed) {
    const Cluster cluster = cluster_of(
        "[{name: hub, memory_mib: 100}, {name: pi, memory_mib: 100, speed: 0.5},"
        " {name: old, memory_mib: 100, speed: 0.25}]");
    const ModelProfile hub = *parse_profile(two_layers().dump(), "hub.json");
    Json other = two_layers();
    other["device"] = "pi";
    for (auto& layer : other["layers"]) layer["timing"][0]["forward_ms"] = 7;
    const auto resolved = resolve_profiles(cluster, {hub, *parse_profile(other.dump(), "pi.json")});
    ASSERT_TRUE(resolved);
    const auto model = CostModel::make(cluster, *resolved, 4, 2);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_DOUBLE_EQ(model->stage_cost({0, 0, 1, false}).forward_ms, 2);
    EXPECT_DOUBLE_EQ(model->stage_cost({1, 0, 1, false}).forward_ms,
                     14);  // its own; speed does not matter
    EXPECT_DOUBLE_EQ(model->stage_cost({2, 0, 1, false}).forward_ms, 8);
    EXPECT_DOUBLE_EQ(model->stage_cost({2, 0, 1, false}).update_ms, 0.4);
    EXPECT_DOUBLE_EQ(model->stage_cost({2, 0, 1, true}).backward_ms, 16 + 8);
}

TEST(Predictor, CompletesAPartialProfileBetterThanFlopsAlone) {
    const ModelProfile hub = data_profile("hub.json");
    const ModelProfile truth = data_profile("pi.json");
    const auto completed = complete_profile(data_profile("pi_partial.json"), hub);
    ASSERT_TRUE(completed) << completed.error().message;
    EXPECT_EQ(completed->report.count, 7);
    EXPECT_LT(completed->report.error, 0.5 * completed->report.flops_error);
    EXPECT_LT(completed->report.error, 0.15);
    double error = 0;
    for (std::size_t l = 0; l < truth.layers.size(); ++l) {
        const double predicted = completed->profile.layers[l].timing[3].forward_ms;
        error += std::abs(predicted / truth.layers[l].timing[3].forward_ms - 1) /
                 static_cast<double>(completed->report.count);
    }
    EXPECT_LT(error, 0.15);  // on the layers that were not measured
    fmt::print("leave-one-out {:.3f}, by FLOPs alone {:.3f}, on the unmeasured {:.3f}\n",
               completed->report.error, completed->report.flops_error, error);
}

TEST(Predictor, WorksWithoutFlopsAndRefusesWhatItCannotKnow) {
    ModelProfile hub = data_profile("hub.json");
    ModelProfile partial = data_profile("pi_partial.json");
    for (auto* profile : {&hub, &partial})
        for (LayerProfile& layer : profile->layers) layer.forward_flops_per_sample.reset();
    const auto completed = complete_profile(partial, hub);
    ASSERT_TRUE(completed);
    EXPECT_EQ(completed->report.flops_error, 0);
    EXPECT_LT(completed->report.error, 0.3);
    ModelProfile few = partial;
    few.layers.resize(2);
    EXPECT_NE(
        complete_profile(few, hub).error().message.find("expected at least 3 measured layers"),
        std::string::npos);
    ModelProfile swapped = partial;
    std::swap(swapped.layers[0], swapped.layers[1]);
    EXPECT_NE(complete_profile(swapped, hub).error().message.find("in their order"),
              std::string::npos);
    ModelProfile strange = partial;
    strange.layers[0].name = "nonesuch";
    EXPECT_NE(complete_profile(strange, hub).error().message.find("'nonesuch'"), std::string::npos);
    ModelProfile sizes = partial;
    for (LayerProfile& layer : sizes.layers)
        layer.timing = {{64, 1, 1, std::nullopt, std::nullopt}};
    EXPECT_FALSE(complete_profile(sizes, hub));
    const Cluster cluster = cluster_of("[{name: hub, memory_mib: 100}]");
    EXPECT_NE(
        resolve_profiles(cluster, {partial}).error().message.find("expected a complete profile"),
        std::string::npos);
}

}  // namespace
}  // namespace ecopipe
