#pragma once
// The optimiser that every stage runs.

#include <cstdint>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"
#include "domain/model_spec.h"

namespace ecopipe {

inline constexpr const char* kOptimizerNames = "sgd, adam, adamw or adafactor";

struct OptimizerSpec {
    std::string name = "sgd";  // one of kOptimizerNames
    double momentum = 0;
    double weight_decay = 0;
    // FedProx: the gradient gains mu * (w - w0), w0 being the weights at the first step since the
    // optimiser was reset.
    double proximal_mu = 0;
    // How momentum and Adam's averages are kept: kF32, or kBF16, rounded up or down by chance so
    // that no bias builds up.
    DType moments = DType::kF32;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(name, momentum, weight_decay, proximal_mu, moments);
    }
    friend bool operator==(const OptimizerSpec&, const OptimizerSpec&) = default;
    [[nodiscard]] bool known() const;
    // What it keeps beside a trainable F32 parameter of this shape, scalars left out.
    [[nodiscard]] std::uint64_t state_bytes(const Shape& parameter) const;
    // Tensors of the size of any parameter among them.
    [[nodiscard]] int slots() const;
};

// As flags give them. Errors: kUsage, naming the flag.
[[nodiscard]] Result<OptimizerSpec> parse_optimizer(const std::string& name,
                                                    const std::string& moments);

// By layers of the model, what the optimiser keeps for its trainable parameters.
[[nodiscard]] std::vector<std::uint64_t> optimizer_bytes(const ModelInfo& info,
                                                         const OptimizerSpec& optimizer);

// Adafactor's view of a parameter: rows by columns. One row: it is not factored.
struct FactoredShape {
    std::int64_t rows = 1;
    std::int64_t columns = 1;
    explicit FactoredShape(const Shape& parameter);
    [[nodiscard]] bool factored() const { return rows > 1; }
};

}  // namespace ecopipe
