#include "stage_runtime/engine/model/torchscript.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/script.h>

#include <algorithm>
#include <unordered_map>

#include "core/log.h"
#include "stage_runtime/engine/model/script_facts.h"
#include "stage_runtime/engine/model/tensor_bridge.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/model/torch_error.h"

namespace ecopipe {
namespace {

std::string kind_of(const torch::jit::Module& module) {
    return module.type()->name() ? module.type()->name()->name() : std::string("script");
}

class ScriptLayer : public Layer {
  public:
    ScriptLayer(std::string layer_name, torch::jit::Module module) : module_(std::move(module)) {
        name = std::move(layer_name);
        kind = kind_of(module_);
        for (const auto& parameter : module_.named_parameters(true))
            tensors.push_back({name + "." + parameter.name, parameter.value,
                               parameter.value.requires_grad(), false, nullptr});
        for (const auto& buffer : module_.named_buffers(true))
            tensors.push_back({name + "." + buffer.name, buffer.value, false, true, nullptr});
        const ScriptFacts facts = script_facts(module_);
        writes_input = facts.writes_input;
        takes_tuple_ = facts.takes_tuple;
        draws = true;  // any operator may draw; keying the generator costs microseconds
        fixed_mode = in_words(facts);
        find_own_state(facts);
        find_norms();
        one_holder = !stateful.empty() || facts.normalises;
    }

    Tensors forward(const Tensors& inputs, bool training) override {
        if (module_.is_training() != training) module_.train(training);
        for (std::size_t i = 0; training && i < norms.size(); ++i)
            if (*norms[i].evaluates && norm_modules_[i].is_training())
                norm_modules_[i].train(false);
        Tensors before;
        Tensors copies;
        for (const ScriptSlot& slot : slots_) {
            before.push_back(slot.value());
            if (!training) copies.push_back(before.back().clone());
        }
        Tensors outputs = call(inputs);
        // An evaluation changes nothing; what training puts in place of a buffer is taken over
        // without the graph that made it.
        for (std::size_t s = 0; s < slots_.size(); ++s) {
            if (training)
                take_over(s, before[s]);
            else
                put_buffer(stateful[s], copies[s]);
        }
        return outputs;
    }

    void sync() override {
        for (std::size_t s = 0; s < slots_.size(); ++s)
            tensors[stateful[s]].tensor = slots_[s].value();
    }

    void put_buffer(std::size_t index, const at::Tensor& value) override {
        for (std::size_t s = 0; s < slots_.size(); ++s)
            if (stateful[s] == index) slots_[s].set(value);
        tensors[index].tensor = value;
    }

  private:
    static std::string in_words(const ScriptFacts& facts) {
        std::vector<std::string> parts;
        if (!facts.fixed_evaluating.empty())
            parts.push_back(fmt::format("{} as in evaluation mode, even when it trains",
                                        fmt::join(facts.fixed_evaluating, " and ")));
        if (!facts.fixed_training.empty())
            parts.push_back(fmt::format("{} as in training mode, even when it is tested",
                                        fmt::join(facts.fixed_training, " and ")));
        return fmt::format("{}", fmt::join(parts, "; "));
    }

    // State that is no buffer would be lost with a device, and is in no checkpoint.
    void find_own_state(const ScriptFacts& facts) {
        const auto index_of = [&](const std::string& path) {
            return std::find_if(tensors.begin(), tensors.end(),
                                [&](const LayerTensor& t) { return t.name == name + "." + path; }) -
                   tensors.begin();
        };
        std::set<std::string> changed = facts.assigned;
        for (const std::string& path : facts.assigned) {
            const auto at = static_cast<std::size_t>(index_of(path));
            TORCH_CHECK(at < tensors.size() && tensors[at].buffer, "layer ", name,
                        " assigns to its attribute ", path,
                        " in forward: expected a buffer, whose value is kept, saved and sent "
                        "(register_buffer in Python)");
        }
        changed.insert(facts.written.begin(), facts.written.end());
        for (const std::string& path : changed) {
            const auto at = static_cast<std::size_t>(index_of(path));
            if (at >= tensors.size() || !tensors[at].buffer) continue;
            stateful.push_back(at);
            slots_.emplace_back(module_, path);
        }
    }

