// cluster.yaml; what is accepted is written and read again.
#include "planner/cost/cluster.h"

#include "fuzz/target.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    if (const auto cluster = parse_cluster(fuzz::text(data, size), "cluster.yaml")) {
        const std::string text = cluster_text(*cluster);
        const auto again = parse_cluster(text, "again");
        ECOPIPE_CHECK(again && cluster_text(*again) == text);
    }
    return 0;
}
