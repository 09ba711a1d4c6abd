#pragma once
// The small graph as a directory that --model takes.

#include <string>

namespace ecopipe::test {

// Writes DIRECTORY/graph.json and weights.safetensors; the weights are drawn.
void write_small_graph(const std::string& directory);

}  // namespace ecopipe::test
