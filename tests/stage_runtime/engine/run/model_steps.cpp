#include "tests/stage_runtime/engine/run/model_steps.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/random.h"

namespace ecopipe::test {

ModelSpec zoo(const std::string& name, Shape input, int num_classes) {
    ModelSpec spec;
    spec.zoo = name;
    spec.input_shape = std::move(input);
    spec.num_classes = num_classes;
    return spec;
}

Batch random_batch(const ModelSpec& spec, std::int64_t samples, std::uint64_t seed) {
    Shape shape = spec.input_shape;
    shape.insert(shape.begin(), samples);
    const bool tokens = spec.input_shape.size() == 1;
    constexpr std::uint64_t kTokens = 100;
    Batch batch{HostTensor::allocate(tokens ? DType::kI64 : DType::kF32, shape),
                HostTensor::allocate(DType::kI64, {samples})};
    Rng rng(seed);
    if (tokens) {
        for (auto& id : batch.inputs.as<std::int64_t>())
            id = static_cast<std::int64_t>(rng.below(kTokens));
    } else {
        for (float& value : batch.inputs.as<float>()) value = static_cast<float>(rng.uniform());
    }
    for (auto& label : batch.labels.as<std::int64_t>())
        label = static_cast<std::int64_t>(rng.below(10));
    return batch;
}

std::size_t parameters(const ModelSpec& spec, const std::string& layers) {
    std::size_t count = 0;
    const auto info = inspect_model(spec);
    for (const TensorInfo& tensor : info->tensors) {
        const std::string& layer = info->layers[static_cast<std::size_t>(tensor.layer)].name;
        if (!tensor.trainable || !layer.starts_with(layers)) continue;
        std::size_t elements = 1;
        for (const auto dimension : tensor.shape) elements *= static_cast<std::size_t>(dimension);
        count += elements;
    }
    return count;
}

std::map<std::string, Shape> shapes_of(const ModelSpec& spec) {
    std::map<std::string, Shape> shapes;
    const auto info = inspect_model(spec);
    for (const TensorInfo& tensor : info->tensors) shapes[tensor.name] = tensor.shape;
    return shapes;
}

bool same_bytes(const TensorMap& a, const TensorMap& b) {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i)
        if (a[i].name != b[i].name || a[i].tensor.shape() != b[i].tensor.shape() ||
            std::memcmp(a[i].tensor.data(), b[i].tensor.data(), a[i].tensor.bytes()) != 0)
            return false;
    return true;
}

TensorMap train_cut(const ModelSpec& spec, int cut, const Segments& recomputed,
                    const OptimizerSpec& optimizer, bool split_backward) {
    const int layers = static_cast<int>(inspect_model(spec)->layers.size());
    ExecutorOptions options;
    options.optimizer = optimizer;
    options.seed = 5;
    std::vector<std::unique_ptr<Executor>> stages;
    const std::vector<LayerRange> ranges =
        cut < 0 ? std::vector<LayerRange>{{0, layers - 1}}
                : std::vector<LayerRange>{{0, cut}, {cut + 1, layers - 1}};
    for (const LayerRange range : ranges) {
        options.range = range;
        options.recomputed = within(recomputed, range);
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
        for (auto& stage : stages) static_cast<void>(stage->finish_step());
        for (auto& stage : stages) stage->commit(0.05, 1.0);
    }
    TensorMap state;
    for (auto& stage : stages)
        for (NamedTensor& entry : stage->state(false)) state.push_back(std::move(entry));
    EXPECT_FALSE(same_bytes(state, *weights)) << "nothing was trained";
    return state;
}

}  // namespace ecopipe::test
