#pragma once
// What an operator of a graph is given: checked against the place in its schema when the graph is
// loaded, and made for each call. Includes torch.

#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "stage_runtime/engine/model/graph/graph_file.h"
#include "stage_runtime/engine/model/layer.h"

namespace ecopipe {

// What a node's operators compute with while it runs.
struct NodeFrame {
    const Tensors& inputs;
    const std::vector<LayerTensor>& tensors;
    std::vector<at::Tensor> locals;
    std::int64_t batch = 0;
    bool training = false;
    Tensors* found = nullptr;  // Layer::found
};

// One argument, ready for its operator: a constant, or made anew at each call.
class OperatorArgument {
  public:
    // Errors: what is expected of the argument.
    static Result<OperatorArgument> make(const GraphArgument& given, const c10::TypePtr& type);
    // For a place of an operator's schema.
    static Result<OperatorArgument> make(const GraphArgument& given, const c10::Argument& place);
    static OperatorArgument of_default(c10::IValue value);

    [[nodiscard]] c10::IValue value(const NodeFrame& frame) const;

  private:
    enum class Kind {
        kNone,
        kInteger,
        kNumber,  // a double
        kBool,
        kText,
        kTensor,
        kNumberTensor,  // a tensor's place taken by a number
        kIntegers,
        kNumbers,
        kBools,
        kTensors,
        kOptionalTensors,
        kModes,
    };

    static OperatorArgument finished(OperatorArgument argument);
    Result<void> read(const GraphArgument& given, const c10::TypePtr& type);
    Result<void> read_one(const GraphArgument& given, const c10::TypePtr& type);
    Result<void> read_special(const GraphArgument& given, const c10::TypePtr& type);
    Result<void> read_list(const GraphArgument& given, const c10::TypePtr& type);
    // What Python's side of torch does with arguments, and its C++ side relies on.
    Result<void> as_python_does(const c10::Argument& place);
    [[nodiscard]] at::Tensor tensor(const NodeFrame& frame) const;
    [[nodiscard]] std::int64_t integer(const NodeFrame& frame) const;
    [[nodiscard]] double number() const;
    [[nodiscard]] at::Tensor number_tensor() const;
    [[nodiscard]] c10::IValue build(const NodeFrame& frame) const;

    GraphArgument given_{graph_argument::None{}};
    Kind kind_ = Kind::kNone;
    bool varies_ = false;
    std::vector<OperatorArgument> parts_;
    c10::IValue constant_;
};

}  // namespace ecopipe
