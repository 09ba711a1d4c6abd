#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <numeric>

#include "bench/subcommands.h"
#include "core/command_line.h"
#include "core/log.h"
#include "core/statistics.h"
#include "domain/plan_index.h"
#include "orchestrator/program/local_launcher.h"
#include "orchestrator/program/planning.h"
#include "orchestrator/session/cluster_session.h"
#include "orchestrator/train/single_engine.h"
#include "planner/cost/memory_check.h"
#include "planner/schedule/plan_file.h"
#include "planner/search/partition.h"
#include "stage_runtime/data/open_data.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/executor.h"
#include "stage_runtime/engine/run/profiler.h"

namespace ecopipe {
namespace {

constexpr int kStagesMax = 64;
constexpr double kJoinTimeoutS = 60;
constexpr double kStagePatienceS = 5;
constexpr double kProfileSeconds = 2;
constexpr double kLearningRate = 0.01;
// What two processes on one machine are planned with; loopback is never what binds.
constexpr Link kLoopback{16000, 0.05, ""};

struct Setup {
    ModelSpec spec;
    ModelInfo info;
    DataSplits data;
    Cluster cluster;
    Plan plan;
    OptimizerSpec optimizer;
    bool emulate = false;
};

// The calling thread, while it lives, runs on the first core only: as a pinned stage does.
class OnFirstCore {
  public:
    OnFirstCore() {
        ::sched_getaffinity(0, sizeof before_, &before_);
        cpu_set_t first;
        CPU_ZERO(&first);
        CPU_SET(0, &first);
        ::sched_setaffinity(0, sizeof first, &first);
    }
    ~OnFirstCore() { ::sched_setaffinity(0, sizeof before_, &before_); }
    OnFirstCore(const OnFirstCore&) = delete;
    OnFirstCore& operator=(const OnFirstCore&) = delete;

  private:
    cpu_set_t before_{};
};

Cluster equal_devices(int count) {
    Cluster cluster;
    cluster.name = "this machine";
    cluster.default_link = kLoopback;
    for (int i = 0; i < count; ++i) {
        Device device;
        device.name = fmt::format("stage{}", i);
        device.memory_mib = 1 << 20;
        cluster.devices.push_back(std::move(device));
    }
    return cluster;
}

// The cluster's own profiles, and for whoever has none one measured here at the micro-batch's size.
Result<std::vector<ModelProfile>> measure(const Setup& setup, int batch, int micro_batches) {
    ECOPIPE_ASSIGN_OR_RETURN(std::vector<ModelProfile> profiles, read_profiles(setup.cluster, {}));
    ProfileRequest request;
    request.spec = setup.spec;
    request.optimizer = setup.optimizer;
    request.micro_batches = {(batch + micro_batches - 1) / micro_batches};
    request.seconds_per_size = kProfileSeconds;
    request.device = "measured here";
    request.slowdown = setup.emulate ? mean_slowdown(setup.cluster) : 1;
    const OnFirstCore pinned;
    ECOPIPE_ASSIGN_OR_RETURN(ModelProfile measured, profile_model(request));
    profiles.insert(profiles.begin(), std::move(measured));
    return profiles;
}

Result<Setup> prepare(const CommandLine& line) {
    Setup setup;
    ECOPIPE_ASSIGN_OR_RETURN(setup.spec, find_model(line.get_text("model")));
    ECOPIPE_ASSIGN_OR_RETURN(
        setup.data, open_data(line.get_text("data"), {{}, 0, required_channels(setup.spec)}));
    setup.spec.num_classes = setup.data.train->num_classes();
    setup.spec.input_shape = setup.data.train->sample_shape();
    ECOPIPE_ASSIGN_OR_RETURN(setup.info, inspect_model(setup.spec));
    setup.optimizer.momentum = 0.9;
    const bool planned = line.has("plan");
    if (planned) {
        ECOPIPE_ASSIGN_OR_RETURN(setup.plan, read_plan(line.get_text("plan")));
        setup.cluster = cluster_of_plan(setup.plan);
        setup.cluster.default_link = kLoopback;
    }
    if (line.has("cluster")) {
        ECOPIPE_ASSIGN_OR_RETURN(setup.cluster, read_cluster(line.get_text("cluster")));
        setup.emulate = true;
    } else if (!planned) {
        setup.cluster = equal_devices(static_cast<int>(line.get_integer("stages")));
    }
    const int batch = planned ? setup.plan.batch : static_cast<int>(line.get_integer("batch"));
    const int micro_batches =
        planned ? setup.plan.micro_batches : static_cast<int>(line.get_integer("micro-batches"));
    if (setup.data.train->size() < batch)
        return fail(ExitCode::kUsage,
                    fmt::format("--data: expected a batch of {} samples, found {}", batch,
                                setup.data.train->size()));
    ECOPIPE_ASSIGN_OR_RETURN(const auto profiles, measure(setup, batch, micro_batches));
    if (planned) {
        if (setup.plan.model != setup.spec.id())
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: model: expected {}, found {}", line.get_text("plan"),
                                    setup.spec.id(), setup.plan.model));
        ECOPIPE_RETURN_IF_ERROR(predict_plan(setup.cluster, profiles, setup.plan));
        ECOPIPE_RETURN_IF_ERROR(check_memory(setup.cluster, profiles, setup.plan));
    } else {
        PlanRequest request;
        request.batch = batch;
        request.micro_batches = micro_batches;
        ECOPIPE_RETURN_IF_ERROR(use_schedule(request, line.get_text("schedule")));
        ECOPIPE_ASSIGN_OR_RETURN(setup.plan, search_plan(setup.cluster, profiles, request));
    }
    ECOPIPE_RETURN_IF_ERROR(check_executable(setup.plan));
    return setup;
}

