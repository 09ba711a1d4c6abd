#pragma once
// A model that is data: graph.json (docs/reference/graph.md), which lists the operators of every
// node, checked against what a graph may say. It knows nothing of torch; graph_layer.h runs it.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"
#include "domain/value_graph.h"

namespace ecopipe {

// A size, or any whole number an operator is given: `times` the batch size, or fixed.
struct GraphSize {
    std::int64_t number = 0;
    bool of_batch = false;
    [[nodiscard]] std::int64_t at(std::int64_t batch) const {
        return of_batch ? number * batch : number;
    }
};

namespace graph_argument {
struct None {};
struct Type {
    DType dtype;
};
enum class MemoryLayout : std::uint8_t { kContiguous, kPreserve, kChannelsLast, kChannelsLast3d };
struct Value {  // of the node's inputs, by its place among them
    int input;
};
struct Local {  // a tensor that an earlier operator of the node made, counted over all of them
    int number;
};
struct Tensor {  // a parameter, buffer or constant, by its place in GraphNode::tensors
    int tensor;
};
}  // namespace graph_argument

struct GraphArgument {
    using List = std::vector<GraphArgument>;
    struct Modes {
        std::vector<GraphArgument> literals;  // [0] in training, [1] in evaluation
    };
    std::variant<graph_argument::None, bool, GraphSize, double, std::string, graph_argument::Type,
                 graph_argument::MemoryLayout, graph_argument::Value, graph_argument::Local,
                 graph_argument::Tensor, List, Modes>
        what;
};

struct GraphOperator {
    std::string name;      // "aten::conv2d"
    std::string overload;  // "Tensor", or ""
    std::vector<GraphArgument> arguments;
    std::vector<std::pair<std::string, GraphArgument>> keywords;
    int outputs = 1;      // tensors that it makes
    int first_local = 0;  // their numbers
};

struct GraphNode {
    std::string name;
    std::string kind;
    std::vector<int> inputs;                   // into GraphFile::values
    std::vector<std::pair<int, int>> outputs;  // a value, and the local that it is
    std::vector<int> tensors;                  // into GraphFile::tensors
    std::vector<GraphOperator> operators;
    int locals = 0;
};

struct GraphTensor {
    std::string name;
    DType dtype = DType::kF32;
    Shape shape;
    bool buffer = false;  // else a parameter
    bool trainable = false;
    std::vector<std::string> other_names{};  // tied weights
};

struct GraphValue {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<GraphSize> shape;  // the first is of the batch
    bool gradient = true;          // comes back for it when what it is made of is trained
};

struct GraphFile {
    std::vector<GraphValue> values;  // the model's inputs first, then in the order of their makers
    int inputs = 0;                  // how many of them
    std::vector<GraphNode> nodes;
    int output = 0;  // the value that the loss takes
    std::vector<GraphTensor> tensors;

    [[nodiscard]] std::vector<ModelValue> model_values() const;
    // Of each node, and of the loss.
    [[nodiscard]] std::vector<std::vector<int>> arguments() const;
};

inline constexpr std::size_t kGraphBytesMax = 2U << 20;  // it travels in one message
inline constexpr std::size_t kGraphNodesMax = 4096;
inline constexpr std::size_t kGraphOperatorsMax = 200'000;
inline constexpr int kGraphOutputsMax = 1024;  // tensors of one operator
// Of any tensor that an operator makes, views too.
inline constexpr std::size_t kGraphBlockBytesMax = 4ULL << 30;
// Of a whole number but PyTorch's own for "to the end": products of two do not overflow.
inline constexpr std::int64_t kGraphNumberMax = std::int64_t{1} << 31;

// Errors: kBadFile naming the place: what is no graph.json, refers to what is not there, is out of
// bounds, or uses an operator that is not on the list, by its name and node. kMismatch for a later
// format.
[[nodiscard]] Result<GraphFile> parse_graph(std::string_view text, const std::string& source);

}  // namespace ecopipe
