#include "fl_server/client/federated_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/command_line.h"
#include "core/files.h"
#include "core/log.h"

namespace ecopipe {

ClusterHello FederatedClient::hello(const Dataset& train) const {
    ClusterHello hello;
    hello.cluster = options_.cluster;
    hello.program_version = kVersion;
    hello.model = options_.model.id();
    hello.instance = instance_;
    hello.samples = static_cast<std::uint64_t>(train.size());
    hello.tests = options_.tests;
    std::vector<std::uint64_t> counts(static_cast<std::size_t>(train.num_classes()), 0);
    for (std::int64_t i = 0; i < train.size(); ++i)
        if (const std::int64_t label = train.label(i); label >= 0)
            ++counts[static_cast<std::size_t>(label)];
    hello.label_counts = label_report(std::move(counts), options_.report_labels);
    if (!options_.classes) return hello;
    hello.class_count = static_cast<std::uint32_t>(train.num_classes());
    std::vector<std::string> names = train.class_names();
    hello.classes_sha256 = classes_hash(names);
    // Who keeps its labels to itself keeps their names too: their hash tells whether they are the
    // federation's, to whoever has the same list.
    if (options_.report_labels == "exact" && check_classes(names).empty())
        hello.classes = std::move(names);
    return hello;
}

Result<std::vector<KeyValue>> FederatedClient::join(const DataSplits& data) {
    std::random_device device;  // an identity only
    instance_ = (std::uint64_t{device()} << 32) | device();
    samples_ = static_cast<std::uint64_t>(data.train->size());
    const auto map_classes = [&](const std::vector<std::string>& list) -> Result<ClusterHello> {
        ECOPIPE_RETURN_IF_ERROR(options_.map_classes(list));
        return hello(*data.train);
    };
    ECOPIPE_ASSIGN_OR_RETURN(const ClusterWelcome welcome,
                             link_.join(options_.server, options_.server_name, hello(*data.train),
                                        options_.timeout_s, map_classes));
    link_.set_patience(options_.reconnect_timeout_s);
    log_info("cluster {} joined the federation of {}", options_.cluster, options_.server.text());
    return welcome.client;
}

std::vector<std::uint64_t> label_report(std::vector<std::uint64_t> counts, const std::string& how) {
    if (how == "none") return {};
    if (how == "rounded")
        for (std::uint64_t& count : counts)
            if (count > 0)
                count = std::uint64_t{1} << static_cast<unsigned>(
                            std::lround(std::log2(static_cast<double>(count))));
    return counts;
}

std::vector<OutgoingSlice> FederatedClient::slices_of(const TensorMap& trained,
                                                      const std::string& bytes,
                                                      const UpdateSlice& common) const {
    const int last = static_cast<int>(options_.info.layers.size()) - 1;
    std::vector<std::pair<int, int>> stages;
    if (options_.stages) stages = options_.stages();
    if (stages.empty()) stages = {{0, last}};
    std::vector<OutgoingSlice> slices;
    std::size_t at = 0;
    std::size_t tensor = 0;
    for (const auto& [first, to] : stages) {
        OutgoingSlice slice{common, at, 0};
        while (tensor < trained.size() && options_.info.tensors[tensor].layer <= to)
            slice.bytes += trained[tensor++].tensor.bytes();
        slice.announcement.first_layer = static_cast<std::uint32_t>(first);
        slice.announcement.last_layer = static_cast<std::uint32_t>(to);
        at += slice.bytes;
        // A stage without state, such as activations alone, goes with the one before it.
        if (slice.bytes == 0 && !slices.empty())
            slices.back().announcement.last_layer = static_cast<std::uint32_t>(to);
        else
            slices.push_back(std::move(slice));
    }
    if (slices.size() > 1 && slices.front().bytes == 0) {
        slices[1].announcement.first_layer = 0;
        slices.erase(slices.begin());
    }
    for (std::size_t s = 0; s < slices.size(); ++s) {
        UpdateSlice& a = slices[s].announcement;
        a.slice = static_cast<std::uint16_t>(s);
        a.slices = static_cast<std::uint16_t>(slices.size());
        a.bytes = slices[s].bytes;
        a.sha256 = sha256_hex(std::string_view(bytes).substr(slices[s].offset, slices[s].bytes));
    }
    return slices;
}

// The received model on the cluster's own held-out data.
Result<std::optional<LossTotals>> FederatedClient::evaluate(TrainingEngine& engine,
                                                            const DataSplits& data,
                                                            const TrainerOptions& trainer_options) {
    if (!trainer_options.evaluate_received || !data.test || data.test->size() == 0)
        return std::optional<LossTotals>();
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(
            const LossTotals sum,
            engine.evaluate(*data.test, trainer_options.test_batch, trainer_options.readers));
        // Nothing was committed: what all went back to is the received model.
        if (!engine.take_rewind()) return std::optional(sum);
    }
}