// A pipeline over stage processes of this machine, or one process.
struct Contender {
    std::unique_ptr<TrainingEngine> engine;
    bool pinned = false;
    std::uint64_t step = 0;
    std::vector<double> steps_ms;  // but for the first of every turn
    std::map<std::string, double> busy_ms;
    std::map<std::string, std::uint64_t> peak_bytes;
    std::uint64_t bytes_on_wire = 0;
};

Result<std::vector<Batch>> batch_of_step(const Setup& setup, std::uint64_t step) {
    std::vector<std::int64_t> indices(static_cast<std::size_t>(setup.plan.batch));
    const auto batches = static_cast<std::uint64_t>(setup.data.train->size() / setup.plan.batch);
    std::iota(indices.begin(), indices.end(),
              static_cast<std::int64_t>(step % batches) * setup.plan.batch);
    std::vector<Batch> parts;
    std::size_t at = 0;
    for (const int size : micro_batch_sizes(setup.plan.batch, setup.plan.micro_batches)) {
        const auto n = static_cast<std::size_t>(size);
        ECOPIPE_ASSIGN_OR_RETURN(Batch part,
                                 setup.data.train->batch(std::span(indices).subspan(at, n)));
        parts.push_back(std::move(part));
        at += n;
    }
    return parts;
}

void account(Contender& contender, StepOutcome& outcome) {
    for (DeviceReport& report : outcome.devices) {
        contender.busy_ms[report.device] += report.busy_ms;
        std::uint64_t& peak = contender.peak_bytes[report.device];
        peak = std::max(peak, report.peak_memory.total());
        contender.bytes_on_wire += report.sent_bytes;
    }
}

Result<void> take_turn(const Setup& setup, Contender& contender, int steps) {
    std::unique_ptr<OnFirstCore> pinned;
    if (contender.pinned) pinned = std::make_unique<OnFirstCore>();
    ECOPIPE_ASSIGN_OR_RETURN(std::vector<Batch> next, batch_of_step(setup, contender.step));
    Instant began = monotonic_now();
    for (int i = 0; i <= steps; ++i) {  // the first warms up
        ECOPIPE_RETURN_IF_ERROR(contender.engine->start_step(
            contender.step, std::move(next), static_cast<double>(setup.plan.batch), false));
        ECOPIPE_ASSIGN_OR_RETURN(next, batch_of_step(setup, contender.step + 1));
        ECOPIPE_ASSIGN_OR_RETURN(StepOutcome outcome, contender.engine->finish_step());
        ECOPIPE_RETURN_IF_ERROR(contender.engine->commit(kLearningRate, 1.0));
        ++contender.step;
        const Instant now = monotonic_now();
        if (i > 0) {
            contender.steps_ms.push_back(to_ms(now - began));
            account(contender, outcome);
        }
        began = now;
        if (signal_received() != 0) return fail(ExitCode::kRunFailed, "interrupted by a signal");
    }
    return {};
}

