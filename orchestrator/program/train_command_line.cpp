#include "orchestrator/program/train_command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/log.h"
#include "orchestrator/program/learning_options.h"
#include "planner/schedule/registry.h"
#include "planner/search/partition.h"
#include "transport/web/web_server.h"

namespace ecopipe {
namespace {

constexpr std::int64_t kBatchMax = 1 << 24;
constexpr std::int64_t kMicroBatchesMax = 1 << 20;
constexpr std::int64_t kStepsMax = 1LL << 40;

void declare(CommandLine& line) {
    line.text("model",
              "a zoo name such as lenet5 (a wrong one lists them), a graph's directory or a "
              "TorchScript file");
    line.text("data",
              "fashion-mnist, idx:DIR, cifar10:DIR, folder:DIR, tensors:DIR or "
              "synthetic:CxHxW:CLASSES:COUNT");
    line.text("out", "directory for the model, metrics and timeline");
    line.text("cluster", "the cluster file");
    line.text("plan", "a plan to follow, instead of making one");
    line.flag("local", "start one stage per device on this machine, emulating speeds and links");
    line.flag("single", "train in one process without a pipeline: the reference");
    line.flag("pin-stages",
              "with --local: bind each stage to a core (always, when a cluster is emulated)");
    line.text("memory-budgets",
              "with --local: a directory with a file for each device, named as it is: the MiB that "
              "its tensors may take, read before each step with --recompute adaptive");
    line.text("bind",
              "address that devices dial (default: the cluster file's, else tcp://127.0.0.1:5599)");
    line.number("join-timeout-s", "how long to wait for devices", {0.1, 1e9}, 60);
    line.number("peer-timeout-s", "a device silent for this long is lost", {0.2, 3600}, 5);
    line.integer("threads", "threads of --single", {1, 1024}, 1);
    line.integer("batch", "samples a step", {1, kBatchMax}, 64);
    line.text("micro-batches", "micro-batches a step, or auto: as many as plan best", "8");
    line.text("sum-blocks",
              "parts of a step's sums, a power of two, or auto: above 1 several devices may hold a "
              "stage",
              "1");
    line.text("recompute",
              "what a stage short of memory may run forward twice: stages (all its layers), "
              "segments (as few of them as will do), or adaptive (that, as memory comes and goes)",
              "stages");
    line.text(
        "schedule",
        fmt::format("{}, {} or a CSV file of actions", kAutoSchedule, schedule_names(", ")).c_str(),
        kAutoSchedule);
    line.integer("epochs", "passes over the data; with --federated: local epochs a round",
                 {1, 1000000}, 1);
    line.integer("steps", "steps in all, instead of epochs", {0, kStepsMax});
    line.flag("drop-last", "leave out an epoch's short last batch");
    declare_learning(line);
    line.integer("seed", "of weights, order, dropout, augmentation and validation split",
                 {0, INT64_MAX}, 0);
    line.integer("checkpoint-every", "steps between checkpoints in DIR (default: each epoch)",
                 {1, kStepsMax});
    line.flag("resume", "go on from the newest valid checkpoint in DIR");
    line.text("replicas",
              "auto: devices keep each other's layers, so that one lost takes nothing with it; off",
              "auto");
    line.flag("evaluate-only", "test the model of --init and stop");
    line.flag("no-evaluation", "do not test after each epoch");
    line.flag("measure-links",
              "measure every pair of devices, write the cluster file with what was found to --out, "
              "and stop");
    line.flag("quiet", "no progress on stderr");
    line.text("web",
              "show the run as a page on this address, such as 127.0.0.1:8080 (port 0: any)");
    line.text("federated", "take part in the federation of this server, tcp://SERVER:PORT");
    line.number("reconnect-timeout-s", "how long a silent federation server is waited for",
                {0.1, 1e9}, 3600);
    line.text("report-labels", "what the server learns of the labels: exact, rounded or none",
              "exact");
    line.text("cluster-name",
              "this cluster's name in the federation (default: the cluster file's)");
    line.text(
        "server",
        "with --keys: the federation server's name in allowed/ (default: the only one there)");
    declare_security(line);
}

Result<void> check_combination(const CommandLine& line) {
    const auto both = [&](const char* a, const char* b) {
        return line.given(a) && line.given(b)
                   ? Result<void>(fail(ExitCode::kUsage,
                                       fmt::format("--{} and --{} exclude each other", a, b)))
                   : Result<void>();
    };
    for (const char* needed : {"model", "data", "out"})
        if (!line.has(needed))
            return fail(ExitCode::kUsage, fmt::format("--{} is missing", needed));
    const bool local = line.get_flag("local");
    const bool single = line.get_flag("single");
    if (local && single) return fail(ExitCode::kUsage, "--local and --single exclude each other");
    if (single && (line.has("plan") || line.given("bind")))
        return fail(ExitCode::kUsage,
                    "--single takes neither --plan nor --bind: it has no pipeline");
    if (local && line.given("bind"))
        return fail(ExitCode::kUsage, "--local and --bind exclude each other");
    if (!single && !line.has("cluster") && !line.has("plan"))
        return fail(ExitCode::kUsage,
                    "--cluster or --plan is missing (or --single, for one process)");
    for (const char* name : {"pin-stages", "memory-budgets"})
        if (line.given(name) && !local)
            return fail(ExitCode::kUsage, fmt::format("--{} goes with --local", name));
    if (line.get_flag("evaluate-only") && !line.has("init"))
        return fail(ExitCode::kUsage, "--evaluate-only needs --init FILE");
    if (line.get_text("micro-batches") == "auto" && (single || line.has("plan")))
        return fail(ExitCode::kUsage,
                    "--micro-batches auto needs a plan to be made: neither --single nor --plan");
    if (line.get_text("sum-blocks") == "auto" && (single || line.has("plan")))
        return fail(ExitCode::kUsage,
                    "--sum-blocks auto needs a plan to be made: neither --single nor --plan");
    if (line.get_flag("measure-links") && (single || local || !line.has("cluster")))
        return fail(ExitCode::kUsage,
                    "--measure-links needs --cluster and devices that dial in (neither --single "
                    "nor --local)");
    if (line.has("federated") && (line.get_flag("resume") || line.has("checkpoint-every")))
        return fail(ExitCode::kUsage,
                    "--federated goes with neither --resume nor --checkpoint-every: a round begins "
                    "from the server's model");
    for (const char* flag : {"evaluate-only", "init"})
        if (line.has("federated") && line.given(flag))
            return fail(ExitCode::kUsage,
                        fmt::format("--federated and --{} exclude each other", flag));
    if (line.get_flag("evaluate-only") && line.get_flag("resume"))
        return fail(ExitCode::kUsage, "--evaluate-only and --resume exclude each other");
    if (line.has("federated") && line.given("steps"))
        return fail(ExitCode::kUsage,
                    "--federated and --steps exclude each other: a round counts --epochs");
    return both("steps", "epochs");
}

}  // namespace

Result<std::optional<TrainOptions>> parse_train_options(int argc, const char* const* argv) {
    CommandLine line("ecopipe-train", "trains a network on a cluster of devices");
    declare(line);
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return std::optional<TrainOptions>();
    ECOPIPE_RETURN_IF_ERROR(check_combination(line));
    TrainOptions options;
    options.model = line.get_text("model");
    options.data = line.get_text("data");
    options.out = line.get_text("out");
    options.cluster_file = line.get_text("cluster");
    options.plan_file = line.get_text("plan");
    options.local = line.get_flag("local");
    options.single = line.get_flag("single");
    options.pin = line.get_flag("pin-stages");
    ECOPIPE_ASSIGN_OR_RETURN(options.security, security_from(line));
    if (line.given("bind")) {
        ECOPIPE_ASSIGN_OR_RETURN(options.bind, parse_endpoint(line.get_text("bind"), "--bind"));
        ECOPIPE_RETURN_IF_ERROR(allow_address(*options.bind, options.security, "--bind"));
    }
    options.join_timeout_s = line.get_number("join-timeout-s");
    options.peer_timeout_s = line.get_number("peer-timeout-s");
    options.threads = static_cast<int>(line.get_integer("threads"));
    options.schedule = line.get_text("schedule");
    ECOPIPE_ASSIGN_OR_RETURN(options.recomputation,
                             parse_recomputation(line.get_text("recompute")));
    if (line.has("memory-budgets")) options.memory_budgets = line.get_text("memory-budgets");
    for (const char* name : {"schedule", "batch", "micro-batches", "sum-blocks", "epochs",
                             "optimizer", "lr", "momentum", "weight-decay"})
        if (line.given(name)) options.given.insert(name);
    options.trainer.batch = static_cast<int>(line.get_integer("batch"));
    options.auto_micro_batches = line.get_text("micro-batches") == "auto";
    if (!options.auto_micro_batches) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto count,
                                 parse_integers(line.get_text("micro-batches"), "--micro-batches",
                                                {1, kMicroBatchesMax}));
        if (count.size() != 1)
            return fail(ExitCode::kUsage, "--micro-batches: expected one number or auto");
        options.trainer.micro_batches = static_cast<int>(count.front());
    }
    ECOPIPE_ASSIGN_OR_RETURN(options.sum_blocks, parse_sum_blocks(line.get_text("sum-blocks")));
    if (!options.auto_micro_batches && !line.has("plan") &&
        options.sum_blocks > options.trainer.micro_batches)
        return fail(ExitCode::kUsage,
                    fmt::format("--sum-blocks: expected at most the micro-batches ({}), found {}",
                                options.trainer.micro_batches, options.sum_blocks));
    options.trainer.epochs = static_cast<std::uint64_t>(line.get_integer("epochs"));
    options.trainer.has_steps = line.has("steps");
    options.trainer.steps =
        options.trainer.has_steps ? static_cast<std::uint64_t>(line.get_integer("steps")) : 0;
    options.trainer.drop_last = line.get_flag("drop-last");
    options.trainer.shuffle = !line.get_flag("no-shuffle");
    options.trainer.evaluate = !line.get_flag("no-evaluation");
    options.trainer.seed = static_cast<std::uint64_t>(line.get_integer("seed"));
    ECOPIPE_RETURN_IF_ERROR(read_learning(line, options));
    options.resume = line.get_flag("resume");
    options.trainer.checkpoints = !line.has("federated");
    options.trainer.checkpoint_every =
        line.has("checkpoint-every")
            ? static_cast<std::uint64_t>(line.get_integer("checkpoint-every"))
            : 0;
    const std::string replicas = line.get_text("replicas");
    if (replicas != "auto" && replicas != "off")
        return fail(ExitCode::kUsage, fmt::format("--replicas: expected auto or off, found '{}'",
                                                  printable(replicas)));
    options.replicas = replicas == "auto";
    options.evaluate_only = line.get_flag("evaluate-only");
    options.measure_links = line.get_flag("measure-links");
    options.quiet = line.get_flag("quiet");
    options.log_level = line.get_text("log-level");
    if (line.has("web")) {
        ECOPIPE_ASSIGN_OR_RETURN(
            options.web, parse_web_address(line.get_text("web"), line.get_flag("insecure")));
    }
    if (line.has("federated")) {
        ECOPIPE_ASSIGN_OR_RETURN(options.federated,
                                 parse_endpoint(line.get_text("federated"), "--federated"));
        ECOPIPE_RETURN_IF_ERROR(allow_address(*options.federated, options.security, "--federated"));
        ECOPIPE_ASSIGN_OR_RETURN(options.server_name,
                                 dialled_peer(line, options.security, "server"));
    }
    options.reconnect_timeout_s = line.get_number("reconnect-timeout-s");
    options.report_labels = line.get_text("report-labels");
    if (options.report_labels != "exact" && options.report_labels != "rounded" &&
        options.report_labels != "none")
        return fail(ExitCode::kUsage,
                    fmt::format("--report-labels: expected exact, rounded or none, found '{}'",
                                printable(options.report_labels)));
    options.cluster_name = line.get_text("cluster-name");
    options.effective = line.effective();
    return std::optional<TrainOptions>(std::move(options));
}

