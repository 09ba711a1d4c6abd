#include "stage_runtime/engine/run/optimizer.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace ecopipe
