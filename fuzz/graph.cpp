// graph.json.
#include "fuzz/target.h"
#include "stage_runtime/engine/model/graph/graph_file.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    const auto graph = parse_graph(fuzz::text(data, size), "graph.json");
    if (!graph) return 0;
    // What is accepted hangs together: this checks itself.
    const ValueGraph flow(graph->model_values(), graph->arguments(),
                          std::vector<bool>(graph->nodes.size(), true));
    static_cast<void>(flow.entering({0, flow.layers() - 1}));
    return 0;
}
