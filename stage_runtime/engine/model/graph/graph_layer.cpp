#include "stage_runtime/engine/model/graph/graph_layer.h"

#include <ATen/Functions.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "stage_runtime/engine/model/allocator.h"
#include "stage_runtime/engine/model/graph/operator_argument.h"
#include "stage_runtime/engine/model/graph/operator_checks.h"
#include "stage_runtime/engine/model/graph/operators.h"
#include "stage_runtime/engine/model/tensor_bridge.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/model/torch_error.h"

namespace ecopipe {
namespace {

using c10::IValue;

// Places in the schema of aten::batch_norm.
constexpr std::size_t kWeight = 1;
constexpr std::size_t kBias = 2;
constexpr std::size_t kMean = 3;
constexpr std::size_t kVariance = 4;
constexpr std::size_t kTraining = 5;
constexpr std::size_t kMomentum = 6;

// A view of any size costs nothing, but what is made of it does.
double bytes_of(const at::Tensor& tensor) {
    auto bytes = static_cast<double>(tensor.element_size());
    for (const std::int64_t size : tensor.sizes()) bytes *= static_cast<double>(size);
    return bytes;
}

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
    std::vector<RunningStatistic> statistics;
    std::optional<BatchNorm> norm;  // of what has statistics
    bool writes_statistics = false;

    void run(NodeFrame& frame) const {
        if (draws()) {
            frame.locals[first_local_] = run_draw(frame);
            return;
        }
        torch::jit::Stack stack;
        stack.reserve(arguments_.size());
        for (const OperatorArgument& argument : arguments_) stack.push_back(argument.value(frame));
        if (check_ != nullptr) check_(name_, stack);
        const bool evaluates = norm && *norm->evaluates;
        if (evaluates) stack[kTraining] = false;
        if (frame.found != nullptr && !statistics.empty() && !evaluates) {
            find_statistics(*frame.found, stack[kMean].toTensor(), stack[kVariance].toTensor(),
                            [&](const at::Tensor& mean, const at::Tensor& variance, double one) {
                                stack[kMean] = mean;
                                stack[kVariance] = variance;
                                stack[kMomentum] = one;
                                handle_->callBoxed(stack);
                                return true;
                            });
        } else {
            handle_->callBoxed(stack);
        }
        std::size_t made = 0;
        const auto keep = [&](at::Tensor tensor) {
            TORCH_CHECK(made < outputs_, "makes more tensors than the graph says");
            TORCH_CHECK(bytes_of(tensor) <= static_cast<double>(kGraphBlockBytesMax),
                        "makes a tensor of more than ", kGraphBlockBytesMax >> 20U, " MiB");
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
        check_ = operand_check(name_);
        const auto& schema = handle_->schema();
        Places places;
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
            places.push_back(given);
            if (given != nullptr) {
                auto argument = OperatorArgument::make(*given, expected);
                if (!argument)
                    return fail(ExitCode::kBadFile,
                                fmt::format("{}: {}: {}", name_, expected.name(),
                                            argument.error().message));
                arguments_.push_back(std::move(*argument));
            } else if (expected.default_value()) {
                arguments_.push_back(OperatorArgument::of_default(*expected.default_value()));
            } else {
                return fail(ExitCode::kBadFile,
                            fmt::format("{}: {} is missing", name_, expected.name()));
            }
        }
        if (position < op.arguments.size() || !keywords.empty())
            return fail(ExitCode::kBadFile, fmt::format("{}: has more arguments than LibTorch {} "
                                                        "knows; export the model with --aten 1.13",
                                                        name_, torch_versions().torch));
        if (name_ == "aten::batch_norm") note_statistics(places);
        // Its statistics are of each sample and channel, and written in place.
        writes_statistics = name_ == "aten::instance_norm" && tensor_at(places, kMean);
        return {};
    }

    using Places = std::vector<const GraphArgument*>;  // as in the schema; null: the default
    // Which of the layer's tensors stands there.
    static std::optional<std::size_t> tensor_at(const Places& places, std::size_t place) {
        if (place >= places.size() || places[place] == nullptr) return std::nullopt;
        const auto* tensor = std::get_if<graph_argument::Tensor>(&places[place]->what);
        if (tensor == nullptr) return std::nullopt;
        return static_cast<std::size_t>(tensor->tensor);
    }

    // Where it is in training mode when the layer is.
    void note_statistics(const Places& places) {
        const Tensors none;
        const std::vector<LayerTensor> no_tensors;
        const NodeFrame training{none, no_tensors, {}, 1, true};
        if (!arguments_[kTraining].value(training).toBool()) return;
        const double momentum = arguments_[kMomentum].value(training).toDouble();
        BatchNorm found;
        for (const std::size_t place : {kMean, kVariance})
            if (const auto buffer = tensor_at(places, place)) {
                statistics.push_back({*buffer, momentum});
                found.buffers.push_back(*buffer);
            }
        for (const std::size_t place : {kWeight, kBias})
            if (const auto parameter = tensor_at(places, place))
                found.parameters.push_back(*parameter);
        if (found.buffers.size() == 2) norm = std::move(found);
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
            auto argument = OperatorArgument::make(op.arguments[i], type);
            if (!argument) return fail_in(draw_, argument.error());
            arguments_.push_back(std::move(*argument));
        }
        return {};
    }

    [[nodiscard]] at::Tensor run_draw(const NodeFrame& frame) const {
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
    OperandCheck check_ = nullptr;
    std::vector<OperatorArgument> arguments_;
    std::size_t first_local_ = 0;
    std::size_t outputs_ = 1;
};

class GraphLayer : public Layer {
  public:
    std::vector<Step> steps;
    std::vector<std::pair<int, int>> results;  // value, local
    std::size_t locals = 0;

    Tensors forward(const Tensors& inputs, bool training) override {
        NodeFrame frame{inputs,   tensors, std::vector<at::Tensor>(locals), inputs.empty() ? 0 : 1,
                        training, found};
        const LargestBlock bound(kGraphBlockBytesMax);
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

// A buffer that RunningStatistics knows how to write.
bool may_follow(const LayerTensor& tensor) {
    const at::ScalarType type = tensor.tensor.scalar_type();
    return tensor.buffer && (type == at::kFloat || type == at::kDouble);
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
                layer->one_holder = layer->one_holder || step->writes_statistics;
                auto& statistics = step->statistics;
                // Anything else than two buffers no exporter makes: it is written in place.
                if (!statistics.empty() &&
                    (statistics.size() != 2 ||
                     !std::all_of(statistics.begin(), statistics.end(), [&](const auto& each) {
                         return may_follow(layer->tensors[each.buffer]);
                     }))) {
                    statistics.clear();
                    layer->one_holder = true;
                }
                if (step->norm) layer->norms.push_back(*step->norm);
                layer->statistics.insert(layer->statistics.end(), statistics.begin(),
                                         statistics.end());
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
