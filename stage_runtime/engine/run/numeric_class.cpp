#include "stage_runtime/engine/run/numeric_class.h"

#include <fmt/format.h>

#include "core/random.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/executor.h"

namespace ecopipe {

Result<NumericClass> measure_numeric_class(int threads) {
    constexpr std::int64_t kSamples = 6;  // not a multiple of any vector length: tails count too
    constexpr int kSide = 14;
    ModelSpec spec;
    spec.zoo =
        "mobilenet_v2";  // depthwise and plain convolutions, batch norm, dropout, a dense layer
    spec.input_shape = {3, kSide * 3, kSide * 3};
    spec.num_classes = 7;
    ExecutorOptions options;
    options.optimizer = {"adam", 0, 1e-4};
    ECOPIPE_ASSIGN_OR_RETURN(const TensorMap weights, initial_weights(spec, 1));
    ECOPIPE_ASSIGN_OR_RETURN(const ModelInfo info, inspect_model(spec));
    options.range = {0, static_cast<int>(info.layers.size()) - 1};
    ECOPIPE_ASSIGN_OR_RETURN(const auto executor, Executor::create(spec, options));
    for (const NamedTensor& weight : weights)
        ECOPIPE_RETURN_IF_ERROR(executor->load_state(weight.name, weight.tensor));
    Rng rng(2);
    HostTensor inputs = HostTensor::allocate(DType::kF32, {kSamples, 3, kSide * 3, kSide * 3});
    HostTensor labels = HostTensor::allocate(DType::kI64, {kSamples});
    for (float& value : inputs.as<float>()) value = static_cast<float>(rng.uniform());
    for (std::int64_t& label : labels.as<std::int64_t>())
        label = static_cast<std::int64_t>(rng.below(7));
    for (std::uint64_t step = 0; step < 2; ++step) {
        executor->begin_step(step, static_cast<double>(kSamples));
        ECOPIPE_RETURN_IF_ERROR(executor->forward(0, {inputs}, &labels));
        ECOPIPE_RETURN_IF_ERROR(executor->backward(0, {}));
        static_cast<void>(executor->finish_step());
        executor->commit(0.01, 1.0);
    }
    NumericClass result;
    for (const NamedTensor& entry : executor->state(true)) {
        const auto* bytes = reinterpret_cast<const char*>(entry.tensor.data());
        result.hash = keyed_seed(result.hash, std::string_view(bytes, entry.tensor.bytes()));
    }
    const TorchVersions versions = torch_versions();
    result.summary = fmt::format("libtorch {}, {}, {}, {} thread{}", versions.torch, versions.blas,
                                 versions.instruction_set, threads, threads == 1 ? "" : "s");
    return result;
}

}  // namespace ecopipe
