#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "bench/subcommands.h"
#include "core/command_line.h"
#include "core/files.h"
#include "core/log.h"
#include "domain/limits.h"
#include "planner/report/gantt.h"
#include "planner/schedule/plan_file.h"
#include "planner/schedule/registry.h"
#include "planner/schedule/schedule_csv.h"
#include "planner/search/in_flight.h"
#include "planner/search/partition.h"
#include "planner/simulate/bounds.h"
#include "planner/simulate/plan_timeline.h"

namespace ecopipe {
namespace {

constexpr int kMicroBatchesMax = 4096;

struct Row {
    std::string schedule;
    PipelineCosts costs;
    std::vector<ActionList> lists;
    Timeline timeline;
    Bound bound;
};

Row make_row(std::string schedule, PipelineCosts costs, std::vector<ActionList> lists) {
    Row row{std::move(schedule), std::move(costs), std::move(lists), {}, {}};
    row.timeline = simulate(row.costs, row.lists);
    row.bound = pipeline_bound(row.costs, backward_kind(row.lists));
    return row;
}

// Of each device, in micro-batches of all its layers: a slice counts for its share.
std::vector<double> peaks(const Row& row) {
    std::vector<double> out;
    for (std::size_t d = 0; d < row.lists.size(); ++d)
        out.push_back(static_cast<double>(peak_in_flight(row.lists[d])) /
                      row.costs.place.slices(static_cast<int>(d)));
    return out;
}

// "1,2.5,3": `count` numbers, or one for all.
Result<std::vector<double>> numbers(const CommandLine& line, const char* flag, int count,
                                    double otherwise) {
    if (!line.has(flag)) return std::vector<double>(static_cast<std::size_t>(count), otherwise);
    ECOPIPE_ASSIGN_OR_RETURN(
        std::vector<double> out,
        parse_numbers(line.get_text(flag), fmt::format("--{}", flag), {0, 1e9}));
    if (out.size() == 1) out.resize(static_cast<std::size_t>(count), out.front());
    if (out.size() != static_cast<std::size_t>(count))
        return fail(ExitCode::kUsage, fmt::format("--{}: expected one number or {}, found {}", flag,
                                                  count, out.size()));
    return out;
}

struct Numbers {
    int stages, micro_batches, slices;
    std::vector<double> forward_ms, backward_ms, link_ms;
};

// Equal parts of every device's layers, as they lie; between devices that are no neighbours, the
// slowest of the links.
PipelineCosts sliced_costs(const Numbers& given, const Placement& place) {
    std::vector<StageCost> stages;
    std::vector<double> links;
    const double back_ms =
        given.link_ms.empty() ? 0 : *std::max_element(given.link_ms.begin(), given.link_ms.end());
    for (int k = 0; k < place.stages(); ++k) {
        const int device = place.device(k);
        const auto d = static_cast<std::size_t>(device);
        const int slices = place.slices(device);
        const double b = given.backward_ms[d] / slices;
        stages.push_back({given.forward_ms[d] / slices, b, 0, b / 2, b / 2, 0});
        if (k + 1 == place.stages()) break;
        const int next = place.device(k + 1);
        const auto between = static_cast<std::size_t>(std::min(device, next));
        links.push_back(next == device                 ? 0
                        : std::abs(next - device) == 1 ? given.link_ms[between]
                                                       : back_ms);
    }
    PipelineCosts costs = plain_costs(given.micro_batches, std::move(stages), links, links);
    costs.place = place;
    costs.device_names.resize(static_cast<std::size_t>(given.stages));
    return costs;
}

std::vector<Row> rows_of(const Numbers& given) {
    const PipelineCosts costs = sliced_costs(given, Placement::cyclic(given.stages));
    const std::vector<int> free_caps(costs.stages.size(), given.micro_batches);
    std::vector<Row> out;
    const auto add = [&](const Schedule& schedule, const std::string& name, auto&& count_of) {
        const Placement place = schedule.place(given.stages, given.slices);
        std::vector<ActionList> lists;
        for (int s = 0; s < given.stages; ++s)
            lists.push_back(schedule.actions({.micro_batches = given.micro_batches,
                                              .device = s,
                                              .devices = given.stages,
                                              .slices = place.slices(s),
                                              .in_flight = count_of(s)}));
        out.push_back(make_row(name, sliced_costs(given, place), std::move(lists)));
    };
    for (const Schedule* schedule : schedules()) {
        const std::string name(schedule->name);
        if (!schedule->one_f_one_b) {
            // The paper's own counts: its lists are what is to be seen.
            add(*schedule, name, [&](int s) {
                return schedule->usual_in_flight == nullptr
                           ? given.micro_batches
                           : std::min(schedule->usual_in_flight(s, given.stages),
                                      given.micro_batches);
            });
            continue;
        }
        InFlightChooser chooser(*schedule, given.micro_batches);
        InFlightChoice choice =
            chooser.choose(costs, free_caps, pipeline_bound(costs, BackwardKind::kWhole).ms, 256);
        chooser.lower(costs, free_caps, 256, choice);
        out.push_back(make_row(name, costs, chooser.lists(choice.in_flight)));
        if (schedule->paced())
            add(*schedule, name + " K=S-s", [&](int s) { return given.stages - s; });
    }
    return out;
}

Result<std::vector<Row>> rows_of_numbers(const CommandLine& line) {
    for (const char* needed : {"stages", "micro-batches"})
        if (!line.has(needed))
            return fail(ExitCode::kUsage,
                        fmt::format("--{}: expected a number, found none", needed));
    Numbers given{};
    given.stages = static_cast<int>(line.get_integer("stages"));
    given.micro_batches = static_cast<int>(line.get_integer("micro-batches"));
    given.slices = static_cast<int>(line.get_integer("slices"));
    ECOPIPE_ASSIGN_OR_RETURN(given.forward_ms, numbers(line, "forward-ms", given.stages, 1));
    ECOPIPE_ASSIGN_OR_RETURN(given.backward_ms, numbers(line, "backward-ms", given.stages, 2));
    ECOPIPE_ASSIGN_OR_RETURN(given.link_ms, numbers(line, "link-ms", given.stages - 1, 0));
    return rows_of(given);
}

// A plan of each schedule, and the given one.
Result<std::vector<Row>> rows_of_cluster(const CommandLine& line) {
    if (!line.has("cluster"))
        return fail(ExitCode::kUsage, "--cluster: expected a file, found none");
    for (const char* number : {"stages", "slices", "forward-ms", "backward-ms", "link-ms"})
        if (line.given(number))
            return fail(
                ExitCode::kUsage,
                fmt::format("--{}: expected plain numbers or --cluster, found both", number));
    ECOPIPE_ASSIGN_OR_RETURN(const Cluster cluster, read_cluster(line.get_text("cluster")));
    ECOPIPE_ASSIGN_OR_RETURN(const std::vector<ModelProfile> profiles,
                             read_needed_profiles(cluster, line.get_texts("profile")));
    PlanRequest request;
    request.batch = static_cast<int>(line.get_integer("batch"));
    request.micro_batches =
        line.has("micro-batches") ? static_cast<int>(line.get_integer("micro-batches")) : 0;
    std::vector<Row> out;
    const auto add = [&](const std::string& name, const Plan& plan,
                         const std::string& source) -> Result<void> {
        ECOPIPE_ASSIGN_OR_RETURN(PlayedPlan played, play_plan(cluster, profiles, plan, source));
        out.push_back(make_row(name, std::move(played.costs), std::move(played.lists)));
        return {};
    };
    if (line.has("plan")) {
        ECOPIPE_ASSIGN_OR_RETURN(const Plan plan, read_plan(line.get_text("plan")));
        ECOPIPE_RETURN_IF_ERROR(add("plan: " + plan.schedule, plan, line.get_text("plan")));
        request.batch = plan.batch;
        request.micro_batches = plan.micro_batches;
    }
    for (const Schedule* known : schedules()) {
        const std::string schedule(known->name);
        request.schedule = schedule;
        const auto plan = search_plan(cluster, profiles, request);
        if (!plan) {
            log_warn("{}: {}", schedule, plan.error().message);
            continue;
        }
        request.micro_batches = plan->micro_batches;  // the same for all that follow
        ECOPIPE_RETURN_IF_ERROR(add(schedule, *plan, schedule));
    }
    if (out.empty())
        return fail(
            ExitCode::kBadFile,
            fmt::format("{}: expected a plan under some schedule, found none", cluster.source));
    return out;
}

void print_json(const std::vector<Row>& rows) {
    OrderedJson list = OrderedJson::array();
    for (const Row& row : rows)
        list.push_back({{"schedule", row.schedule},
                        {"step_ms", row.timeline.step_ms},
                        {"bubble_fraction", row.timeline.bubble_fraction},
                        {"peak_in_flight", peaks(row)},
                        {"lower_bound_ms", row.bound.ms},
                        {"bound_by", row.bound.by},
                        {"devices", row.costs.place.devices()}});
    fmt::print("{}\n", OrderedJson{{"rows", list}}.dump(1));
}

void print_table(const std::vector<Row>& rows) {
    fmt::print("{:<18} {:>12} {:>8} {:>14} {:<24} peak in flight\n", "schedule", "step ms",
               "bubble", "bound ms", "bound by");
    for (const Row& row : rows) {
        std::string peak;
        for (const double p : peaks(row))
            peak += fmt::format("{}{:.4g}", peak.empty() ? "" : " ", p);
        fmt::print("{:<18} {:>12.3f} {:>6.1f} % {:>14.3f} {:<24} {}\n", row.schedule,
                   row.timeline.step_ms, 100 * row.timeline.bubble_fraction, row.bound.ms,
                   row.bound.by, peak);
    }
}

CommandLine options() {
    CommandLine line("ecopipe-bench schedules",
                     "simulates every schedule on the same pipeline or cluster");
    line.integer("stages", "devices of the pipeline", {1, static_cast<std::int64_t>(kDevicesMax)});
    line.integer("micro-batches", "micro-batches a step", {1, kMicroBatchesMax});
    line.integer("slices", "slices a device of interleaved", {1, 16}, 2);
    line.text("forward-ms", "a stage's forward, one number or one a stage (default 1)");
    line.text("backward-ms", "a stage's backward, half of it for the weights (default 2)");
    line.text("link-ms", "a transfer, each way, one number or one a cut (default 0)");
    line.text("cluster", "instead of numbers: a cluster file, to plan each schedule on");
    line.texts("profile",
               "with --cluster: a profile, beside those that it names (may be repeated)");
    line.text("plan", "with --cluster: a plan to compare with");
    line.integer("batch", "with --cluster: samples a step", {1, 1 << 24}, 64);
    line.flag("json", "print JSON instead of a table");
    line.text("svg", "where to draw the schedules as Gantt charts");
    return line;
}

}  // namespace

Result<ExitCode> bench_schedules(int argc, const char* const* argv) {
    CommandLine line = options();
    ECOPIPE_ASSIGN_OR_RETURN(const std::optional<ExitCode> leave, line.parse(argc, argv));
    if (leave) return *leave;
    const bool files = line.has("cluster") || line.has("profile") || line.has("plan");
    ECOPIPE_ASSIGN_OR_RETURN(const std::vector<Row> rows,
                             files ? rows_of_cluster(line) : rows_of_numbers(line));
    if (line.has("svg")) {
        std::vector<GanttPanel> panels;
        for (const Row& row : rows)
            panels.push_back({fmt::format("{}: {:.3f} ms", row.schedule, row.timeline.step_ms),
                              &row.costs, &row.timeline});
        ECOPIPE_RETURN_IF_ERROR(write_file_atomically(line.get_text("svg"), gantt_svg(panels)));
    }
    if (line.get_flag("json")) {
        print_json(rows);
    } else {
        print_table(rows);
    }
    return ExitCode::kDone;
}

}  // namespace ecopipe
