// Models and clusters too large to enumerate: the plan against what other planners would do, and
// against a long search.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <numeric>

#include "planner/search/partition.h"
#include "tests/planner/reference.h"

namespace ecopipe {
namespace {

using reference::Instance;
using reference::Stage;

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// Layers of unequal cost, devices of speeds 0.3 to 2, every link different, memory for about a
// quarter of the model.
Instance large_instance(std::uint64_t seed, int layers, int devices, int micro_batches) {
    Rng rng(seed);
    reference::InstanceShape shape;
    shape.layers_min = shape.layers_max = layers;
    shape.devices_min = shape.devices_max = devices;
    shape.micro_batches_min = shape.micro_batches_max = micro_batches;
    shape.memory_low = 0.1;
    shape.memory_high = 0.5;
    Instance out = reference::random_instance(rng, shape);
    for (std::size_t a = 0; a < out.cluster.devices.size(); ++a)
        for (std::size_t b = a + 1; b < out.cluster.devices.size(); ++b)
            out.cluster.links[{a, b}] = {rng.uniform(100, 1000), rng.uniform(0, 0.5), ""};
    return out;
}

double work_ms(const Instance& instance, int device, int first, int last) {
    double out = 0;
    for (int l = first; l <= last; ++l) {
        const LayerTiming& timing = instance.profile.layers[static_cast<std::size_t>(l)].timing[0];
        out += timing.forward_ms + timing.backward_ms;
    }
    return out / instance.cluster.devices[static_cast<std::size_t>(device)].speed;
}

// The step with K = 2(S-s)-1 where memory allows, recomputing where it does not allow even one;
// infinite when it does not fit.
double ruled_step_ms(const Instance& instance, std::vector<Stage> stages) {
    std::vector<int> K;
    int above = instance.micro_batches;
    const int S = static_cast<int>(stages.size());
    for (int s = 0; s < S; ++s) {
        Stage& stage = stages[static_cast<std::size_t>(s)];
        const double budget = reference::budget_bytes(instance, stage.device);
        stage.recomputed.clear();
        if (reference::peak_bytes(instance, stage, 1) > budget)
            stage.recomputed = {{stage.first, stage.last}};
        int k = std::min(above, 2 * (S - s) - 1);
        while (k > 0 && reference::peak_bytes(instance, stage, k) > budget) --k;
        if (k == 0) return kInfinite;
        K.push_back(above = k);
    }
    return reference::step_ms(instance, stages, K, false);
}

std::vector<Stage> even_cut(const Instance& instance, const std::vector<int>& order) {
    std::vector<Stage> out;
    const int layers = static_cast<int>(instance.profile.layers.size());
    const int S = static_cast<int>(order.size());
    for (int s = 0; s < S; ++s)
        out.push_back(
            {order[static_cast<std::size_t>(s)], layers * s / S, layers * (s + 1) / S - 1});
    return out;
}

// min-max DP over all devices of `order`.
std::vector<Stage> min_max_cut(const Instance& instance, const std::vector<int>& order) {
    const int n = static_cast<int>(instance.profile.layers.size());
    const int S = static_cast<int>(order.size());
    const auto at = [&](int s, int j) { return static_cast<std::size_t>(s * (n + 1) + j); };
    std::vector<double> least(static_cast<std::size_t>((S + 1) * (n + 1)), kInfinite);
    std::vector<int> cut(least.size(), 0);
    least[at(0, 0)] = 0;
    for (int s = 1; s <= S; ++s)
        for (int j = s; j <= n; ++j)
            for (int i = s - 1; i < j; ++i) {
                const double largest =
                    std::max(least[at(s - 1, i)],
                             work_ms(instance, order[static_cast<std::size_t>(s - 1)], i, j - 1));
                if (largest < least[at(s, j)]) {
                    least[at(s, j)] = largest;
                    cut[at(s, j)] = i;
                }
            }
    std::vector<Stage> out(static_cast<std::size_t>(S));
    for (int s = S, j = n; s > 0; j = cut[at(s, j)], --s)
        out[static_cast<std::size_t>(s - 1)] = {order[static_cast<std::size_t>(s - 1)],
                                                cut[at(s, j)], j - 1};
    return out;
}

double best_rival_ms(const Instance& instance) {
    std::vector<int> given(instance.cluster.devices.size());
    std::iota(given.begin(), given.end(), 0);
    std::vector<int> by_speed = given;
    std::sort(by_speed.begin(), by_speed.end(), [&](int a, int b) {
        return instance.cluster.devices[static_cast<std::size_t>(a)].speed >
               instance.cluster.devices[static_cast<std::size_t>(b)].speed;
    });
    const int last = static_cast<int>(instance.profile.layers.size()) - 1;
    double best = kInfinite;
    for (const int d : given) best = std::min(best, ruled_step_ms(instance, {{d, 0, last}}));
    for (const auto& order : {given, by_speed}) {
        best = std::min(best, ruled_step_ms(instance, min_max_cut(instance, order)));
        best = std::min(best, ruled_step_ms(instance, even_cut(instance, order)));
    }
    return best;
}

Plan planned(const Instance& instance, double effort) {
    PlanRequest request;
    request.batch = instance.batch;
    request.micro_batches = instance.micro_batches;
    request.schedule = "1f1b";
    request.effort = effort;
    auto plan = search_plan(instance.cluster, {instance.profile}, request);
    EXPECT_TRUE(plan) << (plan ? "" : plan.error().message);
    return plan ? *plan : Plan{};
}

// ECOPIPE_FULL=1: all 20 instances against a search of `ECOPIPE_LONG` times the effort (default
// 10).
void compare(int layers, int devices, int micro_batches) {
    const bool full = std::getenv("ECOPIPE_FULL") != nullptr;
    const char* given_effort = std::getenv("ECOPIPE_LONG");
    const double long_effort = given_effort != nullptr ? std::atof(given_effort) : 10;
    double slowest_s = 0;
    double worst = 0;
    for (std::uint64_t seed = 0; seed < (full ? 20U : 2U); ++seed) {
        const Instance instance = large_instance(seed + 100, layers, devices, micro_batches);
        const std::clock_t begin =
            std::clock();  // of this process: what else the machine does is not the planner's
        const Plan plan = planned(instance, full ? 1 : 0.2);
        const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
        ASSERT_TRUE(plan.predicted);
        const double rival = best_rival_ms(instance);
        EXPECT_LE(plan.predicted->step_ms, rival * (1 + 1e-9)) << "seed " << seed;
        slowest_s = std::max(slowest_s, seconds);
        if (!full) continue;
        const double longest = planned(instance, long_effort).predicted->step_ms;
        worst = std::max(worst, plan.predicted->step_ms / longest);
        EXPECT_LE(plan.predicted->step_ms, 1.03 * longest) << "seed " << seed;
        fmt::print(
            "seed {}: {:.2f} s, {} stages, step {:.2f} ms, bound {:.2f}, cluster bound {:.2f}, "
            "best rival {:.2f}, "
            "long search {:.2f}\n",
            seed, seconds, plan.stages.size(), plan.predicted->step_ms,
            plan.predicted->lower_bound_ms, plan.predicted->cluster_bound_ms, rival, longest);
        std::fflush(stdout);
    }
    fmt::print("{} layers x {} devices: slowest {:.2f} s, worst ratio to the long search {:.4f}\n",
               layers, devices, slowest_s, worst);
}

TEST(LargeSearch, SixtyLayersOnSixteenDevices) { compare(60, 16, 16); }
TEST(LargeSearch, TwoHundredLayersOnEightDevices) { compare(200, 8, 16); }

}  // namespace
}  // namespace ecopipe
