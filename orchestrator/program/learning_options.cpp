#include "orchestrator/program/learning_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/glob.h"
#include "core/log.h"
#include "stage_runtime/data/open_data.h"
#include "stage_runtime/engine/model/loss_names.h"

namespace ecopipe {
namespace {

constexpr std::int64_t kLearningStepsMax = 1LL << 40;

Result<void> needs(const CommandLine& line, const char* flag, bool met, const char* what) {
    if (!line.given(flag) || met) return {};
    return fail(ExitCode::kUsage, fmt::format("--{} goes with {}", flag, what));
}

Result<void> read_schedule(const CommandLine& line, TrainerOptions& trainer) {
    LearningRateSchedule& schedule = trainer.schedule;
    schedule.name = line.get_text("lr-schedule");
    if (schedule.name != "constant" && schedule.name != "step" && schedule.name != "cosine")
        return fail(ExitCode::kUsage,
                    fmt::format("--lr-schedule: expected constant, step or cosine, found '{}'",
                                printable(schedule.name)));
    schedule.warmup_steps = static_cast<std::uint64_t>(line.get_integer("warmup-steps"));
    schedule.gamma = line.get_number("lr-gamma");
    if (line.has("lr-step-size"))
        schedule.step_size = static_cast<std::uint64_t>(line.get_integer("lr-step-size"));
    if (schedule.name == "step" && schedule.step_size == 0)
        return fail(ExitCode::kUsage, "--lr-schedule step needs --lr-step-size STEPS");
    ECOPIPE_RETURN_IF_ERROR(
        needs(line, "lr-step-size", schedule.name == "step", "--lr-schedule step"));
    return needs(line, "lr-gamma", schedule.name == "step", "--lr-schedule step");
}

Result<void> read_loss(const CommandLine& line, TrainOptions& options) {
    LossSpec& loss = options.trainer.loss;
    loss.name = line.get_text("loss");
    if (!is_loss(loss.name))
        return fail(ExitCode::kUsage,
                    fmt::format("--loss: expected one of {}, found '{}'",
                                fmt::join(kLossNames, ", "), printable(loss.name)));
    const bool classes = loss.name == "cross_entropy";
    for (const char* flag : {"ignore-index", "class-weights"})
        ECOPIPE_RETURN_IF_ERROR(needs(line, flag, classes, "--loss cross_entropy"));
    if (line.has("ignore-index")) loss.ignore_index = line.get_integer("ignore-index");
    options.data_options.ignored_class = classes ? std::optional(loss.ignore_index) : std::nullopt;
    if (!line.has("class-weights")) return {};
    options.balanced_classes = line.get_text("class-weights") == "balanced";
    if (options.balanced_classes) return {};
    ECOPIPE_ASSIGN_OR_RETURN(loss.class_weights, parse_numbers(line.get_text("class-weights"),
                                                               "--class-weights", {0, 1e6}));
    return {};
}

Result<void> read_data(const CommandLine& line, TrainOptions& options) {
    DataOptions& data = options.data_options;
    if (line.has("classes")) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto classes,
                                 parse_integers(line.get_text("classes"), "--classes", {0, 65535}));
        data.classes.assign(classes.begin(), classes.end());
    }
    data.limit = line.has("data-limit") ? line.get_integer("data-limit") : 0;
    data.seed = options.trainer.seed;
    data.validation_fraction = line.get_number("validation-fraction");
    if (line.has("resize")) {
        ECOPIPE_ASSIGN_OR_RETURN(const HeightWidth size,
                                 parse_height_width(line.get_text("resize"), "--resize"));
        data.height = size.height;
        data.width = size.width;
    }
    if (line.has("normalize")) {
        ECOPIPE_ASSIGN_OR_RETURN(data.normalize, parse_normalization(line.get_text("normalize")));
    }
    if (line.has("augment")) {
        ECOPIPE_ASSIGN_OR_RETURN(options.trainer.augmentation,
                                 parse_augmentation(line.get_text("augment"), data.normalize));
    }
    return {};
}

}  // namespace

