// ecopipe-fl-sim: a federation of virtual clusters in virtual time, that train for real.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <thread>

#include "core/clock.h"
#include "core/command_line.h"
#include "core/files.h"
#include "core/log.h"
#include "fl_server/service/server_config.h"
#include "fl_server/simulation/checkpoint.h"
#include "fl_server/simulation/process_pool.h"
#include "fl_server/simulation/summary.h"
#include "fl_server/simulation/worker.h"
#include "stage_runtime/data/dataset.h"
#include "stage_runtime/data/open_data.h"
#include "stage_runtime/engine/model/models.h"
#include "stage_runtime/engine/model/torch_compat.h"

namespace ecopipe {
namespace {

constexpr std::size_t kConfigFileBytesMax = 1U << 20;
constexpr std::size_t kRunFileBytesMax = 4ULL << 30;
constexpr auto kCheckpointEvery = std::chrono::seconds(30);
constexpr auto kProgressEvery = std::chrono::seconds(2);

struct Simulation {
    std::vector<std::string> strategies;
    std::vector<std::int64_t> seeds;
    ServerConfig config;
    std::string data;
    std::size_t clients = 0;
    double virtual_s = 0;
    std::string out;
    ModelSpec model;
    int channels = 0;
    std::vector<std::int64_t> labels;
    std::optional<ModelLayout> layout;
};

void declare(CommandLine& line) {
    line.text("strategy", "names, comma-separated");
    line.integer("clients", "virtual clusters", {1, 100000}, 300);
    line.integer("clients-per-round", "that train at once, under every strategy; 0: all",
                 {0, 100000}, 30);
    line.integer("classes-per-client", "labels that a cluster has (simulation: split: classes)",
                 {1, 1000000}, 2);
    line.text("data", "data set, as ecopipe-train takes it", "fashion-mnist");
    line.text("model", "zoo name", "lenet5");
    line.text("seeds", "comma-separated", "1");
    line.number("virtual-seconds", "how long each run lasts", {0.001, 1e9}, 3000);
    line.integer("local-epochs", "a task's (client: epochs)", {1, 1000000});
    line.text("config", "server.yaml: strategy:, robust:, client:, simulation:, limits:");
    line.text("out", "directory for one .jsonl a strategy and seed, and summary.json");
    line.text("svg", "draw accuracy against virtual time into this file");
    line.integer("workers", "training processes; 0: one a core", {0, 1024}, 0);
    line.flag("print-config", "print the whole configuration and leave");
}

Result<void> read_config(const CommandLine& line, Simulation& simulation) {
    ServerConfig& config = simulation.config;
    config.limits.norm_clip = kSimulatorNormClip;
    config.limits.weight_max = kSimulatorWeightMax;
    if (line.has("config")) {
        const std::string path = line.get_text("config");
        ECOPIPE_ASSIGN_OR_RETURN(const std::string text, read_file(path, kConfigFileBytesMax));
        ECOPIPE_ASSIGN_OR_RETURN(config, parse_server_config(text, path, config));
    }
    if (line.given("classes-per-client"))
        config.simulation.classes_per_client =
            static_cast<int>(line.get_integer("classes-per-client"));
    if (line.has("local-epochs")) config.client_settings.epochs = line.get_integer("local-epochs");
    if (line.has("strategy")) {
        std::istringstream names(line.get_text("strategy"));
        for (std::string name; std::getline(names, name, ',');)
            simulation.strategies.push_back(name);
    } else {
        for (const StrategySettings& told : config.strategies)
            simulation.strategies.push_back(told.name);
    }
    if (simulation.strategies.empty()) return fail(ExitCode::kUsage, "--strategy is missing");
    // Every strategy with the same number at work, and a start together.
    std::vector<StrategySettings> settled;
    for (const std::string& name : simulation.strategies) {
        ECOPIPE_ASSIGN_OR_RETURN(StrategySettings settings, config.strategy(name));
        settings.parameters.set("clients_per_round", line.get_integer("clients-per-round"));
        settings.parameters.set("min_clients", line.get_integer("clients"));
        settled.push_back(std::move(settings));
    }
    config.strategies = std::move(settled);
    for (const std::string& name : simulation.strategies) {
        ECOPIPE_ASSIGN_OR_RETURN(const StrategySettings settings, config.strategy(name));
        ECOPIPE_ASSIGN_OR_RETURN(const auto made, make_strategy(settings));
    }
    return {};
}

Result<void> open_model_and_data(const CommandLine& line, Simulation& simulation) {
    ECOPIPE_ASSIGN_OR_RETURN(simulation.model, find_model(line.get_text("model")));
    simulation.data = line.get_text("data");
    simulation.channels = required_channels(simulation.model);
    ECOPIPE_ASSIGN_OR_RETURN(const DataSplits splits,
                             open_data(simulation.data, {{}, 0, simulation.channels}));
    simulation.model.input_shape = splits.train->sample_shape();
    simulation.model.num_classes = splits.train->num_classes();
    for (std::int64_t i = 0; i < splits.train->size(); ++i)
        simulation.labels.push_back(splits.train->label(i));
    ECOPIPE_ASSIGN_OR_RETURN(const ModelInfo info, inspect_model(simulation.model));
    ECOPIPE_RETURN_IF_ERROR(expect_trainable(info, simulation.model));
    std::vector<LayoutTensor> tensors;
    for (const TensorInfo& tensor : info.tensors)
        tensors.push_back({tensor.name, tensor.dtype, tensor.shape,
                           !is_floating(tensor.dtype) ? StateKind::kInteger
                           : tensor.buffer            ? StateKind::kBuffer
                                                      : StateKind::kParameter,
                           static_cast<std::uint32_t>(tensor.layer)});
    ECOPIPE_ASSIGN_OR_RETURN(simulation.layout, ModelLayout::create(std::move(tensors)));
    return {};
}

// What the bytes of the runs depend on.
OrderedJson effective(const Simulation& simulation, const std::string& config_yaml) {
    return {{"schema", "ecopipe.simulation/1"},  {"model", simulation.model.id()},
            {"data", simulation.data},           {"clients", simulation.clients},
            {"virtual_s", simulation.virtual_s}, {"config", config_yaml}};
}

Result<void> keep_settings(const std::string& out, const OrderedJson& settings) {
    ECOPIPE_RETURN_IF_ERROR(make_directories(out));
    const std::string path = out + "/simulation.json";
    const std::string text = settings.dump(2) + "\n";
    if (!std::filesystem::exists(path)) return write_file_atomically(path, text);
    ECOPIPE_ASSIGN_OR_RETURN(const std::string before, read_file(path, kConfigFileBytesMax));
    if (before == text) return {};
    ECOPIPE_ASSIGN_OR_RETURN(const Json old, parse_json(before, path));
    for (const auto& [key, value] : settings.items())
        if (!old.contains(key) || OrderedJson(old[key]) != value)
            return fail(
                ExitCode::kUsage,
                fmt::format("--out {} holds runs with other settings: {} differs", out, key));
    return {};
}

Json worker_setup(const Simulation& simulation, const StrategyKind& kind, std::int64_t seed) {
    const ClientSettings& client = simulation.config.client_settings;
    const std::string optimizer = client.optimizer.value_or("sgd");
    const double momentum = optimizer == "sgd" ? client.momentum.value_or(0.9) : 0;
    return {{"model", simulation.model.id()},
            {"data", simulation.data},
            {"channels", simulation.channels},
            {"optimizer",
             {{"name", optimizer},
              {"momentum", momentum},
              {"weight_decay", client.weight_decay.value_or(0)},
              {"proximal_mu", client.mu.value_or(kind.client_mu)}}},
            {"lr", client.lr.value_or(0.01)},
            {"epochs", client.epochs.value_or(1)},
            {"batch", client.batch.value_or(64)},
            {"clip", client.clip.value_or(0)},
            {"seed", seed},
            {"evaluation_samples", simulation.config.simulation.evaluation_samples}};
}

double cpu_seconds() {
    double sum = 0;
    for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
        rusage usage{};
        ::getrusage(who, &usage);
        sum += static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    }
    return sum;
}

// The run's file so far, cut back to what a checkpoint knows of.
Result<void> cut_file(const std::string& path, std::uint64_t bytes) {
    std::error_code error;
    if (bytes == 0) {
        std::filesystem::remove(path, error);
        return {};
    }
    std::filesystem::resize_file(path, bytes, error);
    if (error) return fail(ExitCode::kBadFile, fmt::format("{}: {}", path, error.message()));
    return {};
}

Result<bool> run_one(const Simulation& simulation, const std::string& name, std::int64_t seed,
                     ProcessPool& pool) {
    const std::string stem = fmt::format("{}/{}-seed{}", simulation.out, name, seed);
    const std::string path = stem + ".jsonl";
    const std::string partial = path + ".partial";
    if (std::filesystem::exists(path)) return true;
    ECOPIPE_ASSIGN_OR_RETURN(const StrategyKind* kind, find_strategy(name));
    ECOPIPE_ASSIGN_OR_RETURN(StrategySettings settings, simulation.config.strategy(name));
    settings.seed = static_cast<std::uint64_t>(seed);
    ECOPIPE_ASSIGN_OR_RETURN(const auto strategy, make_strategy(settings));
    const Json setup = worker_setup(simulation, *kind, seed);
    ECOPIPE_RETURN_IF_ERROR(pool.set_up(setup));
    ECOPIPE_ASSIGN_OR_RETURN(
        Population population,
        Population::create(simulation.labels, simulation.model.num_classes, simulation.clients,
                           setup.at("epochs").get<std::int64_t>(), simulation.config.simulation,
                           static_cast<std::uint64_t>(seed)));
    ECOPIPE_ASSIGN_OR_RETURN(const TensorMap weights,
                             initial_weights(simulation.model, static_cast<std::uint64_t>(seed)));
    ECOPIPE_ASSIGN_OR_RETURN(const auto checkpoint,
                             read_simulation_checkpoint(stem + ".checkpoint"));
    std::uint64_t written = checkpoint ? checkpoint->lines_bytes : 0;
    ECOPIPE_RETURN_IF_ERROR(cut_file(partial, written));
    ECOPIPE_ASSIGN_OR_RETURN(LineAppender lines, LineAppender::open(partial));
    VirtualRunOptions options{simulation.virtual_s,
                              simulation.config.limits.norm_clip,
                              static_cast<std::uint64_t>(seed),
                              name == "tifl",
                              simulation.config.simulation,
                              simulation.config.limits.weight_max};
    VirtualRun run(*simulation.layout, std::make_shared<const std::string>(flatten(weights)),
                   std::move(population), *strategy, pool, std::move(options),
                   [&](const std::string& line) {
                       written += line.size() + 1;
                       return lines.append(line);
                   });
    if (checkpoint) ECOPIPE_RETURN_IF_ERROR(run.restore(checkpoint->snapshot));
    const Instant started = monotonic_now();
    Instant saved = started;
    Instant shown_at = started;
    const auto show = [&] {
        shown_at = monotonic_now();
        const auto& points = run.evaluations();
        fmt::print(stderr,
                   "{} seed {}: {:.0f} of {:.0f} virtual s, version {}, {} tasks, {}, {:.0f} s\n",
                   name, seed, run.now_s(), simulation.virtual_s, run.version(), run.tasks(),
                   points.empty() ? "not tested yet"
                                  : fmt::format("accuracy {:.2f} %", 100 * points.back().accuracy),
                   to_ms(shown_at - started) / 1000);
    };
    while (!run.finished()) {
        ECOPIPE_RETURN_IF_ERROR(run.run([&] {
            const Instant now = monotonic_now();
            if (now - shown_at >= kProgressEvery) show();
            return signal_received() != 0 || now - saved >= kCheckpointEvery;
        }));
        if (run.finished()) break;
        ECOPIPE_ASSIGN_OR_RETURN(VirtualRun::Snapshot snapshot, run.save());
        ECOPIPE_RETURN_IF_ERROR(
            write_simulation_checkpoint(stem + ".checkpoint", {std::move(snapshot), written}));
        saved = monotonic_now();
        if (signal_received() != 0) return false;
    }
    show();
    std::error_code error;
    std::filesystem::rename(partial, path, error);
    if (error) return fail(ExitCode::kRunFailed, fmt::format("{}: {}", path, error.message()));
    std::filesystem::remove(stem + ".checkpoint", error);
    return true;
}

Result<std::vector<StrategyRuns>> finished_runs(const Simulation& simulation) {
    std::vector<StrategyRuns> runs;
    for (const std::string& name : simulation.strategies) {
        StrategyRuns one{name, {}};
        for (const std::int64_t seed : simulation.seeds) {
            const std::string path = fmt::format("{}/{}-seed{}.jsonl", simulation.out, name, seed);
            if (!std::filesystem::exists(path)) continue;
            ECOPIPE_ASSIGN_OR_RETURN(const std::string text, read_file(path, kRunFileBytesMax));
            ECOPIPE_ASSIGN_OR_RETURN(one.seeds[seed], evaluations_in(text, path));
        }
        if (!one.seeds.empty()) runs.push_back(std::move(one));
    }
    return runs;
}

Result<void> report(const CommandLine& line, const Simulation& simulation,
                    const OrderedJson& settings) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto runs, finished_runs(simulation));
    OrderedJson summary = settings;
    const ServerLimits& limits = simulation.config.limits;
    summary["norm_clip"] = limits.norm_clip;
    summary["weight_max"] = limits.weight_max;
    summary["seeds"] = simulation.seeds;
    summary["strategies"] = summary_json(runs, simulation.config.simulation.targets_percent);
    ECOPIPE_RETURN_IF_ERROR(
        write_file_atomically(simulation.out + "/summary.json", summary.dump(2) + "\n"));
    if (line.has("svg"))
        ECOPIPE_RETURN_IF_ERROR(write_file_atomically(
            line.get_text("svg"),
            accuracy_svg(
                runs, fmt::format("{} clusters, labels {} of latency", simulation.clients,
                                  simulation.config.simulation.labels == "tied" ? "tied to the band"
                                                                                : "independent"))));
    const auto shown = [](double limit) {
        return limit > 0 ? fmt::format("{}", limit) : std::string("off");
    };
    fmt::print("{}norm clipping: {}, weight cap: {}\n", summary_table(summary["strategies"]),
               shown(limits.norm_clip), shown(limits.weight_max));
    return {};
}

