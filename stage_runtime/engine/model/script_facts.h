#pragma once
// What the code of a TorchScript module does besides computing: read from its graph, nothing runs.
// Includes torch: for .cpp files of the model alone.

#include <torch/script.h>

#include <set>
#include <string>
#include <vector>

namespace ecopipe {

struct ScriptFacts {
    bool takes_tuple = false;   // one argument, a tuple of tensors
    bool writes_input = false;  // computes in place on an argument
    // Attributes that forward assigns to, and tensors that it writes in place, as paths such as
    // "0.norm.count".
    std::set<std::string> assigned;
    std::set<std::string> written;
    bool normalises = false;  // batch or instance norm, whose statistics no schema says it writes
    // Operators with a mode of their own that is a constant of the code ("dropout"), as a trace
    // leaves them: always evaluating, always training.
    std::set<std::string> fixed_evaluating;
    std::set<std::string> fixed_training;
};

// Throws torch's error for a graph that cannot be inlined.
[[nodiscard]] ScriptFacts script_facts(const torch::jit::Module& module);

// Where a module holds a tensor; found once, since a look-up by name costs more than the access.
class ScriptSlot {
  public:
    // `path` is relative to the module and must exist.
    ScriptSlot(const torch::jit::Module& module, const std::string& path);
    [[nodiscard]] at::Tensor value() const;
    void set(const at::Tensor& value) const;

  private:
    c10::intrusive_ptr<c10::ivalue::Object> owner_;
    std::size_t index_ = 0;
};

}  // namespace ecopipe
