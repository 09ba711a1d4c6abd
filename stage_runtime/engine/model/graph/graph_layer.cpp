#include "stage_runtime/engine/model/graph/graph_layer.h"

#include <ATen/Functions.h>
#include <ATen/ScalarOps.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "stage_runtime/engine/model/graph/operators.h"
#include "stage_runtime/engine/model/tensor_bridge.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/model/torch_error.h"

namespace ecopipe {
namespace {

using c10::IValue;
using c10::TypeKind;

at::ScalarType scalar_type_of(DType dtype) {
    switch (dtype) {
        case DType::kF32:
            return at::kFloat;
        case DType::kF64:
            return at::kDouble;
        case DType::kF16:
            return at::kHalf;
        case DType::kBF16:
            return at::kBFloat16;
        case DType::kI64:
            return at::kLong;
        case DType::kI32:
            return at::kInt;
        case DType::kI16:
            return at::kShort;
        case DType::kI8:
            return at::kChar;
        case DType::kU8:
            return at::kByte;
        case DType::kBool:
            return at::kBool;
    }
    return at::kFloat;
}

// What a node's operators compute with while it runs.
struct Frame {
    const Tensors& inputs;
    const std::vector<LayerTensor>& tensors;
    std::vector<at::Tensor> locals;
    std::int64_t batch = 0;
    bool training = false;
};

// One argument, ready for its operator: a constant, or made anew at each call.
class Argument {
  public:
    // Errors: what is expected of the argument.
    static Result<Argument> make(const GraphArgument& given, const c10::TypePtr& type) {
        Argument argument;
        ECOPIPE_RETURN_IF_ERROR(argument.read(given, type));
        if (!argument.varies_) {
            const Tensors none;
            const std::vector<LayerTensor> no_tensors;
            argument.constant_ = argument.build({none, no_tensors, {}, 1, false});
        }
        return argument;
    }

    static Argument of_default(IValue value) {
        Argument argument;
        argument.constant_ = std::move(value);
        return argument;
    }

    [[nodiscard]] IValue value(const Frame& frame) const {
        return varies_ ? build(frame) : constant_;
    }

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

    static tl::unexpected<Error> expected(const std::string& what) {
        return fail(ExitCode::kBadFile, "expected " + what);
    }

    Result<void> read(const GraphArgument& given, const c10::TypePtr& type) {
        given_ = given;
        if (const auto* modes = std::get_if<GraphArgument::Modes>(&given.what)) {
            kind_ = Kind::kModes;
            varies_ = true;
            for (const GraphArgument& literal : modes->literals) {
                Argument each;
                ECOPIPE_RETURN_IF_ERROR(each.read(literal, type));
                parts_.push_back(std::move(each));
            }
            return {};
        }
        if (std::holds_alternative<graph_argument::None>(given.what)) {
            kind_ = Kind::kNone;
            if (type->kind() != TypeKind::OptionalType && type->kind() != TypeKind::NoneType)
                return expected(type->str());
            return {};
        }
        if (type->kind() == TypeKind::OptionalType)
            return read(given, type->castRaw<c10::OptionalType>()->getElementType());
        if (type->kind() == TypeKind::ListType) return read_list(given, type);
        return read_one(given, type);
    }

    Result<void> read_one(const GraphArgument& given, const c10::TypePtr& type) {
        const auto* size = std::get_if<GraphSize>(&given.what);
        const auto* number = std::get_if<double>(&given.what);
        const auto* flag = std::get_if<bool>(&given.what);
        const bool reference = std::holds_alternative<graph_argument::Value>(given.what) ||
                               std::holds_alternative<graph_argument::Local>(given.what) ||
                               std::holds_alternative<graph_argument::Tensor>(given.what);
        switch (type->kind()) {
            case TypeKind::TensorType:
                if (reference) {
                    kind_ = Kind::kTensor;
                    varies_ = true;
                    return {};
                }
                if ((size == nullptr || size->of_batch) && number == nullptr && flag == nullptr)
                    return expected("a tensor");
                kind_ = Kind::kNumberTensor;
                return {};
            case TypeKind::IntType:
            case TypeKind::SymIntType:
                if (std::holds_alternative<graph_argument::Type>(given.what) ||
                    std::holds_alternative<graph_argument::MemoryLayout>(given.what)) {
                    kind_ = Kind::kInteger;
                    return {};
                }
                if (size == nullptr) return expected("a whole number");
                kind_ = Kind::kInteger;
                varies_ = size->of_batch;
                return {};
            case TypeKind::FloatType:
                if (number == nullptr && (size == nullptr || size->of_batch))
                    return expected("a number");
                kind_ = Kind::kNumber;
                return {};
            case TypeKind::BoolType:
                if (flag == nullptr) return expected("true or false");
                kind_ = Kind::kBool;
                return {};
            case TypeKind::NumberType:
                kind_ = size != nullptr     ? Kind::kInteger
                        : number != nullptr ? Kind::kNumber
                                            : Kind::kBool;
                if (kind_ == Kind::kBool && flag == nullptr) return expected("a number");
                varies_ = size != nullptr && size->of_batch;
                return {};
            case TypeKind::StringType:
                if (!std::holds_alternative<std::string>(given.what)) return expected("a text");
                kind_ = Kind::kText;
                return {};
            default:
                return read_special(given, type);
        }
    }