Result<Contender> open_single(const Setup& setup, const TensorMap& weights) {
    ExecutorOptions options;
    options.optimizer = setup.optimizer;
    Contender contender;
    contender.pinned = true;
    ECOPIPE_ASSIGN_OR_RETURN(contender.engine, make_single_engine(setup.spec, options));
    ECOPIPE_RETURN_IF_ERROR(contender.engine->load(weights));
    return contender;
}

Result<Contender> open_pipeline(const Setup& setup, const TensorMap& weights, NetLoop& loop,
                                LocalLauncher& launcher) {
    SessionOptions options;
    options.bind = {"127.0.0.1", 0};
    options.portal.shared_machine = true;
    for (const Device& device : setup.cluster.devices) options.devices.push_back(device.name);
    if (setup.emulate) options.links = portal_links(setup.cluster);
    options.check = [&launcher]() -> Result<void> {
        if (signal_received() != 0) return fail(ExitCode::kRunFailed, "interrupted by a signal");
        return launcher.check();
    };
    ECOPIPE_ASSIGN_OR_RETURN(auto session, ClusterSession::open(loop, std::move(options)));
    const std::vector<std::string> wanted = PlanIndex(setup.plan).devices();
    auto stages = local_stages(setup.cluster);
    std::erase_if(stages, [&](const LocalStage& stage) {
        return std::find(wanted.begin(), wanted.end(), stage.device) == wanted.end();
    });
    pin_to_cores(stages);
    if (!setup.emulate)
        for (LocalStage& stage : stages) stage.links.clear();
    const std::string models =
        setup.spec.torchscript_path.empty()
            ? "."
            : std::filesystem::absolute(setup.spec.torchscript_path).parent_path().string();
    ECOPIPE_RETURN_IF_ERROR(launcher.start(session->bound(), stages, models, Security{}, "warn"));
    ECOPIPE_RETURN_IF_ERROR(session->wait_for({wanted.begin(), wanted.end()},
                                              from_ms(kJoinTimeoutS * 1000),
                                              [](const std::vector<std::string>&) {}));
    session->set_plan(setup.plan, {setup.spec, 0, setup.optimizer, {}}, setup.info);
    Contender contender;
    contender.engine = std::move(session);
    ECOPIPE_RETURN_IF_ERROR(contender.engine->load(weights));
    return contender;
}

void print_results(const Setup& setup, const Contender& single, const Contender& pipeline,
                   bool json) {
    const Plan& plan = setup.plan;
    const double single_ms = median(single.steps_ms);
    const double step_ms = median(pipeline.steps_ms);
    const double steps = static_cast<double>(pipeline.steps_ms.size());
    const double total = std::accumulate(pipeline.steps_ms.begin(), pipeline.steps_ms.end(), 0.0);
    OrderedJson stages = OrderedJson::array();
    OrderedJson peaks = OrderedJson::array();
    OrderedJson predicted_peaks = OrderedJson::array();
    OrderedJson busy = OrderedJson::array();
    const PlanIndex index(plan);
    for (const std::string& device : index.devices()) {
        std::string layers;
        for (const StageId id : index.stages_of(device)) {
            const StagePlan& stage = plan.stages[id.index()];
            layers +=
                fmt::format("{}{}-{}{}", layers.empty() ? "" : " ", stage.first_layer,
                            stage.last_layer, !stage.recomputed.empty() ? " (recomputing)" : "");
        }
        stages.push_back({{"device", device}, {"layers", layers}});
        peaks.push_back(pipeline.peak_bytes.at(device));
        predicted_peaks.push_back(predicted_peak_bytes(plan, device));
        busy.push_back(pipeline.busy_ms.at(device) / total);
    }
    const OrderedJson results{
        {"model", plan.model},
        {"batch", plan.batch},
        {"micro_batches", plan.micro_batches},
        {"schedule", plan.schedule},
        {"stages", stages},
        {"single_step_ms", single_ms},
        {"step_ms", step_ms},
        {"speedup", single_ms / step_ms},
        {"predicted_ms", plan.predicted->step_ms},
        {"control_ms", plan.predicted->control_ms},
        {"lower_bound_ms", plan.predicted->lower_bound_ms},
        {"bound_by", plan.predicted->bound_by},
        {"measured_to_predicted", step_ms / (plan.predicted->step_ms + plan.predicted->control_ms)},
        {"samples_per_s", plan.batch / step_ms * 1000},
        {"bytes_on_wire", static_cast<double>(pipeline.bytes_on_wire) / steps},
        {"peak_bytes", peaks},
        {"predicted_peak_bytes", predicted_peaks},
        {"busy_fraction", busy},
        {"steps_ms", pipeline.steps_ms},
        {"single_steps_ms", single.steps_ms}};
    if (json) {
        fmt::print("{}\n", results.dump(2));
        return;
    }
    fmt::print("{} batch {} in {} micro-batches, {} over {} devices\n", plan.model, plan.batch,
               plan.micro_batches, plan.schedule, stages.size());
    fmt::print("one process     {:9.2f} ms a step\n", single_ms);
    fmt::print("pipeline        {:9.2f} ms a step, {:.2f} times as fast, {:.1f} samples/s\n",
               step_ms, single_ms / step_ms, plan.batch / step_ms * 1000);
    fmt::print("predicted       {:9.2f} ms + {:.2f} control: measured is {:+.1f} %\n",
               plan.predicted->step_ms, plan.predicted->control_ms,
               100 * (results["measured_to_predicted"].get<double>() - 1));
    fmt::print("lower bound     {:9.2f} ms, by {}\n", plan.predicted->lower_bound_ms,
               plan.predicted->bound_by);
    fmt::print("on the wire     {:9.2f} MiB a step\n",
               results["bytes_on_wire"].get<double>() / (1 << 20));
    for (std::size_t i = 0; i < stages.size(); ++i)
        fmt::print("{:<12} layers {:<18} busy {:3.0f} %, peak {:.1f} MiB (predicted {:.1f})\n",
                   stages[i]["device"].get<std::string>(), stages[i]["layers"].get<std::string>(),
                   100 * busy[i].get<double>(), peaks[i].get<double>() / (1 << 20),
                   predicted_peaks[i].get<double>() / (1 << 20));
}

}  // namespace

