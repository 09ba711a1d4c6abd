#include "stage_runtime/engine/run/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "stage_runtime/engine/run/optimizers/bfloat16_moments.h"

namespace ecopipe {
namespace {

std::vector<double> values(const at::Tensor& tensor) {
    std::vector<double> all;
    for (std::int64_t i = 0; i < tensor.numel(); ++i) all.push_back(tensor[i].item<double>());
    return all;
}

// All numbers are sums of powers of two, so that floats hold them exactly.
TEST(Optimizer, TheProximalTermPullsBackToTheRoundsStart) {
    OptimizerSpec spec{"sgd", 0, 0};
    spec.proximal_mu = 0.5;
    const auto optimizer = make_optimizer(spec);
    at::Tensor w = at::tensor({1.0F, -2.0F});
    const at::Tensor gradient = at::tensor({2.0F, 4.0F});
    OptimizerState state = optimizer->fresh_state(w);
    // w0 = (1, -2); at the start the term is zero: w1 = w0 - g / 4.
    optimizer->update(w, gradient, state, 0.25);
    EXPECT_EQ(values(w), (std::vector<double>{0.5, -3}));
    // w2 = w1 - (g + (w1 - w0) / 2) / 4 = w1 - ((2, 4) + (-0.25, -0.5)) / 4.
    optimizer->update(w, gradient, state, 0.25);
    EXPECT_EQ(values(w), (std::vector<double>{0.0625, -3.875}));
    // w3 = w2 - (g + (w2 - w0) / 2) / 4 = w2 - ((2, 4) + (-0.46875, -0.9375)) / 4.
    optimizer->update(w, gradient, state, 0.25);
    EXPECT_EQ(values(w), (std::vector<double>{-0.3203125, -4.640625}));
}

TEST(Optimizer, TheProximalTermPassesThroughMomentum) {
    OptimizerSpec spec{"sgd", 0.5, 0};
    spec.proximal_mu = 1;
    const auto optimizer = make_optimizer(spec);
    at::Tensor w = at::tensor({4.0F});
    const at::Tensor gradient = at::tensor({1.0F});
    OptimizerState state = optimizer->fresh_state(w);
    optimizer->update(w, gradient, state, 1);  // v = 1, w = 3
    EXPECT_EQ(values(w), (std::vector<double>{3}));
    optimizer->update(w, gradient, state, 1);  // v = 1 / 2 + 1 + (3 - 4) = 1 / 2, w = 5 / 2
    EXPECT_EQ(values(w), (std::vector<double>{2.5}));
    // A new round starts where it is: the term is zero again.
    state = optimizer->fresh_state(w);
    optimizer->update(w, gradient, state, 1);
    EXPECT_EQ(values(w), (std::vector<double>{1.5}));
}

TEST(Optimizer, WithoutMuThereIsNoTermAndNoState) {
    const auto optimizer = make_optimizer({"sgd", 0, 0});
    EXPECT_TRUE(optimizer->fresh_state(at::tensor({1.0F})).empty());
}

// At the first step since the reset the term is zero, and every state of the optimiser's own is
// where the optimiser looks for it.
TEST(Optimizer, TheProximalTermBeginsAsEveryOptimiserWithoutIt) {
    for (const char* name : {"sgd", "adam", "adamw", "adafactor"})
        for (const DType moments : {DType::kF32, DType::kBF16})
            for (const Shape& shape : {Shape{6}, Shape{3, 4}}) {
                OptimizerSpec spec{name, name == std::string("sgd") ? 0.9 : 0.0};
                spec.moments = moments;
                if (!spec.known()) continue;
                at::manual_seed(2);
                const at::Tensor start = at::randn(shape);
                const at::Tensor gradient = at::randn(shape);
                at::Tensor plain = start.clone();
                const auto optimizer = make_optimizer(spec);
                OptimizerState state = optimizer->fresh_state(plain);
                optimizer->update(plain, gradient, state, 0.02);
                spec.proximal_mu = 0.5;
                at::Tensor pulled = start.clone();
                const auto proximal = make_optimizer(spec);
                OptimizerState more = proximal->fresh_state(pulled);
                proximal->update(pulled, gradient, more, 0.02);
                EXPECT_TRUE(at::equal(plain, pulled)) << name << ' ' << shape.size();
                for (std::size_t i = 0; i < state.size(); ++i)
                    EXPECT_TRUE(at::equal(state[i].second, more[i].second)) << name;
            }
}

// The slots of a parameter's size, for the sum of what a plan reckons with.
std::uint64_t bytes_of(const OptimizerState& state) {
    std::uint64_t bytes = 0;
    for (const auto& [slot, tensor] : state)
        if (tensor.dim() > 0 || slot != "step") bytes += tensor.nbytes();
    return bytes;
}

TEST(Optimizer, KeepsWhatItsSpecSays) {
    for (const char* name : {"sgd", "adam", "adamw", "adafactor"})
        for (const double momentum : {0.0, 0.9})
            for (const DType moments : {DType::kF32, DType::kBF16})
                for (const Shape& shape : {Shape{}, Shape{7}, Shape{1, 5}, Shape{5, 1}, Shape{6, 4},
                                           Shape{4, 3, 2, 2}, Shape{0, 3}}) {
                    OptimizerSpec spec{name, momentum};
                    spec.moments = moments;
                    if (!spec.known()) continue;
                    at::Tensor w = at::ones(shape);
                    const auto optimizer = make_optimizer(spec);
                    OptimizerState state = optimizer->fresh_state(w);
                    EXPECT_EQ(bytes_of(state), spec.state_bytes(shape)) << name;
                    optimizer->update(w, at::ones(shape), state, 0.01);
                    EXPECT_TRUE(at::isfinite(w).all().item<bool>());
                    EXPECT_TRUE(w.numel() == 0 || (w < 1).all().item<bool>()) << name;
                }
}

// The paper's algorithms 4 and 5, a row and a column at a time in double precision.
void adafactor_step(std::vector<double>& w, const std::vector<double>& g, std::size_t columns,
                    std::vector<double>& rows_kept, std::vector<double>& columns_kept, int step) {
    const std::size_t rows = w.size() / columns;
    const double beta = 1 - std::pow(step, -0.8);
    const auto mean_square = [](const std::vector<double>& values) {
        double sum = 0;
        for (const double value : values) sum += value * value;
        return sum / static_cast<double>(values.size());
    };
    double total = 0;
    for (std::size_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (std::size_t c = 0; c < columns; ++c) sum += std::pow(g[r * columns + c], 2);
        rows_kept[r] = beta * rows_kept[r] + (1 - beta) * sum / static_cast<double>(columns);
        total += rows_kept[r];
    }
    for (std::size_t c = 0; c < columns; ++c) {
        double sum = 0;
        for (std::size_t r = 0; r < rows; ++r) sum += std::pow(g[r * columns + c], 2);
        columns_kept[c] = beta * columns_kept[c] + (1 - beta) * sum / static_cast<double>(rows);
    }
    std::vector<double> u(w.size());
    for (std::size_t i = 0; i < w.size(); ++i)
        u[i] = g[i] / std::sqrt(rows_kept[i / columns] * columns_kept[i % columns] /
                                (total / static_cast<double>(rows)));
    const double size = std::max(1e-3, std::sqrt(mean_square(w))) *
                        std::min(0.02, 1 / std::sqrt(static_cast<double>(step)));
    const double clip = std::max(1.0, std::sqrt(mean_square(u)));
    for (std::size_t i = 0; i < w.size(); ++i) w[i] -= size * u[i] / clip;
}

TEST(Optimizer, AdafactorIsThePapers) {
    at::manual_seed(3);
    const auto optimizer = make_optimizer({"adafactor", 0});
    at::Tensor w = at::randn({4, 3, 2, 2});
    std::vector<double> expected = values(w.flatten());
    std::vector<double> rows(4, 0), columns(12, 0);
    OptimizerState state = optimizer->fresh_state(w);
    for (int step = 1; step <= 6; ++step) {
        const at::Tensor gradient = at::randn({4, 3, 2, 2}) * std::pow(0.3, step);
        optimizer->update(w, gradient, state, 0.02);
        adafactor_step(expected, values(gradient.flatten()), 12, rows, columns, step);
        const std::vector<double> found = values(w.flatten());
        for (std::size_t i = 0; i < found.size(); ++i)
            EXPECT_NEAR(found[i], expected[i], 2e-6) << step;
    }
}

TEST(Optimizer, RoundingByChanceHasNoBias) {
    const float low = 1.0F;
    const float high = 1.0078125F;  // the next in bfloat16
    for (const float part : {0.0F, 0.125F, 0.5F, 0.9375F}) {
        const float value = low + part * (high - low);
        int up = 0;
        const RoundingBits draw(5);
        for (std::int64_t i = 0; i < 65536; ++i) {
            const std::uint32_t bits = draw(i);
            for (const std::uint32_t half : {bits & 0xffffU, bits >> 16}) {
                const float kept = widened(rounded_by_chance(value, half));
                ASSERT_TRUE(kept == low || kept == high);
                up += kept == high ? 1 : 0;
            }
        }
        EXPECT_NEAR(up / 131072.0, part, 0.006);
    }
    const float infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(widened(rounded_by_chance(-infinity, 0xffff)), -infinity);
    EXPECT_TRUE(std::isnan(widened(rounded_by_chance(std::bit_cast<float>(0x7f800001U), 0xffff))));
    EXPECT_EQ(widened(rounded_by_chance(-0.0F, 0)), -0.0F);
}

// 4,096 weights, large gradients first and small ones after: a second moment rounded to the nearest
// would stay at what the large ones made of it.
TEST(Optimizer, MomentsInBFloat16GoOnMovingWithTheGradients) {
    at::manual_seed(1);
    OptimizerSpec spec{"adam", 0};
    const auto exact = make_optimizer(spec);
    spec.moments = DType::kBF16;
    const auto rounded = make_optimizer(spec);
    at::Tensor w = at::zeros({64, 64});
    at::Tensor v = at::zeros({64, 64});
    OptimizerState kept = exact->fresh_state(w);
    OptimizerState halves = rounded->fresh_state(v);
    for (int step = 0; step < 600; ++step) {
        const at::Tensor gradient = at::randn({64, 64}).abs() * (step < 100 ? 1.0 : 0.01);
        exact->update(w, gradient, kept, 0.001);
        rounded->update(v, gradient, halves, 0.001);
    }
    const double squares = kept[1].second.mean().item<double>();
    EXPECT_LT(squares, 0.07);
    EXPECT_NEAR(halves[1].second.to(at::kFloat).mean().item<double>() / squares, 1, 0.01);
    EXPECT_NEAR((v / w).mean().item<double>(), 1, 0.01);
    EXPECT_LT((v / w - 1).abs().max().item<double>(), 0.1);
}

// A momentum that grows by less than half of bfloat16's spacing.
TEST(Optimizer, MomentumInBFloat16AddsUpSmallGradients) {
    OptimizerSpec spec{"sgd", 1};
    spec.moments = DType::kBF16;
    const auto rounded = make_optimizer(spec);
    at::Tensor w = at::zeros({4096});
    OptimizerState state = rounded->fresh_state(w);
    rounded->update(w, at::ones({4096}), state, 0);
    for (int step = 0; step < 100; ++step) rounded->update(w, at::full({4096}, 0.001), state, 0);
    EXPECT_NEAR(state[0].second.to(at::kFloat).mean().item<double>(), 1.1, 0.002);
}

}  // namespace
}  // namespace ecopipe
