// ecopipe-plan: cluster.yaml and profiles in, plan.json with prediction and bounds out.

#include <fmt/format.h>

#include "core/command_line.h"
#include "core/files.h"
#include "planner/partition.h"

namespace ecopipe {
namespace {

CommandLine options() {
    CommandLine line("ecopipe-plan",
                     "finds what to run where on a cluster, and says how long a step will take");
    line.text("cluster", "the cluster file");
    line.texts("profile",
               "a profile; the first serves devices without one of their own (may be repeated)");
    line.integer("batch", "samples a step", {1, 1 << 24}, 64);
    line.text("micro-batches", "micro-batches a step, or auto", "auto");
    line.text("schedule", "auto, gpipe, 1f1b, interleaved, zb-h1 or a CSV file of actions", "auto");
    line.text("out", "where to write the plan");
    line.flag("json", "print the plan as JSON");
    return line;
}

Result<ExitCode> plan(int argc, const char* const* argv) {
    CommandLine line = options();
    ECOPIPE_ASSIGN_OR_RETURN(const std::optional<ExitCode> leave, line.parse(argc, argv));
    if (leave) return *leave;
    ECOPIPE_ASSIGN_OR_RETURN(const Cluster cluster, read_cluster(line.get_text("cluster")));
    std::vector<ModelProfile> profiles;
    for (const std::string& path : line.get_texts("profile")) {
        ECOPIPE_ASSIGN_OR_RETURN(ModelProfile profile, read_profile(path));
        profiles.push_back(std::move(profile));
    }
    PlanRequest request;
    request.batch = static_cast<int>(line.get_integer("batch"));
    request.schedule = line.get_text("schedule");
    ECOPIPE_ASSIGN_OR_RETURN(const Plan found, search_plan(cluster, profiles, request));
    fmt::print("{}", plan_text(found));
    if (line.has("out"))
        ECOPIPE_RETURN_IF_ERROR(write_file_atomically(line.get_text("out"), plan_text(found)));
    return ExitCode::kDone;
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    return ecopipe::run_program("ecopipe-plan", [&] { return ecopipe::plan(argc, argv); });
}
