#include "orchestrator/federated_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "core/command_line.h"
#include "core/files.h"
#include "core/log.h"

namespace ecopipe {

Result<std::vector<KeyValue>> FederatedClient::join(const Dataset& train) {
    ClusterHello hello;
    hello.cluster = options_.cluster;
    hello.program_version = kVersion;
    hello.model = options_.model.id();
    std::random_device device;  // an identity only
    hello.instance = (std::uint64_t{device()} << 32) | device();
    samples_ = static_cast<std::uint64_t>(train.size());
    hello.samples = samples_;
    hello.label_counts.assign(static_cast<std::size_t>(train.num_classes()), 0);
    for (std::int64_t i = 0; i < train.size(); ++i)
        if (const std::int64_t label = train.label(i); label >= 0)
            ++hello.label_counts[static_cast<std::size_t>(label)];
    ECOPIPE_ASSIGN_OR_RETURN(
        const ClusterWelcome welcome,
        link_.join(options_.server, options_.server_name, hello, options_.timeout_s));
    log_info("cluster {} joined the federation of {}", options_.cluster, options_.server.text());
    return welcome.client;
}

Result<void> FederatedClient::run_task(const Task& task, TrainingEngine& engine, Trainer& trainer,
                                       const TrainerOptions& trainer_options, RunRecord& record,
                                       Progress& progress) {
    const Instant started = monotonic_now();
    ECOPIPE_ASSIGN_OR_RETURN(TensorMap model, link_.pull_model(task, options_.timeout_s));
    ECOPIPE_RETURN_IF_ERROR(engine.load(model, round_key(task.base_version)));
    ECOPIPE_ASSIGN_OR_RETURN(TrainResult result,
                             trainer.run_round(task.base_version, trainer_options.epochs,
                                               trainer_options.learning_rate));
    if (result.interrupted) return fail(ExitCode::kRunFailed, "interrupted by a signal");
    const TensorMap& trained = result.weights;
    const std::string bytes = flatten(trained);
    UpdateSlice slice;
    slice.base_version = task.base_version;
    slice.sequence = ++sequence_;
    slice.first_layer = 0;
    slice.last_layer = static_cast<std::uint32_t>(options_.info.layers.size() - 1);
    slice.samples = samples_;
    slice.train_loss = result.last_loss;
    slice.seconds = to_ms(monotonic_now() - started) / 1000;
    slice.bytes = bytes.size();
    slice.sha256 = sha256_hex(bytes);
    ECOPIPE_ASSIGN_OR_RETURN(const Verdict verdict,
                             link_.push_update(slice, bytes, options_.timeout_s));
    if (!verdict.accepted)
        log_warn("round {}: the update was rejected: {}", task.round, printable(verdict.reason));
    progress.note(fmt::format("round {}: {} steps, loss {:.4f}, {:.1f} s, {}", task.round,
                              result.steps, result.last_loss, slice.seconds,
                              verdict.accepted ? "accepted" : "rejected"));
    last_model_ = trained;
    return record.metric({{"round", task.round},
                          {"base_version", task.base_version},
                          {"loss", result.last_loss},
                          {"seconds", slice.seconds},
                          {"accepted", verdict.accepted}});
}

Result<ExitCode> FederatedClient::serve(TrainingEngine& engine, const DataSplits& data,
                                        const TrainerOptions& trainer_options, RunRecord& record,
                                        Progress& progress) {
    Trainer trainer(engine, data, trainer_options, record, progress);
    std::uint64_t rounds = 0;
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto task, link_.next_task(options_.timeout_s));
        if (!task) break;
        ECOPIPE_RETURN_IF_ERROR(
            run_task(*task, engine, trainer, trainer_options, record, progress));
        ++rounds;
    }
    if (!last_model_.empty()) {
        ECOPIPE_RETURN_IF_ERROR(record.save_model(options_.model, last_model_));
        ECOPIPE_RETURN_IF_ERROR(record.save_timeline());
    }
    record.run["results"] = {{"rounds", rounds}};
    ECOPIPE_RETURN_IF_ERROR(record.save_run());
    progress.finish();
    fmt::print("{} rounds with {}; files in {}\n", rounds, options_.server.text(),
               record.directory());
    return ExitCode::kDone;
}

}  // namespace ecopipe
