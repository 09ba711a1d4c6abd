#pragma once
// The operators that a graph may use: those that compute values out of values and nothing else. No
// file, no network, no random draw, nothing that writes into its arguments (but batch norm into its
// statistics) or makes a size out of data.

#include <string_view>
#include <vector>

namespace ecopipe {

[[nodiscard]] bool is_graph_operator(std::string_view name);  // "aten::add.Tensor"
// Those of ours, which draw from the keyed generator in training mode and are idle in evaluation.
[[nodiscard]] bool is_keyed_draw(std::string_view name);
[[nodiscard]] const std::vector<std::string_view>& graph_operators();  // sorted

}  // namespace ecopipe
