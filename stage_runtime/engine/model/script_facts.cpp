#include "stage_runtime/engine/model/script_facts.h"

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/inliner.h>

#include <optional>
#include <string_view>

namespace ecopipe {
namespace {

using torch::jit::Block;
using torch::jit::Node;
using torch::jit::Value;

// The path of what a chain of GetAttr reads from `self`; nothing for any other value.
std::optional<std::string> path_of(const Value* value, const Value* self) {
    if (value == self) return std::string();
    const Node* node = value->node();
    if (node->kind() != c10::prim::GetAttr) return std::nullopt;
    auto owner = path_of(node->input(), self);
    if (!owner) return std::nullopt;
    if (!owner->empty()) *owner += '.';
    return *owner + node->s(c10::attr::name);
}

std::optional<c10::IValue> constant_argument(const Node& node, std::string_view name) {
    const auto* schema = node.maybeSchema();
    if (schema == nullptr) return std::nullopt;
    for (std::size_t i = 0; i < schema->arguments().size() && i < node.inputs().size(); ++i)
        if (schema->arguments()[i].name() == name) return torch::jit::toIValue(node.input(i));
    return std::nullopt;
}

// Draws nothing whatever its mode is.
bool never_drops(const Node& node) {
    for (const char* name : {"p", "dropout"})
        if (const auto share = constant_argument(node, name); share && share->isDouble())
            return share->toDouble() == 0;
    return false;
}

void look_at(const Node& node, const Value* self, const torch::jit::AliasDb& aliases,
             ScriptFacts& facts) {
    if (node.kind() == c10::prim::SetAttr) {
        if (auto owner = path_of(node.input(0), self)) {
            if (!owner->empty()) *owner += '.';
            facts.assigned.insert(*owner + node.s(c10::attr::name));
        }
        return;
    }
    if (node.kind() == c10::prim::GetAttr) {
        const auto path = path_of(node.output(), self);
        if (path && node.output()->type()->kind() == c10::TypeKind::TensorType &&
            aliases.hasWriters(node.output()))
            facts.written.insert(*path);
        return;
    }
    const std::string_view op = node.kind().toQualString();
    facts.normalises = facts.normalises || op.find("batch_norm") != std::string_view::npos ||
                       op.find("instance_norm") != std::string_view::npos;
    for (const char* name : {"train", "training"}) {
        const auto mode = constant_argument(node, name);
        if (!mode || !mode->isBool() || never_drops(node)) continue;
        (mode->toBool() ? facts.fixed_training : facts.fixed_evaluating)
            .insert(node.kind().toUnqualString());
    }
}

void walk(const Block& block, const Value* self, const torch::jit::AliasDb& aliases,
          ScriptFacts& facts) {
    for (const Node* node : block.nodes()) {
        look_at(*node, self, aliases, facts);
        for (const Block* inner : node->blocks()) walk(*inner, self, aliases, facts);
    }
}

}  // namespace

ScriptFacts script_facts(const torch::jit::Module& module) {
    auto graph = module.get_method("forward").graph()->copy();
    torch::jit::Inline(*graph);
    const torch::jit::AliasDb aliases(graph);
    ScriptFacts facts;
    for (std::size_t i = 1; i < graph->inputs().size(); ++i)
        facts.writes_input = facts.writes_input || aliases.hasWriters(graph->inputs()[i]);
    facts.takes_tuple = graph->inputs().size() == 2 &&
                        graph->inputs()[1]->type()->kind() == c10::TypeKind::TupleType;
    walk(*graph->block(), graph->inputs()[0], aliases, facts);
    return facts;
}

ScriptSlot::ScriptSlot(const torch::jit::Module& module, const std::string& path)
    : owner_(module._ivalue()) {
    std::string_view rest = path;
    for (std::size_t dot = rest.find('.'); dot != std::string_view::npos; dot = rest.find('.')) {
        owner_ = owner_->getAttr(std::string(rest.substr(0, dot))).toObject();
        rest.remove_prefix(dot + 1);
    }
    index_ = owner_->type()->getAttributeSlot(std::string(rest));
}

at::Tensor ScriptSlot::value() const { return owner_->getSlot(index_).toTensor(); }
void ScriptSlot::set(const at::Tensor& value) const { owner_->setSlot(index_, value); }

}  // namespace ecopipe
