#include "stage_runtime/model/torchscript.h"

#include <fmt/format.h>
#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/script.h>

#include <unordered_map>

#include "core/log.h"
#include "stage_runtime/engine/tensor_bridge.h"
#include "stage_runtime/torch_compat.h"
#include "stage_runtime/torch_error.h"

namespace ecopipe {
namespace {

class ScriptLayer : public Layer {
  public:
    explicit ScriptLayer(torch::jit::Module module) : module_(std::move(module)) {
        auto graph = module_.get_method("forward").graph()->copy();
        torch::jit::Inline(*graph);
        const torch::jit::AliasDb aliases(graph);
        for (std::size_t i = 1; i < graph->inputs().size(); ++i)
            writes_input = writes_input || aliases.hasWriters(graph->inputs()[i]);
        takes_tuple_ = graph->inputs().size() == 2 &&
                       graph->inputs()[1]->type()->kind() == c10::TypeKind::TupleType;
        draws = true;  // any operator may draw; keying the generator costs microseconds
    }

    Tensors forward(const Tensors& inputs, bool training) override {
        if (module_.is_training() != training) module_.train(training);
        std::vector<c10::IValue> arguments;
        if (takes_tuple_ || inputs.size() > 1) {
            std::vector<c10::IValue> elements(inputs.begin(), inputs.end());
            arguments.emplace_back(c10::ivalue::Tuple::create(std::move(elements)));
        } else {
            arguments.emplace_back(inputs[0]);
        }
        const c10::IValue result = module_.forward(std::move(arguments));
        if (result.isTensor()) return {result.toTensor()};
        TORCH_CHECK(result.isTuple(), "a layer must return a tensor or a tuple of tensors");
        Tensors outputs;
        for (const auto& element : result.toTupleRef().elements()) {
            TORCH_CHECK(element.isTensor(), "a layer must return a tensor or a tuple of tensors");
            outputs.push_back(element.toTensor());
        }
        return outputs;
    }

  private:
    torch::jit::Module module_;
    bool takes_tuple_ = false;
};

Result<torch::jit::Module> load_module(const std::string& path) {
    torch::jit::Module module;
    try {
        module = torch::jit::load(path);
    } catch (const c10::Error& error) {
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: expected a TorchScript file: {}", path, torch_message(error)));
    }
    const auto name = module.type()->name() ? module.type()->name()->name() : std::string();
    if (name != "Sequential")
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: expected an nn.Sequential at the top, found '{}'", path,
                                printable(name)));
    return module;
}

std::string kind_of(const torch::jit::Module& module) {
    return module.type()->name() ? module.type()->name()->name() : std::string("script");
}

}  // namespace

Result<Layers> load_torchscript(const std::string& path) {
    ECOPIPE_ASSIGN_OR_RETURN(auto top, load_module(path));
    keep_bits_stable();
    Layers layers;
    try {
        top.train();
        for (const auto& child : top.named_children()) {
            auto layer = std::make_unique<ScriptLayer>(child.value);
            layer->name = child.name;
            layer->kind = kind_of(child.value);
            for (const auto& parameter : child.value.named_parameters(true))
                layer->tensors.push_back({child.name + "." + parameter.name, parameter.value,
                                          parameter.value.requires_grad(), false, nullptr});
            for (const auto& buffer : child.value.named_buffers(true))
                layer->tensors.push_back(
                    {child.name + "." + buffer.name, buffer.value, false, true, nullptr});
            layers.push_back(std::move(layer));
        }
    } catch (const c10::Error& error) {
        return fail(ExitCode::kBadFile, fmt::format("{}: {}", path, torch_message(error)));
    }
    if (layers.empty()) return fail(ExitCode::kBadFile, path + ": the Sequential is empty");
    return layers;
}

Result<void> save_torchscript(const ModelSpec& spec, const TensorMap& weights,
                              const std::string& path) {
    ECOPIPE_ASSIGN_OR_RETURN(auto top, load_module(spec.torchscript_path));
    const torch::NoGradGuard no_grad;
    std::unordered_map<std::string, const HostTensor*> by_name;
    for (const NamedTensor& weight : weights) by_name[weight.name] = &weight.tensor;
    try {
        const auto copy_in = [&](const std::string& name, at::Tensor tensor) {
            if (const auto it = by_name.find(name); it != by_name.end())
                tensor.copy_(to_torch(*it->second));
        };
        for (const auto& parameter : top.named_parameters(true))
            copy_in(parameter.name, parameter.value);
        for (const auto& buffer : top.named_buffers(true)) copy_in(buffer.name, buffer.value);
        const std::string temporary = path + ".tmp";
        top.save(temporary);
        if (std::rename(temporary.c_str(), path.c_str()) != 0)
            return fail(ExitCode::kRunFailed, path + ": cannot rename");
    } catch (const c10::Error& error) {
        return fail(ExitCode::kRunFailed, fmt::format("{}: {}", path, torch_message(error)));
    }
    return {};
}

}  // namespace ecopipe
