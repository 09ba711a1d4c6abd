#include "orchestrator/program/train_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>

#include "core/files.h"
#include "core/host_facts.h"
#include "core/log.h"
#include "domain/plan_index.h"
#include "fl_server/client/federated_client.h"
#include "orchestrator/program/local_launcher.h"
#include "orchestrator/program/planning.h"
#include "orchestrator/program/replanner.h"
#include "orchestrator/program/resumed_run.h"
#include "orchestrator/program/run_inputs.h"
#include "orchestrator/program/run_reports.h"
#include "orchestrator/program/train_command_line.h"
#include "orchestrator/session/cluster_session.h"
#include "orchestrator/train/single_engine.h"
#include "orchestrator/view/run_monitor.h"
#include "planner/schedule/plan_file.h"
#include "planner/schedule/registry.h"
#include "planner/search/partition.h"
#include "stage_runtime/data/safetensors.h"
#include "stage_runtime/engine/model/loss_names.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/numeric_class.h"
#include "stage_runtime/engine/run/test_batch.h"
#include "transport/net/zap_handler.h"

namespace ecopipe {
namespace {

constexpr double kStagePatienceS = 5;                  // for --local stages to end by themselves
constexpr auto kStepGrace = std::chrono::seconds(10);  // for the step at hand, after a signal

// Everything a run is made of, in the order it comes to be.
struct Run {
    explicit Run(TrainOptions flags) : options(std::move(flags)), monitor(options.quiet) {}
    NetLoop loop;  // first to come, last to go: every socket lives on it
    TrainOptions options;
    RunMonitor monitor;
    RunInputs inputs;
    std::unique_ptr<LocalLauncher> launcher;
    std::unique_ptr<TrainingEngine> engine;
    ClusterSession* session = nullptr;      // the engine, when it is a pipeline
    std::optional<Instant> training_since;  // a signal then ends the step before it ends the run
    std::optional<Instant> signalled;
    std::string ended_with;  // the last line on stdout
};

ExecutorOptions executor_options(const TrainOptions& options) {
    ExecutorOptions executor;
    executor.optimizer = options.optimizer;
    executor.loss = options.trainer.loss;
    executor.seed = options.trainer.seed;
    executor.sum_blocks = options.sum_blocks;
    return executor;
}

std::string join_command(const Cluster& cluster, const Endpoint& bound, const std::string& device,
                         const Security& security) {
    Endpoint portal = bound;
    if (!cluster.portal_address.empty())
        portal.host = parse_host(cluster.portal_address, "portal_address").value_or(bound.host);
    return fmt::format("ecopipe-stage --join {} --name {}{}", portal.text(), device,
                       security.keys       ? " --keys KEYS"
                       : security.insecure ? " --insecure"
                                           : "");
}

// Who has joined by the deadline. Without a plan the run goes on with those present.
Result<void> await_devices(ClusterSession& session, const Cluster& cluster,
                           const std::set<std::string>& wanted, const TrainOptions& options) {
    const auto tell = [&](const std::vector<std::string>& missing) {
        if (missing.empty() || options.local) return;
        log_info("waiting on {} for {} device{}:", session.bound().text(), missing.size(),
                 missing.size() == 1 ? "" : "s");
        for (const std::string& device : missing)
            log_info("  {}", join_command(cluster, session.bound(), device, options.security));
    };
    return session.wait_for(wanted, from_ms(options.join_timeout_s * 1000), tell);
}

bool may_have_twins(const ModelInfo& info) {
    return std::none_of(info.layers.begin(), info.layers.end(),
                        [](const LayerInfo& layer) { return layer.one_holder; });
}

// Who plans anew when devices come, go or change their speed. A plan of the user's stands while its
// devices do; a schedule of the user's own fits its own plan alone.
std::unique_ptr<ClusterPlanner> make_planner(Run& run, const Cluster& cluster,
                                             std::vector<ModelProfile> profiles, const Plan& plan) {
    ReplannerOptions options;
    options.cluster = cluster;
    options.profiles = std::move(profiles);
    options.measure = [&run, cluster] {
        return gather_profiles(cluster, run.options.cluster_file, run.inputs.spec, run.inputs.info,
                               *run.inputs.data.train, run.options);
    };
    options.request.batch = run.options.trainer.batch;
    options.request.micro_batches = plan.micro_batches;
    options.request.sum_blocks = plan.sum_blocks;
    options.request.twins = may_have_twins(run.inputs.info);
    options.request.schedule =
        find_schedule(plan.schedule) != nullptr ? plan.schedule : std::string(kOneFOneB.name);
    options.request.recomputation = run.options.recomputation;
    if (!run.options.plan_file.empty()) options.given = plan;
    options.replicas = run.options.replicas;
    options.links_known = run.options.local || !run.options.cluster_file.empty();
    options.check = check_executable;
    return std::make_unique<Replanner>(std::move(options));
}

// What is known of the cluster before anybody joins.
void show_cluster(const Cluster& cluster, const TrainOptions& options, RunView& view) {
    for (std::size_t a = 0; a < cluster.devices.size(); ++a) {
        const Device& device = cluster.devices[a];
        view.expect_device(device.name, options.cluster_file.empty() ? 0 : device.memory_mib);
        if (options.cluster_file.empty()) continue;
        for (std::size_t b = a + 1; b < cluster.devices.size(); ++b)
            view.set_link(device.name, cluster.devices[b].name, cluster.link(a, b).mbps,
                          cluster.link(a, b).latency_ms);
    }
}

// Opens the port that devices dial.
Result<void> open_session(Run& run, const Cluster& cluster) {
    const TrainOptions& options = run.options;
    SessionOptions session_options;
    session_options.peer_timeout_s = options.peer_timeout_s;
    session_options.security = options.security;
    session_options.portal.shared_machine = options.local;
    session_options.portal.observer = &run.monitor.view();
    session_options.bind = options.local
                               ? Endpoint{"127.0.0.1", 0}
                               : Endpoint{"127.0.0.1", static_cast<std::uint16_t>(cluster.port)};
    if (options.bind) {
        session_options.bind = *options.bind;
    } else if (!options.local && !cluster.portal_address.empty()) {
        const auto host = parse_host(cluster.portal_address, "portal_address");
        if (!host) return fail_in(options.cluster_file, {ExitCode::kBadFile, host.error().message});
        session_options.bind.host = *host;
    } else if (!options.local && !options.cluster_file.empty()) {
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: portal_address: expected the address that devices dial, or "
                                "--bind; found none, which only --local can do without",
                                options.cluster_file));
    }
    ECOPIPE_RETURN_IF_ERROR(allow_address(session_options.bind, options.security,
                                          options.bind ? "--bind" : "portal_address"));
    if (options.local && !options.cluster_file.empty())
        session_options.links = portal_links(cluster);
    session_options.portal.portal_device = cluster.devices[cluster.portal].name;
    for (const Device& device : cluster.devices) {
        session_options.devices.push_back(device.name);
        if (options.local || device.data_address.empty()) continue;
        const auto host =
            parse_host(device.data_address, fmt::format("data_address of {}", device.name));
        if (!host) return fail_in(options.cluster_file, {ExitCode::kBadFile, host.error().message});
        session_options.portal.data_address[device.name] = *host;
    }
    show_cluster(cluster, options, run.monitor.view());
    run.launcher = std::make_unique<LocalLauncher>();
    session_options.check = [&run]() -> Result<void> {
        if (signal_received() == 0) return {};
        if (!run.signalled) run.signalled = monotonic_now();
        if (run.training_since && monotonic_now() - *run.signalled < kStepGrace) return {};
        return fail(ExitCode::kRunFailed, "interrupted by a signal");
    };
    session_options.ended_processes = [launcher = run.launcher.get()] {
        std::vector<LostProcess> lost;
        for (auto& [device, how] : launcher->ended())
            lost.push_back({device, "its process " + how});
        return lost;
    };
    session_options.portal.rejoin_timeout_s = options.local ? 0 : options.join_timeout_s;
    ECOPIPE_ASSIGN_OR_RETURN(auto session,
                             ClusterSession::open(run.loop, std::move(session_options)));
    run.session = session.get();
    run.engine = std::move(session);
    return {};
}