Result<ExitCode> run(int argc, const char* const* argv) {
    CommandLine line("ecopipe-fl-sim",
                     "a federation of virtual clusters in virtual time, that train for real");
    declare(line);
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    Simulation simulation;
    simulation.clients = static_cast<std::size_t>(line.get_integer("clients"));
    simulation.virtual_s = line.get_number("virtual-seconds");
    ECOPIPE_RETURN_IF_ERROR(read_config(line, simulation));
    ECOPIPE_ASSIGN_OR_RETURN(const std::string config_yaml,
                             config_text(simulation.config, simulation.strategies));
    if (line.get_flag("print-config")) {
        fmt::print("{}", config_yaml);
        return ExitCode::kDone;
    }
    if (!line.has("out")) return fail(ExitCode::kUsage, "--out is missing");
    simulation.out = line.get_text("out");
    ECOPIPE_ASSIGN_OR_RETURN(simulation.seeds,
                             parse_integers(line.get_text("seeds"), "--seeds", {0, INT64_MAX}));
    configure_torch(1);
    warn_without_fast_blas();
    ECOPIPE_RETURN_IF_ERROR(open_model_and_data(line, simulation));
    const OrderedJson settings = effective(simulation, config_yaml);
    ECOPIPE_RETURN_IF_ERROR(keep_settings(simulation.out, settings));
    watch_signals();
    const auto asked = static_cast<std::size_t>(line.get_integer("workers"));
    const std::size_t workers =
        asked > 0 ? asked : std::max(1U, std::thread::hardware_concurrency());
    {
        ECOPIPE_ASSIGN_OR_RETURN(const auto pool, ProcessPool::start("/proc/self/exe", workers));
        for (const std::int64_t seed : simulation.seeds)
            for (const std::string& name : simulation.strategies) {
                ECOPIPE_ASSIGN_OR_RETURN(const bool finished,
                                         run_one(simulation, name, seed, *pool));
                if (finished) continue;
                fmt::print(stderr, "stopped; the same command goes on from here\n");
                return static_cast<ExitCode>(128 + signal_received());
            }
    }
    fmt::print(stderr, "{:.0f} s of CPU time\n", cpu_seconds());
    ECOPIPE_RETURN_IF_ERROR(report(line, simulation, settings));
    return ExitCode::kDone;
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view(argv[1]) == "worker")
        return ecopipe::run_program("ecopipe-fl-sim worker",
                                    [] { return ecopipe::run_worker(STDIN_FILENO); });
    return ecopipe::run_program("ecopipe-fl-sim", [&] { return ecopipe::run(argc, argv); });
}
