#include "fl_server/update_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/fl_server/toy_federation.h"

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

TEST(ModelLayout, RefusesWhatCannotBeAveraged) {
    EXPECT_FALSE(ModelLayout::create({}));
    EXPECT_FALSE(ModelLayout::create({{"h", DType::kF16, {2}, StateKind::kParameter, 0}}));
    EXPECT_FALSE(ModelLayout::create({{"i", DType::kI64, {2}, StateKind::kParameter, 0}}));
    EXPECT_FALSE(ModelLayout::create({{"w", DType::kF32, {-2}, StateKind::kParameter, 0}}));
}

}  // namespace
}  // namespace ecopipe::test
