#pragma once
// What some operators take for granted and LibTorch does not look at, because its Python side did:
// a graph could otherwise make them read past the end of a tensor, or make millions. Includes
// torch.

#include <ATen/core/stack.h>

#include <string>

namespace ecopipe {

// Looks at the arguments of a call. Throws c10::Error.
using OperandCheck = void (*)(const std::string& name, const torch::jit::Stack& arguments);
// Null for an operator that looks itself.
[[nodiscard]] OperandCheck operand_check(const std::string& name);

}  // namespace ecopipe
