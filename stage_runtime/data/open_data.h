#pragma once
// Data by name: which formats there are.

#include <memory>
#include <string>

#include "stage_runtime/data/data_options.h"
#include "stage_runtime/data/dataset.h"

namespace ecopipe {

// fashion-mnist | idx:DIR | cifar10:DIR | folder:DIR | tensors:DIR | synthetic:CxHxW:CLASSES:COUNT.
// Errors: kUsage for another word or an option that does not go with the data, kBadFile for
// missing, truncated or inconsistent files, naming them.
[[nodiscard]] Result<DataSplits> open_data(const std::string& spec, const DataOptions& options);
// The same for the test split only, to evaluate on.
[[nodiscard]] Result<std::unique_ptr<Dataset>> open_test_data(const std::string& spec,
                                                              const DataOptions& options);
// "MEAN[,MEAN...]/STD[,STD...]". Errors: kUsage.
[[nodiscard]] Result<Normalization> parse_normalization(const std::string& text);

}  // namespace ecopipe
