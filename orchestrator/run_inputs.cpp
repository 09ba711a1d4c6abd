#include "orchestrator/run_inputs.h"

#include <fmt/format.h>

#include "core/log.h"
#include "stage_runtime/data/augmentation.h"
#include "stage_runtime/model/loss_names.h"
#include "stage_runtime/model/safetensors.h"

namespace ecopipe {
namespace {

Result<void> check_splits(const TrainOptions& options, const DataSplits& data) {
    if (options.trainer.loss == "cross_entropy" && data.train->num_classes() == 0)
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

}  // namespace

Result<RunInputs> load_inputs(const TrainOptions& options) {
    RunInputs inputs;
    ECOPIPE_ASSIGN_OR_RETURN(inputs.spec, find_model(options.model));
    inputs.spec.freeze = options.freeze;
    DataOptions data_options = options.data_options;
    data_options.channels = required_channels(inputs.spec);
    ECOPIPE_ASSIGN_OR_RETURN(inputs.data, open_data(options.data, data_options));
    ECOPIPE_RETURN_IF_ERROR(check_splits(options, inputs.data));
    const int outputs = outputs_wanted(*inputs.data.train, options.trainer.loss);
    inputs.spec.num_classes = options.num_classes > 0 ? options.num_classes : outputs;
    if (inputs.spec.num_classes < outputs)
        return fail(ExitCode::kUsage,
                    fmt::format("--num-classes: the data has {} classes, found {}", outputs,
                                inputs.spec.num_classes));
    inputs.spec.input_shape = inputs.data.train->sample_shape();
    ECOPIPE_ASSIGN_OR_RETURN(inputs.info, inspect_model(inputs.spec));
    ECOPIPE_ASSIGN_OR_RETURN(inputs.weights, initial_weights(inputs.spec, options.trainer.seed));
    if (options.init.empty()) return inputs;
    ECOPIPE_ASSIGN_OR_RETURN(const TensorMap given, read_safetensors(options.init));
    ECOPIPE_RETURN_IF_ERROR(
        adopt_weights(given, options.init, options.init_except, inputs.weights));
    return inputs;
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
    for (const char* name : {"data", "classes", "data-limit", "init", "init-except", "freeze",
                             "loss", "lr-schedule", "lr-step-size", "lr-gamma", "warmup-steps",
                             "clip-norm", "validation-fraction", "resize", "normalize", "augment"})
        flags[name] = options.effective.value(name, OrderedJson());
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

}  // namespace ecopipe
