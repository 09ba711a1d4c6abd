// Plans a cluster of two, and inspects a model: the planner needs no torch, the engine does.
#include <cstdio>

#include "core/command_line.h"
#include "planner/cost/cluster.h"
#include "stage_runtime/engine/model/models.h"
#include "transport/web/web_page.h"

int main() {
    using namespace ecopipe;
    const auto cluster = parse_cluster(
        "name: home\nportal: a\nportal_address: 127.0.0.1\ndevices:\n  - {name: a, memory_mib: "
        "100}\n  - {name: b, memory_mib: 100}\n"
        "default_link: {mbps: 100, latency_ms: 1}\n",
        "consumer");
    if (!cluster) return std::puts(cluster.error().message.c_str()), 1;
    const auto spec = find_model("lenet5");
    if (!spec) return std::puts(spec.error().message.c_str()), 1;
    auto with_shape = *spec;
    with_shape.input_shape = {1, 28, 28};
    const auto info = inspect_model(with_shape);
    if (!info) return std::puts(info.error().message.c_str()), 1;
    std::printf("ecopipe %s: %zu devices, %zu layers, a page of %zu bytes\n", kVersion,
                cluster->devices.size(), info->layers.size(), web_page_html().size());
    return 0;
}