Result<void> adopt_client_setting(const std::string& key, const std::string& value,
                                  TrainOptions& options) {
    std::string flag = key;
    std::replace(flag.begin(), flag.end(), '_', '-');
    const auto refuse = [&](const auto& here) {
        return fail(ExitCode::kUsage, fmt::format("--{}: the federation's server says {}, found {}",
                                                  flag, printable(value), here));
    };
    const auto bad = [&] {
        return fail(ExitCode::kUsage,
                    fmt::format("the federation's client configuration: {} cannot be {}",
                                printable(key), printable(value)));
    };
    const auto take = [&](auto& target, auto low, auto high) -> Result<void> {
        auto parsed = target;
        const auto [stop, error] =
            std::from_chars(value.data(), value.data() + value.size(), parsed);
        if (error != std::errc() || stop != value.data() + value.size() || !(parsed >= low) ||
            !(parsed <= high))
            return bad();
        if (options.given.contains(flag) && parsed != target) return refuse(target);
        target = parsed;
        return {};
    };
    if (key == "epochs")
        return take(options.trainer.epochs, std::uint64_t{1}, std::uint64_t{1000000});
    if (key == "batch") return take(options.trainer.batch, 1, static_cast<int>(kBatchMax));
    if (key == "micro_batches") {
        options.auto_micro_batches = false;
        return take(options.trainer.micro_batches, 1, static_cast<int>(kMicroBatchesMax));
    }
    if (key == "lr") return take(options.trainer.learning_rate, 0.0, 1e6);
    if (key == "momentum") return take(options.optimizer.momentum, 0.0, 1.0);
    if (key == "weight_decay") return take(options.optimizer.weight_decay, 0.0, 1e6);
    if (key == "evaluate") {
        if (value != "1") return bad();
        options.trainer.evaluate_received = options.trainer.evaluate;  // --no-evaluation holds
        return {};
    }
    if (key == "mu") return take(options.optimizer.proximal_mu, 0.0, 1e6);
    if (key == "clip") return take(options.trainer.clip_norm, 0.0, 1e9);
    if (key == "optimizer") {
        OptimizerSpec told = options.optimizer;
        told.name = value;
        if (!told.known()) return bad();
        if (options.given.contains(flag) && value != options.optimizer.name)
            return refuse(options.optimizer.name);
        options.optimizer.name = value;
        if (value != "sgd") options.optimizer.momentum = 0;
        return {};
    }
    return bad();
}

}  // namespace ecopipe
