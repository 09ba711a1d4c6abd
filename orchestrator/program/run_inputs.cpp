#include "orchestrator/program/run_inputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "core/log.h"
#include "stage_runtime/data/augmentation.h"
#include "stage_runtime/data/derived_dataset.h"
#include "stage_runtime/data/model_inputs.h"
#include "stage_runtime/data/open_data.h"
#include "stage_runtime/data/safetensors.h"
#include "stage_runtime/engine/model/loss_names.h"

namespace ecopipe {
namespace {

Result<void> check_splits(const TrainOptions& options, const DataSplits& data) {
    if (options.trainer.loss.name == "cross_entropy" && data.train->num_classes() == 0)
        return fail(
            ExitCode::kUsage,
            "--loss cross_entropy: expected classes as targets, found numbers (--loss mse?)");
    if (options.trainer.early_stop > 0 && !data.validation)
        return fail(ExitCode::kUsage,
                    "--early-stop needs a validation split: of the data, or --validation-fraction");
    if (options.evaluate_only && !data.test)
        return fail(ExitCode::kUsage, "--evaluate-only: the data have no test split");
    if (options.trainer.augmentation.any()) return check_augmentable(*data.train);
    return {};
}

// n / (classes * count), as scikit-learn has it; 1 for a class without a sample.
Result<std::vector<double>> balanced_weights(const Dataset& train, int classes,
                                             std::int64_t ignored) {
    ECOPIPE_ASSIGN_OR_RETURN(std::vector<std::uint64_t> counts, class_counts(train, ignored));
    counts.resize(static_cast<std::size_t>(classes), 0);
    const auto all = static_cast<double>(std::accumulate(counts.begin(), counts.end(), 0ULL));
    std::vector<double> weights;
    for (const std::uint64_t count : counts)
        weights.push_back(count > 0 ? all / (classes * static_cast<double>(count)) : 1);
    return weights;
}

void tell_fixed_modes(const ModelInfo& info) {
    for (std::size_t i = 0; i < info.layers.size(); ++i)
        if (!info.layers[i].fixed_mode.empty())
            log_warn(
                "layer {} ({}): {}: the file was traced in one mode (torch.jit.script keeps both)",
                i, info.layers[i].name, info.layers[i].fixed_mode);
}

// Bytes depend on a file, not on how it is called: a run may be resumed from another directory.
std::string whole_path(const std::string& path) {
    std::error_code error;
    // Of a relative path that does not exist, weakly_canonical makes no whole one.
    const auto from_root = std::filesystem::absolute(path, error);
    const auto whole = std::filesystem::weakly_canonical(from_root, error);
    if (error) return path;
    return whole.has_filename() ? whole.string() : whole.parent_path().string();
}

std::string whole_data(const std::string& data) {
    const std::size_t colon = data.find(':');
    if (colon == std::string::npos || data.starts_with("synthetic:")) return data;
    return data.substr(0, colon + 1) + whole_path(data.substr(colon + 1));
}

}  // namespace

Result<void> settle_class_weights(const RunInputs& inputs, TrainOptions& options) {
    LossSpec& loss = options.trainer.loss;
    const auto classes = static_cast<std::size_t>(inputs.spec.num_classes);
    if (options.balanced_classes) {
        ECOPIPE_ASSIGN_OR_RETURN(
            loss.class_weights,
            balanced_weights(*inputs.data.train, inputs.spec.num_classes, loss.ignore_index));
    }
    if (!loss.class_weights.empty() && loss.class_weights.size() != classes)
        return fail(ExitCode::kUsage,
                    fmt::format("--class-weights: expected one for each of {} classes, found {}",
                                classes, loss.class_weights.size()));
    return {};
}

Result<RunInputs> load_inputs(TrainOptions& options) {
    RunInputs inputs;
    ECOPIPE_ASSIGN_OR_RETURN(inputs.spec, find_model(options.model));
    inputs.spec.freeze = options.freeze;
    inputs.spec.frozen_norm_evaluates = options.frozen_norm_evaluates;
    DataOptions data_options = options.data_options;
    data_options.channels = required_channels(inputs.spec);
    ECOPIPE_ASSIGN_OR_RETURN(inputs.data, open_data(options.data, data_options));
    ECOPIPE_RETURN_IF_ERROR(check_splits(options, inputs.data));
    const int outputs = outputs_wanted(*inputs.data.train, options.trainer.loss.name);
    inputs.spec.num_classes = options.num_classes > 0 ? options.num_classes : outputs;
    if (inputs.spec.num_classes < outputs)
        return fail(ExitCode::kUsage,
                    fmt::format("--num-classes: the data has {} classes, found {}", outputs,
                                inputs.spec.num_classes));
    inputs.spec.input_shape = inputs.data.train->sample_shape();
    if (!options.federated)  // whose classes may be others
        ECOPIPE_RETURN_IF_ERROR(settle_class_weights(inputs, options));
    ECOPIPE_ASSIGN_OR_RETURN(inputs.info, inspect_model(inputs.spec));
    ECOPIPE_RETURN_IF_ERROR(fit_inputs(inputs.data, inputs.info.inputs));
    inputs.spec.input_shape = inputs.data.train->sample_shape();
    tell_fixed_modes(inputs.info);
    ECOPIPE_ASSIGN_OR_RETURN(inputs.weights, initial_weights(inputs.spec, options.trainer.seed));
    if (options.init.empty()) return inputs;
    ECOPIPE_ASSIGN_OR_RETURN(const TensorMap given, read_safetensors(options.init));
    ECOPIPE_RETURN_IF_ERROR(
        adopt_weights(given, options.init, options.init_except, inputs.info, inputs.weights));
    return inputs;
}

Result<void> map_classes(const std::vector<std::string>& list, const TrainOptions& options,
                         RunInputs& inputs) {
    for (auto* split : {&inputs.data.train, &inputs.data.validation, &inputs.data.test}) {
        if (!*split) continue;
        ECOPIPE_ASSIGN_OR_RETURN(*split, with_classes(std::move(*split), list, "--data"));
    }
    const int classes = static_cast<int>(list.size());
    if (options.num_classes > 0 && options.num_classes < classes)
        return fail(ExitCode::kUsage,
                    fmt::format("--num-classes: the federation has {} classes, found {}", classes,
                                options.num_classes));
    inputs.spec.num_classes = std::max(options.num_classes, classes);
    ECOPIPE_ASSIGN_OR_RETURN(inputs.info, inspect_model(inputs.spec));
    ECOPIPE_ASSIGN_OR_RETURN(inputs.weights, initial_weights(inputs.spec, options.trainer.seed));
    return {};
}

OrderedJson training_flags(const TrainOptions& options, const ModelSpec& spec) {
    const TrainerOptions& trainer = options.trainer;
    OrderedJson flags{{"model", spec.id()},
                      {"batch", trainer.batch},
                      {"micro-batches", trainer.micro_batches},
                      {"optimizer", options.optimizer.name},
                      {"lr", trainer.learning_rate},
                      {"momentum", options.optimizer.momentum},
                      {"weight-decay", options.optimizer.weight_decay},
                      {"seed", trainer.seed},
                      {"drop-last", trainer.drop_last},
                      {"no-shuffle", !trainer.shuffle},
                      {"num-classes", spec.num_classes}};
    for (const char* name :
         {"data", "classes", "data-limit", "init", "init-except", "freeze", "loss", "lr-schedule",
          "lr-step-size", "lr-gamma", "warmup-steps", "clip-norm", "ignore-index", "class-weights",
          "validation-fraction", "resize", "normalize", "augment"})
        flags[name] = options.effective.value(name, OrderedJson());
    flags["moments"] =
        options.optimizer.moments == DType::kBF16 ? OrderedJson("bfloat16") : OrderedJson();
    flags["frozen-norm"] = spec.frozen_norm_evaluates ? OrderedJson("eval") : OrderedJson();
    flags["sum-blocks"] = options.sum_blocks > 1 ? OrderedJson(options.sum_blocks) : OrderedJson();
    flags["data"] = whole_data(options.data);
    if (!options.init.empty()) flags["init"] = whole_path(options.init);
    if (trainer.schedule.name == "cosine") {
        flags["steps"] = trainer.has_steps ? OrderedJson(trainer.steps) : OrderedJson();
        flags["epochs"] = trainer.has_steps ? OrderedJson() : OrderedJson(trainer.epochs);
    }
    return flags;
}

Result<void> compare_flags(const OrderedJson& before, const OrderedJson& now,
                           const std::string& source) {
    for (const auto& [name, value] : now.items()) {
        const OrderedJson was = before.value(name, OrderedJson());
        if (was != value)
            return fail(ExitCode::kUsage,
                        fmt::format("--resume: --{} was {} in {}, found {}", name,
                                    printable(was.dump()), source, printable(value.dump())));
    }
    return {};
}

Result<void> try_smallest_micro_batch(const RunInputs& inputs, const TrainerOptions& options) {
    ECOPIPE_ASSIGN_OR_RETURN(const EpochPlan epochs,
                             plan_epochs(inputs.data.train->size(), options));
    if (epochs.steps == 0) return {};
    ECOPIPE_RETURN_IF_ERROR(expect_trainable(inputs.info, inputs.spec));
    int smallest = micro_batch_sizes(options.batch, options.micro_batches).back();
    const bool reaches_last = epochs.steps >= epochs.steps_per_epoch;
    const bool has_whole = epochs.steps_per_epoch > 1 || epochs.last_batch == options.batch;
    const int last = micro_batch_sizes(epochs.last_batch, options.micro_batches).back();
    if (!has_whole) smallest = last;
    if (reaches_last) smallest = std::min(smallest, last);
    ECOPIPE_ASSIGN_OR_RETURN(const Batch batch, first_samples(*inputs.data.train, smallest));
    return try_model(inputs.spec, options.loss, batch);
}

}  // namespace ecopipe