void FederatedClient::watch_pace(const StepPace& pace) {
    constexpr std::size_t kStepsToJudge = 3;
    for (const ClusterEvent& event : pace.events) {
        changed_ = event.what.dump();
        steps_since_.clear();
    }
    if (changed_.empty()) return;
    steps_since_.push_back(pace.step_ms);
    if (steps_since_.size() < kStepsToJudge) return;
    // The first step since carries the recovery itself.
    std::nth_element(steps_since_.begin(), steps_since_.begin() + 1, steps_since_.end());
    const double latency_s =
        steps_since_[1] * static_cast<double>(pace.steps) / 1000 + transfers_s_;
    link_.send_status({latency_s, changed_.find("lost") != std::string::npos, changed_});
    changed_.clear();
}

Result<void> FederatedClient::run_task(const Task& task, TrainingEngine& engine,
                                       const DataSplits& data, Trainer& trainer,
                                       const TrainerOptions& trainer_options, RunRecord& record,
                                       Progress& progress) {
    const Instant started = monotonic_now();
    ECOPIPE_ASSIGN_OR_RETURN(const auto model, link_.pull_model(task));
    if (!model) return {};
    transfers_s_ = 2 * to_ms(monotonic_now() - started) / 1000;
    const std::uint64_t key = round_key(task.base_version, task.repeat);
    ECOPIPE_RETURN_IF_ERROR(engine.load(*model, key));
    ECOPIPE_ASSIGN_OR_RETURN(const auto tested, evaluate(engine, data, trainer_options));
    ECOPIPE_ASSIGN_OR_RETURN(TrainResult result, trainer.run_round(key, trainer_options.epochs,
                                                                   trainer_options.learning_rate));
    if (result.interrupted) return fail(ExitCode::kRunFailed, "interrupted by a signal");
    const auto bytes = std::make_shared<const std::string>(flatten(result.weights));
    UpdateSlice common;
    common.base_version = task.base_version;
    common.sequence = task.sequence;
    common.epoch = task.epoch;
    common.samples = samples_;
    common.train_loss = result.last_loss;
    common.seconds = to_ms(monotonic_now() - started) / 1000;
    if (tested && tested->labels > 0) {
        common.eval_samples = tested->labels;
        common.eval_loss = tested->loss();
        common.eval_accuracy = tested->accuracy();
        if (!std::isfinite(common.eval_loss)) common.eval_samples = 0;
        if (!std::isfinite(common.eval_loss)) common.eval_loss = 0;
    }
    ECOPIPE_ASSIGN_OR_RETURN(const Verdict verdict,
                             link_.push_update(slices_of(result.weights, *bytes, common), bytes));
    if (!verdict.accepted)
        log_warn("round {}: the update was rejected: {}", task.round, printable(verdict.reason));
    progress.note(fmt::format("round {}: {} steps, loss {:.4f}, {:.1f} s, {}", task.round,
                              result.steps, result.last_loss, common.seconds,
                              verdict.accepted ? "accepted" : "rejected"));
    last_model_ = std::move(result.weights);
    OrderedJson line{{"round", task.round},
                     {"base_version", task.base_version},
                     {"loss", result.last_loss},
                     {"seconds", common.seconds},
                     {"accepted", verdict.accepted}};
    if (common.eval_samples > 0) line["base_accuracy"] = common.eval_accuracy;
    ++rounds_;
    return record.metric(line);
}

Result<ExitCode> FederatedClient::serve(TrainingEngine& engine, const DataSplits& data,
                                        const TrainerOptions& trainer_options, RunRecord& record,
                                        Progress& progress) {
    Trainer trainer(engine, data, trainer_options, record, progress);
    trainer.watch_pace([this](const StepPace& pace) { watch_pace(pace); });
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto task, link_.next_task());
        if (!task) break;
        ECOPIPE_RETURN_IF_ERROR(
            run_task(*task, engine, data, trainer, trainer_options, record, progress));
    }
    if (!last_model_.empty()) {
        ECOPIPE_RETURN_IF_ERROR(options_.save_model(last_model_));
        ECOPIPE_RETURN_IF_ERROR(record.save_timeline());
    }
    record.run["results"] = {{"rounds", rounds_}};
    ECOPIPE_RETURN_IF_ERROR(record.save_run());
    ECOPIPE_RETURN_IF_ERROR(record.finish());
    progress.finish();
    fmt::print("{} rounds with {}; files in {}\n", rounds_, options_.server.text(),
               record.directory());
    return ExitCode::kDone;
}

}  // namespace ecopipe