void declare_learning(CommandLine& line) {
    line.text("optimizer", kOptimizerNames, "sgd");
    line.text("moments",
              "how momentum and Adam's averages are kept: float32, or bfloat16 in half the memory",
              "float32");
    line.number("lr", "learning rate", {0, 1e6}, 0.01);
    line.number("momentum", "of sgd", {0, 1}, 0.9);
    line.number("weight-decay", "L2 penalty; with adamw and adafactor decoupled", {0, 1e6}, 0);
    line.text("lr-schedule", "constant, step or cosine, over the whole run's steps", "constant");
    line.integer("lr-step-size", "of the step schedule: steps until the next factor",
                 {1, kLearningStepsMax});
    line.number("lr-gamma", "of the step schedule: the factor", {0, 1e6}, 0.1);
    line.integer("warmup-steps", "steps in which the learning rate rises linearly",
                 {0, kLearningStepsMax}, 0);
    line.number("clip-norm", "scale a step's gradient down to this norm (default: never)",
                {1e-12, 1e12});
    line.text("loss", "cross_entropy, mse or bce (on logits)", "cross_entropy");
    line.integer("ignore-index",
                 "with cross_entropy: targets of this value do not count (default: -100)",
                 {INT64_MIN, INT64_MAX});
    line.text("class-weights",
              "with cross_entropy: weights of the classes' losses, such as 1,0.5,3, or balanced: "
              "inversely to how often a class is among the training samples");
    line.text("freeze", "parameters that are not trained, such as 'features.*,stem.*'");
    line.text("frozen-norm", kFrozenNormHelp, "train");
    line.text("init", "safetensors file to start from");
    line.text("init-except", "tensors that are not taken from --init, such as 'classifier.*'");
    line.number("validation-fraction", "share of the training samples to validate on", {0, 0.999},
                0);
    line.integer("early-stop", "stop after so many epochs without a lower validation loss",
                 {1, 1000000});
    line.text("classes", "train and test on these labels only, such as 0,1,2");
    line.integer("data-limit", "then on the first N training samples", {1, INT64_MAX});
    line.flag("no-shuffle", "keep file order");
    line.integer("num-classes", "classes of the head (default: the data set's)", {1, 1000000});
    line.text("resize", "size of a folder's pictures, HxW");
    line.text("normalize", "MEAN[,MEAN...]/STD[,STD...], a value a channel or one for all");
    line.text("augment", "flip, crop or flip,crop: training images, keyed by the seed");
    line.integer("readers", "threads that read batches ahead", {1, 64}, 2);
}

Result<void> read_learning(const CommandLine& line, TrainOptions& options) {
    TrainerOptions& trainer = options.trainer;
    trainer.learning_rate = line.get_number("lr");
    ECOPIPE_ASSIGN_OR_RETURN(options.optimizer,
                             parse_optimizer(line.get_text("optimizer"), line.get_text("moments")));
    if (options.optimizer.name != "sgd" && line.given("momentum"))
        return fail(ExitCode::kUsage, "--momentum goes with --optimizer sgd");
    options.optimizer.momentum = options.optimizer.name == "sgd" ? line.get_number("momentum") : 0;
    options.optimizer.weight_decay = line.get_number("weight-decay");
    ECOPIPE_RETURN_IF_ERROR(read_schedule(line, trainer));
    trainer.clip_norm = line.has("clip-norm") ? line.get_number("clip-norm") : 0;
    ECOPIPE_RETURN_IF_ERROR(read_loss(line, options));
    trainer.early_stop =
        line.has("early-stop") ? static_cast<std::uint64_t>(line.get_integer("early-stop")) : 0;
    if (trainer.early_stop > 0 && line.get_flag("no-evaluation"))
        return fail(ExitCode::kUsage, "--early-stop and --no-evaluation exclude each other");
    for (const char* flag : {"lr-schedule", "warmup-steps", "early-stop", "validation-fraction"})
        if (line.given(flag) && line.has("federated"))
            return fail(ExitCode::kUsage,
                        fmt::format("--federated and --{} exclude each other", flag));
    trainer.readers = static_cast<int>(line.get_integer("readers"));
    for (const char* flag : {"freeze", "init-except"})
        if (line.given(flag) && split_patterns(line.get_text(flag)).empty())
            return fail(ExitCode::kUsage, fmt::format("--{}: expected patterns, found none", flag));
    options.freeze = split_patterns(line.get_text("freeze"));
    ECOPIPE_ASSIGN_OR_RETURN(options.frozen_norm_evaluates,
                             parse_frozen_norm(line.get_text("frozen-norm")));
    options.init = line.get_text("init");
    options.init_except = split_patterns(line.get_text("init-except"));
    ECOPIPE_RETURN_IF_ERROR(needs(line, "init-except", !options.init.empty(), "--init FILE"));
    options.num_classes =
        line.has("num-classes") ? static_cast<int>(line.get_integer("num-classes")) : 0;
    return read_data(line, options);
}

}  // namespace ecopipe
