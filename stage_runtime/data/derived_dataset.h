#pragma once
// Data sets made of another: a part of its samples, or its samples normalised.

#include "stage_runtime/data/data_options.h"
#include "stage_runtime/data/dataset.h"

namespace ecopipe {

// The samples at `indices`, in that order.
[[nodiscard]] std::unique_ptr<Dataset> make_subset(std::shared_ptr<const Dataset> whole,
                                                   std::vector<std::int64_t> indices);
// Keeps `options.classes`, then the first `options.limit` (when `limited`). Errors: kUsage when
// nothing is left, a class does not exist, or samples have not one class each.
[[nodiscard]] Result<std::unique_ptr<Dataset>> select_samples(std::unique_ptr<Dataset> data,
                                                              const DataOptions& options,
                                                              bool limited);
// Draws options.validation_fraction of the training split, keyed by the seed, into `validation`.
// Errors: kUsage when there is one already or one side would be empty.
[[nodiscard]] Result<void> split_validation(DataSplits& splits, const DataOptions& options);
// Inputs less the mean, over the deviation; a channel is the first dimension of a sample. Errors:
// kUsage when the inputs are integers or the number of channels is another.
[[nodiscard]] Result<std::unique_ptr<Dataset>> make_normalized(std::unique_ptr<Dataset> data,
                                                               const Normalization& normalize);

// The samples with labels of the list `classes`, by the names of their own; data without names, or
// with the same, stay as they are. Errors: kUsage naming the first class that the list lacks, or
// for more classes without names than it has.
[[nodiscard]] Result<std::unique_ptr<Dataset>> with_classes(std::unique_ptr<Dataset> data,
                                                            const std::vector<std::string>& classes,
                                                            const std::string& flag);

}  // namespace ecopipe