// --measure-links: every pair of devices, one after the other, and the cluster file with what was
// found in place of its links.
Result<ExitCode> measure_links(Run& run, RunRecord& record) {
    const TrainOptions& options = run.options;
    ECOPIPE_ASSIGN_OR_RETURN(Cluster cluster, read_cluster(options.cluster_file));
    ECOPIPE_RETURN_IF_ERROR(open_session(run, cluster));
    std::set<std::string> wanted;
    for (const Device& device : cluster.devices) wanted.insert(device.name);
    ECOPIPE_RETURN_IF_ERROR(await_devices(*run.session, cluster, wanted, options));
    fmt::print("{:<24} {:>10} {:>12}\n", "link", "Mbit/s", "latency ms");
    for (std::size_t a = 0; a < cluster.devices.size(); ++a)
        for (std::size_t b = a + 1; b < cluster.devices.size(); ++b) {
            const std::string& from = cluster.devices[a].name;
            const std::string& to = cluster.devices[b].name;
            if (!run.session->joined().contains(from) || !run.session->joined().contains(to)) {
                log_warn("{}-{}: not measured, one of them has not joined", from, to);
                continue;
            }
            ECOPIPE_ASSIGN_OR_RETURN(const LinkProbed found, run.session->probe_link(from, to));
            Link link = cluster.link(a, b);
            link.mbps = found.mbps;
            link.latency_ms = found.latency_ms;
            cluster.links[{a, b}] = link;
            fmt::print("{:<24} {:>10.1f} {:>12.3f}\n", from + "-" + to, found.mbps,
                       found.latency_ms);
        }
    const auto directory = std::filesystem::absolute(options.cluster_file).parent_path();
    for (Device& device : cluster.devices)  // paths are relative to the file that names them
        if (!device.profile.empty()) device.profile = (directory / device.profile).string();
    const std::string path = record.path("cluster.yaml");
    ECOPIPE_RETURN_IF_ERROR(write_file_atomically(path, cluster_text(cluster)));
    fmt::print("written to {}\n", path);
    return ExitCode::kDone;
}

