// Rule 5 of the promise: TorchScript computes the same bits on every call. Its graph optimiser
// changed backward bits after the first ones, for Sigmoid, SiLU and Hardswish among others.
#include <cstring>

#include "core/random.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/single_process.h"
#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

class TorchScriptGradients : public Training {};

TEST_F(TorchScriptGradients, TheFirstAndTheFifthAreByteIdentical) {
    configure_torch(1);
    ModelSpec spec;
    spec.torchscript_path = torchscript("activations", 8).model;
    spec.input_shape = {1, 28, 28};
    Batch batch{HostTensor::allocate(DType::kF32, {8, 1, 28, 28}),
                HostTensor::allocate(DType::kI64, {8})};
    Rng rng(4);
    for (float& value : batch.inputs.as<float>()) value = static_cast<float>(rng.uniform());
    for (auto& label : batch.labels.as<std::int64_t>())
        label = static_cast<std::int64_t>(rng.below(10));
    const std::vector<Batch> batches{batch};
    // One update at rate 1 without momentum shows the gradient's every bit in the weights.
    const auto weights_after = [&](int passes) {
        auto process = SingleProcess::create(spec, ExecutorOptions{});
        EXPECT_TRUE(process);
        for (int pass = 0; pass < passes; ++pass)
            EXPECT_TRUE(process->run_step(0, batches, 8));  // each forgets the last
        process->commit(1.0, 1.0);
        return process->state(false);
    };
    const TensorMap first = weights_after(1);
    const TensorMap fifth = weights_after(5);
    ASSERT_EQ(first.size(), fifth.size());
    for (std::size_t i = 0; i < first.size(); ++i)
        EXPECT_EQ(
            std::memcmp(first[i].tensor.data(), fifth[i].tensor.data(), first[i].tensor.bytes()), 0)
            << first[i].name;
}

}  // namespace
}  // namespace ecopipe::test