    // ScalarType, MemoryFormat and Layout are types of their own in later versions.
    Result<void> read_special(const GraphArgument& given, const c10::TypePtr& type) {
        if (std::holds_alternative<graph_argument::Type>(given.what) ||
            std::holds_alternative<graph_argument::MemoryLayout>(given.what)) {
            kind_ = Kind::kInteger;
            return {};
        }
        return expected(type->str());
    }

    Result<void> read_list(const GraphArgument& given, const c10::TypePtr& type) {
        const c10::TypePtr element = type->castRaw<c10::ListType>()->getElementType();
        const bool optional = element->kind() == TypeKind::OptionalType;
        const c10::TypePtr plain =
            optional ? element->castRaw<c10::OptionalType>()->getElementType() : element;
        switch (plain->kind()) {
            case TypeKind::IntType:
            case TypeKind::SymIntType:
                kind_ = Kind::kIntegers;
                break;
            case TypeKind::FloatType:
                kind_ = Kind::kNumbers;
                break;
            case TypeKind::BoolType:
                kind_ = Kind::kBools;
                break;
            case TypeKind::TensorType:
                kind_ = optional ? Kind::kOptionalTensors : Kind::kTensors;
                break;
            default:
                return expected(type->str());
        }
        const auto* list = std::get_if<GraphArgument::List>(&given.what);
        if (list == nullptr) {
            // int[2] takes one number for both.
            if (kind_ != Kind::kIntegers || !std::holds_alternative<GraphSize>(given.what))
                return expected("a list");
            Argument only;
            ECOPIPE_RETURN_IF_ERROR(only.read(given, element));
            varies_ = only.varies_;
            parts_.push_back(std::move(only));
            return {};
        }
        for (const GraphArgument& each : *list) {
            Argument part;
            ECOPIPE_RETURN_IF_ERROR(part.read(each, element));
            if (part.kind_ == Kind::kNumberTensor) return expected("a list of tensors");
            varies_ = varies_ || part.varies_;
            parts_.push_back(std::move(part));
        }
        return {};
    }

    [[nodiscard]] at::Tensor tensor(const Frame& frame) const {
        if (const auto* value = std::get_if<graph_argument::Value>(&given_.what))
            return frame.inputs[static_cast<std::size_t>(value->input)];
        if (const auto* local = std::get_if<graph_argument::Local>(&given_.what))
            return frame.locals[static_cast<std::size_t>(local->number)];
        const auto& own = std::get<graph_argument::Tensor>(given_.what);
        return frame.tensors[static_cast<std::size_t>(own.tensor)].tensor;
    }

    [[nodiscard]] std::int64_t integer(const Frame& frame) const {
        if (const auto* size = std::get_if<GraphSize>(&given_.what)) return size->at(frame.batch);
        if (const auto* type = std::get_if<graph_argument::Type>(&given_.what))
            return static_cast<std::int64_t>(scalar_type_of(type->dtype));
        switch (std::get<graph_argument::MemoryLayout>(given_.what)) {
            case graph_argument::MemoryLayout::kContiguous:
                return static_cast<std::int64_t>(at::MemoryFormat::Contiguous);
            case graph_argument::MemoryLayout::kPreserve:
                return static_cast<std::int64_t>(at::MemoryFormat::Preserve);
            case graph_argument::MemoryLayout::kChannelsLast:
                return static_cast<std::int64_t>(at::MemoryFormat::ChannelsLast);
            case graph_argument::MemoryLayout::kChannelsLast3d:
                break;
        }
        return static_cast<std::int64_t>(at::MemoryFormat::ChannelsLast3d);
    }

