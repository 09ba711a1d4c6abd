#include "stage_runtime/engine/model/graph/operator_checks.h"

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "stage_runtime/engine/model/graph/graph_file.h"

namespace ecopipe {
namespace {

// aten::lstm.input and its kin: (input, hx, params, has_biases, num_layers, dropout, train,
// bidirectional, batch_first), with one state or, of an LSTM, two of the same shape.
void check_recurrent(const std::string& name, const torch::jit::Stack& arguments) {
    const bool lstm = name.starts_with("aten::lstm");
    const std::int64_t gates = lstm ? 4 : name.starts_with("aten::gru") ? 3 : 1;
    const at::Tensor input = arguments[0].toTensor();
    const std::vector<at::Tensor> states =
        lstm ? arguments[1].toTensorVector() : std::vector<at::Tensor>{arguments[1].toTensor()};
    const std::vector<at::Tensor> weights = arguments[2].toTensorVector();
    const bool biases = arguments[3].toBool();
    const std::int64_t layers = arguments[4].toInt();
    const std::int64_t directions = arguments[7].toBool() ? 2 : 1;
    TORCH_CHECK(input.dim() == 3, "expected an input of three dimensions");
    const std::int64_t batch = input.size(arguments[8].toBool() ? 0 : 1);
    const std::int64_t each = biases ? 4 : 2;
    TORCH_CHECK(layers >= 1 && layers <= static_cast<std::int64_t>(weights.size()) &&
                    static_cast<std::int64_t>(weights.size()) == layers * directions * each,
                "expected ", each, " weights a layer and direction, of the same width");
    TORCH_CHECK(weights[1].dim() == 2, "expected weights of two dimensions");
    const std::int64_t hidden = weights[1].size(1);
    std::int64_t width = input.size(2);
    for (std::size_t i = 0; i < weights.size(); i += static_cast<std::size_t>(each)) {
        const auto layer = static_cast<std::int64_t>(i) / (directions * each);
        if (layer > 0) width = hidden * directions;
        const auto expect = [&](std::size_t which, at::IntArrayRef shape) {
            TORCH_CHECK(weights[i + which].sizes() == shape &&
                            weights[i + which].scalar_type() == input.scalar_type(),
                        "expected weight ", i + which, " of shape ", shape);
        };
        expect(0, {gates * hidden, width});
        expect(1, {gates * hidden, hidden});
        for (std::size_t bias = 2; bias < static_cast<std::size_t>(each); ++bias)
            expect(bias, {gates * hidden});
    }
    TORCH_CHECK(states.size() == (lstm ? 2 : 1), "expected ", lstm ? 2 : 1, " states");
    for (const at::Tensor& state : states)
        TORCH_CHECK(state.sizes() == at::IntArrayRef({layers * directions, batch, hidden}) &&
                        state.scalar_type() == input.scalar_type(),
                    "expected states of shape ",
                    at::IntArrayRef({layers * directions, batch, hidden}));
}

// Those that make a list of tensors out of one: how many, before they are there.
void check_parts(const std::string& name, const torch::jit::Stack& arguments) {
    const at::Tensor tensor = arguments[0].toTensor();
    const std::int64_t number = arguments[1].toInt();  // of parts, their size, or the dimension
    std::int64_t parts = number;
    if (name == "aten::unbind.int") {
        parts = tensor.size(number);
    } else if (name == "aten::split.Tensor") {
        TORCH_CHECK(number >= 1, "expected parts of 1 or more");
        parts = tensor.size(arguments[2].toInt()) / number;
    }
    TORCH_CHECK(parts <= kGraphOutputsMax, "makes more than ", kGraphOutputsMax, " tensors");
}

}  // namespace

OperandCheck operand_check(const std::string& name) {
    for (const char* parts :
         {"aten::chunk", "aten::split.Tensor", "aten::tensor_split.sections", "aten::unbind.int"})
        if (name == parts) return check_parts;
    for (const char* recurrent :
         {"aten::lstm.input", "aten::gru.input", "aten::rnn_tanh.input", "aten::rnn_relu.input"})
        if (name == recurrent) return check_recurrent;
    return nullptr;
}

}  // namespace ecopipe