// Opens the port, starts local stages, waits for the devices, settles the plan.
Result<void> open_pipeline(Run& run, RunRecord& record) {
    TrainOptions& options = run.options;
    std::optional<Plan> plan;
    if (!options.plan_file.empty()) {
        ECOPIPE_ASSIGN_OR_RETURN(plan, read_plan(options.plan_file));
        ECOPIPE_RETURN_IF_ERROR(adopt_plan(*plan, run.inputs.spec, run.inputs.info, options));
    }
    Cluster cluster;
    if (!options.cluster_file.empty()) {
        ECOPIPE_ASSIGN_OR_RETURN(cluster, read_cluster(options.cluster_file));
    } else {
        cluster = cluster_of_plan(*plan);
    }
    if (!options.auto_micro_batches)
        ECOPIPE_RETURN_IF_ERROR(try_smallest_micro_batch(run.inputs, run.options.trainer));

    ECOPIPE_RETURN_IF_ERROR(open_session(run, cluster));
    std::vector<ModelProfile> profiles;
    if (!options.cluster_file.empty()) {
        ECOPIPE_ASSIGN_OR_RETURN(profiles,
                                 gather_profiles(cluster, options.cluster_file, run.inputs.spec,
                                                 run.inputs.info, *run.inputs.data.train, options));
    }
    if (plan && !profiles.empty()) ECOPIPE_RETURN_IF_ERROR(price_plan(cluster, profiles, *plan));
    if (options.local) {
        auto stages = local_stages(cluster);
        if (options.pin || !options.cluster_file.empty()) pin_to_cores(stages);
        if (options.cluster_file.empty())
            for (LocalStage& stage : stages) stage.links.clear();
        if (!options.memory_budgets.empty())
            for (LocalStage& stage : stages)
                stage.memory_budget = options.memory_budgets + "/" + stage.device;
        const std::string models = run.inputs.spec.torchscript_path.empty()
                                       ? "."
                                       : std::filesystem::absolute(run.inputs.spec.torchscript_path)
                                             .parent_path()
                                             .string();
        ECOPIPE_RETURN_IF_ERROR(
            run.launcher->start(run.session->bound(), stages, models, options.security,
                                options.log_level == "info" ? "warn" : options.log_level));
    }
    std::set<std::string> wanted;
    if (plan) {
        const PlanIndex index(*plan);
        wanted.insert(index.devices().begin(), index.devices().end());
    } else {
        for (const Device& device : cluster.devices) wanted.insert(device.name);
    }
    for (const std::string& device : wanted)
        if (!cluster.find(device))
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: device {} is not in {}", options.plan_file, device,
                                    options.cluster_file));
    ECOPIPE_RETURN_IF_ERROR(await_devices(*run.session, cluster, wanted, options));
    std::vector<std::string> absent;
    std::set<std::string> present;
    for (const std::string& device : wanted)
        (run.session->joined().contains(device) ? (void)present.insert(device)
                                                : absent.push_back(device));
    if (!absent.empty() && (plan || present.empty()))
        return fail(ExitCode::kUnreachable,
                    fmt::format("{} did not join within {} s", fmt::join(absent, ", "),
                                options.join_timeout_s));
    if (!absent.empty()) log_warn("absent: {}; planning without", fmt::join(absent, ", "));
    if (!plan) {
        PlanRequest request;
        request.batch = options.trainer.batch;
        request.micro_batches = options.auto_micro_batches ? 0 : options.trainer.micro_batches;
        request.sum_blocks = options.sum_blocks;
        request.twins = may_have_twins(run.inputs.info);
        request.recomputation = options.recomputation;
        ECOPIPE_RETURN_IF_ERROR(use_schedule(request, options.schedule));
        ECOPIPE_ASSIGN_OR_RETURN(plan,
                                 search_plan(present_part(cluster, present), profiles, request));
        options.trainer.micro_batches = plan->micro_batches;
        options.sum_blocks = plan->sum_blocks;
        if (options.auto_micro_batches) {
            const auto overhead = micro_batch_overhead_ms(profiles.front());
            log_info("{} micro-batches, at a fixed cost of {:.2f} ms each", plan->micro_batches,
                     overhead.value_or(0));
            record.run["micro_batches"] = plan->micro_batches;
            record.run["micro_batch_overhead_ms"] = overhead.value_or(0);
            ECOPIPE_RETURN_IF_ERROR(try_smallest_micro_batch(run.inputs, run.options.trainer));
        }
    }
    ECOPIPE_RETURN_IF_ERROR(check_executable(*plan));
    tell_numeric_classes(run.session->joined(), *plan, record);
    for (const std::string& line : stage_lines(*plan)) log_info("{}", line);
    if (plan->predicted)
        log_info(
            "{} with {} micro-batches, predicted step {:.2f} ms + control {:.2f} ms, bound by {}",
            plan->schedule, plan->micro_batches, plan->predicted->step_ms,
            plan->predicted->control_ms, plan->predicted->bound_by);
    run.session->set_planner(make_planner(run, cluster, std::move(profiles), *plan));
    run.session->set_plan(
        *plan, {run.inputs.spec, options.trainer.seed, options.optimizer, options.trainer.loss},
        run.inputs.info);
    return {};
}