    [[nodiscard]] double number() const {
        if (const auto* size = std::get_if<GraphSize>(&given_.what))
            return static_cast<double>(size->number);
        return std::get<double>(given_.what);
    }

    [[nodiscard]] at::Tensor number_tensor() const {
        c10::Scalar scalar;
        if (const auto* flag = std::get_if<bool>(&given_.what))
            scalar = *flag;
        else if (const auto* size = std::get_if<GraphSize>(&given_.what))
            scalar = size->number;
        else
            scalar = std::get<double>(given_.what);
        // As Python hands over a number: it does not decide the result's type.
        at::Tensor made = at::scalar_to_tensor(scalar);
        made.unsafeGetTensorImpl()->set_wrapped_number(true);
        return made;
    }

    [[nodiscard]] IValue build(const Frame& frame) const {
        switch (kind_) {
            case Kind::kNone:
                return {};
            case Kind::kInteger:
                return integer(frame);
            case Kind::kNumber:
                return number();
            case Kind::kBool:
                return std::get<bool>(given_.what);
            case Kind::kText:
                return std::get<std::string>(given_.what);
            case Kind::kTensor:
                return tensor(frame);
            case Kind::kNumberTensor:
                return number_tensor();
            case Kind::kModes:
                return parts_[frame.training ? 0 : 1].build(frame);
            case Kind::kIntegers: {
                c10::List<std::int64_t> list;
                for (const Argument& part : parts_) list.push_back(part.integer(frame));
                return list;
            }
            case Kind::kNumbers: {
                c10::List<double> list;
                for (const Argument& part : parts_) list.push_back(part.number());
                return list;
            }
            case Kind::kBools: {
                c10::List<bool> list;
                for (const Argument& part : parts_)
                    list.push_back(std::get<bool>(part.given_.what));
                return list;
            }
            case Kind::kTensors: {
                c10::List<at::Tensor> list;
                for (const Argument& part : parts_) list.push_back(part.tensor(frame));
                return list;
            }
            case Kind::kOptionalTensors:
                break;
        }
        c10::List<c10::optional<at::Tensor>> list;
        for (const Argument& part : parts_)
            list.push_back(part.kind_ == Kind::kNone
                               ? c10::optional<at::Tensor>()
                               : c10::optional<at::Tensor>(part.tensor(frame)));
        return list;
    }

    GraphArgument given_{graph_argument::None{}};
    Kind kind_ = Kind::kNone;
    bool varies_ = false;
    std::vector<Argument> parts_;
    IValue constant_;
};

at::Tensor stochastic_depth(const at::Tensor& x, double rate, const std::string& mode) {
    if (rate == 0) return x;
    std::vector<std::int64_t> size(static_cast<std::size_t>(x.dim()), 1);
    if (mode == "row" && !size.empty()) size[0] = x.size(0);
    at::Tensor noise = at::empty(size, x.options().requires_grad(false)).bernoulli_(1.0 - rate);
    if (rate < 1) noise.div_(1.0 - rate);
    return x * noise;
}

class Step {
  public:
    // Errors: what is wrong with the operator here.
    static Result<Step> make(const GraphOperator& op) {
        Step step;
        step.first_local_ = static_cast<std::size_t>(op.first_local);
        step.outputs_ = static_cast<std::size_t>(op.outputs);
        if (is_keyed_draw(op.name)) {
            ECOPIPE_RETURN_IF_ERROR(step.resolve_draw(op));
        } else {
            ECOPIPE_RETURN_IF_ERROR(step.resolve(op));
        }
        return step;
    }

    [[nodiscard]] bool draws() const { return !draw_.empty(); }
    std::vector<std::size_t> last_uses;  // locals that nobody needs after it

    void run(Frame& frame) const {
        if (draws()) {
            frame.locals[first_local_] = run_draw(frame);
            return;
        }
        torch::jit::Stack stack;
        stack.reserve(arguments_.size());
        for (const Argument& argument : arguments_) stack.push_back(argument.value(frame));
        handle_->callBoxed(stack);
        std::size_t made = 0;
        const auto keep = [&](at::Tensor tensor) {
            TORCH_CHECK(made < outputs_, "makes more tensors than the graph says");
            frame.locals[first_local_ + made++] = std::move(tensor);
        };
        for (IValue& result : stack) {
            if (result.isTensor()) {
                keep(std::move(result).toTensor());
            } else {
                TORCH_CHECK(result.isTensorList(), "makes something else than tensors");
                for (const at::Tensor& tensor : result.toTensorVector()) keep(tensor);
            }
        }
        TORCH_CHECK(made == outputs_, "makes ", made, " tensors, the graph says ", outputs_);
    }