Result<ExitCode> bench_pipeline(int argc, const char* const* argv) {
    CommandLine line("ecopipe-bench pipeline",
                     "trains in one process and through a pipeline on this machine, in turn");
    line.text("model",
              "a zoo name such as lenet5 (a wrong one lists them), a graph's directory or a "
              "TorchScript file",
              "plain_cnn");
    line.text("data", "as of ecopipe-train", "synthetic:3x16x16:10:512");
    line.integer("stages", "equal devices, each bound to a core", {1, kStagesMax}, 2);
    line.text("cluster", "a cluster file, to emulate its devices and links");
    line.text("plan", "a plan to run, instead of the planner's");
    line.integer("batch", "samples a step", {1, 1 << 20}, 64);
    line.integer("micro-batches", "micro-batches a step", {1, 4096}, 8);
    line.text("schedule", "as of ecopipe-plan", "1f1b");
    line.integer("steps", "steps a turn, after one that warms up", {1, 100000}, 10);
    line.integer("turns", "turns of each", {1, 1000}, 3);
    line.flag("json", "print one JSON document");
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    if (line.given("stages") && (line.has("cluster") || line.has("plan")))
        return fail(ExitCode::kUsage, "--stages goes with neither --cluster nor --plan");
    watch_signals();
    configure_torch(1);
    warn_without_fast_blas();
    ECOPIPE_ASSIGN_OR_RETURN(const Setup setup, prepare(line));
    ECOPIPE_ASSIGN_OR_RETURN(const TensorMap weights, initial_weights(setup.spec, 0));
    NetLoop loop;
    LocalLauncher launcher;
    ECOPIPE_ASSIGN_OR_RETURN(Contender single, open_single(setup, weights));
    auto pipeline = open_pipeline(setup, weights, loop, launcher);
    Result<void> ran;
    const int steps = static_cast<int>(line.get_integer("steps"));
    if (!pipeline) {
        ran = tl::unexpected<Error>(pipeline.error());
    } else {
        for (std::int64_t turn = 0; turn < line.get_integer("turns") && ran; ++turn) {
            ran = take_turn(setup, single, steps);
            if (ran) ran = take_turn(setup, *pipeline, steps);
        }
        pipeline->engine->end(ran ? ExitCode::kDone : ran.error().code,
                              ran ? "done" : ran.error().message);
    }
    launcher.stop(kStagePatienceS);
    if (!ran && signal_received() != 0) return static_cast<ExitCode>(128 + signal_received());
    ECOPIPE_RETURN_IF_ERROR(ran);
    print_results(setup, single, *pipeline, line.get_flag("json"));
    return ExitCode::kDone;
}

}  // namespace ecopipe
