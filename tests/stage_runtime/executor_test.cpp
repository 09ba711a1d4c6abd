#include "stage_runtime/engine/run/executor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "core/random.h"
#include "core/tensor_memory.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/single_process.h"

namespace ecopipe {
namespace {

ModelSpec zoo(const std::string& name, Shape input) {
    ModelSpec spec;
    spec.zoo = name;
    spec.input_shape = std::move(input);
    return spec;
}

Batch random_batch(const ModelSpec& spec, std::int64_t samples, std::uint64_t seed) {
    Shape shape = spec.input_shape;
    shape.insert(shape.begin(), samples);
    Batch batch{HostTensor::allocate(DType::kF32, shape),
                HostTensor::allocate(DType::kI64, {samples})};
    Rng rng(seed);
    for (float& value : batch.inputs.as<float>()) value = static_cast<float>(rng.uniform());
    for (auto& label : batch.labels.as<std::int64_t>())
        label = static_cast<std::int64_t>(rng.below(10));
    return batch;
}

std::size_t parameters(const ModelSpec& spec) {
    std::size_t count = 0;
    const auto info = inspect_model(spec);
    for (const TensorInfo& tensor : info->tensors) {
        std::size_t elements = 1;
        for (const auto dimension : tensor.shape) elements *= static_cast<std::size_t>(dimension);
        if (tensor.trainable) count += elements;
    }
    return count;
}

bool same_bytes(const TensorMap& a, const TensorMap& b) {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i)
        if (a[i].name != b[i].name || a[i].tensor.shape() != b[i].tensor.shape() ||
            std::memcmp(a[i].tensor.data(), b[i].tensor.data(), a[i].tensor.bytes()) != 0)
            return false;
    return true;
}

class Engine : public testing::Test {
  protected:
    static void SetUpTestSuite() { configure_torch(1); }
};

TEST_F(Engine, ZooHasThePublishedSizes) {
    EXPECT_EQ(parameters(zoo("lenet5", {1, 28, 28})), 61706U);
    EXPECT_EQ(parameters(zoo("fashion_cnn", {1, 28, 28})), 1199882U);
    EXPECT_EQ(parameters(zoo("mobilenet_v2", {3, 32, 32})), 2236682U);
    ModelSpec wide = zoo("mobilenet_v2", {3, 32, 32});
    wide.num_classes = 1000;
    EXPECT_EQ(parameters(wide), 3504872U);
    EXPECT_EQ(inspect_model(zoo("plain_cnn", {3, 16, 16}))->layers.size(), 11U);
}

TEST_F(Engine, MobileNetHasTorchvisionsNames) {
    const auto info = inspect_model(zoo("mobilenet_v2", {3, 32, 32}));
    std::map<std::string, Shape> shapes;
    for (const TensorInfo& tensor : info->tensors) shapes[tensor.name] = tensor.shape;
    EXPECT_EQ(shapes.size(), 314U);  // torchvision's state dict
    EXPECT_EQ(shapes["features.0.0.weight"], (Shape{32, 3, 3, 3}));
    EXPECT_EQ(shapes["features.1.conv.0.0.weight"], (Shape{32, 1, 3, 3}));
    EXPECT_EQ(shapes["features.1.conv.1.weight"], (Shape{16, 32, 1, 1}));
    EXPECT_EQ(shapes["features.2.conv.3.running_var"], (Shape{24}));
    EXPECT_EQ(shapes["features.17.conv.2.weight"], (Shape{320, 960, 1, 1}));
    EXPECT_EQ(shapes["features.18.1.num_batches_tracked"], Shape{});
    EXPECT_EQ(shapes["classifier.1.weight"], (Shape{10, 1280}));
}

// The same steps in one executor and in two, cut after `cut`, with or without recomputation.
TensorMap train_cut(const ModelSpec& spec, int cut, bool recompute, const OptimizerSpec& optimizer,
                    bool split_backward = false) {
    const int layers = static_cast<int>(inspect_model(spec)->layers.size());
    ExecutorOptions options;
    options.optimizer = optimizer;
    options.seed = 5;
    options.recompute = recompute;
    std::vector<std::unique_ptr<Executor>> stages;
    const std::vector<LayerRange> ranges =
        cut < 0 ? std::vector<LayerRange>{{0, layers - 1}}
                : std::vector<LayerRange>{{0, cut}, {cut + 1, layers - 1}};
    for (const LayerRange range : ranges) {
        options.range = range;
        stages.push_back(std::move(*Executor::create(spec, options)));
    }
    const auto weights = initial_weights(spec, 3);
    for (const NamedTensor& weight : *weights)
        for (auto& stage : stages) static_cast<void>(stage->load_state(weight.name, weight.tensor));
    for (std::uint64_t step = 0; step < 3; ++step) {
        const std::vector<std::int64_t> sizes{3, 3, 2};
        for (auto& stage : stages) stage->begin_step(step, 8);
        for (std::uint32_t m = 0; m < sizes.size(); ++m) {
            const Batch batch = random_batch(spec, sizes[m], step * 10 + m);
            std::vector<HostTensor> values{batch.inputs};
            for (auto& stage : stages) values = *stage->forward(m, values, &batch.labels);
            for (std::size_t s = stages.size(); s-- > 0;)
                values = split_backward ? *stages[s]->input_gradient(m, values)
                                        : *stages[s]->backward(m, values);
        }
        for (std::uint32_t m = 0; split_backward && m < sizes.size(); ++m)
            for (auto& stage : stages) EXPECT_TRUE(stage->weight_gradient(m));
        for (auto& stage : stages) stage->commit(0.05, 1.0);
    }
    TensorMap state;
    for (auto& stage : stages)
        for (NamedTensor& entry : stage->state(false)) state.push_back(std::move(entry));
    return state;
}

TEST_F(Engine, NoCutNoRecomputationAndNoSplitBackwardChangesABit) {
    const ModelSpec spec = zoo("mobilenet_v2", {3, 32, 32});
    for (const OptimizerSpec& optimizer :
         {OptimizerSpec{"sgd", 0.9, 1e-3}, OptimizerSpec{"adam", 0, 0}}) {
        const TensorMap reference = train_cut(spec, -1, false, optimizer);
        EXPECT_TRUE(same_bytes(reference, train_cut(spec, -1, true, optimizer)));
        for (const int cut : {0, 7, 18, 20}) {
            EXPECT_TRUE(same_bytes(reference, train_cut(spec, cut, false, optimizer)))
                << "cut after " << cut;
            EXPECT_TRUE(same_bytes(reference, train_cut(spec, cut, false, optimizer, true)))
                << "cut after " << cut << ", split backward";
            EXPECT_TRUE(same_bytes(reference, train_cut(spec, cut, true, optimizer)))
                << "recomputing, cut after " << cut;
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
}  // namespace ecopipe