    // Modules with running statistics and a mode.
    void find_norms() {
        for (const auto& [path, module] : module_.named_modules()) {
            if (!module.hasattr("running_mean") || !module.attr("running_mean").isTensor() ||
                !module.hasattr("training"))
                continue;
            const std::string prefix = name + "." + (path.empty() ? "" : path + ".");
            BatchNorm norm;
            for (std::size_t i = 0; i < tensors.size(); ++i)
                if (tensors[i].name.substr(0, tensors[i].name.rfind('.') + 1) == prefix)
                    (tensors[i].buffer ? norm.buffers : norm.parameters).push_back(i);
            norms.push_back(std::move(norm));
            norm_modules_.push_back(module);
        }
    }

    Tensors call(const Tensors& inputs) {
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

    void take_over(std::size_t s, const at::Tensor& before) {
        const at::Tensor now = slots_[s].value();
        if (now.is_same(before) && !now.requires_grad()) return;
        const LayerTensor& buffer = tensors[stateful[s]];
        TORCH_CHECK(now.sizes() == before.sizes() && now.scalar_type() == before.scalar_type(),
                    "forward gives the buffer ", buffer.name,
                    " another shape or type: ", before.sizes(), " ", before.scalar_type(),
                    " became ", now.sizes(), " ", now.scalar_type());
        put_buffer(stateful[s], now.detach().clone(at::MemoryFormat::Contiguous));
    }

    torch::jit::Module module_;
    std::vector<torch::jit::Module> norm_modules_;  // of `norms`
    bool takes_tuple_ = false;
    std::vector<ScriptSlot> slots_;  // of the buffers in `stateful`
};

Result<torch::jit::Module> load_module(const std::string& path) {
    torch::jit::Module module;
    try {
        module = torch::jit::load(path, c10::kCPU);  // wherever it was saved
    } catch (const std::exception& error) {
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

// Tensors that the model has under several names.
void name_twins(const Layers& layers) {
    std::unordered_map<const c10::TensorImpl*, std::string> first_names;
    for (const auto& layer : layers)
        for (LayerTensor& tensor : layer->tensors) {
            const auto [it, fresh] =
                first_names.emplace(tensor.tensor.unsafeGetTensorImpl(), tensor.name);
            if (!fresh) tensor.same_as = it->second;
        }
}

// Weights in half precision would train in half precision: neither exact nor what a CPU is fast at.
Result<void> expect_no_half(const Layers& layers, const std::string& path) {
    std::vector<std::string> found;
    std::size_t count = 0;
    for (const auto& layer : layers)
        for (const LayerTensor& tensor : layer->tensors) {
            const at::ScalarType type = tensor.tensor.scalar_type();
            if (type != at::kHalf && type != at::kBFloat16) continue;
            constexpr std::size_t kNamed = 3;
            if (count++ < kNamed)
                found.push_back(fmt::format("{} ({})", tensor.name, c10::toString(type)));
        }
    if (count == 0) return {};
    return fail(ExitCode::kBadFile,
                fmt::format("{}: expected a model in float32, found {}{}; in Python: "
                            "model.float() before it is saved",
                            path, fmt::join(found, ", "),
                            count > found.size() ? fmt::format(" and {} more in half precision",
                                                               count - found.size())
                                                 : ""));
}

}  // namespace

Result<Layers> load_torchscript(const std::string& path) {
    ECOPIPE_ASSIGN_OR_RETURN(auto top, load_module(path));
    keep_bits_stable();
    Layers layers;
    try {
        top.train();
        for (const auto& child : top.named_children()) {
            layers.push_back(std::make_unique<ScriptLayer>(child.name, child.value));
        }
        name_twins(layers);
    } catch (const std::exception& error) {
        return fail(ExitCode::kBadFile, fmt::format("{}: {}", path, torch_message(error)));
    }
    if (layers.empty()) return fail(ExitCode::kBadFile, path + ": the Sequential is empty");
    ECOPIPE_RETURN_IF_ERROR(expect_no_half(layers, path));
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
    } catch (const std::exception& error) {
        return fail(ExitCode::kRunFailed, fmt::format("{}: {}", path, torch_message(error)));
    }
    return {};
}

}  // namespace ecopipe
