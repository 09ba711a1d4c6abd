#include "orchestrator/program/resumed_run.h"

#include <fmt/format.h>

#include <filesystem>

#include "core/files.h"
#include "core/log.h"
#include "orchestrator/program/run_inputs.h"
#include "orchestrator/train/checkpoint.h"

namespace ecopipe {
namespace {

// run.json as the run to be resumed left it; empty when there is none, or none to be read.
OrderedJson run_before(const RunRecord& record) {
    const auto text = read_file(record.path("run.json"), kConfigBytesMax);
    auto json = text ? OrderedJson::parse(*text, nullptr, false) : OrderedJson();
    return json.is_object() ? json : OrderedJson::object();
}

}  // namespace

bool ended_at(const RunRecord& record, std::uint64_t step) {
    const OrderedJson results = run_before(record).value("results", OrderedJson());
    return results.is_object() && results.value("steps", OrderedJson()) == step &&
           results.value("interrupted", OrderedJson()) == false;
}

Result<std::uint64_t> resume_point(const TrainOptions& options, const RunRecord& record,
                                   TensorMap& state, ValidationHistory& history) {
    const CheckpointStore store(record.path("checkpoints"));
    ECOPIPE_ASSIGN_OR_RETURN(auto checkpoint, store.newest([](const std::string& why) {
        log_warn("checkpoint skipped: {}", why);
    }));
    if (checkpoint) {
        ECOPIPE_RETURN_IF_ERROR(
            compare_flags(checkpoint->flags, options.trainer.checkpoint_flags, "the checkpoint"));
        log_info("resuming from the checkpoint of step {}", checkpoint->step);
        state = std::move(checkpoint->state);
        history = std::move(checkpoint->validation);
        if (history.best_step() > 0 && !std::filesystem::exists(record.path("best.safetensors")))
            log_warn("{}: is missing: the best weights, of step {}, are lost",
                     record.path("best.safetensors"), history.best_step());
        return checkpoint->step;
    }
    if (std::filesystem::exists(record.path("run.json"))) {
        const OrderedJson before = run_before(record);
        if (before.contains("training"))
            ECOPIPE_RETURN_IF_ERROR(
                compare_flags(before["training"], options.trainer.checkpoint_flags, "run.json"));
        log_info("no checkpoint in {}: training from the beginning", record.directory());
    }
    return 0;
}

Result<void> keep_planned_numbers(TrainOptions& options, const RunRecord& record) {
    if (!options.resume) return {};
    const std::string before = record.path("run.json");
    if (!std::filesystem::exists(before)) return {};
    const auto training = run_before(record).value("training", OrderedJson());
    if (options.sum_blocks == 0) {
        const auto blocks =
            training.is_object() ? training.value("sum-blocks", OrderedJson()) : OrderedJson();
        options.sum_blocks = blocks.is_number_integer() ? blocks.get<int>() : 1;
    }
    if (!options.auto_micro_batches) return {};
    const auto found =
        training.is_object() ? training.value("micro-batches", OrderedJson()) : OrderedJson();
    if (!found.is_number_integer() || found.get<int>() < 1)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: training.micro-batches: expected the number of the run, found "
                                "none",
                                before));
    options.trainer.micro_batches = found.get<int>();
    options.auto_micro_batches = false;
    return {};
}

}  // namespace ecopipe