    [[nodiscard]] const std::string& name() const { return name_; }

  private:
    Result<void> resolve(const GraphOperator& op) {
        name_ = op.overload.empty() ? op.name : op.name + "." + op.overload;
        const auto found =
            c10::Dispatcher::singleton().findSchema({op.name.c_str(), op.overload.c_str()});
        if (!found)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: LibTorch {} has no such operator; export the model with "
                                    "--aten 1.13",
                                    name_, torch_versions().torch));
        handle_ = *found;
        const auto& schema = handle_->schema();
        std::map<std::string, const GraphArgument*> keywords;
        for (const auto& [keyword, argument] : op.keywords) keywords[keyword] = &argument;
        std::size_t position = 0;
        for (const c10::Argument& expected : schema.arguments()) {
            const GraphArgument* given = nullptr;
            if (const auto keyword = keywords.find(expected.name()); keyword != keywords.end()) {
                given = keyword->second;
                keywords.erase(keyword);
            } else if (!expected.kwarg_only() && position < op.arguments.size()) {
                given = &op.arguments[position++];
            }
            if (given != nullptr) {
                auto argument = Argument::make(*given, expected.real_type());
                if (!argument)
                    return fail(ExitCode::kBadFile,
                                fmt::format("{}: {}: {}", name_, expected.name(),
                                            argument.error().message));
                arguments_.push_back(std::move(*argument));
            } else if (expected.default_value()) {
                arguments_.push_back(Argument::of_default(*expected.default_value()));
            } else {
                return fail(ExitCode::kBadFile,
                            fmt::format("{}: {} is missing", name_, expected.name()));
            }
        }
        if (position < op.arguments.size() || !keywords.empty())
            return fail(ExitCode::kBadFile, fmt::format("{}: has more arguments than LibTorch {} "
                                                        "knows; export the model with --aten 1.13",
                                                        name_, torch_versions().torch));
        return {};
    }

    Result<void> resolve_draw(const GraphOperator& op) {
        draw_ = name_ = op.name;
        const std::size_t wanted = draw_ == "ecopipe::stochastic_depth" ? 3 : 2;
        if (op.arguments.size() != wanted || !op.keywords.empty() || op.outputs != 1)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: expected {} arguments and one output", draw_, wanted));
        for (std::size_t i = 0; i < wanted; ++i) {
            const c10::TypePtr type = i == 0   ? c10::TypePtr(c10::TensorType::get())
                                      : i == 1 ? c10::TypePtr(c10::FloatType::get())
                                               : c10::TypePtr(c10::StringType::get());
            auto argument = Argument::make(op.arguments[i], type);
            if (!argument) return fail_in(draw_, argument.error());
            arguments_.push_back(std::move(*argument));
        }
        return {};
    }

    [[nodiscard]] at::Tensor run_draw(const Frame& frame) const {
        at::Tensor x = arguments_[0].value(frame).toTensor();
        const double rate = frame.training ? arguments_[1].value(frame).toDouble() : 0.0;
        TORCH_CHECK(rate >= 0 && rate <= 1, "expected a rate from 0 to 1, found ", rate);
        if (rate == 0) return x;
        if (draw_ == "ecopipe::dropout") return at::dropout(x, rate, true);
        if (draw_ == "ecopipe::dropout_channels") return at::feature_dropout(x, rate, true);
        return stochastic_depth(x, rate, arguments_[2].value(frame).toStringRef());
    }

    std::string name_;
    std::string draw_;  // "" for torch's own
    c10::optional<c10::OperatorHandle> handle_;
    std::vector<Argument> arguments_;
    std::size_t first_local_ = 0;
    std::size_t outputs_ = 1;
};

class GraphLayer : public Layer {
  public:
    std::vector<Step> steps;
    std::vector<std::pair<int, int>> results;  // value, local
    std::size_t locals = 0;

