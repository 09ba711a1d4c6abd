#include "fl_server/numbers/aggregator.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/fl_server/service/toy_federation.h"

namespace ecopipe::test {
namespace {

Aggregator start(const ModelLayout& layout, std::shared_ptr<const std::string> global,
                 AggregatorOptions options = {}) {
    AggregatorState state;
    state.global = std::move(global);
    return Aggregator(layout, std::move(state), {}, options);
}

TEST(Aggregator, TheMeanIsWeightedBySamples) {
    const ModelLayout layout = vector_layout(2);
    const auto base = flat_floats({1, 2});
    Aggregator aggregator = start(layout, base);
    ASSERT_TRUE(aggregator.fold({"a", 1, 0, 3}, checked(layout, flat_floats({2, 2}), base)));
    ASSERT_TRUE(aggregator.fold({"b", 1, 0, 1}, checked(layout, flat_floats({1, 6}), base)));
    const auto made = aggregator.commit(mean_recipe());
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ(made->version, 1U);
    EXPECT_EQ(floats_of(*aggregator.state().global), (std::vector<float>{1.75F, 3}));
    EXPECT_EQ(aggregator.folds(0), 0U);
}

TEST(Aggregator, TermsStoredModelsAndBasesAddUp) {
    const ModelLayout layout = vector_layout(1);
    const auto base = flat_floats({1});
    const auto versions = [&](std::uint64_t version) -> Result<BlockSourcePtr> {
        if (version == 0) return memory_source(base);
        return fail(ExitCode::kRunFailed, "not kept");
    };
    Aggregator aggregator(layout, {0, base, {}, nullptr}, versions, {});
    ASSERT_TRUE(aggregator.fold({"a", 1, 4, 10}, checked(layout, flat_floats({3}), base)));
    Recipe recipe = mean_recipe(4);
    recipe.keep = {
        {"tier", {{Term::Source::kGlobal, 0, 0, "", 1}, {Term::Source::kDelta, 0, 4, "", 1}}}};
    recipe.next = {{Term::Source::kStored, 0, 0, "tier", 0.5},
                   {Term::Source::kGlobal, 0, 0, "", 0.5}};
    ASSERT_TRUE(aggregator.commit(recipe));
    EXPECT_EQ(floats_of(*aggregator.state().global), std::vector<float>{2});
    EXPECT_EQ(floats_of(*aggregator.state().stored.at("tier")), std::vector<float>{3});
    // A stale update: its delta is against the version that it started from, now read through the
    // lookup.
    ASSERT_TRUE(aggregator.fold({"b", 1, 0, 1}, checked(layout, flat_floats({5}), base, 0)));
    recipe = mean_recipe(0, 0.25);
    recipe.next.push_back({Term::Source::kBase, 0, 0, "", 2});
    ASSERT_TRUE(aggregator.commit(recipe));
    EXPECT_EQ(floats_of(*aggregator.state().global), std::vector<float>{2 + 1 + 2});
}

TEST(Aggregator, AFixedDivisorServesFedBuff) {
    const ModelLayout layout = vector_layout(1);
    const auto base = flat_floats({0});
    Aggregator aggregator = start(layout, base);
    ASSERT_TRUE(aggregator.fold({"a", 1, 0, 1}, checked(layout, flat_floats({4}), base)));
    ASSERT_TRUE(aggregator.fold({"b", 1, 0, 0.5}, checked(layout, flat_floats({4}), base)));
    Recipe recipe = mean_recipe();
    recipe.close[0].combine.divisor = 2;
    ASSERT_TRUE(aggregator.commit(recipe));
    EXPECT_EQ(floats_of(*aggregator.state().global), std::vector<float>{3});
}

TEST(Aggregator, BuffersAreNotClippedAndCountersTakeTheMaximum) {
    const auto made = ModelLayout::create({{"w", DType::kF32, {2}, StateKind::kParameter, 0},
                                           {"mean", DType::kF32, {1}, StateKind::kBuffer, 0},
                                           {"count", DType::kI64, {1}, StateKind::kInteger, 0}});
    ASSERT_TRUE(made);
    const auto model = [](float a, float b, float mean, std::int64_t count) {
        std::string bytes;
        for (const float v : {a, b, mean})
            bytes.append(reinterpret_cast<const char*>(&v), sizeof v);
        bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
        return std::make_shared<const std::string>(bytes);
    };
    const auto base = model(0, 0, 1, 7);
    Aggregator aggregator = start(*made, base, {5, 1, true});
    ASSERT_TRUE(aggregator.fold({"a", 1, 0, 1}, checked(*made, model(30, 40, 101, 9), base)));
    ASSERT_TRUE(aggregator.fold({"b", 1, 0, 1}, checked(*made, model(0, 0, 1, 8), base)));
    ASSERT_TRUE(aggregator.commit(mean_recipe()));
    EXPECT_EQ(*aggregator.state().global, *model(1.5F, 2, 51, 9));
}

TEST(Aggregator, FiftyOrdersAndThreeThreadCountsGiveTheSameBytes) {
    constexpr std::int64_t kElements = 50001;
    const ModelLayout layout = vector_layout(kElements);
    Rng rng(5);
    const auto draw = [&](double scale) {
        std::vector<float> values(kElements);
        for (float& v : values) v = static_cast<float>(rng.normal() * scale);
        return flat_floats(values);
    };
    const auto base = draw(1);
    std::vector<CheckedUpdate> updates;
    for (int i = 0; i < 12; ++i) updates.push_back(checked(layout, draw(i == 3 ? 1e3 : 1), base));
    std::vector<std::size_t> order{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    std::string first;
    for (int shuffle = 0; shuffle < 50; ++shuffle) {
        Aggregator aggregator = start(layout, base, {300, 1 + shuffle % 3, false});
        for (const std::size_t i : order)
            ASSERT_TRUE(aggregator.fold({std::to_string(i), 1, 0, 100.0 + static_cast<double>(i)},
                                        updates[i]));
        ASSERT_TRUE(aggregator.commit(mean_recipe()));
        if (first.empty()) first = *aggregator.state().global;
        ASSERT_TRUE(*aggregator.state().global == first);
        rng.shuffle(order);
    }
}

TEST(Accumulator, WideningChangesNoBit) {
    const ModelLayout layout = vector_layout(4);
    const std::vector<float> zero{0, 0, 0, 0};
    const std::vector<float> small{1e-6F, -0.3F, 7, 0};
    const std::vector<float> large{3e6F, -2e6F, 5, 1};
    const auto add = [&](Accumulator& sums, const std::vector<float>& update, double weight) {
        float reach = 0;
        for (const float v : update) reach = std::max(reach, std::fabs(v));
        sums.begin(weight, 1, {reach});
        sums.add(layout.blocks()[0], StateKind::kParameter, DType::kF32,
                 reinterpret_cast<const std::byte*>(update.data()),
                 reinterpret_cast<const std::byte*>(zero.data()));
    };
    Accumulator early(layout);
    add(early, large, 3);
    EXPECT_TRUE(early.widened());
    add(early, small, 3);
    Accumulator late(layout);
    add(late, small, 3);
    EXPECT_FALSE(late.widened());
    const std::size_t narrow_bytes = late.memory_bytes();
    add(late, large, 3);
    EXPECT_TRUE(late.widened());
    EXPECT_EQ(late.memory_bytes(), 2 * narrow_bytes) << "the narrow sums are still there";
    std::array<double, 4> a{};
    std::array<double, 4> b{};
    early.mean(layout.blocks()[0], 6, a.data());
    late.mean(layout.blocks()[0], 6, b.data());
    EXPECT_EQ(a, b);
    EXPECT_NEAR(a[1], (-2e6 - 0.3) / 2, 1e-3);
    // The largest that admission allows, as often as a slot takes it, does not overflow.
    Accumulator full(layout);
    const std::vector<float> limit{0x1p30F, -0x1p30F, 0, 0};
    for (std::uint64_t i = 0; i < kFoldsMax; ++i) add(full, limit, kFoldWeightMax);
    full.mean(layout.blocks()[0], full.weight_sum(), a.data());
    EXPECT_EQ(a[0], 0x1p30);
    EXPECT_EQ(a[1], -0x1p30);
    full.reset();
    EXPECT_FALSE(full.widened());
    EXPECT_EQ(full.memory_bytes(), narrow_bytes);
    add(full, small, 3);
    full.mean(layout.blocks()[0], 3, a.data());
    EXPECT_NEAR(a[2], 7, 1e-9) << "the sums begin at 0 again";
}

TEST(Accumulator, TheErrorStaysWithinItsBound) {
    constexpr std::int64_t kElements = 4096;
    const ModelLayout layout = vector_layout(kElements);
    Rng rng(8);
    Accumulator sums(layout);
    std::vector<double> exact(kElements, 0);
    std::vector<float> zero(kElements, 0);
    const int updates = 100;
    for (int u = 0; u < updates; ++u) {
        std::vector<float> update(kElements);
        float reach = 0;
        for (float& v : update) {
            v = static_cast<float>(rng.normal() * 0.01);
            reach = std::max(reach, std::fabs(v));
        }
        sums.begin(0.05, 1, {reach});
        sums.add(layout.blocks()[0], StateKind::kParameter, DType::kF32,
                 reinterpret_cast<const std::byte*>(update.data()),
                 reinterpret_cast<const std::byte*>(zero.data()));
        for (std::size_t i = 0; i < kElements; ++i)
            exact[i] += 0.05 * static_cast<double>(update[i]);
    }
    std::vector<double> got(kElements);
    sums.mean(layout.blocks()[0], 1, got.data());
    for (std::size_t i = 0; i < kElements; ++i)
        EXPECT_NEAR(got[i], exact[i], updates * 0x1p-41 + 1e-16);
}

TEST(Aggregator, ServerOptimizersFollowTheirEquations) {
    const ModelLayout layout = vector_layout(1);
    const auto base = flat_floats({1});
    const auto run = [&](ServerOptimizer::Kind kind, int rounds) {
        Aggregator aggregator = start(layout, base);
        for (int r = 0; r < rounds; ++r) {
            const auto global = aggregator.state().global;
            const float w = floats_of(*global)[0];
            EXPECT_TRUE(aggregator.fold(
                {"a", 1, 0, 1},
                checked(layout, flat_floats({w + 0.5F}), global, aggregator.state().version)));
            Recipe recipe = mean_recipe();
            recipe.optimizer = ServerOptimizer{kind, 0.1, 0.9, 0.99, 0.5};
            EXPECT_TRUE(aggregator.commit(recipe));
        }
        return static_cast<double>(floats_of(*aggregator.state().global)[0]);
    };
    EXPECT_NEAR(run(ServerOptimizer::Kind::kMomentum, 1), 1.05, 1e-6);
    EXPECT_NEAR(run(ServerOptimizer::Kind::kMomentum, 2), 1.05 + 0.1 * (0.45 + 0.5), 1e-6);
    // v starts at tau^2 = 0.25 = d^2, so it stays there: m = 0.05, 1 + 0.1 * 0.05 / (0.5 + 0.5).
    EXPECT_NEAR(run(ServerOptimizer::Kind::kAdam, 1), 1.005, 1e-6);
    EXPECT_NEAR(run(ServerOptimizer::Kind::kYogi, 2), 1.005 + 0.1 * (0.045 + 0.05), 1e-6);
}

TEST(Aggregator, RefusesWhatItCannotDoAndChangesNothing) {
    const ModelLayout layout = vector_layout(1);
    const auto base = flat_floats({1});
    Aggregator aggregator = start(layout, base);
    EXPECT_FALSE(aggregator.commit(mean_recipe()));  // no update
    const CheckedUpdate update = checked(layout, flat_floats({2}), base);
    for (const double weight : {0.0, -1.0, 1e300, std::nan("")})
        EXPECT_FALSE(aggregator.fold({"a", 1, 0, weight}, update)) << weight;
    EXPECT_FALSE(aggregator.fold({"a", 1, 0, 1}, {update.bytes, 9, update.measure}));
    ASSERT_TRUE(aggregator.fold({"a", 1, 0, 1}, update));
    Recipe recipe = mean_recipe();
    recipe.next[1].coefficient = 1e300;
    EXPECT_FALSE(aggregator.commit(recipe));  // not finite as F32
    recipe = mean_recipe();
    recipe.next.push_back({Term::Source::kStored, 0, 0, "nobody", 1});
    EXPECT_FALSE(aggregator.commit(recipe));
    EXPECT_EQ(aggregator.state().version, 0U);
    ASSERT_TRUE(aggregator.commit(mean_recipe()));
    EXPECT_EQ(floats_of(*aggregator.state().global), std::vector<float>{2});
}

}  // namespace
}  // namespace ecopipe::test
