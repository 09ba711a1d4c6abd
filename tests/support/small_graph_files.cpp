#include "tests/support/small_graph_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/random.h"
#include "stage_runtime/data/safetensors.h"
#include "stage_runtime/engine/model/graph/graph_file.h"
#include "tests/support/small_graph.h"

namespace ecopipe::test {

void write_small_graph(const std::string& directory) {
    std::filesystem::create_directories(directory);
    std::ofstream(directory + "/graph.json") << small_graph();
    const auto graph = parse_graph(small_graph(), "graph.json");
    ASSERT_TRUE(graph) << graph.error().message;
    TensorMap weights;
    for (const GraphTensor& tensor : graph->tensors) {
        HostTensor value = HostTensor::allocate(tensor.dtype, tensor.shape);
        Rng rng(keyed_seed(1, tensor.name));
        for (float& element : value.as<float>())
            element = static_cast<float>(tensor.buffer ? 1 : 0.4 * rng.uniform() - 0.2);
        weights.push_back({tensor.name, std::move(value)});
    }
    ASSERT_TRUE(write_safetensors(directory + "/weights.safetensors", weights));
}

}  // namespace ecopipe::test