    Tensors forward(const Tensors& inputs, bool training) override {
        Frame frame{inputs, tensors, std::vector<at::Tensor>(locals), inputs.empty() ? 0 : 1,
                    training};
        if (!inputs.empty() && inputs[0].dim() > 0) frame.batch = batch_of(inputs);
        for (const Step& step : steps) {
            try {
                step.run(frame);
            } catch (const c10::Error& error) {
                TORCH_CHECK(false, step.name(), ": ", error.what_without_backtrace());
            }
            for (const std::size_t local : step.last_uses) frame.locals[local] = at::Tensor();
        }
        Tensors outputs;
        for (const auto& [value, local] : results)
            outputs.push_back(frame.locals[static_cast<std::size_t>(local)]);
        return outputs;
    }

    // Of each input, what its first dimension is times the batch; 0: none of it.
    std::vector<std::int64_t> batch_times;

  private:
    [[nodiscard]] std::int64_t batch_of(const Tensors& inputs) const {
        for (std::size_t i = 0; i < inputs.size(); ++i)
            if (batch_times[i] > 0) return inputs[i].size(0) / batch_times[i];
        return 1;
    }
};

void note_locals(const GraphArgument& argument, std::vector<std::size_t>& found) {
    if (const auto* local = std::get_if<graph_argument::Local>(&argument.what))
        found.push_back(static_cast<std::size_t>(local->number));
    else if (const auto* list = std::get_if<GraphArgument::List>(&argument.what))
        for (const GraphArgument& each : *list) note_locals(each, found);
}

// After which operator each local is let go: what leaves the node never is.
void note_last_uses(const GraphNode& node, std::vector<Step>& steps) {
    std::vector<std::size_t> last(static_cast<std::size_t>(node.locals));
    for (std::size_t s = 0; s < node.operators.size(); ++s) {
        const GraphOperator& op = node.operators[s];
        for (int i = 0; i < op.outputs; ++i) last[static_cast<std::size_t>(op.first_local + i)] = s;
        std::vector<std::size_t> used;
        for (const GraphArgument& argument : op.arguments) note_locals(argument, used);
        for (const auto& [keyword, argument] : op.keywords) note_locals(argument, used);
        for (const std::size_t local : used) last[local] = s;
    }
    for (std::size_t local = 0; local < last.size(); ++local)
        if (std::none_of(node.outputs.begin(), node.outputs.end(), [&](const auto& output) {
                return static_cast<std::size_t>(output.second) == local;
            }))
            steps[last[local]].last_uses.push_back(local);
}

}  // namespace

Result<Layers> graph_layers(const GraphFile& graph) {
    // A tensor that two nodes use is one: both then hold the same.
    std::vector<at::Tensor> held(graph.tensors.size());
    Layers layers;
    try {
        for (const GraphNode& node : graph.nodes) {
            auto layer = std::make_unique<GraphLayer>();
            layer->name = node.name;
            layer->kind = node.kind;
            layer->locals = static_cast<std::size_t>(node.locals);
            layer->results = node.outputs;
            for (const int value : node.inputs) {
                const auto& shape = graph.values[static_cast<std::size_t>(value)].shape;
                layer->batch_times.push_back(!shape.empty() && shape[0].of_batch ? shape[0].number
                                                                                 : 0);
            }
            for (const int index : node.tensors) {
                const GraphTensor& facts = graph.tensors[static_cast<std::size_t>(index)];
                at::Tensor& tensor = held[static_cast<std::size_t>(index)];
                const bool first = !tensor.defined();
                // What is looked up by is in bounds before it is loaded, too.
                const at::TensorOptions kind(scalar_type_of(facts.dtype));
                if (first)
                    tensor = is_floating(facts.dtype) ? at::empty(facts.shape, kind)
                                                      : at::zeros(facts.shape, kind);
                LayerTensor entry{facts.name, tensor, facts.trainable, facts.buffer, nullptr};
                entry.lent = !first;
                layer->tensors.push_back(std::move(entry));
            }
            for (const GraphOperator& op : node.operators) {
                auto step = Step::make(op);
                if (!step)
                    return fail(step.error().code,
                                fmt::format("node {}: {}", node.name, step.error().message));
                layer->draws = layer->draws || step->draws();
                layer->steps.push_back(std::move(*step));
            }
            note_last_uses(node, layer->steps);
            layers.push_back(std::move(layer));
        }
    } catch (const std::exception& error) {
        return fail(ExitCode::kBadFile, torch_message(error));
    }
    return layers;
}

}  // namespace ecopipe
