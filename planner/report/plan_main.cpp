// ecopipe-plan: cluster.yaml and profiles in; plan.json, prediction, bounds and what-if rows out.

#include <fmt/format.h>

#include <charconv>

#include "core/command_line.h"
#include "core/files.h"
#include "core/log.h"
#include "domain/limits.h"
#include "planner/report/gantt.h"
#include "planner/report/plan_report.h"
#include "planner/report/what_if.h"
#include "planner/schedule/plan_file.h"
#include "planner/schedule/registry.h"
#include "planner/search/partition.h"
#include "planner/simulate/plan_timeline.h"

namespace ecopipe {
namespace {

CommandLine options() {
    CommandLine line(
        "ecopipe-plan",
        "finds what to run where on a cluster, and says how long a step will take and why");
    line.text("cluster", "the cluster file");
    line.texts(
        "profile",
        "a profile, beside those that the cluster file names; the first serves devices without "
        "one of their own; of several of one device, the one with the cluster file's threads "
        "(may be repeated)");
    line.integer("batch", "samples a step", {1, 1 << 24}, 64);
    line.text("micro-batches", "micro-batches a step, or auto", "auto");
    line.text("sum-blocks",
              "parts of a step's sums, a power of two, or auto: above 1 several devices may hold a "
              "stage",
              "1");
    line.text("recompute",
              "what a stage short of memory may run forward twice: stages (all its layers), "
              "segments (as few of them as will do), or adaptive (that, as memory comes and goes)",
              "stages");
    line.text("schedule",
              fmt::format("{}, {} or a FILE.csv of actions (docs/SCHEDULES.md)", kAutoSchedule,
                          schedule_names(", "))
                  .c_str(),
              kAutoSchedule);
    line.text("out", "where to write the plan");
    line.text("svg", "where to draw the step as a Gantt chart");
    line.text("trace", "where to write the step as a Chrome trace");
    line.flag("json", "print the plan as JSON instead of words");
    return line;
}

Result<int> micro_batches(const std::string& text) {
    if (text == "auto") return 0;
    int count = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error == std::errc() && stop == text.data() + text.size() && count >= 1 &&
        count <= kMicroBatchMax)
        return count;
    return fail(ExitCode::kUsage,
                fmt::format("--micro-batches: expected auto or an integer from 1 to {}, found '{}'",
                            kMicroBatchMax, printable(text)));
}

Result<PlanRequest> request_of(const CommandLine& line) {
    PlanRequest request;
    request.batch = static_cast<int>(line.get_integer("batch"));
    ECOPIPE_ASSIGN_OR_RETURN(request.micro_batches, micro_batches(line.get_text("micro-batches")));
    if (request.micro_batches > request.batch)
        return fail(ExitCode::kUsage,
                    fmt::format("--micro-batches: expected at most the batch of {}, found {}",
                                request.batch, request.micro_batches));
    ECOPIPE_ASSIGN_OR_RETURN(request.sum_blocks, parse_sum_blocks(line.get_text("sum-blocks")));
    ECOPIPE_ASSIGN_OR_RETURN(request.recomputation,
                             parse_recomputation(line.get_text("recompute")));
    ECOPIPE_RETURN_IF_ERROR(use_schedule(request, line.get_text("schedule")));
    return request;
}

void warn_of_strangers(const Cluster& cluster, const std::vector<ModelProfile>& profiles) {
    for (std::size_t p = 1; p < profiles.size(); ++p)
        if (!cluster.find(profiles[p].device))
            log_warn("{}: device '{}' is not in {}: its profile is not used", profiles[p].source,
                     printable(profiles[p].device), cluster.source);
}

Result<void> write_outputs(const CommandLine& line, const Plan& plan, const PlayedPlan& played) {
    if (line.has("out"))
        ECOPIPE_RETURN_IF_ERROR(write_file_atomically(line.get_text("out"), plan_text(plan)));
    if (line.has("svg")) {
        const std::string title =
            fmt::format("{} on {}: {}, step {:.2f} ms", plan.model, played.model.cluster().name,
                        plan.schedule, played.timeline.step_ms);
        ECOPIPE_RETURN_IF_ERROR(write_file_atomically(
            line.get_text("svg"), gantt_svg({{title, &played.costs, &played.timeline}})));
    }
    if (line.has("trace"))
        ECOPIPE_RETURN_IF_ERROR(write_file_atomically(line.get_text("trace"),
                                                      chrome_trace(played.costs, played.timeline)));
    return {};
}

Result<ExitCode> run(int argc, const char* const* argv) {
    CommandLine line = options();
    ECOPIPE_ASSIGN_OR_RETURN(const std::optional<ExitCode> leave, line.parse(argc, argv));
    if (leave) return *leave;
    if (!line.has("cluster"))
        return fail(ExitCode::kUsage, "--cluster: expected a file, found none");
    ECOPIPE_ASSIGN_OR_RETURN(const PlanRequest request, request_of(line));
    ECOPIPE_ASSIGN_OR_RETURN(const Cluster cluster, read_cluster(line.get_text("cluster")));
    ECOPIPE_ASSIGN_OR_RETURN(const std::vector<ModelProfile> profiles,
                             read_needed_profiles(cluster, line.get_texts("profile")));
    warn_of_strangers(cluster, profiles);
    ECOPIPE_ASSIGN_OR_RETURN(Plan plan, search_plan(cluster, profiles, request));
    ECOPIPE_ASSIGN_OR_RETURN(plan.what_if, what_if_rows(cluster, profiles, request, plan));
    ECOPIPE_ASSIGN_OR_RETURN(const PlayedPlan played, play_plan(cluster, profiles, plan, "plan"));
    ECOPIPE_ASSIGN_OR_RETURN(const ResolvedProfiles resolved, resolve_profiles(cluster, profiles));
    for (const PredictedLayers& p : resolved.predicted)
        log_info("{}: times of {} layers predicted, leave-one-out error {:.1f} %", p.device,
                 p.count, 100 * p.error);
    ECOPIPE_RETURN_IF_ERROR(write_outputs(line, plan, played));
    fmt::print("{}", line.get_flag("json") ? plan_text(plan)
                                           : plan_report(plan, played, resolved.predicted));
    return ExitCode::kDone;
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    return ecopipe::run_program("ecopipe-plan", [&] { return ecopipe::run(argc, argv); });
}
