#pragma once
// The optimiser that every stage runs.

#include <string>

namespace ecopipe {

struct OptimizerSpec {
    std::string name = "sgd";  // sgd | adam | adamw
    double momentum = 0;
    double weight_decay = 0;
    // FedProx: the gradient gains mu * (w - w0), w0 being the weights at the first step since the
    // optimiser was reset.
    double proximal_mu = 0;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(name, momentum, weight_decay, proximal_mu);
    }
    friend bool operator==(const OptimizerSpec&, const OptimizerSpec&) = default;
    [[nodiscard]] bool known() const { return name == "sgd" || name == "adam" || name == "adamw"; }
    // Tensors of a parameter's size that it keeps.
    [[nodiscard]] int slots() const {
        return (name != "sgd" ? 2 : momentum != 0 ? 1 : 0) + (proximal_mu != 0 ? 1 : 0);
    }
};

}  // namespace ecopipe
