#include "fl_server/numbers/update_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/fl_server/service/toy_federation.h"

namespace ecopipe::test {
namespace {

TEST(UpdateCheck, CutsOfTheStreamChangeNothing) {
    constexpr std::int64_t kElements = 40001;
    const ModelLayout layout = vector_layout(kElements);
    Rng rng(1);
    std::vector<float> base(kElements);
    std::vector<float> update(kElements);
    double squares = 0;
    for (std::size_t i = 0; i < base.size(); ++i) {
        base[i] = static_cast<float>(rng.normal());
        update[i] = base[i] + static_cast<float>(rng.normal());
        squares += std::pow(static_cast<double>(update[i]) - static_cast<double>(base[i]), 2);
    }
    std::vector<UpdateMeasure> measures;
    std::vector<std::byte> scratch(kBlockBytesMax);
    for (const std::size_t chunk : {std::size_t{1} << 30, std::size_t{65536}, std::size_t{7777}}) {
        UpdateCheck check(layout, memory_source(flat_floats(base)), 0, layout.bytes(), scratch);
        auto bytes = std::as_bytes(std::span(update));
        while (!bytes.empty()) {
            const auto part = bytes.first(std::min(chunk, bytes.size()));
            ASSERT_TRUE(check.feed(part));
            bytes = bytes.subspan(part.size());
        }
        EXPECT_TRUE(check.complete());
        measures.push_back(check.measure());
    }
    EXPECT_NEAR(measures[0].squared_norm, squares, squares * 1e-12);
    for (const UpdateMeasure& m : measures) {
        EXPECT_EQ(m.squared_norm, measures[0].squared_norm);
        EXPECT_EQ(m.parameter_max, measures[0].parameter_max);
    }
}

TEST(UpdateCheck, RefusesWhatIsNotFiniteOrMovesTooFarWhereverItIs) {
    constexpr std::size_t kElements = 40003;
    const ModelLayout layout = vector_layout(kElements);
    const auto base = flat_floats(std::vector<float>(kElements, 1));
    const auto problem = [&](std::size_t at, float value) {
        std::vector<float> update(kElements, 1);
        update[at] = value;
        const auto measured =
            measure_update(layout, *memory_source(flat_floats(update)), memory_source(base));
        return measured ? std::string() : measured.error().message;
    };
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    for (const std::size_t at : {std::size_t{0}, std::size_t{16383}, kElements - 1}) {
        EXPECT_EQ(problem(at, nan), "tensor w has a value that is not finite");
        EXPECT_EQ(problem(at, infinity), "tensor w has a value that is not finite");
        EXPECT_EQ(problem(at, -infinity), "tensor w has a value that is not finite");
        EXPECT_NE(problem(at, 1e30F).find("moves a value by 1e+30"), std::string::npos);
        EXPECT_EQ(problem(at, 1e6F), "");
    }
}

// What is outside the norm is bounded all the same.
TEST(UpdateCheck, RefusesBuffersAndCountersThatNoTrainingMakes) {
    const ModelLayout layout =
        ModelLayout::create({{"bn.running_mean", DType::kF32, {2}, StateKind::kBuffer, 0},
                             {"bn.running_var", DType::kF64, {2}, StateKind::kBuffer, 0},
                             {"bn.num_batches_tracked", DType::kI64, {}, StateKind::kInteger, 0}})
            .value();
    struct Buffers {
        float mean[2];
        double var[2];
        std::int64_t batches;
    };
    static_assert(sizeof(Buffers) == 32);
    const auto problem = [&](const Buffers& update, const Buffers& base) {
        const auto bytes = [](const Buffers& b) {
            return memory_source(
                std::make_shared<const std::string>(reinterpret_cast<const char*>(&b), sizeof b));
        };
        const auto measured = measure_update(layout, *bytes(update), bytes(base));
        return measured ? std::string() : measured.error().message;
    };
    const Buffers base{{0, 1}, {1, 1}, 100};
    EXPECT_EQ(problem({{0, -1}, {0, 2}, 200}, base), "");
    EXPECT_EQ(problem({{0, 2e9F}, {1, 1}, 100}, base),
              "tensor bn.running_mean moves a value by 2e+09, expected at most 1.07374e+09");
    EXPECT_EQ(problem({{0, 1}, {1, -0.001}, 100}, base),
              "tensor bn.running_var has the variance -0.001, expected 0 or more");
    constexpr std::int64_t kJump = std::int64_t{1} << 40;
    EXPECT_EQ(problem({{0, 1}, {1, 1}, 100 + kJump}, base), "");
    EXPECT_EQ(problem({{0, 1}, {1, 1}, 101 + kJump}, base),
              "tensor bn.num_batches_tracked moves a count by 1099511627777, expected at most "
              "1099511627776");
    for (const std::int64_t lie : {99 - kJump, INT64_MAX, INT64_MIN})
        EXPECT_NE(problem({{0, 1}, {1, 1}, lie}, base), "");
    EXPECT_NE(problem({{0, 1}, {1, 1}, INT64_MAX}, {{0, 1}, {1, 1}, INT64_MIN}), "");
    // Rounding may have left the base a little below 0: whoever starts there is no liar.
    EXPECT_EQ(problem({{0, 1}, {-1e-13, 1}, 100}, {{0, 1}, {-1e-12, 1}, 100}), "");
}

TEST(ModelLayout, RefusesWhatCannotBeAveraged) {
    EXPECT_FALSE(ModelLayout::create({}));
    EXPECT_FALSE(ModelLayout::create({{"h", DType::kF16, {2}, StateKind::kParameter, 0}}));
    EXPECT_FALSE(ModelLayout::create({{"i", DType::kI64, {2}, StateKind::kParameter, 0}}));
    EXPECT_FALSE(ModelLayout::create({{"w", DType::kF32, {-2}, StateKind::kParameter, 0}}));
}

}  // namespace
}  // namespace ecopipe::test
