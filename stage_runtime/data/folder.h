#pragma once
// folder:DIR: {train,val,test}/CLASS/*.jpg|jpeg|png, read as they are needed.

#include "stage_runtime/data/data_options.h"
#include "stage_runtime/data/dataset.h"

namespace ecopipe {

// Classes are the directories' names in byte order. Samples take turns between the classes, files
// in byte order, so that the first N are of all classes. Every header is read once, so that a file
// that is no picture, or of another size than the rest without a resize, shows at once; a picture
// that is damaged further in shows when it is read. Hidden files are passed over. Errors: kBadFile
// naming the file or directory, kUsage when a resize is missing.
[[nodiscard]] Result<DataSplits> open_folder(const std::string& directory,
                                             const DataOptions& options);

}  // namespace ecopipe