Result<void> open_single(Run& run, RunRecord& record) {
    ECOPIPE_RETURN_IF_ERROR(try_smallest_micro_batch(run.inputs, run.options.trainer));
    ECOPIPE_ASSIGN_OR_RETURN(run.engine,
                             make_single_engine(run.inputs.spec, executor_options(run.options)));
    ECOPIPE_ASSIGN_OR_RETURN(const NumericClass numeric,
                             measure_numeric_class(run.options.threads));
    record.run["devices"]["this process"] = {
        {"cpu", cpu_name()},
        {"cores", core_count()},
        {"threads", run.options.threads},
        {"numeric_class", fmt::format("{:016x}", numeric.hash)},
        {"numeric_summary", numeric.summary}};
    return {};
}

Result<void> begin_record(const Run& run, RunRecord& record) {
    record.run["version"] = kVersion;
    record.run["flags"] = run.options.effective;
    record.run["seed"] = run.options.trainer.seed;
    record.run["torch"] = torch_versions().torch;
    record.run["blas"] = torch_versions().blas;
    record.run["model"] = run.inputs.spec.id();
    OrderedJson hashes = OrderedJson::object();
    for (const std::string& file :
         {run.options.cluster_file, run.options.plan_file, run.options.init}) {
        if (file.empty()) continue;
        ECOPIPE_ASSIGN_OR_RETURN(const std::string bytes, read_file(file, kSafetensorsBytesMax));
        hashes[file] = sha256_hex(bytes);
    }
    record.run["file_sha256"] = std::move(hashes);
    return {};
}

// A model that came as TorchScript goes so too, as model.pt.
Result<void> save_model(const Run& run, const RunRecord& record, const TensorMap& weights) {
    const ModelSpec& spec = run.inputs.spec;
    if (!spec.torchscript_path.empty())
        ECOPIPE_RETURN_IF_ERROR(save_torchscript(spec, weights, record.path("model.pt")));
    return record.save_model(weights);
}

