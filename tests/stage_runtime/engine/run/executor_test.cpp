#include "stage_runtime/engine/run/executor.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "core/tensor_memory.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/single_process.h"
#include "tests/stage_runtime/engine/run/model_steps.h"

namespace ecopipe::test {
namespace {

class Engine : public testing::Test {
  protected:
    static void SetUpTestSuite() { configure_torch(1); }
};

TEST_F(Engine, NoCutNoRecomputationAndNoSplitBackwardChangesABit) {
    const ModelSpec spec = zoo("mobilenet_v2", {3, 32, 32});
    for (const OptimizerSpec& optimizer :
         {OptimizerSpec{"sgd", 0.9, 1e-3}, OptimizerSpec{"adam", 0, 0}}) {
        const TensorMap reference = train_cut(spec, -1, {}, optimizer);
        EXPECT_TRUE(same_bytes(reference, train_cut(spec, -1, kWhole, optimizer)));
        for (const int cut : {0, 7, 18, 20}) {
            EXPECT_TRUE(same_bytes(reference, train_cut(spec, cut, {}, optimizer)))
                << "cut after " << cut;
            EXPECT_TRUE(same_bytes(reference, train_cut(spec, cut, {}, optimizer, true)))
                << "cut after " << cut << ", split backward";
            for (const Segments& recomputed :
                 {kWhole, Segments{{2, 6}, {7, 7}, {8, 14}, {19, 20}}, Segments{{0, 9}}})
                EXPECT_TRUE(same_bytes(reference, train_cut(spec, cut, recomputed, optimizer)))
                    << "recomputing from " << recomputed.front().first << ", cut after " << cut;
        }
    }
}

TEST_F(Engine, ADiscardedStepLeavesNoTrace) {
    const ModelSpec spec = zoo("mobilenet_v2", {3, 32, 32});
    const int layers = static_cast<int>(inspect_model(spec)->layers.size());
    ExecutorOptions options;
    options.range = {0, layers - 1};
    options.optimizer = {"adam", 0, 0};
    auto executor = std::move(*Executor::create(spec, options));
    const auto weights = initial_weights(spec, 3);
    for (const NamedTensor& weight : *weights)
        ASSERT_TRUE(executor->load_state(weight.name, weight.tensor));
    const TensorMap before = executor->state(true);
    const Batch batch = random_batch(spec, 4, 1);
    executor->begin_step(0, 4);
    ASSERT_TRUE(executor->forward(0, {batch.inputs}, &batch.labels));
    ASSERT_TRUE(executor->backward(0, {}));
    executor->discard();
    EXPECT_TRUE(same_bytes(before, executor->state(true)));
}

// A device short of memory recomputes more from one step to the next, or less.
TEST_F(Engine, WhatIsRecomputedMayChangeBetweenSteps) {
    const ModelSpec spec = zoo("mobilenet_v2", {3, 32, 32});
    const auto weights = initial_weights(spec, 3);
    const std::vector<Segments> ways{{}, {{0, 21}}, {{2, 6}, {8, 14}, {19, 20}}, {}, {{0, 9}}};
    std::array<TensorMap, 2> states;
    for (const bool changes : {false, true}) {
        ExecutorOptions options;
        options.range = {0, 21};
        options.optimizer = {"adam", 0, 0};
        auto executor = std::move(*Executor::create(spec, options));
        for (const NamedTensor& weight : *weights)
            ASSERT_TRUE(executor->load_state(weight.name, weight.tensor));
        for (std::uint64_t step = 0; step < ways.size(); ++step) {
            if (changes) executor->recompute(ways[step]);
            executor->begin_step(step, 8);
            for (std::uint32_t m = 0; m < 2; ++m) {
                const Batch batch = random_batch(spec, 4, step * 2 + m);
                ASSERT_TRUE(executor->forward(m, {batch.inputs}, &batch.labels));
            }
            for (std::uint32_t m = 0; m < 2; ++m) ASSERT_TRUE(executor->backward(m, {}));
            static_cast<void>(executor->finish_step());
            executor->commit(0.001, 1);
        }
        states[changes ? 1 : 0] = executor->state(true);
    }
    EXPECT_TRUE(same_bytes(states[0], states[1]));
}

TEST_F(Engine, AStateThatIsSharedTakesNoMemory) {
    const ModelSpec spec = zoo("lenet5", {1, 28, 28});
    ExecutorOptions options;
    options.range = {0, 11};
    options.optimizer = {"adam", 0, 0};
    auto executor = std::move(*Executor::create(spec, options));
    const auto weights = initial_weights(spec, 3);
    for (const NamedTensor& weight : *weights)
        ASSERT_TRUE(executor->load_state(weight.name, weight.tensor));
    const std::size_t before = live_tensor_bytes();
    const TensorMap shared = executor->state(true, StateMemory::kShared);
    EXPECT_EQ(live_tensor_bytes(), before);
    const TensorMap copies = executor->state(true);
    EXPECT_GT(live_tensor_bytes(), before + 3 * 61706 * 4);
    EXPECT_TRUE(same_bytes(shared, copies));
    const Batch batch = random_batch(spec, 4, 1);
    executor->begin_step(0, 4);
    ASSERT_TRUE(executor->forward(0, {batch.inputs}, &batch.labels));
    ASSERT_TRUE(executor->backward(0, {}));
    static_cast<void>(executor->finish_step());
    executor->commit(0.01, 1);
    EXPECT_FALSE(same_bytes(shared, copies));
    EXPECT_TRUE(same_bytes(shared, executor->state(true)));
}

// The numeric class once committed without: its hash was the same for every LibTorch.
TEST_F(Engine, ACommitOfWhatWasNotAddedUpIsABug) {
    const ModelSpec spec = zoo("lenet5", {1, 28, 28});
    ExecutorOptions options;
    options.range = {0, 11};
    auto executor = std::move(*Executor::create(spec, options));
    const auto weights = initial_weights(spec, 3);
    for (const NamedTensor& weight : *weights)
        ASSERT_TRUE(executor->load_state(weight.name, weight.tensor));
    const Batch batch = random_batch(spec, 4, 1);
    executor->begin_step(0, 4);
    ASSERT_TRUE(executor->forward(0, {batch.inputs}, &batch.labels));
    ASSERT_TRUE(executor->backward(0, {}));
    EXPECT_DEATH(executor->commit(0.01, 1), "finished");
}

TEST_F(Engine, StepsLeakNoMemory) {
    const ModelSpec spec = zoo("lenet5", {1, 28, 28});
    auto process = *SingleProcess::create(spec, ExecutorOptions{});
    ASSERT_TRUE(process.load(*initial_weights(spec, 0)));
    const std::vector<Batch> batches{random_batch(spec, 4, 1), random_batch(spec, 4, 2)};
    std::size_t after_ten = 0;
    for (std::uint64_t step = 0; step < 1000; ++step) {
        ASSERT_TRUE(process.run_step(step, batches, 8));
        process.commit(0.01, 1);
        if (step == 10) after_ten = live_tensor_bytes();
    }
    EXPECT_EQ(live_tensor_bytes(), after_ten);
}

TEST_F(Engine, NonFiniteGradientsNameTheirFirstLayer) {
    const ModelSpec spec = zoo("lenet5", {1, 28, 28});
    auto process = *SingleProcess::create(spec, ExecutorOptions{});
    TensorMap weights = *initial_weights(spec, 0);
    weights[0].tensor.as<float>()[0] = std::nanf("");
    ASSERT_TRUE(process.load(weights));
    const std::vector<Batch> batches{random_batch(spec, 4, 1)};
    const auto totals = process.run_step(0, batches, 4);
    ASSERT_TRUE(totals);
    EXPECT_FALSE(std::isfinite(totals->loss.sum));
    EXPECT_EQ(totals->nonfinite_layer, 0);
}

TEST_F(Engine, StateOfAnotherShapeOrNameIsRefused) {
    const ModelSpec spec = zoo("lenet5", {1, 28, 28});
    ExecutorOptions options;
    options.range = {0, 3};
    auto executor = std::move(*Executor::create(spec, options));
    EXPECT_FALSE(executor->load_state("nothing", HostTensor::allocate(DType::kF32, {1})));
    EXPECT_FALSE(executor->load_state("0.bias", HostTensor::allocate(DType::kF32, {5})));
    EXPECT_FALSE(executor->load_state("0.bias", HostTensor::allocate(DType::kF64, {6})));
    EXPECT_TRUE(executor->load_state("0.bias", HostTensor::allocate(DType::kF32, {6})));
}

TEST_F(Engine, AMicroBatchOfOneIsRefusedByBatchNormWithARemedy) {
    const ModelSpec spec = zoo("mobilenet_v2", {3, 32, 32});
    const Batch batch = random_batch(spec, 1, 1);
    const auto tried = try_model(spec, {}, batch);
    ASSERT_FALSE(tried);
    EXPECT_NE(tried.error().message.find("features."), std::string::npos) << tried.error().message;
    EXPECT_NE(tried.error().message.find("use fewer micro-batches"), std::string::npos);
    const Batch two = random_batch(spec, 2, 1);
    EXPECT_TRUE(try_model(spec, {}, two));
}

TEST_F(Engine, LabelsBeyondTheHeadAreRefused) {
    ModelSpec spec = zoo("lenet5", {1, 28, 28});
    spec.num_classes = 2;
    Batch batch = random_batch(spec, 2, 1);
    batch.labels.as<std::int64_t>()[0] = 7;
    EXPECT_FALSE(try_model(spec, {}, batch));
}

}  // namespace
}  // namespace ecopipe::test
