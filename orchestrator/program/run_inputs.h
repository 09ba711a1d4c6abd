#pragma once
// What a training is made of before any device is asked: model, data, first weights; and what its
// bytes depend on.

#include "orchestrator/program/train_options.h"
#include "stage_runtime/data/dataset.h"
#include "stage_runtime/engine/model/models.h"

namespace ecopipe {

struct RunInputs {
    ModelSpec spec;
    ModelInfo info;
    DataSplits data;
    TensorMap weights;
};

// Opens all of it and holds it against the flags. Errors: kUsage, kBadFile.
[[nodiscard]] Result<RunInputs> load_inputs(TrainOptions& options);

// --class-weights for the classes of the head: checked, or counted from the training samples.
// load_inputs has done it but for a client of a federation, which maps its classes first.
[[nodiscard]] Result<void> settle_class_weights(const RunInputs& inputs, TrainOptions& options);

// Gives the samples the labels of a federation's list of classes, and the model an output for each.
// Errors: kUsage for a class that the list lacks, or a --num-classes below its length.
[[nodiscard]] Result<void> map_classes(const std::vector<std::string>& list,
                                       const TrainOptions& options, RunInputs& inputs);

// The flags that the trained bytes depend on: a resumed run must have the same. How long it trains,
// unless the schedule of its learning rate depends on that, and on which devices, may change.
[[nodiscard]] OrderedJson training_flags(const TrainOptions& options, const ModelSpec& spec);
// Errors: kUsage naming the first flag that differs.
[[nodiscard]] Result<void> compare_flags(const OrderedJson& before, const OrderedJson& now,
                                         const std::string& source);

// The smallest micro-batch that any step will have goes through the model once, before anything is
// started.
[[nodiscard]] Result<void> try_smallest_micro_batch(const RunInputs& inputs,
                                                    const TrainerOptions& options);

}  // namespace ecopipe