Result<ExitCode> train_alone(Run& run, RunRecord& record, Progress& progress) {
    run.options.trainer.checkpoint_flags = training_flags(run.options, run.inputs.spec);
    Trainer trainer(*run.engine, run.inputs.data, run.options.trainer, record, progress);
    TensorMap state = run.inputs.weights;
    ValidationHistory history;
    std::uint64_t first = 0;
    if (run.options.resume) {
        ECOPIPE_ASSIGN_OR_RETURN(first, resume_point(run.options, record, state, history));
    }
    ECOPIPE_ASSIGN_OR_RETURN(const EpochPlan epochs,
                             plan_epochs(run.inputs.data.train->size(), run.options.trainer));
    if (first > epochs.steps)
        return fail(ExitCode::kUsage,
                    fmt::format("--resume: {} has done {} steps, the flags ask for {}",
                                record.directory(), first, epochs.steps));
    const bool stopped_early = run.options.trainer.early_stop > 0 &&
                               history.without_improvement() >= run.options.trainer.early_stop;
    if (first > 0 && (first == epochs.steps || stopped_early) && ended_at(record, first)) {
        run.ended_with =
            fmt::format("complete before: {} steps; files in {}", first, record.directory());
        return ExitCode::kDone;
    }
    ECOPIPE_RETURN_IF_ERROR(run.engine->load(state, first));
    state.clear();
    if (run.session != nullptr) tell_replicas(run.session->replicas());
    TrainResult result;
    if (run.options.evaluate_only) {
        std::optional<LossTotals> test;
        Instant started = monotonic_now();
        while (!test) {
            started = monotonic_now();
            ECOPIPE_ASSIGN_OR_RETURN(test, trainer.evaluate(0));
        }
        result.test = *test;
        result.samples_per_s = static_cast<double>(run.inputs.data.test->size()) /
                               to_ms(monotonic_now() - started) * 1000;
    } else {
        record.run["training"] = run.options.trainer.checkpoint_flags;
        ECOPIPE_RETURN_IF_ERROR(record.save_run());  // a resumption compares flags with it
        run.training_since = monotonic_now();
        ECOPIPE_ASSIGN_OR_RETURN(result, trainer.run(first, std::move(history)));
        if (run.session != nullptr)
            ECOPIPE_RETURN_IF_ERROR(
                write_file_atomically(record.path("plan.json"), plan_text(run.session->plan())));
        ECOPIPE_RETURN_IF_ERROR(save_model(run, record, result.weights));
        ECOPIPE_RETURN_IF_ERROR(record.save_timeline());
    }
    record.run["results"] = {{"steps", result.steps}, {"interrupted", result.interrupted}};
    if (result.samples_per_s > 0) record.run["results"]["samples_per_s"] = result.samples_per_s;
    if (result.steps > first) {
        record.run["results"]["last_loss"] = result.last_loss;
        record.run["results"]["median_step_ms"] = result.median_step_ms;
    }
    const std::string tested =
        record_results(run.options.trainer.loss.name, result, record.run["results"]);
    if (run.session != nullptr)
        tell_memory(run.session->plan(), run.session->replicas(), result, record);
    ECOPIPE_RETURN_IF_ERROR(record.save_run());
    ECOPIPE_RETURN_IF_ERROR(record.finish());
    run.ended_with = fmt::format("{}{} steps, {:.0f} samples/s{}; files in {}",
                                 result.interrupted ? "interrupted: " : "", result.steps,
                                 result.samples_per_s, tested, record.directory());
    return result.interrupted ? static_cast<ExitCode>(128 + signal_received()) : ExitCode::kDone;
}

// Before anything is planned: the server's configuration decides batch and optimiser.
Result<std::unique_ptr<FederatedClient>> join_federation(Run& run, const RunRecord& record) {
    TrainOptions& options = run.options;
    if (options.cluster_name.empty() && !options.cluster_file.empty()) {
        ECOPIPE_ASSIGN_OR_RETURN(const Cluster cluster, read_cluster(options.cluster_file));
        options.cluster_name = cluster.name;
    }
    if (options.cluster_name.empty())
        return fail(ExitCode::kUsage, "--cluster-name is missing (--federated needs one)");
    FederatedOptions federated{
        *options.federated, options.server_name, options.cluster_name, run.inputs.spec,
        run.inputs.info, options.join_timeout_s, options.reconnect_timeout_s, options.report_labels,
        // Each stage's layers are a slice of the update.
        [&run] {
            std::vector<std::pair<int, int>> stages;
            if (run.session != nullptr)
                for (const StagePlan& stage : run.session->plan().stages)
                    stages.emplace_back(stage.first_layer, stage.last_layer);
            return stages;
        },
        options.trainer.loss.name == "cross_entropy",
        options.trainer.evaluate && run.inputs.data.test != nullptr,
        [&run](const std::vector<std::string>& list) {
            return map_classes(list, run.options, run.inputs);
        },
        [&run, &record](const TensorMap& weights) { return save_model(run, record, weights); }};
    auto client = std::make_unique<FederatedClient>(run.loop, std::move(federated));
    ECOPIPE_ASSIGN_OR_RETURN(const auto configuration, client->join(run.inputs.data));
    for (const KeyValue& pair : configuration)
        ECOPIPE_RETURN_IF_ERROR(adopt_client_setting(pair.key, pair.value, options));
    ECOPIPE_RETURN_IF_ERROR(settle_class_weights(run.inputs, options));
    return client;
}

// A pipeline is told the sizes of all parts of a test in one message.
Result<void> check_test_parts(const Run& run) {
    const auto part = static_cast<std::size_t>(run.options.trainer.test_batch);
    for (const Dataset* split : {run.inputs.data.test.get(), run.inputs.data.validation.get()}) {
        if (run.options.single || split == nullptr) continue;
        const std::size_t parts = (static_cast<std::size_t>(split->size()) + part - 1) / part;
        if (parts > kStepMicroBatchesMax)
            return fail(ExitCode::kUsage,
                        fmt::format("a test of {} samples has {} parts of {}, a pipeline takes at "
                                    "most {}: give fewer samples",
                                    split->size(), parts, part, kStepMicroBatchesMax));
    }
    return {};
}

// A model that takes no sample alone, as one traced with its batch, is tested in micro-batches.
int test_batch_of(const Run& run) {
    const TrainerOptions& trainer = run.options.trainer;
    const DataSplits& data = run.inputs.data;
    const Dataset* tested = data.test ? data.test.get() : data.validation.get();
    const auto fixed = tested != nullptr ? test_batch(run.inputs.spec, *tested) : Result<int>(1);
    return fixed.value_or((trainer.batch + trainer.micro_batches - 1) / trainer.micro_batches);
}

Result<ExitCode> run_all(Run& run, RunRecord& record) {
    ECOPIPE_RETURN_IF_ERROR(begin_record(run, record));
    Progress& progress = run.monitor.progress();
    std::unique_ptr<FederatedClient> client;
    if (run.options.federated) {
        ECOPIPE_ASSIGN_OR_RETURN(client, join_federation(run, record));
    }
    ECOPIPE_RETURN_IF_ERROR(keep_planned_numbers(run.options, record));
    if (run.options.measure_links) return measure_links(run, record);
    if (run.options.single) {
        ECOPIPE_RETURN_IF_ERROR(open_single(run, record));
    } else {
        ECOPIPE_RETURN_IF_ERROR(open_pipeline(run, record));
    }
    if (run.session != nullptr)
        ECOPIPE_RETURN_IF_ERROR(
            write_file_atomically(record.path("plan.json"), plan_text(run.session->plan())));
    run.options.trainer.test_batch = test_batch_of(run);
    ECOPIPE_RETURN_IF_ERROR(check_test_parts(run));
    if (client)
        return client->serve(*run.engine, run.inputs.data, run.options.trainer, record, progress);
    return train_alone(run, record, progress);
}

}  // namespace

Result<ExitCode> train(TrainOptions options) {
    Run run(std::move(options));
    use_keys(run.loop, run.options.security.keys);
    run.monitor.view().begin(fmt::format("{} on {}", run.options.model, run.options.data));
    if (run.options.web) ECOPIPE_RETURN_IF_ERROR(run.monitor.serve(*run.options.web));
    ECOPIPE_ASSIGN_OR_RETURN(run.inputs, load_inputs(run.options));
    ECOPIPE_ASSIGN_OR_RETURN(
        RunRecord record,
        RunRecord::create(run.options.out, run.options.resume, &run.monitor.view()));
    run.monitor.keep_status(run.options.out);
    auto outcome = run_all(run, record);
    run.monitor.end(outcome ? RunState::kEnded : RunState::kFailed,
                    outcome ? run.ended_with : outcome.error().message);
    if (!run.ended_with.empty()) fmt::print("{}\n", run.ended_with);
    if (run.engine)
        run.engine->end(outcome ? ExitCode::kDone : outcome.error().code,
                        outcome ? "done" : outcome.error().message);
    if (run.launcher) run.launcher->stop(kStagePatienceS);
    if (!outcome && signal_received() != 0) {
        log_error("{}", outcome.error().message);
        return static_cast<ExitCode>(128 + signal_received());
    }
    return outcome;
}

}  // namespace ecopipe
